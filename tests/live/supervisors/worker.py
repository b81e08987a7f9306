"""An agent that notes each of its starts: worker.py LOG [stubborn] [quick]. SIGUSR2 makes it fault; it ends itself within a minute.

"stubborn" ignores SIGTERM, "quick" faults at once, "port=N" listens there, "child" has a stubborn grandchild in another session do so.
"""

import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path

with Path(sys.argv[1]).open("a") as log:
    log.write(f"{os.getpid()}\n")
signal.alarm(60)
signal.signal(signal.SIGUSR2, lambda *_: ctypes.string_at(0))
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
port = next((int(word[5:]) for word in sys.argv if word.startswith("port=")), None)
if "quick" in sys.argv:
    ctypes.string_at(0)
if port is not None and ("child" not in sys.argv or os.fork() == 0):
    if "child" in sys.argv:
        os.setsid()
        signal.alarm(60)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))  # no SO_REUSEADDR on purpose: whoever holds it makes this start fail
    listener.listen()
while True:
    time.sleep(0.2)
