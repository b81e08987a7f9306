"""Sockets decoded from rows as the kernel writes them: made here, so that every state is there on any machine."""

import os
import struct
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton

import pytest

from agentscope.examination import Holder, Socket
from agentscope.examination._sock_diag import Dump
from agentscope.examination.sockets import (
    SocketTable,
    is_model_api,
    peer_inodes,
    read_sockets,
    unacknowledged_ms,
    with_holders,
)
from agentscope.model import MissingEvidence

ESTABLISHED, SYN_SENT, CLOSE_WAIT, LISTEN = 1, 2, 8, 10


def attribute(kind, payload):
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def tcp_info(*, sent=0, again=0, received=0, last_sent=0, last_received=0, repeats=0, doublings=0, rto_ms=200, cut=232):
    info = bytearray(232)
    info[2], info[4] = repeats, doublings
    struct.pack_into("=I", info, 8, rto_ms * 1000)
    struct.pack_into("=I", info, 44, last_sent)
    struct.pack_into("=I", info, 52, last_received)
    struct.pack_into("=Q", info, 128, received)
    struct.pack_into("=QQ", info, 200, sent, again)
    return bytes(info[:cut])


def inet(inode, state, local, peer=("0.0.0.0", 0), *, queues=(0, 0), info=None, timer=0, expires=0, more=b""):
    """One row of struct inet_diag_msg with its attributes, as (buffer, start, end)."""
    family = AF_INET6 if ":" in local[0] else AF_INET
    peer = ("::", 0) if family == AF_INET6 and peer[0] == "0.0.0.0" else peer
    source, destination = (inet_pton(family, end[0]).ljust(16, b"\0") for end in (local, peer))
    row = struct.pack("=BBBB", family, state, timer, 0) + struct.pack(">HH", local[1], peer[1]) + source + destination
    row += struct.pack("=I8sIIIII", 0, bytes(8), expires, *queues, 1000, inode)
    row += (attribute(2, info) if info is not None else b"") + more
    return b"\xaa" * 16 + row, 16, 16 + len(row)


def unix(inode, state, *attributes, kind=1):
    row = struct.pack("=BBBBI8s", 1, kind, state, 0, inode, bytes(8)) + b"".join(attributes)
    return row, 0, len(row)


def table(tcp=(), udp=(), unix=()):
    return SocketTable(Dump(list(tcp), list(udp), list(unix)))


def only(found):
    (socket,) = found
    return socket


SERVER, CLIENT = ("127.0.0.1", 8080), ("127.0.0.1", 50000)


def test_a_client_that_asked_and_got_nothing_shows_it():
    """Bytes sent, none received: when they were sent is told, and there is no time of a last answer."""
    info = tcp_info(sent=70, last_sent=41_000, last_received=3_000_000)
    socket = only(table([inet(7, ESTABLISHED, ("10.0.0.2", 40000), ("160.79.104.10", 443), info=info)]).sockets())
    assert (socket.state, socket.local, socket.peer) == ("established", "10.0.0.2:40000", "160.79.104.10:443")
    assert (socket.sent_bytes, socket.received_bytes) == (70, 0)
    assert (socket.last_sent_ago_ms, socket.last_received_ago_ms) == (41_000, None)
    assert not socket.accepted


def test_a_repeat_is_not_counted_as_more_bytes():
    """Bytes that were sent again are the same bytes."""
    socket = only(table([inet(7, ESTABLISHED, CLIENT, SERVER, info=tcp_info(sent=300, again=200))]).sockets())
    assert socket.sent_bytes == 100


def test_what_an_older_kernel_does_not_tell_is_absent():
    """A shorter tcp_info gives None for what it lacks, and no tcp_info at all still gives state and queues."""
    short = only(table([inet(7, ESTABLISHED, CLIENT, SERVER, info=tcp_info(received=5, last_received=9, cut=192))]).sockets())
    assert (short.sent_bytes, short.last_sent_ago_ms) == (None, None)
    assert (short.received_bytes, short.last_received_ago_ms) == (5, 9)
    none = only(table([inet(7, ESTABLISHED, CLIENT, SERVER, queues=(3, 4))]).sockets())
    assert (none.receive_queue, none.send_queue, none.sent_bytes, none.received_bytes) == (3, 4, None, None)


@pytest.mark.parametrize(("state", "received"), [(CLOSE_WAIT, 20), (9, 20), (11, 20), (ESTABLISHED, 21), (5, 21)])
def test_the_end_of_the_stream_is_no_byte(state, received):
    """The kernel counts the peer's FIN as a byte received; what is told are bytes."""
    socket = only(table([inet(7, state, CLIENT, SERVER, info=tcp_info(received=21))]).sockets())
    assert socket.received_bytes == received


