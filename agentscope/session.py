"""One run of a command that watches: opens the engine and the kernel log, runs the pipeline in a loop, and shows what it tells."""

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from agentscope.agents import Target
from agentscope.config import Config
from agentscope.errors import AgentscopeError, BadInput, ExitStatus, NotPermitted, UsageError
from agentscope.ledger import Ledger, state_dir
from agentscope.live import LEAVE_S, Live, Terms
from agentscope.model import AnyEvent, IncidentOpened, ProcessExec
from agentscope.pipeline import Pipeline, boot_id, boot_wall_ns, now_ns
from agentscope.record import Recorder
from agentscope.sources import Engine, Source

if TYPE_CHECKING:
    from agentscope.views.board import Board

FLUSH_S = 2.0


def open_engine(choice: str) -> Engine:
    """The engine that was asked for, attached.

    Raises:
        EngineUnavailable: this machine cannot run it. NotPermitted: we are not root. UsageError: this version does not have it.
    """
    if choice in {"bcc", "netlink"}:
        raise UsageError(f"engine {choice} is not in this version", "only core is", "--engine core")
    if os.geteuid() != 0:
        raise NotPermitted(
            "watching other processes needs root", "the probes are loaded into the kernel", f"sudo {' '.join(sys.argv)}"
        )
    from agentscope.sources.ebpf import CoreEngine

    return CoreEngine()


def open_kernel_log() -> Source | None:
    """The kernel log from now on, or None where it cannot be read."""
    from agentscope.sources.kmsg import KernelLog

    try:
        return KernelLog()
    except (AgentscopeError, OSError):
        return None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set: the clean way out."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def stream_events(wanted: Config, engine_choice: str, terms: Terms, for_s: float | None) -> int:
    """`agentscope events`: NDJSON on standard output until a signal, the time is up, or the reader has gone."""
    from agentscope.views.ndjson import NdjsonWriter

    engine = open_engine(engine_choice)
    kernel_log = open_kernel_log()
    try:
        writer = NdjsonWriter(Recorder(boot_id(), boot_wall_ns()), sys.stdout.fileno())
        pipeline = Pipeline(writer.write, engine, Ledger(terms.state, wanted.ledger))
        live = Live(pipeline, wanted, engine, kernel_log, terms)
        with stop_on_signals() as stop:
            writer.closed.add_done_callback(lambda _: stop.set())
            live.start()
            await live.run_until(stop, for_s)
            await writer.flush(FLUSH_S)
            if writer.closed.done():
                writer.closed.result()
    finally:
        engine.close()
        if kernel_log is not None:
            kernel_log.close()
    return ExitStatus.HEALTHY


def recorded_events(recording: str) -> list[AnyEvent]:
    """The events of a recording, judged again; lines that cannot be read are named on stderr."""
    from agentscope.pipeline import replay
    from agentscope.sources.recording import read_recording

    kept: list[AnyEvent] = []
    for number, line in read_recording(recording):
        if isinstance(line, BadInput):
            sys.stderr.write(f"agentscope: {recording}, line {number}: {line}\n")
        else:
            kept.append(line.data)
    shown: list[AnyEvent] = []
    replay(kept, shown.append)
    return shown


def print_table(targets: tuple[Target, ...], state: str | None, recording: str | None) -> str:
    """`watch --once`: the agents that are there now and the incidents on record, as a plain table."""
    from agentscope.views.board import Board
    from agentscope.views.report import width_of
    from agentscope.views.table import render_table

    board = Board()
    if recording:
        for event in recorded_events(recording):
            board.apply(event)
    else:
        show_now(board, targets, Ledger(state_dir(state)))
    return render_table(board, width_of(sys.stdout))


