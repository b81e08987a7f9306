"""A file that is rotated: `file:/var/log/agentscope/events.ndjson`, and beside it `.1` (the newest), `.2` and so on.

It is for its owner only, and one agentscope writes it at a time. Where somebody else moves or removes it (logrotate), a new one is
begun. A line is there whole or not at all: what a full disk cut is taken back, and tried again.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from agentscope.errors import BadInput, UsageError
from agentscope.record import Line
from agentscope.sinks import Around, Chosen, cannot_open
from agentscope.sinks import Options as NoOptions
from agentscope.sinks._outlet import NotTaken, Outlet
from agentscope.sizes import bytes_of

SCHEMES = ("file",)
EXAMPLE = "file:/var/log/agentscope.ndjson"
USUAL = ()
KEPT_AT_MOST = 1000
LEAST_BYTES = 64 << 10
FLAGS = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class Options(NoOptions, frozen=True):
    """`size` is that of one file, `keep` how many full ones stay beside it."""

    size: str = "64M"
    keep: int = 5


def path_of(to: str) -> str:
    """The path in file:/path and file:///path."""
    path = to.partition(":")[2]
    return path[2:] if path.startswith("///") else path


def checked(wrong: str, to: str, options: Options) -> None:
    """What can be wrong before anything is opened.

    Raises:
        BadInput: no path, no size, no number.
    """
    path = path_of(to)
    if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
        raise BadInput(wrong, f"{to!r}: a file has a path from / on", EXAMPLE)
    if bytes_of(f"{wrong}: size", options.size) < LEAST_BYTES:
        raise BadInput(f"{wrong}: size", f"{options.size!r} is less than 64K", 'size = "64M"')
    if not 0 <= options.keep <= KEPT_AT_MOST:
        raise BadInput(f"{wrong}: keep", f"{options.keep} is not from 0 to {KEPT_AT_MOST} files", "keep = 5")


def opened(chosen: Chosen, around: Around) -> Outlet:
    """The file, open and locked; one that only has no room now is tried again later.

    Raises:
        UsageError: it can not be opened, is no file of ours, or another agentscope writes it.
    """
    file = File(path_of(chosen.to), bytes_of("size", chosen.options.size), chosen.options.keep)
    try:
        file.open()
    except NotTaken:
        pass  # a full disk, at boot perhaps
    except OSError as error:
        raise cannot_open(f"cannot write the stream to {file.path}", file.path, error) from None
    return Outlet(chosen, around, file, f"the file {file.path}")


class File:
    """The newest file. Lives in the thread of its outlet."""

    def __init__(self, path: str, size_bytes: int, keep: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.keep = keep
        self.descriptor: int | None = None
        self.bytes = 0

    def open(self) -> None:
        """Open it, if it is not.

        Raises:
            NotTaken: the disk has no room for it now. UsageError: it is not ours alone. OSError: it cannot be opened.
        """
        if self.descriptor is not None:
            return
        try:
            descriptor = os.open(self.path, FLAGS | os.O_CREAT, 0o600)
        except OSError as error:
            raise self.trouble(error) from error
        try:
            self.bytes = own(descriptor, self.path)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor

    def put(self, lines: Sequence[Line]) -> None:
        """Append these, rotating where the file is full.

        Raises:
            NotTaken: the disk is full, or fails; nothing of the line is left in the file.
        """
        taken = 0
        try:
            self.follow()
            while taken < len(lines):
                if self.bytes and self.bytes + len(lines[taken].encoded) > self.size_bytes:
                    self.rotate()
                room = self.size_bytes - self.bytes
                batch: list[bytes] = []
                for line in lines[taken:]:
                    if batch and len(line.encoded) > room:
                        break
                    batch.append(line.encoded)
                    room -= len(line.encoded)
                self.append(b"".join(batch))
                taken += len(batch)
        except (OSError, UsageError) as error:
            why = error.why or error.what if isinstance(error, UsageError) else error.strerror or str(error)
            raise NotTaken(why, taken) from None
        except NotTaken as error:
            error.taken = taken
            raise

    def follow(self) -> None:
        """Go on in a new file where somebody took ours away."""
        if self.descriptor is not None:
            facts = os.fstat(self.descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(self.path), facts):
                    self.bytes = facts.st_size  # it may have been cut
                    return
            self.close()
        self.open()

    def append(self, content: bytes) -> None:
        """All of it or nothing."""
        assert self.descriptor is not None
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self.descriptor, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.descriptor, self.bytes)
            raise
        self.bytes += len(content)

    def rotate(self) -> None:
        """Move every file one number up, drop the oldest, and begin a new one."""
        oldest = f"{self.path}.{self.keep}" if self.keep else self.path
        with suppress(FileNotFoundError):
            os.unlink(oldest)  # noqa: PTH108 - paths of the config, as they are written there
        for number in range(self.keep, 0, -1):
            before = f"{self.path}.{number - 1}" if number > 1 else self.path
            with suppress(FileNotFoundError):
                os.rename(before, f"{self.path}.{number}")  # noqa: PTH104
        self.close()
        self.open()

    def close(self) -> None:
        """Let go of it, and of its lock."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @staticmethod
    def trouble(error: OSError) -> Exception:
        """What passes by itself is tried again."""
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}:
            return NotTaken(error.strerror or str(error))
        return error


def own(descriptor: int, path: str) -> int:
    """Make sure that it is a file of ours alone, and that it ends with a whole line; its size.

    Raises:
        UsageError: it is not.
    """
    facts = os.fstat(descriptor)
    where = f"cannot write the stream to {path}"
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(where, "it is not a regular file", "a path where there is nothing yet")
    if facts.st_uid != os.geteuid() or facts.st_nlink != 1 or facts.st_mode & 0o022:
        raise UsageError(where, "it belongs to others, or others can write it too", f"ls -l {path}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(where, "another agentscope writes it", "another path") from None
    size = facts.st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a power cut tore the last line
        size += os.write(descriptor, b"\n")
    return size
