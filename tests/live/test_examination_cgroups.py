"""What version 1 cgroups do to a real process: freeze it, ration its CPU, let it wait for memory."""

import contextlib
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from blocked import python, settled

from agentscope.examination.cgroups import read_cgroup, state_between
from agentscope.examination.threads import kernel_stack, sample

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
ROOT = Path("/sys/fs/cgroup")
needs = {
    name: pytest.mark.skipif(not (ROOT / name).is_dir(), reason=f"no {name} controller of cgroup v1")
    for name in ("freezer", "cpu", "memory")
}


@contextmanager
def group(controller, *names):
    """A cgroup with one below it and so on; whatever is in them is killed, and they are removed."""
    folders = []
    for name in names:
        folders.append((folders[-1] if folders else ROOT / controller) / f"{name}-{os.getpid()}")
        folders[-1].mkdir()
    try:
        yield folders
    finally:
        for folder in reversed(folders):
            with contextlib.suppress(OSError):
                (folder / "freezer.state").write_text("THAWED")
            with contextlib.suppress(OSError):
                (folder / "cgroup.freeze").write_text("0")
            for _ in range(200):
                pids = (folder / "cgroup.procs").read_text().split()
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                if not pids:
                    break
                time.sleep(0.02)
            with contextlib.suppress(OSError):
                folder.rmdir()


def join(folder, pid):
    (folder / "cgroup.procs").write_text(str(pid))


@needs["freezer"]
def test_frozen_by_a_parent():
    """A process below a frozen cgroup is frozen, and the cgroup that was told to freeze is named, not its own."""
    with group("freezer", "outer", "inner") as (outer, inner), python("while 1: pass") as victim:
        join(inner, victim.pid)
        assert not read_cgroup(victim.pid).frozen
        (outer / "freezer.state").write_text("FROZEN")
        found = settled(lambda: (reading := read_cgroup(victim.pid)).frozen and reading)
        assert found.frozen_path == f"/{outer.name}"
        assert state_between(found, found).frozen_path == f"/{outer.name}"
        (outer / "freezer.state").write_text("THAWED")
        settled(lambda: not read_cgroup(victim.pid).frozen)


@pytest.mark.skipif(not (ROOT / "unified/cgroup.controllers").exists(), reason="no cgroup v2 beside v1")
def test_frozen_by_version_2():
    """cgroup.freeze of version 2 is told the same way, from the parent too."""
    with group("unified", "outer", "inner") as (outer, inner), python("while 1: pass") as victim:
        join(inner, victim.pid)
        (outer / "cgroup.freeze").write_text("1")
        found = settled(lambda: (reading := read_cgroup(victim.pid)).frozen and reading)
        assert found.frozen_path == f"/{outer.name}"


@needs["cpu"]
def test_a_burner_on_a_ration():
    """A process that wants a whole CPU and gets 2 ms of 100 is throttled in nearly every period; who waits is not."""
    with (
        group("cpu", "ration", "below") as (ration, below),
        python("while 1: pass") as burner,
        python("import time; time.sleep(40)") as sleeper,
    ):
        (ration / "cpu.cfs_quota_us").write_text("2000")
        join(below, burner.pid)
        before = read_cgroup(burner.pid)
        time.sleep(1.5)
        found = state_between(before, read_cgroup(burner.pid))
        assert (found.quota_cpus, found.quota_path) == (0.02, f"/{ration.name}")
        assert found.throttled_share > 0.9
        join(below, sleeper.pid)
        burner.kill()
        burner.wait(timeout=20)
        time.sleep(0.3)
        before = read_cgroup(sleeper.pid)
        time.sleep(0.5)
        found = state_between(before, read_cgroup(sleeper.pid))
        assert (found.quota_cpus, found.throttled_share or 0.0) == (0.02, 0.0)


@needs["memory"]
def test_waiting_for_memory_with_the_killer_switched_off():
    """Where the OOM killer of a memory cgroup is off, the cgroup that ran full is named, and the process waits in the kernel."""
    code = "import time\nkept = []\nwhile 1: kept.append(bytearray(1 << 20)); time.sleep(0.002)"
    with group("memory", "full") as (full,):
        (full / "memory.limit_in_bytes").write_text(str(64 << 20))
        (full / "memory.oom_control").write_text("1")
        with python(code) as victim:
            join(full, victim.pid)
            found = settled(lambda: (reading := read_cgroup(victim.pid)).under_oom_path and reading)
            stack = kernel_stack(victim.pid, victim.pid)
            (thread,) = sample([victim.pid])[0].threads
            victim.kill()
        assert found.under_oom_path == f"/{full.name}"
        assert found.path == f"/{full.name}"
        assert any("oom" in name for name in stack), stack
        assert thread.state == "D"


def test_our_own_are_quiet():
    """A process under no limit is told as neither frozen nor rationed; one that is gone has no path."""
    with python("import time; time.sleep(40)") as victim:
        for controller in ("freezer", "cpu", "unified"):
            if (ROOT / controller).is_dir():
                join(ROOT / controller, victim.pid)
        found = read_cgroup(victim.pid)
        state = state_between(found, found)
        assert (state.frozen, state.quota_cpus, state.throttled_share, state.under_oom_path) == (False, None, None, None)
    assert read_cgroup(victim.pid).path == ""
