"""The one run of the hang zoo that all of its tests ask about: many agents side by side, one agentscope that watches them."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from hangs import Hang
from scenario import fill
from stage import Actor
from zoo import AGENTSCOPE, INCIDENT, Broken, Ending, Outcome, Watcher, parsed

PATIENCE_S = 5
CALM_S = max(26.0, float(os.environ.get("ZOO_MODEL_S", "0")) + 6)  # a healthy one is watched for this long
HUNG_S = 15.0  # a hung one must be named within this
TOGETHER = 2  # that use a whole CPU


class Diagnosed(msgspec.Struct, frozen=True):
    """What `agentscope diagnose` made of one of them."""

    status: int
    said: dict[str, Any]
    stderr: str
    took_s: float


class Played(msgspec.Struct, frozen=True):
    """One scenario as it was played: what was said of it, when, and how it was diagnosed afterwards. `ended` is how, if it did."""

    hang: Hang
    pid: int
    names: dict[str, Any]
    hangs_since_ns: int | None
    outcome: Outcome
    told_ns: int | None
    ended: int | None
    diagnosed: Diagnosed

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The contents of the lines of one type that are about it."""
        return [event["data"] for event in self.outcome.events if event["type"] == kind and self.about(event["data"])]

    def about(self, data: dict[str, Any]) -> bool:
        """Whether a line is about it."""
        return self.pid in {data.get("agent_pid"), (data.get("agent") or {}).get("pid")}

    @property
    def incidents(self) -> list[dict[str, Any]]:
        """The incidents that were told of it."""
        return self.of_type(INCIDENT)

    @property
    def after_s(self) -> float | None:
        """From hanging to verdict."""
        return None if self.told_ns is None or self.hangs_since_ns is None else (self.told_ns - self.hangs_since_ns) / 1e9


def contains(text: str, part: str, names: dict[str, Any]) -> bool:
    """Whether the text has the part, or one of its alternatives "a|b"."""
    return any(fill(either, names) in text for either in part.split("|"))


def wait_faults(played: Played) -> Iterator[str]:
    """Whether the right thing was said of a watched one, once, and nothing else."""
    expect = played.hang.expect
    if played.ended is not None:
        yield f"it ended meanwhile ({played.ended})"
    wanted = 1 if played.hang.hung else 0
    told = [f"{i['cause']}: {i['headline']} [{i['culprit']}]" for i in played.incidents]
    states = [data["state"] for data in played.of_type("agentscope.wait.changed")]
    if len(told) != wanted:
        yield f"{len(told)} incidents, expected {wanted} ({expect.cause}): {told}; states {states}"
    for incident in played.incidents if wanted else []:
        if incident["cause"] != expect.cause:
            findings = [f"{finding['cause']} {finding['confidence']}" for finding in incident.get("findings", [])]
            yield f"cause {incident['cause']!r}, expected {expect.cause!r}; {incident['headline']!r}; findings {findings}"
        for part in expect.culprit_contains:
            if not contains(incident["culprit"], part, played.names):
                yield f"culprit {incident['culprit']!r} does not contain {fill(part, played.names)!r}"
    if expect.state is not None and not any(state.startswith(expect.state) for state in states[-1:]):
        yield f"the last state is {states[-1:]}, expected {expect.state!r}"


def diagnosis_faults(played: Played) -> Iterator[str]:
    """Whether `diagnose` alone, with nobody watching, comes to the same cause."""
    expect, diagnosed = played.hang.expect, played.diagnosed
    wanted = 10 if played.hang.hung else 0
    said = {key: diagnosed.said.get(key) for key in ("cause", "culprit", "headline", "state", "outstanding")}
    if diagnosed.status != wanted:
        yield f"diagnose exits with {diagnosed.status}, expected {wanted}: {said} {diagnosed.stderr}"
    if played.hang.hung and diagnosed.said.get("cause") != expect.cause:
        yield f"diagnose says {said}, expected {expect.cause!r}"


