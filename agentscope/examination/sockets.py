"""Sockets as sock_diag tells them: state, queues, repeats, when bytes last went and came, and which socket is the other end.

What the numbers are (include/uapi/linux/tcp.h, struct tcp_info; net/ipv4/tcp.c, tcp_get_info):

- `sent_bytes` is tcpi_bytes_sent less tcpi_bytes_retrans: distinct bytes that left at least once. (tcpi_bytes_acked counts the
  connection request too, and misses what nobody acknowledges.) `received_bytes` is tcpi_bytes_received less the end of the
  stream, which it counts as one.
- `last_sent_ago_ms` is tcpi_last_data_sent: a repeat counts as sent. `unacknowledged_ms` is therefore reckoned from the
  retransmission timer: its time-out doubles, so the one of now tells how long all before it took.
- the times of a socket that never sent or received count from its creation, and so say nothing: they are None.
- of a listening socket `send_queue` is the most connections that may wait.
- unix sockets have no counters. Their `send_queue` is memory that the peer has not read, overhead included (unix_outq_len); one
  whose peer is gone, or has ended its stream, is given as "close-wait". An unnamed one has the name "".

IPv4 addresses that a socket of IPv6 has mapped are given as IPv4; `family` stays that of the socket.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from socket import inet_ntop, inet_pton
from typing import NamedTuple

import msgspec

from agentscope.examination import Holder, Socket, SocketState
from agentscope.examination._sock_diag import AF_INET, AF_INET6, Dump, Row, dump_namespace
from agentscope.examination.proc import plain
from agentscope.model import MissingEvidence

_STATES: dict[int, SocketState] = {
    1: "established",
    2: "syn-sent",
    3: "syn-received",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "close",
    8: "close-wait",
    9: "last-ack",
    10: "listen",
    11: "closing",
}  # fmt: skip  (include/net/tcp_states.h)
_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT, _LISTEN = 1, 2, 8, 10
_PEER_CLOSED = {_CLOSE_WAIT, 9, 11}

# struct inet_diag_msg: family, state, timer, retrans, sport, dport, src, dst, if, cookie, expires, rqueue, wqueue, uid, inode
_INET = struct.Struct("=BBxx2s2s16s16s4x8x4xII4xI")
_INET_TIMER = struct.Struct("=2xB49xI")  # idiag_timer and idiag_expires of the same struct
_UNIX = struct.Struct("=BBBxI8x")  # struct unix_diag_msg: family, type, state, inode, cookie
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_U32 = struct.Struct("=I")
_QUEUES = struct.Struct("=II")  # struct unix_diag_rqlen
_TCP_INFO, _V6_ONLY = 2, 12  # INET_DIAG_INFO, INET_DIAG_SKV6ONLY
_NAME, _PEER, _PENDING, _RQLEN, _SHUTDOWN = 0, 2, 3, 4, 6  # UNIX_DIAG_*; PENDING is ICONS: who waits to be accepted
_BACKOFF = struct.Struct("=2xBxBxxxI")  # tcpi_retransmits, tcpi_backoff, tcpi_rto (us)
_LAST_DATA = struct.Struct("=44xI4xI")  # tcpi_last_data_sent, tcpi_last_data_recv (ms)
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received, Linux 4.1
_SENT = struct.Struct("=200xQQ")  # tcpi_bytes_sent, tcpi_bytes_retrans, Linux 4.19
_TIMER_RETRANSMIT = 1
_STREAM, _SEQPACKET = 1, 5  # SOCK_*: those with connections
_RCV_SHUTDOWN = 1

_MAPPED = bytes(10) + b"\xff\xff"
_ANYWHERE = {bytes(4), bytes(16)}
_LOOPBACK_V6 = bytes(15) + b"\x01"

_ANTHROPIC = "api.anthropic.com"
_ANTHROPIC_V4 = int.from_bytes(inet_pton(AF_INET, "160.79.104.0"), "big") >> 9  # its published 160.79.104.0/23
_ANTHROPIC_V6 = inet_pton(AF_INET6, "2607:6bc0::")[:6]  # and 2607:6bc0::/48
_OURSELVES = {"localhost": ("127.0.0.1", "::1"), "0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}  # noqa: S104 - a client that connects to these reaches itself

_End = tuple[bytes, bytes]  # port and address as they are on the wire; IPv4 has 4 bytes


def read_sockets(pid: int, wanted: Collection[int] | None = None) -> tuple[Socket, ...] | MissingEvidence:
    """The TCP, connected UDP and connection-oriented unix sockets of the network namespace of a process.

    Only those whose inode is `wanted` (None: all that belong to a process). Each knows the inode of its other end, if that is in
    the same namespace; `peer_holder` is left to `with_holders`.
    """
    table = read_socket_table(pid)
    return table if isinstance(table, MissingEvidence) else table.sockets(wanted)


def read_socket_table(pid: int) -> "SocketTable | MissingEvidence":
    """All sockets of the network namespace of a process, undecoded: for several agents of one namespace, asked for once."""
    dump = dump_namespace(pid)
    return dump if isinstance(dump, MissingEvidence) else SocketTable(dump)


def peer_inodes(sockets: Iterable[Socket]) -> dict[int, int]:
    """Inode of each socket whose other end is known -> inode of the other end."""
    return {socket.inode: socket.peer_inode for socket in sockets if socket.peer_inode is not None}


def with_holders(sockets: Iterable[Socket], holders: Mapping[int, Holder]) -> tuple[Socket, ...]:
    """The same sockets with `peer_holder` filled in: `holders` is by the inode of the socket itself, not of its other end."""
    return tuple(
        msgspec.structs.replace(socket, peer_holder=holders[socket.inode]) if socket.inode in holders else socket
        for socket in sockets
    )


class SocketTable:
    """The sockets of one network namespace; rows are decoded when they are asked for."""

    def __init__(self, dump: Dump) -> None:
        self.lacks = dump.lacks
        self._inet = (_Protocol(dump.tcp, "tcp"), _Protocol(dump.udp, "udp"))
        self._unix = _Unix(dump.unix)

    def sockets(self, wanted: Collection[int] | None = None) -> tuple[Socket, ...]:
        """Those of these inodes, or all."""
        found: list[Socket] = []
        for protocol in self._inet:
            found += (protocol.socket(inode) for inode in _chosen(protocol.rows, wanted))
        found += (self._unix.socket(inode) for inode in _chosen(self._unix.rows, wanted))
        return tuple(found)


def _chosen(rows: Mapping[int, Row], wanted: Collection[int] | None) -> Iterable[int]:
    if wanted is None:
        return rows
    if len(wanted) < len(rows):
        return (inode for inode in wanted if inode in rows)
    return (inode for inode in rows if inode in wanted)


def _attributes(row: Row, fixed: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each attribute that follows the fixed part of a row."""
    buffer, at, end = row
    at += fixed
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(buffer, at)
        if length < 4 or at + length > end:
            return
        yield kind, at + 4, at + length
        at += (length + 3) & ~3


