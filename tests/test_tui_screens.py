"""Every screen of the terminal UI as a person last approved it, at 80x24 and 120x40, from recorded events; and its keys."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from textual.events import Key
from textual.widgets import Input

from agentscope.agents import Target
from agentscope.errors import BadInput, NoSuchProcess
from agentscope.model import (
    AgentSeen,
    IncidentClosed,
    Lost,
    Pressure,
    RemedyFinished,
    RemedyStarted,
    RuledOut,
)
from agentscope.record import Recorder, decode
from agentscope.screens import glimpse_of
from agentscope.views.board import Board, Glimpse
from agentscope.views.tui.adding import Adding
from agentscope.views.tui.app import WatchApp
from agentscope.views.tui.deeds import Candidate, Look, Means
from agentscope.views.tui.lines import cut_middle
from agentscope.views.tui.playing import Player
from agentscope.views.wording import cells_of, gauge, plot
from tests import samples
from tests.asking import until
from tests.test_tui import from_list, screen_text, settle
from tests.test_views import assert_harmless, golden, utc  # noqa: F401 - a fixture

S, MIB = samples.S, samples.MIB
SIZES = [(80, 24), (120, 40)]
LEAKER = samples.agent("leaker", 7100, "python3 leak.py", cgroup="/agents/leaker", unit="leaker.service")


def remedies(of, incident, at_ns, *, held=True):
    """An agent that was brought back after an incident."""
    told = {"incident": incident, "agent": of}
    return [
        RemedyStarted(at_ns=at_ns, remedy="restart", attempt=1, act="systemctl restart it", because="oom", **told),
        RemedyFinished(at_ns=at_ns + S, remedy="restart", attempt=1, outcome="done", says="systemd started pid 9001", took_ms=812.0, pid=9001, **told),
        RemedyFinished(at_ns=at_ns + 2 * S, remedy="validate", attempt=1, outcome="done", says="its health check answers", took_ms=950.0, **told),
        IncidentClosed(at_ns=at_ns + 20 * S, outcome="restart, attempt 1, held for 60 s", held=held, **told),
    ]  # fmt: skip


def evening():
    """The night of the samples, with a leaker near its limit and an agent that was brought back; nothing hostile."""
    events = [event for event in samples.night() if getattr(event, "agent", None) is not samples.HOSTILE_AGENT]
    last_ns = samples.DIED_NS + 140 * S
    events.append(AgentSeen(at_ns=last_ns - 130 * S, agent=LEAKER, because="its name 'leak.py' matches --name leak"))
    for second in range(120):
        used = (200 + second) * MIB
        events.append(
            samples.pulse(
                LEAKER,
                last_ns - (120 - second) * S,
                used,
                "running",
                cgroup_bytes=used,
                limit_bytes=384 * MIB,
                wrote_ns=last_ns - 130 * S,
            )
        )
    events.append(
        Pressure(
            at_ns=last_ns - 5 * S, agent_pid=LEAKER.pid, agent_start_ns=LEAKER.start_ns, kind="memory", used=315 * MIB, limit=384 * MIB, share=0.82,
            says="memory is at 82 % of 384 MiB and grows by 60 MiB a minute: full in about 69 s", seconds_to_limit=69.0,
        )
    )  # fmt: skip
    events += remedies(samples.RESEARCHER, "2026-11-20T03:12:04Z-4242", samples.DIED_NS + 2 * S)
    return events


CANDIDATES = [
    Candidate(pid=4711, start_ns=1, name="bot.py", command="python3 bot.py", user="ann", because="OPENAI_API_KEY in its environment and a connection to 162.159.140.245:443"),
    Candidate(pid=4712, start_ns=2, name="server.js", command="node server.js --port 80", user="www-data"),
    Candidate(pid=4713, start_ns=3, name="postgres", command="/usr/lib/postgresql/16/bin/postgres -D /var/lib/pg", user="postgres"),
]  # fmt: skip


class Deeds:
    """Deeds as told: what was asked is in `asked`."""

    def __init__(self, look=None, candidates=CANDIDATES, means=None, wrong=None):
        self.asked = []
        self.given, self.candidates, self.how, self.wrong = look, candidates, means, wrong

    def heard(self, *asked):
        """As a person asked."""
        self.asked.append(asked)
        if self.wrong is not None:
            raise self.wrong

    async def look(self, agent):
        """As a person asked."""
        self.heard("look", agent.name)
        return self.given or Look(agent=agent)

    async def stacks(self, agent):
        """As a person asked."""
        self.heard("stacks", agent.name)
        return self.given or Look(agent=agent)

    async def processes(self):
        """As a person asked."""
        return self.candidates

    async def add(self, candidate):
        """As a person asked."""
        self.heard("add", candidate.pid)
        return f"{candidate.name} (pid {candidate.pid}) is watched from now on"

    def means(self, agent):
        """As a person asked."""
        return self.how or Means(says=("no config says how",))

    async def recover(self, agent):
        """As a person asked."""
        self.heard("recover", agent.name)
        return f"{agent.name}: begun"


def app_of(events, **how):
    """The app over these events, as of their last."""
    deeds = how.pop("deeds", None)
    return WatchApp(from_list(events), **({"replay": True, "deeds": lambda: deeds} | how))


async def shown(app, *keys, size=(80, 24)):
    """What stands on the screen after these keys; whatever failed while drawing fails here."""
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        app.find_likely()
        await settle(pilot)
        for key in keys:
            await pilot.press(*key) if isinstance(key, tuple) else await pilot.press(key)
            await pilot.pause()
        await settle(pilot)
        text = screen_text(app)
    assert app.failure is None
    assert all(cells_of(line) <= size[0] for line in text.split("\n"))
    return text


# --- goldens --------------------------------------------------------------------------------------------------------------

PAGES = {
    "main": (),
    "incident": ("tab", "end", "enter"),
    "incident-details": ("tab", "end", "enter", "m"),
    "incident-end": ("tab", "end", "up", "up", "up", "up", "enter", "end"),
    "agent": (("slash", *"leaker"), "enter", "enter"),
    "filter": (("slash", *"oom"),),
    "stacks": ("tab", "down", "down", "s"),
    "help": ("question_mark",),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
@pytest.mark.parametrize("name", PAGES)
async def test_screen_golden(name, size):
    """Each screen reads as it did when a person last approved it."""
    golden(f"tui-{name}-{size[0]}x{size[1]}", await shown(app_of(evening()), *PAGES[name], size=size) + "\n")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
async def test_empty_screen_golden(size):
    """With no agent there are likely processes to pick, what to type, and how agents are found."""
    text = await shown(app_of([samples.ready()], deeds=Deeds()), size=size)
    golden(f"tui-empty-{size[0]}x{size[1]}", text + "\n")
    assert "OPENAI_API_KEY" in text
    assert "agentscope drill oom" in text


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
async def test_adding_golden(size):
    """The list from which one more process is picked, filtered."""
    golden(f"tui-add-{size[0]}x{size[1]}", await shown(app_of(evening(), deeds=Deeds()), "a", tuple("py"), size=size) + "\n")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
async def test_deeds_golden(size):
    """A look at a living agent, one that found a hang, and the question before something is brought back."""
    look = Look(
        agent=LEAKER,
        pulse=samples.pulse(LEAKER, 1, 5 * MIB),
        not_checked=(RuledOut(cause="native-threads", because="it needs root"),),
    )
    find = ("slash", *"leaker")
    text = await shown(app_of(evening(), deeds=Deeds(look)), find, "enter", "d", size=size)
    golden(f"tui-look-{size[0]}x{size[1]}", text + "\n")
    hung = Look(agent=LEAKER, incident=samples.uncaught())
    assert "KeyError" in await shown(app_of(evening(), deeds=Deeds(hung)), find, "enter", "d", size=size)
    means = Means(says=("for a hang that is: restart",), can=True)
    text = await shown(app_of(evening(), deeds=Deeds(means=means)), find, "enter", "r", size=size)
    golden(f"tui-recover-{size[0]}x{size[1]}", text + "\n")


# --- keys -----------------------------------------------------------------------------------------------------------------


async def test_memory_near_its_limit_is_told():
    """A pressure event shows in the list with the time that is left, which grows shorter, and goes when it eases."""
    app = app_of(evening())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "full in 1m" in screen_text(app)
        assert "1 near a limit" in screen_text(app)
        app.board.now_ns += 40 * S
        await settle(pilot)
        assert "full in 24s" in screen_text(app)
        now_ns = app.board.now_ns - app.board.wall_offset_ns
        app.board.apply(Pressure(at_ns=now_ns, agent_pid=LEAKER.pid, agent_start_ns=LEAKER.start_ns, kind="memory", used=1, limit=2, share=0.5, says="", eased=True))  # fmt: skip
        await settle(pilot)
        assert "full in" not in screen_text(app)
        assert "near a limit" not in screen_text(app)


async def test_last_output_and_last_recovery_are_told():
    """How long ago it last wrote, and what came of bringing it back, stand in the line of an agent."""
    text = await shown(app_of(evening()), size=(120, 40))
    line = next(line for line in text.split("\n") if "leaker" in line)
    assert line.endswith("12%    2m")
    assert any("researcher" in line and "held" in line for line in text.split("\n"))


async def test_diagnose_asks_for_a_look_at_the_chosen_agent():
    """D asks for a look at the living agent, and its page tells what came of it, or why nothing did."""
    deeds = Deeds(Look(agent=LEAKER, incident=samples.uncaught()))
    assert "KeyError" in await shown(app_of(evening(), deeds=deeds), ("slash", *"leaker"), "enter", "d")
    assert deeds.asked == [("look", "leaker")]
    gone = Deeds(wrong=NoSuchProcess("leaker (pid 7100) does not run any more", "it has ended"))
    text = await shown(app_of(evening(), deeds=gone), ("slash", *"leaker"), "enter", "s")
    assert "does not run any more" in text


async def test_enter_on_an_agent_that_hangs_opens_its_hang():
    """While it hangs, Enter on an agent shows the incident; once it goes on, what it does; never that of a former instance."""
    none = samples.ExitRecord(code=None, signal=None, core_dumped=False)
    hang = samples.incident(LEAKER, "one", "hang/deadlock", "Hung for 9 s: two locks", "x", exit=none)
    began = [samples.ready(), AgentSeen(at_ns=samples.STARTED_NS, agent=LEAKER, because="x"), hang]
    hung = samples.pulse(LEAKER, samples.DIED_NS + S, MIB, "hung(deadlock) a lock, 9 s")
    assert "two locks" in await shown(app_of([*began, hung]), "enter")
    well = samples.pulse(LEAKER, samples.DIED_NS + 2 * S, MIB, "running")
    assert "leaker is alive: running" in await shown(app_of([*began, hung, well]), "enter")


async def test_a_dead_agent_is_not_examined():
    """D on an agent that has ended says so and asks for nothing."""
    deeds = Deeds()
    text = await shown(app_of(evening(), deeds=deeds), ("slash", *"indexer"), "enter", "d")
    assert "does not run any more" in text
    assert deeds.asked == []


async def test_a_recording_does_nothing():
    """In a replay no key does anything to this machine."""
    for key in ("d", "s", "a"):
        assert "this is a recording" in await shown(app_of(evening()), ("slash", *"leaker"), "enter", key)


async def test_stacks_of_an_incident_are_those_of_its_record():
    """S on an incident that is over shows all frames that were taken then."""
    text = await shown(app_of([samples.ready(), samples.segfault()]), "tab", "s", size=(100, 60))
    assert "its stacks as they were" in text
    assert "encode_batch_12" in text


async def test_recover_asks_first():
    """R does nothing until y; any other key does nothing at all; without a way it says what is missing."""
    find = ("slash", *"leaker")
    for keys, asked in ((("r", "y"), [("recover", "leaker")]), (("r", "enter", "escape"), []), (("r", "n"), [])):
        deeds = Deeds(means=Means(says=("restart",), can=True))
        text = await shown(app_of(evening(), deeds=deeds), find, "enter", *keys)
        assert deeds.asked == asked
        assert ("begun" in text) == bool(asked)
    deeds = Deeds()
    text = await shown(app_of(evening(), deeds=deeds), find, "enter", "r", "y")
    assert "cannot be brought back from here" in text
    assert deeds.asked == []


async def test_add_picks_what_is_typed_and_chosen():
    """A lists processes, likely ones first; typing filters; Down and Enter pick; Esc picks nothing."""
    deeds = Deeds()
    await shown(app_of(evening(), deeds=deeds), "a", tuple("p"), "down", "enter")
    assert deeds.asked == [("add", 4712)]
    deeds = Deeds()
    text = await shown(app_of(evening(), deeds=deeds), "a", tuple("bot"), "enter")
    assert deeds.asked == [("add", 4711)]
    assert "is watched from now on" in text
    deeds = Deeds()
    await shown(app_of(evening(), deeds=deeds), "a", tuple("bot"), "escape")
    assert deeds.asked == []


async def test_no_letter_is_a_key_where_words_are_typed():
    """What comes in one burst after a is typed into the list of processes, or lost; it never quits or does anything."""
    deeds = Deeds()
    app = app_of(evening(), deeds=deeds)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("end")
        for key in "aqdrse1":
            app.post_message(Key(key, key))
        await settle(pilot)
        assert isinstance(app.screen, Adding)
        await pilot.press(*"q/d")
        assert app.screen.query_one("#find", Input).value.endswith("q/d")
    assert app.return_code is None
    assert deeds.asked == []


async def test_one_key_picks_a_likely_process():
    """With no agent the number of a likely process watches it; a number without a process, or with agents, does nothing."""
    deeds = Deeds()
    await shown(app_of([samples.ready()], deeds=deeds), "2", "1")
    assert deeds.asked == [("add", 4711)]
    deeds = Deeds()
    await shown(app_of(evening(), deeds=deeds), "1")
    assert deeds.asked == []


async def test_export_writes_what_replay_reads(tmp_path, monkeypatch):
    """E writes the incident with what was done, readable for us only, and never over a file that is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agentscope-2026-11-20T03:12:04Z-4242.ndjson").symlink_to(tmp_path / "elsewhere")
    text = await shown(app_of(evening()), ("slash", *"researcher"), "enter", "tab", "e", size=(200, 40))
    assert "written: agentscope-" in text
    assert not (tmp_path / "elsewhere").exists()
    path = tmp_path / "agentscope-2026-11-20T03:12:04Z-4242-2.ndjson"
    assert path.stat().st_mode & 0o077 == 0
    written = [decode(line) for line in path.read_bytes().splitlines()]
    assert [line.type.removeprefix("agentscope.") for line in written] == [
        "incident.opened", "remedy.started", "remedy.finished", "remedy.finished", "incident.closed",
    ]  # fmt: skip
    assert written[0].time.startswith("2026-11-20T03:12:04") or written[0].time
    assert "<html" in (tmp_path / "agentscope-2026-11-20T03:12:04Z-4242.html").read_text()


