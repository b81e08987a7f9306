"""Rules of progress: what counts as a sign of life, what cannot be known, and who is believed."""

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope.config import AgentConfig, Config, HealthConfig, ProgressConfig
from agentscope.errors import CannotWrite
from agentscope.model import Agent, AnyEvent, Health, Lost
from agentscope.sources import progress
from agentscope.sources.active import Probes
from agentscope.sources.notify import NotifySocket, notice_of
from agentscope.sources.progress import CHECK_BYTES, ProgressRule, touched
from tests.asking import Reporter, Stage, agent_of, descriptors, facts, until

S = 1_000_000_000


def rule(signal: str, within_s: float = 30, **fields: object) -> ProgressRule:
    """A rule about this process that began ten seconds after boot."""
    asked = ProgressConfig(within_s=within_s, signal=signal, **fields)  # type: ignore[arg-type]
    return ProgressRule(agent_of(os.getpid()), asked, 10 * S)


def overdue(one: ProgressRule, second: float) -> tuple[float | None, bool]:
    """What it says at this second after boot."""
    state = one.state(int(second * S))
    return state.last_ago_s, state.overdue


# --- io and stdout: counted by others ---------------------------------------------------------------------------------------


def test_bytes_are_progress():
    """While bytes move it gets on; once they have not for longer than the rule allows it is overdue."""
    one = rule("io")
    for second in range(10, 20):
        one.moved(1000 * second, second * S)
    for second in range(20, 52):
        one.moved(19_000, second * S)
        assert overdue(one, second) == (second - 19, second - 19 > 30)


def test_no_byte_ever():
    """An agent that never moves a byte is overdue when the rule has been kept for its time, not before."""
    one = rule("io")
    for second in range(10, 42):
        one.moved(5, second * S)
        assert overdue(one, second) == (None, second > 40)


def test_a_child_that_ends_is_no_progress():
    """The count falls when a child takes its share along: that is no sign, and what the rest moves after it is one."""
    one = rule("io")
    one.moved(10_000, 10 * S)
    one.moved(4_000, 11 * S)
    assert overdue(one, 12) == (None, False)
    one.moved(4_001, 13 * S)
    assert overdue(one, 14) == (1, False)


def test_a_health_check_is_no_progress():
    """What a health check makes an agent read and write does not count; what is more than that does."""
    one = rule("io")
    one.moved(500 * 10, 10 * S)
    for second in range(11, 45):
        one.moved(500 * second, second * S, checked=True)
    assert overdue(one, 44) == (None, True)
    one.moved(500 * 44 + CHECK_BYTES + 1, 45 * S, checked=True)
    assert overdue(one, 45) == (0, False)


def test_what_was_not_counted_is_not_known():
    """Without numbers, or with old ones only, nothing is known and nobody is overdue."""
    one = rule("io")
    state = one.state(500 * S)
    assert (state.last_ago_s, state.overdue) == (None, False)
    assert state.says
    one.moved(1, 501 * S)
    one.moved(1, 502 * S)
    assert overdue(one, 503) == (None, True)
    assert overdue(one, 520) == (None, False)


def test_words_are_progress():
    """A write to standard output is a sign at the time it was made; none at all is overdue in the end."""
    one = rule("stdout", 5)
    one.wrote(None, 12 * S)
    assert overdue(one, 12) == (None, False)
    one.wrote(13 * S, 14 * S)
    assert overdue(one, 14) == (1, False)
    one.wrote(13 * S, 19 * S)
    assert overdue(one, 19) == (6, True)


def test_old_words_do_not_hurry():
    """What was written long before the rule began does not make an agent overdue at once."""
    one = rule("stdout", 5)
    one.wrote(1 * S, 11 * S)
    assert overdue(one, 12) == (11, False)


def test_a_suspended_machine(monkeypatch):
    """Hours in which the machine slept are not held against an agent."""
    slept = [0]
    monkeypatch.setattr(progress, "suspended_ns", lambda: slept[0])
    one = rule("stdout", 5)
    one.wrote(12 * S, 12 * S)
    slept[0] = 3600 * S
    one.wrote(12 * S, 3614 * S)
    assert overdue(one, 3614)[1] is False
    one.wrote(12 * S, 3618 * S)
    assert overdue(one, 3618)[1] is True