def _bare(family: int, address: bytes) -> bytes:
    """An address of struct inet_diag_sockid, which has 16 bytes for either family; IPv4 as 4 bytes, mapped or not."""
    if family == AF_INET:
        return address[:4]
    return address[12:] if address.startswith(_MAPPED) else address


def _shown(end: _End) -> str:
    """As "address:port", IPv6 in brackets."""
    port, address = int.from_bytes(end[0], "big"), end[1]
    return f"{inet_ntop(AF_INET, address)}:{port}" if len(address) == 4 else f"[{inet_ntop(AF_INET6, address)}]:{port}"


class _Protocol:
    """TCP or UDP, both families together: a client of IPv4 and a server of IPv6 may be two ends of one connection."""

    def __init__(self, rows: Iterable[Row], kind: str) -> None:
        self.kind = kind
        self.rows: dict[int, Row] = {}
        self._inode_at: dict[tuple[_End, _End], tuple[int, int]] = {}  # (local, remote) -> inode and state
        self._listeners: dict[bytes, list[tuple[bytes, bool, int]]] = {}  # port -> address, whether IPv6 only, inode
        for row in rows:
            buffer, at, end = row
            if end - at < _INET.size:
                continue
            family, state, sport, dport, src, dst, _rqueue, _wqueue, inode = _INET.unpack_from(buffer, at)
            if inode:
                self.rows[inode] = row
            local = sport, _bare(family, src)
            if state == _LISTEN:
                self._listeners.setdefault(sport, []).append((local[1], _is_v6_only(row), inode))
            else:
                self._inode_at[local, (dport, _bare(family, dst))] = inode, state

    def socket(self, inode: int) -> Socket:
        """One of `rows`, decoded."""
        row = self.rows[inode]
        buffer, at, _end = row
        family, state, sport, dport, src, dst, receive_queue, send_queue, _inode = _INET.unpack_from(buffer, at)
        local, remote = (sport, _bare(family, src)), (dport, _bare(family, dst))
        told = _told_by_tcp(row, state) if self.kind == "tcp" and state != _LISTEN else _Told()
        return Socket(
            inode=inode,
            family="inet" if family == AF_INET else "inet6",
            kind="tcp" if self.kind == "tcp" else "udp",
            state=_STATES.get(state, "close"),
            local=_shown(local),
            peer=None if state == _LISTEN else _shown(remote),
            receive_queue=receive_queue,
            send_queue=send_queue,
            accepted=state not in {_LISTEN, _SYN_SENT} and self._listener_of(local) is not None,
            peer_inode=None if state == _LISTEN else self._other_end(local, remote, state),
            **told._asdict(),
        )

    def _listener_of(self, end: _End) -> int | None:
        """Inode of the socket that listens at this address: exactly there, or at all addresses."""
        found = None
        for address, only_v6, inode in self._listeners.get(end[0], ()):
            if address == end[1]:
                return inode
            if address in _ANYWHERE and len(address) >= len(end[1]) and not (only_v6 and len(end[1]) == 4):
                found = inode
        return found

    def _other_end(self, local: _End, remote: _End, state: int) -> int | None:
        """Inode of the other end. One that waits to be accepted has none yet: then it is its listener's."""
        inode, its_state = self._inode_at.get((remote, local), (None, 0))
        if inode:
            return inode
        queued = inode == 0 and its_state in {_ESTABLISHED, _CLOSE_WAIT}
        # the request of a client that finds the queue full is dropped, so there is no other end at all
        refused = inode is None and state == _SYN_SENT and (remote[1] == local[1] or _is_loopback(remote[1]))
        return (self._listener_of(remote) or None) if queued or refused else None


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == _LOOPBACK_V6