def test_of_a_listening_socket_the_queue_is_of_connections():
    """The receive queue of a listening socket is how many wait to be accepted; it has no peer."""
    socket = only(table([inet(7, LISTEN, ("0.0.0.0", 8080), queues=(3, 128), info=tcp_info())]).sockets())
    assert (socket.state, socket.local, socket.peer, socket.receive_queue) == ("listen", "0.0.0.0:8080", None, 3)
    assert not socket.accepted


V6_ONLY, DUAL = attribute(12, b"\1"), attribute(12, b"\0")


@pytest.mark.parametrize(
    ("listening", "local", "accepted"),
    [
        (("127.0.0.1", 8080, b""), ("127.0.0.1", 8080), True),
        (("0.0.0.0", 8080, b""), ("10.0.0.2", 8080), True),
        (("127.0.0.1", 8080, b""), ("10.0.0.2", 8080), False),
        (("0.0.0.0", 8081, b""), ("10.0.0.2", 8080), False),
        (("::", 8080, DUAL), ("::ffff:10.0.0.2", 8080), True),
        (("::", 8080, DUAL), ("fd00::2", 8080), True),
        (("::", 8080, V6_ONLY), ("10.0.0.2", 8080), False),
        (("0.0.0.0", 8080, b""), ("fd00::2", 8080), False),
    ],
)
def test_accepted_is_what_came_in_through_a_listening_socket(listening, local, accepted):
    """A socket counts as accepted if somebody listens at its port and at its address, or at all addresses of its kind."""
    peer = ("fd00::9", 5) if ":" in local[0] else ("10.0.0.9", 5)
    rows = [inet(1, LISTEN, listening[:2], more=listening[2]), inet(2, ESTABLISHED, local, peer)]
    assert only(table(rows).sockets({2})).accepted is accepted


def test_mapped_addresses_are_shown_as_ipv4_and_ipv6_in_brackets():
    """An IPv4 address inside an IPv6 socket reads as IPv4; a real IPv6 address is in brackets."""
    rows = [
        inet(1, ESTABLISHED, ("::ffff:10.0.0.2", 80), ("::ffff:10.0.0.9", 5)),
        inet(2, ESTABLISHED, ("::1", 80), ("::1", 5)),
    ]
    mapped, real = table(rows).sockets()
    assert (mapped.family, mapped.local, mapped.peer) == ("inet6", "10.0.0.2:80", "10.0.0.9:5")
    assert (real.local, real.peer) == ("[::1]:80", "[::1]:5")


def test_the_other_end_is_the_socket_with_the_addresses_swapped():
    """Both ends of a connection of this machine know each other, though one is of IPv4 and the other of IPv6."""
    rows = [inet(1, ESTABLISHED, CLIENT, SERVER), inet(2, ESTABLISHED, ("::ffff:127.0.0.1", 8080), ("::ffff:127.0.0.1", 50000))]
    assert peer_inodes(table(rows).sockets()) == {1: 2, 2: 1}
    assert peer_inodes(table(rows).sockets({1})) == {1: 2}


def test_until_it_is_accepted_the_other_end_is_the_listening_socket():
    """A connection in the queue of a listening socket belongs to no process yet: the one to accept it is named."""
    rows = [inet(9, LISTEN, ("0.0.0.0", 8080)), inet(1, ESTABLISHED, CLIENT, SERVER), inet(0, ESTABLISHED, SERVER, CLIENT)]
    assert peer_inodes(table(rows).sockets()) == {1: 9}
    assert {socket.inode for socket in table(rows).sockets()} == {1, 9}


def test_a_request_that_a_full_queue_drops_is_for_the_listening_socket():
    """A connection request to this machine that is not answered is for whoever listens there; one to elsewhere for nobody here."""
    rows = [
        inet(9, LISTEN, ("0.0.0.0", 8080)),
        inet(1, SYN_SENT, CLIENT, SERVER),
        inet(2, SYN_SENT, ("10.0.0.2", 40000), ("10.0.0.9", 8080)),
    ]
    assert peer_inodes(table(rows).sockets()) == {1: 9}


def test_a_connection_to_elsewhere_has_no_other_end_here():
    """That somebody here listens at the same port is no reason to take him for the peer."""
    rows = [inet(9, LISTEN, ("0.0.0.0", 443)), inet(1, ESTABLISHED, ("10.0.0.2", 40000), ("10.0.0.9", 443))]
    socket = only(table(rows).sockets({1}))
    assert (socket.peer_inode, socket.accepted) == (None, False)


