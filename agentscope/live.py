"""Step 1, live: brings events of the engine and the kernel log to the pipeline, finds agents, and beats the pulse.

Nothing here judges. Everything runs in one asyncio loop; no call waits.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentscope import __version__
from agentscope.agents import (
    Target,
    agent_of,
    ancestors_of,
    children_by_parent,
    configured_name,
    descendants_of,
    found_now,
    matches,
    ourselves,
    process_of,
    read_process,
    start_ns_of,
)
from agentscope.config import Config, lockfiles
from agentscope.discovery import Scan
from agentscope.errors import NoSuchProcess, NotPermitted
from agentscope.incidents import HELD_NS
from agentscope.marks.beside import InTurn
from agentscope.model import (
    Agent,
    AgentGone,
    AgentSeen,
    AnyEvent,
    KernelLine,
    Lost,
    ProcessExec,
    ProcessFork,
    Ready,
)
from agentscope.pipeline import Pipeline, now_ns
from agentscope.pulses import PULSE_S, Pulses
from agentscope.recovery import Recovery
from agentscope.sources import Engine, Source, permitted
from agentscope.sources.active import Probes
from agentscope.vigil import Vigil

HELD_CHECK_S = 0.05
READS_A_SECOND = 8  # of /proc: neither a storm of starts nor a hundred agents may stop the drain or cost a core
SLICE = 256  # events folded before the loop may do something else
BACKLOG_LIMIT = 500_000
WORDS_IDLE_PULSES = 30
DISCOVER_S = 10.0  # between looks for agents that no command line gives away; each costs some milliseconds
LATE_S = 10.0  # for an end that is judged beside the loop
CLOSE_S = 3.0  # for all of them once the watching is over
LEAVE_S = 5.0  # how long an act that is under way may hold up our own end; after that its outcome is found when we are back
NO_LOG = "the kernel log cannot be read: what it says of a kill for memory, or of a fault, is not known"
NOT_ATTACHED = "its stderr is not a file, and the write probe was not attached when it wrote"


class Terms(NamedTuple):
    """How patient the watching is, in seconds (--hang-after), the folder of its state, and whether what is open there goes on."""

    patience_s: float
    state: Path
    resume: bool = True


class Live:
    """One run over live sources. `start` returns once nothing can be missed any more."""

    def __init__(self, pipeline: Pipeline, wanted: Config, engine: Engine, kernel_log: Source | None, terms: Terms) -> None:
        self.pipeline = pipeline
        self.probes = Probes(wanted, pipeline.tell, terms.state, self.agent_of)
        self.vigil = Vigil(pipeline, self.probes, terms.patience_s)
        self.pulses = Pulses(pipeline, engine, self.vigil)
        self.recovery = Recovery(pipeline, wanted, terms.state, self.take)
        self.resume = terms.resume
        pipeline.hears.append(self.hear)
        self.targets = wanted.targets
        self.engine = engine
        self.kernel_log = kernel_log
        self.members = pipeline.incidents.members
        self.own = ourselves()
        self.backlog: deque[AnyEvent] = deque()
        self.folding = False
        self.becoming: dict[int, tuple[str, ...]] = {}  # what a child that is held will be, by pid: as yet it is a copy of us
        self.reads_left = READS_A_SECOND
        self.capturing = False
        self.words_idle = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.settling: asyncio.TimerHandle | None = None
        if kernel_log is None:
            pipeline.kernel_lines = None
        pipeline.cache.counts_kills = kernel_log is None
        if pipeline.marks is not None:
            pipeline.marks.lockfile_of = lockfiles(wanted)
        pipeline.in_turn = self.in_turn = InTurn("ends", LATE_S)
        pipeline.words_missing = engine.words_unheard or NOT_ATTACHED

    def start(self) -> None:
        """Find what is to be watched, watch it in the kernel, and only then say ready."""
        self.probes.start()
        discovering = any(target.kind != "pid" for target in self.targets)
        if discovering:
            self.engine.watch_discovered(True)
        found = found_now(self.targets, self.own, self.engine.may_watch)
        for seen, _ in found:
            self.engine.watch(permitted(seen, self.engine).pid)
            self.capture_words_of(seen)
        # only now: what they start from here on is watched by birth
        children = children_by_parent() if found else {}
        families = [(because, (seen, *descendants_of(seen.pid, children))) for seen, because in found]
        for _, family in families:
            for process in family:
                self.engine.watch(process.pid)
            self.know_python(family)
            if self.reads_left > 0:
                self.reads_left -= 1
                self.pipeline.cache.refresh(process_of(family[0]), now_ns())
        self.pipeline.sink(
            Ready(
                at_ns=now_ns(),
                version=__version__,
                engine=self.engine.name,
                kernel=Path("/proc/sys/kernel/osrelease").read_text().strip(),
                boot_id=self.pipeline.recorder.boot_id,
                wall_ns=self.pipeline.recorder.boot_wall_ns + now_ns(),
                targets=tuple(str(target) for target in self.targets),
                degraded=(*self.engine.degraded, *((NO_LOG,) if self.kernel_log is None else ())),
            )
        )
        if self.pipeline.ledger is not None:
            self.pipeline.ledger.prepare()
        for because, family in families:
            self.adopt(family, because, at_ns=now_ns())
        loop = asyncio.get_running_loop()
        self.in_turn.wake = partial(loop.call_soon_threadsafe, self.in_turn.take_up)
        loop.add_reader(self.engine.fileno(), self.drain)
        if self.kernel_log is not None:
            loop.add_reader(self.kernel_log.fileno(), self.drain)
        self.tasks = [loop.create_task(self.beat()), loop.create_task(asyncio.to_thread(warm))]
        if any(target.kind == "signature" for target in self.targets):
            self.tasks.append(loop.create_task(self.discover(Scan())))
        self.recovery.start(resume=self.resume)

    def close(self) -> None:
        """Detach from the loop; what has come is folded first."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.engine.fileno())
        if self.kernel_log is not None:
            loop.remove_reader(self.kernel_log.fileno())
        for task in self.tasks:
            task.cancel()
        if self.settling is not None:
            self.settling.cancel()
        self.recovery.close()
        self.vigil.close()
        self.probes.close()
        self.empty_sources()
        while self.backlog:
            self.fold(SLICE)
        for ended in self.pipeline.incidents.overdue(now_ns() + HELD_NS):
            self.pipeline.end(ended)
        self.in_turn.finish(CLOSE_S)
        if self.pipeline.marks is not None:
            self.pipeline.marks.close()

    # --- events, in kernel order ----------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Empty the sources at once, so that the ring never fills; fold in slices, so that the loop never stalls."""
        self.empty_sources()
        if len(self.backlog) > BACKLOG_LIMIT:
            dropped = len(self.backlog) - BACKLOG_LIMIT
            for _ in range(dropped):
                self.backlog.popleft()
            self.pipeline.sink(
                Lost(at_ns=now_ns(), source="backlog", count=dropped, says="events came faster than they could be judged")
            )
        if not self.folding:
            self.fold_on()

    def empty_sources(self) -> None:
        """Everything that the sources have.

        The kernel logs a death before the process exits: read after the events, its log has a line for each of them, however long they
        took to be taken; and its lines are kept at once, before any event is judged.
        """
        self.backlog.extend(self.engine.drain())
        for line in self.kernel_log.drain() if self.kernel_log is not None else ():
            if isinstance(line, KernelLine):
                self.pipeline.remember(line)
            else:
                self.backlog.append(line)

    def fold_on(self) -> None:
        """Fold one slice and come back for the rest."""
        self.fold(SLICE)
        self.settle_later()
        self.folding = bool(self.backlog)
        if self.folding:
            asyncio.get_running_loop().call_soon(self.fold_on)

    def fold(self, count: int) -> None:
        """Fold up to `count` events; what is about no agent of ours ends here."""
        for _ in range(min(count, len(self.backlog))):
            event = self.backlog.popleft()
            if isinstance(event, ProcessExec):
                self.execed(event)
            elif isinstance(event, ProcessFork):
                if event.ppid in self.members:
                    self.pipeline.tell(event)
                else:
                    self.engine.unwatch(event.pid, event.at_ns)
            elif isinstance(event, Lost) or getattr(event, "pid", None) in self.members:
                self.pipeline.tell(event)

    # --- agents -----------------------------------------------------------------------------------------------------------

    def execed(self, event: ProcessExec) -> None:
        """A program started: one of an agent's, a new agent, or nobody's."""
        if event.pid in self.members or event.ppid in self.members:
            self.know_python((event,))
            self.pipeline.tell(event)
            self.attend(event)
            return
        target, because = next(((each, why) for each in self.targets if (why := matches(each, event))), (None, None))
        if because is None or event.pid in self.own or self.is_our_check(event, target) or not self.engine.may_watch(event.uid):
            self.engine.unwatch(event.pid, event.at_ns)
        else:
            self.engine.watch(event.pid)  # what it was before this exec may have been turned down, after the exec
            self.know_python((event,))
            self.adopt((event,), because, at_ns=event.at_ns)

    async def discover(self, scan: Scan) -> None:
        """From time to time find agents by what they have and do, beside the loop."""
        while True:
            found = await asyncio.to_thread(scan.look, frozenset(self.own | self.members.keys()))
            above = {os.getpid(), *(each.pid for each in found)}  # what we started, or what one of them did, is no other agent
            for each in found:
                parents = {ancestor.pid for ancestor in ancestors_of(each.pid)[1:]}
                if each.start_ns == start_ns_of(each.pid) and not above & parents:
                    self.take(each.pid, None, each.because)
            await asyncio.sleep(DISCOVER_S)

    def take(self, pid: int, label: str | None, because: str | None = None) -> Agent | None:
        """Watch this process from now on as the agent of this label, whatever it looks like; None if it is gone."""
        if pid in self.members:
            return self.members[pid].tree.agent
        with contextlib.suppress(NoSuchProcess, NotPermitted):
            seen = permitted(read_process(pid), self.engine)
            self.engine.watch(pid)
            family = (seen, *descendants_of(pid, children_by_parent()))
            for process in family:
                self.engine.watch(process.pid)
            self.know_python(family)
            self.adopt(family, because or f"it was started in the place of {label}", at_ns=now_ns(), label=label)
            return self.members[pid].tree.agent
        return None

    def adopt(self, family: Sequence[ProcessExec], because: str, *, at_ns: int, label: str | None = None) -> None:
        """A new agent: its root, and the processes it already has, told as exec events of the time we looked."""
        seen = family[0]
        if (command := self.becoming.pop(seen.pid, None)) is not None:
            seen = msgspec.structs.replace(seen, argv=command)
        label = label or configured_name(self.targets, seen)
        agent = agent_of(seen, self.pipeline.recorder.boot_wall_ns, label)
        self.pipeline.tell(AgentSeen(at_ns=at_ns, agent=agent, because=because))
        self.probes.adopt(agent, label)
        self.recovery.adopt(agent, label)
        for process in family:
            self.pipeline.tell(process)
            self.attend(process)

    def hear(self, event: AnyEvent) -> None:
        """Whoever has ended is asked no more: a new instance may answer at the same address."""
        if isinstance(event, AgentGone):
            self.probes.gone(event.agent)

    def is_our_check(self, event: ProcessExec, target: Target | None) -> bool:
        """Whether we started it, as a health check: it may have the agent's name, and is none. What brings the agent back is no check."""
        if any(each.kind == "pid" for each in self.targets) or self.recovery.is_starting(target.name if target else None):
            return False
        return any(ancestor.pid == os.getpid() for ancestor in event.ancestors)

    def agent_of(self, pid: int) -> Agent | None:
        """The agent in whose tree a living process is."""
        member = self.members.get(pid)
        return member.tree.agent if member is not None else None

    def is_judging(self, agent: Agent) -> bool:
        """Whether an end of this agent was seen, or may have been, and what it was is not told yet: it takes LATE_S at the most."""
        held = any(ended.agent == agent for ended in self.pipeline.incidents.held.values())
        return held or bool(self.backlog) or self.in_turn.waits((agent.pid, agent.start_ns))

    def know_python(self, family: Iterable[ProcessExec]) -> None:
        """Teach the fault probe where the Python processes among these keep their frames."""
        self.engine.know_python([process.pid for process in family if "python" in (process.exe or process.comm)])

    def attend(self, seen: ProcessExec) -> None:
        """Keep what dies with a process: its limits, its stderr, where its interpreter has its frames."""
        member = self.members.get(seen.pid)
        if member is None:
            return
        self.capture_words_of(seen)
        if member.on_agent_line and self.reads_left > 0:
            self.reads_left -= 1
            self.pipeline.cache.refresh(member.process, now_ns(), execed=True)

    def capture_words_of(self, seen: ProcessExec) -> None:
        """Attach the write probe if this process's stderr can be read nowhere else."""
        if not self.capturing and not self.engine.words_unheard and seen.stderr not in {"file", "closed"}:
            self.capturing = True
            self.engine.capture_words(True)
            self.pipeline.words_since_ns = now_ns()  # from now on, no words means that it wrote none

    # --- the pulse ----------------------------------------------------------------------------------------------------------

    async def beat(self) -> None:
        """Once a second, see what every agent uses."""
        while True:
            await asyncio.sleep(PULSE_S)
            self.pulse()

    def settle(self) -> None:
        """Decide ends that were held for a wrapper which went on."""
        self.settling = None
        for ended in self.pipeline.incidents.overdue(now_ns()):
            self.pipeline.end(ended)
        self.settle_later()

    def settle_later(self) -> None:
        """Look again soon, but only while an end is held: an idle watcher must not wake twenty times a second."""
        if self.pipeline.incidents.held and self.settling is None:
            self.settling = asyncio.get_running_loop().call_later(HELD_CHECK_S, self.settle)

    def pulse(self) -> None:
        """What every agent uses, and whatever else comes round with the second."""
        self.reads_left = READS_A_SECOND
        now = self.pulses.beat()
        self.vigil.beat(now)
        self.in_turn.take_up()
        self.rest_words()
        if self.pipeline.marks is not None:
            for says in self.pipeline.marks.beat(now):
                self.pipeline.sink(Lost(at_ns=now, source="baseline", count=1, says=says))

    def rest_words(self) -> None:
        """Detach the write probe once nobody has needed it for a while: it slows every system call of the host a little."""
        self.words_idle = 0 if self.members else self.words_idle + 1
        if self.capturing and self.words_idle >= WORDS_IDLE_PULSES:
            self.capturing = False
            self.engine.capture_words(False)
            self.pipeline.words_since_ns = None

    async def run_until(self, stop: asyncio.Event, for_s: float | None) -> None:
        """Watch until `stop` is set or `for_s` seconds have passed."""
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), for_s)
            await self.recovery.finish(LEAVE_S)
        finally:
            self.close()


def warm() -> None:
    """Load the readers and the unwinder now, beside the loop: compiling their patterns at the first death would cost 0.1 s."""
    from agentscope.readers import read
    from agentscope.readers.kernel_fault import read_fault_lines
    from agentscope.readers.kernel_oom import read_oom_reports
    from agentscope.symbols import elf, owner, unwind  # noqa: F401 - loading it is the purpose

    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if " r-xp " in line and path.endswith(("libc.so.6", "/bin/python3.11")):
            elf.warm(f"/{path}")
            owner.owner_of(f"/{path}")
    kernel = ("a[1]: segfault at 0 ip 0 sp 0 error 4", "Out of memory: Killed process 1 (a) total-vm:1kB, anon-rss:1kB")
    read_fault_lines(kernel)
    read_oom_reports(kernel)
    read("Traceback (most recent call last):\nKeyError: 1\n")
