"""What is around the agent's tree: whoever holds a file lock, has a pipe open or is a client, and children that have ended.

Holders are no part of the tree, so nobody samples them. Two readings of the scheduler's own clocks a tenth of a second apart
tell whether one works, and its blocked calls whether it waits at just that connection.
"""

import time
from collections.abc import Collection, Iterator

import msgspec

from agentscope.examination import Examination, Holder, ProcessLook
from agentscope.examination.proc import read_proc, read_stat, tids_of

_PROCESSES = 16
_THREADS = 64
_CHILDREN = 256
_BETWEEN_S = 0.1
_WAITS = frozenset(
    {"read", "readv", "recvfrom", "recvmsg", "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2"}
)


def with_holders_watched(seen: Examination, *, between_s: float = _BETWEEN_S) -> Examination:
    """The same, with what the holders outside of the tree do; takes `between_s`, or no time where there are none."""
    inside = {process.pid for process in seen.processes}
    clients = {
        socket.inode: socket.peer_holder
        for socket in seen.sockets
        if socket.accepted
        and socket.peer_holder is not None
        and socket.peer_holder.pid not in inside
        and not socket.receive_queue
    }
    waited = {inode: waits_at(holder) for inode, holder in list(clients.items())[:_PROCESSES]}
    outside = sorted({holder.pid for holder in _holders(seen) if holder.pid not in inside})[:_PROCESSES]
    shares = cpu_shares(outside, between_s) if outside else {}

    def watched(holder: Holder) -> Holder:
        return msgspec.structs.replace(holder, cpu_share=shares[holder.pid]) if holder.pid in shares else holder

    return msgspec.structs.replace(
        seen,
        file_locks=tuple(
            lock if lock.holder is None else msgspec.structs.replace(lock, holder=watched(lock.holder))
            for lock in seen.file_locks
        ),
        pipes=tuple(
            msgspec.structs.replace(
                pipe, readers=tuple(watched(end) for end in pipe.readers), writers=tuple(watched(end) for end in pipe.writers)
            )
            for pipe in seen.pipes
        ),
        sockets=tuple(
            msgspec.structs.replace(each, peer_holder=msgspec.structs.replace(each.peer_holder, waits=waited[each.inode]))
            if each.inode in waited and each.peer_holder is not None
            else each
            for each in seen.sockets
        ),
    )


def with_ended_children(seen: Examination) -> Examination:
    """The same, with the children of its processes that have ended and whose status nobody has read (zombies)."""
    known = {process.pid for process in seen.processes}
    found: list[ProcessLook] = []
    for process in seen.processes[:_PROCESSES]:
        texts = (read_proc(f"/proc/{process.pid}/task/{tid}/children") or b"" for tid in tids_of(process.pid, _THREADS))
        for word in b" ".join(texts).split()[:_CHILDREN]:
            stat = read_stat(int(word)) if word.isdigit() and int(word) not in known else None
            if stat is not None and stat.state in {"Z", "X"} and stat.ppid == process.pid:
                ended = ProcessLook(
                    pid=int(word), start_ns=stat.start_ns, ppid=stat.ppid, comm=stat.comm, role="tool", ended=True
                )
                found.append(ended)
    return msgspec.structs.replace(seen, processes=(*seen.processes, *found[:_PROCESSES])) if found else seen


def _holders(seen: Examination) -> Iterator[Holder]:
    """Everybody who holds what a thread of the tree waits for."""
    yield from (lock.holder for lock in seen.file_locks if lock.holder is not None)
    for pipe in seen.pipes:
        yield from (*pipe.readers, *pipe.writers)


def cpu_shares(pids: Collection[int], between_s: float = _BETWEEN_S) -> dict[int, float]:
    """How much of one CPU each of these processes uses or waits for, all its threads together; one that has gone is left out.

    Who waits for a CPU counts as one that has it, so that a machine with too few of them does not make a busy holder look idle.
    """
    before = {pid: _wanted_ns(pid) for pid in pids}
    began = time.monotonic()
    time.sleep(between_s)
    after = {pid: _wanted_ns(pid) for pid in pids}
    elapsed_ns = (time.monotonic() - began) * 1e9
    # the wait of a thread is added when it ends: one that still waits has run or waited all the time, as far as anybody can tell
    return {
        pid: 1.0 if _is_runnable(pid) else round(max(0, spent - earlier) / elapsed_ns, 3)
        for pid in pids
        if (earlier := before[pid]) is not None and (spent := after[pid]) is not None
    }


def _wanted_ns(pid: int) -> int | None:
    """Time that the first threads of a process had a CPU or waited for one.

    The first two fields of /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst).
    """
    found = [read_proc(f"/proc/{pid}/task/{tid}/schedstat") for tid in tids_of(pid, _THREADS)]
    spent = [sum(map(int, fields[:2])) for text in found if text and (fields := text.split()) and fields[0].isdigit()]
    return sum(spent) if spent else None


def _is_runnable(pid: int) -> bool:
    """Whether one of its first threads has a CPU or waits for one, at this moment."""
    return any((stat := read_stat(pid, tid)) is not None and stat.state == "R" for tid in tids_of(pid, _THREADS))


def waits_at(holder: Holder) -> bool | None:
    """Whether a thread of a process is blocked in waiting for bytes at its end; None where it may not be looked at."""
    from agentscope.examination.calls import CallReader
    from agentscope.examination.descriptors import read_descriptors
    from agentscope.examination.threads import parse_syscall

    if holder.descriptor is None:
        return None
    could_look = False
    with CallReader(holder.pid) as reader:
        for tid in tids_of(holder.pid, _THREADS):
            text = read_proc(f"/proc/{holder.pid}/task/{tid}/syscall")
            could_look |= text is not None
            syscall = parse_syscall(text or b"")
            call = reader.read(tid, syscall) if syscall is not None else None
            if call is None or call.name not in _WAITS:
                continue
            if holder.descriptor in call.descriptors:
                return True
            if call.name.startswith("epoll"):
                epolls = (each for each in read_descriptors(holder.pid) if each.number in call.descriptors)
                if any(holder.descriptor in each.watches for each in epolls):
                    return True
    return False if could_look else None
