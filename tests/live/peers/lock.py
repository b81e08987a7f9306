"""Holds a lock on a file: `lock.py flock|lockf PATH idle|busy`; busy works for a third of the time."""

import fcntl
import signal
import sys
import time
from pathlib import Path

signal.alarm(330)
call, path, how = sys.argv[1:]
held = Path(path).open("w")
getattr(fcntl, call)(held, fcntl.LOCK_EX)
print("ready", flush=True)
while True:
    if how == "idle":
        time.sleep(100)
    end = time.monotonic() + 0.03
    while time.monotonic() < end:
        pass
    time.sleep(0.06)
