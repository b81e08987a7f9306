"""What it costs to know how a healthy run looked: 200 libraries mapped, 300 distributions installed."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import Row, spread
from tests.bench.stage import PYTHON, Stage

LIBRARIES, DISTRIBUTIONS, TIMES = 200, 300, 11
COLD_MS, UNCHANGED_MS, SIZE_KIB = 300, 30, 200
# In a process of its own, so that the first take knows of no file; what it prints is milliseconds by the clock and of CPU.
TAKER = """
import sys, time
from agentscope.baseline.store import encoded
from agentscope.baseline.taking import take, take_again
def timed(work, *given):
    began, used = time.perf_counter(), time.process_time()
    done = work(*given)
    print((time.perf_counter() - began) * 1e3, (time.process_time() - used) * 1e3)
    return done
for _ in range(4):
    taken = timed(take, int(sys.argv[1]))
timed(take_again, taken)
print(len(encoded(taken)), len(taken.mapped), len(taken.distributions))
"""
AGENT = "import ctypes, sys, time\nfor path in sys.argv[1:]: ctypes.CDLL(path)\nprint(flush=True); time.sleep(300)"


def rows(stage: Stage) -> Iterator[Row]:
    """The first take, a take where nothing changed, the look after a death, and the file that is kept."""
    with tempfile.TemporaryDirectory() as folder, agent(Path(folder)) as pid:
        runs = [taken(pid) for _ in range(stage.times(TIMES))]
        size, libraries, distributions = runs[-1][1]
        what = f"{libraries} libraries, {distributions} distributions"
        yield judged(f"first take, {what}", [times[0] for times, _ in runs], COLD_MS)
        yield judged("take where nothing changed", [each for times, _ in runs for each in times[1:4]], UNCHANGED_MS)
        yield judged("look at the same places after the death", [times[4] for times, _ in runs], UNCHANGED_MS)
        yield Row("the file that is kept", f"{size / 1024:.0f} KiB", f"{SIZE_KIB} KiB", size <= SIZE_KIB << 10)


def taken(pid: int) -> tuple[list[tuple[float, float]], list[int]]:
    """(milliseconds, of CPU) of four takes and of the look after a death; then bytes on disk, libraries and distributions."""
    said = subprocess.run([sys.executable, "-c", TAKER, str(pid)], capture_output=True, text=True, check=True).stdout
    *times, sizes = [line.split() for line in said.splitlines()]
    return [(float(wall), float(cpu)) for wall, cpu in times], [int(size) for size in sizes]


def judged(what: str, times: list[tuple[float, float]], limit_ms: float) -> Row:
    """A row whose budget is the median by the clock; the CPU beside it tells how much of that was waiting for one."""
    walls = [wall for wall, _ in times]
    beside = {"of CPU": spread([cpu for _, cpu in times], "ms")}
    return Row(what, spread(walls, "ms"), f"{limit_ms:.0f} ms", statistics.median(walls) <= limit_ms, beside)


@contextmanager
def agent(folder: Path) -> Iterator[int]:
    """A process of a venv with that many distributions, each with a RECORD as long as real ones, and that many libraries."""
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    site = next((folder / "venv/lib").glob("python*/site-packages"))
    for number in range(DISTRIBUTIONS):
        info = site / f"distribution_{number}-{number % 9}.{number % 7}.dist-info"
        info.mkdir()
        files = 20 if number % 10 else 900  # most are small, a few are numpy
        lines = [f"distribution_{number}/__init__.py,sha256={number:043x},0\n"]
        lines += [f"distribution_{number}/module_{n}.py,sha256={n * 7919 + number:043x},{n}\n" for n in range(files)]
        (info / "RECORD").write_text("".join(lines))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: distribution-{number}\nVersion: {number % 9}.{number % 7}\n\n" + "x" * 9000
        )
        (info / "INSTALLER").write_text("pip\n")
    libraries = [folder / f"lib/libbench{number}.so.1.{number % 5}" for number in range(LIBRARIES)]
    libraries[0].parent.mkdir()
    source = b"int bench(void) { return 1; }"
    subprocess.run(
        ["cc", "-x", "c", "-", "-shared", "-fPIC", "-Wl,--build-id", "-o", str(libraries[0])], input=source, check=True
    )
    for library in libraries[1:]:
        library.write_bytes(libraries[0].read_bytes())
    process = subprocess.Popen([str(folder / "venv/bin/python"), "-c", AGENT, *map(str, libraries)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)  # files that changed within a tick of the clock are read again
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()