def show_now(board: "Board", targets: tuple[Target, ...], ledger: Ledger) -> None:
    """Fill a board from /proc and the ledger, without a probe."""
    from agentscope.agents import agent_of, live_processes, matches, roots
    from agentscope.lastseen import memory_cgroups, usage_of
    from agentscope.model import AgentSeen, Pulse

    for envelope in ledger_lines(ledger):
        board.apply(envelope)
    found = [(seen, why) for seen in live_processes() if (why := next((w for t in targets if (w := matches(t, seen))), None))]
    for seen, because in roots(found):
        if seen.pid == os.getpid():
            continue
        board.apply(AgentSeen(at_ns=now_ns(), agent=agent_of(seen, boot_wall_ns()), because=because))
        limited = [cgroup for cgroup in memory_cgroups(seen.cgroup) if cgroup.limit_bytes is not None]
        binding = min(limited, key=lambda cgroup: cgroup.limit_bytes or 0, default=None)
        rss, threads = usage_of(seen.pid)
        board.apply(
            Pulse(
                at_ns=now_ns(), agent_pid=seen.pid, agent_start_ns=seen.start_ns, state="running", rss_bytes=rss, cpu_percent=None, threads=threads,
                limit_bytes=binding.limit_bytes if binding else None, cgroup_bytes=binding.usage_bytes if binding else None,
                limit_path=binding.path if binding else None,
            )
        )  # fmt: skip


def ledger_lines(ledger: Ledger) -> list[AnyEvent]:
    """The incidents on record; none where the record may not be read."""
    with contextlib.suppress(OSError):
        return [envelope.data for envelope in ledger.read()]
    return []


def replay_screen(recording: str) -> int:
    """`agentscope watch --replay`: the terminal UI on a recording."""
    from agentscope.views.tui import show

    asyncio.run(show(replayed(recorded_events(recording)), title=recording, replay=True))
    return ExitStatus.HEALTHY


def watch_screen(wanted: Config, engine_choice: str, terms: Terms) -> int:
    """`agentscope watch`: the terminal UI, live."""
    from agentscope.views.tui import show

    engine = open_engine(engine_choice)
    kernel_log = open_kernel_log()
    try:
        events = live_events(wanted, engine, kernel_log, terms)
        asyncio.run(show(events, title=", ".join(map(str, wanted.targets)), engine=f"engine {engine.name}"))
    finally:
        engine.close()
        if kernel_log is not None:
            kernel_log.close()
    return ExitStatus.HEALTHY


async def replayed(events: list[AnyEvent]) -> AsyncIterator[AnyEvent]:
    """The events of a recording, all at once: a screen shows how it ended."""
    for event in events:
        yield event


async def live_events(wanted: Config, engine: Engine, kernel_log: Source | None, terms: Terms) -> AsyncIterator[AnyEvent]:
    """What the pipeline tells, as it happens; the incidents on record come first."""
    ledger = Ledger(terms.state, wanted.ledger)
    for event in ledger_lines(ledger):
        yield event
    told: asyncio.Queue[AnyEvent] = asyncio.Queue()
    live = Live(Pipeline(told.put_nowait, engine, ledger), wanted, engine, kernel_log, terms)
    live.start()
    try:
        while True:
            yield await told.get()
    finally:
        await live.recovery.finish(LEAVE_S)
        live.close()


def run_child(command: tuple[str, ...], name: str | None, engine_choice: str, state: str | None, patience_s: float) -> int:
    """`agentscope run`: the child starts only once it is watched; we end as it ended."""
    degraded: tuple[str, ...] = ()
    engine: Engine | None = None
    try:
        engine = open_engine(engine_choice)
    except AgentscopeError as error:
        if engine_choice != "auto":
            raise
        degraded = (f"{error.what}: {error.why}",)
        sys.stderr.write(f"agentscope: watching with less evidence: {error}\n")
    child = start_held(command)
    pipeline = Pipeline(show_incident, engine, Ledger(state_dir(state)))
    try:
        status = asyncio.run(
            attend_child(child, command, name, pipeline, degraded=degraded, terms=Terms(patience_s, state_dir(state)))
        )
    finally:
        if engine is not None:
            engine.close()
    return end_like(status)


class Held(NamedTuple):
    """A child that has not become its command yet: it starts on a byte to `go`, and `refused` then tells whether it could."""

    pid: int
    go: int
    refused: int


