"""One run of a command that watches: opens the engine and the kernel log, runs the pipeline in a loop, and shows what it tells."""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agentscope.agents import Target
from agentscope.config import Config
from agentscope.errors import AgentscopeError, ExitStatus, NoSuchProcess, NotPermitted
from agentscope.ledger import Ledger
from agentscope.live import LEAVE_S, Live, Terms
from agentscope.model import AnyEvent
from agentscope.pipeline import Pipeline, boot_id, boot_wall_ns, now_ns
from agentscope.record import Envelope, Recorder
from agentscope.service.telling import Telling, told_to_systemd
from agentscope.sinks import Around, typed_sinks
from agentscope.sinks._tee import open_tee
from agentscope.sources import Engine, Source
from agentscope.state import state_dir

if TYPE_CHECKING:
    from agentscope.views.board import Board

FLUSH_S = 2.0
GARBAGE_AFTER = 20_000  # objects: a sample of a thousand threads makes thousands that are gone a second later
M_ARENA_MAX = -8  # malloc.h


def open_engine(choice: str, say: Callable[[str], object] = lambda _: None) -> Engine:
    """The engine that was asked for, attached; of `auto` the best that there is, and one line to `say` why it is no better one.

    Raises:
        EngineUnavailable: this machine cannot run it. NotPermitted: we are not root.
    """
    if choice != "auto":
        opened = ENGINES[choice]()
    else:
        refusals: dict[str, list[str]] = {}  # the engines that are not to be had, by the reason
        for name in BEST_FIRST:
            try:
                opened = ENGINES[name]()
                break
            except AgentscopeError as error:
                refusals.setdefault(f"{error.what}: {error.why}", []).append(name)
        if refusals:
            refused = [f"not {' and '.join(names)}: {because}" for because, names in refusals.items()]
            opened.degraded = (*refused, *opened.degraded)
            why = "; ".join(refused)
            say(f"agentscope: engine {opened.name} watches, with less evidence; {why}. Try: agentscope doctor\n")
    settle_memory()
    return opened


def open_for_child(choice: str, say: Callable[[str], object]) -> Engine | None:
    """The engine that watches a child of ours; None where that were engine `none`, for a parent knows more of its child than that does.

    Raises:
        EngineUnavailable, NotPermitted, UsageError: as `open_engine`.
    """
    opened = open_engine(choice, say)
    if opened.name != "none":
        return opened
    opened.close()
    return None


def open_core() -> Engine:
    """Engine `core`.

    Raises:
        EngineUnavailable: this machine cannot run it. NotPermitted: we are not root.
    """
    require_root()
    from agentscope.sources.ebpf import CoreEngine

    return CoreEngine()


def open_bcc() -> Engine:
    """Engine `bcc`: compiles for some seconds.

    Raises:
        EngineUnavailable: this machine cannot run it. NotPermitted: we are not root.
    """
    require_root()
    from agentscope.sources.bcc import BccEngine

    return BccEngine()


def require_root() -> None:
    """Refuse whoever may load no probe.

    Raises:
        NotPermitted: we are not root.
    """
    if os.geteuid() != 0:
        raise NotPermitted(
            "watching other processes needs root", "the probes are loaded into the kernel", f"sudo {' '.join(sys.argv)}"
        )


def open_netlink() -> Engine:
    """Engine `netlink`.

    Raises:
        EngineUnavailable, NotPermitted: the kernel does not tell us.
    """
    from agentscope.sources.netlink import NetlinkEngine

    return NetlinkEngine()


def open_own() -> Engine:
    """Engine `none`: there is always that."""
    from agentscope.sources.own import OwnEngine

    return OwnEngine()


ENGINES: Mapping[str, Callable[[], Engine]] = {"core": open_core, "bcc": open_bcc, "netlink": open_netlink, "none": open_own}
BEST_FIRST = ("core", "bcc", "netlink", "none")


