"""An end that may be drift is judged beside the event loop: no other agent waits for it, and none is lost when the watching ends."""

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scenario import TOOL_PATH
from zoo import AGENTSCOPE, INCIDENT, Watcher, parsed

ROUNDS = 8
DISTRIBUTIONS = 300
AGENT = """\
import signal, sys
signal.alarm(55)
import partly
print("ready", flush=True)
sys.stdin.readline()
{end}
"""
pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]


class Yard:
    """Agents over three hundred distributions, one of which changes, and others that end with a plain status."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.site = folder / "site"
        for number in range(DISTRIBUTIONS):
            self.distribution(f"filler{number}", "1.0", "")
        self.distribution("partly", "1.0", "old = 1\n")
        (folder / "heavy.py").write_text(AGENT.format(end="from partly import new"))
        (folder / "plain.py").write_text(AGENT.format(end="import os; os._exit(3)"))

    def distribution(self, name: str, version: str, text: str) -> None:
        """Install one in place of the one before."""
        metadata = self.site / f"{name}.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (self.site / f"{name}.py").write_text(text)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "INSTALLER").write_text("pip\n")
        (metadata / "RECORD").write_text(f"{name}.py,,\n{name}.dist-info/METADATA,,{len(version)}\n")

    def start(self, which: str) -> subprocess.Popen[str]:
        """Start one; it is ready."""
        with (self.folder / f"{which}-{time.monotonic_ns()}.log").open("w") as log:
            agent = subprocess.Popen(
                ["/usr/bin/python3", str(self.folder / f"{which}.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env={"PATH": TOOL_PATH, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"},
            )
        self.stack.enter_context(agent)
        self.stack.callback(agent.kill)
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
        return agent

    def watch(self) -> Watcher:
        """Start agentscope over whatever runs here."""
        name = "^(heavy|plain)(\\.|$)"
        watcher = Watcher([], self.folder, "--name", name)
        self.stack.callback(watcher.errors.close)
        self.stack.callback(watcher.process.kill)
        watcher.attach([])
        return watcher


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """A folder with its agents; what still runs at the end is ended."""
    if not AGENTSCOPE.exists():
        pytest.skip(f"agentscope is not installed at {AGENTSCOPE}")
    with ExitStack() as stack:
        yield Yard(tmp_path, stack)


def end(agent: subprocess.Popen[str]) -> None:
    """Let it end, and wait until it has."""
    assert agent.stdin is not None
    agent.stdin.write("\n")
    agent.stdin.close()
    agent.wait(10)


def incidents(watcher: Watcher) -> dict[int, dict]:
    """What was told of each process, in the order of the stream."""
    events = [parsed(line) for line in list(watcher.said.lines) if f'"{INCIDENT}"' in line]
    return {event["data"]["process"]["pid"]: event["data"] for event in events}


def wait_until_marked(yard: Yard) -> None:
    """Until every agent was looked at again once its parts were loaded."""
    time.sleep(6)
    assert list((yard.folder / "state/baselines").glob("heavy*"))


def test_a_plain_end_does_not_wait_for_one_that_may_be_drift(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """Right behind an end by drift, the plain end of another agent is told about as soon as when it ends alone, and first."""
    watcher = yard.watch()
    heavy = [yard.start("heavy") for _ in range(ROUNDS)]
    plain = [(yard.start("plain"), yard.start("plain")) for _ in range(ROUNDS)]
    wait_until_marked(yard)
    yard.distribution("partly", "2.0", "new_name = 1\n")
    for drifting, (alone, behind) in zip(heavy, plain, strict=True):
        end(alone)
        assert watcher.wait_for("agentscope.agent.gone", alone.pid, 5)
        end(drifting)
        end(behind)
        for agent in (drifting, behind):
            assert watcher.wait_for("agentscope.agent.gone", agent.pid, 5)
    told = incidents(watcher)
    assert watcher.stop() == 0
    assert watcher.stderr() == ""
    assert [told[agent.pid]["cause"] for agent in heavy] == ["drift/python-import"] * ROUNDS
    assert {told[agent.pid]["cause"] for pair in plain for agent in pair} == {"exit/status"}
    took = {
        name: [told[agent.pid]["detected_in_ms"] for agent in agents]
        for name, agents in (("alone", [pair[0] for pair in plain]), ("behind", [pair[1] for pair in plain]), ("drift", heavy))
    }
    order = list(told)
    first = sum(order.index(behind.pid) < order.index(drifting.pid) for drifting, (_, behind) in zip(heavy, plain, strict=True))
    with capsys.disabled():
        print(
            "".join(f"\n{name:7} {' '.join(f'{each:6.1f}' for each in ms)} ms" for name, ms in took.items()), f"first {first}"
        )
    assert statistics.median(took["behind"]) < 4 * statistics.median(took["alone"])
    assert first >= ROUNDS - 2


def test_the_end_of_the_watching_loses_none(yard: Yard) -> None:
    """Ends that are being judged when agentscope is told to stop are all told, each incident before its agent is gone."""
    watcher = yard.watch()
    heavy = [yard.start("heavy") for _ in range(ROUNDS)]
    wait_until_marked(yard)
    yard.distribution("partly", "2.0", "new_name = 1\n")
    for agent in heavy:
        end(agent)
    assert watcher.stop() == 0
    assert watcher.stderr() == ""
    lines = [json.loads(line) for line in watcher.said.lines]
    for agent in heavy:
        told = [
            event["type"].rpartition("agentscope.")[2]
            for event in lines
            if event["type"] in {INCIDENT, "agentscope.agent.gone"} and event["data"]["agent"]["pid"] == agent.pid
        ]
        assert told == ["incident.opened", "agent.gone"]
    assert {each["cause"] for each in incidents(watcher).values()} == {"drift/python-import"}
    assert not [event for event in lines if event["type"] == "agentscope.lost"]
