"""Ending a living agent with all that it started: real processes that ignore, hide, multiply, are stopped, frozen or cannot die."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope.agents import start_ns_of
from agentscope.stopping import Stopped, is_living, stop

HEAD = "import os, signal, socket, sys, time\nsignal.alarm(60)\n"
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
SAY = "print(os.getpid(), flush=True)\n"
SLEEP = "time.sleep(60)\n"
LISTEN = (
    "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', int(sys.argv[1])));"
    " s.listen(); print(os.getpid(), flush=True); signal.alarm(60); time.sleep(60)\n"
)
V2 = next((path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if (path / "cgroup.procs").exists()), None)
FREEZER = Path("/sys/fs/cgroup/freezer")
PIDS = Path("/sys/fs/cgroup/pids")


class Victims:
    """Processes of one test; whatever is left of them is ended by number and start time when it is over."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.known: dict[int, int] = {}
        self.folders: list[Path] = []

    def start(self, code: str, *words: str, own_session: bool = False, into: Path | None = None) -> subprocess.Popen[str]:
        """Run Python code; it prints the pid of each process that matters, one a line."""
        join = f"open({str(into / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n" if into is not None else ""
        started = subprocess.Popen(
            [sys.executable, "-c", HEAD + join + code, *words],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=own_session,
        )
        self.started.append(started)
        return started

    def pid(self, started: subprocess.Popen[str]) -> int:
        """The next pid that it prints."""
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        start_ns = start_ns_of(pid)
        assert start_ns is not None
        self.known[pid] = start_ns
        return pid

    def identity(self, pid: int) -> tuple[int, int]:
        """Pid and start time."""
        return pid, self.known[pid]

    def group(self, root: Path, name: str) -> Path:
        """A cgroup of this test."""
        folder = root / f"stopping-{os.getpid()}-{name}"
        folder.mkdir()
        self.folders.append(folder)
        return folder

    def lives(self, pid: int) -> bool:
        """Whether one of ours still runs."""
        return is_living(pid, self.known[pid])

    def close(self) -> None:
        """End what is left."""
        for folder in self.folders:
            for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
                with contextlib.suppress(OSError):
                    if (folder / name).exists():
                        (folder / name).write_text(text)
        for pid, start_ns in self.known.items():
            if is_living(pid, start_ns):
                os.kill(pid, signal.SIGKILL)
        for started in self.started:
            started.kill()
            started.wait(5)
        for folder in self.folders:
            for _ in range(100):
                for pid in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.02)


@pytest.fixture
def victims() -> Iterator[Victims]:
    """Processes that are gone after the test."""
    made = Victims()
    yield made
    made.close()


