"""Opening a file by the name that another process has for it, without being led astray.

The path is resolved inside a root with openat2(2) RESOLVE_IN_ROOT (Linux 5.6), so that neither `..` nor an absolute link
leaves it. The last component is opened O_PATH first and looked at before it is opened for reading: opening a device can
already do harm. Files are read with pread(2), never mapped: a mapped file that its owner truncates would end us by SIGBUS.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_LINKS_LIMIT = 40  # MAXSYMLINKS, include/linux/namei.h
_PATH_LIMIT = 4096  # PATH_MAX

_libc = ctypes.CDLL(None, use_errno=True)


def open_regular(path: str, *, root: str | None = None, limit_bytes: int, follow: bool = False) -> int:
    """Descriptor of the regular file at `path` inside `root` (for example "/proc/123/root"; None: our own root).

    Raises OSError only: ELOOP for a symbolic link as last component unless `follow`, EINVAL for what is no regular file, EFBIG
    above `limit_bytes`, ENOSYS where a root is given and the kernel is older than openat2(2). A link never leaves the root.
    """
    found = _open_path(path, root, 0 if follow else os.O_NOFOLLOW)
    try:
        return _reopened(found, path, limit_bytes)[0]
    finally:
        os.close(found)


def read_regular(path: str, *, root: str | None = None, limit_bytes: int, follow: bool = False) -> bytes:
    """All of the regular file at `path` inside `root`; raises OSError as `open_regular` does."""
    descriptor = open_regular(path, root=root, limit_bytes=limit_bytes, follow=follow)
    try:
        return _read_all(descriptor, limit_bytes)
    finally:
        os.close(descriptor)


def read_in(folder: int, name: str, *, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """All of a regular file in an open folder, and what it is; `name` is one component, a link is refused.

    Raises OSError as `open_regular` does.
    """
    if "/" in name or name in {"", ".", ".."}:
        raise OSError(errno.EINVAL, "not the name of a file in a folder", name)
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        descriptor, status = _reopened(found, name, limit_bytes)
    finally:
        os.close(found)
    try:
        return _read_all(descriptor, limit_bytes), status
    finally:
        os.close(descriptor)


def state_of(path: str, *, root: str | None = None, follow: bool = True) -> os.stat_result:
    """What stands at `path` inside `root`, without opening it; raises OSError."""
    found = _open_path(path, root, 0 if follow else os.O_NOFOLLOW)
    try:
        return os.fstat(found)
    finally:
        os.close(found)


def resolved(path: str, *, root: str | None = None) -> str:
    """The path that the links at the end of `path` lead to inside `root`; raises OSError.

    Folders on the way are left as they are written. ELOOP after as many links as the kernel follows.
    """
    for _ in range(_LINKS_LIMIT):
        found = _open_path(path, root, os.O_NOFOLLOW)
        try:
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                return path
            target = os.readlink("", dir_fd=found)
        finally:
            os.close(found)
        # The folder is kept as it is written and ".." is left to the kernel: before a link it means another folder.
        path = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
        if len(path) > _PATH_LIMIT:
            break
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


@contextmanager
def directory(path: str, *, root: str | None = None) -> Iterator[int]:
    """Descriptor of the directory at `path` inside `root`, closed at the end; raises OSError."""
    found = _open_path(path, root, os.O_DIRECTORY)
    try:
        # An O_PATH descriptor cannot be listed.
        readable = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        yield readable
    finally:
        os.close(readable)


def _reopened(found: int, path: str, limit_bytes: int) -> tuple[int, os.stat_result]:
    """A descriptor for reading of what an O_PATH descriptor stands for, if it is a regular file of that size at most."""
    status = os.fstat(found)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if status.st_size > limit_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), status


def _read_all(descriptor: int, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = limit_bytes
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _open_path(path: str, root: str | None, flags: int) -> int:
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL byte")
    flags |= os.O_PATH | os.O_CLOEXEC
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        raise OSError(errno.EINVAL, "not a path of this system") from None
    at = os.open(root or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = ctypes.create_string_buffer(struct.pack("<QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS), 24)
        found = int(_libc.syscall(_SYS_OPENAT2, at, name, how, ctypes.c_size_t(24)))
        failed = ctypes.get_errno() if found < 0 else 0
    finally:
        os.close(at)
    if found >= 0:
        return found
    if failed in {errno.ENOSYS, errno.EPERM} and root is None:
        return os.open(name, flags)  # an old kernel, or a seccomp filter that does not know openat2
    raise OSError(failed, os.strerror(failed), path)
