"""The engines without probes, asked directly: what they tell of real processes, and that they say what they have lost."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from agentscope.errors import EngineUnavailable, NotPermitted
from agentscope.model import AnyEvent, Lost, ProcessExec, ProcessExit, ProcessFork
from agentscope.sources.netlink import NetlinkEngine
from agentscope.sources.own import OwnEngine
from agentscope.sources.pidfds import open_pidfd, status_at_end
from agentscope.sources.unprobed import Unprobed

pytestmark = pytest.mark.live
NAMED = b"\xff\xfe\x1b[2J" + b"\x07x"
RENAMES = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, {NAMED!r}, 0, 0, 0)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def netlink() -> Iterator[NetlinkEngine]:
    """The engine, or a skip where this kernel or container tells nobody."""
    try:
        engine = NetlinkEngine()
    except (EngineUnavailable, NotPermitted) as error:
        pytest.skip(str(error))
    yield engine
    engine.close()


@pytest.fixture
def own() -> Iterator[OwnEngine]:
    """The engine that needs nothing."""
    engine = OwnEngine()
    yield engine
    engine.close()


def until(engine: Unprobed, wanted: Callable[[AnyEvent], bool], *, look: bool = False) -> list[AnyEvent]:
    """What it tells until something wanted is among it; twenty seconds are allowed for that."""
    seen: list[AnyEvent] = []
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at and not any(map(wanted, seen)):
        if look:
            engine.sample()
        select.select([engine.fileno()], [], [], 0.2)  # type: ignore[attr-defined]
        seen += engine.drain()  # type: ignore[attr-defined]
    return seen


def ends_of(events: Sequence[AnyEvent], pid: int) -> list[ProcessExit]:
    """The ends of this process among them."""
    return [event for event in events if isinstance(event, ProcessExit) and event.pid == pid]


def test_a_child_from_its_birth_to_its_end(netlink):
    """A fork, an exec and an end of a child are told in this order, with its words, its status and what it had used."""
    netlink.watch(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import time; sum(range(3_000_000)); time.sleep(0.5); raise SystemExit(7)"])
    events = until(netlink, lambda event: isinstance(event, ProcessExit) and event.pid == child.pid)
    child.wait(5)
    about = [event for event in events if getattr(event, "pid", None) == child.pid]
    assert [type(event) for event in about] == [ProcessFork, ProcessExec, ProcessExit]
    assert about[1].argv[0] == sys.executable
    end = about[2]
    assert (end.code, end.engine, end.start_ns, end.unseen) == (7, "netlink", about[0].start_ns, None)
    if os.geteuid() == 0:
        assert (end.user_ns or 0) > 0
        assert (end.max_rss_bytes or 0) > 1 << 20


def test_a_process_that_was_born_just_before_it_was_watched(netlink):
    """The message of its birth is read only after it was found in /proc: it is watched all the same."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    netlink.watch(child.pid)
    child.communicate(b"")
    events = until(netlink, lambda event: isinstance(event, ProcessExit))
    assert [end.code for end in ends_of(events, child.pid)] == [0]


def test_a_name_that_is_no_text(netlink):
    """A process may call itself anything: its end is told, with a name that can be shown."""
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read();" + RENAMES], stdin=subprocess.PIPE)
    netlink.watch(child.pid)
    child.communicate(b"")
    (end,) = ends_of(until(netlink, lambda event: isinstance(event, ProcessExit)), child.pid)
    assert end.signal == signal.SIGKILL
    end.comm.encode()
    assert "\ufffd" in end.comm


def test_who_was_not_asked_for_is_not_told(netlink):
    """Nobody else's processes are in what is told."""
    subprocess.run(["true"], check=True)
    time.sleep(0.1)
    assert not netlink.drain()


def test_what_did_not_fit_is_made_good(netlink):
    """Where messages were lost, it is said; who was started is found in /proc, and how one ended is asked of its pidfd."""
    netlink.watch(os.getpid())
    netlink._connector._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    gone = subprocess.Popen(["sh", "-c", "read _; exit 9"], stdin=subprocess.PIPE)
    netlink.watch(gone.pid)
    for _ in range(300):
        subprocess.run(["true"], check=True)
    stays = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    gone.stdin.write(b"\n")
    gone.stdin.close()
    while not select.select([descriptor := open_pidfd(gone.pid)], [], [], 5)[0]:
        os.close(descriptor)
    os.close(descriptor)
    events = until(netlink, lambda event: isinstance(event, Lost))
    stays.communicate(b"")
    assert gone.wait(5) == 9
    assert any(isinstance(event, Lost) and event.source == "netlink" for event in events)
    assert any(isinstance(event, ProcessExec) and event.pid == stays.pid for event in events)
    assert [end.code for end in ends_of(events, gone.pid)] == [9]


@pytest.mark.parametrize("reaped", [False, True])
def test_how_a_process_ended_is_known_of_its_pidfd(reaped):
    """Before and, since Linux 6.15, after its parent has read its status, it is known; where it is not, nothing is made up."""
    child = subprocess.Popen(["sh", "-c", "kill -9 $$"])
    descriptor = open_pidfd(child.pid)
    select.select([descriptor], [], [], 10)
    if reaped:
        child.wait(10)
    status = status_at_end(descriptor, child.pid)
    os.close(descriptor)
    child.wait(10)
    assert status in ({9, None} if reaped else {9})


def test_our_own_processes_without_any_privilege(own):
    """A child of what is watched is found within a look, told with its words, and its end with its status."""
    parent = subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo $!; read _; kill $!; wait; exit 5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child = int(parent.stdout.readline())
    own.watch(parent.pid)
    events = until(own, lambda event: isinstance(event, ProcessExec) and event.argv[:1] == ("sleep",), look=True)
    assert child in {event.pid for event in events}
    assert {sample.pid for sample in own.sample()} == {parent.pid, child}
    assert own.memory()[parent.pid] > 0
    parent.stdin.write(b"\n")
    parent.stdin.close()
    ends = until(own, lambda event: isinstance(event, ProcessExit) and event.pid == parent.pid)
    parent.wait(5)
    (end,) = ends_of(ends, parent.pid)
    assert (end.code, end.engine) == (5, "none") or end.unseen is not None


def test_new_processes_of_ours_are_discovered(own):
    """While targets are looked for by name, whatever of ours is new is told; what was there already, and what others run, is not."""
    there = subprocess.Popen(["sleep", "1000"])
    own.watch_discovered(True)
    new = subprocess.Popen(["sleep", "1001"])
    events = until(own, lambda event: isinstance(event, ProcessExec) and event.argv == ("sleep", "1001"), look=True)
    told = {event.pid for event in events if isinstance(event, ProcessExec)}
    for process in (there, new):
        process.kill()
        process.wait(5)
    assert new.pid in told
    assert there.pid not in told


def test_what_a_process_has_moved(netlink, tmp_path):
    """The bytes that a process has read and written are in its sample, so that a rule of progress has something to count."""
    child = subprocess.Popen(
        ["sh", "-c", f"echo 0123456789 >{tmp_path / 'out'}; echo done; read _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    netlink.watch(child.pid)
    (sample,) = netlink.sample()
    child.communicate(b"\n")
    assert sample.threads[0].written_bytes >= len("0123456789\n")
    assert Path(tmp_path / "out").exists()
