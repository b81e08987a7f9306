"""Sockets of real connections: on loopback, in network namespaces made for it, and of peers that are not there any more."""

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope.examination import Holder, Socket, _sock_diag
from agentscope.examination.sockets import peer_inodes, read_socket_table, read_sockets, with_holders
from agentscope.model import MissingEvidence

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

VICTIM_LIMIT_S = 50
_numbers = itertools.count()


def inode_of(opened: socket.socket) -> int:
    return os.fstat(opened.fileno()).st_ino


def look_at(opened: socket.socket) -> Socket:
    """What is read of one of our own sockets."""
    found = read_sockets(os.getpid(), {inode_of(opened)})
    assert not isinstance(found, MissingEvidence), found
    (one,) = found
    return one


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """Whatever is entered here is closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


def connected(stack: contextlib.ExitStack, address: str = "127.0.0.1", family: int = socket.AF_INET) -> list[socket.socket]:
    """A listening socket, a client, and the server's end of their connection."""
    listening = stack.enter_context(socket.socket(family))
    listening.bind((address, 0))
    listening.listen(3)
    target = "127.0.0.1" if address == "::" else address
    client = stack.enter_context(socket.create_connection((target, listening.getsockname()[1]), 5))
    accepted = stack.enter_context(listening.accept()[0])
    return [listening, client, accepted]


def test_asked_and_unanswered(opened):
    """A client whose question was read and not answered: nothing received, when it asked, and the mirror image at the server."""
    _, client, accepted = connected(opened)
    client.sendall(b"q" * 70)
    accepted.recv(100)
    time.sleep(0.3)
    asked, owing = look_at(client), look_at(accepted)
    assert (asked.state, asked.accepted, asked.sent_bytes, asked.received_bytes) == ("established", False, 70, 0)
    assert 300 <= asked.last_sent_ago_ms < 3000
    assert asked.last_received_ago_ms is None
    assert (asked.receive_queue, asked.send_queue, asked.retransmits, asked.unacknowledged_ms) == (0, 0, 0, None)
    assert (owing.accepted, owing.sent_bytes, owing.received_bytes, owing.last_sent_ago_ms) == (True, 0, 70, None)
    assert 300 <= owing.last_received_ago_ms < 3000
    assert (asked.local, asked.peer) == (owing.peer, owing.local)


def test_half_answered(opened):
    """Bytes came after the question, and then silence: the last received is younger than the last sent."""
    _, client, accepted = connected(opened)
    client.sendall(b"q" * 10)
    time.sleep(0.2)
    accepted.sendall(b"a" * 20)
    time.sleep(0.2)
    half = look_at(client)
    assert (half.sent_bytes, half.received_bytes, half.receive_queue) == (10, 20, 20)
    assert half.last_sent_ago_ms >= half.last_received_ago_ms + 150
    assert half.last_received_ago_ms >= 200


def test_a_connection_that_was_never_used_has_no_last_times(opened):
    """Times that count from the creation of the socket are not passed off as times of bytes."""
    _, client, accepted = connected(opened)
    for end in (look_at(client), look_at(accepted)):
        assert (end.sent_bytes, end.received_bytes, end.last_sent_ago_ms, end.last_received_ago_ms) == (0, 0, None, None)


def test_a_backlog_of_three(opened):
    """Three clients wait to be accepted: the listening socket says so, and is the other end of each."""
    listening = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=5))
    clients = [opened.enter_context(socket.create_connection(listening.getsockname(), 5)) for _ in range(3)]
    seen = look_at(listening)
    assert (seen.state, seen.receive_queue, seen.peer) == ("listen", 3, None)
    waiting = read_sockets(os.getpid(), {inode_of(client) for client in clients})
    assert set(peer_inodes(waiting).values()) == {inode_of(listening)}


def test_a_full_queue_leaves_the_client_asking(opened):
    """A connection request that a full queue drops is in syn-sent, and the other end is whoever does not accept."""
    listening = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    opened.enter_context(socket.create_connection(listening.getsockname(), 5))
    asking = opened.enter_context(socket.socket())
    asking.setblocking(False)
    asking.connect_ex(listening.getsockname())
    time.sleep(1.3)
    seen = look_at(asking)
    assert (seen.state, seen.peer_inode, seen.accepted) == ("syn-sent", inode_of(listening), False)
    assert seen.retransmits >= 1
    assert 1200 <= seen.unacknowledged_ms < 3000


