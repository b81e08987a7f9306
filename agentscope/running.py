"""`agentscope run`: starts a command, watches it, brings it back where that is asked for, and ends as it ended.

Its input, output and terminal are its own; we speak on standard error only. Works without root and with less evidence.
"""

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import msgspec

from agentscope.agents import Target, inner_name, read_process
from agentscope.config import AgentConfig, Config
from agentscope.errors import AgentscopeError, UsageError
from agentscope.ledger import Ledger
from agentscope.live import LEAVE_S, Live, Terms
from agentscope.model import (
    Agent,
    AgentGone,
    AgentSeen,
    AnyEvent,
    IncidentClosed,
    IncidentOpened,
    ProcessExec,
    ProcessExit,
    RemedyFinished,
    RemedyStarted,
)
from agentscope.pipeline import Pipeline, boot_id, boot_wall_ns, now_ns
from agentscope.record import Recorder
from agentscope.recovery import Recovery
from agentscope.session import FLUSH_S, complain, open_for_child, open_kernel_log
from agentscope.sinks import Around
from agentscope.sinks._tee import Tee, open_what_can
from agentscope.sources.child import ChildSource
from agentscope.supervisors import Started
from agentscope.supervisors import run as seats

BECOMES_S = 0.02  # a child that was let go is its command by then, and can be looked at
SEEN_S = 2.0  # by when the engine must have told an end that we know as its parent
LOOK_S = 0.02
SAID_AT_MOST = 10
STDERR = 2


def run_child(command: tuple[str, ...], name: str | None, engine_choice: str, terms: Terms, wanted: Config) -> int:
    """The child starts only once it is watched; we end as it ended. `wanted` is the config, whose entry of this name is its own."""
    label, entry = entry_of(command, name, wanted)
    began_ns = now_ns()
    engine = open_for_child(engine_choice, sys.stderr.write)
    launch = seats.remember(command)
    held = seats.start_held(launch, command, refusal)
    ledger = Ledger(terms.state, wanted.ledger)
    pipeline = Pipeline(ignore, engine, ledger)
    pipeline.cache.pass_by(STDERR, began_ns)  # what stands there already is not the child's, nor is what we have said
    agents = {} if entry is None else {label: entry}
    running = Running(pipeline, launch, label, Config(agents=agents, owner_uid=wanted.owner_uid, sinks=wanted.sinks), terms)
    try:
        status = asyncio.run(running.attend(held))
    finally:
        if engine is not None:
            engine.close()
        ledger.close()  # here, for whoever ends by a signal runs nothing at exit
    return end_like(status)


def entry_of(command: tuple[str, ...], name: str | None, wanted: Config) -> tuple[str, AgentConfig | None]:
    """The label of the child, and what the config says of it.

    Raises:
        UsageError: the config has several agents, and none is named.
    """
    if not wanted.agents:
        return label_of(command, name), None
    if name is None and len(wanted.agents) > 1:
        known = ", ".join(wanted.agents)
        raise UsageError("the config has several agents", known, f"agentscope run --name {next(iter(wanted.agents))} -- …")
    label = name or next(iter(wanted.agents))
    if label not in wanted.agents:
        raise UsageError(f"the config has no agent {label!r}", f"it has {', '.join(wanted.agents)}", f"[agent.{label}]")
    return label, wanted.agents[label]


def label_of(command: tuple[str, ...], name: str | None) -> str:
    """What the child is called: as it was named, else by the program that its command line starts."""
    return name or inner_name(command, Path(command[0]).name)


