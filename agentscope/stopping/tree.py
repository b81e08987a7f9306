"""Every process of one agent, held by pidfd: found by birth, by parent, by session and by cgroup, and never lost while it is ended.

A child whose parent has ended belongs to somebody else in /proc, so the tree is kept by what was found before, and while it is being
ended whoever is found is stopped first: a stopped process starts no other (copy_process of kernel/fork.c gives up on a pending signal).
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

from agentscope.agents import TICK_NS, same_identity
from agentscope.examination.proc import numbers_in, plain, read_proc
from agentscope.stopping import cgroups

MOST_HELD = 8192
KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h

Members = Callable[[], Iterable[tuple[int, int]]]


class Row(NamedTuple):
    """One process of the host, as /proc/PID/stat has it; `start_ns` rounded to 10 ms."""

    pid: int
    ppid: int
    session: int
    state: str
    start_ns: int
    comm: str


def rows() -> dict[int, Row]:
    """Every process of the host now but the threads of the kernel: about 20 microseconds each."""
    found = (row_of(pid) for pid in numbers_in("/proc", 1 << 22))
    return {row.pid: row for row in found if row is not None}


def row_of(pid: int) -> Row | None:
    """One process now; None where it is gone or a thread of the kernel."""
    line = read_proc(f"/proc/{pid}/stat") or b""
    close = line.rfind(b")")
    fields = line[close + 2 :].split()
    if close < 0 or len(fields) < 20 or int(fields[6]) & KERNEL_THREAD:
        return None
    comm = plain(line[line.find(b"(") + 1 : close], 32)
    return Row(pid, int(fields[1]), int(fields[3]), fields[0].decode("ascii", "replace"), int(fields[19]) * TICK_NS, comm)


class Held:
    """A process that is surely the one that was meant: its descriptor outlives its number."""

    def __init__(self, row: Row, descriptor: int) -> None:
        self.row = row
        self.descriptor = descriptor
        self.sent = ""  # the strongest signal of ours
        self.is_still = False


def hold(row: Row) -> Held | None:
    """A process held by pidfd; None where it has ended or its number is another's by now."""
    try:
        descriptor = os.pidfd_open(row.pid)
    except OSError:
        return None
    # whoever the descriptor means, /proc shows it or a later one: the same start time makes it the one that was meant
    again = row_of(row.pid)
    if again is None or not same_identity(again.start_ns, row.start_ns) or is_over(descriptor):
        os.close(descriptor)
        return None
    return Held(again, descriptor)


