"""One look at the processes of an agent, and the deeper examination of a suspect: the readers of this folder, put together.

Blocking, and meant for a thread beside the loop. One `Round` serves all agents that are looked at together: the sockets of a
network namespace and the holders of pipes are read once for all of them.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agentscope.examination import (
    Examination,
    HealthResult,
    Pipe,
    ProcessLook,
    ProgressResult,
    Socket,
    Thread,
)
from agentscope.examination.cgroups import CgroupReading, read_cgroup, state_between
from agentscope.model import MissingEvidence, Process, ProcessSample, ThreadSample

if TYPE_CHECKING:
    from agentscope.examination.calls import CallReader
    from agentscope.examination.sockets import SocketTable

Registers = Callable[[int], Mapping[int, Mapping[int, int]]]
THREADS_READ = 2000  # of one agent: arguments of more threads' calls are not read
CALLS_S = 0.5
OPENS = frozenset({"open", "openat", "openat2"})


@dataclass(frozen=True)
class Rate:
    """What one thread did since the sample before, as `Thread` has it."""

    since_ns: int
    cpu_share: float = 0.0
    busy_share: float = 0.0
    switches_per_s: float = 0.0


@dataclass(frozen=True)
class Subject:
    """One process to look at: who it is, its last sample, and the rates of its threads by tid."""

    process: Process
    sample: ProcessSample
    rates: Mapping[int, Rate]


@dataclass(frozen=True)
class Circumstances:
    """What is known of the agent beside what a look finds."""

    patience_s: float
    watched_since_ns: int | None = None
    interval_s: float = 1.0
    health: HealthResult | None = None
    progress: ProgressResult | None = None
    first_seen: Mapping[tuple[int, str], int] = field(default_factory=dict)
    cgroup_before: CgroupReading | None = None


def boottime_ns() -> int:
    """CLOCK_BOOTTIME now."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Round:
    """The looks of one moment: what several agents share is read once."""

    def __init__(self) -> None:
        self.namespaces: dict[int, SocketTable | MissingEvidence] = {}
        self.cgroups: dict[int, CgroupReading] = {}

    def look(self, subjects: Sequence[Subject], around: Circumstances) -> Examination:
        """One look at one agent's tree; `subjects` has its innermost process first. What has gone meanwhile is left out."""
        from agentscope.examination.file_locks import read_file_locks

        processes = [found for subject in subjects if (found := identified(subject, boottime_ns())) is not None]
        sockets, missing = self.sockets(processes)
        pipes = self.pipes(processes)
        waits_for_lock = [each.pid for each in processes if any(is_file_lock(thread) for thread in each.threads)]
        cgroup = None
        if processes:
            now = self.cgroups[processes[0].pid] = read_cgroup(processes[0].pid)
            cgroup = state_between(around.cgroup_before or now, now)
        return Examination(
            at_ns=boottime_ns(),
            patience_s=around.patience_s,
            interval_s=around.interval_s,
            watched_since_ns=around.watched_since_ns,
            processes=tuple(processes),
            sockets=tuple(dated(socket, around.first_seen) for socket in sockets),
            pipes=pipes,
            file_locks=read_file_locks(waits_for_lock) if waits_for_lock else (),
            cgroup=cgroup,
            health=around.health,
            progress=around.progress,
            missing=missing,
        )

    def sockets(self, processes: Iterable[ProcessLook]) -> tuple[list[Socket], tuple[MissingEvidence, ...]]:
        """The open sockets of these processes, each read in its own network namespace, with who holds the other end."""
        from agentscope.examination.descriptors import holders_of
        from agentscope.examination.sockets import peer_inodes, read_socket_table, with_holders

        found: list[Socket] = []
        missing: list[MissingEvidence] = []
        by_namespace: dict[int, tuple[int, set[int]]] = {}
        for process in processes:
            wanted = {each.inode for each in process.descriptors if each.kind == "socket" and each.inode is not None}
            if wanted:
                by_namespace.setdefault(namespace_of(process.pid), (process.pid, set()))[1].update(wanted)
        for namespace, (pid, wanted) in by_namespace.items():
            if namespace not in self.namespaces:
                self.namespaces[namespace] = read_socket_table(pid)
            table = self.namespaces[namespace]
            if isinstance(table, MissingEvidence):
                missing.append(table)
                continue
            ours = table.sockets(wanted)
            peers = peer_inodes(ours)
            holders = holders_of(frozenset(peers.values())) if peers else {}
            found += with_holders(ours, {inode: holders[peer][0] for inode, peer in peers.items() if holders.get(peer)})
        return found, tuple(missing)

    @staticmethod
    def pipes(processes: Sequence[ProcessLook]) -> tuple[Pipe, ...]:
        """The pipes that a thread may wait at: those of a blocked call, and of what it multiplexes."""
        from agentscope.examination.descriptors import read_pipes

        wanted: set[int] = set()
        for process in processes:
            numbers = {number for thread in process.threads if thread.call for number in thread.call.descriptors}
            numbers |= {number for each in process.descriptors if each.number in numbers for number in each.watches}
            wanted |= {
                each.inode
                for each in process.descriptors
                if each.number in numbers and each.kind in {"pipe", "fifo"} and each.inode is not None
            }
        return read_pipes(frozenset(wanted), [process.pid for process in processes]) if wanted else ()