async def test_export_says_what_went_wrong(tmp_path, monkeypatch):
    """A folder that refuses is told, and a name that a hostile record chose stays in this folder."""
    monkeypatch.chdir(tmp_path)
    await shown(
        app_of([samples.ready(), samples.incident(LEAKER, "../../../../tmp/owned\x00", "exit/status", "x", "y")]), "tab", "e"
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert not any("/" in name or name.startswith(".") for name in names)


async def test_what_is_done_about_an_open_page_shows_there():
    """While an incident is open on the screen, its recovery appears on it."""
    arriving: asyncio.Queue = asyncio.Queue()

    async def events():
        while True:
            yield await arriving.get()

    app = WatchApp(events(), replay=True)
    async with app.run_test(size=(100, 50)) as pilot:
        for event in (samples.ready(), samples.exit_status()):
            arriving.put_nowait(event)
        await settle(pilot)
        await pilot.press("tab", "enter", "end")
        await pilot.pause()
        assert "nothing: whoever wants it brought back" in screen_text(app)
        for event in remedies(samples.NIGHTLY, "2026-11-20T03:14:00Z-6200", samples.DIED_NS + 120 * S):
            arriving.put_nowait(event)
        await pilot.pause(0.6)
        await pilot.press("end")
        await pilot.pause()
        assert "It held: restart, attempt 1" in screen_text(app)
    assert app.failure is None


# --- replays ----------------------------------------------------------------------------------------------------------------


async def test_a_recording_plays_at_its_pace_and_skips_to_incidents():
    """It plays as it happened or faster, pauses, and n goes on to the next incident."""
    events = [samples.ready(), AgentSeen(at_ns=samples.STARTED_NS, agent=LEAKER, because="x")]
    events += [samples.pulse(LEAKER, samples.STARTED_NS + second * S, MIB) for second in range(60)]
    events += [
        samples.incident(LEAKER, "one", "exit/status", "first", "x"),
        samples.incident(LEAKER, "two", "exit/status", "second", "x"),
    ]
    player = Player(lambda: events, speed=20.0)
    app = WatchApp(player, replay=True, title="file")
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.5)
        await pilot.press("space")
        told = player.told
        assert 4 < told < 40
        await pilot.pause(0.3)
        assert player.told <= told + 1
        assert "paused at" in screen_text(app)
        await pilot.press("n")
        await pilot.pause(0.3)
        assert "first" in screen_text(app)
        await pilot.press("n")
        await pilot.pause(0.3)
        assert "second" in screen_text(app)
        assert "at its end" in screen_text(app)
    assert app.failure is None


