"""Agents that are asked, and that report: what the tests of health checks and rules of progress share."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentscope.agents import start_ns_of
from agentscope.config import AgentConfig, Config, ProgressConfig
from agentscope.model import Agent, AnyEvent
from agentscope.sources.active import Probes


def agent_of(pid: int, uid: int | None = None) -> Agent:
    """A living process as an agent."""
    return Agent(
        name="a", pid=pid, start_ns=start_ns_of(pid) or 0, start_time="", command="x", uid=os.getuid() if uid is None else uid
    )


async def until(true: Callable[[], object], seconds: float = 5) -> None:
    """Wait until it is so."""
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not become so")


SENDER = """
import os, signal, socket, sys
signal.alarm(60)
path = os.environ["NOTIFY_SOCKET"]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for line in sys.stdin.buffer:
    if line.startswith(b"FD "):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.connect(path)
            socket.send_fds(other, [line[3:].strip()], [0])
    else:
        sock.sendto(line.strip(), path)
    print("sent", flush=True)
"""


class Reporter:
    """An agent that sends what it is told to."""

    def __init__(self, path: str, uid: int | None = None, *, knows: bool = True) -> None:
        environment = {**os.environ, "NOTIFY_SOCKET": path}
        code = SENDER
        if not knows:
            del environment["NOTIFY_SOCKET"]
            code = SENDER.replace('os.environ["NOTIFY_SOCKET"]', repr(path))
        who = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        self.child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/", **who
        )  # type: ignore[call-overload] # fmt: skip
        self.pid = self.child.pid
        while not Path(f"/proc/{self.pid}/environ").read_bytes():  # not in place yet when its descriptors are closed by exec
            time.sleep(0.001)

    def send(self, line: str) -> None:
        """Send a message, and wait until it is sent."""
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()
        assert self.child.stdout.readline() == b"sent\n"

    def end(self) -> None:
        """End it."""
        self.child.stdin.close()
        self.child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(1)
        self.child.kill()
        self.child.wait()


def facts(path: str) -> os.stat_result | None:
    """What is known of a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        return Path(path).stat()
    return None


def descriptors() -> int:
    """How many files we have open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Stage:
    """Probes of a config with one agent that reports, and what they told."""

    def __init__(self, state: Path, within_s: float = 30) -> None:
        self.told: list[AnyEvent] = []
        self.members: dict[int, Agent] = {}
        entry = AgentConfig(match={"name": "x"}, progress=ProgressConfig(within_s=within_s, signal="sd_notify"))
        self.probes = Probes(Config(agents={"researcher": entry}), self.told.append, state, self.members.get)
        self.path = str(state / "notify" / "researcher")
        self.probes.start()

    def adopt(self, pid: int, uid: int | None = None) -> Agent:
        """Make a process an agent."""
        agent = self.members[pid] = agent_of(pid, uid)
        self.probes.adopt(agent, "researcher")
        return agent

    def ago(self, agent: Agent) -> float | None:
        """How long ago it last got on."""
        found = self.probes.progress_of(agent, time.clock_gettime_ns(7))
        assert found is not None
        return found.last_ago_s

    def says(self, agent: Agent) -> str:
        """What its rule says."""
        found = self.probes.progress_of(agent, time.clock_gettime_ns(7))
        assert found is not None
        return found.says