def _is_v6_only(row: Row) -> bool:
    return any(kind == _V6_ONLY and start < end and row[0][start] != 0 for kind, start, end in _attributes(row, _INET.size))


class _Told(NamedTuple):
    """What struct tcp_info adds to a socket, by the names of `Socket`."""

    retransmits: int = 0
    sent_bytes: int | None = None
    received_bytes: int | None = None
    last_sent_ago_ms: int | None = None
    last_received_ago_ms: int | None = None
    unacknowledged_ms: int | None = None


def _told_by_tcp(row: Row, state: int) -> _Told:
    """Of a socket that does not listen. An older kernel's struct is shorter: what it lacks is None."""
    buffer, at, _end = row
    start, end = next(((start, end) for kind, start, end in _attributes(row, _INET.size) if kind == _TCP_INFO), (0, 0))
    if end - start < _LAST_DATA.size:
        return _Told()
    retransmits, backoff, timeout_us = _BACKOFF.unpack_from(buffer, start)
    last_sent_ms, last_received_ms = _LAST_DATA.unpack_from(buffer, start)
    received = sent = None
    if end - start >= _RECEIVED.size:
        received = max(0, _RECEIVED.unpack_from(buffer, start)[0] - (state in _PEER_CLOSED))
    if end - start >= _SENT.size:
        ever, again = _SENT.unpack_from(buffer, start)
        sent = max(0, ever - again)
    timer, expires_ms = _INET_TIMER.unpack_from(buffer, at)
    waits = timer == _TIMER_RETRANSMIT and (retransmits > 0 or state == _SYN_SENT)
    return _Told(
        retransmits=retransmits,
        sent_bytes=sent,
        received_bytes=received,
        last_sent_ago_ms=last_sent_ms if sent else None,
        last_received_ago_ms=last_received_ms if received else None,
        unacknowledged_ms=unacknowledged_ms(retransmits, backoff, timeout_us / 1000, expires_ms) if waits else None,
    )


