"""The switch itself: written down, made in one step, and brought to its end by whoever comes next if it was interrupted."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentscope.distributions.installed import installed, normal
from agentscope.errors import AgentscopeError
from agentscope.model import Value
from agentscope.snapshots.places import (
    Place,
    beside_of,
    exchange,
    inode_of,
    move,
    placed,
    relink,
    sync_file_system,
    sync_folder,
    trusted,
)
from agentscope.snapshots.shelf import JOURNAL, LEFT, REPLACED, Journal, Left, Manifest, Shelf, clear
from agentscope.snapshots.trees import CannotCopy, Copying, differing, names_in

VERSIONS_TOLD = 12
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CannotSwitch(AgentscopeError):
    """A folder could not be switched back; it is as it was."""


class Switched(Value, frozen=True):
    """What a switch did. `versions` tells of packages "name before -> after"; `replaced` is where what stood there is now.

    `wall_ns` is when the snapshot was taken (ns since 1970), `differed` how many files were not as they are in it.
    """

    folder: str
    wall_ns: int
    differed: int
    versions: tuple[str, ...]
    replaced: str | None

    def says(self) -> str:
        """One sentence for a person."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.wall_ns / 1e9))
        more = f" and {len(self.versions) - VERSIONS_TOLD} more" if len(self.versions) > VERSIONS_TOLD else ""
        packages = f": {', '.join(self.versions[:VERSIONS_TOLD])}{more}" if self.versions else ""
        kept = f"; what stood there is kept at {self.replaced}" if self.replaced else ""
        return f"{self.folder} is as it was at {moment}, {self.differed} files of it differed{packages}{kept}"


class Asked(NamedTuple):
    """Who asks for a switch, and who hears of its steps."""

    owner_uid: int
    at: Callable[[str], None]


class Chosen(NamedTuple):
    """The snapshot that is switched to, and at how many files what stands there differs from it."""

    stamp: str
    manifest: Manifest
    differ: int


def switch_on(ours: Shelf, source: Place, order: Asked) -> Switched:
    """Switch to the newest snapshot that is whole and differs from what stands there.

    Raises:
        CannotSwitch: there is none. OSError, CannotCopy: the place refuses; it is as it was.
    """
    link = _link_at(source)
    faults: list[str] = []
    for stamp in reversed(ours.stamps()):
        manifest = ours.manifest(stamp)
        if manifest is None:
            faults.append("the manifest of a snapshot cannot be read")
            continue
        if source.status() is not None and (manifest.link is None) != (link is None):
            faults.append("it was no link when the snapshot was taken" if link else "it was a link when the snapshot was taken")
            continue
        with placed(Path(manifest.folder), trusted(order.owner_uid)) as folder:
            if str(folder.path) != manifest.folder or (manifest.link is None and folder.path != source.path):
                faults.append("its path leads elsewhere than when the snapshot was taken")
                continue
            allowed(folder, folder.status(), order.owner_uid)
            differ = _differing(folder, manifest)
            if not differ and link == manifest.link:
                faults.append("what stands there is what stood there when its agent was well: nothing would change")
                continue
            why = _damaged(ours, stamp, manifest) if differ else ""
            if why:
                faults.append(why)
                continue
            return _switched(ours, Chosen(stamp, manifest, len(differ)), folder, source, order)
    reasons = "; ".join(dict.fromkeys(faults)) or "there is no snapshot of it"
    raise CannotSwitch(f"cannot switch {source.path} back", reasons)


def allowed(place: Place, status: os.stat_result | None, owner_uid: int) -> None:
    """A config that is not root's has exchanged only what its owner could exchange.

    Raises:
        CannotCopy: it is another user's.
    """
    uids = {os.fstat(place.folder).st_uid} | ({status.st_uid} if status is not None else set())
    if owner_uid != 0 and uids != {owner_uid}:
        raise CannotCopy(f"the config is of uid {owner_uid}, but this folder, or that which it is in, is of another user")


def _link_at(place: Place) -> str | None:
    try:
        return os.readlink(place.name, dir_fd=place.folder)
    except OSError:
        return None


def _differing(folder: Place, manifest: Manifest) -> list[str]:
    """Where what stands there is not as it was: by a look, and where that tells nothing by reading it all."""
    if folder.status() is None:
        return ["."]
    opened = os.open(folder.name, _FOLDER, dir_fd=folder.folder)
    try:
        return differing(opened, manifest.entries, read=False) or differing(opened, manifest.entries, read=True)
    finally:
        os.close(opened)


def _damaged(ours: Shelf, stamp: str, manifest: Manifest) -> str:
    """Why a snapshot is not to be trusted; empty where every file of it is what was copied."""
    try:
        with _tree(ours, stamp) as tree:
            opened = os.open(tree.name, _FOLDER, dir_fd=tree.folder)
            try:
                wrong = differing(opened, manifest.entries, read=True)
            finally:
                os.close(opened)
    except OSError as error:
        return f"the snapshot cannot be read: {error.strerror or error}"
    return f"the snapshot is damaged at {wrong[0]}" if wrong else ""


@contextlib.contextmanager
def _tree(ours: Shelf, stamp: str) -> Iterator[Place]:
    tree = ours.tree(stamp)
    try:
        yield tree
    finally:
        os.close(tree.folder)