def test_holders_are_filled_in_by_the_socket_they_are_the_other_end_of():
    """`with_holders` goes by the inode of the socket itself, and leaves the others alone."""
    sockets = table([inet(1, ESTABLISHED, CLIENT, SERVER), inet(2, ESTABLISHED, SERVER, CLIENT)]).sockets()
    filled = with_holders(sockets, {1: Holder(pid=42, comm="server")})
    assert [socket.peer_holder and socket.peer_holder.pid for socket in filled] == [42, None]


@pytest.mark.parametrize(
    ("repeats", "doublings", "timeout_ms", "expires_ms", "age_ms"),
    [
        (0, 0, 1000, 400, 600),  # sent 0.6 s ago, not yet repeated
        (3, 3, 1600, 1000, 200 + 400 + 800 + 600),  # doubled each time from 200 ms
        (4, 0, 1000, 500, 4000 + 500),  # the requests of a connection of Linux 6.5: one a second
        (6, 2, 4000, 4000, 5000 + 2000),  # five of them (the last doubles), then twice as long
        (2, 2, 800, 5000, 600),  # a timer that was put off
        (255, 255, 120_000, 0, None),  # hostile numbers
    ],
)
def test_the_age_of_what_nobody_acknowledges_is_reckoned_from_the_timer(repeats, doublings, timeout_ms, expires_ms, age_ms):
    """Each time-out tells how long all before it took."""
    reckoned = unacknowledged_ms(repeats, doublings, timeout_ms, expires_ms)
    assert reckoned == age_ms if age_ms is not None else 120_000 <= reckoned < 1 << 40


def test_repeats_tell_how_long_nothing_is_acknowledged():
    """While bytes are repeated there is an age; when the timer is another one, or nothing is repeated, there is none."""
    info = tcp_info(sent=300, again=200, repeats=3, doublings=3, rto_ms=1600, last_sent=600)
    socket = only(table([inet(1, ESTABLISHED, CLIENT, SERVER, queues=(0, 100), info=info, timer=1, expires=1000)]).sockets())
    assert (socket.send_queue, socket.retransmits, socket.unacknowledged_ms, socket.last_sent_ago_ms) == (100, 3, 2000, 600)
    for timer, repeats in ((2, 3), (1, 0)):  # a keepalive; bytes on their way for the first time
        info = tcp_info(sent=100, repeats=repeats, doublings=repeats)
        assert (
            only(table([inet(1, ESTABLISHED, CLIENT, SERVER, info=info, timer=timer, expires=7)]).sockets()).unacknowledged_ms
            is None
        )
    asking = only(table([inet(1, SYN_SENT, CLIENT, SERVER, info=tcp_info(rto_ms=1000), timer=1, expires=300)]).sockets())
    assert (asking.state, asking.unacknowledged_ms) == ("syn-sent", 700)


def test_unix_sockets_know_their_peer_and_its_name():
    """A connected client shows the name its server is bound to; the server's socket is accepted, and both know each other."""
    name = attribute(0, b"/run/model.sock\0")
    rows = [
        unix(1, LISTEN, name, attribute(4, struct.pack("=II", 2, 128)), attribute(3, struct.pack("=II", 5, 0))),
        unix(2, ESTABLISHED, attribute(2, struct.pack("=I", 3)), attribute(4, struct.pack("=II", 0, 768)), attribute(6, b"\0")),
        unix(3, ESTABLISHED, name, attribute(2, struct.pack("=I", 2)), attribute(4, struct.pack("=II", 12, 0))),
        unix(5, ESTABLISHED, attribute(2, struct.pack("=I", 0))),
    ]
    listening, client, accepted, waiting = table(unix=rows).sockets()
    assert (listening.state, listening.local, listening.receive_queue) == ("listen", "/run/model.sock", 2)
    assert (client.local, client.peer, client.peer_inode, client.send_queue) == ("", "/run/model.sock", 3, 768)
    assert (accepted.accepted, accepted.peer, accepted.peer_inode, accepted.receive_queue) == (True, None, 2, 12)
    assert (waiting.peer_inode, waiting.peer, waiting.accepted) == (1, "/run/model.sock", False)
    assert client.sent_bytes is None


def test_a_unix_client_with_a_name_of_its_own_is_not_accepted():
    """Being bound is not being accepted: nobody listens at that name."""
    assert not only(table(unix=[unix(1, ESTABLISHED, attribute(0, b"/run/client\0"))]).sockets()).accepted