class Running:
    """One `agentscope run`: the child that runs now, and whoever watches it and brings it back."""

    def __init__(self, pipeline: Pipeline, launch: seats.Launch, label: str, wanted: Config, terms: Terms) -> None:
        self.pipeline = pipeline
        self.launch = launch
        self.label = label
        self.wanted = wanted
        self.terms = terms
        self.live: Live | None = None
        self.recovery: Recovery | None = None
        self.child: ChildSource | None = None
        self.seat: seats.Seat | None = None
        self.status: int | None = None
        self.ended = asyncio.Event()
        self.stop = asyncio.Event()  # we are asked to end, and nobody is there to pass that on to
        self.gone: set[int] = set()
        self.agents: dict[int, Agent] = {}  # the one that was started last
        self.untold: ProcessExit | None = None  # the end of the last child, as its parent knows it
        self.tee: Tee | None = None
        self.unsaid: list[str] = []  # of sinks, while the terminal is the child's

    async def attend(self, held: seats.Held) -> int:
        """Watch the child, held at its start, and whoever comes after it. Returns the raw wait status of the last."""
        self.child = ChildSource(held.pid)
        self.pipeline.sink = self.show
        self.open_sinks()
        self.pipeline.hears.append(self.hear)
        if self.pipeline.engine is not None:
            target = Target(kind="pid", value=str(held.pid), name=self.label)
            config = msgspec.structs.replace(self.wanted, targets=(target,))
            self.live = Live(self.pipeline, config, self.pipeline.engine, open_kernel_log(), self.terms)
            self.live.becoming[held.pid] = self.launch.command
            self.live.start()
            self.recovery = self.live.recovery
        else:
            self.recovery = Recovery(self.pipeline, self.wanted, self.terms.state, self.watched)
            self.recovery.start(resume=False)
        self.listen()
        if self.live is None:
            self.adopt(held.pid, self.launch.command)
        if not self.let_go(held):
            self.pipeline.sink, self.pipeline.ledger, self.recovery.keepers = ignore, None, {}
        if self.live is None:
            await self.notice(held.pid)
        self.seat = seats.Seat(
            name=self.label, pid=held.pid, start_ns=self.child.start_ns, launch=self.launch, start=self.start_again
        )
        seats.take(self.seat)
        try:
            await self.to_the_end()
        finally:
            seats.leave(self.seat)
            await self.recovery.finish(LEAVE_S)
            if self.live is not None:
                await asyncio.sleep(0.01)
                self.live.close()
            self.child.close()
            await self.close_sinks()
        assert self.status is not None
        return self.status

    def open_sinks(self) -> None:
        """What is told goes to the sinks of the config too. One that cannot be opened, as another agentscope has it, costs only itself."""
        if self.wanted.sinks:
            recorder = Recorder(boot_id(), boot_wall_ns(), run=os.urandom(4).hex())
            around = Around(recorder, self.terms.state, self.unsaid.append)
            self.tee = open_what_can(self.wanted.sinks, around, complain)

    async def close_sinks(self) -> None:
        """Send what waits, within a time, and say what could not be said while the child had the terminal."""
        if self.tee is not None:
            for name in await self.tee.flush(FLUSH_S):
                self.unsaid.append(f"not everything was sent to {name}")
            self.tee.close()
            complain("\n".join(self.unsaid[-SAID_AT_MOST:]))

    async def to_the_end(self) -> None:
        """Until a child has ended and no other takes its place."""
        while not self.stop.is_set():
            await self.ended.wait()
            self.reap()
            if not await self.comes_back():
                return

    def reap(self) -> None:
        """The end of the child that has ended."""
        assert self.child is not None
        asyncio.get_running_loop().remove_reader(self.child.fileno())
        for event in self.child.drain():
            if self.live is None:
                self.pipeline.tell(event)
            else:
                self.untold = event
        self.status = self.child.status
        self.ended.clear()

    async def comes_back(self) -> bool:
        """Whether another child is there, once it is known what is to be done about the end of this one.

        An end is judged beside the loop, where what is installed is looked at: that is waited for as long as it is allowed to take.
        """
        assert self.child is not None
        assert self.recovery is not None
        if not self.recovery.keepers:
            return False
        child, seen_by = self.child, time.monotonic() + SEEN_S
        while not self.stop.is_set():
            if self.child is not child:
                return True
            if not self.is_judging(child.pid) and (child.pid in self.gone or time.monotonic() > seen_by):
                if child.pid not in self.gone and self.untold is not None:
                    self.tell_unseen(self.untold)
                elif not self.recovery.is_open(self.label):
                    return False
            await asyncio.sleep(LOOK_S)
        return False

    def is_judging(self, pid: int) -> bool:
        """Whether the end of this child was seen, and what it was is being worked out."""
        agent = self.agents.get(pid)
        return self.live is not None and agent is not None and self.live.is_judging(agent)

    def tell_unseen(self, end: ProcessExit) -> None:
        """An end that the engine has lost: as its parent we know of it, if not by whom and why."""
        self.untold = None
        self.pipeline.lost("run", f"the kernel's record of the end of pid {end.pid} did not come: it is judged without")
        self.pipeline.tell(end)

    def hear(self, event: AnyEvent) -> None:
        """What was decided about the end of a child: nothing was, or it is an incident that recovery has heard of by now."""
        if isinstance(event, AgentGone):
            self.gone.add(event.agent.pid)
        elif isinstance(event, AgentSeen):
            self.gone.discard(event.agent.pid)  # a number used again
            self.agents = {event.agent.pid: event.agent}

    def show(self, event: AnyEvent) -> None:
        """An incident as a report on stderr, and what is done about it in a line each; `run` says nothing else.

        While a child lives its terminal, or its log, is its own: what is done then can be read with `agentscope incidents`.
        """
        if self.tee is not None:
            self.tee.write(event)
        if isinstance(event, IncidentOpened):
            from agentscope.views.report import print_incident

            print_incident(event, sys.stderr)
        elif (says := line_of(event)) and not self.lives():
            from agentscope.views import safe

            sys.stderr.write(f"agentscope: {safe(says, 300)}\n")
            sys.stderr.flush()
        else:
            return
        with contextlib.suppress(OSError):
            self.pipeline.cache.pass_by(2, now_ns())  # our words may stand in the child's own log, and are not the next one's

    # --- signals ----------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear of the child's end, and pass signals on to it. Those of the terminal it has got itself: it decides, we wait for it."""
        assert self.child is not None
        loop = asyncio.get_running_loop()
        loop.add_reader(self.child.fileno(), self.ended.set)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self.forward, number)
        for number in (signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self.interrupted)

    def lives(self) -> bool:
        """Whether a child is there. One that was not waited for yet still has its number."""
        return self.child is not None and self.child.status is None

    def forward(self, number: int) -> None:
        """Pass a signal on to the child; where there is none, between two of them, it is for us."""
        if self.lives() and self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child.pid, number)
        elif number in {signal.SIGTERM, signal.SIGHUP}:
            self.stop.set()

    def interrupted(self) -> None:
        """Ctrl-C while nobody is there to take it."""
        if not self.lives():
            self.stop.set()

    # --- children ---------------------------------------------------------------------------------------------------------

    def let_go(self, held: seats.Held) -> bool:
        """Let a held child become its command; whether it could."""
        os.write(held.go, b"g")
        started = not os.read(held.refused, 1)
        os.close(held.go)
        os.close(held.refused)
        return started

    async def start_again(self, command: tuple[str, ...]) -> Started:
        """Another child in the place of the one that ended: watched first, then let go."""
        if self.lives():
            return Started(pid=None, why="the child before it has not ended")
        held = seats.start_held(self.launch, command, refusal)
        child = ChildSource(held.pid)
        if self.live is not None:
            self.live.becoming[held.pid] = command
            self.live.take(held.pid, self.label)
        else:
            self.adopt(held.pid, command)
        if not self.let_go(held):
            self.pipeline.stopping.add((held.pid, child.start_ns))  # its end is that of an attempt, not of the agent
            last = child.drain()
            while not last:
                await asyncio.sleep(LOOK_S)
                last = child.drain()
            child.close()
            for event in last if self.live is None else ():
                self.pipeline.tell(event)
            return Started(pid=None, why=f"{command[0]} could not be started")
        former, self.child = self.child, child
        if former is not None:
            former.close()
        asyncio.get_running_loop().add_reader(child.fileno(), self.ended.set)
        if self.seat is not None:
            self.seat.pid, self.seat.start_ns = held.pid, child.start_ns
        if self.live is None:
            await self.notice(held.pid)
        return Started(pid=held.pid, says=f"{' '.join(command)[:100]} was started in its place")

    def watched(self, pid: int, label: str) -> Agent | None:
        """Without an engine only our own child is watched."""
        member = self.pipeline.incidents.members.get(pid)
        return member.tree.agent if member is not None and label == self.label else None

    def adopt(self, pid: int, command: tuple[str, ...]) -> None:
        """Without an engine: the child is the agent, and its end is all that will be heard of it.

        It is known by its command line already: it may have ended before we can look at it again.
        """
        from agentscope.agents import agent_of

        seen = msgspec.structs.replace(read_process(pid), argv=command, comm=Path(command[0]).name[:15])
        agent = agent_of(seen, boot_wall_ns(), self.label)
        self.pipeline.tell(AgentSeen(at_ns=seen.at_ns, agent=agent, because="run"))
        self.remember(seen)
        if self.recovery is not None:
            self.recovery.adopt(agent, self.label)

    async def notice(self, pid: int) -> None:
        """What our child is now, and the files of /proc that die with it."""
        await asyncio.sleep(BECOMES_S)
        with contextlib.suppress(AgentscopeError):
            self.remember(read_process(pid))

    def remember(self, seen: ProcessExec) -> None:
        """Tell what it is, and read what dies with it."""
        self.pipeline.tell(seen)
        member = self.pipeline.incidents.members.get(seen.pid)
        if member is not None:
            self.pipeline.cache.refresh(member.process, now_ns())


def refusal(program: str, error: OSError) -> tuple[int, str]:
    """Exit status and reason where a program could not be started, as a shell has them (POSIX, Exit Status for Commands)."""
    # a folder of PATH that we may not look into is reported as EACCES, though there is no such program
    nowhere = "/" not in program and shutil.which(program, os.F_OK) is None
    if nowhere or isinstance(error, FileNotFoundError):
        return 127, os.strerror(errno.ENOENT)
    return 126, error.strerror or str(error)


def ignore(event: AnyEvent) -> None:
    """Tell nobody."""


def line_of(event: AnyEvent) -> str:
    """What is said of an act and of the end of an incident; nothing of the rest."""
    match event:
        case RemedyStarted():
            return f"{event.act} (attempt {event.attempt})"
        case RemedyFinished() if event.outcome != "done":
            return f"{event.remedy} {event.outcome}: {event.says}"
        case IncidentClosed() if event.held is not None or not event.outcome.startswith("part of"):
            return event.outcome
    return ""


def end_like(status: int) -> int:
    """End as the child ended: by the same signal, so that a shell or a supervisor sees the same; or its exit code."""
    number = status & 0x7F
    if number:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core is enough
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(1)
        return 128 + number
    return (status >> 8) & 0xFF
