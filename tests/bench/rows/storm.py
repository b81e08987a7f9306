"""A storm of deaths: none may be lost, none may be told of another."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.measure import Row
from tests.bench.observers import Observer, agentscope, bpftrace, now_ns
from tests.bench.stage import Stage

RATE = 2000
SECONDS = 10
SEED = 20261122
LONGEST_S = 300.0
Deaths = Counter[tuple[int, int]]


@dataclass(frozen=True)
class Storm:
    """One storm: every death as waitpid told it, the rate that was reached, and what the observer said."""

    pid: int
    true: Deaths
    rate: float
    ended_ns: int
    lines: list[tuple[int, bytes]]


@dataclass
class Heard:
    """What the stream said: exits, incidents (and those that fit no true death), and events that it reports as lost."""

    exits: Deaths
    last_exit_ns: int = 0
    last_incident_ns: int = 0
    incidents: int = 0
    wrong: int = 0
    reported_lost: int = 0


def rows(stage: Stage) -> Iterator[Row]:
    """Children of one watched agent, two thousand a second; each true wait status is compared with what was told."""
    seconds = stage.times(SECONDS)
    bare = storm(stage, seconds, lambda _: None)
    ours = storm(stage, seconds, lambda pid: agentscope(stage.folder, "--pid", str(pid)))
    heard = listen(ours)
    missing, invented = ours.true - heard.exits, heard.exits - ours.true
    beside = {}
    if "bpftrace" not in stage.absent:
        other = storm(stage, seconds, lambda _: bpftrace())
        said = [words for _, line in other.lines if len(words := line.split()) == 3 and words[0] == b"exit"]
        beside["bpftrace"] = (
            f"{(other.true - Counter((int(pid), int(status)) for _, pid, status in said)).total()} lost at {other.rate:.0f}/s"
        )
    late = [
        f"{what} {(at - ours.ended_ns) / 1e9:.1f} s"
        for what, at in (("exit", heard.last_exit_ns), ("incident", heard.last_incident_ns))
    ]
    yield Row(
        f"{RATE} deaths/s for {seconds} s",
        f"{missing.total()} lost, {invented.total() + heard.wrong} misattributed",
        "0, 0",
        not missing and not invented and not heard.wrong,
        beside,
        f"{ours.true.total()} deaths at {ours.rate:.0f}/s ({bare.rate:.0f}/s with nothing attached), {heard.incidents} incidents, "
        f"{heard.reported_lost} reported lost; after the storm came the last {' and the last '.join(late)}",
    )


def storm(stage: Stage, seconds: int, observe: Callable[[int], Observer | None]) -> Storm:
    """One storm under one observer, until that has no more to say."""
    path = stage.folder / "storm.out"
    with path.open("wb") as out:
        argv = [stage.gate, stage.program("storm"), str(RATE), str(seconds), str(SEED)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    observer = observe(process.pid)
    process.stdin.write(b"\n")
    process.stdin.close()
    if process.wait(60) != 0:
        raise RuntimeError("the storm did not end well")
    ended_ns = now_ns()
    if observer is not None:
        with observer:
            gone = b'/%d"' % process.pid
            observer.wait_for(lambda line: b"agentscope.agent.gone" in line and gone in line, settling(observer))
    *lines, last = path.read_text().splitlines()
    _, count, spent_ns = last.split()
    true = Counter((int(pid), int(status)) for pid, status in map(str.split, lines))
    return Storm(process.pid, true, int(count) / (int(spent_ns) / 1e9), ended_ns, observer.lines if observer else [])


def settling(observer: Observer) -> float:
    """How long to wait for the last word: the end of the storm program itself is told after all its children's."""
    return LONGEST_S if b"agentscope.ready" in observer.lines[0][1] else 2.0


def listen(ours: Storm) -> Heard:
    """Read the stream."""
    heard = Heard(Counter())
    for at_ns, line in ours.lines:
        event = json.loads(line)
        kind, told = event["type"], event["data"]
        if kind == "agentscope.process.exit" and told["pid"] != ours.pid:
            heard.exits[told["pid"], told["status"]] += 1
            heard.last_exit_ns = at_ns
        elif kind == "agentscope.incident.opened":
            heard.incidents += 1
            heard.last_incident_ns = at_ns
            heard.wrong += not any(ours.true[told["process"]["pid"], status] for status in statuses(told["exit"]))
        elif kind == "agentscope.lost":
            heard.reported_lost += told["count"]
    return heard


def statuses(end: dict) -> list[int]:
    """The wait statuses that an incident's end may stand for; real-time signals have no name of their own."""
    if end["code"] is not None:
        return [end["code"] << 8]
    named = signal.Signals.__members__.get(end["signal"])
    return [int(named)] if named is not None else list(range(32, 65))