# --- heartbeat files ----------------------------------------------------------------------------------------------------------


async def test_a_heartbeat(tmp_path):
    """A file that is touched shows progress; one that is not touched any more is overdue."""
    beat = tmp_path / "beat"
    beat.touch()
    one = ProgressRule(
        agent_of(os.getpid()), ProgressConfig(within_s=1, signal="heartbeat-file", path=str(beat)), time.clock_gettime_ns(7)
    )
    one.start()
    try:
        for _ in range(8):
            beat.touch()
            await asyncio.sleep(0.2)
            assert not one.state(time.clock_gettime_ns(7)).overdue
        await until(lambda: one.state(time.clock_gettime_ns(7)).overdue)
        ago_s = one.state(time.clock_gettime_ns(7)).last_ago_s
        assert ago_s is not None
        assert 1 <= ago_s < 2
        beat.touch()
        await until(lambda: not one.state(time.clock_gettime_ns(7)).overdue)
    finally:
        one.close()


async def test_a_heartbeat_that_never_comes(tmp_path):
    """A file that is not there is the agent's to make: it is overdue after its time, and the file is named."""
    one = ProgressRule(
        agent_of(os.getpid()),
        ProgressConfig(within_s=1, signal="heartbeat-file", path=str(tmp_path / "none")),
        time.clock_gettime_ns(7),
    )
    one.start()
    await asyncio.sleep(0.3)
    assert not one.state(time.clock_gettime_ns(7)).overdue
    await until(lambda: one.state(time.clock_gettime_ns(7)).overdue)
    assert f"{tmp_path}/none: No such file" in one.state(time.clock_gettime_ns(7)).says
    one.close()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "device", "socket"])
async def test_a_heartbeat_that_is_no_file(kind, tmp_path):
    """A link is not followed and a pipe not waited for: then nothing is known, and the reason is said."""
    path = tmp_path / "beat"
    with socket.socket(socket.AF_UNIX) as bound:
        if kind == "symlink":
            (tmp_path / "real").touch()
            path.symlink_to("real")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            bound.bind(str(path))
        else:
            path = Path("/dev/null")
        one = rule("heartbeat-file", 1, path=str(path))  # of long ago, so that it would be overdue at once
        one.start()
        await until(lambda: one.hindered)
        one.close()
    state = one.state(time.clock_gettime_ns(7))
    assert (state.last_ago_s, state.overdue) == (None, False)
    assert str(path) in state.says
    assert "link" in state.says if kind == "symlink" else "regular" in state.says


def test_a_heartbeat_in_the_future():
    """A file dated in the future counts from when it was seen, and again only when it changes."""
    one = rule("heartbeat-file", 5, path="/x")
    one.seen(10**18, 5 * S, 20 * S)
    one.seen(10**18, 10 * S, 25 * S)
    assert overdue(one, 26) == (6, True)
    one.seen(10**18 + 1, 11 * S, 26 * S)
    assert overdue(one, 26) == (0, False)


def test_an_old_heartbeat():
    """A file that a former run left is old, and the new agent still has its time to touch it."""
    one = rule("heartbeat-file", 5, path="/x")
    one.seen(100 * S, 200 * S, 11 * S)
    assert overdue(one, 12)[1] is False
    assert overdue(one, 16)[1] is True


def test_a_heartbeat_of_a_pid_that_is_anothers_now(tmp_path):
    """If the agent's number belongs to another process now, its file is not looked at through that one."""
    (tmp_path / "beat").touch()
    former = Agent(name="a", pid=os.getpid(), start_ns=1, start_time="", command="x", uid=os.getuid())
    with pytest.raises(OSError, match="No such process"):
        touched(str(tmp_path / "beat"), former)


async def test_a_file_system_that_is_dead(monkeypatch):
    """A look that does not come back leaves nothing known and does not hold up the loop."""

    def dead(*_: object) -> int:
        time.sleep(1.5)
        return 0

    monkeypatch.setattr(progress, "touched", dead)
    monkeypatch.setattr(progress, "LOOK_S", 0.2)
    one = rule("heartbeat-file", 1, path="/x")
    one.start()
    begun = time.monotonic()
    await asyncio.sleep(0.5)
    assert time.monotonic() - begun < 1
    one.close()
    state = one.state(1000 * S)
    assert (state.overdue, state.last_ago_s) == (False, None)
    assert "does not answer" in state.says