def start_held(command: tuple[str, ...]) -> Held:
    """Fork a child that waits for one byte before it becomes the command, so that nothing of it is missed."""
    wait, go = os.pipe()
    refused, refuse = os.pipe()  # closed by a successful exec, as every descriptor that Python opens
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(wait, 1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores these; the command must find them as our caller left them
        try:
            os.execvp(command[0], command)  # noqa: S606 - there is no shell on purpose
        except OSError as error:
            status, why = refusal(command[0], error)
            os.write(2, f"agentscope: cannot run {command[0]}: {why}. Try: which {command[0]}\n".encode(errors="replace"))
            os.write(refuse, b"r")
            os.read(wait, 1)  # until our parent knows that this end is not one of the command
            os._exit(status)
    os.close(wait)
    os.close(refuse)
    return Held(pid, go, refused)


def refusal(program: str, error: OSError) -> tuple[int, str]:
    """Exit status and reason where a program could not be started, as a shell has them (POSIX, Exit Status for Commands)."""
    # a folder of PATH that we may not look into is reported as EACCES, though there is no such program
    nowhere = "/" not in program and shutil.which(program, os.F_OK) is None
    if nowhere or isinstance(error, FileNotFoundError):
        return 127, os.strerror(errno.ENOENT)
    return 126, error.strerror or str(error)


def ignore(event: AnyEvent) -> None:
    """Tell nobody."""


def show_incident(event: AnyEvent) -> None:
    """An incident as a report on stderr; `run` says nothing else."""
    if isinstance(event, IncidentOpened):
        from agentscope.views.report import print_incident

        print_incident(event, sys.stderr)


async def attend_child(
    held: Held, command: tuple[str, ...], name: str | None, pipeline: Pipeline, *, degraded: tuple[str, ...], terms: Terms
) -> int:
    """Watch our child, held at its start, to its end. Returns its raw wait status."""
    from agentscope.agents import read_process
    from agentscope.sources.child import ChildSource

    pid = held.pid
    loop = asyncio.get_running_loop()
    child = ChildSource(pid)
    targets = (Target(kind="pid", value=str(pid), name=name),)
    live: Live | None = None
    if pipeline.engine is not None:
        live = Live(pipeline, Config(targets=targets), pipeline.engine, open_kernel_log(), terms)
        live.start(degraded)
    ended = asyncio.Event()
    loop.add_reader(child.fileno(), ended.set)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, forward, pid, number)
    # the terminal sends these to the child as well: it decides, we wait for it
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    if live is None:
        # known by its command line already: it may have ended before we can look at it again
        adopt_child(pipeline, msgspec.structs.replace(read_process(pid), argv=command, comm=Path(command[0]).name[:15]), name)
    os.write(held.go, b"g")
    if os.read(held.refused, 1):
        pipeline.sink, pipeline.ledger = ignore, None
    os.close(held.go)
    os.close(held.refused)
    if live is None:
        await asyncio.sleep(0.02)
        with contextlib.suppress(AgentscopeError):
            notice_child(pipeline, read_process(pid))
    await ended.wait()
    last = child.drain()
    if live is not None:
        await asyncio.sleep(0.01)
        live.close()
    else:
        for event in last:
            pipeline.tell(event)
    child.close()
    assert child.status is not None
    return child.status


def adopt_child(pipeline: Pipeline, seen: ProcessExec, name: str | None) -> None:
    """Without an engine: the child is the agent, and its end is all that will be heard of it."""
    from agentscope.agents import agent_of
    from agentscope.model import AgentSeen

    pipeline.tell(AgentSeen(at_ns=seen.at_ns, agent=agent_of(seen, boot_wall_ns(), name), because="run"))
    notice_child(pipeline, seen)


def notice_child(pipeline: Pipeline, seen: ProcessExec) -> None:
    """What our child is now, and the files of /proc that die with it."""
    pipeline.tell(seen)
    pipeline.cache.refresh(pipeline.incidents.members[seen.pid].process, now_ns())


def forward(pid: int, number: int) -> None:
    """Pass a signal on to the child."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


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
