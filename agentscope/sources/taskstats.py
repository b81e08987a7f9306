"""What each process had used at its end: taskstats (Documentation/accounting/taskstats.rst), which the kernel sends just before.

Two messages over generic netlink ask for it. pyroute2 has them as well (`TaskStats`), but its decoder knows another layout than
version 16 of the struct has, and raises for a name that is no UTF-8, which a process may give itself; so the few fields are read here.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentscope.errors import EngineUnavailable, NotPermitted

_GENERIC = 16  # NETLINK_GENERIC
_CONTROL = 16  # GENL_ID_CTRL
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_GET, _REGISTER = 1, 3  # TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_REGISTER_CPUMASK
_REQUEST, _ACKNOWLEDGE, _ERROR = 1, 4, 2
_PID, _TGID, _STATS, _OF_THREAD, _OF_PROCESS = 1, 2, 3, 4, 5  # TASKSTATS_TYPE_*
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_BODY_AT = _HEADER.size + 4  # struct genlmsghdr
# struct taskstats: version at 0; ac_utime and ac_stime (microseconds) at 152, hiwater_rss (KiB) at 200. Version 15 alone has
# other fields in front of them (include/uapi/linux/taskstats.h).
_TIMES, _TIMES_AT, _RSS_AT = struct.Struct("=QQ"), 152, 200
_OTHER_LAYOUT = 15
_KEPT = 4096
_MOST_AT_ONCE = 20_000
_RECEIVE_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h
_WHAT = "the kernel does not tell what processes have used at their end"


class Usage(NamedTuple):
    """CPU time of all its threads, and the most memory that was resident; None where it is not told."""

    user_ns: int
    system_ns: int
    max_rss_bytes: int | None


class TaskStats:
    """Listens from the moment it exists until `close`.

    Raises:
        NotPermitted: it takes CAP_NET_ADMIN. EngineUnavailable: this kernel has it not.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _GENERIC)
        except OSError as error:
            raise _refused(error) from error
        try:
            self._socket.settimeout(1.0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
            self._socket.bind((0, 0))
            processors = Path("/sys/devices/system/cpu/possible").read_bytes().strip()
            self._ask(_family(self._socket), _GET, _REGISTER, processors + b"\0")
        except OSError as error:
            self._socket.close()
            raise _refused(error) from error
        self._socket.setblocking(False)
        self._kept: dict[int, Usage] = {}

    def drain(self) -> dict[int, Usage]:
        """What is known of ends by pid, the latest few thousand; whoever is told of one takes it out."""
        for _ in range(_MOST_AT_ONCE):
            try:
                datagram, sender = self._socket.recvfrom(8192)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # an end without these numbers is told as such
                    continue
                break
            found = parse(datagram) if sender[0] == 0 else None
            if found is not None:
                self._kept.pop(found[0], None)
                self._kept[found[0]] = found[1]
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return self._kept

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        self._socket.close()

    def _ask(self, family: int, command: int, attribute: int, value: bytes) -> None:
        _send(self._socket, family, command, attribute, value)
        _raise_error(self._socket.recv(8192))


def parse(datagram: bytes) -> tuple[int, Usage] | None:
    """The process that a message tells of, and what it had used; None where only one of its threads has ended, or it is no such message.

    The numbers of a process with several threads are in a part of their own, which comes with its last thread.
    """
    parts = dict(_attributes(datagram, _BODY_AT, len(datagram)))
    thread, process = parts.get(_OF_THREAD), parts.get(_OF_PROCESS)
    if thread is None:
        return None
    inner = dict(_attributes(datagram, *thread))
    stats = inner.get(_STATS)
    rss = _number(datagram, stats, _RSS_AT)
    if process is not None:
        inner = dict(_attributes(datagram, *process))
        stats = inner.get(_STATS)
    named = inner.get(_TGID) or inner.get(_PID)
    if named is None or stats is None or named[1] - named[0] < 4 or stats[1] - stats[0] < _RSS_AT + 8:
        return None
    if int.from_bytes(datagram[stats[0] : stats[0] + 2], "little") == _OTHER_LAYOUT:
        return None
    user_us, system_us = _TIMES.unpack_from(datagram, stats[0] + _TIMES_AT)
    return int.from_bytes(datagram[named[0] : named[0] + 4], "little"), Usage(
        user_us * 1000, system_us * 1000, rss * 1024 if rss else None
    )


def _number(datagram: bytes, stats: tuple[int, int] | None, at: int) -> int | None:
    if stats is None or stats[1] - stats[0] < at + 8:
        return None
    return int.from_bytes(datagram[stats[0] + at : stats[0] + at + 8], "little")


def _attributes(datagram: bytes, at: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """The attributes between two places: their type, and where their value begins and ends."""
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(datagram, at)
        if length < _ATTRIBUTE.size or at + length > end:
            return
        yield kind & 0x3FFF, (at + _ATTRIBUTE.size, at + length)
        at += (length + 3) & ~3


def _send(to: socket.socket, family: int, command: int, attribute: int, value: bytes) -> None:
    body = struct.pack("=BBH", command, 1, 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), attribute) + value
    body += bytes(-len(body) % 4)
    to.send(_HEADER.pack(_HEADER.size + len(body), family, _REQUEST | _ACKNOWLEDGE, 0, 0) + body)


def _family(asked: socket.socket) -> int:
    """The number that generic netlink gave this family at boot.

    Raises:
        OSError: there is none.
    """
    _send(asked, _CONTROL, _GET_FAMILY, _FAMILY_NAME, b"TASKSTATS\0")
    answer = asked.recv(8192)
    _raise_error(answer)
    found = dict(_attributes(answer, _BODY_AT, len(answer))).get(_FAMILY_ID)
    if found is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    _raise_error(asked.recv(8192))
    return int.from_bytes(answer[found[0] : found[1]], "little")


def _raise_error(answer: bytes) -> None:
    """A refusal, as an exception.

    Raises:
        OSError: the kernel says no.
    """
    if len(answer) >= _HEADER.size + 4 and _HEADER.unpack_from(answer)[1] == _ERROR:
        number = -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
        if number:
            raise OSError(number, os.strerror(number))


def _refused(error: OSError) -> EngineUnavailable | NotPermitted:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return NotPermitted(_WHAT, "taskstats takes CAP_NET_ADMIN", "sudo agentscope …")
    return EngineUnavailable(_WHAT, f"taskstats: {os.strerror(error.errno or 0)} (CONFIG_TASKSTATS)")
