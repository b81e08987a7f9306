"""The proc connector: the kernel tells of every fork, exec, new name, core dump and end of a thread, without BPF.

Kernel documentation: include/uapi/linux/cn_proc.h, drivers/connector/cn_proc.c. Since 6.6 anybody may listen; before, it takes
CAP_NET_ADMIN. It speaks only to processes in the first user, pid and network namespaces. pyroute2 has this protocol too
(`ProcEventSocket`), but raises for a name that is no UTF-8, which a process may give itself, and has no way to take what has come
without waiting; so the few structs are read here.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from agentscope.errors import EngineUnavailable, NotPermitted
from agentscope.sources.kmsg import boottime_offset_ns

NETLINK_CONNECTOR = 11
RECEIVE_BYTES = 16 << 20  # a storm of ten thousand deaths is some megabytes, since every message takes a page's share
ACKNOWLEDGED_S = 2.0
MOST_AT_ONCE = 20_000

_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h
_CN_IDX_PROC = _CN_VAL_PROC = 1
_LISTEN = 1
_NLMSG_DONE = 3
_NETLINK = struct.Struct("=IHHII")  # struct nlmsghdr
_CONNECTOR = struct.Struct("=IIIIHH")  # struct cn_msg
_EVENT = struct.Struct("=IIQ")  # struct proc_event: what, cpu, timestamp
_FOUR, _TWO, _EXIT, _COMM = struct.Struct("=IIII"), struct.Struct("=II"), struct.Struct("=IIIIII"), struct.Struct("=II16s")
_BODY_AT = _NETLINK.size + _CONNECTOR.size
_DETAIL_AT = _BODY_AT + _EVENT.size

_NONE, _FORK, _EXEC, _RENAME, _DUMP, _END = 0, 1, 2, 0x200, 0x40000000, 0x80000000
_WHAT = "the kernel does not tell of processes over netlink"
_WITHOUT = "--engine auto, which takes the best that works here"


class Forked(NamedTuple):
    """A thread began: of a new process where `tid` is `pid`. Of one that has joined its process, `ppid` is that process's parent."""

    at_ns: int
    ppid: int
    tid: int
    pid: int


class Execed(NamedTuple):
    """A process became another program; of its threads only one is left."""

    at_ns: int
    pid: int


class Renamed(NamedTuple):
    """A thread has given itself a name."""

    at_ns: int
    tid: int
    pid: int
    comm: str


class Dumped(NamedTuple):
    """A thread took a signal that dumps core, whether or not a core is kept (get_signal, kernel/signal.c)."""

    at_ns: int
    tid: int
    pid: int


class Ended(NamedTuple):
    """A thread ended. `status` is its own wait status: that of its process, unless it ended alone by returning, which is 0."""

    at_ns: int
    tid: int
    pid: int
    status: int
    ppid: int | None


class Overrun(NamedTuple):
    """Messages did not fit the socket's buffer; how many is not told."""


Message = Forked | Execed | Renamed | Dumped | Ended | Overrun


def parse(datagram: bytes, offset_ns: int) -> Message | None:
    """One datagram of the connector; None for what is not asked for, or is no message of it. `offset_ns`: CLOCK_BOOTTIME minus MONOTONIC."""
    try:
        index, value = _CONNECTOR.unpack_from(datagram, _NETLINK.size)[:2]
        what, _, at_ns = _EVENT.unpack_from(datagram, _BODY_AT)
        if (index, value) != (_CN_IDX_PROC, _CN_VAL_PROC):
            return None
        return _detail(what, at_ns + offset_ns, datagram)
    except struct.error:  # cut short
        return None


def _detail(what: int, at_ns: int, datagram: bytes) -> Message | None:
    if what == _FORK:
        _, ppid, tid, pid = _FOUR.unpack_from(datagram, _DETAIL_AT)
        return Forked(at_ns, ppid, tid, pid)
    if what == _EXEC:
        return Execed(at_ns, _TWO.unpack_from(datagram, _DETAIL_AT)[1])
    if what == _END:
        tid, pid, status = struct.unpack_from("=III", datagram, _DETAIL_AT)
        # the parent is told since 4.18
        whole = len(datagram) >= _DETAIL_AT + _EXIT.size
        return Ended(at_ns, tid, pid, status, _EXIT.unpack_from(datagram, _DETAIL_AT)[5] or None if whole else None)
    if what == _RENAME:
        tid, pid, comm = _COMM.unpack_from(datagram, _DETAIL_AT)
        return Renamed(at_ns, tid, pid, comm.partition(b"\0")[0].decode("utf-8", "replace"))
    if what == _DUMP:
        return Dumped(at_ns, *_TWO.unpack_from(datagram, _DETAIL_AT))
    return None


class ProcConnector:
    """Listens from the moment it exists until `close`.

    Raises:
        NotPermitted: this kernel wants CAP_NET_ADMIN. EngineUnavailable: it tells nobody, or not us.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR)
        except OSError as error:
            raise _refused(error) from error
        try:
            self._widen()
            self._socket.bind((0, _CN_IDX_PROC))
            self._say(_LISTEN)
            self._await_acknowledgement()
        except OSError as error:
            self._socket.close()
            raise _refused(error) from error
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Polls readable when there are messages."""
        return self._socket.fileno()

    def messages(self) -> Iterator[Message]:
        """What has come, oldest first, a bounded number of them; what others than the kernel sent is left out."""
        offset_ns = boottime_offset_ns()
        for _ in range(MOST_AT_ONCE):
            try:
                datagram, sender = self._socket.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                yield Overrun()
                continue
            if sender[0] == 0 and (message := parse(datagram, offset_ns)) is not None:
                yield message

    def close(self) -> None:
        """Stop listening; safe to call twice. The kernel notices by itself that nobody listens any more."""
        self._socket.close()

    def _widen(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)

    def _say(self, operation: int) -> None:
        body = _CONNECTOR.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0) + struct.pack("=I", operation)
        self._socket.send(_NETLINK.pack(_NETLINK.size + len(body), _NLMSG_DONE, 0, 0, 0) + body)

    def _await_acknowledgement(self) -> None:
        """The kernel answers at once, and not at all where we are in a namespace of our own."""
        until = time.monotonic() + ACKNOWLEDGED_S
        while (left_s := until - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                datagram, sender = self._socket.recvfrom(4096)
            except TimeoutError:
                break
            if sender[0] != 0 or len(datagram) < _DETAIL_AT + 4 or _EVENT.unpack_from(datagram, _BODY_AT)[0] != _NONE:
                continue
            refused = struct.unpack_from("=I", datagram, _DETAIL_AT)[0]
            if refused:
                raise OSError(refused, os.strerror(refused))
            return
        why = "it speaks only in the first user, pid and network namespaces, and we are in others (a container)"
        raise EngineUnavailable(_WHAT, why, "start the container with the host's pid and network namespaces")


def _refused(error: OSError) -> EngineUnavailable | NotPermitted:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return NotPermitted(
            _WHAT,
            "kernels before 6.6 tell only who has CAP_NET_ADMIN, and a sandbox may refuse it",
            f"sudo {' '.join(sys.argv)}",
        )
    why = f"{os.strerror(error.errno or 0)} (it takes CONFIG_PROC_EVENTS, and the network namespace of the host)"
    return EngineUnavailable(_WHAT, why, _WITHOUT)
