"""Agents that a real systemd owns: what it was asked to stop is no incident, everything else is."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from zoo import AGENTSCOPE, GRACE_S, INCIDENT, Watcher, parsed

LAB = Path(__file__).parent / "systemd"
UNITS = Path("/sys/fs/cgroup/systemd/zoo-systemd/system.slice")


class Case(NamedTuple):
    """What is done to a unit, and what must be said: cause, ending, and the sender's comm where one must be named."""

    name: str
    unit: str
    do: str
    cause: str
    ending: str | int | None = None
    actor: str | None = None


TOO_SLOW = 75  # EX_TEMPFAIL of lab.sh: no systemd within a minute, on a machine that has other work

CASES = [
    Case("stop", "agent", "stop", "none"),
    Case("stop of a unit without a handler", "plain", "stop", "none"),
    Case("stop of a unit that ignores SIGTERM until systemd kills it", "stubborn", "stop", "none"),
    Case("restart", "plain", "restart", "none"),
    Case("kill -9 by a stranger", "plain", "KILL", "killed/sigkill", "SIGKILL", "bash"),
    Case("kill by a stranger", "plain", "TERM", "killed/sigterm", "SIGTERM", "bash"),
    Case("its own MemoryMax", "plain", "USR1", "oom/cgroup", "SIGKILL"),
    Case("a fault of its own", "plain", "USR2", "crash/segfault", "SIGSEGV"),
    Case("a watchdog that nobody feeds", "watchdog", "wait", "killed/signal", "SIGABRT", "systemd"),
]


class Systemd:
    """A real systemd as PID 1 of namespaces of its own, over an overlay of this machine's root."""

    def __init__(self, folder: Path) -> None:
        units = folder / "units"
        units.mkdir()
        for unit in LAB.glob("*.service"):
            (units / unit.name).write_text(unit.read_text().replace("@HERE@", str(LAB)))
        started = subprocess.run(
            [str(LAB / "lab.sh"), "start", str(units), str(folder / "run")],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert started.returncode in {0, TOO_SLOW}, started.stderr
        if started.returncode == TOO_SLOW:
            pytest.skip(f"no systemd can be started here: {started.stderr.strip()}")
        self.pid = int(started.stdout.split()[-1])

    def control(self, *words: str) -> None:
        """Run systemctl inside."""
        subprocess.run([str(LAB / "lab.sh"), "exec", str(self.pid), "systemctl", *words], check=True, timeout=30)

    def start(self, unit: str) -> int:
        """Start a unit afresh and return the pid of its main process, here outside."""
        self.control("reset-failed")
        self.control("restart", unit)
        for _ in range(100):
            pids = (UNITS / f"{unit}.service" / "cgroup.procs").read_text().split()
            if pids and b"agent.py" in Path(f"/proc/{pids[0]}/cmdline").read_bytes():
                time.sleep(0.3)
                return int(pids[0])
            time.sleep(0.05)
        pytest.fail(f"{unit} did not start")

    def close(self) -> None:
        """Power it off and remove its cgroups."""
        subprocess.run([str(LAB / "lab.sh"), "stop", str(self.pid)], check=False, timeout=30)


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """One systemd for all cases."""
    if os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir() or shutil.which("unshare") is None:
        pytest.skip("needs root and cgroup v1: the lab mounts the v1 controllers")
    if not AGENTSCOPE.exists():
        pytest.skip("agentscope is not installed")
    running = Systemd(tmp_path_factory.mktemp("systemd"))
    yield running
    running.close()


@pytest.mark.live
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_unit(case: Case, systemd: Systemd, tmp_path: Path) -> None:
    """A stop that systemd was asked for opens no incident and says by whom; any other end is one, with its cause and sender."""
    pid = systemd.start(case.unit)
    watcher = Watcher([pid], tmp_path)
    try:
        watcher.attach([pid])
        if case.do in {"stop", "restart"}:
            systemd.control(case.do, case.unit)
        elif case.do != "wait":
            subprocess.run(["bash", "-c", f"kill -{case.do} {pid}; exit 0"], check=True, timeout=5)
        assert watcher.wait_for("agentscope.agent.gone", pid, 30), "\n".join(watcher.said.lines)
        time.sleep(GRACE_S)
    finally:
        status = watcher.stop()
    assert status == 0
    events = [parsed(line) for line in watcher.said.lines]
    incidents = [event["data"] for event in events if event["type"] == INCIDENT]
    gone = next(event["data"] for event in events if event["type"] == "agentscope.agent.gone")
    assert [incident["cause"] for incident in incidents] == ([] if case.cause == "none" else [case.cause])
    if case.cause == "none":
        assert "systemd" in f"{gone['by']} {gone['says']}"
    for incident in incidents:
        assert case.ending in {incident["exit"]["signal"], incident["exit"]["code"]}
        assert incident["agent"]["unit"] == f"{case.unit}.service"
        assert case.actor is None or incident["actor"]["comm"] == case.actor


def test_cases_name_real_signals() -> None:
    """Every signal that a case sends exists."""
    assert all(case.do in {"stop", "restart", "wait"} or signal.Signals[f"SIG{case.do}"] for case in CASES)
