"""What an agent stands on is changed under it: each change that breaks it is named with its time, each that does not is left alone.

Every scene of `drift/scenes` really fails (or works) on this machine: the libraries are built, the distributions are installed by pip
from PyPI, the Node packages by npm, the Debian packages by apt in an overlay.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drift.case import Case, cases
from drift.lab import Lab
from drift.places import Place, Unplayable
from drift.stage import Played, Stage, played
from recordings import record_drift
from scenario import FIXTURES, REPOSITORY, Ending, which
from verdicts import stream_faults
from zoo import AGENTSCOPE, INCIDENT

every_case = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)


PATIENCE_S = 300.0
AT_ONCE = 2  # most of a scene is waiting


class Plays:
    """Plays scenes several at once; those of the lab one after the other, because a package tool has a system for itself."""

    def __init__(self, chosen: list[Case], folder: Path) -> None:
        self.folder = folder
        self.lab: Lab | None = None
        self.alone, self.beside = ThreadPoolExecutor(1), ThreadPoolExecutor(AT_ONCE)
        self.plays = {case.name: (self.alone if case.lab else self.beside).submit(self.play, case) for case in chosen}

    def play(self, case: Case) -> Played:
        """Play one."""
        if missing := [need for need in case.needs if which(need) is None]:
            raise Unplayable(f"needs {', '.join(missing)}")
        folder = self.folder / case.name
        stage = Stage(self.lab_place(case) if case.lab else Place(case.name, folder / "place"), folder, case.stderr)
        return played(case.scene, case.flow, stage)

    def lab_place(self, case: Case) -> Place:
        """A place in the lab, which is set up for the first."""
        if missing := [tool for tool in ("apt-get", "dpkg-deb", "unshare", "nsenter") if which(tool) is None]:
            raise Unplayable(f"needs {', '.join(missing)}")
        self.lab = self.lab or Lab(self.folder / "lab")
        return self.lab.place(case.name)

    def close(self) -> None:
        """Play no more."""
        for pool in (self.alone, self.beside):
            pool.shutdown(cancel_futures=True)
        if self.lab is not None:
            self.lab.close()


@pytest.fixture(scope="module")
def plays(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    """The scenes of the tests that were chosen, playing."""
    if not AGENTSCOPE.exists():
        pytest.skip("agentscope is not installed")
    items = [
        item for item in request.session.items if item.path == request.path and "case" in getattr(item, "fixturenames", ())
    ]
    playing = Plays([item.callspec.params["case"] for item in items], tmp_path_factory.mktemp("drift"))
    yield playing
    playing.close()


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


def reasons(run: Played) -> Iterator[str]:
    """What agentscope had to go by, for whoever reads a failure."""
    for incident in run.outcome.of_type(INCIDENT):
        yield from (f"  had {each['kind']}: {each['says']}" for each in incident["evidence"])
        yield from (f"  lacked {each['kind']}: {each['because']}" for each in incident["missing"])
        for verdict in ("ruled_out", "not_checked"):
            yield from (
                f"  {verdict} {each['cause']}: {each['because']}" for each in incident[verdict] if "drift" in each["cause"]
            )


@pytest.mark.live
@pytest.mark.usefixtures("root")
@every_case
def test_verdict(case: Case, plays: Plays, request: pytest.FixtureRequest) -> None:
    """The agent really ends as declared, and what is said of it names the culprit, or leaves the innocent alone."""
    try:
        run = plays.plays[case.name].result(PATIENCE_S)
    except Unplayable as reason:
        pytest.skip(str(reason))
    faults = [*ending_faults(case, run), *stream_faults(run.outcome), *verdict_faults(case, run)]
    assert not faults, "\n".join([*faults, *reasons(run)])
    if case.recorded and request.config.getoption("--record"):
        record_drift(case.name, run.outcome)


def test_every_cause_is_recorded_with_its_near_miss() -> None:
    """Of each cause of drift a scene is kept for replay, and of each a scene that looks like it and is none."""
    causes = {f"drift/{path.stem}".replace("_", "-") for path in (REPOSITORY / "agentscope/causes/drift").glob("[!_]*.py")}
    kept = [case for case in cases() if case.recorded]
    assert {case.cause for case in kept if not case.innocent} == causes
    assert sum(case.innocent for case in kept) >= len(causes)
    folders = {path.parent.name for path in FIXTURES.glob("drift-*/events.ndjson")}
    assert folders == {f"drift-{case.name}" for case in kept}
    assert max(path.stat().st_size for path in FIXTURES.glob("drift-*/events.ndjson")) < 60 << 10
