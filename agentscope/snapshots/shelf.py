"""What is kept of one folder in the state directory: `STATE/snapshots/NAME-DIGEST/` with the snapshots, a lock and a journal.

A snapshot is a folder named by its moment, with `tree` and `manifest.json`. It gets that name when it is whole and on the disk:
what has another name is left from an end in the middle, and is cleared away.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from agentscope.model import Value
from agentscope.snapshots.places import Inode, Place, sync_folder
from agentscope.snapshots.trees import Entry, names_in

MANIFEST_LIMIT_BYTES = 256 << 20
REPLACED, JOURNAL, LEFT = "replaced", "switch.json", "left.json"
_STAMP = re.compile(r"^\d{20}$")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


Written = TypeVar("Written", bound=Value)


class Busy(Exception):
    """Another snapshot or switch of the same folder is under way."""


class NoSnapshots(Exception):
    """Of this folder none was ever taken."""


class Manifest(Value, frozen=True):
    """What a snapshot is of: `source` as the config names it, `folder` the path that was copied, `link` where `source` is a link.

    `fingerprint` is that of the folder when it was copied (`trees.Survey`), `wall_ns` the moment (ns since 1970).
    """

    source: str
    folder: str
    link: str | None
    wall_ns: int
    fingerprint: str
    size_bytes: int
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()


class Journal(Value, frozen=True):
    """A switch that was begun: written before anything is touched, removed when all is done.

    `other` is the path of what `folder` changes places with, and its inode is `new` (None: it is being made); `old` is that of
    what stood in `folder` before, None for nothing. `staged` tells that `other` is a copy beside `folder`, made for this switch.
    `moved` False: only the link `source` is to lead elsewhere, to `link_after`.
    """

    stamp: str
    folder: str
    other: str
    moved: bool
    staged: bool
    old: Inode | None
    new: Inode | None
    source: str
    owner_uid: int
    link_after: str | None = None


class Left(Value, frozen=True):
    """What a switch took out of the way, where it could not be moved into the state directory."""

    path: str
    inode: Inode | None
    owner_uid: int


class Shelf:
    """The snapshots of one folder. Open it with `shelf`; every method may raise OSError."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def stamps(self) -> list[str]:
        """The snapshots there are, oldest first."""
        return [name for name in self._names() if _STAMP.match(name)]

    def manifest(self, stamp: str) -> Manifest | None:
        """What is written of a snapshot; None where it cannot be read."""
        return self._read(f"{stamp}/manifest.json", Manifest)

    def journal(self) -> Journal | None:
        """A switch that did not come to its end."""
        return self._read(JOURNAL, Journal)

    def left(self) -> Left | None:
        """What a switch left beside the folder."""
        return self._read(LEFT, Left)

    def write(self, name: str, value: Value) -> None:
        """Write a file whole, 0600, and have it on the disk."""
        beside = f".{name.replace('/', '-')}.{os.urandom(4).hex()}"
        opened = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor
        )
        try:
            with os.fdopen(opened, "wb") as file:
                file.write(msgspec.json.encode(value))
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
            sync_folder(self.descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=self.descriptor)
            raise

    def remove(self, name: str) -> None:
        """Remove a file, and have that on the disk."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)
        sync_folder(self.descriptor)

    def rename(self, before: str, after: str) -> None:
        """Give a folder here another name, which is free or an empty folder's."""
        os.rename(before, after, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        sync_folder(self.descriptor)

    def discard(self, name: str) -> None:
        """Take a folder out of sight at once; `tidy` removes it, which takes longer."""
        with contextlib.suppress(FileNotFoundError):
            self.rename(name, f".gone-{os.urandom(4).hex()}")

    def tidy(self) -> None:
        """Remove what was discarded, or left by an end in the middle."""
        for name in self._names():
            if name.startswith("."):
                clear(Place(self.descriptor, name, self.path / name))

    def tree(self, stamp: str) -> Place:
        """Where the tree of a snapshot stands, in a folder that is opened for it: close `folder` at the end."""
        folder = os.open(stamp, _FOLDER, dir_fd=self.descriptor)
        return Place(folder=folder, name="tree", path=self.path / stamp / "tree")

    def _names(self) -> list[str]:
        return [os.fsdecode(name) for name in names_in(self.descriptor)]

    def _read(self, name: str, kind: type[Written]) -> Written | None:
        try:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.descriptor)
            with os.fdopen(opened, "rb") as file:
                return msgspec.json.decode(file.read(MANIFEST_LIMIT_BYTES), type=kind)
        except (OSError, msgspec.DecodeError):
            return None


def name_of(source: Path) -> str:
    """The name of a folder's shelf: one for each path that a config names."""
    digest = hashlib.blake2b(os.fsencode(source), digest_size=8).hexdigest()
    return f"{_UNSAFE.sub('-', source.name)[:60].strip('-.') or 'folder'}-{digest}"


def new_stamp(stamps: list[str]) -> str:
    """A name for a snapshot of now (ns since 1970), after all that are there even where the clock was set back."""
    return f"{max(time.time_ns(), int(stamps[-1]) + 1 if stamps else 0):020d}"


@contextlib.contextmanager
def shelf(source: Path, state: Path, *, wait_s: float, create: bool = True) -> Iterator[Shelf]:
    """The shelf of a folder, ours alone while it is open.

    Raises:
        Busy: it was not ours within `wait_s`. OSError: the state directory refuses. NoSnapshots: there is none and is not to be.
    """
    path = state / "snapshots" / name_of(source)
    if create:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not path.is_dir():
        raise NoSnapshots
    descriptor = os.open(path, _FOLDER)
    try:
        lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
        try:
            locked(lock, wait_s)
            yield Shelf(path, descriptor)
        finally:
            os.close(lock)
    finally:
        os.close(descriptor)


def locked(lock: int, wait_s: float) -> None:
    """Take the lock.

    Raises:
        Busy: another has it still.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
                raise
            if time.monotonic() >= until:
                raise Busy from None
            time.sleep(0.02)
        else:
            return


def clear(place: Place, inode: Inode | None = None) -> None:
    """Remove a folder with all that is in it, or a file, if it is still the one; what cannot be removed stays."""
    if place.status() is None or (inode is not None and place.inode() != inode):
        return
    ignoring: Callable[..., None] = lambda *_: None  # noqa: E731 - it has a name for its type
    with contextlib.suppress(OSError):
        try:
            os.unlink(place.name, dir_fd=place.folder)
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(place.name, dir_fd=place.folder, onerror=ignoring)
