"""A real systemd on cgroup v2, as PID 1 of another kernel: units that reach MemoryMax, are killed, are stopped, are brought back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from table_scenarios import KERNELS

pytestmark = pytest.mark.kernels
HERE = Path(__file__).parent


class Told(NamedTuple):
    """What one guest left behind: the stream, and by unit what systemd said of it and the pid of its main process."""

    events: list[dict[str, Any]]
    units: dict[str, dict[str, Any]]
    status: int
    stderr: str

    def incidents(self, name: str) -> list[dict[str, Any]]:
        """The incidents of a unit's agent."""
        return self.of("agentscope.incident.opened", name)

    def of(self, kind: str, name: str) -> list[dict[str, Any]]:
        """The contents of the lines of a type about the first instance of a unit."""
        pid = self.units[name]["pid"]
        return [event["data"] for event in self.events if event["type"] == kind and event["data"]["agent"]["pid"] == pid]


@pytest.fixture(scope="module", params=KERNELS)
def told(request: pytest.FixtureRequest, lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """All units on this kernel."""
    out = tmp_path_factory.mktemp(f"systemd-{request.param}")
    guest = [sys.executable, str(HERE / "units_guest.py"), str(out)]
    options = ["--kernel", request.param, "--systemd", "--dir", str(HERE.parents[1]), "--rw", str(out), "--timeout", "900"]
    run = subprocess.run([str(lab), *options, "--", *guest], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout[-2000:]}{run.stderr[-4000:]}"
    events = [json.loads(line) for line in (out / "stream.ndjson").read_text().splitlines()]
    read = {name: json.loads((out / f"{name}.json").read_text()) for name in ("found", "status")}
    return Told(events, read["found"], read["status"], (out / "stderr").read_text())


def test_it_ran_well(told: Told) -> None:
    """It ends well beside systemd, says nothing on standard error and loses nothing but to the emulator's disk, which is slow."""
    assert (told.status, told.stderr) == (0, "")
    lost = [json.dumps(event["data"]) for event in told.events if event["type"] == "agentscope.lost"]
    assert [each for each in lost if "has not answered" not in each] == []


def test_the_limit_of_a_unit(told: Told) -> None:
    """A unit that reaches its MemoryMax is out of memory, as systemd says too; the unit and its limit are named."""
    assert told.units["limit"]["Result"] == "oom-kill"
    (incident,) = told.incidents("limit")
    assert (incident["cause"], incident["scope"], incident["confidence"]) == ("oom/cgroup", "agent", "certain")
    assert incident["agent"]["unit"] == "limit.service"
    assert "48 MiB" in incident["culprit"]
    assert "limit.service" in incident["culprit"]


def test_a_tool_that_reaches_it(told: Told) -> None:
    """A child that reaches the limit is blamed itself; systemd then ends the unit, which is none of the agent's faults."""
    assert told.units["tool"]["Result"] == "oom-kill"
    assert [(each["cause"], each["scope"]) for each in told.incidents("tool")] == [("oom/cgroup", "tool")]


def test_a_stranger_kills_it(told: Told) -> None:
    """A kill -9 by a shell is one, with the shell as its sender, whatever systemd says of the unit."""
    (incident,) = told.incidents("killed")
    assert (incident["cause"], incident["actor"]["comm"]) == ("killed/sigkill", "bash")


def test_a_stop_is_no_incident(told: Told) -> None:
    """What systemd was asked to stop is no incident, and systemd is named as the one who did it."""
    assert told.incidents("stopped") == []
    (gone,) = told.of("agentscope.agent.gone", "stopped")
    assert "systemd" in f"{gone['by']} {gone['says']}"


def test_it_is_brought_back(told: Told) -> None:
    """After the OOM kill the unit is started again through systemd: another main process runs, and the incident is closed."""
    (incident,) = told.incidents("again")
    assert incident["cause"] == "oom/cgroup"
    assert told.units["again"]["ActiveState"] == "active"
    assert int(told.units["again"]["MainPID"]) not in {0, told.units["again"]["pid"]}
    closed = [event["data"] for event in told.events if event["type"] == "agentscope.incident.closed"]
    assert [each["outcome"] for each in closed if each["incident"] == incident["incident"] and "restarted" in each["outcome"]]
