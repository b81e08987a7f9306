"""What agentscope itself uses."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Row
from tests.bench.observers import Observer, agentscope, bpftrace
from tests.bench.stage import Stage

AGENTS = 100
SECONDS = 120  # as long as the longest pause between two looks at an agent, so that every look is counted
SETTLING = 30  # finding them and the first look at each: once in a life


def rows(stage: Stage) -> Iterator[Row]:
    """Processor time and memory while a hundred quiet agents with a thousand threads are watched."""
    agents = [subprocess.Popen([stage.program("agent")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(AGENTS)]
    try:
        for agent in agents:
            assert agent.stdout is not None
            agent.stdout.readline()
        with agentscope(stage.folder, "--name", "^asb-agent$", silent=True) as observer:
            cpu, rss, peak = use(observer, stage.times(SETTLING), stage.times(SECONDS))
        beside = {"cpu": {}, "rss": {}}
        if "bpftrace" not in stage.absent:
            with bpftrace(silent=True) as other:
                other_cpu, other_rss, _ = use(other, stage.times(SETTLING), stage.times(SECONDS))
            beside = {"cpu": {"bpftrace": f"{other_cpu:.2f} %"}, "rss": {"bpftrace": f"{other_rss:.0f} MiB"}}
        what = f"{AGENTS} agents, {AGENTS * 10} threads, {stage.times(SECONDS)} s"
        yield Row(f"processor, {what}", f"{cpu:.2f} % of one core", "1 %", cpu <= 1, beside["cpu"])
        yield Row("resident memory, then", f"{rss:.0f} MiB (peak {peak:.0f})", "60 MiB", rss <= 60, beside["rss"])
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()


def use(observer: Observer, settling: float, seconds: float) -> tuple[float, float, float]:
    """Percent of one core over this time, and MiB of resident memory at its end and at its peak."""
    time.sleep(settling)
    before, began = busy_ns(observer.process.pid), time.monotonic_ns()
    time.sleep(seconds)
    cpu = 100 * (busy_ns(observer.process.pid) - before) / (time.monotonic_ns() - began)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{observer.process.pid}/status").read_text().splitlines())
    return cpu, int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024


def busy_ns(pid: int) -> int:
    """Time on a processor, of all threads (Documentation/scheduler/sched-stats.rst)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