def how(stopped: Stopped, pid: int) -> str | None:
    """By what a process was ended."""
    return next((gone.how for gone in stopped.ended if gone.pid == pid), None)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def can_listen(port: int) -> bool:
    """Whether the port is free for a new instance."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


@pytest.mark.live
def test_one_that_listens_to_sigterm_is_not_killed(victims: Victims) -> None:
    """A process that ends at SIGTERM has ended by it, at once, however long the grace."""
    pid = victims.pid(victims.start(SAY + SLEEP))
    stopped = stop(victims.identity(pid), 20.0)
    assert how(stopped, pid) == "SIGTERM"
    assert stopped.left == ()
    assert stopped.took_s < 2
    assert f"({pid}) was ended by SIGTERM" in stopped.says


@pytest.mark.live
def test_one_that_ignores_sigterm_is_killed_after_the_grace(victims: Victims) -> None:
    """SIGKILL comes after the grace, and not before."""
    pid = victims.pid(victims.start(IGNORE + SAY + SLEEP))
    stopped = stop(victims.identity(pid), 0.7)
    assert how(stopped, pid) == "SIGKILL"
    assert 0.7 <= stopped.took_s < 3
    assert not victims.lives(pid)


@pytest.mark.live
def test_without_asking_no_sigterm_is_sent(victims: Victims) -> None:
    """Where a supervisor has asked already, the process has the grace to itself and is asked no second time."""
    code = "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
    started = victims.start(code + SAY + SLEEP)
    pid = victims.pid(started)
    assert how(stop(victims.identity(pid), 0.3, ask=lambda: None), pid) == "SIGKILL"
    assert started.wait(5) == -signal.SIGKILL


@pytest.mark.live
def test_a_grandchild_in_a_session_of_its_own_gives_back_the_port(victims: Victims) -> None:
    """A listener that a child put into another session ends with the agent, and its port can be taken at once."""
    port = free_port()
    code = (
        IGNORE
        + "if os.fork() == 0:\n    if os.fork() == 0:\n        os.setsid()\n        "
        + LISTEN
        + "    time.sleep(60)\n"
        + "time.sleep(0.3)\n"
        + SAY
        + SLEEP
    )
    started = victims.start(code, str(port))
    grandchild, pid = victims.pid(started), victims.pid(started)
    assert not can_listen(port)
    stopped = stop(victims.identity(pid), 0.3)
    assert stopped.left == ()
    assert len(stopped.ended) == 3
    assert not victims.lives(grandchild)
    assert can_listen(port)


@pytest.mark.live
@pytest.mark.parametrize("root_first", [False, True])
def test_a_daemonised_listener_is_found_by_birth(victims: Victims, root_first: bool) -> None:
    """One that forked twice and left the session belongs to somebody else in /proc: the birth tree of the caller knows it."""
    port = free_port()
    code = (
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        "
        + IGNORE.strip()
        + "; "
        + LISTEN
        + "    os._exit(0)\n"
        + "os.wait()\ntime.sleep(0.3)\n"
        + SAY
        + SLEEP
    )
    started = victims.start(code, str(port))
    daemon, pid = victims.pid(started), victims.pid(started)
    if root_first:  # it crashed: what it left behind is ended all the same, with no grace for nobody
        os.kill(pid, signal.SIGKILL)
        started.wait(5)
    stopped = stop(victims.identity(pid), 10.0, lambda: [victims.identity(daemon)])
    assert how(stopped, daemon) == "SIGKILL"
    assert stopped.took_s < 5
    assert can_listen(port)


@pytest.mark.live
def test_a_daemonised_listener_is_found_by_the_session(victims: Victims) -> None:
    """Without a birth tree, one that forked twice but stayed in the agent's own session is found by that."""
    port = free_port()
    code = (
        "if os.fork() == 0:\n    if os.fork() == 0:\n        " + LISTEN + "    os._exit(0)\n" + "os.wait()\ntime.sleep(0.3)\n"
    )
    started = victims.start(code + SAY + SLEEP, str(port), own_session=True)
    daemon, pid = victims.pid(started), victims.pid(started)
    stopped = stop(victims.identity(pid), 5.0)
    assert not victims.lives(daemon)
    assert {gone.pid for gone in stopped.ended} == {pid, daemon}
    assert can_listen(port)


@pytest.mark.live
def test_children_started_while_it_is_ended_are_ended_too(victims: Victims) -> None:
    """A process that answers SIGTERM by starting more, and ends, leaves none of them."""
    code = (
        "def more(*_):\n"
        "    for _ in range(5):\n"
        "        if os.fork() == 0:\n"
        "            signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60); os._exit(0)\n"
        "    time.sleep(1.2); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, more)\n"
    )
    started = victims.start(code + SAY + SLEEP)
    pid = victims.pid(started)
    stopped = stop(victims.identity(pid), 5.0)
    assert how(stopped, pid) == "SIGTERM"
    assert len(stopped.ended) == 6
    assert stopped.left == ()


