"""agentscope as a service of a real systemd: ready, watched over, started again after a kill in the middle of an incident, and resumed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from owners import PYTHON, WORKER, Session, is_gone, playing, settled
from recovering import Watched, wait_for
from zoo import AGENTSCOPE

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
QUICK = 'validate = "8s"\nprobation = "1s"\nbackoff = "200ms"\n'
WATCHDOG_S = 3
SLOW_S = 2
US = "agentscope.service"


class Served:
    """A service manager with agentscope as one of its services, and two agents: a unit, and one that its command runs in the foreground."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.other_log = folder / "starts", folder / "other-starts"
        other = [str(PYTHON), str(WORKER), str(self.other_log)]
        words = ", ".join(f'"{word}"' for word in other)
        self.watched = Watched(
            folder,
            f'[agent.victim]\nmatch = {{ unit = "victim.service" }}\n[agent.victim.recovery]\n{QUICK}'
            f'[agent.other]\nmatch = {{ command = "{WORKER} {self.other_log}" }}\n[agent.other.recovery]\n{QUICK}restart = [{words}]\n',
        )
        printed = subprocess.run(
            [AGENTSCOPE, "service", "--config", self.watched.config, "--state-dir", self.watched.state],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        # the unit as it is printed; only the patience of its watchdog is that of a test
        (folder / "config" / "systemd" / "user" / f"{US}.d").mkdir(parents=True)
        (folder / "config" / "systemd" / "user" / f"{US}.d" / "test.conf").write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}s\n")
        victim = (
            f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStartPre=/bin/sleep {SLOW_S}\n"
            f"ExecStart={PYTHON} {WORKER} {self.log}\nMemoryMax=64M\nRestart=no\n"
        )
        self.session = Session(folder, {US: printed, "victim.service": victim})
        self.other = subprocess.Popen(other, start_new_session=True)
        self.session.control("start", "victim.service")

    def main_pid(self) -> int:
        """The pid of agentscope itself."""
        return int(self.session.show(US, "MainPID"))

    def starts(self) -> list[str]:
        """The pids that the unit's agent has had."""
        return self.log.read_text().split()

    def other_starts(self) -> list[str]:
        """The pids that the other agent has had."""
        return self.other_log.read_text().split()

    def close(self) -> None:
        """End all of it."""
        self.session.close()
        for pid in self.other_starts():
            if not is_gone(int(pid)):
                os.kill(int(pid), signal.SIGKILL)
        self.other.wait(5)
        self.watched.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service manager for all tests."""
    yield from playing(Served, tmp_path_factory.mktemp("served"))


def is_up(served: Served) -> bool:
    """Whether systemd has it running and ready."""
    return served.session.show(US, "ActiveState") == "active"


def closed(served: Served, count: int) -> Callable[[], bool]:
    """Asks whether so many incidents are closed."""
    return lambda: len(served.watched.kept("incident.closed")) >= count


def test_it_is_ready_when_systemd_says_that_it_is(served):
    """The start comes back with READY=1 and not before: an end right after it is an incident, and its agent is brought back."""
    served.session.control("start", US)
    assert is_up(served)
    os.kill(served.other.pid, signal.SIGUSR2)
    served.other.wait(10)
    assert wait_for(closed(served, 1)), served.session.control("status", US, check=False)
    assert [each["held"] for each in served.watched.kept("incident.closed")] == [True]
    assert len(settled(served.other_starts)) == 2


def test_what_the_unit_promises_is_so(served):
    """Its own slice and cgroup, its place in the OOM killer's order where that may be had, closed files, no stream in the journal."""
    pid = served.main_pid()
    assert "/agentscope.slice/agentscope.service" in Path(f"/proc/{pid}/cgroup").read_text()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    bounding = int(status["CapBnd"], 16)
    assert not bounding >> 16 & 1  # CAP_SYS_MODULE
    assert not bounding >> 22 & 1  # CAP_SYS_BOOT
    assert bounding >> 19 & 1  # CAP_SYS_PTRACE
    assert status["Umask"].strip() == "0077"
    assert str(Path(f"/proc/{pid}/fd/1").readlink()) == "/dev/null"
    assert b"NOTIFY_SOCKET" in Path(f"/proc/{pid}/environ").read_bytes()
    newest = served.other_starts()[-1]
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{newest}/environ").read_bytes()
    assert Path(f"/proc/{newest}/oom_score_adj").read_text().strip() == "0"


def test_the_watchdog_is_kept(served):
    """Through twice the time that the watchdog gives, with nothing to do, it is not started again."""
    pid = served.main_pid()
    time.sleep(2 * WATCHDOG_S)
    assert (served.main_pid(), served.session.show(US, "NRestarts")) == (pid, "0")


def test_killed_in_the_middle_of_an_incident(served):
    """A kill -9 while the unit is being started again: systemd starts us again, we go on where we were, and nothing is done twice."""
    before = served.main_pid()
    (first,) = served.starts()
    os.kill(int(first), signal.SIGUSR2)
    assert wait_for(lambda: len(served.watched.kept("remedy.started")) == 2)
    time.sleep(SLOW_S / 4)  # its start is under way
    os.kill(before, signal.SIGKILL)
    assert len(served.starts()) == 1
    assert wait_for(closed(served, 2)), served.session.control("status", US, check=False)
    assert served.main_pid() != before
    assert served.session.show(US, "NRestarts") == "1"
    kept = served.watched
    assert [each["held"] for each in kept.kept("incident.closed")] == [True, True]
    incident = kept.kept("incident.opened")[-1]["incident"]
    acts = [each for each in kept.kept("remedy.started") if each["incident"] == incident]
    ends = [(each["remedy"], each["outcome"]) for each in kept.kept("remedy.finished") if each["incident"] == incident]
    assert [each["remedy"] for each in acts] == ["restart"]
    assert ends == [("restart", "unknown"), ("validate", "done")]
    assert len(settled(served.starts)) == 2
    assert kept.ask("ledger", "verify").returncode == 0


def test_a_loop_that_stands_is_started_again(served):
    """Without a sign of life within the watchdog's time systemd ends it and starts another."""
    before, restarts = served.main_pid(), int(served.session.show(US, "NRestarts"))
    os.kill(before, signal.SIGSTOP)
    assert wait_for(lambda: served.main_pid() not in {0, before} and is_up(served)), served.session.control(
        "status", US, check=False
    )
    assert int(served.session.show(US, "NRestarts")) == restarts + 1


def test_the_agent_in_its_cgroup_outlives_it(served):
    """An agent that its command runs in the foreground is in our cgroup: it lived through kills of us, and lives through our stop."""
    newest = int(served.other_starts()[-1])
    assert "/agentscope.service" in Path(f"/proc/{newest}/cgroup").read_text()
    served.session.control("stop", US)
    assert served.session.show(US, "Result") == "success"
    assert not is_gone(newest)
    assert len(served.other_starts()) == 2
    assert "ended while agentscope was not there" not in (served.folder / "session.log").read_text()
