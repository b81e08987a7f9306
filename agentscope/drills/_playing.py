"""One drill from beginning to end: says what will happen, lets the sample die, has it judged, and clears everything away."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agentscope.agents import Target, agent_of, live_processes, read_process
from agentscope.commandlines import program_of
from agentscope.config import Config
from agentscope.drills import Drill
from agentscope.drills._sandbox import MINUTE_S, Sandbox, sandbox
from agentscope.errors import ExitStatus
from agentscope.incidents import HELD_NS
from agentscope.ledger import Ledger
from agentscope.live import LEAVE_S, Live, Terms
from agentscope.model import AgentSeen, AnyEvent, IncidentOpened, KernelLine
from agentscope.pipeline import Pipeline, boot_wall_ns, hang_of, now_ns
from agentscope.session import open_for_child, open_kernel_log
from agentscope.sources.child import ChildSource
from agentscope.state import state_dir

if TYPE_CHECKING:
    from agentscope.sources import Engine, Source

LOOK_S = 0.02
SEEN_S = 5.0  # how long it lives before somebody who watches a screen
BRIEFLY_S = 0.3
SETTLED_S = 12.0  # by when a run that is well has been looked at, so that it can be the measure of the next
PATIENCE_S = 2.0
JUDGED_S = 20.0
INTERRUPTED = 130
NARROWED = frozenset({"--pid", "--name", "--unit", "--cgroup", "--config", "--once", "--replay"})


class Interrupted(Exception):
    """Somebody wants it to end."""


class Stopping:
    """Ctrl-C, SIGTERM and a closed terminal, as something that is asked for: what is cleared away is cleared away whole."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """While this lasts none of them ends us."""
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, was in before.items():
                signal.signal(number, was)

    def _hear(self, *_: object) -> None:
        self.asked = True

    async def until(self, over: Callable[[], bool], within_s: float) -> bool:
        """Wait until something is so; whether it was in time.

        Raises:
            Interrupted: somebody wants us to end.
        """
        deadline = time.monotonic() + within_s
        while not over():
            if self.asked:
                raise Interrupted
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_S)
        return True


def play(kind: str, drill: Drill, diagnose: bool | None, state: str | None) -> int:
    """Play it, judged by us if `diagnose`, or by nobody else. The exit status: 0 if all came as told."""
    stopping = Stopping()
    others = () if diagnose else watchers()
    with stopping.heard():
        try:
            with sandbox(kind, drill) as box:
                tell(opening(box, others))
                if others or diagnose is False:
                    return asyncio.run(seen_by_others(box, stopping, others))
                return judged(box, stopping, state)
        except Interrupted:
            tell("Interrupted: the sample agent is gone, and its cgroup and its files with it.")
            return INTERRUPTED


def tell(text: str) -> None:
    """A paragraph to standard output, wrapped for a narrow terminal."""
    import textwrap

    sys.stdout.write("".join(f"{textwrap.fill(line, 78)}\n" if line else "\n" for line in text.splitlines()))
    sys.stdout.flush()


def watchers() -> tuple[int, ...]:
    """Other agentscope processes that find it by itself: `watch` and `events` of this machine that have no target."""
    found = []
    for seen in live_processes():
        program = program_of(seen.argv, seen.comm)
        narrowed = NARROWED.intersection(word.partition("=")[0] for word in program.words)
        if program.name == "agentscope" and program.words[:1] in {("watch",), ("events",)} and not narrowed:
            found.append(seen.pid)
    return tuple(pid for pid in found if pid != os.getpid())


def opening(box: Sandbox, others: tuple[int, ...]) -> str:
    """What will happen, to what, and where it can be seen."""
    whom = "as root, for no Python here may be run by others" if box.as_root else "as nobody" if box.identity else "as you"
    memory = box.drill.MEMORY_MIB
    limit = f"in a memory cgroup of its own ({memory} MiB)" if box.limited else f"with at most {memory} MiB of address space"
    lines = [f"Drill {box.kind}: {' '.join((box.drill.__doc__ or '').split(chr(10) * 2)[0].split())}"]
    lines.append(
        f"The sample agent drill-{box.kind} runs {whom}, {limit}, for at most {MINUTE_S} s, and touches nothing of yours."
    )
    if not box.limited:
        lines.append(
            "No cgroup can be made for it here"
            + ("" if os.geteuid() == 0 else " without root")
            + (f": expected is {box.cause} instead of {box.drill.CAUSE}." if box.cause != box.drill.CAUSE else ".")
        )
    if others:
        lines.append(f"Look at the agentscope that watches already (pid {', '.join(map(str, others[:3]))}).")
    lines.append(f"Expected: {box.cause} (agentscope explain {box.cause})")
    return "\n".join(lines) + "\n"


# --- somebody else watches ---------------------------------------------------------------------------------------------------


async def seen_by_others(box: Sandbox, stopping: Stopping, others: tuple[int, ...]) -> int:
    """Let it live for a few seconds, so that it can be seen, and die; nothing is judged here."""
    if not others:
        tell("Nobody watches yet: type sudo agentscope watch in another terminal now.")
    for turn in range(box.drill.RUNS + 1):
        prepare(box, turn)
        pid = box.start(SEEN_S)
        process = box.process
        assert process is not None
        last = turn == box.drill.RUNS
        tell(f"drill-{box.kind} runs (pid {pid}){f', and goes wrong in {SEEN_S:g} s' if last else ''}.")
        box.let_go()
        if not last:
            await stopping.until(lambda: False, SEEN_S)
            box.let_go()
        ended = await stopping.until(lambda process=process: process.poll() is not None, MINUTE_S + SEEN_S)  # type: ignore[misc] # mypy knows no default of a lambda
        tell(ending(box.stop(), ended=ended))
    tell("Its verdict is on the other screen, and in: agentscope incidents --since 5m")
    return ExitStatus.HEALTHY


def prepare(box: Sandbox, turn: int) -> None:
    """What changes between two runs."""
    versions = getattr(box.drill, "VERSIONS", ())
    if turn and versions:
        library = str(getattr(box.drill, "LIBRARY", ""))
        box.install(library, *versions[turn])
        tell(f"{library} was upgraded from {versions[turn - 1][0]} to {versions[turn][0]} in its venv.")


def ending(status: int | None, *, ended: bool = True) -> str:
    """How a run ended, in words."""
    if not ended or status is None:
        return "It did not end by itself, and was ended."
    if status < 0:
        return f"It was ended by {signal.Signals(-status).name}."
    return f"It ended with status {status}."


# --- we watch ----------------------------------------------------------------------------------------------------------------


def judged(box: Sandbox, stopping: Stopping, state: str | None) -> int:
    """Watch it ourselves, and print the report of what is found."""
    engine = open_for_child("auto", tell)
    with tempfile.TemporaryDirectory(prefix="agentscope-drill-", ignore_cleanup_errors=True) as kept:
        place = state_dir(state) if state else Path(kept)
        try:
            watching = Watching(box, stopping, engine, place)
            incident = asyncio.run(watching.play())
        finally:
            if engine is not None:
                engine.close()
    return verdict(box, incident, watching.seconds)


def verdict(box: Sandbox, incident: IncidentOpened | None, seconds: float) -> int:
    """The report, and whether it is what was expected; the exit status."""
    if incident is None:
        tell(f"Nothing was found within {JUDGED_S:g} s. That should not be. Try: agentscope doctor")
        return ExitStatus.UNDETERMINED
    from agentscope.views.report import render_report, wants_color, width_of

    width, color = width_of(sys.stdout), wants_color(sys.stdout)
    sys.stdout.write(render_report(incident, width=width, color=color, when_ns=boot_wall_ns() + incident.at_ns))
    right = incident.cause == box.cause
    tell(
        f"\nFound {incident.cause} {seconds:.1f} s after it went wrong"
        + (", as expected. Everything of the drill is cleared away." if right else f"; expected was {box.cause}.")
    )
    return ExitStatus.HEALTHY if right else ExitStatus.UNDETERMINED


class Watching:
    """The watcher of one drill: with the engine, or as the sample's parent where there is none."""

    def __init__(self, box: Sandbox, stopping: Stopping, engine: "Engine | None", state: Path) -> None:
        self.box = box
        self.stopping = stopping
        self.engine = engine
        self.state = state
        self.label = f"drill-{box.kind}"
        self.told: list[IncidentOpened] = []
        self.well_s = 0.0 if box.drill.RUNS else BRIEFLY_S  # what worked before goes wrong at once
        self.seconds = 0.0
        self.ledger = Ledger(state)
        self.pipeline = Pipeline(self.hear, engine, self.ledger)
        self.live: Live | None = None

    def hear(self, event: AnyEvent) -> None:
        """Only an incident counts."""
        if isinstance(event, IncidentOpened):
            self.told.append(event)

    async def play(self) -> IncidentOpened | None:
        """All runs of it; the incident of the last."""
        kernel_log = open_kernel_log()
        if kernel_log is None:
            self.pipeline.kernel_lines = None
        try:
            for turn in range(self.box.drill.RUNS + 1):
                prepare(self.box, turn)
                last = turn == self.box.drill.RUNS
                pid = self.box.start(BRIEFLY_S)
                tell(f"drill-{self.box.kind} runs (pid {pid}).")
                if self.engine is not None:
                    self.watch(pid, kernel_log)
                    await self.watched(last=last)
                else:
                    await self.attended(pid, kernel_log, last=last)
                if self.told:  # that we end it now is no incident
                    self.pipeline.stopping.add((self.told[0].agent.pid, self.told[0].agent.start_ns))
                self.box.stop()
        finally:
            if self.live is not None:
                await self.live.recovery.finish(LEAVE_S)
                self.live.close()
            elif self.pipeline.marks is not None:
                self.pipeline.marks.close()
            if kernel_log is not None:
                kernel_log.close()
            self.ledger.close()
        return self.told[0] if self.told else None

    def watch(self, pid: int, kernel_log: "Source | None") -> None:
        """With the engine: as `agentscope watch --pid` does, and what is started in its place as recovery does."""
        if self.live is None:
            assert self.engine is not None
            wanted = Config(targets=(Target(kind="pid", value=str(pid), name=self.label),), owner_uid=os.getuid())
            self.live = Live(self.pipeline, wanted, self.engine, kernel_log, Terms(PATIENCE_S, self.state, resume=False))
            self.live.start()
        else:
            self.live.take(pid, self.label)

    async def watched(self, *, last: bool) -> None:
        """One run, until it has ended, and the last until that was judged."""
        process = self.box.process
        assert process is not None
        self.box.let_go()
        began = time.monotonic()
        if not last:
            await self.stopping.until(lambda: self.settled(process.pid), SETTLED_S)
            self.box.let_go()
            await self.stopping.until(lambda: process.poll() is not None, JUDGED_S)
            await asyncio.sleep(BRIEFLY_S)
            return
        await self.stopping.until(lambda: bool(self.told), JUDGED_S)
        self.seconds = max(0.0, time.monotonic() - began - self.well_s)

    def settled(self, pid: int) -> bool:
        """Whether what it stands on has been looked at: from then on it may end well."""
        run = self.pipeline.marks.runs.get(pid) if self.pipeline.marks is not None else None
        return run is not None and run.settled

    async def attended(self, pid: int, kernel_log: "Source | None", *, last: bool) -> None:
        """Without the engine: our own child, whose end is heard by its pidfd, and which is examined as long as it lives."""
        child = ChildSource(pid)
        seen = read_process(pid)
        self.pipeline.tell(AgentSeen(at_ns=seen.at_ns, agent=agent_of(seen, boot_wall_ns(), self.label), because="the drill"))
        self.pipeline.tell(seen)
        member = self.pipeline.incidents.members[pid]
        self.pipeline.cache.refresh(member.process, now_ns())  # what dies with it
        self.box.let_go()
        began = beat = time.monotonic()
        try:
            while time.monotonic() - began < JUDGED_S and not (ends := child.drain()):
                await self.stopping.until(lambda: False, 0.05)
                if time.monotonic() - beat > 0.5 and self.pipeline.marks is not None:
                    beat = time.monotonic()
                    self.pipeline.cache.refresh(member.process, now_ns())
                    self.pipeline.marks.beat(now_ns())
                    if not last and (self.settled(pid) or time.monotonic() - began > SETTLED_S):
                        self.box.let_go()
                hung = self.box.drill.CAUSE.startswith("hang/") and time.monotonic() - began > 2 * BRIEFLY_S
                if hung and (found := await asyncio.to_thread(self.examined, pid)) is not None:
                    self.told.append(found)
                    ends = []
                    break
            for line in kernel_log.drain() if kernel_log is not None else ():
                if isinstance(line, KernelLine):
                    self.pipeline.remember(line)
            for end in ends:
                self.pipeline.tell(end)
            for held in self.pipeline.incidents.overdue(now_ns() + HELD_NS):
                self.pipeline.end(held)
            if last:
                self.seconds = max(0.0, time.monotonic() - began - self.well_s)
        finally:
            child.close()

    def examined(self, pid: int) -> IncidentOpened | None:
        """What two looks, further apart than the patience, say of the living sample: without the engine nobody knows since when it waits."""
        from agentscope.classifier import classify
        from agentscope.evidence import collect_all
        from agentscope.examining import examine

        found = examine(pid, PATIENCE_S, partial(time.sleep, PATIENCE_S + BRIEFLY_S))
        collected = collect_all(found.scene)
        return hang_of(found.scene, collected, classify(collected))
