"""A baseline of what an agent stands on: taken when nothing is known yet, and again when nothing has changed."""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Row, spread
from tests.bench.stage import PYTHON, Stage

LIBRARIES = 200
DISTRIBUTIONS = 300
FILES = 30  # in each distribution
TIMES = 11
COLD_MS, WARM_MS, LIMIT_KIB = 300, 30, 200
LOADS = "import ctypes, pathlib, sys, time\nkept = [ctypes.CDLL(str(path)) for path in pathlib.Path(sys.argv[1]).glob('*.so')]\nprint(flush=True); time.sleep(99)"
TAKES = """
import asyncio, json, sys, time
from agentscope.baseline.store import encoded
from agentscope.baseline.taking import take

async def main(pid, times):
    latest, stalls = time.perf_counter(), []

    async def tick():
        nonlocal latest
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            stalls.append(now - latest - 0.001)
            latest = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    stalls.clear()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        baseline = await asyncio.to_thread(take, pid)
        spent.append(time.perf_counter() - began)
    ticking.cancel()
    print(json.dumps({
        "cold": spent[0] * 1000, "warm": [each * 1000 for each in spent[1:]], "stall": max(stalls) * 1000, "size": len(encoded(baseline)),
        "libraries": len(baseline.mapped), "distributions": len(baseline.distributions),
    }))

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


def rows(stage: Stage) -> Iterator[Row]:
    """A Python process with 200 libraries of its own and 300 distributions; the thread that takes it, beside a loop that ticks."""
    folder = stage.folder / "baseline"
    scene(folder)
    agent = subprocess.Popen(
        [PYTHON, "-c", LOADS, str(folder / "libraries")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(folder / "site-packages")},
    )
    assert agent.stdout is not None
    agent.stdout.readline()
    try:
        taken = [measured(agent.pid) for _ in range(stage.times(TIMES))]
    finally:
        agent.kill()
        agent.communicate()
        shutil.rmtree(folder)
    last = taken[-1]
    what = f"{last['libraries']} mapped files, {last['distributions']} distributions"
    cold, warm = [each["cold"] for each in taken], [each for one in taken for each in one["warm"]]
    stall, size_kib = [each["stall"] for each in taken], last["size"] / 1024
    yield Row(f"cold, {what}", spread(cold, "ms"), f"{COLD_MS} ms", statistics.median(cold) <= COLD_MS)
    yield Row("again, nothing changed", spread(warm, "ms"), f"{WARM_MS} ms", statistics.median(warm) <= WARM_MS)
    yield Row(
        "longest wait of an event loop beside it", spread(stall, "ms"), note="the interpreter's lock is handed over every 5 ms"
    )
    yield Row("size on disk", f"{size_kib:.0f} KiB", f"{LIMIT_KIB} KiB", size_kib <= LIMIT_KIB)


def measured(pid: int) -> dict[str, float]:
    """What a fresh process measures, that has seen none of these files."""
    done = subprocess.run([sys.executable, "-c", TAKES, str(pid), "6"], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def scene(folder: Path) -> None:
    """Libraries that differ in their build id, and distributions with records."""
    libraries, site = folder / "libraries", folder / "site-packages"
    libraries.mkdir(parents=True)
    source = libraries / "library.c"
    source.write_text("int answer(void) { return 42; }\n")
    for number in range(LIBRARIES):
        identity = hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
        built = libraries / f"libasb{number}.so"
        if number == 0:
            subprocess.run(
                ["gcc", "-shared", "-fPIC", f"-Wl,--build-id=0x{identity}", "-o", str(built), str(source)], check=True
            )
            first = built.read_bytes(), bytes.fromhex(identity)
        else:
            built.write_bytes(first[0].replace(first[1], bytes.fromhex(identity)))
    for number in range(DISTRIBUTIONS):
        name = f"asb_package_{number}"
        package, info = site / name, site / f"{name}-1.{number}.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        digest = hashlib.sha256(name.encode()).hexdigest()
        lines = [f"{name}/module_{each}.py,sha256={digest[:43]},{number * 100 + each}" for each in range(FILES)]
        (package / "__init__.py").write_text("")
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.{number}\n\n{name}\n" + "words\n" * 200
        )
        (info / "RECORD").write_text("\n".join(lines) + "\n")
        (info / "INSTALLER").write_text("pip\n")
    time.sleep(0.2)