def test_closed_and_unread(opened):
    """The peer closed and its bytes are not read: close-wait, the bytes and one for the end of the stream."""
    _, client, accepted = connected(opened)
    accepted.sendall(b"a" * 20)
    accepted.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    seen = look_at(client)
    assert (seen.state, seen.receive_queue, seen.received_bytes) == ("close-wait", 21, 20)
    client.recv(100)
    client.recv(100)
    assert (look_at(client).state, look_at(client).receive_queue) == ("close-wait", 0)


def test_closed_without_a_word(opened):
    """A peer that only closed sent no bytes: the end of the stream is none."""
    _, client, accepted = connected(opened)
    accepted.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    seen = look_at(client)
    assert (seen.state, seen.receive_queue, seen.received_bytes, seen.last_received_ago_ms) == ("close-wait", 1, 0, None)


def test_a_peer_that_does_not_read(opened):
    """What the peer leaves unread fills its queue and then ours; nothing of it is a repeat."""
    _, client, accepted = connected(opened)
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(b"x" * 65536)
    time.sleep(0.1)
    ours, theirs = look_at(client), look_at(accepted)
    assert ours.send_queue > 0
    assert theirs.receive_queue > 0
    assert (ours.retransmits, ours.unacknowledged_ms) == (0, None)


@pytest.mark.parametrize(
    ("address", "family", "shown"), [("::1", socket.AF_INET6, "[::1]"), ("::", socket.AF_INET6, "127.0.0.1")]
)
def test_ipv6_and_what_it_maps(opened, address, family, shown):
    """An IPv6 connection, and a server of IPv6 with a client of IPv4: both ends show the same addresses and find each other."""
    listening, client, accepted = connected(opened, address, family)
    ours, theirs = look_at(client), look_at(accepted)
    assert ours.peer == theirs.local == f"{shown}:{listening.getsockname()[1]}"
    assert (theirs.family, theirs.accepted, ours.accepted) == ("inet6", True, False)
    assert (ours.peer_inode, theirs.peer_inode) == (inode_of(accepted), inode_of(client))


def test_connected_udp(opened):
    """A connected UDP socket is told with its peer; one that is not connected is no conversation."""
    server = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))
    client = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.connect(server.getsockname())
    seen = look_at(client)
    assert (seen.kind, seen.state, seen.peer) == ("udp", "established", f"127.0.0.1:{server.getsockname()[1]}")
    assert seen.sent_bytes is None
    assert read_sockets(os.getpid(), {inode_of(server)}) == ()