def settle_memory() -> None:
    """Prepare for a run that lasts: collect garbage, but never look again at what start-up made; one arena for all threads.

    They take turns by the interpreter lock anyway, and an arena each cost 10 MiB. M_ARENA_MAX of mallopt(3) is glibc's.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    gc.enable()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


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


async def stream_events(wanted: Config, engine_choice: str, terms: Terms, for_s: float | None, to: Sequence[str] = ()) -> int:
    """`agentscope events`: the stream to its sinks until a signal, the time is up, or the reader of standard output has gone.

    Raises:
        BadInput, UsageError: a sink is not right, or cannot be opened. CannotWrite: standard output cannot be written.
    """
    telling = Telling(os.environ)
    chosen = (*typed_sinks(to or ("-",)), *wanted.sinks)
    said: list[str] = []
    engine = open_engine(engine_choice, said.append)
    kernel_log = open_kernel_log()
    try:
        around = Around(Recorder(boot_id(), boot_wall_ns(), run=os.urandom(4).hex()), terms.state, complain)
        tee = open_tee(chosen, around)
        with stop_on_signals() as stop, contextlib.closing(tee):
            pipeline = Pipeline(tee.write, engine, Ledger(terms.state, wanted.ledger))
            live = Live(pipeline, wanted, engine, kernel_log, terms)
            closed = tee.closed()
            if closed is not None:
                closed.add_done_callback(lambda _: stop.set())
            live.start()
            sys.stderr.writelines(said)
            async with told_to_systemd(telling):
                await live.run_until(stop, for_s)
            for name in await tee.flush(FLUSH_S):
                if name != "stdout":
                    complain(f"not everything was sent to {name}")
            if closed is not None and closed.done():
                closed.result()
    finally:
        engine.close()
        if kernel_log is not None:
            kernel_log.close()
    return ExitStatus.HEALTHY


def complain(says: str) -> None:
    """Tell the owner on standard error, which is the journal of a service."""
    with contextlib.suppress(OSError):
        sys.stderr.write("".join(f"agentscope: {line}\n" for line in says.splitlines()))
        sys.stderr.flush()


def print_table(targets: tuple[Target, ...], state: str | None, recorded: Iterable[AnyEvent] | None = None) -> str:
    """`watch --once`: the agents that are there now and the incidents on record, or what a recording shows, as a plain table."""
    from agentscope.views.board import Board
    from agentscope.views.report import width_of
    from agentscope.views.table import render_table

    board = Board()
    if recorded is not None:
        for event in recorded:
            board.apply(event)
    else:
        show_now(board, targets, Ledger(state_dir(state)))
    return render_table(board, width_of(sys.stdout))


def show_now(board: "Board", targets: tuple[Target, ...], ledger: Ledger) -> None:
    """Fill a board from /proc and the ledger, without a probe."""
    from agentscope.agents import agent_of, live_processes, matches, read_process, roots
    from agentscope.evidence import binding_of
    from agentscope.lastseen import memory_cgroups, usage_of
    from agentscope.model import AgentSeen, Pulse

    for envelope in ledger_lines(ledger):
        board.recall(envelope)
    found = [(seen, why) for seen in live_processes() if (why := next((w for t in targets if (w := matches(t, seen))), None))]
    if any(target.kind == "signature" for target in targets):
        from agentscope.discovery import Scan

        for each in Scan().look({seen.pid for seen, _ in found}):
            with contextlib.suppress(NoSuchProcess):
                found.append((read_process(each.pid), each.because))
    for seen, because in roots(found):
        if seen.pid == os.getpid():
            continue
        board.apply(AgentSeen(at_ns=now_ns(), agent=agent_of(seen, boot_wall_ns()), because=because))
        binding = binding_of(memory_cgroups(seen.cgroup))
        rss, threads = usage_of(seen.pid)
        board.apply(
            Pulse(
                at_ns=now_ns(), agent_pid=seen.pid, agent_start_ns=seen.start_ns, state="running", rss_bytes=rss, cpu_percent=None, threads=threads,
                limit_bytes=binding.limit_bytes if binding else None, cgroup_bytes=binding.usage_bytes if binding else None,
                limit_path=binding.path if binding else None,
            )
        )  # fmt: skip


def ledger_lines(ledger: Ledger, since_ns: int | None = None) -> list[Envelope]:
    """The incidents on record, from files written since then; none where the record may not be read."""
    with contextlib.suppress(OSError):
        return list(ledger.read(since_ns))
    return []


async def live_events(
    wanted: Config, engine: Engine, terms: Terms, begun: Callable[[Live], object], since_ns: int | None = None
) -> AsyncIterator[AnyEvent | Envelope]:
    """What the pipeline tells, as it happens; what is on record since then comes first. `begun` is told once the watching has begun."""
    ledger = Ledger(terms.state, wanted.ledger)
    for line in ledger_lines(ledger, since_ns):
        yield line
    told: asyncio.Queue[AnyEvent] = asyncio.Queue()
    kernel_log = open_kernel_log()
    try:
        live = Live(Pipeline(told.put_nowait, engine, ledger), wanted, engine, kernel_log, terms)
        live.start()
        begun(live)
        try:
            while True:
                yield await told.get()
        finally:
            await live.recovery.finish(LEAVE_S)
            live.close()
    finally:
        if kernel_log is not None:
            kernel_log.close()
