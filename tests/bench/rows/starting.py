"""How long a person waits."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from tests.bench.measure import Row, spread
from tests.bench.observers import AGENTSCOPE, agentscope, bpftrace
from tests.bench.stage import PYTHON, Stage

TIMES = 11
THREADS = "import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nprint(flush=True); time.sleep(99)"


def rows(stage: Stage) -> Iterator[Row]:
    """Start to ready, `--help`, and `diagnose` of a process with ten threads; Python's own start is beside them."""
    bare = spread(in_turns(stage, lambda: run([sys.executable, "-c", "pass"])), "ms")

    def ready() -> float:
        with agentscope(stage.folder, "--name", "^no-such-agent$") as observer:
            return (observer.ready_ns - observer.began_ns) / 1e6

    def other_ready() -> float:
        with bpftrace() as observer:
            return (observer.ready_ns - observer.began_ns) / 1e6

    beside = {"python -c pass": bare}
    if "bpftrace" not in stage.absent:
        beside["bpftrace"] = spread([other_ready() for _ in range(stage.times(5))], "ms")
    yield judged("`events`, start to ready", in_turns(stage, ready), 300, beside)
    yield judged("`--help`", in_turns(stage, lambda: run([str(AGENTSCOPE), "--help"])), 120, {})
    agent = subprocess.Popen([PYTHON, "-c", THREADS], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    agent.stdout.readline()
    try:
        yield judged(
            "`diagnose` of a 10-thread Python process",
            in_turns(stage, lambda: run([str(AGENTSCOPE), "diagnose", str(agent.pid)])),
            400,
            {},
        )
    finally:
        agent.kill()
        agent.communicate()


def in_turns(stage: Stage, measured: Callable[[], float]) -> list[float]:
    """Several times, after one that does not count."""
    measured()
    return [measured() for _ in range(stage.times(TIMES))]


def judged(what: str, values: list[float], limit_ms: float, beside: dict[str, str]) -> Row:
    """A row whose budget is the median."""
    return Row(what, spread(values, "ms"), f"{limit_ms:.0f} ms", statistics.median(values) <= limit_ms, beside)


def run(argv: list[str]) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3
