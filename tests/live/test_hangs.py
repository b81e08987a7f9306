"""Every scenario of the hang zoo: the hung ones are named, with their culprit, and the healthy ones are left in peace."""

from collections import defaultdict

import pytest
from hangs import Hang, hangs
from recordings import record_wait
from scenario import REPOSITORY, fill
from show import PATIENCE_S, Played, Show, contains, diagnosis_faults, wait_faults
from verdicts import stream_faults
from zoo import AGENTSCOPE

ALL = hangs()
every_hang = pytest.mark.parametrize("hang", ALL, ids=lambda hang: hang.slug)
live = [pytest.mark.live, pytest.mark.usefixtures("root")]


@pytest.fixture(scope="session")
def show(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Show:
    """The one run that these tests ask about; it plays what was chosen on the command line, or everything."""
    if not AGENTSCOPE.exists():
        pytest.skip(f"agentscope is not installed at {AGENTSCOPE}: pip install -e .")
    parameters = [
        each.callspec.params
        for each in request.session.items
        if isinstance(each, pytest.Function) and hasattr(each, "callspec")
    ]
    asked = {each["hang"].slug for each in parameters if "hang" in each} or {hang.slug for hang in ALL}
    return Show(tmp_path_factory.mktemp("show"), [hang for hang in ALL if hang.slug in asked and not hang.missing()])


def skip_without_needs(hang: Hang) -> None:
    """Skip where the machine lacks something."""
    if missing := hang.missing():
        pytest.skip(f"needs {', '.join(missing)}")


@every_hang
class TestHang:
    """One scenario, watched and then diagnosed by itself."""

    pytestmark = live

    def test_watched(self, hang: Hang, show: Show, request: pytest.FixtureRequest) -> None:
        """Watched, a hung agent has exactly one incident with its cause and culprit, a healthy one none."""
        skip_without_needs(hang)
        played = show.of(hang)
        faults = list(wait_faults(played))
        assert not faults, "\n".join(faults)
        if request.config.getoption("--record"):
            record_wait(played)

    def test_diagnosed(self, hang: Hang, show: Show) -> None:
        """With nobody watching, `diagnose` finds the same cause and says by its exit status whether it hangs."""
        skip_without_needs(hang)
        faults = list(diagnosis_faults(show.of(hang)))
        assert not faults, "\n".join(faults)


class TestAll:
    """All scenarios that were played, together."""

    pytestmark = live

    def test_streams(self, show: Show) -> None:
        """Every line of every stream keeps the schema, none was lost, and agentscope said nothing on stderr."""
        faults = [fault for outcome in show.outcomes for fault in stream_faults(outcome)]
        assert not faults, "\n".join(faults)

    def test_totals(self, show: Show, capsys: pytest.CaptureFixture[str]) -> None:
        """No healthy agent is called hung; of the hung ones 95 % are named with class and name, and the culprit of 90 %."""
        hung = [played for played in show.played.values() if played.hang.hung]
        calm = [played for played in show.played.values() if not played.hang.hung]
        named = [each for each in hung if [incident["cause"] for incident in each.incidents] == [each.hang.expect.cause]]
        blamed = [
            each
            for each in named
            if all(contains(each.incidents[0]["culprit"], part, each.names) for part in each.hang.expect.culprit_contains)
        ]
        false = [each.hang.slug for each in calm if each.incidents or each.diagnosed.status == 10]
        with capsys.disabled():
            print(f"\n{'hung scenario':28} {'seconds':>7} {'alone':>6}  cause and culprit (--hang-after {PATIENCE_S})")
            for each in sorted(hung, key=lambda each: each.hang.slug):
                print(row(each))
            print(
                f"named {len(named)} of {len(hung)}, blamed {len(blamed)}; false hangs: {false or 'none'} of {len(calm)} healthy"
            )
        assert not false
        assert len(named) >= 0.95 * len(hung)
        assert len(blamed) >= 0.9 * len(hung)


def row(played: Played) -> str:
    """One line of the table: name, from hanging to verdict, how long `diagnose` took, and what was said."""
    told = [f"{incident['cause']}: {incident['culprit']}" for incident in played.incidents]
    after = "-" if played.after_s is None else f"{played.after_s:.1f}"
    return f"{played.hang.slug:28} {after:>7} {played.diagnosed.took_s:>6.1f}  {'; '.join(told) or 'nothing said'}"[:200]


def test_every_cause_has_its_near_miss() -> None:
    """Each cause that hangs show has a healthy scenario that looks alike, and half of all are healthy."""
    by_slug = {hang.slug: hang for hang in ALL}
    misses = defaultdict(set)
    for hang in ALL:
        assert hang.hung == (hang.near_miss_of is None), hang.slug
        if hang.near_miss_of is not None:
            assert by_slug[hang.near_miss_of].hung, f"{hang.slug} misses nothing"
            misses[by_slug[hang.near_miss_of].expect.cause].add(hang.slug)
    assert {hang.expect.cause for hang in ALL if hang.hung} == set(misses)
    assert len(ALL) >= 50
    assert sum(not hang.hung for hang in ALL) >= len(ALL) // 2


def test_every_cause_is_shown() -> None:
    """No cause of the class hang is without a scenario that hangs in this way."""
    causes = {f"hang/{path.stem}".replace("_", "-") for path in (REPOSITORY / "agentscope/causes/hang").glob("[!_]*.py")}
    assert causes == {hang.expect.cause for hang in ALL if hang.hung}


def test_every_culprit_cites_a_line_that_exists() -> None:
    """No scenario expects a {line} that its program is not marked with."""
    for hang in ALL:
        names = hang.names()
        for part in hang.expect.culprit_contains:
            assert "{line" not in fill(part, names), hang.slug
