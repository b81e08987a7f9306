"""Keeps a run as a fixture for replay: the stream without this machine's names and paths, and the verdict."""

import json
import os
import socket
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from cage import hierarchies
from hangs import Hang
from scenario import BUILD, FIXTURES, REPOSITORY, Scenario
from show import Played
from zoo import INCIDENT, Outcome


def outer() -> dict[int, str]:
    """Pids and names of what started us: they belong to this machine, not to the scenario."""
    found: dict[int, str] = {}
    pid = os.getppid()
    while pid > 0:
        line = Path(f"/proc/{pid}/stat").read_text()
        found[pid] = line[line.index("(") + 1 : line.rindex(")")]
        pid = int(line[line.rindex(")") + 2 :].split()[1])
    return found


@cache
def own_cgroup() -> str:
    """The memory cgroup that we run in ourselves, as the kernel names it."""
    memory, _, v1 = hierarchies()
    return "/" + str(memory.relative_to("/sys/fs/cgroup/memory" if v1 else "/sys/fs/cgroup")).lstrip("./")


def swaps(scenario: Scenario | Hang, outcome: Outcome) -> list[tuple[str, str]]:
    """What is found in strings and what is put in its place, longest paths first."""
    return [
        (str(scenario.build), "/zoo/build"),
        (str(BUILD), "/zoo/build"),
        (str(scenario.folder), "/zoo"),
        (str(FIXTURES), "/zoo"),
        (str(outcome.folder), "/zoo/home"),
        (str(REPOSITORY), "/checkout"),
        (f"{own_cgroup().rstrip('/')}/zoo-{os.getpid()}-", "/zoo-"),
        *((f" \u2190 {comm} {pid}", "") for pid, comm in outer().items()),
        (f"//{socket.gethostname()}/", "//host/"),
    ]


def scrubbed(value: Any, found: list[tuple[str, str]], strangers: set[int]) -> Any:
    """The value without names and paths of this machine."""
    if isinstance(value, str):
        if value == own_cgroup():
            return "/"
        for old, new in found:
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {key: scrubbed(part, found, strangers) for key, part in value.items()}
    if isinstance(value, list):
        kept = [
            part for part in value if not (isinstance(part, dict) and set(part) == {"pid", "comm"} and part["pid"] in strangers)
        ]
        return [scrubbed(part, found, strangers) for part in kept]
    return value


def record(scenario: Scenario | Hang, outcome: Outcome) -> None:
    """Write events.ndjson and diagnosis.json beside the scenario."""
    keep(scenario.record, outcome, swaps(scenario, outcome))


def keep(folder: Path, outcome: Outcome, found: list[tuple[str, str]]) -> None:
    """Write the two files into a folder."""
    strangers = set(outer())
    events = [scrubbed(event, found, strangers) for event in outcome.events]
    folder.mkdir(exist_ok=True)
    (folder / "events.ndjson").write_text("".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in events))
    verdicts = [verdict(event["data"]) for event in events if event["type"] == INCIDENT]
    (folder / "diagnosis.json").write_text(json.dumps(verdicts, indent=2, ensure_ascii=False) + "\n")


def record_drift(name: str, outcome: Outcome) -> None:
    """Write the same two files for one scene of drift; what its agents used while nothing was wrong is left out."""
    found = [
        (str(outcome.folder), "/drift"),
        (str(BUILD), "/drift/build"),
        (str(REPOSITORY), "/checkout"),
        (f"{own_cgroup().rstrip('/')}/zoo-{os.getpid()}-", "/zoo-"),
        *((f" \u2190 {comm} {pid}", "") for pid, comm in outer().items()),
        (f"//{socket.gethostname()}/", "//host/"),
    ]
    events = tuple(event for event in outcome.events if event["type"] != "agentscope.pulse")
    keep(FIXTURES / f"drift-{name}", msgspec.structs.replace(outcome, events=events), found)


def record_wait(played: Played) -> None:
    """Write the same two files for one scenario of the hang zoo: those lines of the shared stream that are about its agent."""
    outcome = played.outcome
    tree = {played.pid}
    kept = []
    for event in outcome.events:
        data = event["data"]
        if data.get("ppid") in tree or data.get("parent_pid") in tree:
            tree.add(data["pid"])
        whose = {data.get("pid"), data.get("agent_pid"), (data.get("agent") or {}).get("pid")}
        if event["type"] == "agentscope.ready":
            kept.append({**event, "data": {**data, "targets": [f"--pid {played.pid}"]}})
        elif whose & tree:
            kept.append(event)
    record(played.hang, msgspec.structs.replace(outcome, events=tuple(kept), folder=Path(played.names["home"])))


def verdict(incident: dict[str, Any]) -> dict[str, Any]:
    """The part of an incident that a replay must reproduce."""
    actor = incident.get("actor")
    return {
        "cause": incident["cause"],
        "culprit": incident["culprit"],
        "scope": incident["scope"],
        "exit": incident["exit"],
        "actor": actor and {"kind": actor["kind"], "comm": actor.get("comm")},
    }
