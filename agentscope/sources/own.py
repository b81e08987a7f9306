"""Engine `none`: without any privilege and without netlink. Our own processes: their end by pidfd, all else by looking in /proc.

How a process ended that is no child of ours is known from what is left of it until its parent reads that, and from its pidfd
since Linux 6.15; else it is said that nobody knows. What starts and ends between two looks is not seen.
"""

import contextlib
import os
import select
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import psutil

from agentscope.agents import read_process, same_identity, start_ns_of
from agentscope.errors import NoSuchProcess
from agentscope.examination.proc import read_proc, tids_of
from agentscope.model import AnyEvent, EngineName, ProcessExec, ProcessExit, ProcessSample
from agentscope.sources.netlink import now_ns, path_of_stderr
from agentscope.sources.pidfds import open_pidfd, status_at_end
from agentscope.sources.unprobed import NOT_SEEN, Unprobed

_UNSEEN = (
    "it is no child of agentscope, and its parent had read its status before agentscope could (Linux 6.15 tells it afterwards)"
)
_LESS = (
    "only our own processes are watched: others need root",
    "processes that live less than a second may not be seen, nor what they were before they ended",
)


@dataclass
class Own:
    """One process that is watched, as it was last seen."""

    seen: ProcessExec
    descriptor: int
    words: bytes
    stderr_path: str | None


class OwnEngine(Unprobed):
    """Implements `Engine`: looks whenever it is asked for a sample, which is once a second; an end is heard of at once."""

    name: EngineName = "none"
    degraded: tuple[str, ...] = (*NOT_SEEN, *_LESS)

    def __init__(self) -> None:
        self._ready = select.epoll()
        self._found = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready.register(self._found, select.EPOLLIN)
        self._table: dict[int, Own] = {}
        self._by_descriptor: dict[int, int] = {}
        self._waiting: list[AnyEvent] = []
        self._passed: dict[int, int] = {}  # start time of what was there already, or turned down, by pid
        self._discovering = False
        self._closed = False

    def fileno(self) -> int:
        """Polls readable when `drain` has something."""
        return self._ready.fileno()

    def may_watch(self, uid: int) -> bool:
        """Others do not show us what we need to see."""
        return uid == os.getuid()

    def watched(self) -> Iterable[int]:
        """The pids of all that is watched now."""
        return self._table

    def watch(self, pid: int) -> None:
        """Report this process and those below it; a pid that is already gone is ignored."""
        known = self._table.get(pid)
        start_ns = start_ns_of(pid)
        if start_ns is None or (known is not None and same_identity(known.seen.start_ns, start_ns)):
            return
        with contextlib.suppress(NoSuchProcess):
            self._take(read_process(pid))

    def unwatch(self, pid: int, at_ns: int) -> None:
        """Stop reporting this process, unless it became another program after `at_ns`."""
        known = self._table.get(pid)
        if known is not None and known.seen.at_ns <= at_ns:
            self._passed[pid] = known.seen.start_ns
            self._drop(pid)

    def watch_discovered(self, enabled: bool) -> None:
        """Report every new process of ours, or stop doing so. What is there already is not new."""
        self._discovering = enabled
        self._passed = {pid: start_ns for pid in psutil.pids() if (start_ns := start_ns_of(pid)) is not None} if enabled else {}

    def drain(self) -> Sequence[AnyEvent]:
        """What was found at the last look, and the ends since then."""
        if self._closed:
            return ()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._found)
        events, self._waiting = self._waiting, []
        ready = [self._by_descriptor[descriptor] for descriptor, _ in self._ready.poll(0) if descriptor in self._by_descriptor]
        # a child before its parent, which may have ended because of it
        ended = sorted((self._table[pid] for pid in ready), key=lambda own: -own.seen.start_ns)
        return [*events, *map(self._ended, ended)]

    def sample(self) -> Sequence[ProcessSample]:
        """All watched processes with their threads, now; and a look for new ones below them."""
        self._look()
        return super().sample()

    def memory(self) -> dict[int, int | None]:
        """Resident bytes of every watched process now, by pid; and a look for new ones below them."""
        self._look()
        return super().memory()

    def close(self) -> None:
        """Let go of every process; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for pid in list(self._table):
            self._drop(pid)
        self._ready.close()
        os.close(self._found)

    # --- looking ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Who has become another program, who was started below whom, and who is new."""
        before = len(self._waiting)
        for pid, own in list(self._table.items()):
            words = command_of(pid)
            if words and words != own.words:
                self._tell(pid)
            for child in children_of(pid):
                if child not in self._table:
                    self._tell(child)
        if self._discovering:
            self._look_for_new()
        if len(self._waiting) > before:
            os.eventfd_write(self._found, 1)

    def _look_for_new(self) -> None:
        there = psutil.pids()
        for pid in there:
            if pid in self._table or pid == os.getpid():
                continue
            start_ns = start_ns_of(pid)
            if start_ns is not None and self._passed.get(pid) != start_ns:
                self._passed[pid] = start_ns
                with contextlib.suppress(OSError):
                    if self.may_watch(os.stat(f"/proc/{pid}").st_uid):  # noqa: PTH116 - one of many, once a second
                        self._tell(pid)
        for pid in self._passed.keys() - set(there):
            del self._passed[pid]

    def _tell(self, pid: int) -> None:
        with contextlib.suppress(NoSuchProcess):
            seen = read_process(pid)
            if seen.uid == os.getuid() and self._take(seen):
                self._waiting.append(self._table[pid].seen)

    def _take(self, seen: ProcessExec) -> bool:
        """Keep what was seen; whether the process was still there."""
        known = self._table.get(seen.pid)
        if known is not None and same_identity(known.seen.start_ns, seen.start_ns):
            known.seen, known.words = msgspec.structs.replace(seen, start_ns=known.seen.start_ns), command_of(seen.pid)
            known.stderr_path = path_of_stderr(seen.pid)
            return True
        descriptor = open_pidfd(seen.pid)
        if descriptor is None:
            return False
        self._drop(seen.pid)
        self._table[seen.pid] = Own(seen, descriptor, command_of(seen.pid), path_of_stderr(seen.pid))
        self._by_descriptor[descriptor] = seen.pid
        self._ready.register(descriptor, select.EPOLLIN)
        return True

    def _ended(self, own: Own) -> ProcessExit:
        seen = own.seen
        status = status_at_end(own.descriptor, seen.pid)
        self._drop(seen.pid)
        return ProcessExit(
            at_ns=now_ns(),
            pid=seen.pid,
            start_ns=seen.start_ns,
            ppid=seen.ppid,
            comm=seen.comm,
            status=status or 0,
            uid=seen.uid,
            cgroup=seen.cgroup,
            stderr=seen.stderr,
            stderr_path=own.stderr_path,
            unseen=_UNSEEN if status is None else None,
            engine=self.name,
        )

    def _drop(self, pid: int) -> None:
        own = self._table.pop(pid, None)
        if own is not None:
            self._by_descriptor.pop(own.descriptor, None)
            self._ready.unregister(own.descriptor)
            os.close(own.descriptor)


def command_of(pid: int) -> bytes:
    """The words that a process was started with, as far as they tell one program from another."""
    return read_proc(f"/proc/{pid}/cmdline", 4096) or b""


def children_of(pid: int) -> list[int]:
    """The children that all threads of a process have now (/proc/PID/task/TID/children, CONFIG_PROC_CHILDREN)."""
    lists = (read_proc(f"/proc/{pid}/task/{tid}/children") or b"" for tid in tids_of(pid))
    return [int(number) for text in lists for number in text.split()]
