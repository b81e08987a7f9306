"""A program with a screen: notes how it was started, makes a mess of its terminal, then faults, hangs, or ends with status 7.

screen.py LOG crash|hang|child: the first instance does that, the second ends well. "child" leaves a listener in another session.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import termios
import time
import tty
from pathlib import Path

log, act = Path(sys.argv[1]), sys.argv[2]
signal.alarm(60)
terminal = os.isatty(0)
noted = {
    "pid": os.getpid(),
    "ppid": os.getppid(),
    "argv": sys.argv[1:],
    "cwd": str(Path.cwd()),
    "word": os.environ.get("SCREEN_WORD"),
    "terminal": terminal,
    "echo": bool(termios.tcgetattr(0)[3] & termios.ECHO) if terminal else None,
    "foreground": os.tcgetpgrp(0) == os.getpgrp() if terminal else None,
    "ignored": sorted(
        int(n) for n in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
        if signal.getsignal(n) == signal.SIG_IGN
    ),
    "blocked": sorted(int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "open": sorted(int(place.name) for place in Path("/proc/self/fd").iterdir() if int(place.name) > 2 and place.exists()),
}  # fmt: skip
first = not log.exists()
with log.open("a") as file:
    file.write(json.dumps(noted) + "\n")
if not first:
    time.sleep(1.5)
    sys.exit(7)
if terminal:
    tty.setraw(0)
time.sleep(1)
if act == "crash":
    ctypes.string_at(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGSTOP) if act == "stop" else None
if act == "child":
    if os.fork() == 0:
        os.setsid()
        listener = socket.socket()
        listener.bind(("127.0.0.1", int(sys.argv[3])))
        listener.listen()
        time.sleep(50)
    time.sleep(0.5)
    ctypes.string_at(0)
time.sleep(50)
