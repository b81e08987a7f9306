"""What examined processes call, counted in the kernel between a beginning and an end (bpf/profile.examine.bpf.c)."""

import errno
import ipaddress
import struct
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from agentscope.examination import CallCount, ConnectCount, StatusCount, SyscallProfile
from agentscope.model import MissingEvidence
from agentscope.sources.libbpf import BpfError, ProbeObject, Table
from agentscope.sources.wire import CALL_KEY, CONNECT_KEY, STATUS_KEY

SYSCALL_PROFILE = "syscall-profile"  # the kind of evidence that is missing where there is no profile
PROBE = "on_call_end"

Counted = TypeVar("Counted", CallCount, ConnectCount, StatusCount)

_COUNT = struct.Struct("<Q")
_FIRST = bytes(4)
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
# include/linux/errno.h: the kernel's own, with which a call that a signal interrupted leaves the tracepoint
_RESTARTS = range(512, 517)
_END_OF_STREAM = 4096  # no errno: what bpf/profile.examine.bpf.c calls the end of a stream that recv(2) has met


def error_name(number: int) -> str | None:
    """The name of an errno, "ECONNREFUSED"; None for 0."""
    if not number:
        return None
    if number == _END_OF_STREAM:
        return "EOF"
    return "EINTR" if number in _RESTARTS else errno.errorcode.get(number, f"errno {number}")


def address_text(raw: bytes) -> str:
    """A struct sockaddr as "address:port", "[v6]:port", a path, or "@name" of an abstract unix socket; clean text in any case."""
    family = int.from_bytes(raw[:2], "little")
    if family == _AF_INET and len(raw) >= 8:
        return f"{ipaddress.IPv4Address(raw[4:8])}:{int.from_bytes(raw[2:4], 'big')}"
    if family == _AF_INET6 and len(raw) >= 24:
        return f"[{ipaddress.IPv6Address(raw[8:24])}]:{int.from_bytes(raw[2:4], 'big')}"
    if family != _AF_UNIX:
        return f"address family {family}"
    from agentscope.examination.proc import plain

    name = raw[2:]
    return plain(b"@" + name[1:] if name[:1] == b"\0" else name.partition(b"\0")[0])


class Profiler:
    """The probe on system calls and its tables; attached only between `begin` and `end`."""

    def __init__(self, probes: ProbeObject) -> None:
        self._object = probes
        self._examined = probes.table("examined", 4, _COUNT.size)
        self._calls = probes.table("calls", CALL_KEY.size, _COUNT.size)
        self._connects = probes.table("connects", CONNECT_KEY.size, _COUNT.size)
        self._statuses = probes.table("statuses", STATUS_KEY.size, _COUNT.size)
        self._connecting = probes.table("connecting", 8, CONNECT_KEY.size)
        self._uncounted = probes.table("uncounted", 4, _COUNT.size)
        self._began_s: float | None = None
        self._refused = "no profile was begun"

    def begin(self, pids: Iterable[int]) -> None:
        """Forget what was counted before, and count for these processes."""
        self._object.detach(PROBE)
        for table in (self._examined, self._calls, self._connects, self._statuses, self._connecting):
            clear(table)
        self._began_s = None
        try:
            self._uncounted.put(_FIRST, _COUNT.pack(0))
            for pid in pids:
                self._examined.put(struct.pack("<I", pid), _COUNT.pack(0))
            self._object.attach(PROBE)
        except BpfError as error:
            self._refused = f"the probe on system calls cannot be attached: {error.strerror}"
        else:
            self._began_s = time.monotonic()

    def end(self) -> SyscallProfile | MissingEvidence:
        """Detach, and what was counted, most frequent first."""
        self._object.detach(PROBE)
        if self._began_s is None:
            return MissingEvidence(kind=SYSCALL_PROFILE, because=self._refused)
        seconds = time.monotonic() - self._began_s
        self._began_s, self._refused = None, "no profile was begun"
        return SyscallProfile(
            seconds=seconds,
            calls=most_first(self._calls_counted()),
            connects=most_first(self._connects_counted()),
            statuses=most_first(self._statuses_counted()),
            written_bytes={int.from_bytes(key, "little"): count for key, count in counts(self._examined)},
            lost=_COUNT.unpack(self._uncounted.get(_FIRST) or bytes(8))[0],
        )

    def _calls_counted(self) -> Iterator[CallCount]:
        from agentscope.symbols.syscalls import syscall_name

        for key, count in counts(self._calls):
            pid, number, error = CALL_KEY.unpack_from(key)
            name = syscall_name(number) or f"syscall {number}"
            yield CallCount(pid=pid, name=name, error=error_name(error), count=count)

    def _connects_counted(self) -> Iterator[ConnectCount]:
        for key, count in counts(self._connects):
            pid, error, length, address = CONNECT_KEY.unpack_from(key)
            if count:  # one that was in progress has moved to its end
                yield ConnectCount(pid=pid, address=address_text(address[:length]), error=error_name(error), count=count)

    def _statuses_counted(self) -> Iterator[StatusCount]:
        for key, count in counts(self._statuses):
            pid, status = STATUS_KEY.unpack_from(key)
            yield StatusCount(pid=pid, status=status, count=count)


def counts(table: Table) -> Iterator[tuple[bytes, int]]:
    """Every key of a table with its count."""
    for key in list(table.keys()):
        value = table.get(key)
        if value is not None:
            yield key, _COUNT.unpack(value)[0]


def clear(table: Table) -> None:
    """Delete every key."""
    for key in list(table.keys()):
        table.drop(key)


def most_first(counted: Iterable[Counted]) -> tuple[Counted, ...]:
    """The most frequent first."""
    return tuple(sorted(counted, key=lambda each: -each.count))
