"""An agent that notes each of its starts: worker.py LOG [stubborn] [quick]. SIGUSR2 makes it fault; it ends itself within a minute.

"stubborn" ignores SIGTERM, "quick" faults at once, "port=N" listens there, "child" has a stubborn grandchild in another session do so.
SIGUSR1 makes it do what "does=oom|exception|deadlock" says; "ready=FILE" has a line of its pid and the time (CLOCK_BOOTTIME, ns) when
it has begun to work.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path


def oom() -> None:
    """Grow until somebody ends it."""
    held = []
    while True:
        held.append(bytearray(b"x" * (1 << 20)))


def exception() -> None:
    """End by an exception that nobody catches."""
    raise KeyError("order 4711")


def deadlock() -> None:
    """Two threads that want what the other has."""
    one, other, both = threading.Lock(), threading.Lock(), threading.Barrier(2)

    def want(first: threading.Lock, second: threading.Lock) -> None:
        with first:
            both.wait()
            with second:
                pass

    threading.Thread(target=want, args=(other, one), daemon=True).start()
    want(one, other)


def word(name: str) -> str | None:
    """The value of "name=value" on the command line."""
    return next((each.partition("=")[2] for each in sys.argv if each.startswith(f"{name}=")), None)


wanted = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: wanted.set())
signal.signal(signal.SIGUSR2, lambda *_: ctypes.string_at(0))
with Path(sys.argv[1]).open("a") as log:
    log.write(f"{os.getpid()}\n")
signal.alarm(60)
if os.getpid() == 1:  # the first process of a namespace is not ended by a signal that it does not catch (pid_namespaces(7))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
port = word("port")
if "quick" in sys.argv:
    ctypes.string_at(0)
if port is not None and ("child" not in sys.argv or os.fork() == 0):
    if "child" in sys.argv:
        os.setsid()
        signal.alarm(60)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(port)))  # no SO_REUSEADDR on purpose: whoever holds it makes this start fail
    listener.listen()
ready = word("ready")
if ready is not None:
    with Path(ready).open("a") as log:
        log.write(f"{os.getpid()} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n")
while not wanted.wait(0.2):
    pass
{"oom": oom, "exception": exception, "deadlock": deadlock}[word("does") or "exception"]()
