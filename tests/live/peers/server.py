"""A server that misbehaves as it is told: `server.py [--at ADDRESS] MODE [SECONDS]`; says `port N`, then `ready`.

ADDRESS is an IP address or a path of a unix socket. Every connection is served by a thread of its own, request by request.
"""

import contextlib
import itertools
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

SERVED = itertools.count(1)


def answer(connection: socket.socket, status: str = "200 OK", more: str = "", body: str = "fine\n") -> None:
    """One whole answer."""
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}".encode())


def silent(connection: socket.socket, pause_s: float) -> None:
    """Say nothing, ever."""


def stall(connection: socket.socket, pause_s: float) -> None:
    """Promise 500 bytes and send 5."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello")


def slow(connection: socket.socket, pause_s: float) -> None:
    """Answer after a while."""
    time.sleep(pause_s)
    answer(connection)


def drip(connection: socket.socket, pause_s: float) -> None:
    """A stream of server-sent events, one token at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for token in itertools.count():
        connection.sendall(f"data: token {token}\n\n".encode())
        time.sleep(pause_s)


def busy(connection: socket.socket, pause_s: float) -> None:
    """Too many requests, whatever comes."""
    answer(connection, "429 Too Many Requests", "Retry-After: 0\r\n")


def busy_at_first(connection: socket.socket, pause_s: float) -> None:
    """Too many requests twice, then answers, and so on."""
    answer(connection, *([] if next(SERVED) % 3 == 0 else ["429 Too Many Requests", f"Retry-After: {pause_s:.0f}\r\n"]))


def close(connection: socket.socket, pause_s: float) -> None:
    """Answer at some length and close."""
    answer(connection, body="x" * 2000)
    connection.shutdown(socket.SHUT_RDWR)


MODES: dict[str, Callable[[socket.socket, float], None]] = {
    mode.__name__: mode for mode in (silent, stall, slow, drip, busy, busy_at_first, close)
}


def serve(connection: socket.socket, mode: str, pause_s: float) -> None:
    """Every request of one connection; a request is whatever comes at once."""
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            MODES[mode](connection, pause_s)


def main() -> None:
    signal.alarm(330)
    at, arguments = ("127.0.0.1", sys.argv[1:]) if sys.argv[1] != "--at" else (sys.argv[2], sys.argv[3:])
    if at.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(at)
        listener.listen()
    else:
        listener = socket.create_server((at, 0))
        print("port", listener.getsockname()[1])
    print("ready", flush=True)
    while True:
        threading.Thread(
            target=serve, args=(listener.accept()[0], arguments[0], float((*arguments, "0")[1])), daemon=True
        ).start()


main()