class Show:
    """Plays the chosen scenarios at first use: the idle ones together, those that need a CPU two at a time."""

    def __init__(self, folder: Path, chosen: list[Hang], options: tuple[str, ...] = (), front: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.options = options  # of agentscope, and what starts it
        self.front = front
        self.played: dict[str, Played] = {}
        self.broken: dict[str, str] = {}
        for number, batch in enumerate(batches(chosen)):
            self._play(batch, folder / f"batch-{number}")

    def of(self, hang: Hang) -> Played:
        """How this one was played."""
        if hang.slug in self.broken:
            raise Broken(self.broken[hang.slug])
        return self.played[hang.slug]

    @property
    def outcomes(self) -> list[Outcome]:
        """What each agentscope said, one a batch."""
        return list({id(played.outcome): played.outcome for played in self.played.values()}.values())

    def _play(self, batch: list[Hang], folder: Path) -> None:
        folder.mkdir()
        with ThreadPoolExecutor(8) as workers, contextlib.ExitStack() as stack:
            actors = [actor for actor in workers.map(lambda hang: self._started(hang, folder), batch) if actor is not None]
            stack.callback(lambda: list(workers.map(Actor.close, actors)))
            outcome, told_ns = self._watched(actors, folder, workers)
            ended = [actor.status() for actor in actors]
            diagnosed = list(workers.map(lambda actor: diagnose(actor.pid, folder), actors))
            for actor, end, diagnosis in zip(actors, ended, diagnosed, strict=True):
                if actor.hang.slug in self.broken:
                    continue
                since, slug = actor.hangs_since_ns, actor.hang.slug
                self.played[slug] = Played(
                    actor.hang, actor.pid, actor.names, since, outcome, told_ns.get(actor.pid), end, diagnosis
                )

    def _started(self, hang: Hang, folder: Path) -> Actor | None:
        try:
            return Actor(hang, folder / hang.slug)
        except (Broken, OSError, subprocess.SubprocessError) as error:
            self.broken[hang.slug] = str(error)
            return None

    def _trigger(self, actor: Actor) -> None:
        try:
            actor.trigger()
        except (Broken, OSError, subprocess.SubprocessError) as error:
            self.broken[actor.hang.slug] = str(error)

    def _watched(self, actors: list[Actor], folder: Path, workers: ThreadPoolExecutor) -> tuple[Outcome, dict[int, int]]:
        """Let them hang, with agentscope attached; when the first incident of each came, by CLOCK_MONOTONIC."""
        pids = [actor.pid for actor in actors]
        watcher = Watcher(pids, folder, "--hang-after", str(PATIENCE_S), *self.options, front=self.front)
        told_ns: dict[int, int] = {}
        try:
            watcher.attach(pids)
            list(workers.map(self._trigger, actors))
            hung = {actor.pid for actor in actors if actor.hang.hung}
            begun, seen = time.monotonic(), 0
            calm_until = begun + (CALM_S if len(hung) < len(actors) else 0)
            while (now := time.monotonic()) < max(calm_until, begun + HUNG_S):
                if now > calm_until and hung <= set(told_ns):
                    break
                time.sleep(0.02)
                with watcher.said.changed:
                    new, seen = watcher.said.lines[seen:], len(watcher.said.lines)
                arrived_ns = time.monotonic_ns()
                for event in (parsed(line) for line in new if f'"{INCIDENT}"' in line):
                    told_ns.setdefault(event["data"]["agent"]["pid"], arrived_ns)
        finally:
            status = watcher.stop()
        lines = tuple(watcher.said.lines)
        outcome = Outcome(Ending(), None, lines, tuple(map(parsed, lines)), status, watcher.stderr(), 0, 0, folder)
        watcher.errors.close()
        return outcome, told_ns


def batches(chosen: list[Hang]) -> list[list[Hang]]:
    """Who is played together: a healthy one that uses a CPU is nice, so two of them do not disturb those that are idle."""
    idle = [hang for hang in chosen if hang.load == "idle"]
    calm = [hang for hang in chosen if hang.load == "cpu" and not hang.hung]
    hung = [hang for hang in chosen if hang.load == "cpu" and hang.hung]
    apart = [each[at : at + TOGETHER] for each in (calm[3:], hung) for at in range(0, len(each), TOGETHER)]
    return [batch for batch in ([*idle, *calm[:3]], *apart) if batch]


def diagnose(pid: int, folder: Path) -> Diagnosed:
    """Ask for one report, of a process that nobody watches any more."""
    argv = [
        str(AGENTSCOPE),
        "diagnose",
        str(pid),
        "--json",
        "--hang-after",
        str(PATIENCE_S),
        "--state-dir",
        str(folder / "none"),
    ]
    begun = time.monotonic()
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Diagnosed(-1, {}, "did not end within 30 s", 30.0)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {}
    return Diagnosed(done.returncode, said if isinstance(said, dict) else {}, done.stderr[-2000:], time.monotonic() - begun)
