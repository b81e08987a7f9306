"""A model API that misbehaves as it is told: `model.py MODE [SECONDS]`; says `port N`, then `ready`.

It speaks as much of OpenAI's API as its clients need: POST /v1/chat/completions and /v1/responses, each whole or as a stream of
server-sent events. A real client sends head and body of a request in two pieces, so `server.py`, which reads no HTTP, is no match.
"""

import contextlib
import http.server
import itertools
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

Json = dict[str, Any]
LONGEST_S = 200
TOKENS = ("Let", " me", " think")
COUNT: Json = {
    "prompt_tokens": 1,
    "completion_tokens": 3,
    "input_tokens": 1,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 4,
}
SERVED = itertools.count(1)


class Request(http.server.BaseHTTPRequestHandler):
    """One connection, and what has been asked on it last."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Say nothing: nobody reads it."""

    def do_POST(self) -> None:
        """Whatever is asked, answer as the mode says."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.streams = bool(asked.get("stream"))
        self.chats = self.path.endswith("/chat/completions")
        with contextlib.suppress(OSError):
            MODES[sys.argv[1]](self, float((*sys.argv, "0")[2]))

    def head(self, status: int = 200, length: int | None = None, **more: str) -> None:
        """Status and headers; without a length the answer ends with the connection."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if length is not None else "text/event-stream")
        if length is not None:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def whole(self, content: Json, status: int = 200, **more: str) -> None:
        """One whole answer."""
        body = json.dumps(content).encode()
        self.head(status, len(body), **more)
        self.wfile.write(body)

    def event(self, content: Json) -> None:
        """One event of a stream."""
        name = f"event: {content['type']}\n" if "type" in content else ""
        self.wfile.write(f"{name}data: {json.dumps(content)}\n\n".encode())

    def stream(self, tokens: Iterable[str]) -> None:
        """A stream up to the last of these tokens, its end not included."""
        self.head()
        if self.chats:
            for token in tokens:
                self.event(completion("chat.completion.chunk", delta={"role": "assistant", "content": token}))
            return
        number = itertools.count()
        self.event({"type": "response.created", "sequence_number": next(number), "response": response("in_progress", [])})
        self.event(
            {
                "type": "response.output_item.added",
                "sequence_number": next(number),
                "output_index": 0,
                "item": said("in_progress", []),
            }
        )
        for token in tokens:
            self.event(
                {
                    "type": "response.output_text.delta",
                    "sequence_number": next(number),
                    "item_id": "m",
                    "output_index": 0,
                    "content_index": 0,
                    "delta": token,
                    "logprobs": [],
                }
            )

    def end(self) -> None:
        """The end of a stream."""
        if self.chats:
            self.event(completion("chat.completion.chunk", "stop", delta={}))
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            self.event({"type": "response.completed", "sequence_number": 100, "response": whole_response()})


def completion(kind: str, finish: str | None = None, **content: Json) -> Json:
    """A chat completion, or a piece of one."""
    choice = {"index": 0, "finish_reason": finish, **content}
    return {"id": "c", "object": kind, "created": 1, "model": "m", "choices": [choice]}


def said(status: str, content: list[Json]) -> Json:
    """What the model says, as an entry of a response's output."""
    return {"type": "message", "id": "m", "status": status, "role": "assistant", "content": content}


def response(status: str, output: list[Json]) -> Json:
    """An answer of /v1/responses."""
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": COUNT,
    }


def whole_response() -> Json:
    """A whole answer of /v1/responses."""
    text = {"type": "output_text", "text": "".join(TOKENS), "annotations": [], "logprobs": []}
    return response("completed", [said("completed", [text])])


def whole_answer(request: Request) -> Json:
    """The whole answer to what was asked."""
    if not request.chats:
        return whole_response()
    message = {"role": "assistant", "content": "".join(TOKENS)}
    return {**completion("chat.completion", "stop", message=message), "usage": COUNT}


# --- the modes --------------------------------------------------------------------------------------------------------------


def head_only(request: Request, pause_s: float) -> None:
    """Hang after the headers."""
    request.head(length=None if request.streams else 500)
    time.sleep(LONGEST_S)


def stall(request: Request, pause_s: float) -> None:
    """Some tokens, or half of the body, and then nothing."""
    if request.streams:
        request.stream(TOKENS)
    else:
        body = json.dumps(whole_answer(request)).encode()
        request.head(length=len(body))
        request.wfile.write(body[: len(body) // 2])
    time.sleep(LONGEST_S)


def close(request: Request, pause_s: float) -> None:
    """Close the connection without a word."""
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True


def busy(request: Request, pause_s: float) -> None:
    """Too many requests, whatever comes."""
    error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
    request.whole({"error": error}, 429, Retry_After=f"{pause_s:.0f}")


def busy_at_first(request: Request, pause_s: float) -> None:
    """Too many requests twice, then an answer, and so on."""
    (slow if next(SERVED) % 3 == 0 else busy)(request, pause_s)


def slow(request: Request, pause_s: float) -> None:
    """Answer after a while."""
    time.sleep(pause_s)
    if request.streams:
        request.stream(TOKENS)
        request.end()
    else:
        request.whole(whole_answer(request))


def drip(request: Request, pause_s: float) -> None:
    """One token at a time."""

    def tokens() -> Iterable[str]:
        for _ in range(LONGEST_S):
            yield "."
            time.sleep(pause_s)

    request.stream(tokens())
    request.end()


MODES: dict[str, Callable[[Request, float], None]] = {
    mode.__name__: mode for mode in (head_only, stall, close, busy, busy_at_first, slow, drip)
}


def main() -> None:
    signal.alarm(LONGEST_S)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request)
    server.daemon_threads = True
    print("port", server.server_port)
    print("ready", flush=True)
    server.serve_forever()


main()
