"""Lines on disk that were not sent yet: appended as they come, read from the first that is not sent, emptied once all are.

It outlives us: what waits is sent at the next start, with the ids that it always had. One process has it at a time.
"""

import fcntl
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agentscope.errors import UsageError
from agentscope.sinks._outlet import NotTaken

FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
READ_BYTES = 1 << 20
OFFSET_DIGITS = 20
LINE_BYTES = 8 << 20  # longer than any line; what has no end within it is none


class Spool:
    """A file of lines, and beside it how far it is sent. Every method may be called from any thread."""

    def __init__(self, folder: Path, name: str, limit_bytes: int) -> None:
        self.path = folder / f"{name}.ndjson"
        self.limit_bytes = limit_bytes
        self.lock = threading.Lock()
        self.file = self.place = -1
        self.size = self.sent = 0

    def open(self) -> None:
        """Take it, with what is in it from before.

        Raises:
            UsageError: another process has it. OSError: it cannot be opened.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file = os.open(self.path, FLAGS, 0o600)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.place = os.open(self.path.with_suffix(".sent"), FLAGS & ~os.O_APPEND, 0o600)
        except BlockingIOError:
            os.close(self.file)
            raise UsageError(
                f"cannot use the spool {self.path}", "another agentscope has it", "another name, or --state-dir"
            ) from None
        self.size = whole_bytes(self.file)
        os.ftruncate(self.file, self.size)  # what a power cut tore off is no line
        with suppress(ValueError):
            self.sent = int(os.pread(self.place, OFFSET_DIGITS, 0) or b"0")
        if not 0 <= self.sent <= self.size or (self.sent and os.pread(self.file, 1, self.sent - 1) != b"\n"):
            self.sent = 0  # sent again, and known by their ids

    def append(self, lines: Sequence[bytes]) -> None:
        """Keep these.

        Raises:
            NotTaken: it is full, or the disk is; nothing of them is kept.
        """
        content = b"".join(lines)
        with self.lock:
            if self.size - self.sent + len(content) > self.limit_bytes:
                raise NotTaken("the spool is full")
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(self.file, left) :]
            except OSError as error:
                with suppress(OSError):
                    os.ftruncate(self.file, self.size)
                raise NotTaken(error.strerror or str(error)) from None
            self.size += len(content)

    def read(self) -> list[bytes]:
        """The first lines that are not sent, some at a time."""
        with self.lock:
            content = os.pread(self.file, min(READ_BYTES, self.size - self.sent), self.sent)
            if b"\n" not in content:
                content = os.pread(self.file, min(LINE_BYTES, self.size - self.sent), self.sent)
        return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)

    def forget(self, lines: Sequence[bytes]) -> None:
        """These, the first ones, are sent."""
        with self.lock:
            self.sent += sum(map(len, lines))
            if self.sent >= self.size:
                os.ftruncate(self.file, 0)
                self.size = self.sent = 0
            elif self.sent > self.limit_bytes // 2:
                self.compact()
            os.pwrite(self.place, b"%0*d" % (OFFSET_DIGITS, self.sent), 0)

    def compact(self) -> None:
        """Put what is left into the file's own beginning: a stream that never pauses would let it grow for ever."""
        rest = os.pread(self.file, self.size - self.sent, self.sent)
        made = os.open(self.path.with_suffix(".new"), FLAGS | os.O_TRUNC, 0o600)
        try:
            fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = memoryview(rest)
            while left:
                left = left[os.write(made, left) :]
            # first the offset: a crash between the two sends some again, which their ids tell, and loses none
            os.pwrite(self.place, b"%0*d" % (OFFSET_DIGITS, 0), 0)
            self.path.with_suffix(".new").replace(self.path)
        except OSError:  # no room for a copy: the next time
            os.close(made)
            return
        os.close(self.file)
        self.file, self.size, self.sent = made, len(rest), 0

    @property
    def is_empty(self) -> bool:
        """Whether everything is sent."""
        return self.sent >= self.size

    def close(self) -> None:
        """Let go of it; what is in it stays."""
        with self.lock:
            for descriptor in (self.file, self.place):
                if descriptor >= 0:
                    os.close(descriptor)
            self.file = self.place = -1


def whole_bytes(file: int) -> int:
    """The length of a file up to its last whole line."""
    size = os.fstat(file).st_size
    tail = os.pread(file, min(size, LINE_BYTES), max(0, size - LINE_BYTES))
    return size - len(tail) + tail.rfind(b"\n") + 1
