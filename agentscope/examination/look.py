"""One look at the processes of agents: the readers of this folder, put together.

Blocking, and meant for a thread beside the loop. What several agents share is read once for all that are looked at together:
the sockets of a network namespace, and who on the machine holds the other ends of sockets and pipes.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
from agentscope.examination.proc import read_proc
from agentscope.examination.waiting import same_wait
from agentscope.model import MissingEvidence, Process, ProcessSample, ThreadSample

if TYPE_CHECKING:
    from agentscope.examination.calls import CallReader

SampleOf = Callable[[Sequence[int]], Sequence[ProcessSample]]
THREADS_READ = 2000  # of one agent: arguments of more threads' calls are not read
CALLS_S = 0.5
SCAN_S = 1.0  # for all descriptors of the machine, once a round
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


class Job(NamedTuple):
    """One agent to look at: its processes, the innermost of its own line first, and what is known beside."""

    subjects: Sequence[Subject]
    around: Circumstances


class Look(NamedTuple):
    """What a look found, and the cgroups as read for it, for the next look to compare with (None: the agent is gone)."""

    seen: Examination
    cgroup: CgroupReading | None


@dataclass(frozen=True)
class Found:
    """The processes of one agent as they were at `at_ns`; those that have gone are left out."""

    around: Circumstances
    at_ns: int
    processes: tuple[ProcessLook, ...]


def look_at(jobs: Sequence[Job], sample_of: SampleOf | None = None) -> list[Look]:
    """One look at each of these agents. What they share is read once for all: sockets, and who holds the other ends."""
    found = [found_of(job, sample_of) for job in jobs]
    processes = [process for each in found for process in each.processes]
    sockets, missing = read_open_sockets(processes)
    pipes = {pipe.inode: pipe for pipe in read_waited_pipes(processes)}
    cgroups = read_cgroups(found)
    return [look_of(each, cgroup, sockets, pipes, missing) for each, cgroup in zip(found, cgroups, strict=True)]


def read_cgroups(found: Sequence[Found]) -> list[CgroupReading | None]:
    """The cgroups of each agent's first process; those that several share are read once. None where there is no process."""
    known: dict[bytes, CgroupReading] = {}
    readings: list[CgroupReading | None] = []
    for each in found:
        membership = read_proc(f"/proc/{each.processes[0].pid}/cgroup") or b"" if each.processes else None
        if membership is not None and membership not in known:
            known[membership] = read_cgroup(each.processes[0].pid, membership=membership)
        readings.append(known[membership] if membership is not None else None)
    return readings


def found_of(job: Job, sample_of: SampleOf | None) -> Found:
    """One agent's processes now: what was sampled a while ago may wait for something else, or since a moment."""
    subjects = job.subjects
    if sample_of is not None:
        fresh = {sample.pid: sample for sample in sample_of([subject.process.pid for subject in subjects])}
        subjects = [refreshed(each, fresh[each.process.pid]) if each.process.pid in fresh else each for each in subjects]
    at_ns = boottime_ns()
    return Found(job.around, at_ns, tuple(seen for each in subjects if (seen := identified(each, at_ns)) is not None))


def look_of(
    found: Found,
    cgroup: CgroupReading | None,
    sockets: Mapping[int, Socket],
    pipes: Mapping[int, Pipe],
    missing: tuple[MissingEvidence, ...],
) -> Look:
    """One agent's part of a round."""
    from agentscope.examination.file_locks import read_file_locks

    around, processes = found.around, found.processes
    inodes = {each.inode for process in processes for each in process.descriptors}
    waits_for_lock = [each.pid for each in processes if any(is_file_lock(thread) for thread in each.threads)]
    seen = Examination(
        at_ns=found.at_ns,
        patience_s=around.patience_s,
        interval_s=around.interval_s,
        watched_since_ns=around.watched_since_ns,
        processes=processes,
        sockets=tuple(dated(socket, around.first_seen) for inode, socket in sockets.items() if inode in inodes),
        pipes=tuple(pipe for inode, pipe in pipes.items() if inode in inodes),
        file_locks=read_file_locks(waits_for_lock) if waits_for_lock else (),
        cgroup=state_between(around.cgroup_before or cgroup, cgroup) if cgroup is not None else None,
        health=around.health,
        progress=around.progress,
        missing=missing,
    )
    return Look(seen, cgroup)


def read_open_sockets(processes: Iterable[ProcessLook]) -> tuple[dict[int, Socket], tuple[MissingEvidence, ...]]:
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
    for pid, wanted in by_namespace.values():
        table = read_socket_table(pid)
        if isinstance(table, MissingEvidence):
            missing.append(table)
        else:
            found += table.sockets(wanted)
    peers = peer_inodes(found)
    holders = holders_of(frozenset(peers.values()), limit_s=SCAN_S) if peers else {}
    known = with_holders(found, {inode: holders[peer][0] for inode, peer in peers.items() if holders.get(peer)})
    return {socket.inode: socket for socket in known}, tuple(missing)


def read_waited_pipes(processes: Sequence[ProcessLook]) -> tuple[Pipe, ...]:
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
    return read_pipes(frozenset(wanted), [process.pid for process in processes], limit_s=SCAN_S) if wanted else ()


def refreshed(subject: Subject, sample: ProcessSample) -> Subject:
    """The subject with a fresh sample; threads that went on to another wait meanwhile begin it anew."""
    before = {thread.tid: thread for thread in subject.sample.threads}
    rates = dict(subject.rates)
    for thread in sample.threads:
        old, rate = before.get(thread.tid), rates.get(thread.tid)
        if rate is None or thread.last_ran_ns is None or (old is not None and same_wait(old, thread, rate.cpu_share)):
            continue
        rates[thread.tid] = replace(rate, since_ns=thread.last_ran_ns)
    return Subject(subject.process, sample, rates)


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
