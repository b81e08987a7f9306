"""What was installed, upgraded or removed, when, and by whom: read from the logs and records that package tools leave behind.

One file a source: `changes/<source>.py` holds `read(look) -> Iterator[Change]`; of a tool that this system does not have it
yields nothing. Being in the folder is being registered. Only files are read, inside the root of the process, bounded in size
and in lines; no package tool is ever run.
"""

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, Literal

import msgspec

from agentscope.model import Value

CHANGES_LIMIT = 2000
SLACK_NS = 2_000_000_000  # two logs of one transaction are written one after the other

Ecosystem = Literal["dpkg", "rpm", "pacman", "apk", "nix", "python", "node", "image"]
ChangeKind = Literal["installed", "upgraded", "downgraded", "reinstalled", "removed", "changed"]


class By(Value, frozen=True):
    """Who made a change: the tool ("apt", "unattended-upgrades", "pip"), its command line, the user who asked for it.

    `requested` tells whether this very package was asked for (False: it came as a dependency; None: not known).
    """

    tool: str
    command: str | None = None
    user: str | None = None
    requested: bool | None = None

    def __str__(self) -> str:
        """As a person would say it: "unattended-upgrades", "apt-get install -y libfoo1 (alice)"."""
        return f"{self.command or self.tool}{f' ({self.user})' if self.user else ''}"


class Change(Value, frozen=True):
    """One package at one moment. A version that the source does not tell is None.

    `wall_ns` is nanoseconds since 1970; the change happened between it and `wall_ns + precision_ns`. `source` is the file that
    says so; `files` are those known to have been touched (empty: not told).
    """

    what: str
    ecosystem: Ecosystem
    kind: ChangeKind
    wall_ns: int
    precision_ns: int
    source: str
    from_version: str | None = None
    to_version: str | None = None
    architecture: str | None = None
    by: By | None = None
    files: tuple[str, ...] = ()

    def says(self) -> str:
        """One clause for a person, without the time: "libssl3 3.0.2-1 -> 3.0.2-2"."""
        if self.from_version and self.to_version and self.from_version != self.to_version:
            versions = f" {self.from_version} -> {self.to_version}"
        else:
            versions = f" {self.to_version or self.from_version}" if self.to_version or self.from_version else ""
        verb = "" if " -> " in versions else f" {self.kind}"
        return f"{self.what}{versions}{verb}"


class Place(Value, frozen=True):
    """Where and since when to look: the root of the process, the folders of its packages, and the window of wall time.

    `root` is a path such as "/proc/123/root" (None: our own). `sites` are folders of Python distributions, `node_folders` are
    `node_modules` folders, `homes` those of the users whose tools may have left logs; all as the process names them.
    `container` is the id of its container in the runtime's own records, which are read in our root.
    """

    since_ns: int
    until_ns: int
    root: str | None = None
    sites: tuple[str, ...] = ()
    node_folders: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    container: str | None = None


class Changes(Value, frozen=True):
    """What all sources told, oldest first.

    `sources` are the files that were read; `unread` those that are there but could not be, each with the reason; `left_out`
    counts changes beyond the limit.
    """

    changes: tuple[Change, ...]
    sources: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    left_out: int = 0


