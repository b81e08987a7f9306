"""Rows of the task iterators as processes and their threads. What has not changed since the last sample is the very same object.

So whoever follows a thousand idle threads need not look at one of them: identity says that nothing happened.
"""

import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import is_

from agentscope.model import LastSyscall, ProcessSample, ThreadSample
from agentscope.sources.wire import ABSENT, PAGE_BYTES, PULSE_HEAD, PULSE_ROW, REGISTERS_ROW, text_of

# fs/proc/array.c, task_state_array: the letters of the bits of `state`, from bit 0 up
_STATE_LETTERS = "SDTtXZPI"
_TASK_REPORT = 0x7F
_TASK_IDLE = 0x402

_PAGES = struct.Struct("<3q")
_COUNTERS = struct.Struct("<QQQQQQQqq")
_PLACE = struct.Struct("<Q52sI16s")  # where it is, the call in one piece
_PLACE_AT = _COUNTERS.size
_TOLD_BYTES = _COUNTERS.size + _PLACE.size  # this stays the same while a thread rests
_SPLIT = struct.Struct(f"<{_PAGES.size}sII{_TOLD_BYTES}s")
_TOLD = struct.Struct(f"<{_PAGES.size + 8}x{_TOLD_BYTES}s")
_CALL = struct.Struct("<6Qi")
_SUSPENDED_NS = 10_000_000
_NO_PAGES = _PAGES.pack(ABSENT, ABSENT, ABSENT)
_NOTHING: tuple[tuple[bytes], ThreadSample | None] = ((b"",), None)


@lru_cache(256)
def state_letter(state: int) -> str:
    """The letter of /proc/PID/stat."""
    if state & _TASK_IDLE == _TASK_IDLE:
        return "I"
    reported = state & _TASK_REPORT
    if not reported and state & 0x9000:  # TASK_RTLOCK_WAIT and TASK_FROZEN are shown as D (__task_state_index)
        return "D"
    return _STATE_LETTERS[reported.bit_length() - 1] if reported else "R"


@lru_cache(4096)
def _call_of(raw: bytes) -> LastSyscall | None:
    *args, number = _CALL.unpack(raw)
    return LastSyscall(number=number, args=tuple(args)) if number >= 0 else None


_comm_of = lru_cache(1024)(text_of)


class Samples:
    """What one reader of a task iterator knows from the passes before."""

    def __init__(self) -> None:
        self._bounds: deque[int] = deque(maxlen=64)
        self._asleep_ns: int | None = None
        self._rows = b""
        self._threads: list[ThreadSample] = []
        self._processes: list[ProcessSample] = []

    def prepare(self) -> None:
        """Before the first pass: who has just got a CPU when the kernel writes its head bounds the clocks' offset most tightly."""
        if not self._bounds:
            time.sleep(1e-5)

    def fold(self, passes: Iterable[bytes]) -> list[ProcessSample]:
        """The processes of a sample, in the order of their rows; a sample may be of several passes, each with its own head."""
        bodies = [self._body(written) for written in passes]
        rows = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        if rows != self._rows:
            self._processes = list(self._decode(rows))
            self._rows = rows
        return self._processes

    def _body(self, written: bytes) -> bytes:
        """The rows of one pass; its head tightens the bound of the clocks' offset."""
        if len(written) < PULSE_HEAD.size:
            return b""
        now_ns, boot_ns, arrival_ns = PULSE_HEAD.unpack_from(written)
        asleep_ns = boot_ns - now_ns
        if self._asleep_ns is None or abs(asleep_ns - self._asleep_ns) > _SUSPENDED_NS:
            # the machine was suspended, which no thread can be blamed for: every wait begins that much later
            self._asleep_ns = asleep_ns
            self._bounds.clear()
            self._rows, self._threads, self._processes = b"", [], []
        if arrival_ns:
            self._bounds.append(now_ns - arrival_ns)
        return written[PULSE_HEAD.size : len(written) - (len(written) - PULSE_HEAD.size) % PULSE_ROW.size]

    def _decode(self, rows: bytes) -> Iterator[ProcessSample]:
        """Whatever changed is made anew."""
        threads: list[ThreadSample] = []
        to_boot_ns = min(self._bounds, default=0) + (self._asleep_ns or 0)
        families: dict[int, list[ThreadSample]] = {}
        about: dict[int, tuple[bytes, bytes]] = {}
        for (pages, pid, tid, told), ((before,), old) in zip(_SPLIT.iter_unpack(rows), self._before(rows), strict=True):
            if old is not None and told == before:
                thread = old
            else:
                thread = _thread_of(tid, told, to_boot_ns, old if told[_PLACE_AT:] == before[_PLACE_AT:] else None)
            threads.append(thread)
            family = families.get(pid)
            if family is None:
                families[pid] = [thread]
                about[pid] = told, pages
            else:
                family.append(thread)
                if pages != _NO_PAGES:
                    about[pid] = told, pages
        self._threads = threads
        last = {sample.pid: sample for sample in self._processes}
        for pid, family in families.items():
            yield _process_of(pid, *about[pid], family, last.get(pid))

    def _before(self, rows: bytes) -> Iterable[tuple[tuple[bytes], ThreadSample | None]]:
        """What was told of the thread of each of these rows the last time, and what it became.

        The threads are mostly the same in the same order: then old and new rows are read side by side, which touches the least
        memory. A second after the last sample none of it is in the CPU's caches, and that is what a sample costs.
        """
        told = _TOLD.iter_unpack(self._rows)
        if len(rows) == len(self._rows) and _threads_in(rows) == _threads_in(self._rows):
            return zip(told, self._threads, strict=True)
        known = dict(zip(_threads_in(self._rows), zip(told, self._threads, strict=True), strict=True))
        return [known.get(who, _NOTHING) for who in _threads_in(rows)]