@contextlib.contextmanager
def victim(code: str, *arguments: str, namespace: str | None = None, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A Python program that has printed a line and then sleeps; it ends itself, and at the end of the block in any case."""
    code = f"import signal; signal.alarm({VICTIM_LIMIT_S})\n{code}\nprint(flush=True)\nsignal.pause()"
    command = [sys.executable, "-c", code, *arguments]
    if namespace is not None:
        command = ["ip", "netns", "exec", namespace, *command]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "\n"
        yield running
    finally:
        running.kill()
        running.communicate()


def holders_of(inodes: set[int]) -> dict[int, Holder]:
    """Who has these sockets open: every process's descriptors."""
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            target = link.readlink().name
            inode = int(target[8:-1]) if target.startswith("socket:[") else None
            if inode in inodes:
                found[inode] = Holder(pid=int(link.parts[2]), comm=Path("/proc", link.parts[2], "comm").read_text().strip())
    return found


def peers_named(sockets: tuple[Socket, ...]) -> tuple[Socket, ...]:
    peers = peer_inodes(sockets)
    held = holders_of(set(peers.values()))
    return with_holders(sockets, {inode: held[peer] for inode, peer in peers.items() if peer in held})


def test_the_process_at_the_other_end_of_a_unix_pair(opened):
    """The peer of a unix stream pair is named by its process, and what it has not read stands in our queue."""
    ours, theirs = socket.socketpair()
    opened.enter_context(ours)
    with theirs, victim("", pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        ours.sendall(b"x" * 100)
        (seen,) = peers_named(read_sockets(os.getpid(), {inode_of(ours)}))
        assert (seen.kind, seen.state, seen.peer_holder.pid) == ("unix", "established", child.pid)
        assert seen.send_queue >= 100
        (mirror,) = read_sockets(child.pid, {seen.peer_inode})
        assert mirror.receive_queue == 100
    assert (look_at(ours).state, look_at(ours).peer_inode) == ("close-wait", None)


def test_a_unix_server(opened, tmp_path):
    """By path: who waits to be accepted, who was, and what each is called."""
    path = str(tmp_path / "model.sock")
    listening = opened.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(path)
    listening.listen(5)
    first, second = (opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
    first.connect(path)
    accepted = opened.enter_context(listening.accept()[0])
    second.connect(path)
    assert (look_at(listening).state, look_at(listening).receive_queue) == ("listen", 1)
    assert (look_at(first).peer, look_at(first).peer_inode, look_at(first).accepted) == (path, inode_of(accepted), False)
    assert (look_at(accepted).local, look_at(accepted).accepted) == (path, True)
    assert (look_at(second).peer, look_at(second).peer_inode) == (path, inode_of(listening))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: 10.99.0.1 in the first, 10.99.0.2 in the second; 10.99.0.3 is nobody."""
    stem = f"agsc-{os.getpid()}-{next(_numbers)}"
    here, there = f"{stem}-a", f"{stem}-b"
    try:
        for name in (here, there):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            # a namespace begins with what the machine does; a forwarder would say that nobody is there
            ip("netns", "exec", name, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        ip(
            "-n",
            here,
            "link",
            "add",
            "va",
            "address",
            "02:00:00:00:00:01",
            "type",
            "veth",
            "peer",
            "name",
            "vb",
            "netns",
            there,
        )
        ip("-n", there, "link", "set", "vb", "address", "02:00:00:00:00:02")
        for name, device, address, others in ((here, "va", 1, (2, 3)), (there, "vb", 2, (1,))):
            ip("-n", name, "addr", "add", f"10.99.0.{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            for other in others:  # so that no address has to be asked for: what nobody takes is lost in silence
                hardware = "02:00:00:00:00:01" if other == 1 else "02:00:00:00:00:02"
                ip("-n", name, "neigh", "add", f"10.99.0.{other}", "lladdr", hardware, "dev", device, "nud", "permanent")
        yield here, there
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


def namespaces_of_threads() -> set[str]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.add(str((task / "ns/net").readlink()))
    return found


def assert_threads_are_only_in(namespaces: set[str]) -> None:
    """The thread that asked is gone, or goes within a second: the kernel may be a moment behind Python's join."""
    assert str(Path("/proc/thread-self/ns/net").readlink()) in namespaces
    until = time.monotonic() + 1
    while namespaces_of_threads() != namespaces and time.monotonic() < until:
        time.sleep(0.01)
    assert namespaces_of_threads() == namespaces


def of_namespace(running: subprocess.Popen[str]) -> tuple[Socket, ...]:
    """The TCP sockets of a victim's namespace; none of our threads is left there."""
    before = namespaces_of_threads()
    found = read_sockets(running.pid)
    assert not isinstance(found, MissingEvidence), found
    assert_threads_are_only_in(before)
    return tuple(each for each in found if each.kind == "tcp")


CLIENT = """
import socket, sys
c = socket.socket(); c.setblocking(False); c.connect_ex((sys.argv[1], 8080))
"""


def test_a_black_hole(networks):
    """A connection to an address where nothing answers: syn-sent, its repeats, and for how long."""
    started = time.monotonic()
    with victim(CLIENT, "10.99.0.3", namespace=networks[0]) as running:
        time.sleep(3.5)
        (seen,) = of_namespace(running)
        within_ms = (time.monotonic() - started) * 1000
    assert (seen.state, seen.peer, seen.peer_inode) == ("syn-sent", "10.99.0.3:8080", None)
    assert seen.retransmits >= 2
    assert 3400 <= seen.unacknowledged_ms <= within_ms
    assert (seen.sent_bytes, seen.last_sent_ago_ms, seen.last_received_ago_ms) == (0, None, None)


SERVER = """
import socket, threading
s = socket.create_server(("0.0.0.0", 8080))
kept = []
threading.Thread(target=lambda: kept.append(s.accept()[0]), daemon=True).start()
"""
TALKER = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], 8080), 5); c.sendall(b"hello"); time.sleep(0.2)
import threading
def later():
    sys.stdin.readline(); c.sendall(b"x" * 100)
threading.Thread(target=later, daemon=True).start()
"""


def test_a_peer_that_vanished(networks):
    """The peer's address is taken away in mid-conversation: bytes stay unacknowledged, and are repeated."""
    here, there = networks
    with victim(SERVER, namespace=there), victim(TALKER, "10.99.0.2", namespace=here, stdin=subprocess.PIPE) as talker:
        (before,) = of_namespace(talker)
        assert (before.state, before.sent_bytes, before.retransmits, before.send_queue) == ("established", 5, 0, 0)
        ip("-n", there, "addr", "del", "10.99.0.2/24", "dev", "vb")
        assert talker.stdin is not None
        started = time.monotonic()
        talker.stdin.write("\n")
        talker.stdin.flush()
        time.sleep(3)
        (after,) = of_namespace(talker)
        within_ms = (time.monotonic() - started) * 1000
    assert (after.state, after.send_queue, after.sent_bytes) == ("established", 100, 105)
    assert after.retransmits >= 3
    assert 2300 <= after.unacknowledged_ms <= within_ms
    assert after.last_sent_ago_ms < after.unacknowledged_ms  # a repeat is younger than what it repeats