def identified(subject: Subject, now_ns: int) -> ProcessLook | None:
    """One process with its threads and descriptors as they are now; None if it is gone or another has its pid."""
    from agentscope.examination.descriptors import read_descriptors
    from agentscope.examination.environment import read_llm_hosts
    from agentscope.examination.threads import identify

    found = identify(subject.process.pid)
    if found is None:
        return None
    threads = tuple(read_threads(subject, now_ns))
    return msgspec.structs.replace(
        found,
        start_ns=subject.process.start_ns,
        argv=subject.process.argv,
        role=subject.process.role,
        threads=threads,
        descriptors=() if found.ended else read_descriptors(subject.process.pid),
        llm_hosts=() if found.ended else read_llm_hosts(subject.process.pid),
    )


def read_threads(subject: Subject, now_ns: int) -> Iterable[Thread]:
    """The threads of a process, with what their calls wait for: the arguments of the first two thousand are read."""
    from agentscope.examination.calls import CallReader

    until = time.monotonic() + CALLS_S
    with CallReader(subject.process.pid) as calls:
        for position, sample in enumerate(subject.sample.threads):
            rate = subject.rates.get(sample.tid)
            since = rate.since_ns if rate is not None else sample.last_ran_ns
            readable = position < THREADS_READ and time.monotonic() < until
            yield read_thread(
                calls if readable else None, subject.process.pid, sample, since if since is not None else now_ns, rate
            )


def read_thread(calls: "CallReader | None", pid: int, sample: ThreadSample, since_ns: int, rate: Rate | None) -> Thread:
    """One thread; of one in uninterruptible sleep, or that opens a file, the kernel's stack too: it tells a FIFO from a disk."""
    from agentscope.examination.threads import kernel_stack

    blocked = sample.syscall is not None and sample.state not in {"R", "T", "t"}
    call = calls.read(sample.tid, sample.syscall, since_ns=sample.last_ran_ns) if calls and blocked and sample.syscall else None
    return Thread(
        tid=sample.tid,
        comm=sample.comm,
        state=sample.state,
        call=call,
        since_ns=since_ns,
        cpu_share=rate.cpu_share if rate is not None else None,
        busy_share=rate.busy_share if rate is not None else None,
        switches_per_s=rate.switches_per_s if rate is not None else None,
        kernel_stack=kernel_stack(pid, sample.tid) if calls and (sample.state == "D" or (call and call.name in OPENS)) else (),
    )


def is_file_lock(thread: Thread) -> bool:
    """Whether a thread waits for a lock on a file."""
    return thread.call is not None and thread.call.name in {"flock", "fcntl"}


def dated(socket: Socket, first_seen: Mapping[tuple[int, str], int]) -> Socket:
    """A listening socket with the time at which connections were first found waiting."""
    if socket.state != "listen" or not socket.receive_queue:
        return socket
    return msgspec.structs.replace(socket, queued_since_ns=first_seen.get((socket.inode, "backlog")))


def namespace_of(pid: int) -> int:
    """Inode of the network namespace of a process; 0 where it may not be read."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0
