"""Rollback of real venvs with real packages that a real pip upgrade broke: switched back, whole after a kill at any moment."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from drift.places import PIP, PYTHON, QUIET, WHEELS, Unplayable, fetch, ran
from test_remedies import order

from agentscope.remedies import restart_fresh, rollback
from agentscope.snapshots import keep, settle, switch
from agentscope.snapshots.trees import survey
from tests.test_snapshots import killed_at, picture, shelf_of

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

KILLS = int(os.environ.get("AGENTSCOPE_KILLS", "30"))  # on each disk
PAIRS = {
    "pydantic": (
        ("pydantic==1.10.13", "typing-extensions==4.16.0"),
        ("pydantic==2.11.7", "pydantic-core==2.33.2", "annotated-types==0.8.0", "typing-inspection==0.4.5"),
        "from pydantic import BaseSettings", "pydantic 2.11.7 -> 1.10.13",
    ),
    "setuptools": (("setuptools==80.9.0",), ("setuptools==82.0.0",), "import pkg_resources", "setuptools 82.0.0 -> 80.9.0"),
    "toolbelt": (
        ("requests==2.28.2", "requests-toolbelt==0.9.1", "urllib3==1.26.20", "idna==3.10", "certifi==2024.8.30", "charset-normalizer==3.4.0"),
        ("urllib3==2.5.0",), "import requests_toolbelt", "urllib3 2.5.0 -> 1.26.20",
    ),
}  # fmt: skip
BIG = (("numpy==1.26.4", "opencv-python-headless==4.8.0.76"), ("numpy==2.2.6",), "import cv2", "numpy 2.2.6 -> 1.26.4")


def pip(venv: Path, *wheels: str) -> None:
    """Install or upgrade by the real pip, from wheels of PyPI."""
    try:
        fetch(wheels)
    except Unplayable as why:
        pytest.skip(str(why))
    if not PIP.exists():
        from importlib.util import find_spec

        PIP.parent.mkdir(parents=True, exist_ok=True)
        PIP.symlink_to(Path(find_spec("pip").origin).parent)  # type: ignore[union-attr, arg-type]
    ran(
        [
            str(venv / "bin/python"),
            str(PIP),
            *QUIET,
            "install",
            "--no-deps",
            "--no-index",
            "--find-links",
            str(WHEELS),
            *wheels,
        ],
        timeout_s=120,
    )


def made(venv: Path, *wheels: str) -> Path:
    """A venv with these packages."""
    ran([PYTHON, "-m", "venv", "--without-pip", str(venv)])
    pip(venv, *wheels)
    return venv


def works(venv: Path, imports: str) -> bool:
    """Whether a Python of this venv can do it, started as an agent would be."""
    done = subprocess.run([venv / "bin/python", "-B", "-c", imports], capture_output=True, check=False, timeout=60)
    return done.returncode == 0


def size_of(folder: Path) -> int:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return survey(opened).size_bytes
    finally:
        os.close(opened)


@pytest.mark.parametrize("name", PAIRS)
def test_a_venv_that_an_upgrade_broke(name, tmp_path):
    """A pip upgrade breaks the import; the remedy switches the venv back to what it was to the last bit, and it works again."""
    before, upgrade, imports, version = PAIRS[name]
    venv = made(tmp_path / "venv", *before)
    assert works(venv, imports)
    given = order(tmp_path, snapshot=str(venv), uid=0)
    assert keep(venv, given.state).copied
    whole = picture(venv)
    pip(venv, *upgrade)
    assert not works(venv, imports)
    assert rollback.intent(given) == f"switch {venv} back to its last snapshot"
    done = asyncio.run(rollback.act(given))
    assert done.outcome == "done", done.says
    assert version in done.says
    assert works(venv, imports)
    assert picture(venv) == whole
    kept = Path(done.says.split("is kept at ")[1].split(";")[0])
    assert not works(kept, imports)  # what was broken can still be looked at


def test_the_scripts_of_a_venv_work_as_before(tmp_path):
    """Scripts in a venv have its absolute path in them: after the switch they run, as the path stayed the same."""
    venv = made(tmp_path / "venv", "charset-normalizer==3.4.0")
    (script,) = [path for path in (venv / "bin").iterdir() if path.name == "normalizer"]
    assert str(venv) in script.read_text()
    keep(venv, tmp_path / "state")
    script.write_text("#!/bin/false\n")
    assert switch(venv, tmp_path / "state").differed == 1
    assert ran([str(script), "--version"]).startswith("Charset-Normalizer 3.4.0")


def test_a_venv_that_was_removed(tmp_path):
    """A venv that somebody removed altogether is put back."""
    venv = made(tmp_path / "venv", *PAIRS["setuptools"][0])
    keep(venv, tmp_path / "state")
    shutil.rmtree(venv)
    assert "setuptools 80.9.0 is there again" in switch(venv, tmp_path / "state").says()
    assert works(venv, "import pkg_resources")


def test_a_venv_that_others_live_on(tmp_path):
    """Whoever else runs on the venv is named, so that they can be restarted too; the agent's own processes are not."""
    venv = made(tmp_path / "venv", *PAIRS["setuptools"][0])
    keep(venv, tmp_path / "state")
    (venv / "pyvenv.cfg").write_text("broken")
    command = ["sleep", "30"]
    with (
        subprocess.Popen([venv / "bin/python", "-S", "-c", "import time; time.sleep(30)"]) as other,
        subprocess.Popen(command, cwd=venv / "lib") as agent,
    ):
        try:
            done = asyncio.run(rollback.act(order(tmp_path, agent.pid, snapshot=str(venv), uid=0)))
        finally:
            other.kill()
            agent.kill()
    assert f"(pid {other.pid}), which should be restarted too" in done.says
    assert f"(pid {agent.pid})" not in done.says


