"""The same verdicts on Debian's 6.1 and 6.12, where cgroups are v2 and less evidence can be had; what cannot is said."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from table_scenarios import KERNELS

pytestmark = pytest.mark.kernels
HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
VERDICTS = ("oom/cgroup", "crash/segfault", "exception/uncaught", "exception/uncaught on a pipe", "killed/sigkill")
ENDS = {
    "oom/cgroup": -9,
    "crash/segfault": -11,
    "exception/uncaught": 1,
    "exception/uncaught on a pipe": 1,
    "killed/sigkill": -9,
    "none": 0,
}


@dataclass(frozen=True)
class Told:
    """What one guest left behind."""

    events: list[dict[str, Any]]
    pids: dict[str, int]
    status: dict[str, Any]
    stderr: str
    doctor: dict[str, Any]

    @property
    def ready(self) -> dict[str, Any]:
        """The first line."""
        return self.events[0]["data"]

    def incidents(self, name: str) -> list[dict[str, Any]]:
        """The incidents of one victim."""
        of_all = [event["data"] for event in self.events if event["type"] == "agentscope.incident.opened"]
        return [incident for incident in of_all if incident["process"]["pid"] == self.pids[name]]


@pytest.fixture(scope="module", params=KERNELS)
def told(request: pytest.FixtureRequest, lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Six deaths on this kernel."""
    out = tmp_path_factory.mktemp(f"linux-{request.param}")
    for name in ("hog", "fault"):
        subprocess.run(
            [
                "gcc",
                "-g",
                "-O1",
                "-w",
                "-static-pie" if name == "hog" else "-pie",
                "-o",
                str(out / name),
                str(HERE / f"{name}.c"),
            ],
            check=True,
        )
    argv = [
        str(lab),
        "--kernel",
        request.param,
        "--dir",
        str(REPOSITORY),
        "--rw",
        str(out),
        "--timeout",
        "420",
        "--",
        sys.executable,
        str(HERE / "guest.py"),
        str(out),
    ]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout[-2000:]}{run.stderr[-4000:]}"
    lines = (out / "stream.ndjson").read_text().splitlines()
    stderr = (out / "stderr").read_text()
    assert lines, f"agentscope said nothing: {stderr}"
    read = {name: json.loads((out / f"{name}.json").read_text()) for name in ("pids", "status", "doctor")}
    return Told([json.loads(line) for line in lines], read["pids"], read["status"], stderr, read["doctor"])


def test_the_engine_runs(told: Told) -> None:
    """The probes load and attach, agentscope ends well, says nothing on standard error and loses nothing."""
    assert told.ready["engine"] == "core"
    assert told.status["agentscope"] == 0
    assert told.stderr == ""
    assert not [event for event in told.events if event["type"] == "agentscope.lost"]


def test_the_victims_died_as_meant(told: Told) -> None:
    """The guest really did what the other tests are about."""
    assert told.status["victims"] == ENDS


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(told: Told, name: str) -> None:
    """Each death has one incident, with the same cause as on any other kernel."""
    assert [incident["cause"] for incident in told.incidents(name)] == [name.split(" ")[0]]


def test_no_incident_of_a_clean_end(told: Told) -> None:
    """A clean end is none on these kernels either."""
    assert told.incidents("none") == []


def test_exits_are_true(told: Told) -> None:
    """The wait statuses in the stream are those that waitpid told."""
    exits = {
        event["data"]["pid"]: event["data"]["status"] for event in told.events if event["type"] == "agentscope.process.exit"
    }
    assert {name: os.waitstatus_to_exitcode(exits[pid] & ~0x80) for name, pid in told.pids.items()} == ENDS


def test_the_limit_is_named(told: Told) -> None:
    """The OOM verdict names the v2 cgroup and its limit."""
    (incident,) = told.incidents("oom/cgroup")
    assert "24" in incident["culprit"], incident["culprit"]
    assert "agent" in incident["culprit"], incident["culprit"]


def test_the_sender_is_named(told: Told) -> None:
    """The kill names its sender."""
    (incident,) = told.incidents("killed/sigkill")
    assert incident["actor"]["kind"] == "process"
    assert incident["actor"]["comm"].startswith("python")


def test_the_place_of_the_fault_is_named(told: Told) -> None:
    """The crash names the function, from the stack that the probe took."""
    (incident,) = told.incidents("crash/segfault")
    assert "store" in json.dumps(incident["evidence"]), incident["missing"]


def test_nothing_is_silently_missing(told: Told) -> None:
    """Every kind of evidence is either there or missing with a reason, whatever this kernel cannot give."""
    from agentscope.evidence import kinds

    for name in VERDICTS:
        for incident in told.incidents(name):
            there = {record["kind"] for record in incident["evidence"]} | {missing["kind"] for missing in incident["missing"]}
            unsaid = {kind for kind in kinds() if kind not in there}
            assert all(missing["because"] for missing in incident["missing"])
            assert all(left["because"] for left in incident["not_checked"])
            assert not unsaid or incident["not_checked"] or incident["ruled_out"], (name, unsaid)


def test_what_the_kernel_cannot_give_is_said(told: Told) -> None:
    """A kernel without the iterator of mappings (before 6.7) says so in the first line."""
    degraded = " ".join(told.ready["degraded"])
    old = tuple(int(part) for part in told.ready["kernel"].split(".")[:2]) < (6, 7)
    assert ("mapping" in degraded) == old, degraded
