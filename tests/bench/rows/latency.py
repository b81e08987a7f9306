"""From death to the line that tells of it, seen by a reader of the pipe."""

import json
import os
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

from tests.bench.measure import Row, percentile
from tests.bench.observers import Observer, agentscope, bpftrace, now_ns, strace
from tests.bench.stage import PYTHON, Stage

KINDS = {"kill -9": "wait", "exit 3": "exit", "segfault": "fault", "Python traceback": "asb-victim.py"}
DEATHS = 500
RIVAL_DEATHS = 100
ROUNDS = 5
LONGEST_S = 5.0
WARM_S = 1.0
TARGET = ("--name", "^asb-victim")
SEEN = b"agentscope.agent.seen"
Telling = Callable[[int], Callable[[bytes], bool]]


def rows(stage: Stage) -> Iterator[Row]:
    """Agentscope by kind of death, then the same victims under the others, in turns."""
    ours: dict[str, list[float]] = {kind: [] for kind in KINDS}
    early: list[float] = []
    others: dict[str, list[float]] = {"bpftrace": [], "strace -f": []}
    untold: Counter[str] = Counter()

    def gather(name: str, into: Callable[[str], list[float]], found: Iterator[tuple[str, float | None]]) -> None:
        for kind, spent_ms in found:
            if spent_ms is None:
                untold[name] += 1
            else:
                into(kind).append(spent_ms)

    for _ in range(ROUNDS):
        with agentscope(stage.folder, *TARGET) as observer:
            gather(
                "agentscope", lambda _: early, deaths(stage, len(KINDS), lambda _, now=observer: now, tells_incident, seen=SEEN)
            )
        with agentscope(stage.folder, *TARGET) as observer:
            time.sleep(WARM_S)
            gather(
                "agentscope",
                ours.__getitem__,
                deaths(stage, stage.times(DEATHS) // ROUNDS, lambda _, now=observer: now, tells_incident, seen=SEEN),
            )
        if "bpftrace" not in stage.absent:
            with bpftrace() as observer:
                gather(
                    "bpftrace",
                    lambda _: others["bpftrace"],
                    deaths(stage, stage.times(RIVAL_DEATHS) // ROUNDS, lambda _, now=observer: now, tells_exit),
                )
        if "strace" not in stage.absent:
            gather(
                "strace -f",
                lambda _: others["strace -f"],
                deaths(stage, stage.times(RIVAL_DEATHS) // ROUNDS, strace, tells_end),
            )
    every = [spent for each in ours.values() for spent in each]
    beside = {name: figures(spent) for name, spent in others.items() if spent}
    beside |= {"exitsnoop": stage.absent["exitsnoop"]} if "exitsnoop" in stage.absent else {}
    held = bool(every) and statistics.median(every) <= 10 and percentile(every, 99) <= 50 and not untold["agentscope"]
    note = f"{len(every)} deaths; the others only tell that it ended" + (f"; never told: {dict(untold)}" if untold else "")
    yield Row("p50 / p99, all kinds", figures(every), "10 / 50 ms", held, beside, note)
    for kind, spent in ours.items():
        yield Row(f"  {kind}", figures(spent), note=f"{len(spent)} deaths, the slowest {max(spent, default=0):.1f} ms")
    yield Row(
        "  the first four, right after ready",
        figures(early),
        note=f"the slowest {max(early, default=0):.1f} ms; above, it has been ready for {WARM_S:.0f} s",
    )


def figures(spent_ms: list[float]) -> str:
    """Median and 99th percentile."""
    return f"{statistics.median(spent_ms):.1f} / {percentile(spent_ms, 99):.1f} ms" if spent_ms else "none told"


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
