"""The whole path, in order: event -> tree -> end -> evidence -> causes -> diagnosis -> record.

Live (`live.py` brings events from the kernel) and on a recording (`replay`, below) it is the same path.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from agentscope.causes import causes
from agentscope.classifier import classify
from agentscope.errors import CannotWrite
from agentscope.evidence import Collected, Evidence, HangScene, Missing, Scene, Words, collect_all, from_records
from agentscope.evidence.actor import SIGKILL, SignalActor
from agentscope.evidence.actor import collect as collect_actor
from agentscope.evidence.last_words import LONG_PAST_NS
from agentscope.evidence.package_changes import may_be_drift
from agentscope.evidence.reconstruction import unsaid
from agentscope.evidence.session import going_on
from agentscope.incidents import Ended, Incidents, hang_timeline_of, stopped_on_purpose, timeline_of, worth_telling
from agentscope.lastseen import LastSeenCache
from agentscope.model import (
    AgentGone,
    AnyEvent,
    Diagnosis,
    ExitRecord,
    IncidentClosed,
    IncidentOpened,
    KernelLine,
    Lost,
    MissingEvidence,
    ProcessExec,
    ProcessExit,
)
from agentscope.record import Recorder
from agentscope.sources import Engine
from agentscope.symbols.signals import signal_name

if TYPE_CHECKING:
    from agentscope.ledger import Ledger
    from agentscope.marks import Marks
    from agentscope.marks.beside import InTurn
    from agentscope.marks.run import Run

Sink = Callable[[AnyEvent], None]
LOG_LINES_KEPT = 4000
LOG_LINES_READ = 1500  # one OOM report is about 80 lines; several may stand between a death and its report
TOLD_KEPT = 4096
STOPPED_BY_US = "stopped by agentscope, to bring it back"
NO_EVIDENCE = "agentscope doctor shows which evidence this machine cannot give"
ATTACHED_LATE = "its stderr is not a file, and it may have written before the write probe was attached"


def now_ns() -> int:
    """CLOCK_BOOTTIME, the clock of every event."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_wall_ns() -> int:
    """Wall clock at CLOCK_BOOTTIME 0."""
    return time.time_ns() - now_ns()


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Judged(NamedTuple):
    """What was made of one end: why it is no incident, or the evidence and the diagnosis."""

    scene: Scene
    signaller: SignalActor | None
    on_purpose: str | None
    collected: dict[str, Collected] = {}
    diagnosis: Diagnosis | None = None