# --- sd_notify ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "alive", "at_fault", "status"),
    [
        (b"WATCHDOG=1", True, False, None),
        (b"READY=1\nSTATUS=serving 3\nMAINPID=1", True, False, "serving 3"),
        (b"STATUS=\x1b[2J" + b"x" * 3000, True, False, "[2J" + "x" * 197 + "…"),
        (b"WATCHDOG=trigger", False, True, None),
        (b"FDSTORE=1\nEXTEND_TIMEOUT_USEC=99", False, False, None),
        (b"WATCHDOG=0", False, False, None),
        (b"", False, False, None),
        (b"\xff\x00=\n\n=\n" * 400, False, False, None),
    ],
)
def test_what_a_message_says(text, alive, at_fault, status):
    """Only what sd_notify(3) has for getting on is a sign of it; garbage is nothing."""
    notice = notice_of(text, 1, 2)
    assert (notice.alive, notice.at_fault, notice.status) == (alive, at_fault, status)


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a short path that anybody can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_an_agent_that_reports(state):
    """Messages of an agent are signs; when they stop it is overdue; its last status is quoted."""
    stage = Stage(state, within_s=1)
    reporter = Reporter(stage.path)
    try:
        agent = stage.adopt(reporter.pid)
        assert stage.says(agent) == ""
        reporter.send("STATUS=step 3")
        await until(lambda: stage.ago(agent) is not None)
        assert stage.says(agent) == "its last status: step 3"
        await until(lambda: stage.probes.progress_of(agent, time.clock_gettime_ns(7)).overdue)
        reporter.send("WATCHDOG=1")
        await until(lambda: not stage.probes.progress_of(agent, time.clock_gettime_ns(7)).overdue)
        reporter.send("WATCHDOG=trigger")
        await until(lambda: stage.probes.progress_of(agent, time.clock_gettime_ns(7)).overdue)
        assert "at fault" in stage.says(agent)
    finally:
        reporter.end()
        stage.probes.close()
    assert facts(stage.path) is None


async def test_a_stranger_is_not_believed(state):
    """What a process outside the agent's tree sends is no sign of the agent's life."""
    stage = Stage(state)
    agents_own, stranger = Reporter(stage.path), Reporter(stage.path)
    try:
        agent = stage.adopt(agents_own.pid)
        stranger.send("WATCHDOG=1")
        stranger.send("STATUS=hello")
        await asyncio.sleep(0.2)
        assert stage.ago(agent) is None
        assert stage.says(agent) == ""
        agents_own.send("WATCHDOG=1")
        await until(lambda: stage.ago(agent) is not None)
    finally:
        agents_own.end()
        stranger.end()
        stage.probes.close()


async def test_a_child_of_the_agent_may_report(state):
    """A message of any living process of the tree is its agent's, and of two agents of one entry each has its own."""
    stage = Stage(state)
    first, worker, second = Reporter(stage.path), Reporter(stage.path), Reporter(stage.path)
    try:
        one, other = stage.adopt(first.pid), stage.adopt(second.pid)
        stage.members[worker.pid] = one
        worker.send("WATCHDOG=1")
        await until(lambda: stage.ago(one) is not None)
        assert stage.ago(other) is None
    finally:
        for reporter in (first, worker, second):
            reporter.end()
        stage.probes.close()


async def test_an_agent_that_does_not_know_the_socket(state):
    """One that was not started with NOTIFY_SOCKET is not blamed for its silence, and is believed when it reports all the same."""
    stage = Stage(state, within_s=1)
    reporter = Reporter(stage.path, knows=False)
    try:
        agent = stage.adopt(reporter.pid)
        await asyncio.sleep(1.2)
        found = stage.probes.progress_of(agent, time.clock_gettime_ns(7))
        assert (found.last_ago_s, found.overdue) == (None, False)
        assert f"NOTIFY_SOCKET={stage.path}" in found.says
        reporter.send("READY=1")
        await until(lambda: stage.ago(agent) is not None)
    finally:
        reporter.end()
        stage.probes.close()


