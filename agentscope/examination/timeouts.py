"""The time-outs that system calls are given, as seconds from the moment of the call.

A call that was given a time-out which cannot be read has 0.0: such a call does not block, so the number is free to say
"it will end by itself, nobody knows when". None always means that the call waits without end.
"""

import struct
import time

from agentscope.examination.memory import Memory
from agentscope.examination.proc import link_of, read_proc

UNREAD = 0.0
REALTIME, MONOTONIC, BOOTTIME = 0, 1, 7
_SECOND_NS = 1_000_000_000
_OFFSET_NAMES = {MONOTONIC: b"monotonic", 4: b"monotonic", 6: b"monotonic", BOOTTIME: b"boottime", 9: b"boottime"}
_LONGEST_S = float(1 << 40)  # programs write "for ever" as the largest number that they know


def milliseconds(argument: int) -> float | None:
    """A time-out of poll(2) or epoll_wait(2): negative is without end."""
    value = signed(argument)
    return None if value < 0 else value / 1e3


def signed(argument: int) -> int:
    """An `int` argument: the low half of the register."""
    return ((argument & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def timespec(memory: Memory, address: int) -> float | None:
    """A relative struct timespec. The kernel writes the rest back only when the call returns; until then it is what was given."""
    return _seconds(memory, address, 1e9)


def timeval(memory: Memory, address: int) -> float | None:
    """A relative struct timeval, of select(2)."""
    return _seconds(memory, address, 1e6)


def until(memory: Memory, address: int, clock: int, since_ns: int | None) -> float | None:
    """An absolute struct timespec as seconds from the call's begin, `since_ns` of CLOCK_BOOTTIME (None: from now)."""
    if address == 0:
        return None
    raw = memory.read(address, 16)
    if raw is None or clock not in {REALTIME, MONOTONIC, 4, 5, 6, BOOTTIME, 8, 9, 11}:  # time.h; CPU clocks are another's
        return UNREAD
    seconds, nanoseconds = struct.unpack("<qq", raw)
    remaining_ns = seconds * _SECOND_NS + nanoseconds - _offset_ns(memory.pid, clock) - time.clock_gettime_ns(clock)
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    found = _bounded((remaining_ns + (0 if since_ns is None else now_ns - since_ns)) / 1e9)
    return UNREAD if found in {UNREAD, _LONGEST_S} else found


def _seconds(memory: Memory, address: int, parts: float) -> float | None:
    if address == 0:
        return None
    raw = memory.read(address, 16)
    if raw is None:
        return UNREAD
    seconds, rest = struct.unpack("<qq", raw)
    return _bounded(seconds + rest / parts)


def _bounded(seconds: float) -> float:
    return min(max(seconds, UNREAD), _LONGEST_S)


def _offset_ns(pid: int, clock: int) -> int:
    """How far a clock of the process is ahead of ours: a time namespace moves it (time_namespaces(7))."""
    name = _OFFSET_NAMES.get(clock)
    same = name is None or link_of(f"/proc/{pid}/ns/time") == link_of("/proc/self/ns/time")
    return 0 if same or name is None else _shift_ns(pid, name) - _shift_ns("self", name)


def _shift_ns(pid: int | str, name: bytes) -> int:
    for line in (read_proc(f"/proc/{pid}/timens_offsets") or b"").splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0] == name:
            return int(fields[1]) * _SECOND_NS + int(fields[2])
    return 0