def test_another_namespace_is_read_and_left(networks):
    """Of a process elsewhere its own namespace is read, not ours, and no thread of ours stays there: nor when asking fails."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 8080), backlog=9); c = socket.create_connection(('127.0.0.1', 8080))"
    with victim(code, namespace=networks[0]) as running, socket.create_server(("127.0.0.1", 0)) as ours:
        seen = of_namespace(running)
        assert {(each.state, each.local == "127.0.0.1:8080") for each in seen} == {("listen", True), ("established", False)}
        assert inode_of(ours) not in {each.inode for each in seen}
        before = namespaces_of_threads()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_sock_diag, "_dump_all", refused)
            missing = read_sockets(running.pid)
        assert (missing.kind, missing.because) == ("sockets", "the kernel does not tell them: No such file or directory")
        assert_threads_are_only_in(before)


def refused(*_anything):
    raise OSError(2, os.strerror(2))


def test_without_the_right_to_enter_there_is_a_reason(networks):
    """Another user may not enter the namespace of a process that is not his: missing, with the reason."""
    _sock_diag.dump_namespace(os.getpid())  # imports what an unprivileged user may not be able to read
    with victim("", namespace=networks[0]) as running:
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            os.write(writable, repr([read_sockets(running.pid), read_sockets(1)]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        said = os.read(readable, 4096).decode()
        os.close(readable)
        os.close(writable)
    assert said.count("MissingEvidence(kind='sockets', because='its network namespace may not be entered (needs root)')") == 2


def test_a_process_that_has_ended_has_no_namespace():
    """A zombie: its sockets are missing, because it has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    time.sleep(0.1)
    try:
        assert read_sockets(child) == MissingEvidence(kind="sockets", because="the process has ended")
    finally:
        os.waitpid(child, 0)


def test_too_many_sockets_are_read_in_part(opened, monkeypatch):
    """The number of rows is bounded, and what is lacking is said."""
    connected(opened)
    monkeypatch.setattr(_sock_diag, "_ROW_LIMIT", 1)
    table = read_socket_table(os.getpid())
    assert any("in part" in lack for lack in table.lacks)
    monkeypatch.undo()
    assert read_socket_table(os.getpid()).lacks == ()


def test_it_says_the_same_as_another_reader(opened):
    """pyroute2 decodes the whole row by its own tables: state, queues and tcp_info of both ends agree."""
    _, client, accepted = connected(opened)
    client.sendall(b"q" * 70)
    accepted.sendall(b"a" * 30)
    accepted.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    diag = _sock_diag._pyroute2_diag()
    with diag.DiagSocket() as asked:
        asked.bind()
        rows = {row["idiag_inode"]: row for row in asked.get_sock_stats(family=socket.AF_INET, extensions=2)}
    for end in (client, accepted):
        ours, row = look_at(end), rows[inode_of(end)]
        info = row.get_attr("INET_DIAG_INFO")
        assert (ours.local, ours.peer) == tuple(f"{row[f'idiag_{side}']}:{row[f'idiag_{port}']}" for side, port in PAIRS)
        assert (ours.receive_queue, ours.send_queue) == (row["idiag_rqueue"], row["idiag_wqueue"])
        counted = info["tcpi_bytes_received"] - (ours.state == "close-wait")  # the end of the stream is no byte
        assert (ours.sent_bytes, ours.received_bytes) == (info["tcpi_bytes_sent"], counted)
        assert abs(ours.last_received_ago_ms - info["tcpi_last_data_recv"]) < 1000
        assert ours.state == {1: "established", 5: "fin-wait-2", 8: "close-wait"}[row["idiag_state"]]


PAIRS = (("src", "sport"), ("dst", "dport"))


def test_a_reset_connection_is_not_there_any_more(opened):
    """After a reset the kernel forgets the socket: it is left out, which is no error."""
    _, client, accepted = connected(opened)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    time.sleep(0.05)
    assert read_sockets(os.getpid(), {inode_of(client)}) == ()
