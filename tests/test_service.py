"""agentscope as a service: the unit file that it prints, and what it tells systemd of itself."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess

import pytest

from agentscope.errors import UsageError
from agentscope.service.telling import Telling, told_to_systemd
from agentscope.service.unit import UNIT, program, unit
from tests.commandline import agentscope


@pytest.fixture
def listening(tmp_path):
    """A socket at which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind(str(tmp_path / "notify"))
        hearing.settimeout(5)
        yield hearing


def environment(hearing, **more):
    return {"NOTIFY_SOCKET": hearing.getsockname(), "PATH": "/bin", **more}


# --- the unit file ------------------------------------------------------------------------------------------------------------


def test_the_unit_is_the_shipped_one_with_our_own_paths(tmp_path):
    """Only the line that starts it differs: this program, the config and the state directory that were asked for."""
    shipped, made = UNIT.read_text().splitlines(), unit(str(tmp_path / "a b.toml"), "/srv/100%").splitlines()
    differing = [line for line in made if line not in shipped]
    started = f'ExecStart={program()[0]} events --config "{tmp_path}/a b.toml" --state-dir /srv/100%%'
    assert (len(made), differing) == (len(shipped), [started])
    assert f"ExecStart={program()[0]} events --config /etc/agentscope.toml" in unit(None, None)


@pytest.mark.parametrize("path", ['/a"b', "/a'b", "/a\\b", "/$HOME", "/a;b", "/a\nExecStartPre=/bin/sh"])
def test_a_path_that_means_something_else_in_a_unit_is_refused(path):
    """No path may become another word, another line or another program."""
    with pytest.raises(UsageError, match="special"):
        unit(path, None)


def test_systemd_understands_the_unit(tmp_path):
    """systemd-analyze finds nothing wrong with it but what is newer than itself."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed: apt-get install systemd")
    made = tmp_path / "agentscope.service"
    made.write_text(unit(None, None))
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(made)], capture_output=True, text=True, check=False, timeout=30
    )
    ours = [line for line in said.stderr.splitlines() if "agentscope" in line and "'DelegateSubgroup'" not in line]
    assert ours == [], said.stderr


def test_the_command_says_what_is_wrong_with_the_config(tmp_path):
    """A config that no service could start with is refused when the unit is printed."""
    config = tmp_path / "agentscope.toml"
    agentscope("service", "--config", str(config)).is_sentence(65, "cannot read the config file", "No such file")
    config.write_text("[agent.a]\nmatch = 3\n")
    config.chmod(0o600)
    assert agentscope("service", "--config", str(config)).status == 65


def test_the_command_prints_it(tmp_path):
    """What is printed is the unit; what root had better not run is said beside it."""
    config = tmp_path / "agentscope.toml"
    config.write_text('[agent.a]\nmatch = { name = "a" }\n')
    config.chmod(0o600)
    told = agentscope("service", "--config", str(config), "--state-dir", str(tmp_path))
    assert told.status == 0
    assert told.out.decode() == unit(str(config), str(tmp_path))


# --- what it tells systemd ------------------------------------------------------------------------------------------------------


async def test_ready_alive_and_leaving(listening):
    """READY=1 first, then WATCHDOG=1 twice in the time that systemd gives, STOPPING=1 last."""
    telling = Telling(environment(listening, WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid())))
    async with told_to_systemd(telling):
        await asyncio.sleep(0.35)
    listening.setblocking(False)
    said = []
    while True:
        try:
            said.append(listening.recv(100))
        except BlockingIOError:
            break
    assert said == [b"READY=1", *[b"WATCHDOG=1"] * 3, b"STOPPING=1"]


async def test_a_loop_that_stands_says_nothing(listening):
    """The sign of life comes from the loop: while that does not turn, there is none."""
    telling = Telling(environment(listening, WATCHDOG_USEC="100000"))
    async with told_to_systemd(telling):
        assert listening.recv(100) == b"READY=1"
        import time

        time.sleep(0.4)  # noqa: ASYNC251 - that is the point
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.recv(100)


def test_nobody_whom_we_start_speaks_for_us(listening):
    """What systemd says in the environment is taken out of it."""
    given = environment(listening, WATCHDOG_USEC="1000000", WATCHDOG_PID="1")
    telling = Telling(given)
    assert given == {"PATH": "/bin"}
    assert telling.watchdog_s is None  # it is meant for another process


def test_without_systemd_nothing_is_told():
    """No socket, a socket that is gone, one of another kind: nothing happens and nothing is raised."""
    for at in ("", "/nowhere/at/all", "vsock:2:1234"):
        telling = Telling({"NOTIFY_SOCKET": at, "WATCHDOG_USEC": "1000"} if at else {})
        telling.tell("READY=1")


def test_an_abstract_socket():
    """An address that begins with @ is one of the abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind("\0agentscope-test-" + str(os.getpid()))
        hearing.settimeout(5)
        Telling({"NOTIFY_SOCKET": f"@agentscope-test-{os.getpid()}"}).tell("READY=1")
        assert hearing.recv(100) == b"READY=1"


def test_what_systemd_does_not_take_at_once_is_told_with_the_next(listening):
    """READY=1 is not lost where the queue of the socket is full (net.unix.max_dgram_qlen)."""
    filled, before = 0, -1
    while filled > before:  # until a socket that is new finds no room either
        before = filled
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling, contextlib.suppress(BlockingIOError):
            filling.setblocking(False)
            while True:
                filling.sendto(b"x", listening.getsockname())
                filled += 1
    telling = Telling(environment(listening))
    telling.tell("READY=1")
    assert telling.waiting == ["READY=1"]
    for _ in range(filled):
        listening.recv(1)
    telling.tell("WATCHDOG=1")
    assert listening.recv(100) == b"READY=1\nWATCHDOG=1"
