"""From death to the line that tells of it, seen by a reader of the pipe."""

import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

from tests.bench.measure import Row, percentile
from tests.bench.observers import Observer, agentscope, bpftrace, now_ns, strace
from tests.bench.stage import PYTHON, Stage

KINDS = {"kill -9": "wait", "exit 3": "exit", "segfault": "fault", "Python traceback": "asb-victim.py"}
DEATHS = 500
RIVAL_DEATHS = 100
ROUNDS = 5
LONGEST_S = 5.0
INCIDENT = re.compile(rb'"type":"agentscope\.incident\.opened".*?"process":\{[^{}]*?"pid":(\d+)')
Telling = Callable[[int], Callable[[bytes], bool]]


def rows(stage: Stage) -> Iterator[Row]:
    """Agentscope by kind of death, then the same victims under the others."""
    ours: dict[str, list[float]] = {kind: [] for kind in KINDS}
    others: dict[str, list[float]] = {"bpftrace": [], "strace -f": []}
    lost: dict[str, int] = {}
    for _ in range(ROUNDS):
        with agentscope(stage.folder, "--name", "^asb-victim") as observer:
            for kind, spent in deaths(
                stage, stage.times(DEATHS) // ROUNDS, lambda _: observer, tells_incident, seen=b"agentscope.agent.seen"
            ):
                ours[kind].append(spent) if spent is not None else lost.update({"agentscope": lost.get("agentscope", 0) + 1})
        if "bpftrace" not in stage.absent:
            with bpftrace() as observer:
                for _, spent in deaths(stage, stage.times(RIVAL_DEATHS) // ROUNDS, lambda _: observer, tells_exit):
                    others["bpftrace"].append(spent) if spent is not None else lost.update(bpftrace=lost.get("bpftrace", 0) + 1)
        if "strace" not in stage.absent:
            for _, spent in deaths(stage, stage.times(RIVAL_DEATHS) // ROUNDS, strace, tells_end):
                others["strace -f"].append(spent) if spent is not None else lost.update(strace=lost.get("strace", 0) + 1)
    every = [spent for each in ours.values() for spent in each]
    beside = {
        name: f"{statistics.median(spent):.1f} / {percentile(spent, 99):.1f} ms" for name, spent in others.items() if spent
    }
    beside |= {"exitsnoop": stage.absent["exitsnoop"]} if "exitsnoop" in stage.absent else {}
    p50, p99 = statistics.median(every), percentile(every, 99)
    note = f"{len(every)} deaths; the others only tell that it ended" + (f"; never told: {lost}" if lost else "")
    yield Row(
        "p50 / p99, all kinds",
        f"{p50:.1f} / {p99:.1f} ms",
        "10 / 50 ms",
        p50 <= 10 and p99 <= 50 and not lost.get("agentscope"),
        beside,
        note,
    )
    for kind, spent in ours.items():
        yield Row(
            f"  {kind}",
            f"{statistics.median(spent):.1f} / {percentile(spent, 99):.1f} ms" if spent else "none told",
            note=f"{len(spent)}, max {max(spent, default=0):.1f} ms",
        )


def tells_incident(pid: int) -> Callable[[bytes], bool]:
    """The line that opens the incident of this process."""

    def wanted(line: bytes) -> bool:
        return b"agentscope.incident.opened" in line and json.loads(line)["data"]["process"]["pid"] == pid

    return wanted


def tells_exit(pid: int) -> Callable[[bytes], bool]:
    """Bpftrace's line of this end."""
    return lambda line: line.startswith(b"exit %d " % pid)


def tells_end(_pid: int) -> Callable[[bytes], bool]:
    """Strace's line of the end."""
    return lambda line: b"+++ exited with" in line or b"+++ killed by" in line


def deaths(
    stage: Stage, count: int, observe: Callable[[int], Observer], tells: Telling, seen: bytes | None = None
) -> Iterator[tuple[str, float | None]]:
    """Let victims die in turn; milliseconds from just before each end to the line about it, or None if none came."""
    for position in range(count):
        kind = list(KINDS)[position % len(KINDS)]
        argv = (
            [PYTHON, "-I", "-S", stage.program(KINDS[kind])]
            if kind == "Python traceback"
            else [stage.program("victim"), KINDS[kind]]
        )
        victim = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert victim.stdin is not None
        assert victim.stdout is not None
        victim.stdout.readline()
        observer = observe(victim.pid)
        since = len(observer.lines)
        if seen is not None:
            about = b'/%d"' % victim.pid
            observer.wait_for(lambda line, about=about: seen in line and about in line, LONGEST_S, since=max(0, since - 50))
        time.sleep(0.01)
        if kind == "kill -9":
            ended_ns = now_ns()
            os.kill(victim.pid, signal.SIGKILL)
        else:
            victim.stdin.write(b"\n")
            victim.stdin.flush()
            ended_ns = int(victim.stdout.readline())
        told = observer.wait_for(tells(victim.pid), LONGEST_S, since=since)
        victim.communicate()
        if tells is tells_end:
            observer.__exit__(None, None, None)
        yield kind, None if told is None else (told[0] - ended_ns) / 1e6
