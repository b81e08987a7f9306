"""A program on a terminal of ours: what it draws is read, and keys are typed."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

LINES, COLUMNS = 40, 120


class Terminal:
    """One program on one terminal."""

    def __init__(self, argv: Sequence[object]) -> None:
        self.ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [str(word) for word in argv], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)

    def read(self, timeout_s: float) -> bytes:
        """What it draws within this time; nothing once it has ended."""
        if select.select([self.ours], [], [], timeout_s)[0]:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                return os.read(self.ours, 1 << 16)
        return b""

    def until(self, wanted: str, timeout_s: float = 30.0) -> None:
        """Read until this was drawn."""
        seen, ends = b"", time.monotonic() + timeout_s
        while wanted.encode() not in seen:
            assert time.monotonic() < ends, f"{wanted!r} was not drawn, but {seen[-2000:]!r}"
            seen += self.read(0.1)

    def type(self, keys: str) -> None:
        """Keys, as a person types them."""
        os.write(self.ours, keys.encode())

    def close(self) -> None:
        """End it; what it still draws is read, or it would wait for us."""
        self.process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + 15
        while self.process.poll() is None and time.monotonic() < ends:
            self.read(0.05)
        self.process.kill()
        self.process.wait(10)
        os.close(self.ours)