async def test_at_once_shows_how_it_ended():
    """Speed 0 waits for nothing."""
    began = time.monotonic()
    text = await shown(WatchApp(Player(samples.night, 0), replay=True))
    assert "at its end" in text
    assert "hung(lock)" in text
    assert time.monotonic() - began < 20


async def test_a_recording_plays_while_it_is_being_read():
    """Its first agents are on the screen before its last line has been read; what cannot be read after them ends the screen and is told."""
    go_on = threading.Event()

    def read():
        yield samples.ready()
        yield AgentSeen(at_ns=samples.STARTED_NS, agent=LEAKER, because="x")
        go_on.wait(30)
        raise BadInput("the recording ends in the middle", "its disk failed", "another one")

    app = WatchApp(Player(read), replay=True)
    async with app.run_test(size=(80, 24)):
        await until(lambda: "leaker" in screen_text(app), 20)
        assert "%" not in screen_text(app).splitlines()[0]
        go_on.set()
        await until(lambda: app.failure is not None, 20)
    assert isinstance(app.failure, BadInput)


async def test_leaving_a_recording_ends_its_reading():
    """Nobody waits for the rest of a recording that is no longer shown."""
    count = 0

    def read():
        nonlocal count
        yield samples.ready()
        while count < 10_000_000:
            count += 1
            yield samples.pulse(LEAKER, samples.STARTED_NS + count * S, MIB)

    app = WatchApp(Player(read), replay=True)
    async with app.run_test(size=(80, 24)):
        await until(lambda: count > 100, 20)
    assert app.failure is None
    for _ in range(100):
        await asyncio.sleep(0.05)
        before = count
        await asyncio.sleep(0.05)
        if count == before:
            break
    assert count == before < 10_000_000


