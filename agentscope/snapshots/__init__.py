"""Copies of a venv or folder, taken while the agent that lives on it is well, and put back in one step when it is not.

`keep` is called at every healthy mark and does nothing where nothing changed. `switch` lets the copy and what stands there change
places (renameat2(2)): the path stays, so that the absolute paths in a venv's scripts hold, and whoever looks sees the old folder or
the new one, never a mixture. A switch is written down before it is made; whoever was killed in the middle left a folder that is
whole, and the next call finishes what was begun or clears it away.

A snapshot that was switched to is used up: it became the folder. The next healthy mark takes another.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentscope.model import Value
from agentscope.snapshots.places import Place, placed, sync_file_system, trusted
from agentscope.snapshots.shelf import Busy, Manifest, NoSnapshots, Shelf, name_of, new_stamp, shelf
from agentscope.snapshots.switching import Asked, CannotSwitch, Switched, allowed, settle_shelf, switch_on
from agentscope.snapshots.trees import CannotCopy, Copying, Survey, differing, survey

__all__ = ["CannotSwitch", "Kept", "Switched", "keep", "settle", "switch"]

KEPT = 2  # of one folder: that of the last healthy mark, and one before it
COPY_S = 120.0
WAIT_S = 10.0
RESERVE_BYTES = 1 << 30  # of a disk is not ours to fill
LOOK_AGAIN = 100
WANTED = "wanted"


class Kept(Value, frozen=True):
    """What came of a healthy mark: `copied` tells that a new snapshot was taken, `current` that what stands there is kept."""

    current: bool
    says: str
    copied: bool = False
    shared: bool = False
    took_ms: float = 0.0


class Standing(NamedTuple):
    """What stands at a path: `folder` is what is copied; `link` what the path says where it is a link to that folder."""

    source: Place
    folder: Place
    link: str | None


def keep(source: Path, state: Path, *, owner_uid: int = 0, since_wall_ns: int | None = None) -> Kept:
    """Have a snapshot of a folder as it is now; blocks, for as long as reading its names takes where nothing changed.

    `since_wall_ns` is when the agent that is well started (ns since 1970): what came into the folder later it has not loaded, so
    that it proves nothing, and there is no snapshot. What cannot be done is in the answer; nothing is raised for it.
    """
    began = time.monotonic()
    try:
        with standing(source, owner_uid) as stands, _opened(stands.folder) as folder:
            looked = survey(folder, since_wall_ns)
            why = _unfit(looked)
            if why:
                return Kept(current=False, says=f"no snapshot of {source}: {why}")
            with shelf(source, state, wait_s=0.0) as ours:
                settle_shelf(ours)
                kept = _kept(ours, source, stands, folder, looked)
    except Busy:
        return Kept(current=False, says=f"no snapshot of {source} now: another is being taken, or switched to")
    except CannotCopy as error:
        return Kept(current=False, says=f"no snapshot of {source}: {error}")
    except OSError as error:
        where = f" ({error.filename})" if isinstance(error.filename, str) and error.filename != str(source) else ""
        return Kept(current=False, says=f"no snapshot of {source}: {error.strerror or error}{where}")
    return Kept(
        current=True, says=kept.says, copied=kept.copied, shared=kept.shared, took_ms=round((time.monotonic() - began) * 1e3, 1)
    )


def switch(source: Path, state: Path, *, owner_uid: int = 0, at: Callable[[str], None] = lambda _: None) -> Switched:
    """Put the newest snapshot that differs in place of what stands there; blocks. `at` hears the name of each step once it is made.

    Raises:
        CannotSwitch: there is none, it would change nothing, or the place refuses; what stands there is as it was.
    """
    try:
        with _wanting(source, state), shelf(source, state, wait_s=WAIT_S, create=False) as ours:
            settle_shelf(ours)
            with placed(source, trusted(owner_uid)) as place:
                return switch_on(ours, place, Asked(owner_uid, at))
    except Busy:
        raise CannotSwitch(f"cannot switch {source} back", f"another snapshot of it was not done within {WAIT_S:g} s") from None
    except NoSnapshots:
        raise CannotSwitch(
            f"there is no snapshot of {source}", "none was taken while its agent was well", "agentscope watch --config FILE"
        ) from None
    except CannotCopy as error:
        raise CannotSwitch(f"cannot switch {source} back", str(error)) from None
    except OSError as error:
        raise CannotSwitch(f"cannot switch {source} back", error.strerror or str(error), f"ls -ld {source}") from None


def settle(state: Path) -> tuple[str, ...]:
    """Finish or clear away every switch that was interrupted, as at a start after a kill; what was found, in sentences."""
    told: list[str] = []
    folder = state / "snapshots"
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            opened = Shelf(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            try:
                journal = opened.journal()
            finally:
                os.close(opened.descriptor)
            if journal is None:
                continue
            try:
                with shelf(Path(journal.source), state, wait_s=0.0, create=False) as ours:
                    told += settle_shelf(ours)
            except (Busy, OSError) as error:
                told.append(f"a switch of {journal.source} is not at its end: {error or 'another is at it'}")
    return tuple(told)


@contextlib.contextmanager
def standing(source: Path, owner_uid: int) -> Iterator[Standing]:
    """What stands at a path, checked: that it is a folder, and one that the owner of the config may have exchanged.

    Raises:
        OSError: it cannot be reached. CannotCopy: it is none of this kind, or another user's.
    """
    users = trusted(owner_uid)
    with contextlib.ExitStack() as stack:
        folder = place = stack.enter_context(placed(source, users))
        status, link = place.status(), None
        if status is not None and stat.S_ISLNK(status.st_mode):
            if status.st_uid not in users:
                raise CannotCopy(f"it is a link of uid {status.st_uid}")
            link = os.readlink(place.name, dir_fd=place.folder)
            folder = stack.enter_context(placed(place.path.parent / link, users))
            status = folder.status()
        if status is None or not stat.S_ISDIR(status.st_mode):
            raise CannotCopy("there is no folder, and no link to one")
        allowed(folder, status, owner_uid)
        yield Standing(place, folder, link)


@contextlib.contextmanager
def _opened(place: Place) -> Iterator[int]:
    opened = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _unfit(looked: Survey) -> str:
    """Why what was looked over is not to be kept; empty where it is."""
    if looked.touched is not None:
        return f"{looked.touched} came after its agent started, which therefore says nothing about it"
    others = looked.owners - {os.geteuid()}
    if os.geteuid() != 0 and others:
        return f"it has files of uid {min(others)}, which only root can give back"
    return ""


def _kept(ours: Shelf, source: Path, stands: Standing, folder: int, looked: Survey) -> Kept:
    """Take a snapshot, unless the newest is of the same."""
    stamps = ours.stamps()
    newest = ours.manifest(stamps[-1]) if stamps else None
    if newest is not None and (newest.folder, newest.link) == (str(stands.folder.path), stands.link):
        if newest.fingerprint == looked.fingerprint:
            return Kept(current=True, says=f"the snapshot of {source} is current")
        if not differing(folder, newest.entries, read=True):
            # other inodes or names of them elsewhere, the same content: to be found again by one look
            ours.write(f"{stamps[-1]}/manifest.json", _refreshed(newest, looked))
            return Kept(current=True, says=f"the snapshot of {source} is current")
    beside = f".new-{os.urandom(4).hex()}"
    os.mkdir(beside, 0o700, dir_fd=ours.descriptor)
    try:
        copied = _copied(ours, beside, folder)
        if survey(folder).fingerprint != looked.fingerprint:
            raise CannotCopy("it changed while it was copied")
        manifest = Manifest(
            source=str(source),
            folder=str(stands.folder.path),
            link=stands.link,
            wall_ns=time.time_ns(),
            fingerprint=looked.fingerprint,
            size_bytes=looked.size_bytes,
            entries=tuple(copied.entries),
            left_out=tuple(copied.left_out[:100]),
        )
        ours.write(f"{beside}/manifest.json", manifest)
        ours.rename(beside, new_stamp(stamps))
        for old in ours.stamps()[:-KEPT]:
            ours.discard(old)
    finally:
        ours.tidy()
    left_out = f"; sockets, pipes and devices in it are left out ({len(copied.left_out)})" if copied.left_out else ""
    how = "sharing its blocks" if copied.shared else "as a copy"
    says = f"a snapshot of {source} was taken, {how}: {looked.entries} names, {looked.size_bytes >> 20} MiB{left_out}"
    return Kept(current=True, says=says, copied=True, shared=copied.shared)


def _refreshed(manifest: Manifest, looked: Survey) -> Manifest:
    return msgspec.structs.replace(manifest, fingerprint=looked.fingerprint, wall_ns=time.time_ns())


def _copied(ours: Shelf, beside: str, folder: int) -> Copying:
    """Copy the folder into the shelf, and have it on the disk."""
    until, count = time.monotonic() + COPY_S, 0

    def meanwhile() -> None:
        nonlocal count
        count += 1
        if count % LOOK_AGAIN:
            return
        if time.monotonic() > until:
            raise CannotCopy(f"copying it takes more than {COPY_S:g} s")
        if _wanted(ours):
            raise CannotCopy("a rollback came in between")
        free = os.fstatvfs(ours.descriptor)
        if free.f_bavail * free.f_frsize < RESERVE_BYTES:
            raise CannotCopy(f"the disk has less than {RESERVE_BYTES >> 30} GiB left")

    copying = Copying(meanwhile)
    parent = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=ours.descriptor)
    try:
        os.mkdir("tree", 0o700, dir_fd=parent)
        with _opened(Place(parent, "tree", ours.path / beside / "tree")) as tree:
            copying.copy(folder, tree)
        sync_file_system(parent)
    finally:
        os.close(parent)
    return copying


@contextlib.contextmanager
def _wanting(source: Path, state: Path) -> Iterator[None]:
    """Let whoever copies hear that a switch waits: by a lock, which the kernel takes back from whoever is killed."""
    folder = state / "snapshots" / name_of(source)
    try:
        marker = os.open(folder / WANTED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # no snapshot was ever taken, which is told elsewhere
        yield
        return
    try:
        fcntl.flock(marker, fcntl.LOCK_SH)
        yield
    finally:
        os.close(marker)


def _wanted(ours: Shelf) -> bool:
    """Whether a switch waits."""
    try:
        marker = os.open(WANTED, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=ours.descriptor)
    except OSError:
        return False
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(marker)
    return False