@pytest.mark.live
def test_a_fork_bomb_leaves_nobody(victims: Victims, root: None) -> None:
    """Processes that replace each other as fast as they can, up to 30 at once, are all ended."""
    if not PIDS.is_dir():
        pytest.skip("needs the pids controller of cgroup v1, so that the bomb is bounded")
    cage = victims.group(PIDS, "bomb")
    (cage / "pids.max").write_text("30")
    code = (
        IGNORE + SAY + "end = time.monotonic() + 50\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        if os.fork() == 0:\n            continue\n"
        "    except OSError:\n        time.sleep(0.001)\n"
        "        if os.getppid() == 1: pass\n"
        "    try:\n        os.waitpid(-1, os.WNOHANG)\n    except ChildProcessError:\n        pass\n"
    )
    pid = victims.pid(victims.start(code, into=cage))
    time.sleep(0.5)
    assert len((cage / "cgroup.procs").read_text().split()) > 10
    stopped = stop(victims.identity(pid), 0.2)
    assert stopped.left == ()
    assert (cage / "cgroup.procs").read_text() == ""
    assert stopped.took_s < 8


@pytest.mark.live
def test_a_stopped_tree_is_woken_to_hear_the_signal(victims: Victims) -> None:
    """Processes stopped by SIGSTOP end by SIGTERM, in their own handler, as soon as they are woken."""
    code = (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\nif os.fork() == 0:\n    " + SAY.strip() + "; time.sleep(60)\n"
    )
    started = victims.start(code + "time.sleep(0.2)\n" + SAY + SLEEP)
    child, pid = victims.pid(started), victims.pid(started)
    for each in (pid, child):
        os.kill(each, signal.SIGSTOP)
    stopped = stop(victims.identity(pid), 10.0)
    assert started.wait(5) == 7
    assert stopped.took_s < 4
    assert not victims.lives(child)


@pytest.mark.live
@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_agent_is_thawed_to_hear_the_signal(victims: Victims, root: None, version: int) -> None:
    """An agent in a frozen cgroup of its own is thawed and ends by SIGTERM."""
    cage = frozen_cage(victims, version, "own")
    started = victims.start("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n" + SAY + SLEEP, into=cage)
    pid = victims.pid(started)
    freeze(cage, version)
    stopped = stop(victims.identity(pid), 10.0)
    assert started.wait(5) == 7
    assert stopped.took_s < 3


@pytest.mark.live
@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_cgroup_that_others_share_stays_frozen(victims: Victims, root: None, version: int) -> None:
    """A stranger in the same frozen cgroup is neither thawed nor ended; under version 1 the agent is said to be left for that reason."""
    cage = frozen_cage(victims, version, "shared")
    pid = victims.pid(victims.start(SAY + SLEEP, into=cage))
    stranger = victims.pid(victims.start(SAY + SLEEP, into=cage))
    freeze(cage, version)
    stopped = stop(victims.identity(pid), 0.3)
    assert victims.lives(stranger)
    assert stopped.took_s < 6
    if version == 1:
        assert (cage / "freezer.state").read_text().strip() == "FROZEN"
        assert [left.pid for left in stopped.left] == [pid]
        assert "frozen cgroup that others share" in stopped.says
    else:
        assert "frozen 1" in (cage / "cgroup.events").read_text()
        assert not victims.lives(pid)


@pytest.mark.live
def test_a_stranger_in_the_cgroup_is_not_touched(victims: Victims, root: None) -> None:
    """A cgroup that holds somebody else is not killed as a whole."""
    if V2 is None:
        pytest.skip("needs a cgroup hierarchy of version 2")
    cage = victims.group(V2, "mixed")
    pid = victims.pid(victims.start(IGNORE + SAY + SLEEP, into=cage))
    stranger = victims.pid(victims.start(SAY + SLEEP, into=cage))
    stop(victims.identity(pid), 0.2)
    assert not victims.lives(pid)
    assert victims.lives(stranger)