# --- the first screen -------------------------------------------------------------------------------------------------------


async def test_agents_are_shown_while_the_probes_are_attached():
    """Who is there is on the screen before anything is attached, which it says; who has ended by then is not shown any more."""
    attach, stop = asyncio.Event(), asyncio.Event()
    gone = samples.agent("gone", 7101, "python3 gone.py")

    async def events():
        yield Glimpse(((LEAKER, "its name"), (gone, "its name")))
        await attach.wait()
        yield samples.ready()
        yield AgentSeen(at_ns=samples.STARTED_NS, agent=LEAKER, because="its name")
        await stop.wait()

    app = WatchApp(events(), engine="attaching the probes")
    async with app.run_test(size=(80, 24)):
        await until(lambda: "leaker" in screen_text(app), 20)
        first = screen_text(app)
        assert "2 agents here" in first
        assert "attaching the probes …" in first
        assert "no death" not in first
        assert "none yet" not in first
        attach.set()
        await until(lambda: "1 agent watched" in screen_text(app), 20)
        assert "gone" not in screen_text(app)
        assert "attaching" not in screen_text(app)
        stop.set()
    assert app.failure is None


def test_a_glimpse_is_who_matches_now():
    """Processes that match a target are seen without a probe, with the name that the config gives them; we ourselves never are."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            targets = (Target(kind="pid", value=str(process.pid), name="sleeper"),)
            ((agent, because),) = glimpse_of(targets).agents
            assert (agent.name, agent.pid, because) == ("sleeper", process.pid, f"--pid {process.pid}")
            every = glimpse_of((Target(kind="name", value="."),)).agents
            assert os.getpid() not in {agent.pid for agent, _ in every}
        finally:
            process.kill()
    assert glimpse_of(targets).agents == ()  # whether it is gone is said by the watching that begins now


GLIMPSE = """
import os, subprocess
from agentscope.agents import Target
from agentscope.screens import glimpse_of
with subprocess.Popen(["sleep", "60"]) as own:
    seen = glimpse_of((Target(kind="name", value="."),)).agents
    own.kill()