@pytest.fixture
def disks(tmp_path):
    """Two disks in memory, so that two hundred times of waiting for a real one are spared."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3g", "test", tmp_path / name], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"no disk can be made: {done.stderr.strip()}")
        made.append(tmp_path / name)
    yield made
    for disk in made:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("disk", ["same", "other"])
def test_it_is_killed(disk, disks):
    """Killed by SIGKILL after each step and at random moments, again and again on each disk: always the old or the new venv."""
    before, upgrade, imports, _ = PAIRS["toolbelt"]
    state = disks[disk == "other"] / "state"
    venv = made(disks[0] / "venv", *before)
    assert keep(venv, state).copied
    old = picture(venv)
    pip(venv, *upgrade)
    broken = disks[0] / "broken"
    subprocess.run(["cp", "-a", venv, broken], check=True)
    new = picture(venv)
    assert not works(venv, imports)
    ends, steps = killed_often(venv, state, broken, old, new, imports)
    print(f"\n{disk} disk: {dict(ends)} after kills at {dict(steps)}")
    assert {"written", "exchanged", "kept"} <= set(steps)
    assert ("staged" in steps) == (disk == "other")
    assert min(ends["old"], ends["new"]) > KILLS // 20


def killed_often(venv, state, broken, old, new, imports):
    ends: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    took_s, number = 0.3, 1
    for turn in range(KILLS):
        if turn % 2:
            step, was_killed = killed_at(venv, state, number)
            number = number + 1 if was_killed else 1
            steps[step or "none"] += 1
        else:
            killed_after(venv, state, random.uniform(0, took_s))
            steps["any"] += 1
        now = picture(venv)
        assert now in (old, new), "a mixture"
        ends["old" if now == old else "new"] += 1
        if turn % 10 == 0:
            assert works(venv, imports) == (now == old)
        settle(state)
        assert picture(venv) == now or picture(venv) == old
        if picture(venv) == new:
            began = time.monotonic()
            switch(venv, state)
            took_s = time.monotonic() - began
        assert picture(venv) == old
        assert settle(state) == ()
        assert keep(venv, state).current
        # broken again, as the upgrade had left it
        shutil.rmtree(venv)
        subprocess.run(["cp", "-a", broken, venv], check=True)
        left = {path.name for path in venv.parent.iterdir()} - {"state", "venv", "broken"}
        assert len(left) <= 1, left  # of what was replaced the last is kept, beside the venv where it must be
        assert {path.name for path in shelf_of(state).iterdir() if path.name.startswith(".")} == set() or turn < 99
    return ends, steps


def killed_after(venv: Path, state: Path, seconds: float) -> None:
    """Switch in a child, and kill it after this time."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            switch(venv, state)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_big_venv(tmp_path):
    """A venv of some 200 MB: what a first mark, a mark without a change, and a rollback cost is measured and printed."""
    before, upgrade, imports, version = BIG
    venv = made(tmp_path / "venv", *before)
    assert works(venv, imports)
    state = tmp_path / "state"
    first = keep(venv, state)
    assert first.copied, first.says
    again = [keep(venv, state).took_ms for _ in range(5)]
    pip(venv, *upgrade)
    assert not works(venv, imports)
    began = time.monotonic()
    told = switch(venv, state)
    took_ms = (time.monotonic() - began) * 1e3
    assert version in told.says()
    assert works(venv, imports)
    print(
        f"\n{size_of(venv) >> 20} MiB: {first.says}; first mark {first.took_ms:.0f} ms, mark without a change "
        f"{sorted(again)[2]:.0f} ms, switch {took_ms:.0f} ms"
    )
    assert sorted(again)[2] < 2000


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_shared(kind, tmp_path):
    """Where the file system can share blocks, a snapshot takes next to no space, and is none the less independent."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed: apt-get install {'xfsprogs' if kind == 'xfs' else 'btrfs-progs'}")
    disk, mount = tmp_path / "disk", tmp_path / "mount"
    mount.mkdir()
    with disk.open("wb") as file:
        file.truncate(2 << 30)
    ran([f"mkfs.{kind}", "-q", str(disk)])
    done = subprocess.run(["mount", "-o", "loop", disk, mount], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"it cannot be mounted here: {done.stderr.strip()}")
    try:
        venv = mount / "venv"
        venv.mkdir()
        for number in range(20):
            (venv / f"library-{number}.so").write_bytes(os.urandom(5 << 20))
        os.sync()
        free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
        whole = picture(venv)
        kept = keep(venv, mount / "state")
        os.sync()
        used = free - os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
        print(f"\n{kind}: {kept.says}, {kept.took_ms:.0f} ms, {used >> 10} KiB of disk")
        assert kept.shared, kept.says
        assert used < 10 << 20
        with (venv / "library-3.so").open("r+b") as file:
            file.write(b"overwritten in place")
        switch(venv, mount / "state")
        now = picture(venv)
        # XFS gives a folder that gets another parent a new time
        del now["."], whole["."]
        assert now == whole
    finally:
        subprocess.run(["umount", mount], check=True)


# --- commands ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome", "says"),
    [
        (("/bin/sh", "-c", "echo switched to generation 41"), "done", "exit status 0: switched to generation 41"),
        (("/bin/sh", "-c", "echo no such generation; exit 3"), "failed", "exit status 3: no such generation"),
        (("/bin/sleep", "50"), "failed", "did not end within 1 s and was killed"),
        (("/no/such/command",), "failed", "cannot be started: No such file or directory"),
    ],
)
def test_a_rollback_by_command(command, outcome, says, tmp_path):
    """The config's own command goes back, with the rights of its owner, and its end is the outcome."""
    done = asyncio.run(rollback.act(order(tmp_path, rollback=command, rollback_s=1.0)))
    assert (done.outcome, says in done.says) == (outcome, True), done.says


