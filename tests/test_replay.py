"""Replays every recorded scenario: the same lines must give the same diagnosis, without a kernel."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
AGENTSCOPE = Path(os.environ.get("ZOO_AGENTSCOPE") or Path(sys.executable).parent / "agentscope")
RECORDED = sorted(path.parent for path in (REPOSITORY / "fixtures").rglob("events.ndjson"))
DRIFT = [folder for folder in RECORDED if folder.name.startswith("drift-")]


def replayed(events: Path, zone: str | None = None) -> tuple[list[dict[str, Any]], str]:
    """The incidents that a replay of this file tells, in this or another time zone, and what it said on stderr."""
    argv = [str(AGENTSCOPE), "replay", str(events), "--json"]
    env = {**os.environ, "TZ": zone} if zone else None
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, env=env)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        line.get("data", line)
        for line in lines
        if line.get("type", "agentscope.incident.opened") == "agentscope.incident.opened"
    ], done.stderr


def verdicts(incidents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of each incident a replay must tell again."""
    return [
        {
            "cause": incident["cause"],
            "culprit": incident["culprit"],
            "scope": incident["scope"],
            "exit": incident["exit"],
            "actor": incident.get("actor") and {"kind": incident["actor"]["kind"], "comm": incident["actor"].get("comm")},
        }
        for incident in incidents
    ]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: str(folder.relative_to(REPOSITORY / "fixtures")))
def test_replay_gives_the_recorded_diagnosis(folder: Path) -> None:
    """A recorded stream, replayed, tells the same cause, culprit, scope, exit and actor as it did live."""
    incidents, errors = replayed(folder / "events.ndjson")
    assert verdicts(incidents) == json.loads((folder / "diagnosis.json").read_text()), errors


@pytest.mark.parametrize("folder", DRIFT, ids=lambda folder: folder.name)
def test_a_drift_is_told_in_the_time_of_the_machine_that_recorded_it(folder: Path) -> None:
    """A replay half the world away tells the same culprit at the same hour: it is to be found in that machine's logs."""
    incidents, errors = replayed(folder / "events.ndjson", "Asia/Kathmandu")
    assert verdicts(incidents) == json.loads((folder / "diagnosis.json").read_text()), errors


def test_recordings_are_whole_and_name_no_machine() -> None:
    """Each recording has its diagnosis, and neither holds a path of the checkout or this machine's name."""
    assert sorted(path.parent for path in (REPOSITORY / "fixtures").rglob("diagnosis.json")) == RECORDED
    for folder in RECORDED:
        text = (folder / "events.ndjson").read_text()
        assert str(REPOSITORY) not in text
        assert "/root/" not in text
