"""Many hosts on one screen: names, clocks, restarts, and which change broke agents on many of them."""

import asyncio
from functools import partial

import msgspec
import pytest
from textual.geometry import Size

from agentscope.errors import BadInput, EngineUnavailable
from agentscope.fleet.joining import RESTARTED, Joined
from agentscope.fleet.reading import Fleet, check_fleet
from agentscope.fleet.watching import Fleeting, print_fleet
from agentscope.model import AgentGone, AgentSeen, Lost
from agentscope.record import Recorder, decode
from agentscope.views import table
from agentscope.views.board import Board
from agentscope.views.changes import WINDOW_NS, Changes, render_changes
from agentscope.views.tui import lines
from tests import samples
from tests.sink_builders import until
from tests.test_fleet import all_sent, host, server  # noqa: F401 - the fixture
from tests.test_metrics import drifted
from tests.test_tui import screen_text

S = 1_000_000_000
OURS_NS = samples.BOOT_WALL_NS - 500 * S  # our boot was earlier than theirs


def told(name: str, event, boot: str = "a", sequence: int = 0):
    """A line of a host, as it is read."""
    recorder = Recorder(f"{boot * 8}-0000-4000-8000-000000000000", samples.BOOT_WALL_NS, host=name, run="1")
    recorder.sequence = sequence
    return decode(recorder.encode(event))


def test_agents_of_two_hosts_with_one_name():
    """The same name and pid on two hosts are two agents, each with its host before its name, at the time at which it was seen."""
    joined, board = Joined(OURS_NS), Board()
    board.apply(msgspec.structs.replace(samples.ready(), wall_ns=OURS_NS + 1, at_ns=1, engine="recording"))
    seen = AgentSeen(at_ns=samples.STARTED_NS + S, agent=samples.CODER, because="x")
    for line in (told("one", seen), told("two", seen), told("one", samples.killed_by_bash())):
        for event in joined.events(line):
            board.apply(event)
    rows = {row.agent.name: row for row in board.rows.values()}
    assert set(rows) == {"one/coder", "two/coder"}
    assert rows["one/coder"].died
    assert rows["two/coder"].ended is None
    assert abs(board.began_ns(rows["one/coder"]) - samples.BOOT_WALL_NS - samples.CODER.start_ns) < 10
    (happened,) = board.happened()
    assert abs(happened.wall_ns - samples.BOOT_WALL_NS - samples.killed_by_bash().at_ns) < 10


def test_a_host_that_started_again():
    """With another boot of a host its agents are gone, those of other hosts are not; a new run of agentscope ends nobody."""
    joined = Joined(OURS_NS)
    seen = AgentSeen(at_ns=1, agent=samples.CODER, because="x")
    for line in (told("one", samples.ready()), told("one", seen), told("two", samples.ready()), told("two", seen)):
        list(joined.events(line))
    assert list(joined.events(told("one", samples.ready(), sequence=50))) == []
    (gone,) = joined.events(told("one", samples.ready(), boot="b"))
    assert isinstance(gone, AgentGone)
    assert (gone.agent.name, gone.says) == ("one/coder", RESTARTED)


def test_nothing_is_attached_for_a_fleet():
    """Of a fleet it is said that nothing is attached here; of engine none, which does watch, what it is and what it cannot see."""
    fleet, own = Board(), Board()
    fleet.apply(msgspec.structs.replace(samples.ready(), engine="recording"))
    own.apply(msgspec.structs.replace(samples.ready(), engine="none", degraded=("nobody sees senders",)))
    for says in (table.engine_of, lines.engine_line):
        assert says(fleet).startswith("nothing is attached here · ")
        assert "attached" not in says(own)
        assert "engine none" in says(own)
        assert "with less evidence: nobody sees senders" in says(own)


def test_losses_name_their_host():
    """What a host lost is told with its name."""
    (event,) = Joined(OURS_NS).events(told("one", Lost(at_ns=1, source="ring buffer", count=3)))
    assert event.source == "one: ring buffer"


# --- which change ------------------------------------------------------------------------------------------------------------


def test_one_change_on_many_hosts():
    """Deaths by the same package are one change, with its versions, each host once with when it came there, most hosts first."""
    changes = Changes()
    for number, name in enumerate(("web-3", "web-1", "web-1", "web-2")):
        changes.apply(name, number * S, drifted("numexpr"))
    changes.apply(
        "web-1",
        9 * S,
        msgspec.structs.replace(drifted(), culprit="httpx 0.27.2 -> 0.28.1 at 2026-11-25 20:29 by pip, met at a.py:7"),
    )
    changes.apply("web-1", 9 * S, samples.oom_cgroup())
    first, second = changes.ranked()
    assert (first.thing, list(first.hosts), first.deaths) == ("numexpr", ["web-3", "web-1", "web-2"], 4)
    assert dict(second.clauses) == {"httpx 0.27.2 -> 0.28.1": 1}
    text = render_changes(changes, 100, 3600 * S)
    assert "numexpr  3 hosts, 4 deaths  (drift/python-import)" in text
    assert "numexpr 2.8.4 -> 2.10.0" in text
    assert "on web-3, 1 h ago; hosts: web-3, web-1, web-2" in text.replace("\n      ", " ")
    assert "oom" not in text


