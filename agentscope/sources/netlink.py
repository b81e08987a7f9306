"""Engine `netlink`: where BPF is refused, the proc connector tells what starts and ends; /proc and the kernel log tell the rest.

The end of a process is that of its last thread, so threads are counted. A loss is made good from /proc, as far as that goes.
"""

import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from agentscope.agents import (
    ancestors_of,
    children_by_parent,
    memory_cgroup_of,
    read_process,
    same_identity,
    start_ns_of,
    stderr_of,
)
from agentscope.errors import AgentscopeError, NoSuchProcess
from agentscope.examination.proc import link_of, read_proc, read_stat, status_field, tids_of
from agentscope.model import AnyEvent, EngineName, Lost, ProcessExec, ProcessExit, ProcessFork, StreamKind
from agentscope.sources.pidfds import has_ended, open_pidfd, status_at_end
from agentscope.sources.proc_connector import Dumped, Ended, Execed, Forked, Message, Overrun, ProcConnector, Renamed
from agentscope.sources.taskstats import TaskStats, Usage
from agentscope.sources.unprobed import NOT_SEEN, Unprobed, is_root

_OVERRUN = "messages of the proc connector did not fit: what started or ended then was looked for in /proc"
_DIFFER = "its threads ended with different statuses, and its parent had read its own before agentscope could ask the kernel"


@dataclass
class Watched:
    """One process that is reported, as it was last told: it is gone when its end is heard of, so what /proc knows is kept."""

    pid: int
    start_ns: int
    ppid: int
    comm: str
    uid: int
    cgroup: str | None
    stderr: StreamKind | None
    stderr_path: str | None
    tids: set[int] = field(default_factory=set)
    execed_ns: int = 0
    status: int = 0  # of the thread that ended last
    differs: bool = False  # its threads ended with different statuses
    heard: int = 0  # ends of its threads
    fatal_tid: int | None = None
    descriptor: int | None = None


