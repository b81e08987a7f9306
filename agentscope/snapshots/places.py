"""Folders by their path, reached without being led astray, and the moves that put one in place of another in one step.

We work as root in folders that an agent's user may write. A link on the way counts only if root or the owner of the config made
it, and the last step is by descriptor: the worst that the other user can do is to exchange what was theirs to exchange already.
"""

import contextlib
import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agentscope.model import Value

_LINKS_LIMIT = 40  # MAXSYMLINKS, include/linux/namei.h
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # include/uapi/linux/fs.h
_NAME_LIMIT = 255  # NAME_MAX

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class Inode(Value, frozen=True):
    """Which folder it is, by whatever name."""

    device: int
    number: int


def inode_of(status: os.stat_result) -> Inode:
    """The identity in what stat(2) tells."""
    return Inode(device=status.st_dev, number=status.st_ino)


class Place(Value, frozen=True):
    """One name in an open folder: `folder` is its descriptor, `path` the whole path without any link."""

    folder: int
    name: str
    path: Path

    def status(self) -> os.stat_result | None:
        """What stands there, itself and not what it leads to; None: nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def inode(self) -> Inode | None:
        """Which file or folder stands there."""
        status = self.status()
        return None if status is None else inode_of(status)


def trusted(owner_uid: int) -> frozenset[int]:
    """Whose links are followed: root's, those of the config's owner, and our own."""
    return frozenset({0, owner_uid, os.geteuid()})


@contextlib.contextmanager
def placed(path: Path, users: frozenset[int]) -> Iterator[Place]:
    """The place at a path whose folder exists; its folder is closed at the end.

    Raises:
        OSError: the folder is not there, or a link on the way was made by another user (ELOOP).
    """
    if not path.is_absolute() or path.name in {"", ".."}:
        raise OSError(errno.EINVAL, "no path from / to a name", str(path))
    folder = open_folder(path.parent, users)
    try:
        yield Place(folder=folder, name=path.name, path=Path(f"/proc/self/fd/{folder}").readlink() / path.name)
    finally:
        os.close(folder)


def open_folder(path: Path, users: frozenset[int], check: Callable[[os.stat_result], None] = lambda _: None) -> int:
    """Descriptor (O_PATH) of a folder, reached step by step, as systemd's chase() does with CHASE_SAFE.

    `check` is told of every folder on the way, the last too, and may raise.

    Raises:
        OSError: as `placed`.
    """
    steps = list(reversed(path.parts[1:]))
    at, links = os.open("/", _STEP), 0
    try:
        check(os.fstat(at))
        while steps:
            step = steps.pop()
            found = os.open(step, _STEP, dir_fd=at)
            status = os.fstat(found)
            if stat.S_ISDIR(status.st_mode):
                os.close(at)
                at = found
                check(status)
                continue
            try:
                target = _followed(found, status, users)
            finally:
                os.close(found)
            links += 1
            if links > _LINKS_LIMIT:
                break
            steps.extend(reversed([part for part in target.parts if part != "/"]))
            if target.is_absolute():
                os.close(at)
                at = os.open("/", _STEP)
    except BaseException:
        os.close(at)
        raise
    if steps:
        os.close(at)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return at


def _followed(found: int, status: os.stat_result, users: frozenset[int]) -> Path:
    """Where a link on the way leads, if it is to be followed."""
    if not stat.S_ISLNK(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if status.st_uid not in users:
        raise OSError(errno.ELOOP, f"a link on the way was made by uid {status.st_uid}")
    return Path(os.readlink("", dir_fd=found))


def exchange(one: Place, other: Place) -> None:
    """Let two names change places in one step (renameat2(2), RENAME_EXCHANGE).

    Raises:
        OSError: EXDEV on two file systems, EINVAL where the file system cannot do it, EBUSY at a mount point.
    """
    _rename(one, other, _RENAME_EXCHANGE)


def move(one: Place, other: Place) -> None:
    """Give it another name, where nothing stands yet (RENAME_NOREPLACE).

    Raises:
        OSError: EEXIST where something does; as `exchange`.
    """
    _rename(one, other, _RENAME_NOREPLACE)


def _rename(one: Place, other: Place, flags: int) -> None:
    call = getattr(_libc, "renameat2", None)  # glibc 2.28
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(one.folder, os.fsencode(one.name), other.folder, os.fsencode(other.name), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one.path), None, str(other.path))


def relink(place: Place, target: str) -> None:
    """Let a link lead elsewhere in one step: a new one is made beside it and renamed over it."""
    beside = beside_of(place, "link")
    os.symlink(target, beside.name, dir_fd=place.folder)
    try:
        status = place.status()
        if status is not None:
            os.chown(beside.name, status.st_uid, status.st_gid, dir_fd=place.folder, follow_symlinks=False)
        os.rename(beside.name, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside.name, dir_fd=place.folder)
        raise


def beside_of(place: Place, purpose: str) -> Place:
    """A name in the same folder that nobody else will choose; hidden, as it is nothing to work with."""
    name = f".{place.name[: _NAME_LIMIT - 60]}.agentscope-{purpose}-{os.urandom(4).hex()}"
    return Place(folder=place.folder, name=name, path=place.path.with_name(name))


def sync_file_system(folder: int) -> None:
    """Have all that was written to its file system on the disk (syncfs(2)): cheaper than each of ten thousand files."""
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        if _libc.syncfs(opened) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(opened)


def sync_folder(folder: int) -> None:
    """Have its names on the disk."""
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def set_aside(path: Path, owner_uid: int) -> Path | None:
    """Rename a file or folder to a name beside it with the time in it; the new path, or None where nothing stood there.

    Where the config is not root's, its owner must be able to do the same.

    Raises:
        OSError: it cannot be renamed; PermissionError, it is not theirs.
    """
    with placed(path, trusted(owner_uid)) as place:
        if place.status() is None:
            return None
        folder_uid = os.fstat(place.folder).st_uid
        if owner_uid not in {0, folder_uid}:
            raise PermissionError(errno.EPERM, f"its folder is of uid {folder_uid}, the config of uid {owner_uid}", str(path))
        moment = time.strftime("%Y%m%dT%H%M%S")
        for number in range(100):
            name = f"{place.name[: _NAME_LIMIT - 40]}.aside-{moment}{f'-{number}' if number else ''}"
            aside = Place(folder=place.folder, name=name, path=place.path.with_name(name))
            try:
                move(place, aside)
            except FileExistsError:
                continue
            return aside.path
    raise FileExistsError(errno.EEXIST, "every name beside it is taken", str(path))
