"""Drills, for real: each sample dies as it should, is judged as it should be, and leaves nothing behind, however the drill ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentscope.drills import drill_of, kinds
from tests.commandline import without_root

pytestmark = pytest.mark.live
AGENTSCOPE = (sys.executable, "-m", "agentscope")
LONGEST_S = 60
RUNS = re.compile(r"runs \(pid (\d+)\)")


def traces() -> set[str]:
    """Everything that a drill could leave behind: folders, cgroups, processes."""
    found = {str(path) for path in Path("/tmp").glob("agentscope-drill-*")}
    for hierarchy in Path("/sys/fs/cgroup").glob("*"):
        for folder, _, _ in os.walk(hierarchy):
            if Path(folder).name.startswith("agentscope-cage-drill-"):
                found.add(folder)
    for process in psutil.process_iter(["cmdline"]):
        if any("/agentscope-drill-" in word for word in process.info["cmdline"] or ()):
            found.add(f"pid {process.pid}")
    return found


@pytest.fixture
def untouched() -> Iterator[None]:
    """Nothing may be there afterwards that was not there before, but for what a drill of somebody else's holds."""
    before = traces()
    yield
    assert traces() - before - of_others() == set()


def of_others() -> set[str]:
    """The traces of drills that still run: those of the tests have ended by then."""
    found = set()
    for sample in psutil.process_iter(["cmdline", "cwd"]):
        with contextlib.suppress(psutil.Error):
            drill = sample.parent()
            is_sample = any("/agentscope-drill-" in word for word in sample.info["cmdline"] or ())
            if is_sample and drill is not None and "drill" in drill.cmdline():
                found |= {f"pid {sample.pid}", str(sample.info["cwd"])}
                found |= {path for path in traces() if f"/agentscope-cage-drill-{drill.pid}-" in path}
    return found


def drilled(*arguments: str, front: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """One drill to its end."""
    argv = [*(front or []), *AGENTSCOPE, "drill", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LONGEST_S, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def drilling(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A drill whose sample runs, and the sample's pid."""
    argv = [*AGENTSCOPE, "drill", *arguments]
    drill = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
    try:
        said = []
        for line in drill.stdout:
            said.append(line)
            if found := RUNS.search(line):
                yield drill, int(found[1])
                return
        raise AssertionError(f"no sample was started: {''.join(said)}")
    finally:
        drill.kill()
        drill.communicate()


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.usefixtures("root", "untouched")
def test_each_drill_is_told_as_what_it_is(kind):
    """Each sample dies in its way, and the watcher of the drill finds the right cause within seconds; nothing is left."""
    began = time.monotonic()
    done = drilled(kind, "--diagnose")
    cause = drill_of(kind).CAUSE
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Found {cause}" in done.stdout
    assert f"{cause} · certain" in done.stdout
    assert "as nobody, in a memory cgroup of its own" in " ".join(done.stdout.split())
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.usefixtures("untouched")
def test_each_drill_works_without_root(kind, tmp_path):
    """Whoever is not root gets the same drill with limits of the process, is told what differs, and gets a right verdict."""
    done = drilled(kind, "--diagnose", front=[*without_root(tmp_path), "env", "-u", "AGENTSCOPE_STATE_DIR"])
    drill = drill_of(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Found {drill.ROOTLESS or drill.CAUSE}" in done.stdout
    text = " ".join(done.stdout.split())
    assert "as you, with at most" in text
    assert "No cgroup can be made for it here without root" in text


@pytest.mark.usefixtures("root", "untouched")
def test_a_sample_is_bounded():
    """The sample has no rights, a small memory cgroup of its own, few descriptors and files, no core dump, and a session of its own."""
    with drilling("hang", "--no-diagnose") as (drill, pid):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Groups"].split() == []
        assert int(status["CapEff"], 16) == 0
        memory = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if "agentscope-cage-drill-" in line)
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max open files\s+64\s+64", limits)
        assert re.search(r"Max file size\s+1048576\s+1048576", limits)
        assert re.search(r"Max core file size\s+1\s+1", limits)
        assert os.getsid(pid) == pid
        assert memory
        drill.send_signal(signal.SIGINT)
        assert drill.wait(10) == 130


@pytest.mark.usefixtures("root")
def test_a_killed_drill_takes_its_sample_along():
    """Where the drill itself is killed nothing can clear up, but its sample ends with it and not a minute later."""
    with drilling("hang", "--no-diagnose") as (drill, pid):
        folder = Path(f"/proc/{pid}/cwd").readlink()
        cages = [Path(path) for path in traces() if f"/agentscope-cage-drill-{drill.pid}-" in path]
        drill.kill()
        drill.wait(5)
        deadline = time.monotonic() + 5
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not psutil.pid_exists(pid)
    # only its own: somebody else may be at a drill on this machine
    assert folder.name.startswith("agentscope-drill-")
    shutil.rmtree(folder)
    for cage in cages:
        cage.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("how", ["--diagnose", "--no-diagnose"])
@pytest.mark.usefixtures("root", "untouched")
def test_an_interrupted_drill_clears_everything_away(number, how):
    """Ctrl-C, SIGTERM or a closed terminal ends the drill in a moment, with its sample, its cgroup and its files, and says so."""
    with drilling("drift", how) as (drill, pid):
        drill.send_signal(number)
        out, _ = drill.communicate(timeout=15)
        assert drill.returncode == 130, out
        assert "Interrupted" in out
        assert "Traceback" not in out
        assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("root", "untouched")
def test_a_watcher_without_a_target_finds_the_sample(tmp_path):
    """Where somebody watches already the drill leaves the verdict to them, and they find its sample by its signature."""
    argv = [*AGENTSCOPE, "events", "--for", "40", "--state-dir", str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as events:
        try:
            assert "agentscope.ready" in events.stdout.readline()
            done = drilled("exception")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Look at the agentscope that watches already" in " ".join(done.stdout.split())
            time.sleep(0.5)
        finally:
            events.terminate()
        told = [json.loads(line) for line in events.stdout]
    seen = [line["data"] for line in told if line["type"] == "agentscope.agent.seen"]
    assert "drill-exception by its command line" in [data["because"] for data in seen]
    opened = [line["data"] for line in told if line["type"] == "agentscope.incident.opened"]
    assert [data["cause"] for data in opened if data["agent"]["name"] == "drill-exception"] == ["exception/uncaught"]


@pytest.mark.usefixtures("root", "untouched")
def test_a_drill_with_a_state_directory_is_kept_there(tmp_path):
    """The incident of a drill is on record where a state directory is named, and can be shown again."""
    assert drilled("segfault", "--diagnose", "--state-dir", str(tmp_path)).returncode == 0
    argv = [*AGENTSCOPE, "incidents", "--json", "--state-dir", str(tmp_path)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=LONGEST_S).stdout.splitlines()
    assert [json.loads(line)["data"].get("cause") for line in lines][:1] == ["crash/segfault"]


def test_a_drill_that_is_none_is_refused():
    """A kind that does not exist is refused with those that do."""
    done = drilled("meteor")
    assert done.returncode == 64
    assert "there are drift, exception, hang, oom, segfault" in done.stderr
