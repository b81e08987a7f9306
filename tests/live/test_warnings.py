"""Warnings before a death, of real processes: told in time, and of nothing that would not have killed."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cage import Cage
from zoo import INCIDENT, Watcher, parsed

LIMIT_MIB = 100
PRESSURE = "agentscope.pressure"
LONG_S = 40.0
PIDS = Path("/sys/fs/cgroup/pids")

BEGIN = "import signal, sys, time\nsignal.alarm(55)\nprint('ready', flush=True)\nsys.stdin.readline()\n"
LEAK = BEGIN + "kept = []\nwhile True:\n    kept.append(bytearray(b'x' * (1 << 20)))\n    time.sleep(0.25)\n"
CACHE = BEGIN + (
    "kept = bytearray(b'x' * (30 << 20))\n"
    "with open('big', 'wb') as file:\n"
    "    for _ in range(300):\n"
    "        file.write(b'x' * (1 << 20))\n"
    "        time.sleep(0.03)\n"
    "for _ in range(300):\n"
    "    with open('big', 'rb') as file:\n"
    "        while file.read(1 << 20):\n"
    "            pass\n"
    "    time.sleep(0.5)\n"
)
SAW = BEGIN + (
    "while True:\n    kept = []\n    for _ in range(85 - 40):\n        kept.append(bytearray(b'x' * (1 << 20)))\n        time.sleep(0.09)\n"
    "    time.sleep(0.05)\n"
)
SLEEP = BEGIN + "time.sleep(50)\n"
pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]


class Stage:
    """Victims in memory cgroups of their own, and one watcher."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack

    def start(
        self, code: str, *, cwd: Path | None = None, groups: tuple[Path, ...] = (), limit: str = ""
    ) -> subprocess.Popen[str]:
        """One that waits to be let go."""
        cage = Cage(LIMIT_MIB, nested=False)
        self.stack.callback(cage.close)
        join = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in (*cage.joined, *groups))
        victim = subprocess.Popen(
            ["sh", "-c", f'{join}; {limit or ":"}; exec "$@"', "sh", "/usr/bin/python3", "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd or self.folder,
        )  # fmt: skip
        self.stack.callback(victim.wait, 10)
        self.stack.callback(victim.kill)
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        return victim

    def watch(self, *victims: subprocess.Popen[str]) -> Watcher:
        """Watch them, and let them go."""
        watcher = Watcher([victim.pid for victim in victims], self.folder)
        self.stack.callback(lambda: watcher.process.poll() is None and watcher.stop())
        watcher.attach([victim.pid for victim in victims])
        for victim in victims:
            assert victim.stdin is not None
            victim.stdin.write("go\n")
            victim.stdin.flush()
        return watcher


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Everything is gone afterwards."""
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def told_of(watcher: Watcher, pid: int, kind: str) -> list[dict]:
    """The warnings of one kind about one agent."""
    events = [parsed(line) for line in list(watcher.said.lines)]
    return [
        event["data"] for event in events if event["type"] == PRESSURE and event["data"]["agent_pid"] == pid and event["data"]["kind"] == kind
    ]  # fmt: skip


def wait_for(watcher: Watcher, pid: int, kind: str, timeout_s: float) -> list[dict]:
    """The same, once there is one."""
    ends = time.monotonic() + timeout_s
    while not (found := told_of(watcher, pid, kind)) and time.monotonic() < ends:
        time.sleep(0.1)
    return found


def test_a_leak_is_told_before_the_kernel_kills(stage: Stage) -> None:
    """A process that leaks 4 MiB a second in a cgroup of 100 MiB is warned of seconds before its OOM kill, with about that time."""
    victim = stage.start(LEAK)
    watcher = stage.watch(victim)
    assert watcher.wait_for(INCIDENT, victim.pid, LONG_S)
    opened = next(event for event in map(parsed, watcher.said.lines) if event["type"] == INCIDENT)["data"]
    assert opened["cause"] == "oom/cgroup"
    told = told_of(watcher, victim.pid, "memory")
    assert len(told) == 1
    lead_s = (opened["at_ns"] - told[0]["at_ns"]) / 1e9
    print(f"warned {lead_s:.1f} s before the kill: {told[0]['says']}")
    assert lead_s > 2
    assert 0.7 <= told[0]["share"] < 1
    assert told[0]["limit"] == LIMIT_MIB << 20
    assert told[0]["seconds_to_limit"] == pytest.approx(lead_s, abs=3)
    assert told[0]["slope_bytes_per_s"] == pytest.approx(4 << 20, rel=0.4)


def test_page_cache_and_garbage_are_no_warning(stage: Stage) -> None:
    """A cgroup that is full of page cache, and a heap that goes to 85 % and is given back every 4 s, are told of not once."""
    cache, saw = stage.start(CACHE), stage.start(SAW)
    watcher = stage.watch(cache, saw)
    time.sleep(28)
    pulses = [event["data"] for event in map(parsed, list(watcher.said.lines)) if event["type"] == "agentscope.pulse"]
    used = [pulse["cgroup_bytes"] for pulse in pulses if pulse["agent_pid"] == cache.pid and pulse["cgroup_bytes"]]
    assert max(used) > 0.9 * (LIMIT_MIB << 20)  # it was full
    assert told_of(watcher, cache.pid, "memory") == []
    assert told_of(watcher, saw.pid, "memory") == []
    assert (cache.poll(), saw.poll()) == (None, None)


@pytest.fixture
def few_threads() -> Iterator[Path]:
    """A cgroup in which 20 threads may be."""
    if not PIDS.is_dir():
        pytest.skip("there is no pids controller of version 1 here")
    group = PIDS / f"zoo-{os.getpid()}"
    group.mkdir()
    (group / "pids.max").write_text("20")
    yield group
    with contextlib.suppress(OSError):
        group.rmdir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_descriptors_threads_and_disk(stage: Stage, few_threads: Path, small_disk: Path) -> None:
    """Nine tenths of RLIMIT_NOFILE, of pids.max and of the disk are told within seconds, each with its numbers; once."""
    files = stage.start(
        BEGIN.replace("print(", "kept = [open('/dev/null') for _ in range(57)]\nprint(", 1) + "time.sleep(50)\n",
        limit="ulimit -n 64",
    )
    threads = stage.start(
        "import threading\n" + BEGIN.replace("print(", "[threading.Thread(target=time.sleep, args=(50,), daemon=True).start() for _ in range(17)]\nprint(", 1) + "time.sleep(50)\n",
        groups=(few_threads,),
    )  # fmt: skip
    (small_disk / "full").write_bytes(bytes(7900 << 10))
    writer = stage.start(SLEEP, cwd=small_disk)
    watcher = stage.watch(files, threads, writer)
    found = wait_for(watcher, files.pid, "descriptors", 20)
    assert [(each["used"], each["limit"], each["eased"]) for each in found] == [(60, 64, False)]
    found = wait_for(watcher, threads.pid, "threads", 20)
    assert [(each["used"], each["limit"], each["limit_path"]) for each in found] == [(18, 20, f"/{few_threads.name}")]
    found = wait_for(watcher, writer.pid, "disk", 20)
    assert [each["limit"] for each in found] == [8 << 20]
    assert found[0]["share"] > 0.95
    assert "room of the file system" in found[0]["says"]
    assert told_of(watcher, writer.pid, "descriptors") == told_of(watcher, files.pid, "threads") == []
    time.sleep(7)
    assert len(told_of(watcher, files.pid, "descriptors")) == 1
