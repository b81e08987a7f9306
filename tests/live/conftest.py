"""Live tests: really crashing processes, each in its own small memory cgroup."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import TABLE, table_of
from scenario import Scenario
from zoo import AGENTSCOPE, Outcome, watched_run


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/live --record` keeps the stream of every scenario that came out as declared."""
    parser.addoption(
        "--record", action="store_true", help="write fixtures/<slug>/events.ndjson and diagnosis.json of scenarios that pass"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of scenarios by engine, where those were played."""
    worths = config.stash.get(TABLE, {})
    if worths:
        terminalreporter.section("scenario by engine")
        terminalreporter.write_line("\n".join(table_of(worths)))


@pytest.fixture
def root() -> None:
    """Skip without root: probes and cgroups need it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it loads probes and makes memory cgroups")


@pytest.fixture(scope="session", autouse=True)
def forwarding() -> Iterator[None]:
    """Engines of containers turn on the forwarding of packets; whoever started them here puts it back."""
    setting = Path("/proc/sys/net/ipv4/ip_forward")
    before = setting.read_text()
    yield
    if setting.read_text() != before:
        setting.write_text(before)


class Theatre:
    """Plays each scenario at most once a session, so that several tests can ask about the same run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}

    def outcome(self, scenario: Scenario) -> Outcome:
        """What agentscope said about this scenario."""
        if scenario.slug not in self.outcomes:
            self.outcomes[scenario.slug] = watched_run(scenario, self.folder / scenario.slug.replace("/", "."))
        return self.outcomes[scenario.slug]


@pytest.fixture(scope="session")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Theatre:
    """The one place where scenarios are played under agentscope."""
    if not AGENTSCOPE.exists():
        pytest.skip(f"agentscope is not installed at {AGENTSCOPE}: pip install -e .")
    return Theatre(tmp_path_factory.mktemp("theatre"))
