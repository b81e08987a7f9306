"""An agent under systemd. SIGUSR1 makes it grow until its MemoryMax ends it, SIGUSR2 makes it fault; "stubborn" ignores SIGTERM."""

import ctypes
import signal
import sys
import time


def grow(*_):
    """Take memory without end."""
    held = []
    while True:
        held.append(bytearray(b"x" * (1 << 20)))


signal.alarm(60)
signal.signal(signal.SIGUSR1, grow)
signal.signal(signal.SIGUSR2, lambda *_: ctypes.string_at(0))
if sys.argv[1:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1:] == ["clean"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    time.sleep(0.2)
