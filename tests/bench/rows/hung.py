"""How long the report of a hung process takes."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Row, spread
from tests.bench.observers import AGENTSCOPE
from tests.bench.stage import PYTHON, Stage

HANG_AFTER_S = 2
BUDGETS_MS = {10: 400, 1000: 2000}
FAULT_FOUND = 10


def rows(stage: Stage) -> Iterator[Row]:
    """`diagnose` of a deadlocked Python process with ten threads and with a thousand; a stack dump alone is beside them."""
    for threads, budget_ms in BUDGETS_MS.items():
        agent = subprocess.Popen([PYTHON, stage.program("deadlock.py"), str(threads)], stdout=subprocess.PIPE)
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            time.sleep(HANG_AFTER_S + 0.5)
            diagnose = [str(AGENTSCOPE), "diagnose", "--hang-after", str(HANG_AFTER_S), str(agent.pid)]
            run(diagnose, FAULT_FOUND)
            spent = [run(diagnose, FAULT_FOUND) for _ in range(stage.times(11))]
            dump = [str(Path(sys.executable).parent / "py-spy"), "dump", "--pid", str(agent.pid)]
            dumped = [run(dump, 0) for _ in range(stage.times(5))]
        finally:
            agent.kill()
            agent.communicate()
        what = f"`diagnose` of a hung Python process, {threads} threads"
        held = statistics.median(spent) <= budget_ms
        yield Row(what, spread(spent, "ms"), f"{budget_ms} ms", held, {"py-spy dump": spread(dumped, "ms")})


def run(argv: list[str], status: int) -> float:
    """Milliseconds of one run, which must end with this status."""
    began = time.perf_counter()
    found = subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode
    if found != status:
        raise RuntimeError(f"{argv} ended with {found}")
    return (time.perf_counter() - began) * 1e3