def unacknowledged_ms(repeats: int, doublings: int, timeout_ms: float, expires_ms: int) -> int:
    """How long ago the oldest bytes that nobody acknowledged were first sent: at least, as the time-out stops doubling at 120 s.

    tcp_retransmit_timer (net/ipv4/tcp_timer.c): after each of the `repeats` the time-out doubles, but for the first few requests
    of a connection (sysctl tcp_syn_linear_timeouts, Linux 6.5), so only `doublings` times. `timeout_ms` is the one that runs now,
    and ends in `expires_ms`.
    """
    doublings = min(doublings, repeats, 16)
    first_ms = timeout_ms / (1 << doublings)
    before_ms = first_ms * (repeats - doublings - 1 + (1 << doublings)) if repeats else 0.0
    return round(before_ms + max(0.0, timeout_ms - expires_ms))


class _Unix:
    """The unix sockets that have connections."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: dict[int, Row] = {}
        self._listener_names: set[bytes] = set()
        self._waits_at: dict[int, int] = {}  # inode of a socket that waits to be accepted -> inode of the listening one
        for row in rows:
            buffer, at, end = row
            if end - at < _UNIX.size:
                continue
            _family, kind, state, inode = _UNIX.unpack_from(buffer, at)
            if kind not in {_STREAM, _SEQPACKET}:
                continue
            self.rows[inode] = row
            if state == _LISTEN:
                self._read_listener(row, inode)

    def _read_listener(self, row: Row, inode: int) -> None:
        for kind, start, end in _attributes(row, _UNIX.size):
            if kind == _NAME:
                self._listener_names.add(row[0][start:end])
            elif kind == _PENDING:
                whole = end - (end - start) % 4
                self._waits_at |= {waiting: inode for (waiting,) in _U32.iter_unpack(row[0][start:whole]) if waiting}

    def socket(self, inode: int) -> Socket:
        """One of `rows`, decoded."""
        row = self.rows[inode]
        _family, _kind, number, _inode = _UNIX.unpack_from(row[0], row[1])
        state = _STATES.get(number, "close")
        found = {kind: row[0][start:end] for kind, start, end in _attributes(row, _UNIX.size)}
        name = found.get(_NAME, b"")
        receive_queue, send_queue = _QUEUES.unpack(found[_RQLEN]) if len(found.get(_RQLEN, b"")) == _QUEUES.size else (0, 0)
        peer = (_U32.unpack(found[_PEER])[0] if len(found.get(_PEER, b"")) == _U32.size else 0) or self._waits_at.get(inode)
        ended = any(closed & _RCV_SHUTDOWN for closed in found.get(_SHUTDOWN, b""))  # one byte
        return Socket(
            inode=inode,
            family="unix",
            kind="unix",
            state="close-wait" if state == "established" and ended else state,
            local=_path(name),
            peer=(_path(self._name_of(peer)) or None) if peer else None,
            receive_queue=receive_queue,
            send_queue=send_queue,
            accepted=number == _ESTABLISHED and name in self._listener_names,
            peer_inode=peer or None,
        )

    def _name_of(self, inode: int) -> bytes:
        row = self.rows.get(inode)
        if row is None:
            return b""
        return next((row[0][start:end] for kind, start, end in _attributes(row, _UNIX.size) if kind == _NAME), b"")


def _path(name: bytes) -> str:
    """The name of a unix socket: a path, or "@" and a name of the abstract namespace (unix(7)), cleaned for a person."""
    return plain(b"@" + name[1:] if name.startswith(b"\0") else name.split(b"\0", 1)[0])


def is_model_api(socket: Socket, llm_hosts: tuple[str, ...]) -> str | None:
    """The name of the model API at the other end, or None: by Anthropic's published addresses, or as the environment names it.

    Names are never looked up: of `llm_hosts` ("host:port") only addresses and "localhost" can be told from others.
    """
    if socket.kind == "unix" or socket.peer is None:
        return None
    address, _, port = socket.peer.rpartition(":")
    address = address.strip("[]")
    for host_and_port in llm_hosts:
        host, _, its_port = host_and_port.rpartition(":")
        host = host.strip("[]")
        if its_port == port and address in _OURSELVES.get(host, (host,)):
            return host
    return _ANTHROPIC if _is_anthropic(address) else None


def _is_anthropic(address: str) -> bool:
    try:
        if ":" in address:
            return inet_pton(AF_INET6, address).startswith(_ANTHROPIC_V6)
        return int.from_bytes(inet_pton(AF_INET, address), "big") >> 9 == _ANTHROPIC_V4
    except OSError:
        return False
