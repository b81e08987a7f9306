"""The scenarios under the other engines: what cannot be seen there is never made up.

A few of them in an ordinary run; AGENTSCOPE_ENGINES=all plays every one, which takes an hour, and prints the table.
Engine bcc needs the headers of the kernel that runs: it is played in tests/kernels, on kernels that have theirs, with BTF hidden.
"""

import os
from pathlib import Path

import pytest
from engines import BEST_LAST, OF_HANGS, TABLE, WAYS, Way, Worth, worth_of
from hangs import Hang, hangs
from scenario import Scenario, scenarios
from show import Show
from verdicts import stream_faults
from zoo import AGENTSCOPE, Broken, watched_run

EVERYTHING = os.environ.get("AGENTSCOPE_ENGINES") == "all"
DEATHS = {
    "netlink, bpf() refused": {
        "ctrl-c", "exec-from-thread", "kill-9-by-bash", "kill-11-from-outside", "leader-first/fault",
        "sigterm-stranger", "tool-segfault/vfork", "uncaught/pipe", "wrapped/timeout-segfault",
    },
    "netlink, an ordinary user": {"kill-9-by-bash", "oom-cgroup", "uncaught/file"},
    "none, an ordinary user": {"c-null-write", "exit-0", "oom-cgroup", "tool-exit-1", "uncaught/file"},
}  # fmt: skip
HANGS = {"hang-two-locks", "hang-recv", "hang-flock", "hang-stopped", "hang-own-pipe"}
played = [
    pytest.param(way, scenario, id=f"{way.engine}{'-nobody' if way.of_victim else ''}-{scenario.slug}")
    for way in WAYS
    for scenario in scenarios()
    if EVERYTHING or scenario.slug in DEATHS.get(way.name, ())
]
hung = [
    pytest.param(way, hang, id=f"{way.engine}-{hang.slug}")
    for way in OF_HANGS
    for hang in hangs()
    if EVERYTHING or (way == WAYS[0] and hang.slug in HANGS)
]


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that another user may reach and write to."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o777 if folder == tmp_path else 0o755)
    return tmp_path


@pytest.mark.live
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("way", "scenario"), played)
def test_a_death(way: Way, scenario: Scenario, open_folder: Path, request: pytest.FixtureRequest) -> None:
    """Under each engine an end is explained rightly, or it is said that it could not be; a wrong verdict there is none."""
    if missing := scenario.missing():
        pytest.skip(f"needs {', '.join(missing)}")
    if not AGENTSCOPE.exists():
        pytest.skip(f"agentscope is not installed at {AGENTSCOPE}: pip install -e .")
    try:
        outcome = watched_run(scenario, open_folder, *way.options, front=way.front, of_victim=way.of_victim)
    except Broken:
        if way.of_victim:
            pytest.skip("an ordinary user cannot play this scenario")
        raise
    if outcome.ended != scenario.expect.wait and way.of_victim:
        pytest.skip(f"it ends otherwise for an ordinary user: {outcome.ended}")
    (ready,) = outcome.of_type("agentscope.ready")
    if way.of_victim and ready["engine"] == "none" and way.engine == "netlink":
        pytest.skip("this kernel tells an ordinary user nothing over netlink (before 6.6)")
    worth, told = worth_of(outcome, scenario)
    worth = told_once(request, scenario.slug, way, worth)
    assert ready["engine"] == way.engine
    assert worth != "wrong", f"{scenario.expect.cause} expected: {told}"
    assert [incident["engine"] for incident in outcome.of_type("agentscope.incident.opened")] in (
        [],
        [way.engine],
        [way.engine] * 2,
    )
    faults = [fault for fault in stream_faults(outcome) if "less evidence" not in fault]
    assert not faults, "\n".join(faults)


@pytest.mark.live
@pytest.mark.usefixtures("root")
def test_what_needs_no_probe_is_right(tmp_path: Path) -> None:
    """A kill for memory and a fault stand in the kernel log, and an error in a log file: as root, engine netlink names them."""
    for slug in ("oom-cgroup", "c-null-write", "uncaught/file"):
        scenario = next(each for each in scenarios() if each.slug == slug)
        outcome = watched_run(scenario, tmp_path / slug.replace("/", "."), *WAYS[0].options, front=WAYS[0].front)
        assert worth_of(outcome, scenario)[0] == "right"


class Shows:
    """The hangs that were chosen, a show for each way to watch them."""

    def __init__(self, folder: Path, chosen: list[tuple[Way, Hang]]) -> None:
        self.folder = folder
        self.chosen = chosen
        self.shows: dict[Way, Show] = {}

    def of(self, way: Way) -> Show:
        """The one show of this way, played at first use."""
        if way not in self.shows:
            asked = [hang for each, hang in self.chosen if each == way and not hang.missing()]
            self.shows[way] = Show(self.folder / way.engine, asked, way.options, way.front)
        return self.shows[way]


@pytest.fixture(scope="session")
def shows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shows:
    """The hangs that were chosen on the command line, or all of them."""
    parameters = [
        each.callspec.params
        for each in request.session.items
        if isinstance(each, pytest.Function) and hasattr(each, "callspec")
    ]
    chosen = [(each["way"], each["hang"]) for each in parameters if {"way", "hang"} <= each.keys()]
    folder = tmp_path_factory.mktemp("engines")
    for way in OF_HANGS:
        (folder / way.engine).mkdir()
    return Shows(folder, chosen)


@pytest.mark.live
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("way", "hang"), hung)
def test_a_hang(way: Way, hang: Hang, shows: Shows, request: pytest.FixtureRequest) -> None:
    """Under each engine a hang is named rightly, or not at all; a healthy agent is not called hung."""
    if missing := hang.missing():
        pytest.skip(f"needs {', '.join(missing)}")
    found = shows.of(way).of(hang)
    (ready,) = found.outcome.of_type("agentscope.ready")
    assert ready["engine"] == way.engine
    told = [(each["cause"], each["confidence"]) for each in found.incidents]
    expected = [hang.expect.cause] if hang.hung else []
    worth: Worth = "right" if [cause for cause, _ in told] == expected else "undetermined" if not told else "wrong"
    assert told_once(request, hang.slug, way, worth) != "wrong", f"{hang.expect.cause} expected: {told}"


def told_once(request: pytest.FixtureRequest, slug: str, way: Way, worth: Worth) -> Worth:
    """Put one cell into the table that is printed at the end. What was wrong once stays so, though it be right when tried again."""
    table = request.config.stash.setdefault(TABLE, {})
    table[slug, way.name] = min(worth, table.get((slug, way.name), worth), key=BEST_LAST.index)
    return table[slug, way.name]
