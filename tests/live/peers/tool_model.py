"""A model API that asks for one tool call: `tool_model.py COMMAND LOG`, says `port N` and `ready`.

It speaks the four protocols of the command-line agents: Anthropic messages, OpenAI responses, OpenAI chat completions, Gemini.
Asked for the FIRST thing, its answer is a call of the shell tool that the request offers, with COMMAND; to all else it is a sentence.
Each request for an answer is one line in LOG: its path, the tools that it offers, and whether the conversation holds the FIRST thing
and the SECOND: both, where a session goes on; only the second, where another was begun.
"""

import http.server
import itertools
import json
import sys
import threading
import time
from pathlib import Path

COMMAND, LOG = sys.argv[1], sys.argv[2]
FIRST, SECOND = "wait-a-while", "go-on-then"  # words of the prompts
SHELLS = ("Bash", "bash", "run_shell_command", "shell", "exec_command", "shell_command", "local_shell", "container.exec")
WORDS = "That is done."
writing = threading.Lock()
serials = itertools.count(1)


def tools_of(asked: dict) -> dict[str, dict]:
    """The schemas of the tools that the request offers, by name, whatever the protocol."""
    found: dict[str, dict] = {}
    for tool in asked.get("tools") or []:
        function = tool.get("function") or tool
        for each in tool.get("functionDeclarations") or [function]:
            name = each.get("name") or each.get("type")
            if name:
                found[name] = each.get("input_schema") or each.get("parameters") or each.get("parametersJsonSchema") or {}
    return found


def call_of(tools: dict[str, dict]) -> tuple[str, dict] | None:
    """The shell tool and the arguments that it takes to run COMMAND; None where it offers none (a request for a title)."""
    name = next((name for name in SHELLS if name in tools), None)
    if name is None:
        return None
    wanted = tools[name].get("properties") or {"command": {}}
    arguments: dict = {}
    for key, schema in wanted.items():
        if key in {"command", "cmd"}:
            arguments[key] = ["bash", "-c", COMMAND] if schema.get("type") == "array" else COMMAND
        elif key == "description":
            arguments[key] = "Waits"
        elif key == "yield_time_ms":
            arguments[key] = 30000
        elif key == "is_background":
            arguments[key] = False
    return name, arguments


class Answers(http.server.BaseHTTPRequestHandler):
    """One connection of an agent."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Nothing: the log is ours."""

    def whole(self, value: dict) -> None:
        """An answer in one piece."""
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events: list[tuple[str | None, dict | str]]) -> None:
        """An answer as server-sent events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for name, event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            self.wfile.write(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())
            self.wfile.flush()
        self.close_connection = True

    def do_HEAD(self) -> None:
        """A look whether there is anybody."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """The list of models."""
        self.whole({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]})

    def do_POST(self) -> None:
        """A request for an answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            asked = json.loads(body)
        except ValueError:
            asked = {}
        path = self.path.split("?")[0]
        said = asked.get("messages") or asked.get("input") or asked.get("contents") or []
        past = json.dumps(said)
        tools = tools_of(asked)
        call = None if FIRST not in past or SECOND in past or COMMAND in past else call_of(tools)
        self.serial = next(serials)
        with writing, Path(LOG).open("a") as log:
            line = {
                "at": time.time(),
                "path": path,
                "tools": sorted(tools),
                "first": FIRST in past,
                "second": SECOND in past,
                "call": call and call[0],
            }
            log.write(json.dumps(line) + "\n")
        if path.endswith("/messages"):
            self.as_anthropic(asked, call)
        elif path.endswith("/responses"):
            self.as_responses(asked, call)
        elif path.endswith("/chat/completions"):
            self.as_chat(asked, call)
        elif "enerateContent" in path:
            self.as_gemini(path, call)
        else:
            self.whole({"input_tokens": 1, "totalTokens": 1})

    def as_anthropic(self, asked: dict, call: tuple[str, dict] | None) -> None:
        """https://docs.anthropic.com/en/api/messages-streaming."""
        usage = {"input_tokens": 1, "output_tokens": 1}
        block = (
            {"type": "text", "text": WORDS}
            if call is None
            else {"type": "tool_use", "id": f"toolu_{self.serial}", "name": call[0], "input": call[1]}
        )
        why = "end_turn" if call is None else "tool_use"
        message = {
            "id": f"msg_{self.serial}",
            "type": "message",
            "role": "assistant",
            "model": asked.get("model", "m"),
            "stop_sequence": None,
            "usage": usage,
        }
        if not asked.get("stream"):
            self.whole({**message, "content": [block], "stop_reason": why})
            return
        if call is None:
            start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": WORDS}
        else:
            start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
        events = [
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": start},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": why, "stop_sequence": None}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ]
        self.stream([(event["type"], event) for event in events])

    def as_responses(self, asked: dict, call: tuple[str, dict] | None) -> None:
        """https://platform.openai.com/docs/api-reference/responses-streaming."""
        if call is None:
            content = [{"type": "output_text", "text": WORDS, "annotations": [], "logprobs": []}]
            item = {"type": "message", "id": f"m{self.serial}", "status": "completed", "role": "assistant", "content": content}
        else:
            item = {
                "type": "function_call",
                "id": f"fc{self.serial}",
                "call_id": f"call{self.serial}",
                "name": call[0],
                "arguments": json.dumps(call[1]),
                "status": "completed",
            }
        counts = {
            "input_tokens": 1,
            "output_tokens": 1,
            "total_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        answer = {
            "id": f"r{self.serial}",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "model": "m",
            "output": [item],
            "usage": counts,
        }
        if not asked.get("stream"):
            self.whole(answer)
            return
        events = [
            {"type": "response.created", "response": {**answer, "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": answer},
        ]
        self.stream([(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)])

    def as_chat(self, asked: dict, call: tuple[str, dict] | None) -> None:
        """https://platform.openai.com/docs/api-reference/chat-streaming."""
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        why = "stop" if call is None else "tool_calls"
        message: dict = {"role": "assistant", "content": WORDS if call is None else None}
        if call is not None:
            message["tool_calls"] = [
                {
                    "index": 0,
                    "id": f"call{self.serial}",
                    "type": "function",
                    "function": {"name": call[0], "arguments": json.dumps(call[1])},
                }
            ]
        shell = {"id": f"c{self.serial}", "created": 1, "model": "m"}
        if not asked.get("stream"):
            self.whole(
                {
                    **shell,
                    "object": "chat.completion",
                    "choices": [{"index": 0, "message": message, "finish_reason": why}],
                    "usage": usage,
                }
            )
            return
        chunk = {**shell, "object": "chat.completion.chunk"}
        events: list[tuple[str | None, dict | str]] = [
            (None, {**chunk, "choices": [{"index": 0, "delta": message, "finish_reason": None}]}),
            (None, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": why}]}),
            (None, {**chunk, "choices": [], "usage": usage}),
            (None, "[DONE]"),
        ]
        self.stream(events)

    def as_gemini(self, path: str, call: tuple[str, dict] | None) -> None:
        """https://ai.google.dev/api/generate-content."""
        part = {"text": WORDS} if call is None else {"functionCall": {"name": call[0], "args": call[1]}}
        counts = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
        answer = {
            "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
            "usageMetadata": counts,
            "modelVersion": "m",
        }
        if "stream" in path:
            self.stream([(None, answer)])
        else:
            self.whole(answer)


class Server(http.server.ThreadingHTTPServer):
    """One thread for each connection."""

    daemon_threads = True


server = Server(("127.0.0.1", 0), Answers)
print(f"port {server.server_port}", flush=True)
print("ready", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
