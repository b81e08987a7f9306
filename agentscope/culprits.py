"""What changed and is to blame, as a person says it: a package or file with its versions, when, by whom, and how to go back."""

from collections.abc import Callable
from dataclasses import dataclass

from agentscope.baseline.clock import UTC, Clock
from agentscope.baseline.joining import Changed
from agentscope.changes import By, Change, Ecosystem
from agentscope.evidence.baseline_difference import BaselineDifference
from agentscope.going_back import going_back

SHOWN = 100


@dataclass(frozen=True)
class Culprit:
    """What changed: a thing that is told with its versions, when (ns since 1970) and by whom, as far as that is known.

    Where nothing tells when, `since_ns` is when it was last as it had been, and `until_ns` when it surely no longer was.
    `file` is the file of it that counts here, where that is called otherwise. `cites` are the kinds of evidence that say so, `clock`
    is the local time in which moments are told.
    """

    name: str
    how: str
    before: str | None = None
    after: str | None = None
    file: str = ""
    wall_ns: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    by: By | None = None
    ecosystem: Ecosystem | None = None
    path: str | None = None
    armed: bool = False
    cites: tuple[str, ...] = ()
    clock: Clock = UTC

    def clause(self) -> str:
        """The thing and its versions: "libssl3 3.0.2-1 -> 3.0.3-1 (libssl.so.3)"."""
        file = f" ({self.file})" if self.file and self.file != self.name else ""
        if self.before and self.after and self.before != self.after:
            bare = self.before.startswith("build ") and self.after.startswith("build ")
            told = f" {self.how}: {self.before} -> {self.after}" if bare else f" {self.before} -> {self.after}"
            return f"{self.name}{file}{told}" if bare else f"{self.name}{told}{file}"
        version = next((told for told in (self.before, self.after) if told and not told.startswith("build ")), "")
        return f"{self.name}{f' {version}' if version else ''}{file} {self.how}"

    def headline(self) -> str:
        """With the time as a person says it, and who did it."""
        return f"{self.clause()}{self._at(self.clock.moment)}{who(self.by)}"

    def full(self) -> str:
        """With the whole date: this is read again on other days."""
        return f"{self.clause()}{self._at(self.clock.dated)}{who(self.by)}"

    def _at(self, said: Callable[[int], str]) -> str:
        if self.wall_ns is not None:
            return f" at {said(self.wall_ns)}"
        if self.since_ns is None:
            return ""
        if self.until_ns is not None and self.until_ns >= self.since_ns:
            since, until = said(self.since_ns), said(self.until_ns)
            return f" between {since} and {until}" if since != until else f" at {since}"
        return f" at some time after {said(self.since_ns)}"

    def advice(self) -> tuple[str, ...]:
        """The line to type for going back, and what keeps it so."""
        tool = self.by.tool if self.by else None
        return going_back(self.ecosystem, self.name, self.before, path=self.path, tool=tool, removed=self.how == "removed")


def who(by: By | None) -> str:
    """The author as a clause: the command that was typed and by whom; of what runs by itself its name is enough."""
    if by is None:
        return ""
    itself = by.tool == "unattended-upgrades"
    return f" by {by.tool if itself else str(by)[:SHOWN]}"


def of_changed(changed: Changed, difference: BaselineDifference) -> Culprit:
    """What the difference to a baseline tells of one thing."""
    drifted, change = changed.drifted, changed.change
    languages: dict[str, Ecosystem] = {"distribution": "python", "node-package": "node", "image": "image"}
    return Culprit(
        name=changed.name,
        how=drifted.how,
        before=changed.before,
        after=changed.after if drifted.how != "removed" else None,
        file=drifted.name if drifted.kind not in languages else "",
        wall_ns=changed.wall_ns,
        since_ns=difference.since_wall_ns,
        until_ns=drifted.until_ns,
        by=change.by if change else None,
        ecosystem=change.ecosystem if change else languages.get(drifted.kind),
        path=drifted.path,
        armed=drifted.armed,
        cites=("baseline-difference",),
        clock=difference.clock,
    )


def of_change(change: Change, clock: Clock, file: str = "") -> Culprit:
    """What a package log alone tells."""
    return Culprit(
        name=change.what,
        how=change.kind,
        before=change.from_version,
        after=change.to_version if change.kind != "removed" else None,
        file=file,
        wall_ns=change.wall_ns,
        by=change.by,
        ecosystem=change.ecosystem,
        path=change.source if change.ecosystem in {"python", "node"} else None,
        cites=("package-changes",),
        clock=clock,
    )
