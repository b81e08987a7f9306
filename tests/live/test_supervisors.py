"""Bringing an agent back through whoever owns it: real supervisors, real ends, and never two instances."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zoo import AGENTSCOPE

HERE = Path(__file__).parent
LAB = HERE / "systemd" / "lab.sh"
PLACE = HERE / "supervisors"
WORKER = PLACE / "worker.py"
PYTHON = AGENTSCOPE.parent / "python"
TOO_SLOW = 75  # EX_TEMPFAIL of lab.sh
POLICY = {"grace_s": 1.0, "hook_s": 15.0}


class Systemd:
    """A real systemd in namespaces of its own, and what its units wrote of their starts."""

    def __init__(self, folder: Path) -> None:
        units = folder / "units"
        units.mkdir()
        for unit in (HERE / "systemd" / "agent.service", *PLACE.glob("*.service")):
            place = HERE / "systemd" if unit.name == "agent.service" else PLACE
            (units / unit.name).write_text(unit.read_text().replace("@HERE@", str(place)))
        started = self.lab("start", str(units), str(folder / "run"), check=False, timeout=120)
        if started.returncode == TOO_SLOW:
            pytest.skip(f"no systemd can be started here: {started.stderr.strip()}")
        assert started.returncode == 0, started.stderr
        self.pid = int(started.stdout.split()[-1])

    @staticmethod
    def lab(*words: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run the lab's script."""
        return subprocess.run(
            [str(LAB), *words],
            check=check,
            timeout=timeout,
            capture_output=True,
            text=True,
            env={**os.environ, "LAB_NAME": "zoo-supervisors"},
        )

    def control(self, *words: str) -> str:
        """Run systemctl inside."""
        return self.lab("exec", str(self.pid), "systemctl", *words).stdout

    def starts(self, name: str) -> list[str]:
        """The pids that a unit's agent had at each of its starts."""
        log = Path(f"/proc/{self.pid}/root/run/starts-{name}")
        return log.read_text().split() if log.exists() else []

    def start(self, name: str) -> int:
        """Start a unit afresh; the pid of its worker inside."""
        self.control("stop", name)
        Path(f"/proc/{self.pid}/root/run/starts-{name}").unlink(missing_ok=True)
        self.control("start", name)
        for _ in range(100):
            if self.starts(name):
                time.sleep(0.2)
                return int(self.starts(name)[0])
            time.sleep(0.05)
        pytest.fail(f"{name} did not start")

    def act(self, pid: int, act: str, policy: dict[str, Any] | None = None, late_s: float = 0.5) -> dict[str, Any]:
        """Have act.py do its part inside, and hear what came of it."""
        words = ["env", f"LATE_S={late_s}", str(PYTHON), str(PLACE / "act.py"), str(pid), act]
        ran = self.lab("exec", str(self.pid), *words, json.dumps({**POLICY, **(policy or {})}), check=False)
        assert ran.returncode == 0, ran.stderr
        return dict(json.loads(ran.stdout))

    def main_pid(self, name: str) -> int:
        """The unit's main process as systemd knows it."""
        return int(self.control("show", "--property=MainPID", "--value", name))

    def close(self) -> None:
        """Power it off and remove its cgroups."""
        self.lab("stop", str(self.pid), check=False)


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """One systemd for all tests."""
    if os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir() or shutil.which("unshare") is None:
        pytest.skip("needs root and cgroup v1: the lab mounts the v1 controllers")
    if not Path("/lib/systemd/systemd").exists():
        pytest.skip("systemd is not installed: apt-get install systemd")
    running = Systemd(tmp_path_factory.mktemp("systemd"))
    yield running
    running.close()