class Pipeline:
    """Folds events and tells every incident to `sink`, in order and without waiting for anything."""

    def __init__(self, sink: Sink, engine: Engine | None = None, ledger: "Ledger | None" = None) -> None:
        self.sink = sink
        self.engine = engine
        self.ledger = ledger
        self.incidents = Incidents()
        self.recorder = Recorder(boot_id(), boot_wall_ns(), run=os.urandom(4).hex())
        self.cache = LastSeenCache(self.recorder.boot_wall_ns)
        self.marks = marks_in(ledger.folder.parent) if ledger is not None else None
        self.kernel_lines: list[KernelLine] | None = []  # None: the kernel log cannot be read
        self.words_missing = "its stderr is not a file, and reading what it wrote elsewhere needs BPF (sudo)"
        self.words_since_ns: int | None = None  # since when the write probe hears what goes to no file
        causes()  # loads every cause and kind of evidence now, not at the first death
        self.in_turn: InTurn | None = None  # None: nobody takes up what is worked out beside, so nothing is
        self.told: dict[int, str] = {}  # incident of a pid that ended lately, for the wrapper above it
        self.hears: list[Sink] = []  # who acts on what is told: each must come back at once
        self.closes: Callable[[IncidentClosed], bool] | None = None  # whoever closes an incident himself, and says so
        self.stopping: set[tuple[int, int]] = set()  # pid and start of agents that we have asked to end: no incident

    def tell(self, event: AnyEvent) -> None:
        """One event: to the record, then every end that it completes."""
        self.announce(event)
        for ended in self.incidents.apply(event):
            self.end(ended)
        self.mark(event)

    def announce(self, event: AnyEvent) -> None:
        """To the record, and to whoever acts on it."""
        self.sink(event)
        for hear in self.hears:
            hear(event)

    def mark(self, event: AnyEvent) -> None:
        """What an agent stands on is looked at when it becomes a program, and kept when it ended well."""
        if self.marks is None:
            return
        if isinstance(event, ProcessExit):
            self.marks.exited(event)
        elif isinstance(event, ProcessExec):
            member = self.incidents.member(event.pid, event.start_ns)
            if member is not None and member.on_agent_line:
                self.marks.seen(member.tree.agent, member.process, event)

    def end(self, ended: Ended) -> None:
        """One end, told at once; or beside the loop, where installed files are to be looked at, and what comes after it of its agent."""
        scene = self.scene(ended)
        self.cache.forget(ended.process.pid)
        key = (ended.agent.pid, ended.agent.start_ns)
        drift = self.marks is not None and may_be_drift(scene)
        if self.in_turn is None or not (drift or self.in_turn.waits(key)):
            self.tell_end(ended, self.judged(ended, scene))
            return
        run = self.marks.hold(scene) if self.marks is not None and drift else None

        def tell(judged: Judged) -> None:
            if self.marks is not None and run is not None:
                self.marks.release(run)
            self.tell_end(ended, judged)

        def work() -> Judged:
            return self.judged(ended, scene, run)

        def instead(because: str) -> Judged:
            return self.judged(ended, scene, no_files=f"looking at what is installed: {because}")

        self.in_turn.put(key, work, tell, instead)

    def judged(self, ended: Ended, scene: Scene, run: "Run | None" = None, no_files: str | None = None) -> "Judged":
        """What an end was: on purpose, or its evidence and diagnosis. It touches nothing that changes, so a thread may do it."""
        actor = collect_actor(scene)
        signaller = actor if isinstance(actor, SignalActor) else None
        on_purpose = stopped_on_purpose(ended, signaller)
        if (ended.agent.pid, ended.agent.start_ns) in self.stopping:
            on_purpose = STOPPED_BY_US
        if on_purpose is not None:
            return Judged(scene, signaller, on_purpose)
        if self.marks is not None and no_files is None:
            scene = self.marks.measured(scene, run)
        collected = collect_all(scene, no_files=no_files)
        return Judged(scene, signaller, None, collected, classify(collected))

    def tell_end(self, ended: Ended, judged: "Judged") -> None:
        """An incident if it is one; then, if it was the root, the agent is gone."""
        incident = self.told.get(ended.mirrors) if ended.mirrors is not None else None
        if incident is not None:
            self.told[ended.process.pid] = incident  # for the wrapper above this wrapper
        if judged.diagnosis is not None and worth_telling(ended, judged.diagnosis):
            opened = incident_of(ended, judged.scene, judged.collected, judged.diagnosis)
            incident = self.told[ended.process.pid] = opened.incident
            self.keep(opened)
            self.announce(opened)
        if ended.is_root:
            says = judged.on_purpose or ("an incident" if incident else "ended")
            by = judged.signaller.actor.says if judged.on_purpose and judged.signaller else None
            self.stopping.discard((ended.agent.pid, ended.agent.start_ns))
            self.announce(AgentGone(at_ns=ended.exit.at_ns, agent=ended.agent, says=says, by=by, incident=incident))
        while len(self.told) > TOLD_KEPT:
            del self.told[next(iter(self.told))]

    def hang(self, scene: HangScene, already: str | None = None) -> IncidentOpened | None:
        """A suspect: its incident if a cause explains what is outstanding, or None; one that was told `already` is not told again."""
        collected = collect_all(scene)
        diagnosis = classify(collected)
        opened = hang_of(scene, collected, diagnosis)
        if opened is not None and already is None:
            self.keep(opened)
            self.announce(opened)
        return opened

    def close_incident(self, closed: IncidentClosed) -> None:
        """A hang is over: told and kept, unless whoever acts on it goes on with it."""
        if self.closes is None or not self.closes(closed):
            self.keep(closed)
            self.sink(closed)

    @staticmethod
    def suspicion(scene: HangScene, after_s: float) -> str | None:
        """The name of what would be a hang if whoever waits had less patience, or None."""
        sooner = msgspec.structs.replace(scene.examination, patience_s=after_s)
        diagnosis = classify(collect_all(msgspec.structs.replace(scene, examination=sooner)))
        return next((finding.cause.split("/")[1] for finding in diagnosis.findings if finding.confidence != "possible"), None)

    def lost(self, source: str, says: str) -> None:
        """Something was not seen: said, never kept silent."""
        self.sink(Lost(at_ns=now_ns(), source=source, count=1, says=says))

    def scene(self, ended: Ended) -> Scene:
        """Everything known about this end, as one value."""
        end, pid = ended.exit, ended.process.pid
        words, words_missing = self.words(end)
        oom_kills = self.cache.oom_kills_since(pid) if end.signal == SIGKILL and self.kernel_lines is None else None
        lines = self.kernel_lines
        return Scene(
            agent=ended.agent,
            process=ended.process,
            scope=ended.scope,
            exit=end,
            engine=end.engine,
            signals=ended.signals,
            faults=ended.faults,
            victim=ended.victim,
            kernel_lines=None if lines is None else tuple(lines[-LOG_LINES_READ:]) if end.signal else (),
            last_seen=self.cache.last_seen(ended.process, end),
            memory=self.cache.memory.of(pid, ended.process.start_ns),
            words=words,
            words_missing=words_missing,
            family=ended.family,
            ancestors=ended.ancestors,
            oom_kills=oom_kills,
        )

    def words(self, end: ProcessExit) -> tuple[Words | None, str]:
        """The last words from wherever they are, or why there are none."""
        found = self.cache.words(end)
        if found is None and self.engine is not None:
            tail = self.engine.take_words(end.pid)
            if tail is not None:
                found = Words(text=tail[0], source="the write probe's tail of descriptors 1 and 2", written_ns=tail[1])
        since = self.words_since_ns
        if found or (since is not None and (end.start_ns > since or end.at_ns > since + LONG_PAST_NS)):
            return found, ""
        return None, self.words_missing if since is None else ATTACHED_LATE

    def wrote_ns(self, pid: int) -> int | None:
        """When a living process last wrote to descriptors 1 or 2, as far as that is seen: the file's time, or the write probe's."""
        at = self.cache.wrote_ns(pid)
        return self.engine.wrote_ns(pid) if at is None and self.engine is not None else at

    def remember(self, line: KernelLine) -> None:
        """Keep what the kernel logs, bounded."""
        if self.kernel_lines is not None:
            self.kernel_lines.append(line)
            if len(self.kernel_lines) > LOG_LINES_KEPT:
                del self.kernel_lines[: LOG_LINES_KEPT // 2]

    def keep(self, event: AnyEvent) -> None:
        """Write what is told of an incident to the ledger; a full disk costs the record, never the stream."""
        line = self.recorder.encode(event)
        if self.ledger is None or line is None:
            return
        try:
            self.ledger.append(line)
        except CannotWrite as error:
            self.sink(Lost(at_ns=now_ns(), source="ledger", count=1, says=str(error)))

    async def keep_durably(self, event: AnyEvent) -> None:
        """The same, and have the disk confirm it, beside the loop: for an intent, which must be known after any crash."""
        line = self.recorder.encode(event)
        if self.ledger is None or line is None:
            return
        try:
            await self.ledger.append_durably(line)
        except CannotWrite as error:
            self.sink(Lost(at_ns=now_ns(), source="ledger", count=1, says=str(error)))


def marks_in(state: Path) -> "Marks":
    """The marks kept in this state directory; loaded here, since a one-shot report has none."""
    from agentscope.marks import Marks

    return Marks(state)


def replay(events: Iterable[AnyEvent], sink: Sink) -> None:
    """The same path on a recording: its ends are found again, its evidence is judged again by today's causes."""
    kept = list(events)
    recorded = {(event.process.pid, event.process.start_ns): event for event in kept if isinstance(event, IncidentOpened)}
    incidents = Incidents()
    judged: set[str] = set()
    for event in kept:
        if isinstance(event, IncidentOpened):
            if event.incident not in judged:
                judged.add(event.incident)
                sink(judged_again(event))
            continue
        sink(event)
        for ended in incidents.apply(event):
            told = recorded.get((ended.process.pid, ended.process.start_ns))
            if told is not None and told.incident not in judged:
                judged.add(told.incident)
                sink(judged_again(told))


def judged_again(recorded: IncidentOpened) -> IncidentOpened:
    """A recorded incident under today's causes: evidence as it was, verdict new."""
    lived = recorded.exit.code is None and recorded.exit.signal is None
    collected = from_records(HangScene if lived else Scene, recorded.evidence, recorded.missing)
    return msgspec.structs.replace(recorded, **verdict_of(collected, classify(collected), recorded.headline))


def verdict_of(collected: dict[str, Collected], diagnosis: Diagnosis, unexplained: str) -> dict[str, Any]:
    """The fields of an incident that the diagnosis decides."""
    best = diagnosis.findings[0] if diagnosis.findings else None
    cited = set(best.cites) if best else set()
    supporting = {kind for finding in diagnosis.findings[1:] for kind in finding.cites}
    evidence = [
        found.record("decisive" if kind in cited else "supporting" if kind in supporting else "context")
        for kind, found in collected.items()
        if isinstance(found, Evidence)
    ]
    evidence.sort(key=lambda record: ("decisive", "supporting", "context").index(record.weight))
    return {
        "cause": best.cause if best else "undetermined",
        "subtype": best.cause.split("/")[1] if best else "",
        "confidence": best.confidence if best else "undetermined",
        "headline": best.headline if best else unexplained,
        "culprit": best.culprit if best else "unknown",
        "advice": (*(best.advice if best else (NO_EVIDENCE,)), *going_on(collected.get("session"))),
        "evidence": tuple(evidence),
        "missing": tuple(
            MissingEvidence(kind=found.kind, because=found.because)
            for found in collected.values()
            if isinstance(found, Missing)
        ),
        "ruled_out": diagnosis.ruled_out,
        "not_checked": diagnosis.not_checked,
        "findings": diagnosis.findings,
    }


def hang_of(scene: HangScene, collected: dict[str, Collected], diagnosis: Diagnosis, asked: str = "") -> IncidentOpened | None:
    """The incident of a hang: a cause is at least likely, or its owner's probe, or a person, `asked`, says that it is not well; or None."""
    seen = scene.examination
    sure = any(finding.confidence != "possible" for finding in diagnosis.findings)
    failing = seen.health is not None and seen.health.failing_since_ns is not None
    overdue = seen.progress is not None and seen.progress.overdue
    if not sure and not failing and not overdue:
        if not asked:
            return None
        diagnosis = msgspec.structs.replace(diagnosis, findings=())
    what = (
        seen.health.says
        if failing and seen.health
        else f"no progress within {seen.progress.within_s:g} s"
        if seen.progress
        else ""
    )
    fields: dict[str, Any] = {
        "at_ns": seen.at_ns,
        "incident": f"{boot_id()[:8]}-{scene.process.pid}-{scene.process.start_ns // 1_000_000}-{'asked' if asked else 'hang'}-{seen.at_ns // 1_000_000_000}",
        "agent": scene.agent,
        "process": scene.process,
        "scope": scene.scope,
        "exit": ExitRecord(code=None, signal=None, core_dumped=False),
        "actor": None,
        "timeline": hang_timeline_of(scene),
        "engine": scene.engine,
        "detected_in_ms": round(max(0, now_ns() - seen.at_ns) / 1e6, 3),
    }
    unexplained = asked or f"{scene.process.comm or 'the agent'} is not well ({what}), and nothing that was seen explains it"
    return msgspec.convert(
        fields | verdict_of(collected, diagnosis, unexplained), IncidentOpened, strict=True, from_attributes=True
    )


def incident_of(ended: Ended, scene: Scene, collected: dict[str, Collected], diagnosis: Diagnosis) -> IncidentOpened:
    """The incident as the public contract has it."""
    end = ended.exit
    actor = collected.get("actor")
    how = f"was ended by {signal_name(end.signal)}" if end.signal else f"exited with status {end.code}"
    fields: dict[str, Any] = {
        "at_ns": end.at_ns,
        "incident": f"{boot_id()[:8]}-{end.pid}-{end.start_ns // 1_000_000}",
        "agent": ended.agent,
        "process": ended.process,
        "scope": ended.scope,
        "exit": ExitRecord(code=end.code, signal=signal_name(end.signal) if end.signal else None, core_dumped=end.core_dumped),
        "actor": actor.actor if isinstance(actor, SignalActor) else None,
        "timeline": timeline_of(ended),
        "engine": scene.engine,
        "detected_in_ms": 0.0 if scene.past else round(max(0, now_ns() - end.at_ns) / 1e6, 3),
        "reconstructed": scene.past is not None,
    }
    unexplained = f"{ended.process.comm or 'the process'} {how}{unsaid(scene.past, collected.get('last-words'))}"
    told = fields | verdict_of(collected, diagnosis, unexplained)
    return msgspec.convert(told, IncidentOpened, strict=True, from_attributes=True)
