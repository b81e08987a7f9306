"""Units of a real systemd that die with nobody watching: what is told of them afterwards, from inside and from outside."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drift.places import Unplayable
from owners import LAB, Systemd
from zoo import AGENTSCOPE

HERE = Path(__file__).parent / "systemd"
UNITS = {
    "plain": (HERE / "plain.service").read_text().replace("@HERE@", str(HERE)),
    "watchdog": (HERE / "watchdog.service").read_text().replace("@HERE@", str(HERE)),
    "raises": "[Service]\nExecStart=/usr/bin/python3 -c \"import time; time.sleep(1); {}['plan']\"\n",
}
HEALTHY, NO_SUCH, FAULT, UNDETERMINED = 0, 3, 10, 20


class Unwatched(Systemd):
    """The lab, with units that nobody watches."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            root = Path(f"/proc/{self.pid}/root")
            for name, text in UNITS.items():
                (root / f"run/systemd/system/{name}.service").write_text(text)
            self.control("daemon-reload")
        except BaseException:
            self.close()
            raise

    def inside(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, whatever comes of it."""
        return self.lab("exec", str(self.pid), *words, check=False)

    def kernel_log(self, *, readable: bool) -> None:
        """Give it the kernel log, or take it away."""
        self.inside("rm", "-f", "/dev/kmsg")
        if readable:
            assert self.inside("mknod", "-m", "600", "/dev/kmsg", "c", "1", "11").returncode == 0

    def died(self, unit: str, do: str) -> int:
        """Start a unit afresh and end it in some way, with nobody watching; the number that its process had here outside."""
        self.control("reset-failed")
        self.control("restart", unit)
        outside = self.outside(unit)
        if do == "stop":
            self.control("stop", unit)
        elif do:
            time.sleep(1)  # until its handlers stand
            self.inside("kill", f"-{do}", str(self.main_pid(unit)))
        deadline = time.monotonic() + 60
        while self.main_pid(unit) and time.monotonic() < deadline:
            time.sleep(0.1)
        return outside

    def outside(self, unit: str) -> int:
        """The main process of a unit as it is numbered here."""
        place = next(Path("/sys/fs/cgroup/systemd").glob(f"zoo-supervisors/system.slice/{unit}.service"))
        for _ in range(100):
            pids = (place / "cgroup.procs").read_text().split()
            if pids:
                return int(pids[0])
            time.sleep(0.05)
        pytest.fail(f"{unit} did not start")

    def diagnosed(self, who: str) -> tuple[int, dict[str, Any]]:
        """What is told of it inside, where the journal is: exit status and record."""
        ran = self.inside(str(AGENTSCOPE), "diagnose", who, "--json", "--state-dir", "/run/agentscope-none")
        return ran.returncode, json.loads(ran.stdout) if ran.stdout else {"said": ran.stderr}


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unwatched]:
    """One lab for all."""
    assert LAB.exists()
    try:
        lab = Unwatched(tmp_path_factory.mktemp("unwatched"))
    except Unplayable as why:
        pytest.skip(str(why))
    yield lab
    lab.close()


CASES = [
    ("its own MemoryMax", "plain", "USR1", FAULT, "oom/cgroup", "oom/cgroup"),
    ("an error that nobody caught", "raises", "", FAULT, "exception/uncaught", None),
    ("kill -9 by a stranger", "plain", "KILL", FAULT, "killed/sigkill", None),
    ("a watchdog that nobody feeds", "watchdog", "", FAULT, "killed/signal", None),
    (
        "a fault, whose line in the kernel log has another number",
        "plain",
        "USR2",
        UNDETERMINED,
        "undetermined",
        "crash/segfault",
    ),
    ("kill -11 by a stranger", "plain", "SEGV", UNDETERMINED, "undetermined", None),
    ("a stop that systemd was asked for", "plain", "stop", HEALTHY, None, None),
    ("kill by a stranger, which systemd counts as a clean end", "plain", "TERM", UNDETERMINED, None, None),
]


@pytest.mark.live
@pytest.mark.parametrize(
    ("how", "unit", "do", "status", "cause", "outside"), CASES, ids=[case[0].replace(" ", "-") for case in CASES]
)
def test_told_afterwards(how, unit, do, status, cause, outside, systemd, tmp_path):
    """A unit that died unwatched is told from the journal, its state and the kernel log: right, or open, and said to be reconstructed.

    From outside, with no journal, the kernel log alone tells an OOM kill and a fault by pid, as possible; and of others nothing.
    """
    systemd.kernel_log(readable=True)
    pid = systemd.died(unit, do)
    told, record = systemd.diagnosed(unit)
    assert (told, record.get("cause")) == (status, cause), record
    assert record["reconstructed"] is True
    assert record.get("confidence", "possible") in {"likely", "possible", "undetermined"}
    if outside or do == "KILL":
        ran = subprocess.run(
            [str(AGENTSCOPE), "diagnose", str(pid), "--json", "--state-dir", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
        )  # fmt: skip
        assert ran.returncode == (FAULT if outside else NO_SUCH), ran.stderr
        record = json.loads(ran.stdout or "{}")
        seen = (record.get("cause"), record.get("confidence"), record.get("process", {}).get("pid"))
        assert seen == ((outside, "possible", pid) if outside else (None, None, None))


@pytest.mark.live
@pytest.mark.parametrize("do", ["USR1", "KILL"])
def test_sigkill_without_the_kernel_log(do, systemd):
    """Where the kernel log cannot be read a SIGKILL is neither an OOM kill nor anybody's `kill -9`."""
    systemd.kernel_log(readable=False)
    systemd.died("plain", do)
    told, record = systemd.diagnosed("plain")
    assert (told, record["cause"]) == (UNDETERMINED, "undetermined")
    assert "kernel log" in record["headline"]
    assert {"oom/cgroup", "oom/global", "killed/sigkill"} <= {each["cause"] for each in record["not_checked"]}