@pytest.mark.live
class TestSystemd:
    """A unit is brought back by systemd itself, and only if it does not do so by its own rule."""

    def test_a_crash_of_a_unit_that_stays_down(self, systemd: Systemd) -> None:
        """A unit with Restart=no is started once, and its new main process is told."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "crash")
        assert (came["owner"]["kind"], came["owner"]["name"], came["owner"]["restarts"]) == ("systemd", "steady.service", False)
        assert came["why"] == ""
        assert came["says"] == "systemctl start steady.service"
        assert systemd.starts("steady") == [str(pid), str(came["pid"])]
        assert came["pid"] == systemd.main_pid("steady") == came["living"]
        assert came["took_s"] < 2

    def test_an_owner_that_was_not_asked_in_time(self, systemd: Systemd) -> None:
        """The unit is known for the agent's even where the agent had ended before anybody asked."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "late")
        assert systemd.starts("steady") == [str(pid), str(came["pid"])]

    def test_a_unit_that_restarts_itself_is_not_fought(self, systemd: Systemd) -> None:
        """Systemd's own Restart= is waited for: one new instance, which is not ours."""
        pid = systemd.start("again")
        came = systemd.act(pid, "crash", {"restart": ["systemctl", "restart", "again.service"]})
        assert came["owner"]["restarts"] is True
        assert came["says"] == "systemd started again.service again by itself"
        time.sleep(1)
        assert systemd.starts("again") == [str(pid), str(came["pid"])]

    def test_a_unit_that_has_restarted_already(self, systemd: Systemd) -> None:
        """An instance that systemd started before we asked is found, and nothing is done."""
        pid = systemd.start("again")
        came = systemd.act(pid, "late", late_s=1.5)
        assert came["owner"]["name"] == "again.service"
        assert systemd.starts("again") == [str(pid), str(came["pid"])]

    @pytest.mark.parametrize("unit", ["stubborn", "stubborn-again"])
    def test_a_hang_that_ignores_sigterm(self, systemd: Systemd, unit: str) -> None:
        """A unit that does not stop within the grace, far shorter than its own, is killed and started once, whatever its Restart=."""
        pid = systemd.start(unit)
        came = systemd.act(pid, "hang")
        assert "killed what had not ended within 1 s" in came["says"]
        time.sleep(1)
        assert systemd.starts(unit) == [str(pid), str(came["pid"])]
        assert 1 <= came["took_s"] < 6

    def test_a_hang_of_a_stopped_process(self, systemd: Systemd) -> None:
        """A unit stopped by SIGSTOP ends by SIGTERM and is started once."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "stopped")
        assert came["says"] == "systemctl restart steady.service"
        assert systemd.starts("steady") == [str(pid), str(came["pid"])]

    def test_a_person_who_stops_it_is_obeyed(self, systemd: Systemd) -> None:
        """A unit that somebody stopped is not started, and that is said."""
        pid = systemd.start("steady")
        came = systemd.act(pid, '["systemctl", "stop", "steady.service"]')
        assert came["stopped"] is True
        assert came["pid"] is None
        time.sleep(0.5)
        assert systemd.starts("steady") == [str(pid)]

    def test_a_unit_that_hit_its_start_limit(self, systemd: Systemd) -> None:
        """Where systemd has given up on a unit, it is reset and started once more."""
        pid = systemd.start("limited")
        systemd.act(pid, "crash")
        again = systemd.main_pid("limited")
        came = systemd.act(again, "crash")
        assert came["why"] == ""
        assert came["says"] == "systemctl start limited.service"
        assert systemd.starts("limited") == [str(pid), str(again), str(came["pid"])]

    def test_a_unit_that_takes_its_time_to_be_ready(self, systemd: Systemd) -> None:
        """A unit with Type=notify counts as started once it says so."""
        pid = systemd.start("notified")
        came = systemd.act(pid, "crash")
        assert came["took_s"] > 0.9
        assert systemd.starts("notified") == [str(pid), str(came["pid"])]

    def test_a_process_that_a_unit_only_started_is_not_the_units(self, systemd: Systemd) -> None:
        """An agent below the main process of another program (cron, sshd) is not brought back by restarting that."""
        pid = systemd.start("many")
        assert systemd.act(pid, "crash") == {"owner": None}

    def test_the_policys_own_command_restarts_a_unit(self, systemd: Systemd) -> None:
        """`systemctl restart` as the policy's command: one new instance, whose main process systemd tells."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "crash", {"restart": ["systemctl", "restart", "steady.service"]})
        assert came["owner"]["kind"] == "command"
        assert came["owner"]["under"]["name"] == "steady.service"
        assert came["pid"] == systemd.main_pid("steady")
        assert systemd.starts("steady") == [str(pid), str(came["pid"])]

    def test_a_command_that_fails_says_why(self, systemd: Systemd) -> None:
        """What a restart command wrote before it failed is in the reason."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "crash", {"restart": ["systemctl", "restart", "nowhere.service"]})
        assert came["pid"] is None
        assert "nowhere.service not found" in came["why"]