def is_over(descriptor: int) -> bool:
    """Whether a process has ended, be it reaped or not: its pidfd polls readable once its last thread is gone."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


class Tree:
    """The processes of one agent. `never` are those that no stopping may touch: the first process, ourselves and what runs us."""

    def __init__(self, root: tuple[int, int], members: Members, as_uid: int) -> None:
        self.root_pid, self.root_start_ns = root
        self.members = members
        self.as_uid = as_uid
        self.never = {0, 1, os.getpid(), *above(os.getpid())}
        self.held: dict[int, Held] = {}
        self.ended: list[tuple[Row, str]] = []
        self.refused: dict[int, tuple[Row, str]] = {}
        self.sessions: set[int] = set()
        self.own: list[cgroups.Group] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self.held.values():
            os.close(held.descriptor)
        self.held.clear()

    # --- finding ---------------------------------------------------------------------------------------------------------

    @property
    def root(self) -> Held | None:
        """The agent's first process; None where it has ended."""
        return self.held.get(self.root_pid)

    def look(self) -> bool:
        """Find whoever belongs to the agent now; tells whether anybody was new."""
        self.reap()
        now = rows()
        before = len(self.held)
        for pid, start_ns in ((self.root_pid, self.root_start_ns), *self.members()):
            row = now.get(pid)
            if row is not None and same_identity(row.start_ns, start_ns):
                self.take(row)
        self.take_kin(now)
        for group in self.own_groups(now):
            for pid in cgroups.pids_in(group) & now.keys():
                self.take(now[pid])
        self.take_kin(now)
        return len(self.held) > before

    def take(self, row: Row) -> None:
        """Hold one process of the tree, unless nothing may be done to it."""
        if row.pid in self.held or row.pid in self.refused or row.pid in self.never:
            return
        if len(self.held) >= MOST_HELD:
            self.refused[row.pid] = (row, f"more than {MOST_HELD} processes belong to this agent")
            return
        if self.as_uid not in {0, uid_of(row.pid)}:
            self.refused[row.pid] = (row, f"it is another user's than the config's (uid {self.as_uid})")
            return
        held = hold(row)
        if held is not None:
            self.held[row.pid] = held
            if held.row.session == row.pid:
                self.sessions.add(row.pid)

    def take_kin(self, now: dict[int, Row]) -> None:
        """The children of whoever is held, and who is in a session that one of them led: those are born of it (setsid(2))."""
        self.sessions = {each for each in self.sessions if each not in now or each in self.held}  # a number can be used again
        children: dict[int, list[Row]] = {}
        for row in now.values():
            children.setdefault(row.ppid, []).append(row)
        queue = [row for row in now.values() if row.session in self.sessions or row.pid in self.held]
        while queue:
            row = queue.pop()
            self.take(row)
            if row.pid in self.held:
                queue.extend(child for child in children.get(row.pid, ()) if child.pid not in self.held)

    def own_groups(self, now: dict[int, Row]) -> list[cgroups.Group]:
        """The cgroups that are this agent's alone, as far up as they are: judged anew each time, as somebody may have come in."""
        starts = {pid: row.start_ns for pid, row in now.items()}
        known = {pid: held.row.start_ns for pid, held in self.held.items()}
        places = cgroups.hierarchies()
        self.own = []
        for group in {group for pid in list(self.held)[:64] for group in cgroups.groups_of(pid, places)}:
            step: cgroups.Group | None = group
            while step is not None and step not in self.own and cgroups.is_own(step, self.root_pid, known, starts, self.never):
                self.own.append(step)
                step = step.above
        return self.own

    # --- acting ----------------------------------------------------------------------------------------------------------

    def send(self, number: signal.Signals, *, only: Held | None = None) -> None:
        """Send a signal to all that are held, or to one."""
        for held in [only] if only is not None else list(self.held.values()):
            try:
                signal.pidfd_send_signal(held.descriptor, number)
            except ProcessLookupError:
                continue
            except PermissionError:
                self.drop(held, "we have no right to signal it")
                continue
            if number in {signal.SIGTERM, signal.SIGKILL}:
                held.sent = number.name

    def drop(self, held: Held, why: str) -> None:
        """Give up on one process, with the reason."""
        self.refused[held.row.pid] = (held.row, why)
        os.close(self.held.pop(held.row.pid).descriptor)

    def wake(self) -> None:
        """Let whoever is stopped or frozen hear what was sent; a cgroup that others share stays as it is."""
        for group in self.own:
            cgroups.thaw(group)
        self.send(signal.SIGCONT)

    def still(self, until: float) -> None:
        """Stop everybody, and whoever is found meanwhile, until nobody new is found."""
        while True:
            for held in self.held.values():
                if not held.is_still:
                    held.is_still = True
                    with contextlib.suppress(OSError):
                        signal.pidfd_send_signal(held.descriptor, signal.SIGSTOP)
            if not self.look() or time.monotonic() > until:
                return

    def kill(self) -> None:
        """SIGKILL for everybody: at once by cgroup where one is the agent's own, and each one by itself."""
        for group in self.own:
            cgroups.kill_all(group)
        self.send(signal.SIGKILL)

    def reap(self) -> None:
        """Move those that have ended (a pidfd polls readable once the whole process is over) to `ended`."""
        self.wait_once(0)

    def wait_once(self, seconds: float) -> None:
        """Wait until at least one has ended, at most so long."""
        poller = select.poll()
        by_descriptor = {held.descriptor: held for held in self.held.values()}
        for descriptor in by_descriptor:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(max(0, seconds) * 1000):
            held = by_descriptor[descriptor]
            self.ended.append((held.row, held.sent))
            os.close(self.held.pop(held.row.pid).descriptor)

    def wait(self, until: float, *, root_only: bool = False, every_s: float = 0.5) -> bool:
        """Wait for the end of all, or of the first process, finding new ones meanwhile; tells whether it came."""
        looked = time.monotonic()
        while self.held if not root_only else self.root is not None:
            now = time.monotonic()
            if now >= until:
                return False
            if now - looked >= every_s:
                looked = now
                self.look()
            self.wait_once(min(until - now, every_s))
        return True


def above(pid: int) -> list[int]:
    """The ancestors of a process, the nearest first."""
    found: list[int] = []
    row = row_of(pid)
    while row is not None and row.ppid > 0 and row.ppid not in found:
        found.append(row.ppid)
        row = row_of(row.ppid)
    return found


def uid_of(pid: int) -> int | None:
    """The user of a process as the kernel judges signals to it: the real one, of which kill(2) asks."""
    for line in (read_proc(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None
