"""Asking agents of other users: with whose rights a command runs, whose files and messages are believed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope import commands
from agentscope.agents import start_ns_of
from agentscope.errors import CannotWrite
from agentscope.model import Agent
from agentscope.sources.notify import NotifySocket
from agentscope.sources.progress import touched
from tests.asking import Reporter, Stage, agent_of, facts, until

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a short path that anybody can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_whose_rights_a_command_has():
    """A command runs as the agent's user; under a config that is not root's, as that one's owner, and never as root."""
    child = subprocess.Popen(["sleep", "20"], user=65534, group=65534, extra_groups=[100])
    try:
        for _ in range(100):
            if (Path(f"/proc/{child.pid}/comm").read_text()) == "sleep\n":
                break
            time.sleep(0.01)
        theirs = Agent(
            name="a", pid=child.pid, start_ns=start_ns_of(child.pid) or 0, start_time="", command="x", uid=0
        )  # it was root when it was started, and is no more
        assert commands.identity_for(theirs, 0) == commands.Identity(uid=65534, gid=65534, groups=(100,))
        assert commands.identity_for(theirs, 65534) == commands.Identity(uid=65534, gid=65534, groups=(100,))
        assert commands.identity_for(theirs, 1) == commands.Identity(uid=1, gid=commands.gid_of(1))
        assert commands.identity_for(agent_of(os.getpid()), 0) == commands.identity_of(agent_of(os.getpid()))
        roots = commands.identity_for(agent_of(os.getpid()), 1)
        assert roots is not None
        assert roots.uid == 1
        ran = commands.run_command(
            ("/bin/sh", "-c", "id -u; id -g; id -G; grep CapEff /proc/self/status"), commands.identity_for(theirs, 0), {}, 5
        )
        assert ran.output.split() == [b"65534", b"65534", b"65534", b"100", b"CapEff:", b"0000000000000000"]
    finally:
        child.kill()
        child.wait()


def test_a_pid_that_is_anothers_now():
    """If the agent's number belongs to a later process, its user is not taken for the agent's."""
    former = Agent(name="a", pid=os.getpid(), start_ns=1, start_time="", command="x", uid=65534)
    assert commands.identity_of(former) == commands.Identity(uid=65534, gid=commands.gid_of(65534))
    nobodys = Agent(name="a", pid=os.getpid(), start_ns=1, start_time="", command="x")
    assert commands.identity_of(nobodys).uid == commands.NOBODY


def test_a_heartbeat_of_a_stranger(tmp_path):
    """A file counts if it is the agent's or root's; anybody else's is refused."""
    beat = tmp_path / "beat"
    beat.touch()
    assert touched(str(beat), agent_of(os.getpid(), 65534)) == beat.stat().st_mtime_ns
    os.chown(beat, 65534, 65534)
    assert touched(str(beat), agent_of(os.getpid(), 65534)) == beat.stat().st_mtime_ns
    os.chown(beat, 1234, 1234)
    with pytest.raises(OSError, match="1234"):
        touched(str(beat), agent_of(os.getpid(), 65534))


def test_a_heartbeat_in_the_agents_root(tmp_path):
    """The path is the agent's: inside its root, where a link to the outside leads nowhere."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "beat").touch()
    (tmp_path / "out").symlink_to("/etc")
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os,time; os.chroot({str(tmp_path)!r}); os.chdir('/'); print(flush=True); time.sleep(30)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert touched("/run/beat", agent_of(child.pid)) == (tmp_path / "run" / "beat").stat().st_mtime_ns
        for path in ("/out/passwd", "/../../../etc/passwd", "/etc/passwd"):
            with pytest.raises(FileNotFoundError):
                touched(path, agent_of(child.pid))
    finally:
        child.kill()
        child.wait()


async def test_who_may_write_to_the_socket(state):
    """The socket is for its agent's user alone: that one reaches it, others do not, and its folder cannot be listed."""
    stage = Stage(state)
    found = facts(stage.path)
    assert (found.st_mode & 0o777, found.st_uid) == (0o600, 0)
    assert (state / "notify").stat().st_mode & 0o777 == 0o711
    theirs, others = Reporter(stage.path, 65534), Reporter(stage.path, 65533)
    try:
        agent = stage.adopt(theirs.pid, 65534)
        found = facts(stage.path)
        assert (found.st_mode & 0o777, found.st_uid) == (0o600, 65534)
        theirs.send("WATCHDOG=1")
        await until(lambda: stage.ago(agent) is not None)
        stage.members[others.pid] = agent
        with pytest.raises(AssertionError):
            others.send("WATCHDOG=1")
        second = stage.adopt(others.pid, 65533)
        assert "belongs to uid 65534" in stage.says(second)
        stage.probes.gone(agent)
        stage.probes.gone(second)
        third = stage.adopt(others.pid, 65533)
        assert "belongs" not in stage.says(third)
        assert facts(stage.path).st_uid == 65533
    finally:
        theirs.end()
        others.end()
        stage.probes.close()


async def test_a_folder_that_the_agent_cannot_reach(state):
    """If a folder above the socket is closed to the agent's user that is said, and its silence is not held against it."""
    closed = state / "closed"
    closed.mkdir(mode=0o700)
    stage = Stage(closed)
    child = subprocess.Popen(["sleep", "20"], user=65534)  # noqa: ASYNC220 - starting it is all
    try:
        agent = stage.adopt(child.pid, 65534)
        found = stage.probes.progress_of(agent, time.clock_gettime_ns(7) + 10**12)
        assert not found.overdue
        assert f"{closed} is closed" in found.says
    finally:
        child.kill()
        child.wait()
        stage.probes.close()


def test_a_folder_that_others_may_write(state):
    """A folder in which others could exchange the socket is not used, nor one that is a link."""
    (state / "notify").mkdir()
    (state / "notify").chmod(0o777)
    with pytest.raises(CannotWrite, match="others may write"):
        NotifySocket(state / "notify", "a").open()
    (state / "theirs").mkdir()
    os.chown(state / "theirs", 65534, -1)
    with pytest.raises(CannotWrite, match="others may write"):
        NotifySocket(state / "theirs", "a").open()
    (state / "link").symlink_to(state / "theirs")
    with pytest.raises(CannotWrite):
        NotifySocket(state / "link", "a").open()
    with pytest.raises(CannotWrite, match="107 bytes"):
        NotifySocket(state / ("x" * 110), "a").open()
