"""The sockets of one network namespace as the kernel's own rows: sock_diag(7), asked through pyroute2, left undecoded.

pyroute2's `get_sock_stats` makes an object of every row (75 us a socket); a namespace may have thousands, of which an agent has
a few. So its DiagSocket is only the way there and back, and `sockets` decodes the rows it wants.

A netlink socket speaks for the namespace it was opened in, so it is opened in a thread of its own, which enters the namespace
of the target (setns(2) moves one thread alone) and then ends: the caller's thread never leaves its own.
"""

import ctypes
import os
import select
import struct
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NamedTuple

from agentscope.model import MissingEvidence

Row = tuple[bytes, int, int]  # a buffer, where the row's struct starts in it, where its attributes end

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
TCP, UDP = 6, 17

_ANSWER_LIMIT_S = 0.5
_THREAD_LIMIT_S = 1.0
_ROW_LIMIT = 50_000  # a few hundred bytes each
_RECEIVE_BYTES = 1 << 16  # the kernel packs a dump into at most 32 KiB (netlink_dump)

# Sockets of no process are left out by the kernel: TIME_WAIT (6) and half-open connections of a listener, SYN_RECV (3).
_TCP_STATES = 0xFFF & ~(1 << 6) & ~(1 << 3)
_CONNECTED = 1 << 1
_ANY = 0xFFF
_WITH_TCP_INFO = 1 << (2 - 1)  # INET_DIAG_INFO is 2, and the mask has a bit for each number from 1
_UNIX_SHOW = 0x01 | 0x04 | 0x08 | 0x10  # UDIAG_SHOW_NAME, _PEER, _ICONS, _RQLEN

_SOCK_DIAG_BY_FAMILY = 20
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_STATUS = struct.Struct("=i")
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_importing = Lock()


class Dump(NamedTuple):
    """The rows of a namespace: inet_diag_msg of TCP and of connected UDP (both families), unix_diag_msg of all unix sockets.

    `lacks` names what could not be had, and why.
    """

    tcp: list[Row]
    udp: list[Row]
    unix: list[Row]
    lacks: tuple[str, ...] = ()


def dump_namespace(pid: int) -> Dump | MissingEvidence:
    """All sockets of the network namespace that `pid` is in; bounded in time and number. Blocks for a few milliseconds."""
    try:
        diag = _pyroute2_diag()
    except ImportError as error:
        return _missing(f"pyroute2 cannot be imported ({error})")
    answers: list[Dump | MissingEvidence] = []
    thread = Thread(target=lambda: answers.append(_dump_there(diag, pid)), name="sock-diag", daemon=True)
    thread.start()
    thread.join(_THREAD_LIMIT_S)
    return answers[0] if answers else _missing(f"the kernel did not answer within {_THREAD_LIMIT_S:g} s")


def _missing(because: str) -> MissingEvidence:
    return MissingEvidence(kind="sockets", because=because)


def _dump_there(diag: Any, pid: int) -> Dump | MissingEvidence:
    """The body of the short-lived thread: into the namespace, and ask."""
    try:
        _enter_namespace(pid)
    except (FileNotFoundError, ProcessLookupError):
        return _missing("the process has ended")
    except OSError as error:
        needs_root = " (needs root)" if isinstance(error, PermissionError) else f": {error.strerror}"
        return _missing(f"its network namespace may not be entered{needs_root}")
    try:
        with closing(diag.DiagSocket()) as asked:
            return _dump_all(diag, asked)
    except OSError as error:
        return _missing(f"the kernel does not tell them: {error.strerror or error}")


def _enter_namespace(pid: int) -> None:
    """Move this thread into the network namespace of a process, unless it is there already.

    Raises:
        OSError: the process is gone, or it is not permitted.
    """
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ours, theirs = Path("/proc/thread-self/ns/net").stat(), os.fstat(there)
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) and _libc.setns(there, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(there)


def _dump_all(diag: Any, asked: Any) -> Dump:
    """All tables, one after the other. Without TCP there is nothing to say; a kernel without the others only lacks them.

    Raises:
        OSError: the kernel has no TCP table.
    """
    until = time.monotonic() + _ANSWER_LIMIT_S
    dump = Dump([], [], [])
    lacks: list[str] = []
    for name, rows, family, protocol in (
        ("TCP", dump.tcp, AF_INET, TCP),
        ("TCP over IPv6", dump.tcp, AF_INET6, TCP),
        ("unix", dump.unix, AF_UNIX, 0),
        ("UDP", dump.udp, AF_INET, UDP),
        ("UDP over IPv6", dump.udp, AF_INET6, UDP),
    ):
        try:
            if not _collect(asked, _request(diag, family, protocol), rows, until):
                lacks.append(f"{name} sockets only in part, and what comes after: there are too many")
                break
        except OSError as error:
            if name == "TCP":
                raise
            lacks.append(f"{name} sockets: {error.strerror or error}")
    return dump._replace(lacks=tuple(lacks))


def _request(diag: Any, family: int, protocol: int) -> bytes:
    """The message that asks for one table (struct inet_diag_req_v2, struct unix_diag_req)."""
    if family == AF_UNIX:
        request = diag.unix_diag_req()
        request["udiag_states"], request["udiag_show"] = _ANY, _UNIX_SHOW
    else:
        request = diag.inet_diag_req()
        request["sdiag_protocol"] = protocol
        request["idiag_states"] = _TCP_STATES if protocol == TCP else _CONNECTED
        request["idiag_ext"] = _WITH_TCP_INFO if protocol == TCP else 0
    request["sdiag_family"] = family
    request["header"]["type"], request["header"]["flags"] = _SOCK_DIAG_BY_FAMILY, _DUMP
    request.encode()
    return bytes(request.data)


def _collect(asked: Any, request: bytes, rows: list[Row], until: float) -> bool:
    """Ask, and keep every row of the answer. False if the answer was cut off for its length: then nothing more can be asked here.

    Raises:
        OSError: the kernel has no such table, or gives no answer.
    """
    asked.send(request)
    poll = select.poll()
    poll.register(asked.fileno(), select.POLLIN)
    while True:
        if time.monotonic() > until or len(rows) > _ROW_LIMIT:
            return False
        if not poll.poll(max(1, int((until - time.monotonic()) * 1000))):
            raise TimeoutError(None, "no answer in time")
        buffer = asked.recv(_RECEIVE_BYTES)
        at = 0
        while at + 16 <= len(buffer):
            length, kind, _flags, _sequence, _port = _HEADER.unpack_from(buffer, at)
            if length < 16:
                break
            if kind in {_DONE, _ERROR}:
                status = int(_STATUS.unpack_from(buffer, at + 16)[0]) if length >= 20 else 0
                if status < 0:
                    raise OSError(-status, os.strerror(-status))
                return True
            rows.append((buffer, at + 16, at + length))
            at += (length + 3) & ~3


def _pyroute2_diag() -> Any:
    """pyroute2.netlink.diag without the rest of pyroute2, which its __init__ loads: another 100 ms and 9 MiB, for nothing we use.

    While the module loads, its parent stands there unexecuted; whoever imports pyroute2 afterwards gets it whole.
    """
    from importlib import import_module
    from importlib.util import find_spec, module_from_spec

    name, parent = "pyroute2.netlink.diag", "pyroute2"
    with _importing:
        if name in sys.modules or parent in sys.modules:
            return import_module(name) if parent in sys.modules else sys.modules[name]
        spec = find_spec(parent)
        if spec is None:
            raise ImportError("it is not installed")
        sys.modules[parent] = module_from_spec(spec)
        try:
            return import_module(name)
        finally:
            sys.modules.pop(parent, None)