print({agent.uid for agent, _ in seen} == {os.getuid()}, own.pid in {agent.pid for agent, _ in seen})
"""


def test_a_glimpse_of_an_ordinary_user():
    """An ordinary user is shown only their own processes from the start, as no engine that they can have watches those of others."""
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    told = subprocess.run([sys.executable, "-c", GLIMPSE], capture_output=True, text=True, check=False, timeout=60, **nobody)
    assert told.stdout == "True True\n", told.stderr


# --- hostile text -------------------------------------------------------------------------------------------------------------

BAD = samples.HOSTILE + "\u2066\u202b\u0300\u0300\u0300\u0300 [@click=app.quit]x[/] \ud83d\ude00" + "W" * (1 << 20)
HOSTILE_AGENT = samples.HOSTILE_AGENT


def hostile_events(field):
    """A board in which this field holds whatever a process can write."""
    of = samples.agent("plain", 6667, "x", cgroup="/x")
    agents = {"name": "name", "command": "command", "unit": "unit", "container": "container", "cgroup": "cgroup", "exe": "exe"}
    if field in agents:
        import msgspec

        of = msgspec.structs.replace(of, **{agents[field]: BAD})
    said = lambda name, otherwise="x": BAD if field == name else otherwise  # noqa: E731 - a word each
    opened = samples.incident(
        of, said("incident"), said("cause", "exit/status") if field != "cause" else f"{BAD}/x", said("headline"), said("culprit"),
        at_ns=samples.DIED_NS, advice=(said("advice"),), process=samples.process(of, said("comm")),
        ruled_out=(RuledOut(cause="x/y", because=said("because")),),
    )  # fmt: skip
    return [
        samples.ready(),
        AgentSeen(at_ns=samples.STARTED_NS, agent=of, because=said("why")),
        samples.pulse(of, samples.DIED_NS - S, MIB, said("state")),
        Pressure(at_ns=samples.DIED_NS, agent_pid=of.pid, agent_start_ns=of.start_ns, kind="memory", used=1, limit=2, share=0.5, says=said("pressure"), seconds_to_limit=9.0),
        RemedyStarted(at_ns=samples.DIED_NS, incident=said("incident"), agent=of, remedy=said("remedy"), attempt=1, act=said("act"), because="x"),
        RemedyFinished(at_ns=samples.DIED_NS, incident=said("incident"), agent=of, remedy=said("remedy"), attempt=1, outcome="done", says=said("outcome"), took_ms=1.0),
        Lost(at_ns=samples.DIED_NS, source=said("source"), count=1, says=said("lost")),
        opened if field != "state" else samples.incident(samples.NIGHTLY, "one", "exit/status", "x", "y"),
    ]  # fmt: skip


FIELDS = ["name", "command", "unit", "container", "cgroup", "exe", "incident", "cause", "headline", "culprit", "advice", "comm", "because",
          "why", "state", "pressure", "remedy", "act", "outcome", "source", "lost"]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
async def test_hostile_text_in_a_field(field):
    """Whatever a process writes into this field, every screen shows only printable text, and its lines stay in their columns."""
    app = app_of(hostile_events(field), title="x", deeds=Deeds())
    async with app.run_test(size=(80, 24)) as pilot:
        for keys in (
            (),
            ("enter",),
            ("m",),
            ("end",),
            ("escape", "tab", "enter"),
            ("m", "end"),
            ("escape", "s"),
            ("escape", "r"),
        ):
            await pilot.press(*keys)
            await settle(pilot)
            text = screen_text(app)
            assert_harmless(text)
            assert all(cells_of(line) <= 80 for line in text.split("\n"))
            assert len(text.split("\n")) == 24
    assert app.failure is None


async def test_hostile_candidates_and_filters():
    """Names in the list of processes, and in errors of deeds, are only text."""
    bad = [Candidate(pid=1, start_ns=1, name=BAD[:5000], command=BAD[:5000], user=BAD[:5000], because=BAD[:5000])]
    for keys in (("a",), ("a", "enter")):
        deeds = Deeds(candidates=bad, wrong=NoSuchProcess(BAD[:5000], BAD[:5000]))
        for events in (evening(), [samples.ready()]):
            assert_harmless(await shown(app_of(events, deeds=deeds), *keys))


# --- small parts ---------------------------------------------------------------------------------------------------------------


def test_a_state_keeps_its_end():
    """Where a state is too long its duration stays, and the middle goes."""
    assert cut_middle("waiting(llm) api.anthropic.com 160.79.104.10:443, 43 s", 25) == "waiting(llm) api.an… 43 s"
    assert cut_middle("running", 25) == "running"
    assert cells_of(cut_middle("waiting(llm) 你好你好你好你好你好你好, 43 s", 25)) <= 25


def test_bars_are_as_full_as_what_they_show():
    """Empty is empty, full is full, more than full is full; a plot rises with its values and shows gaps."""
    assert [gauge(share, 4) for share in (0.0, 0.5, 1.0, 7.0)] == ["····", "██··", "████", "████"]
    assert plot([1, 2, None, 4], 4, 2, 4) == ["   █", "▄█·█"]
    assert plot([], 10, 2) == ["", ""]


def test_a_hang_is_no_death():
    """An agent that hangs, and goes on, has not died; one that ends by itself later has not died of it."""
    board = Board()
    hang = samples.incident(
        LEAKER, "one", "hang/deadlock", "x", "y", exit=samples.ExitRecord(code=None, signal=None, core_dumped=False)
    )
    for event in (samples.ready(), AgentSeen(at_ns=samples.STARTED_NS, agent=LEAKER, because="x"), hang):
        board.apply(event)
    assert board.deaths_in_a_day("leaker") == 0
    assert board.living == 1
    board.apply(samples.AgentGone(at_ns=samples.DIED_NS + S, agent=LEAKER, says="ended"))
    assert not board.rows[LEAKER.pid, LEAKER.start_ns].died


def test_the_ledger_says_when_it_was():
    """Lines of the ledger keep their own time, whatever boot they are of; a hang of before is no agent of now."""
    recorder = Recorder("00000000-0000-4000-8000-000000000000", 1_000 * S)
    board = Board()
    hang = samples.incident(
        LEAKER, "two", "hang/deadlock", "x", "y", exit=samples.ExitRecord(code=None, signal=None, core_dumped=False)
    )
    for event in (samples.exit_status(), hang):
        board.recall(decode(recorder.encode(event)))
    board.apply(samples.ready())
    assert [entry.wall_ns for entry in board.incidents] == [1_000 * S + hang.at_ns, 1_000 * S + samples.exit_status().at_ns]
    assert board.deaths_in_a_day("nightly") == 0
    assert [row.agent.name for row in board.rows.values()] == ["nightly"]
    assert board.living == 0


def test_json_of_the_exported_incident_is_json():
    """Each line that is exported is an object by itself."""
    from agentscope.views.tui.exporting import records_of

    board = Board()
    for event in evening():
        board.apply(event)
    for happened in board.incidents:
        assert all(json.loads(line)["specversion"] == "1.0" for line in records_of(happened, board).splitlines())
