"""What was installed, upgraded or removed, when, and by whom: read from the logs and records that package tools leave behind.

One file a source: `changes/<source>.py` holds `read(place) -> Iterator[Change]`; of a tool that this system does not have it
yields nothing. Being in the folder is being registered. Only files are read, inside the root of the process, bounded in size
and in lines; no package tool is ever run.
"""

from typing import Literal

from agentscope.model import Value

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
    """What all sources told, oldest first. `sources` are the files that were read; `unread` those that are there but could not be,
    each with the reason; `left_out` counts changes beyond the limit."""

    changes: tuple[Change, ...]
    sources: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    left_out: int = 0
