"""What drifted, joined with the change that did it: the package that owns the file, the log that tells of that package."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from agentscope.baseline import Baseline, Drifted
from agentscope.baseline.mapped import stem_of
from agentscope.changes import Change, Changes, Ecosystem, Place, change_of, read_changes
from agentscope.model import Value
from agentscope.symbols.owner import Owner, OwnerKind, owner_of
from agentscope.symbols.rooted import state_of

OWNERS_LIMIT = 12  # files whose owner is looked for: each search reads the lists of all packages once
WINDOWS_KEPT = 8
NEAR_NS = 120_000_000_000  # between what a log says and the time of a file that was unpacked then
_ECOSYSTEMS: dict[OwnerKind, Ecosystem] = {"dpkg": "dpkg", "python": "python", "node": "node"}
_ABOVE_LIMIT = 6
_FILES = frozenset({"library", "program", "interpreter", "libc"})
_SONAME = re.compile(r"^(lib.{1,100}?)\.so(?:\.(\d{1,9}))?$")


class Changed(Value, frozen=True):
    """One thing that drifted, with the package that it is of ("libssl3 3.0.2-2") and the change that a log or metadata tells."""

    drifted: Drifted
    change: Change | None = None
    owner: str | None = None

    @property
    def name(self) -> str:
        """What to call it: the package where one is known, else the thing itself."""
        if self.change is not None:
            return self.change.what
        return self.owner.partition(" ")[0] if self.owner else self.drifted.name

    @property
    def before(self) -> str | None:
        """The version, or failing that the build, that was there before."""
        return (self.change.from_version if self.change else None) or self.drifted.before

    @property
    def after(self) -> str | None:
        """The version, or failing that the build, that is there now."""
        return (self.change.to_version if self.change else None) or self.drifted.after

    @property
    def wall_ns(self) -> int | None:
        """When it changed, ns since 1970: by the log, else by the file system."""
        return self.change.wall_ns if self.change else self.drifted.changed_ns

    def says(self) -> str:
        """One clause for a person, without the time."""
        versions = f" {self.before} -> {self.after}" if self.before and self.after else f" {self.after or self.before or ''}"
        file = self.drifted.name if self.name != self.drifted.name else ""
        how = "" if self.before and self.after else f" {self.drifted.how}"
        by = f" by {self.change.by}" if self.change and self.change.by else ""
        return f"{self.name}{versions.rstrip()}{f' ({file})' if file else ''}{how}{by}"


def place_of(baseline: Baseline, *, since_ns: int, until_ns: int, root: str | None) -> Place:
    """Where the changes of what a baseline holds are told."""
    return Place(
        since_ns=since_ns,
        until_ns=until_ns,
        root=root,
        sites=baseline.sites,
        node_folders=baseline.node_folders,
        homes=tuple(dict.fromkeys(home for home in (baseline.home, "/root") if home)),
        container=baseline.container,
    )


_READ: dict[Place, tuple[int, Changes]] = {}


def told(place: Place, at_ns: int) -> Changes:
    """What the logs tell, as they were at `at_ns` (CLOCK_BOOTTIME) or later.

    Kept for the kinds of evidence that ask for the same window again, and for all that ended before it was read. A window is of whole
    seconds: of an end that came later in the same one it may lack the change of a moment before.
    """
    began_ns, changes = _READ.get(place, (0, None))
    if changes is None or began_ns < at_ns:
        began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        changes = read_changes(place)
        _READ.pop(place, None)
        _READ[place] = began_ns, changes
        for oldest in list(_READ)[:-WINDOWS_KEPT]:
            _READ.pop(oldest, None)
    return changes


def explain(drifted: Iterable[Drifted], changes: Changes, *, root: str | None) -> tuple[Changed, ...]:
    """Each thing that drifted, with its change where one is told."""
    left = OWNERS_LIMIT
    found = []
    for each in drifted:
        owner = None
        if each.kind in _FILES and each.path and left > 0:
            left -= 1
            owner = owner_of(each.path, root=root)
        if each.how == "removed" and each.changed_ns is None and each.path:
            each = msgspec.structs.replace(each, until_ns=_gone_by(each.path, root))  # noqa: PLW2901 - the same thing, better known
        change = _change(each, owner, changes.changes)
        if change is not None and each.kind == "distribution" and change.from_version is None:
            # pip leaves no trace of what was there before: the baseline knows
            kind = each.how if each.how in {"upgraded", "downgraded", "removed"} else change.kind
            change = msgspec.structs.replace(change, from_version=each.before, kind=kind)
        found.append(Changed(drifted=each, change=change, owner=str(owner) if owner else None))
    return tuple(found)


def _gone_by(path: str, root: str | None) -> int | None:
    """When something last came or went in the folder of a file that is gone: it went then, or before.

    Where the folder is gone as well, that of the nearest one above it that stands.
    """
    for _ in range(_ABOVE_LIMIT):
        path = path.rpartition("/")[0]
        if not path:
            return None
        with suppress(OSError):
            return state_of(path, root=root).st_mtime_ns
    return None


def _change(drifted: Drifted, owner: Owner | None, changes: tuple[Change, ...]) -> Change | None:
    if drifted.kind == "distribution":
        return _only_exact(change_of(changes, "python", drifted.name, to_version=drifted.after), drifted.after)
    if drifted.kind == "node-package":
        return next(
            (change for change in reversed(changes) if change.ecosystem == "node" and change.source == drifted.path), None
        )
    if drifted.kind == "image":
        return next((change for change in reversed(changes) if change.ecosystem == "image"), None)
    if drifted.kind == "system-package":
        name = drifted.name.partition(":")[0]
        found = (change_of(changes, tool, name, to_version=drifted.after) for tool in ("dpkg", "apk", "pacman", "rpm"))
        return next((change for change in found if change is not None), None)
    if drifted.kind not in _FILES:
        return None
    if owner is not None:
        return change_of(changes, _ECOSYSTEMS[owner.kind], owner.name, to_version=owner.version)
    return _by_name_and_time(drifted, changes)


def _only_exact(change: Change | None, version: str | None) -> Change | None:
    """Metadata tells of the version that stands there: of another it would be the change of something else."""
    return change if change is None or version is None or change.to_version == version else None


def _by_name_and_time(drifted: Drifted, changes: tuple[Change, ...]) -> Change | None:
    """Of a file that no list names (any more): the package that is called like the library, else the only change of that time."""
    system = [change for change in changes if change.ecosystem not in {"python", "node", "image"}]
    names = _package_names(drifted.former_path or drifted.path or drifted.name)
    alike = [change for change in system if change.what in names or change.what.removesuffix("t64") in names]
    if alike:
        return alike[-1]
    if drifted.changed_ns is None:
        return None
    near = [
        change
        for change in system
        if change.wall_ns - NEAR_NS <= drifted.changed_ns <= change.wall_ns + change.precision_ns + NEAR_NS
    ]
    return near[0] if len(near) == 1 else None


def _package_names(path: str) -> frozenset[str]:
    """What a package that holds a library is called: libssl.so.3 comes with libssl3 (Debian Policy, 8.1), or with libssl."""
    found = _SONAME.match(stem_of(path))
    if found is None:
        return frozenset()
    name, number = found[1].lower().replace("_", "-"), found[2] or ""
    dashed = f"{name}-{number}" if name[-1].isdecimal() else f"{name}{number}"
    return frozenset({dashed, name, f"{name}-libs", name.removeprefix("lib")} - {""})