async def test_descriptors_that_are_sent_along(state):
    """A file descriptor in a message is not kept: a flood of them leaves us with no more open than before."""
    stage = Stage(state)
    reporter = Reporter(stage.path)
    try:
        agent = stage.adopt(reporter.pid)
        before = descriptors()
        for _ in range(30):
            reporter.send("FD WATCHDOG=1")
            await asyncio.sleep(0)
        await until(lambda: stage.ago(agent) is not None)
        await asyncio.sleep(0.1)
        assert descriptors() == before
    finally:
        reporter.end()
        stage.probes.close()


def test_a_socket_that_is_in_use(state):
    """A second agentscope does not take the socket from the first; one that a dead run left is replaced."""
    first, second = NotifySocket(state / "notify", "a"), NotifySocket(state / "notify", "a")
    first.open()
    with pytest.raises(CannotWrite, match="another agentscope"):
        second.open()
    assert Path(first.path).exists()
    assert first.socket is not None
    first.socket.close()  # as if it had been killed: the file stays
    first.socket = None
    second.open()
    first.close()
    assert Path(second.path).exists()
    Path(second.path).unlink()
    third = NotifySocket(state / "notify", "a")
    third.open()
    second.close()
    assert Path(third.path).exists()  # it has the name by now
    third.close()
    third.close()
    assert not Path(third.path).exists()


async def test_a_socket_that_cannot_be_made(state):
    """If the socket cannot be made that is a loss on the record, and the agents are not blamed."""
    (state / "notify").write_text("a file")
    stage = Stage(state)
    assert [type(event) for event in stage.told] == [Lost]
    agent = stage.adopt(os.getpid())
    found = stage.probes.progress_of(agent, time.clock_gettime_ns(7) + 10**12)
    assert (found.overdue, found.last_ago_s) == (False, None)
    assert "cannot make" in found.says
    stage.probes.close()


# --- all probes of a run --------------------------------------------------------------------------------------------------------


async def test_an_agent_without_an_entry_is_left_alone(state):
    """Without an entry, or with one that asks nothing, nothing is asked, known or left on disk."""
    told: list[AnyEvent] = []
    probes = Probes(Config(agents={"a": AgentConfig(match={"name": "x"})}), told.append, state, lambda _: None)
    probes.start()
    agent = agent_of(os.getpid())
    for label in (None, "a", "b"):
        probes.adopt(agent, label)
        assert (probes.health_of(agent), probes.progress_of(agent, 0), probes.signal_of(agent)) == (None, None, None)
    probes.moved(agent, 1, 1)
    probes.wrote(agent, 1, 1)
    probes.gone(agent)
    probes.close()
    probes.close()
    assert told == []
    assert list(state.iterdir()) == []


async def test_health_and_progress_of_one_agent(state):
    """An entry's check is made and its rule kept; the check's own bytes are no progress; both end with the agent."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    entry = AgentConfig(
        match={"name": "x"},
        health=HealthConfig(kind="tcp", target=f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", interval_s=0.1),
        progress=ProgressConfig(within_s=1, signal="io"),
    )
    told: list[AnyEvent] = []
    probes = Probes(Config(agents={"a": entry}), told.append, state, lambda _: None)
    probes.start()
    agent = agent_of(os.getpid())
    probes.adopt(agent, "a")
    probes.adopt(agent, "a")
    await until(lambda: seen >= 3)
    assert probes.signal_of(agent) == "io"
    health = probes.health_of(agent)
    assert health is not None
    assert health.failures == 0
    assert [event.ok for event in told if isinstance(event, Health)] == [True]
    now = time.clock_gettime_ns(7)
    probes.moved(agent, 1000, now)
    await asyncio.sleep(0.25)
    now = time.clock_gettime_ns(7)
    probes.moved(agent, 1500, now)
    assert probes.progress_of(agent, now).last_ago_s is None
    probes.moved(agent, 9000, now)
    assert probes.progress_of(agent, now).last_ago_s == 0
    probes.gone(agent)
    before = seen
    await asyncio.sleep(0.3)
    assert seen <= before + 1
    assert probes.health_of(agent) is None
    assert probes.progress_of(agent, now) is None
    probes.close()
    listening.close()
