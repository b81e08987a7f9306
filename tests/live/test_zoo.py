"""Every scenario of `fixtures/`: it really ends that way, and agentscope says so."""

from collections import defaultdict
from pathlib import Path

import pytest
from conftest import Theatre
from recordings import record
from scenario import Scenario, scenarios
from verdicts import ending_faults, stream_faults, verdict_faults
from zoo import unwatched_end

ALL = scenarios()
every_scenario = pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.slug)


def skip_without_needs(scenario: Scenario) -> None:
    """Skip where the machine lacks a toolchain."""
    if missing := scenario.missing():
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.mark.live
@pytest.mark.usefixtures("root")
@every_scenario
def test_ends_as_declared(scenario: Scenario, tmp_path: Path) -> None:
    """With nobody watching, the program ends with the declared wait status."""
    skip_without_needs(scenario)
    ended, mirrored = unwatched_end(scenario, tmp_path)
    assert ended == scenario.expect.wait
    assert mirrored in {None, scenario.ending}


@pytest.mark.live
@pytest.mark.usefixtures("root")
@every_scenario
def test_verdict(scenario: Scenario, theatre: Theatre, request: pytest.FixtureRequest) -> None:
    """Watched, the program ends the same way, and the stream has exactly the declared incident, or none."""
    skip_without_needs(scenario)
    outcome = theatre.outcome(scenario)
    faults = [*ending_faults(outcome, scenario), *stream_faults(outcome), *verdict_faults(outcome, scenario)]
    assert not faults, "\n".join(faults)
    if request.config.getoption("--record"):
        record(scenario, outcome)


def test_every_cause_has_its_near_miss() -> None:
    """Each cause that the zoo shows has a scenario that looks alike and must be judged otherwise."""
    by_slug = {scenario.slug.split("/")[0]: scenario for scenario in ALL} | {scenario.slug: scenario for scenario in ALL}
    misses = defaultdict(set)
    for scenario in ALL:
        if scenario.near_miss_of is not None:
            assert scenario.near_miss_of in by_slug, (
                f"{scenario.slug} is a near miss of {scenario.near_miss_of}, which is not there"
            )
            shown = by_slug[scenario.near_miss_of]
            shown_as = (shown.expect.cause, shown.expect.scope)
            assert shown_as != (scenario.expect.cause, scenario.expect.scope), f"{scenario.slug} misses nothing"
            misses[shown.expect.cause].add(scenario.slug)
    assert {scenario.expect.cause for scenario in ALL} - {"none"} == set(misses) - {"none"}


def test_every_exception_cites_a_line_that_exists() -> None:
    """No scenario expects a {line} that no source is marked with."""
    asked = [
        scenario
        for scenario in ALL
        if any("{line}" in part for part in (*scenario.expect.culprit_contains, *scenario.expect.proof_contains))
    ]
    assert asked
    assert not [scenario.slug for scenario in asked if scenario.names()["line"] == "None"]