def _switched(ours: Shelf, chosen: Chosen, folder: Place, source: Place, order: Asked) -> Switched:
    """Write down what will be done, do it, and bring it to its end."""
    stamp, manifest, differ = chosen
    before = versions_in(folder.path)
    with _tree(ours, stamp) as tree:
        journal = Journal(
            stamp=stamp,
            folder=manifest.folder,
            other=str(tree.path),
            moved=differ > 0,
            staged=False,
            old=folder.inode(),
            new=tree.inode() if differ else folder.inode(),
            source=manifest.source,
            owner_uid=order.owner_uid,
            link_after=manifest.link if manifest.link != _link_at(source) else None,
        )
        ours.write(JOURNAL, journal)
        order.at("written")
        if differ:
            try:
                journal = _exchanged(ours, journal, tree, folder, order.at)
            except (OSError, CannotCopy):
                settle_shelf(ours)
                raise
    replaced = finish(ours, journal, order.at)
    return Switched(
        folder=manifest.source,
        wall_ns=manifest.wall_ns,
        differed=differ,
        versions=told_versions(before, versions_in(folder.path)),
        replaced=replaced,
    )


def _exchanged(ours: Shelf, journal: Journal, tree: Place, folder: Place, at: Callable[[str], None]) -> Journal:
    """The one step. On another file system than the snapshot's, a copy of it is made beside the folder first."""
    step = exchange if journal.old is not None else move
    try:
        step(tree, folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        at("exchanged")
        return journal
    beside = beside_of(folder, "snapshot")
    journal = msgspec.structs.replace(journal, other=str(beside.path), staged=True, new=None)
    ours.write(JOURNAL, journal)
    at("staging")
    os.mkdir(beside.name, 0o700, dir_fd=beside.folder)
    source, target = (os.open(place.name, _FOLDER, dir_fd=place.folder) for place in (tree, beside))
    try:
        made = os.fstat(target)
        if made.st_uid != os.geteuid() or made.st_mode & 0o077 or names_in(target):
            raise CannotCopy("its folder is being changed by another user")
        Copying(lambda: at("copying")).copy(source, target)
        sync_file_system(target)
    finally:
        os.close(source)
        os.close(target)
    journal = msgspec.structs.replace(journal, new=inode_of(made))
    ours.write(JOURNAL, journal)
    at("staged")
    step(beside, folder)
    at("exchanged")
    return journal


def finish(ours: Shelf, journal: Journal, at: Callable[[str], None] = lambda _: None) -> str | None:
    """All that comes after the one step; can be begun again at any point. Where what was replaced is kept; None: nothing was.

    Raises:
        OSError: it cannot be done now; the journal stays.
    """
    users = trusted(journal.owner_uid)
    with placed(Path(journal.folder), users) as folder:
        sync_folder(folder.folder)
    if journal.link_after is not None:
        with placed(Path(journal.source), users) as source:
            if _link_at(source) != journal.link_after:
                relink(source, journal.link_after)
            sync_folder(source.folder)
        at("linked")
    replaced = None
    if journal.moved and journal.old is None:
        ours.discard(journal.stamp)
    elif journal.moved and journal.staged:
        replaced = journal.other
        _forget_left(ours, journal)
        ours.write(LEFT, Left(path=journal.other, inode=journal.old, owner_uid=journal.owner_uid))
    elif journal.moved:
        replaced = str(ours.path / REPLACED / "tree")
        if journal.stamp in ours.stamps():
            ours.discard(REPLACED)
            at("discarded")
            ours.rename(journal.stamp, REPLACED)
        ours.remove(f"{REPLACED}/manifest.json")
    at("kept")
    ours.remove(JOURNAL)
    at("done")
    return replaced


def _forget_left(ours: Shelf, journal: Journal) -> None:
    """Of what switches leave beside a folder only the last is kept."""
    left = ours.left()
    if left is not None and left.path != journal.other:
        with contextlib.suppress(OSError), placed(Path(left.path), trusted(left.owner_uid)) as place:
            clear(place, left.inode)


def settle_shelf(ours: Shelf) -> list[str]:
    """Bring a switch that was interrupted to its end, or clear it away; what was done, in sentences.

    Raises:
        OSError: it cannot be done now.
    """
    journal = ours.journal()
    if journal is None:
        return []
    if _made(ours, journal):
        finish(ours, journal)
        return [f"the switch of {journal.source} to its snapshot, which was interrupted, is at its end"]
    if journal.staged:
        with placed(Path(journal.other), trusted(journal.owner_uid)) as other:
            clear(other)
    ours.remove(JOURNAL)
    return [f"a switch of {journal.source} to its snapshot was interrupted before it was made: it is as it was"]


def _made(ours: Shelf, journal: Journal) -> bool:
    """Whether the one step was made: by which folder stands there, and which in the place that it came from."""
    users = trusted(journal.owner_uid)
    with placed(Path(journal.folder), users) as folder:
        if journal.new is not None and folder.inode() == journal.new:
            return True
    if not journal.staged and journal.stamp not in ours.stamps():
        return True  # what is cleared up after the step has begun
    with placed(Path(journal.other), users) as other:
        return journal.old is not None and other.inode() == journal.old


# --- packages --------------------------------------------------------------------------------------------------------------


def versions_in(folder: Path) -> dict[str, tuple[str, str]]:
    """The Python distributions of a venv or site folder: name as it is compared -> (name, version)."""
    sites = [str(folder)]
    with contextlib.suppress(OSError):
        lib = folder / "lib"
        sites += [str(each / "site-packages") for each in sorted(lib.iterdir()) if each.name.startswith(("python", "pypy"))]
    found, _ = installed(tuple(sites))
    return {normal(each.name): (each.name, each.version) for each in found}


def told_versions(before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]) -> tuple[str, ...]:
    """What is another version than before, in words."""
    told = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            told.append(f"{now[0]} {now[1]} is there again")
        elif now is None and was is not None:
            told.append(f"{was[0]} {was[1]} is gone")
        elif was is not None and now is not None and was[1] != now[1]:
            told.append(f"{now[0]} {was[1]} -> {now[1]}")
    return tuple(told)