def test_nothing_to_go_back_with(tmp_path):
    """Without a command and a snapshot the sentence says what to type."""
    done = asyncio.run(rollback.act(order(tmp_path)))
    assert done.outcome == "refused"
    assert "Try: rollback" in done.says


def test_a_rollback_that_takes_back_a_security_fix(tmp_path):
    """A downgrade of what unattended-upgrades had brought is told with a warning; one of anything else is told without."""
    day = time.strftime("%Y-%m-%d", time.localtime())
    hour = int(time.strftime("%H"))
    root = tmp_path / "root"
    log = root / "var/log"
    (log / "apt").mkdir(parents=True)
    (log / "unattended-upgrades").mkdir()
    earlier = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 3600))
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
    since_ns = time.time_ns()
    (log / "dpkg.log").write_text(
        f"{earlier} upgrade tzdata:all 2025b-0+deb12u1 2026f-0+deb12u1\n{earlier} status installed tzdata:all 2026f-0+deb12u1\n"
        f"{earlier} upgrade curl:amd64 7.88.1-10 7.88.1-15\n{earlier} status installed curl:amd64 7.88.1-15\n"
        f"{now} upgrade tzdata:all 2026f-0+deb12u1 2025b-0+deb12u1\n{now} status installed tzdata:all 2025b-0+deb12u1\n"
        f"{now} upgrade curl:amd64 7.88.1-15 7.88.1-10\n{now} status installed curl:amd64 7.88.1-10\n"
    )
    two = [earlier.replace(" ", "  "), now.replace(" ", "  ")]
    (log / "apt/history.log").write_text(
        f"\nStart-Date: {two[0]}\nCommandline: /usr/bin/unattended-upgrade -v\n"
        f"Upgrade: tzdata:amd64 (2025b-0+deb12u1, 2026f-0+deb12u1)\nEnd-Date: {two[0]}\n"
        f"\nStart-Date: {two[0]}\nCommandline: apt-get install curl\nUpgrade: curl:amd64 (7.88.1-10, 7.88.1-15)\nEnd-Date: {two[0]}\n"
        f"\nStart-Date: {two[1]}\nCommandline: apt-get install --allow-downgrades tzdata curl\n"
        f"Downgrade: tzdata:amd64 (2026f-0+deb12u1, 2025b-0+deb12u1), curl:amd64 (7.88.1-15, 7.88.1-10)\nEnd-Date: {two[1]}\n"
    )
    assert day
    assert 0 <= hour < 24
    told = rollback.changes_told(since_ns, root=str(root))
    assert "tzdata 2026f-0+deb12u1 -> 2025b-0+deb12u1" in told
    assert "curl 7.88.1-15 -> 7.88.1-10" in told
    warned = told.partition("WARNING: ")[2]
    assert "tzdata" in warned
    assert "curl" not in warned


# --- afresh ------------------------------------------------------------------------------------------------------------------


def test_a_fresh_start(tmp_path):
    """State is set aside and kept, the command gets no session, and a new instance is started by it."""
    state = tmp_path / "session"
    state.mkdir()
    (state / "memory").write_text("poisoned")
    out = tmp_path / "out"
    script = tmp_path / "start"
    script.write_text(f'#!/bin/sh\necho "$# $* $AGENTSCOPE_FRESH" > {out}; ls {tmp_path} >> {out}\n')
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    given = order(tmp_path, uid=0, restart=(str(script), "--resume", "{session}"), fresh=(str(state), str(tmp_path / "none")))
    assert "set aside" in restart_fresh.intent(given)
    done = asyncio.run(restart_fresh.act(given))
    assert done.outcome == "done", done.says
    (kept,) = tmp_path.glob("session.aside-*")
    assert (kept / "memory").read_text() == "poisoned"
    assert f"{state} is now {kept}" in done.says
    assert f"{tmp_path / 'none'} is not there" in done.says
    told = out.read_text().splitlines()
    assert told[0].split() == ["0", "1"]
    assert "session" not in told