def test_a_unix_socket_whose_peer_has_gone_is_in_close_wait():
    """What TCP calls CLOSE_WAIT is told of unix sockets too."""
    socket = only(table(unix=[unix(1, ESTABLISHED, attribute(6, b"\3"), attribute(2, bytes(4)))]).sockets())
    assert (socket.state, socket.peer_inode) == ("close-wait", None)


def test_names_of_unix_sockets_are_cleaned():
    """A name that its process chose cannot write to a terminal; the abstract namespace is marked with "@"."""
    names = [b"\0evil\x1b[2J\nname\0x", b"/tmp/\x1b]0;x\x07s\0", b"\xff\xfe"]
    shown = [
        socket.local for socket in table(unix=[unix(i + 1, LISTEN, attribute(0, n)) for i, n in enumerate(names)]).sockets()
    ]
    assert shown[0].startswith("@evil")
    assert all(text.isprintable() for text in shown)


def test_datagram_sockets_of_unix_are_left_out():
    """Only what has connections can owe an answer."""
    assert table(unix=[unix(1, ESTABLISHED, kind=2)]).sockets() == ()


def test_only_what_is_wanted_is_decoded():
    """Inodes that are not there are no error."""
    rows = [inet(inode, ESTABLISHED, ("10.0.0.2", inode), ("10.0.0.9", 80)) for inode in range(1, 50)]
    assert {socket.inode for socket in table(rows).sockets({3, 4, 999})} == {3, 4}
    assert {socket.inode for socket in table(rows).sockets(range(1000))} == set(range(1, 50))
    assert table(rows).sockets(()) == ()


def test_rows_that_are_cut_or_wrong_are_no_crash():
    """Whatever length a row and its attributes claim, decoding ends and stays inside."""
    good = inet(1, ESTABLISHED, CLIENT, SERVER, info=tcp_info(sent=1))
    for end in range(16, good[2]):
        table([(good[0], 16, end)]).sockets()
    for length in (0, 1, 3, 5, 200, 65535):
        table([inet(1, 200, CLIENT, SERVER, more=struct.pack("=HH", length, 2) + bytes(8))]).sockets()
    name = unix(1, LISTEN, attribute(0, b"/x"), attribute(3, b"\1\0\0\0\2"), attribute(2, b"\1"), attribute(4, b"\1"))
    for end in range(name[2]):
        table(unix=[(name[0], 0, end)]).sockets()
    table(unix=[unix(1, ESTABLISHED, attribute(6, b""))]).sockets()


def remote(peer, kind="tcp"):
    return Socket(
        inode=1, family="inet", kind=kind, state="established", local="10.0.0.2:5", peer=peer, receive_queue=0, send_queue=0
    )


@pytest.mark.parametrize(
    ("peer", "hosts", "name"),
    [
        ("160.79.104.10:443", (), "api.anthropic.com"),
        ("160.79.105.255:443", (), "api.anthropic.com"),
        ("160.79.106.0:443", (), None),
        ("[2607:6bc0::10]:443", (), "api.anthropic.com"),
        ("[2607:6bc0:1::10]:443", (), None),
        ("127.0.0.1:11434", ("127.0.0.1:11434",), "127.0.0.1"),
        ("127.0.0.1:11434", ("localhost:11434",), "localhost"),
        ("[::1]:11434", ("localhost:11434",), "localhost"),
        ("127.0.0.1:11434", ("0.0.0.0:11434",), "0.0.0.0"),
        ("127.0.0.1:11435", ("localhost:11434",), None),
        ("[fd00::7]:8000", ("[fd00::7]:8000",), "fd00::7"),
        ("10.0.0.9:443", ("llm.example:443",), None),
        ("10.0.0.9:443", ("", ":", "x", ":443"), None),
        (None, ("localhost:1",), None),
    ],
)
def test_a_model_api_is_told_by_its_address_alone(peer, hosts, name):
    """Published addresses and those that the environment names; a name is never looked up, and never guessed from a port."""
    assert is_model_api(remote(peer), hosts) == name


def test_a_unix_socket_is_no_model_api():
    """A path is no address, whatever it looks like."""
    assert is_model_api(remote("localhost:11434", kind="unix"), ("localhost:11434",)) is None


def test_of_a_process_that_is_not_there_the_sockets_are_missing():
    """A pid that nobody has gives a reason, not an empty answer."""
    missing = read_sockets(int(Path("/proc/sys/kernel/pid_max").read_text()) + 1)
    assert isinstance(missing, MissingEvidence)
    assert (missing.kind, missing.because) == ("sockets", "the process has ended")


def test_reading_ones_own_sockets_needs_no_privilege():
    """In the namespace of the caller there is nothing to enter."""
    read = read_sockets(os.getpid(), {0})
    assert read == ()