def _threads_in(rows: bytes) -> memoryview:
    """Pid and tid of each row, as one number."""
    return memoryview(rows).cast("Q")[_PAGES.size // 8 :: PULSE_ROW.size // 8]


def _thread_of(tid: int, told: bytes, to_boot_ns: int, old: ThreadSample | None = None) -> ThreadSample:
    """A thread from its row; `old` is what it was, if it is in the same place again."""
    _, arrival_ns, user_ns, system_ns, delayed_ns, voluntary, involuntary, read, written = _COUNTERS.unpack_from(told)
    if old is not None:
        comm, letter, syscall, ip = old.comm, old.state, old.syscall, old.ip
    else:
        ip, call, state, raw_comm = _PLACE.unpack_from(told, _PLACE_AT)
        comm, letter, syscall = _comm_of(raw_comm), state_letter(state), _call_of(call)
        if letter == "R":
            syscall, ip = None, None
    return ThreadSample(
        tid=tid,
        comm=comm,
        state=letter,
        syscall=syscall,
        user_ns=user_ns,
        system_ns=system_ns,
        delayed_ns=delayed_ns,
        voluntary_switches=voluntary,
        involuntary_switches=involuntary,
        last_ran_ns=None if letter == "R" or not arrival_ns else arrival_ns + to_boot_ns,
        read_bytes=None if read == ABSENT else read,
        written_bytes=None if written == ABSENT else written,
        ip=ip,
    )


def _process_of(pid: int, told: bytes, pages: bytes, threads: list[ThreadSample], last: ProcessSample | None) -> ProcessSample:
    start_ns = int.from_bytes(told[:8], "little")
    anon, file, shmem = _PAGES.unpack(pages)
    anon_bytes = None if anon == ABSENT else anon * PAGE_BYTES
    rss_bytes = None if anon == ABSENT else (anon + file + shmem) * PAGE_BYTES
    if (
        last is not None
        and (last.anon_bytes, last.rss_bytes, last.start_ns) == (anon_bytes, rss_bytes, start_ns)
        and len(last.threads) == len(threads)
        and all(map(is_, last.threads, threads))
    ):
        return last
    return ProcessSample(pid=pid, start_ns=start_ns, anon_bytes=anon_bytes, rss_bytes=rss_bytes, threads=tuple(threads))


def rss_by_pid(written: bytes) -> dict[int, int | None]:
    """Resident bytes by pid, from a pass over the leaders alone; None where the leader has ended."""
    found: dict[int, int | None] = {}
    rows = written[PULSE_HEAD.size : len(written) - (len(written) - PULSE_HEAD.size) % PULSE_ROW.size]
    for pages, pid, _, _ in _SPLIT.iter_unpack(rows):
        anon, file, shmem = _PAGES.unpack(pages)
        found[pid] = None if anon == ABSENT else (anon + file + shmem) * PAGE_BYTES
    return found


def registers_of(rows: bytes, pid: int) -> dict[int, dict[int, int]]:
    """The registers of the threads of `pid`, by tid and DWARF number; rows of other processes may be among them."""
    found = {}
    for row in REGISTERS_ROW.packed.iter_unpack(rows[: len(rows) - len(rows) % REGISTERS_ROW.size]):
        if row[0] == pid:
            found[row[1]] = dict(enumerate(row[2:]))
    return found