class NetlinkEngine(Unprobed):
    """Implements `Engine`: listens from the moment it exists until `close`.

    Raises:
        NotPermitted, EngineUnavailable: the kernel does not tell us of processes.
    """

    name: EngineName = "netlink"

    def __init__(self) -> None:
        self._connector = ProcConnector()
        self.degraded: tuple[str, ...] = NOT_SEEN
        self._usage: TaskStats | None = None
        try:
            self._usage = TaskStats()
        except AgentscopeError as error:
            self.degraded += (f"what a process had used at its end is not told: {error.why}",)
        if not is_root():
            self.degraded += ("only our own processes are watched: others need root",)
        self._ready = select.epoll()
        self._ready.register(self._connector.fileno(), select.EPOLLIN)
        self._table: dict[int, Watched] = {}
        self._held: list[ProcessExit] = []
        self._discovering = False
        self._closed = False

    def fileno(self) -> int:
        """Polls readable when `drain` has something."""
        return self._ready.fileno()

    def watched(self) -> Iterable[int]:
        """The pids of all that is watched now."""
        return self._table

    def drain(self) -> Sequence[AnyEvent]:
        """Every event that is waiting, oldest first; a loss that happened meanwhile is the last of them."""
        if self._closed:
            return ()
        # the statistics of an end are sent before its message, so what has come of messages decides what can be there
        messages = list(self._connector.messages())
        used = self._usage.drain() if self._usage is not None else {}
        events = [event for message in messages for event in self._fold(message, used)]
        if any(isinstance(message, Overrun) for message in messages):
            events += self._recover(used)
            events += self._in_order()
        return events

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._ready.close()
        self._connector.close()
        if self._usage is not None:
            self._usage.close()
        for pid in list(self._table):
            self._drop(pid)

    def watch(self, pid: int) -> None:
        """Report this process and its future descendants; a pid that is already gone is ignored."""
        known, start_ns = self._table.get(pid), start_ns_of(pid)
        if start_ns is None or (known is not None and same_identity(known.start_ns, start_ns)):
            return
        stat = read_stat(pid)
        if stat is None:
            return
        self._drop(pid)
        tids = {tid for tid in tids_of(pid) if tid != pid or stat.state not in {"Z", "X"}}
        self._table[pid] = Watched(
            pid, stat.start_ns, stat.ppid, stat.comm, uid_of(pid), memory_cgroup_of(pid), stderr_of(pid), path_of_stderr(pid), tids, descriptor=open_pidfd(pid)
        )  # fmt: skip

    def unwatch(self, pid: int, at_ns: int) -> None:
        """Stop reporting this process, unless it became another program after `at_ns`: that one is yet to be judged."""
        known = self._table.get(pid)
        if known is not None and known.execed_ns <= at_ns:
            self._drop(pid)

    def watch_discovered(self, enabled: bool) -> None:
        """Report and watch every process of the host from its next exec on, or stop doing so."""
        self._discovering = enabled

    # --- messages ---------------------------------------------------------------------------------------------------------

    def _fold(self, message: Message, used: dict[int, Usage]) -> Iterator[AnyEvent]:
        if isinstance(message, Forked):
            if message.tid != message.pid:
                if (process := self._table.get(message.pid)) is not None:
                    process.tids.add(message.tid)
                return
            known = self._table.get(message.pid)
            if known is not None and same_identity(known.start_ns, message.at_ns):
                return  # it was found in /proc before this message of its birth was read
            if (parent := self._table.get(message.ppid)) is not None:
                yield self._forked(message, parent)
            else:
                self._drop(message.pid)  # a number used again
        elif isinstance(message, Execed):
            if message.pid in self._table or self._discovering:
                yield self._execed(message)
        elif isinstance(message, Ended):
            yield from self._ended(message, used)
        elif isinstance(message, Renamed | Dumped) and (process := self._table.get(message.pid)) is not None:
            if isinstance(message, Dumped):
                process.fatal_tid = message.tid
            elif message.tid == message.pid:
                process.comm = message.comm

    def _forked(self, message: Forked, parent: Watched) -> ProcessFork:
        """A child starts as a copy of its parent."""
        self._drop(message.pid)
        self._table[message.pid] = Watched(
            message.pid, message.at_ns, message.ppid, parent.comm, parent.uid, parent.cgroup, parent.stderr, parent.stderr_path, {message.pid},
            descriptor=open_pidfd(message.pid),
        )  # fmt: skip
        return ProcessFork(at_ns=message.at_ns, pid=message.pid, start_ns=message.at_ns, ppid=message.ppid, comm=parent.comm)

    def _execed(self, message: Execed) -> ProcessExec:
        """What it is now, if it is still there; else what was known of it, without the words of its command."""
        known = self._table.get(message.pid)
        try:
            seen = read_process(message.pid)
        except NoSuchProcess:
            seen = ProcessExec(
                at_ns=message.at_ns, pid=message.pid, start_ns=known.start_ns if known else message.at_ns, ppid=known.ppid if known else 0,
                comm=known.comm if known else "", argv=(), exe=None, uid=known.uid if known else 0, cgroup=known.cgroup if known else None,
                stderr=known.stderr if known else None, ancestors=ancestors_of(known.ppid) if known else (),
            )  # fmt: skip
        start_ns = known.start_ns if known is not None else seen.start_ns
        seen = msgspec.structs.replace(seen, at_ns=message.at_ns, start_ns=start_ns)
        process = Watched(
            seen.pid, start_ns, seen.ppid, seen.comm, seen.uid, seen.cgroup, seen.stderr, path_of_stderr(seen.pid), {seen.pid}, execed_ns=message.at_ns,
            descriptor=known.descriptor if known is not None else open_pidfd(seen.pid),
        )  # fmt: skip
        self._table[seen.pid] = process
        return seen

    def _ended(self, message: Ended, used: dict[int, Usage]) -> Iterator[AnyEvent]:
        process = self._table.get(message.pid)
        if process is None:
            return
        process.ppid = message.ppid or process.ppid
        if message.tid in process.tids:  # others ended before the exec that made it what it is now
            process.differs |= process.heard > 0 and message.status != process.status
            process.status = message.status
            process.heard += 1
            process.tids.discard(message.tid)
        if not process.tids:
            self._held.append(self._end(process, message.at_ns, used))
            yield from self._in_order()

    def _in_order(self) -> Iterator[ProcessExit]:
        """The ends that can be told: that of a child before its parent's, though the message of a last thread may come after it.

        The kernel wakes the parent first and sends the message then, so a parent that ends at once may be heard of sooner.
        """
        told = True
        while told:
            told = False
            for end in list(self._held):
                if not self._awaits_child(end):
                    self._held.remove(end)
                    told = True
                    yield end

    def _awaits_child(self, end: ProcessExit) -> bool:
        """Whether a child of this process has ended, and its message is yet to come."""
        if any(other.ppid == end.pid and other is not end for other in self._held):
            return True
        return any(each.ppid == end.pid and has_ended(each.descriptor) for each in self._table.values())

    def _end(self, process: Watched, at_ns: int, used: dict[int, Usage], status: int | None = None) -> ProcessExit:
        """The end of a whole process, with the status that the kernel keeps where its threads do not agree.

        Threads that return one by one have 0, whatever becomes of their process, and their messages may come after those of others.
        """
        unseen = None
        if status is None and process.differs:
            status = status_at_end(process.descriptor, process.pid)
            unseen = _DIFFER if status is None and process.status == 0 else None
        spent = used.pop(process.pid, None)
        self._drop(process.pid)
        return ProcessExit(
            at_ns=at_ns,
            pid=process.pid,
            start_ns=process.start_ns,
            ppid=process.ppid,
            comm=process.comm,
            status=process.status if status is None else status,
            uid=process.uid,
            cgroup=process.cgroup,
            max_rss_bytes=spent.max_rss_bytes if spent else None,
            user_ns=spent.user_ns if spent else None,
            system_ns=spent.system_ns if spent else None,
            stderr=process.stderr,
            stderr_path=process.stderr_path,
            fatal_tid=process.fatal_tid,
            unseen=unseen,
            engine=self.name,
        )

    def _drop(self, pid: int) -> None:
        process = self._table.pop(pid, None)
        if process is not None and process.descriptor is not None:
            os.close(process.descriptor)

    # --- after a loss -----------------------------------------------------------------------------------------------------

    def _recover(self, used: dict[int, Usage]) -> Iterator[AnyEvent]:
        """Whose end was missed is asked of its pidfd; who was started meanwhile is looked for below those that are there."""
        unknown = 0
        for process in list(self._table.values()):
            process.tids = set(tids_of(process.pid)) or process.tids
            if not has_ended(process.descriptor):
                continue
            status = status_at_end(process.descriptor, process.pid)
            if status is None:
                unknown += 1
                yield self._unseen(process)
            else:
                yield self._end(process, now_ns(), used, status)
        children = children_by_parent()
        for parent in list(self._table):
            yield from self._found_below(parent, children)
        says = f"{_OVERRUN}; of {unknown} that ended, how is not known" if unknown else _OVERRUN
        yield Lost(at_ns=now_ns(), source=self.name, count=max(1, unknown), says=says)

    def _found_below(self, parent: int, children: dict[int, list[int]]) -> Iterator[AnyEvent]:
        for pid in children.get(parent, ()):
            if pid in self._table:
                continue
            self.watch(pid)
            try:
                yield read_process(pid)
            except NoSuchProcess:
                continue
            yield from self._found_below(pid, children)

    def _unseen(self, process: Watched) -> ProcessExit:
        """It ended, and nobody can say how any more."""
        end = self._end(process, now_ns(), {}, 0)
        return msgspec.structs.replace(
            end, unseen="the kernel's message of its end was lost, and its parent had already read its status"
        )


def uid_of(pid: int) -> int:
    """The real user of a live process; 0 where it has ended."""
    uids = (status_field(read_proc(f"/proc/{pid}/status") or b"", b"Uid") or b"").split()
    return int(uids[0]) if uids and uids[0].isdigit() else 0


def path_of_stderr(pid: int) -> str | None:
    """The path of what is behind a live process's descriptor 2, as the kernel has it; None where that is no path, or not for us."""
    path = link_of(f"/proc/{pid}/fd/2")
    return path if path is not None and path.startswith("/") else None


def now_ns() -> int:
    """CLOCK_BOOTTIME, the clock of every event."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