@pytest.mark.live
def test_a_unit_is_ended_whole(victims: Victims, root: None) -> None:
    """In the cgroup of a service whose first process the agent is, even a daemonised child that nobody knew of is ended."""
    if V2 is None:
        pytest.skip("needs a cgroup hierarchy of version 2")
    cage = victims.group(V2, "agent.service")
    port = free_port()
    code = "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        " + LISTEN + "    os._exit(0)\n"
    started = victims.start(code + "os.wait()\ntime.sleep(0.3)\n" + IGNORE + SAY + SLEEP, str(port), into=cage)
    daemon, pid = victims.pid(started), victims.pid(started)
    stopped = stop(victims.identity(pid), 0.2)
    assert how(stopped, daemon) == "SIGKILL"
    assert can_listen(port)


@pytest.mark.live
def test_a_number_that_is_anothers_by_now_is_not_touched(victims: Victims) -> None:
    """The same pid with another start time is another process."""
    pid = victims.pid(victims.start(SAY + SLEEP))
    stopped = stop((pid, victims.known[pid] - 5_000_000_000), 0.2)
    assert stopped.ended == ()
    assert victims.lives(pid)


@pytest.mark.live
def test_what_we_run_under_is_refused() -> None:
    """An agent under which agentscope itself runs is left alone, and that is said."""
    parent = os.getppid()
    start_ns = start_ns_of(parent)
    assert start_ns is not None
    stopped = stop((parent, start_ns), 0.2)
    assert stopped.ended == ()
    assert "itself runs under it" in stopped.says


@pytest.mark.live
def test_a_users_config_ends_no_process_of_another(victims: Victims, root: None) -> None:
    """What is asked for in the name of a user is done to that user's processes only."""
    pid = victims.pid(victims.start(SAY + SLEEP))
    stopped = stop(victims.identity(pid), 0.2, as_uid=12345)
    assert victims.lives(pid)
    assert [left.pid for left in stopped.left] == [pid]
    assert "another user's" in stopped.left[0].why


@pytest.mark.live
def test_one_that_cannot_be_killed_is_said(victims: Victims, root: None, tmp_path: Path) -> None:
    """A process in an uninterruptible wait (a frozen file system) is told as left, with the reason, within seconds."""
    if any(shutil.which(tool) is None for tool in ("mkfs.ext4", "fsfreeze", "unshare")):
        pytest.skip("needs mkfs.ext4, fsfreeze and unshare")
    disk, place = tmp_path / "disk", tmp_path / "m"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=False).returncode:
        pytest.skip("no loop device can be mounted here")
    try:
        subprocess.run(["fsfreeze", "-f", str(place)], check=True)
        pid = victims.pid(victims.start(SAY + f"open({str(place / 'x')!r}, 'w').write('x')\n"))
        time.sleep(0.3)
        stopped = stop(victims.identity(pid), 0.2)
        assert [left.pid for left in stopped.left] == [pid]
        assert "uninterruptible wait" in stopped.says
        assert stopped.took_s < 4
    finally:
        subprocess.run(["fsfreeze", "-u", str(place)], check=False)
        time.sleep(0.2)
        subprocess.run(["umount", "-l", str(place)], check=False)
    for _ in range(100):
        if not victims.lives(pid):
            break
        time.sleep(0.05)
    assert not victims.lives(pid)


def frozen_cage(victims: Victims, version: int, name: str) -> Path:
    """A cgroup that can be frozen."""
    place = FREEZER if version == 1 else V2
    if place is None or not place.is_dir():
        pytest.skip(f"no freezer of cgroup version {version} here")
    return victims.group(place, name)


def freeze(cage: Path, version: int) -> None:
    """Freeze everything in it, and see that it is."""
    (cage / ("freezer.state" if version == 1 else "cgroup.freeze")).write_text("FROZEN" if version == 1 else "1")
    for _ in range(100):
        if version == 1 and (cage / "freezer.state").read_text().strip() == "FROZEN":
            return
        if version == 2 and "frozen 1" in (cage / "cgroup.events").read_text():
            return
        time.sleep(0.02)
    pytest.fail("it did not freeze")