def test_a_change_has_a_window():
    """The same package a week later is another change."""
    changes = Changes()
    changes.apply("one", 0, drifted())
    changes.apply("two", WINDOW_NS, drifted())
    changes.apply("one", 7 * WINDOW_NS, drifted())
    assert [len(change.hosts) for change in changes.ranked()] == [2, 1]


def test_a_hostile_culprit_draws_nothing():
    """Control sequences in what is blamed, or in a host's name, reach no terminal."""
    changes = Changes()
    changes.apply("evil\x1b[2J", 0, msgspec.structs.replace(drifted(), culprit=f"{samples.HOSTILE} 1 -> 2"))
    text = render_changes(changes, 80, 1)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_nothing_broke():
    """Without a drift it says so."""
    assert "none: no agent" in render_changes(Changes(), 80, 0)


# --- with a real server ------------------------------------------------------------------------------------------------------


async def published(tmp_path, server, count: int = 3) -> None:  # noqa: F811
    """So many hosts tell of an agent that a change broke."""
    for number in range(count):
        tee, _ = host(tmp_path, server, number)
        for event in (
            samples.ready(),
            AgentSeen(at_ns=samples.STARTED_NS, agent=samples.CODER, because="x"),
            drifted(number=number),
        ):
            tee.write(event)
        assert await until(partial(all_sent, tee))
        tee.close()


async def test_the_table_of_a_fleet(tmp_path, server, monkeypatch):  # noqa: F811
    """`watch --fleet --once` shows every host's agents and incidents, and the change that broke them."""
    server.start()
    monkeypatch.setattr("agentscope.fleet.watching.PAST_S", 10 * 365 * 86400.0)
    await published(tmp_path, server)
    text = await asyncio.to_thread(print_fleet, server.url)
    for number in range(3):
        assert f"host-{number}/coder" in text
    assert "numexpr  3 hosts, 3 deaths" in text


async def test_a_reader_outlives_the_server(tmp_path, server):  # noqa: F811
    """Killed and started again while somebody reads, the server brings every line once, those from before and those from after."""
    server.start()
    await published(tmp_path, server, 2)
    found: list[tuple[str, str]] = []
    reading = asyncio.create_task(collect(Fleet(server.url, 10 * 365 * 86400.0), found))
    assert await until(lambda: len(found) == 6)
    server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)
    await published(tmp_path / "more", server, 4)
    assert await until(lambda: len(found) >= 12, 30), found
    assert not reading.done()
    reading.cancel()
    assert len(found) == len(set(found)) == 12


async def collect(fleet: Fleet, into: list) -> None:
    """Read for ever."""
    async for line in fleet.lines():
        into.append((line.source, line.id))  # noqa: PERF401 - others look at it meanwhile


async def test_a_fleet_that_cannot_be_read(tmp_path, server):  # noqa: F811
    """Nobody there, and a server without the stream: each is a sentence with what to type, and no password in it."""
    with pytest.raises(EngineUnavailable, match="nats-server --jetstream") as raised:
        await collect(Fleet(f"nats://bob:hunter22@127.0.0.1:{server.port}", 60), [])
    assert "hunter22" not in str(raised.value)
    server.start()
    with pytest.raises(EngineUnavailable, match="agentscope events --to"):
        await collect(Fleet(server.url, 60), [])
    with pytest.raises(BadInput, match="names no server"):
        check_fleet("nats:")


async def test_the_screen_of_a_fleet(tmp_path, server, monkeypatch):  # noqa: F811
    """The screen shows the agents of every host as they come; `c` opens the changes that broke agents."""
    from agentscope.views.tui.fleet import FleetApp

    server.start()
    monkeypatch.setattr("agentscope.fleet.watching.PAST_S", 10 * 365 * 86400.0)
    await published(tmp_path, server)
    looking = Fleeting(server.url)
    app = FleetApp(looking.events(), "fleet", looking.changes_text, lambda: looking.incidents)
    async with app.run_test(size=Size(100, 30)) as pilot:
        assert await until(lambda: len(app.board.rows) == 3)
        assert {row.agent.name for row in app.board.rows.values()} == {f"host-{number}/coder" for number in range(3)}
        await pilot.press("c")
        await pilot.pause()
        assert await until(lambda: "numexpr  3 hosts, 3 deaths" in screen_text(app)), screen_text(app)
        await pilot.press("c")
        assert len(app.screen_stack) == 2, "the page is there once"
        await pilot.press("escape")
        await pilot.press("q")
    assert app.failure is None