@cache
def sources() -> dict[str, Callable[[Any], Iterator[Change]]]:
    """Every source, by name: the folder is the list."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}").read for name in names}


def read_changes(place: Place) -> Changes:
    """What every source tells of the window, one change once, oldest first; the newest are kept where there are too many.

    A source that fails costs its own answer only.
    """
    from agentscope.changes._look import Look, Spent

    look = Look(place)
    found: dict[Change, None] = {}
    for name, read in sources().items():
        look.begin()
        try:
            for change in read(look):
                found[change] = None
                look.count()
        except Spent:
            look.unread.append(f"{name}: it takes too long, or is too large")
        except Exception as error:  # noqa: BLE001 - a forged log must not silence the others; the reason is kept
            look.unread.append(f"{name}: {type(error).__name__}: {error}"[:300])
    joined = join(found)
    return Changes(
        changes=tuple(joined[-CHANGES_LIMIT:]),
        sources=tuple(dict.fromkeys(look.sources)),
        unread=tuple(dict.fromkeys(look.unread)),
        left_out=max(0, len(joined) - CHANGES_LIMIT),
    )


def join(found: Iterable[Change]) -> list[Change]:
    """Changes of one package that several logs tell of, as one: the time of the most precise, the author of the most telling.

    Those of one moment are in the order of the log that tells of them last: a tool that runs another has a coarser log than that one
    (apt its transactions, dpkg every step), and is asked first.
    """
    joined: list[Change] = []
    ranks: list[int] = []
    last: dict[tuple[Ecosystem, str], list[int]] = {}
    ranked = sorted(enumerate(found), key=lambda each: (each[1].precision_ns, each[1].wall_ns))
    for rank, change in ranked:
        places = last.setdefault((change.ecosystem, change.what), [])
        place = next((place for place in reversed(places[-64:]) if _same(joined[place], change)), None)
        if place is None:
            places.append(len(joined))
            joined.append(change)
            ranks.append(rank)
        else:
            joined[place] = _merged(joined[place], change)
            ranks[place] = max(ranks[place], rank)
    return [joined[place] for place in sorted(range(len(joined)), key=lambda place: (joined[place].wall_ns, ranks[place]))]


def _same(known: Change, other: Change) -> bool:
    """Whether two sources can mean one change: spans that meet, no version or architecture that contradicts, another file.

    A removal is never the same as an installation, though the one names the version before and the other that after.
    """
    apart = max(known.wall_ns, other.wall_ns) - min(known.wall_ns + known.precision_ns, other.wall_ns + other.precision_ns)
    pairs = (
        (known.from_version, other.from_version),
        (known.to_version, other.to_version),
        (_bound(known.architecture), _bound(other.architecture)),
    )
    fits = all(one is None or another is None or one == another for one, another in pairs)
    gone = (known.kind == "removed") == (other.kind == "removed")
    return apart <= SLACK_NS and known.source != other.source and fits and gone


def _bound(architecture: str | None) -> str | None:
    """An architecture that can contradict another: apt writes its own where dpkg writes "all"."""
    return None if architecture in {"all", "noarch", "any"} else architecture


def _merged(known: Change, other: Change) -> Change:
    kinds = {known.kind, other.kind}
    return msgspec.structs.replace(
        known,
        kind=known.kind if known.kind != "upgraded" or kinds == {"upgraded", "changed"} else other.kind,
        from_version=known.from_version or other.from_version,
        to_version=known.to_version or other.to_version,
        architecture=known.architecture or other.architecture,
        by=max((known.by, other.by), key=_telling),
        files=known.files or other.files,
    )


def _telling(by: By | None) -> tuple[bool, bool, bool, bool]:
    """How much an author's name tells a person; the bare tool that did the work tells least."""
    if by is None:
        return False, False, False, False
    return by.tool == "unattended-upgrades", by.user is not None, by.command is not None, by.tool != "dpkg"


def change_of(changes: Iterable[Change], ecosystem: Ecosystem, name: str, *, to_version: str | None = None) -> Change | None:
    """The newest change of a package; of those that led to `to_version`, if there are any. `changes` are the oldest first.

    Of several within one second, which is all that most logs tell, the last is the newest.
    """
    from agentscope.distributions.installed import normal

    def same(change: Change) -> bool:
        return normal(change.what) == normal(name) if ecosystem == "python" else change.what == name

    fitting = [change for change in changes if change.ecosystem == ecosystem and same(change)]
    exact = [change for change in fitting if to_version is not None and change.to_version == to_version]
    return max(reversed(exact or fitting), key=lambda change: change.wall_ns, default=None)
