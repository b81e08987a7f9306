"""What an agent stands on is changed under it: each change that breaks it is named with its time, each that does not is left alone.

Every scene of `drift/scenes` really fails (or works) on this machine: the libraries are built, the distributions are installed by pip
from PyPI, the Node packages by npm, the Debian packages by apt in an overlay.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drift.case import Case, cases
from drift.lab import Lab
from drift.places import Place, Unplayable
from drift.stage import Played, Stage, played
from scenario import Ending, which
from verdicts import stream_faults
from zoo import AGENTSCOPE, INCIDENT

every_case = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab for all cases that need a package tool."""
    if any(shutil.which(tool) is None for tool in ("apt-get", "dpkg-deb", "unshare", "nsenter")):
        pytest.skip("needs apt and util-linux")
    try:
        opened = Lab(tmp_path_factory.mktemp("drift-lab"))
    except Unplayable as reason:
        pytest.skip(str(reason))
    yield opened
    opened.close()


def place_of(case: Case, folder: Path, request: pytest.FixtureRequest) -> Place:
    """Where a case plays; skipped where it cannot."""
    if missing := [need for need in case.needs if which(need) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    if case.lab:
        opened: Lab = request.getfixturevalue("lab")
        return opened.place(case.name)
    return Place(case.name, folder / "place")


def play(case: Case, folder: Path, request: pytest.FixtureRequest, *, watched: bool) -> Played:
    """Play a case on its stage."""
    stage = Stage(place_of(case, folder, request), folder, stderr=case.stderr, watched=watched)
    try:
        return played(case.scene, case.flow, stage)
    except Unplayable as reason:
        pytest.skip(str(reason))


def ending_faults(case: Case, run: Played) -> Iterator[str]:
    """Whether it really broke, or worked, in the declared way."""
    if run.ended != case.ends:
        yield f"it ended with {run.ended}, declared is {case.ends}: {run.stderr[-1500:]}"
    if case.complains not in run.stderr:
        yield f"it did not write {case.complains!r}: {run.stderr[-1500:]}"


def verdict_faults(case: Case, run: Played) -> Iterator[str]:
    """Whether the right thing was said, once, and nothing else."""
    incidents = run.outcome.of_type(INCIDENT)
    if len(incidents) != (0 if case.cause == "none" else 1):
        yield f"{len(incidents)} incidents: {[(told['cause'], told['headline']) for told in incidents]}"
    for incident in incidents:
        if incident["cause"] != case.cause:
            findings = [f"{finding['cause']} {finding['confidence']}" for finding in incident["findings"]]
            yield f"cause {incident['cause']!r}, expected {case.cause!r}; {incident['headline']!r}; findings {findings}"
        if Ending(code=incident["exit"]["code"], signal=incident["exit"]["signal"]) != case.ends:
            yield f"exit {incident['exit']}, expected {case.ends}"
        told = f"{incident['culprit']} | {incident['headline']}"
        yield from (f"{name!r} is not in {told!r}" for name in case.names if name not in told)
        whole = json.dumps(incident, ensure_ascii=False)
        yield from (f"{part!r} is nowhere in the incident" for part in case.proof if part not in whole)
        if not case.innocent:
            moments = {time.strftime("%H:%M", time.localtime(at / 1e9)) for at in run.changed_ns}
            if not any(moment in told or any(moment in each["says"] for each in incident["evidence"]) for moment in moments):
                yield f"the time of the change, {sorted(moments)}, is not told: {told!r}"


@pytest.mark.live
@pytest.mark.usefixtures("root")
@every_case
def test_verdict(case: Case, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The agent really ends as declared, and what is said of it names the culprit, or leaves the innocent alone."""
    if not AGENTSCOPE.exists():
        pytest.skip("agentscope is not installed")
    run = play(case, tmp_path, request, watched=True)
    faults = [*ending_faults(case, run), *stream_faults(run.outcome), *verdict_faults(case, run)]
    assert not faults, "\n".join(faults)
