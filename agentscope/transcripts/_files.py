"""Opening what an agent keeps below its home: hostile files, read by us as root, bounded, and never outside that home.

The home is resolved inside the agent's root, and everything below it with openat2(2) RESOLVE_BENEATH (Linux 5.6): a link may lead
to another place of the same home, none leads out of it. A file is looked at with O_PATH before it is opened for reading, must be
regular and must belong to the agent's user: what it cannot read itself it cannot have us read, though it makes a hard link.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from agentscope.model import Value
from agentscope.transcripts import Place

TAIL_BYTES = 1 << 20
NAMES_LIMIT = 4096
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class TooMany(OSError):
    """A folder holds more names than we look through."""


class Entry(Value, frozen=True):
    """One file of a folder, as lstat(2) has it: when it was last written (ns since 1970), and how long it is."""

    name: str
    written_ns: int
    size_bytes: int


class Below:
    """One folder of an agent's user and what is below it. Paths are relative to it; all that can go wrong is an OSError."""

    def __init__(self, descriptor: int, uid: int) -> None:
        self.descriptor = descriptor
        self.uid = uid

    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder, in the order of their names."""
        with self._listed(path) as descriptor, os.scandir(descriptor) as entries:
            return sorted(entry.name for entry in _bounded(entries, path) if entry.is_dir(follow_symlinks=False))

    def files(self, path: str, suffix: str) -> list[Entry]:
        """The regular files in a folder that end so and belong to the agent's user, last written first."""
        found = []
        with self._listed(path) as descriptor, os.scandir(descriptor) as entries:
            for entry in _bounded(entries, path):
                if not entry.name.endswith(suffix):
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == self.uid:
                    found.append(Entry(name=entry.name, written_ns=status.st_mtime_ns, size_bytes=status.st_size))
        return sorted(found, key=lambda each: each.written_ns, reverse=True)

    @contextmanager
    def _listed(self, path: str) -> Iterator[int]:
        found = _openat2(self.descriptor, path, os.O_RDONLY | os.O_DIRECTORY, _RESOLVE_BENEATH)
        try:
            yield found
        finally:
            os.close(found)

    def opened(self, path: str) -> tuple[int, os.stat_result]:
        """A descriptor for reading of a regular file of the agent's user, and what it is; the caller closes it."""
        found = _openat2(self.descriptor, path, os.O_PATH | os.O_NOFOLLOW, _RESOLVE_BENEATH)
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_uid != self.uid:
                raise OSError(errno.EPERM, f"it belongs to user {status.st_uid}, not to the agent's {self.uid}", path)
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), status
        finally:
            os.close(found)

    def head(self, path: str, limit_bytes: int) -> bytes:
        """The beginning of a file."""
        descriptor, _ = self.opened(path)
        try:
            return os.pread(descriptor, limit_bytes, 0)
        finally:
            os.close(descriptor)

    def tail(self, path: str) -> tuple[list[bytes], bool]:
        """The whole lines of the last mebibyte, and whether that is the whole file. A last line without its end is kept."""
        descriptor, status = self.opened(path)
        try:
            offset = max(0, status.st_size - TAIL_BYTES)
            text = os.pread(descriptor, TAIL_BYTES, offset)
        finally:
            os.close(descriptor)
        lines = text.split(b"\n")
        return (lines[1:] if offset else lines), offset == 0


@contextmanager
def below(place: Place, uid: int, root: str | None = None) -> Iterator[Below]:
    """A folder of the agent's, as the agent names it: absolute, inside its `root` ("/proc/PID/root"; None: ours)."""
    if not place.base.startswith("/"):
        raise OSError(errno.EINVAL, "not an absolute path", place.base)
    folder = os.O_PATH | os.O_DIRECTORY
    opened = [os.open(root or "/", folder | os.O_CLOEXEC)]
    try:
        opened.append(_openat2(opened[-1], place.base, folder, _RESOLVE_IN_ROOT))
        if place.path:
            opened.append(_openat2(opened[-1], place.path, folder, _RESOLVE_BENEATH))
        yield Below(opened[-1], uid)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _bounded(entries: Iterator["os.DirEntry[str]"], path: str) -> Iterator["os.DirEntry[str]"]:
    for number, entry in enumerate(entries):
        if number >= NAMES_LIMIT:
            raise TooMany(errno.E2BIG, f"more than {NAMES_LIMIT} names", path)
        yield entry


def _openat2(at: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2); without it (Linux before 5.6, some sandboxes) nothing is opened."""
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL byte")
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        raise OSError(errno.EINVAL, "not a path of this system") from None
    how = ctypes.create_string_buffer(struct.pack("<QQQ", flags | os.O_CLOEXEC, 0, resolve | _RESOLVE_NO_MAGICLINKS), 24)
    found = int(_libc.syscall(_SYS_OPENAT2, at, name, how, ctypes.c_size_t(24)))
    if found < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed), path)
    return found
