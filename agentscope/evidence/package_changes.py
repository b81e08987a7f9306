"""What package tools say that they changed lately: all there is to go by where no baseline was taken."""

import time

from agentscope.baseline.clock import UTC, Clock, clock
from agentscope.baseline.joining import place_of, told
from agentscope.changes import Change, Ecosystem, Place, change_of
from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.fault import CORE_SIGNALS
from agentscope.evidence.last_words import NOT_STARTED, LastWords
from agentscope.evidence.last_words import collect as read_last_words

ABSENT = "nothing that it died of depends on what is installed"
READS_FILES = True
SECOND_NS = 1_000_000_000
WINDOW_NS = 14 * 86_400 * SECOND_NS  # before its start, where no healthy run says since when
KEPT = 60


class PackageChanges(Evidence, frozen=True, tag="package-changes"):
    """Changes in the window, newest first, at most 60 of `count`. `since_wall_ns` is where the window begins (ns since 1970).

    `healthy` tells that it begins with a healthy run; else it is a number of days before this one started. `sources` are the
    logs that were read, `unread` those that could not be.
    """

    since_wall_ns: int
    healthy: bool
    changes: tuple[Change, ...]
    count: int
    sources: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    clock: Clock = UTC

    def says(self) -> str:
        """One sentence for a person."""
        since = f"{'its last healthy run' if self.healthy else 'the start of the search'} at {self.clock.moment(self.since_wall_ns)}"
        if not self.changes:
            return f"package logs tell of no change since {since}"
        newest = self.changes[0]
        by = f" by {newest.by}" if newest.by else ""
        return (
            f"{self.count} package changes since {since}, the last {newest.says()} at {self.clock.moment(newest.wall_ns)}{by}"
        )

    def of_package(self, ecosystem: Ecosystem, name: str) -> Change | None:
        """The newest change of a package."""
        return change_of(reversed(self.changes), ecosystem, name)


def may_be_drift(scene: Scene) -> bool:
    """Whether it ended in a way that something installed can be to blame for: a fault, a refused start, a runtime's error."""
    if scene.exit.signal in CORE_SIGNALS or scene.exit.code in NOT_STARTED:
        return True
    if not scene.exit.code:
        return False
    words = read_last_words(scene)
    if not isinstance(words, LastWords):
        return False
    return any(
        (reading.suggests or "").startswith(("drift/", "exception/")) or reading.reader in {"loader", "node"}
        for reading in words.readings
    )


def wall_of(at_ns: int) -> int:
    """Wall time of a moment of CLOCK_BOOTTIME, to the second: the two clocks are read one after the other."""
    offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return (at_ns + offset_ns) // SECOND_NS * SECOND_NS


def window_of(scene: Scene) -> Place | None:
    """Where and since when to look; None where its files are out of reach."""
    known = scene.installed or scene.baseline
    if known is not None and not known.own_root and scene.root is None:
        return None
    since_ns = scene.baseline.wall_ns if scene.baseline else wall_of(scene.process.start_ns) - WINDOW_NS
    until_ns = wall_of(scene.exit.at_ns) + 2 * SECOND_NS
    if known is None:
        return Place(since_ns=max(0, since_ns), until_ns=until_ns, root=scene.root, container=scene.agent.container)
    return place_of(known, since_ns=max(0, since_ns), until_ns=until_ns, root=scene.root)


def collect(scene: Scene) -> PackageChanges | Missing | None:
    """From the logs and records of every package tool that there is, inside the root of the process."""
    if not may_be_drift(scene):
        return None
    window = window_of(scene)
    if window is None:
        return Missing(kind="package-changes", because="it ran in a container that is gone with its files")
    changes = told(window, scene.exit.at_ns)
    if not changes.sources and not changes.changes:
        return Missing(kind="package-changes", because="; ".join(changes.unread[:3]) or "no package tool left a log here")
    return PackageChanges(
        source=", ".join(changes.sources[:4]),
        since_wall_ns=window.since_ns,
        healthy=scene.baseline is not None,
        changes=tuple(reversed(changes.changes[-KEPT:])),
        count=len(changes.changes) + changes.left_out,
        sources=changes.sources[:20],
        unread=changes.unread[:20],
        clock=clock(window.since_ns),
    )
