"""Reports, tables and the board: what a person reads, byte for byte, and that no process can write on the terminal through them."""

import io
import itertools
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope import record
from agentscope.model import (
    AgentGone,
    AgentSeen,
    IncidentClosed,
    IncidentOpened,
    Lost,
    ProcessExit,
    Pulse,
    Reading,
    RemedyFinished,
    RemedyStarted,
    RuledOut,
)
from agentscope.views import drawing, page, report, safe, safe_lines, wording
from agentscope.views.board import INCIDENTS_KEPT, Board
from agentscope.views.stories import Act, Story, render_stories, render_story
from agentscope.views.table import render_table
from tests import samples

GOLDENS = Path(__file__).parent / "goldens"
WHEN_NS = samples.BOOT_WALL_NS + samples.DIED_NS
S = samples.S


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """Times of day are shown as they are here; here is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def golden(name: str, text: str) -> None:
    """Compare with tests/goldens/NAME.txt, or write it where AGENTSCOPE_UPDATE_GOLDENS=1."""
    path = GOLDENS / f"{name}.txt"
    if os.environ.get("AGENTSCOPE_UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


def folded(events) -> Board:
    """A board after these events."""
    board = Board()
    for event in events:
        board.apply(event)
    return board


def assert_harmless(text: str, *, allow_style: bool = False) -> None:
    """Only printable characters and newlines; with `allow_style` also SGR sequences, which are ours."""
    import re

    if allow_style:
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    bad = {character for character in text if character != "\n" and not character.isprintable()}
    assert not bad, {f"U+{ord(character):04X} {unicodedata.category(character)}" for character in bad}


# --- goldens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", sorted(samples.INCIDENTS))
def test_report_golden(name, width):
    """A report of each kind of incident reads as it did when a person last approved it."""
    golden(f"report-{name}-{width}", report.render_report(samples.INCIDENTS[name](), width=width, when_ns=WHEN_NS))


def test_report_details_golden():
    """With details, every frame, every ruled-out cause and every field is there."""
    text = report.render_report(samples.segfault(), width=100, details=True)
    golden("report-segfault-details-100", text)
    assert "encode_batch_12" in text
    assert "0x1f2a40" in text or "2042432" in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_table_golden(width):
    """A night with seven agents as a plain table."""
    golden(f"table-night-{width}", render_table(folded(samples.night()), width))


@pytest.mark.parametrize("width", [40, 80])
def test_empty_table_golden(width):
    """With no agent the table says how agents are found and what to type."""
    golden(f"table-empty-{width}", render_table(Board(), width))


def test_other_pages_golden():
    """A live process, log findings, an explanation and the doctor read as approved."""
    of = samples.RESEARCHER
    pulse = samples.pulse(
        of, 1, 300 << 20, "waiting(llm 160.79.104.10:443, 43 s)", cgroup_bytes=310 << 20, limit_bytes=512 << 20
    )
    live = report.render_live(
        of,
        pulse=pulse,
        evidence=samples.oom_cgroup().evidence[2:4],
        not_checked=(RuledOut(cause="hang/stuck-io", because="it needs root"),),
    )
    readings = [
        Reading(reader="kernel_oom", suggests="oom/cgroup", says="the kernel killed pid 4242 (python3) in cgroup /agents/researcher",
                culprit="memory limit 512 MiB of /agents/researcher", pid=4242, facts={"comm": "python3", "total_vm_kb": 1894212, "none": None},
                excerpt="Memory cgroup out of memory: Killed process 4242 (python3)\n"),
        Reading(reader="python", suggests=None, says="a handled exception was printed"),
    ]  # fmt: skip
    explained = report.render_explanation(
        "oom/cgroup", "Memory limit: its own cgroup\nwas full.\n\nWhat to do:\n- give it more\n- make it need less\n"
    )
    checks = (
        report.Check(name="kernel 6.18", ok=True, says="has BTF, so engine core can run"),
        report.Check(name="BPF", ok=False, says="CAP_BPF is missing", try_this="sudo agentscope doctor"),
        report.Check(name="journal", ok=None, says="there is no systemd here"),
    )
    golden("page-live-80", live)
    golden("page-log-80", report.render_log_findings(readings))
    golden("page-explain-80", explained)
    golden("page-doctor-80", report.render_doctor(checks))


def test_incident_list_golden():
    """The list of incidents names each so that `show` can be typed."""
    listed = [
        Story(opened=make(), wall_ns=samples.BOOT_WALL_NS + make().at_ns)
        for name, make in samples.INCIDENTS.items()
        if name != "hostile"
    ]
    golden("incidents-80", render_stories(listed, 80))
    assert "No incident" in render_stories([], 80)


def story_of(opened, text):
    """An incident that was brought back at the second attempt; the third is under way. `text` is what others said."""
    told = {"incident": opened.incident, "agent": opened.agent}
    begun = [
        RemedyStarted(at_ns=attempt, **told, remedy=text, attempt=attempt, act=text, because=text) for attempt in (1, 2, 3)
    ]
    acts = (
        Act(started=begun[0], finished=RemedyFinished(at_ns=5, **told, remedy=text, attempt=1, outcome="failed", says=text, took_ms=900)),
        Act(started=begun[1], finished=RemedyFinished(at_ns=6, **told, remedy=text, attempt=2, outcome="done", says=text, took_ms=120, pid=4711)),
        Act(started=begun[2]),
    )  # fmt: skip
    return Story(opened=opened, wall_ns=None, acts=acts, closed=IncidentClosed(at_ns=9, **told, outcome=text, held=True))


def test_what_was_done_is_told_with_the_incident():
    """The list and the page of an incident say each act, its outcome, the new process, what is unknown, and whether it held."""
    story = story_of(samples.oom_cgroup(), "restarted")
    for text in (render_stories([story], 100), render_story(story, width=100, color=False)):
        assert "1. restarted: restarted" in text
        assert "failed after 900 ms: restarted" in text
        assert "done after 120 ms, new process 4711: restarted" in text
        assert "no outcome on record" in text
        assert "It held: restarted" in text
    assert "Nothing was done" in render_story(Story(opened=samples.oom_cgroup(), wall_ns=None), width=100, color=False)


# --- the report ---------------------------------------------------------------------------------------------------------


def test_reading_order():
    """Headline, then blame, proof with the decisive facts first, ruled out, stacks, words, and what to do at the end."""
    text = report.render_report(samples.segfault(), width=100)
    marks = ["✗ indexer crashed", "Blame ", "Proof", "SIGSEGV (SEGV_MAPERR)", "Ruled out", "Not checked", "Python stack", "Native stack",
             "Last words", "Time line", "What to do"]  # fmt: skip
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    records = page.proof_of(samples.oom_cgroup())
    assert [entry.weight for entry in records][:3] == ["decisive", "decisive", "supporting"]


def test_no_color_and_color():
    """Without colour there is no escape sequence at all; with it the words are the same."""
    plain = report.render_report(samples.oom_cgroup(), width=80)
    colored = report.render_report(samples.oom_cgroup(), width=80, color=True)
    assert "\x1b" not in plain
    assert "\x1b[" in colored
    assert_harmless(colored, allow_style=True)
    import re

    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_printing_to_a_file_without_unicode():
    """A file that can only carry ASCII gets plain signs rather than an error."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    report.print_incident(samples.oom_cgroup(), out)
    out.flush()
    text = raw.getvalue().decode("ascii")
    assert "x the kernel killed researcher" in text
    assert "| embedding chunk 8123" in text


def test_color_is_for_terminals_only(monkeypatch):
    """NO_COLOR, a dumb terminal and a pipe are not coloured."""

    class Tty(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert report.wants_color(Tty())
    assert not report.wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not report.wants_color(Tty())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not report.wants_color(Tty())


@pytest.mark.parametrize("width", [1, 30, 40, 80, 500])
@pytest.mark.parametrize("name", sorted(samples.INCIDENTS))
def test_no_line_is_wider_than_the_screen(name, width):
    """Whatever is in an incident, no line of its report runs over the edge."""
    text = report.render_report(samples.INCIDENTS[name](), width=width)
    allowed = max(drawing.NARROWEST, min(width, drawing.WIDEST))
    assert max(wording.cells_of(line) for line in text.splitlines()) <= allowed


def test_ruled_out_is_sifted():
    """Causes without any sign are one line, those with a reason of their own are each told."""
    text = report.render_report(samples.oom_cgroup(), width=120)
    assert "oom/global: the cgroup's own limit was reached" in text
    assert "no sign of 6 other causes: crash/segfault, crash/abort, crash/bus and 3 more" in text


def test_a_tool_is_not_the_agent():
    """A tool's death names the agent and says that it was not blamed."""
    text = report.render_report(samples.tool_killed(), width=120)
    assert "a tool of coder (pid 5150), which was not blamed" in text


def test_undetermined_still_reads():
    """Where nothing fits the report says so instead of an empty headline."""
    text = report.render_report(samples.undetermined(), width=80)
    assert text.startswith("✗ nightly ended and nothing says why")
    assert "No evidence could be had" in text
    assert "cause not determined" in text
    assert "agentscope explain" not in text, "there is no page about it"


# --- hostile text ---------------------------------------------------------------------------------------------------------


def test_hostile_text_never_reaches_the_terminal():
    """No view lets a control character, a bidi override or an escape sequence of a process through."""
    incident = samples.hostile()
    for text in (
        report.render_report(incident, width=80),
        report.render_report(incident, width=80, details=True),
        report.render_live(incident.agent, pulse=samples.pulse(incident.agent, 1, 1, samples.HOSTILE), evidence=incident.evidence),
        report.render_doctor([report.Check(name=samples.HOSTILE, ok=None, says=samples.HOSTILE, try_this=samples.HOSTILE)]),
        report.render_log_findings([Reading(reader="x", suggests=samples.HOSTILE, says=samples.HOSTILE, culprit=samples.HOSTILE, facts={samples.HOSTILE: samples.HOSTILE}, excerpt=samples.HOSTILE)]),
        render_table(folded([samples.ready(), AgentSeen(at_ns=1, agent=incident.agent, because=samples.HOSTILE), incident, Lost(at_ns=1, source=samples.HOSTILE, count=1, says=samples.HOSTILE)]), 80),
        render_stories([story_of(incident, samples.HOSTILE)], 80),
        render_story(story_of(incident, samples.HOSTILE), width=80, color=False),
    ):  # fmt: skip
        assert_harmless(text)
        assert len(text) < 40_000
    assert_harmless(report.render_report(incident, width=80, color=True), allow_style=True)
    assert "[bold red]rm[/]" in report.render_report(incident, width=200)


def test_secrets_stay_off_the_screen():
    """A report that somebody pastes into a ticket carries no key that the words held."""
    text = report.render_report(samples.hostile(), width=80)
    assert "sk-ant-abcdefghijklmnop" not in text
    assert "abcdefghijklmnop" not in text
    assert "[redacted]" in text


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=300) | st.text("\x1b[]0;ma\x07\x9b\\?1234 \u202e\u0301\n", max_size=300))
def test_safe_is_always_harmless(text):
    """Whatever comes in, one printable line comes out, and doing it twice changes nothing a terminal would see."""
    once = safe(text)
    assert_harmless(once)
    assert "\n" not in once
    for line in safe_lines(text, 10)[0]:
        assert_harmless(line)


def test_safe_is_linear():
    """A megabyte made to be slow to read takes no longer than any other text."""
    started = time.monotonic()
    for evil in (
        "\x1b]" * 500_000,
        "\x1b[" + "1;" * 500_000,
        "\x1b]0;" + "a" * 1_000_000,
        "\u0301" * 1_000_000,
        "x\x1b" * 500_000,
        "=" * 1_000_000,
    ):
        assert len(safe(evil)) < 1100
        safe_lines(evil, 20)
    assert time.monotonic() - started < 5


def test_safe_keeps_what_people_write():
    """Letters of every script, accents, emoji and the marks of the text itself survive."""
    for text in ("naïve café", "日本語のログ", "русский", "a [bold]b[/]", "日本", "e\u0301"):
        assert safe(text) == text
    assert safe("\x1b[31mred\x1b[0m") == "red"
    assert safe("a\x1b]0;title\x07b") == "ab"
    assert safe("a\x1b]0;no end") == "a0;no end"
    assert safe("gpj.\u202eexe") == "gpj.�exe"
    assert safe("z" + "\u0301" * 50) == "z\u0301\u0301"


def test_progress_bars_end_as_they_looked():
    """Of a line that was written over with carriage returns only the last writing is shown."""
    assert safe_lines("10%\r50%\r100%\nnext\r\n\n", 5) == (["100%", "next"], 0)
    assert safe_lines("a\nb\nc\n", 2) == (["b", "c"], 1)


# --- the board ------------------------------------------------------------------------------------------------------------


def test_board_counts_deaths_of_a_name_over_its_lives():
    """A restarted agent has another pid; its deaths in a day belong to its name."""
    board = folded([samples.ready()])
    for life in range(3):
        one = samples.agent("flappy", 100 + life, "x")
        board.apply(AgentSeen(at_ns=life * S, agent=one, because="name"))
        board.apply(samples.incident(one, f"i{life}", "exit/status", "h", "c", at_ns=life * S + 1))
    assert board.deaths_in_a_day("flappy") == 3
    assert [row.agent.pid for row in board.listed()] == [102]
    later = samples.agent("other", 7, "y")
    board.apply(AgentSeen(at_ns=samples.STARTED_NS + 25 * 3600 * S, agent=later, because="name"))
    assert board.deaths_in_a_day("flappy") == 0


def test_board_of_a_tool():
    """A tool's death is an incident of the list, but neither a death nor the end of its agent."""
    board = folded([samples.ready(), AgentSeen(at_ns=1, agent=samples.CODER, because="x"), samples.tool_killed()])
    (row,) = board.listed()
    assert row.ended is None
    assert board.deaths_in_a_day("coder") == 0
    assert len(board.incidents) == 1


def test_board_of_a_clean_end():
    """An end that is no incident says by whom, and is no trouble."""
    gone = AgentGone(at_ns=2 * S, agent=samples.CODER, says="asked to stop", by="systemd")
    board = folded([AgentSeen(at_ns=1, agent=samples.CODER, because="x"), gone])
    (row,) = board.listed()
    assert row.words == "asked to stop (systemd)"
    assert not board.troubled(row)
    assert board.living == 0


def test_board_of_a_cut_recording():
    """An exit that nobody explained still ends its agent; an incident without its agent makes a row; a pulse alone does not."""
    end = ProcessExit(at_ns=5, pid=samples.CODER.pid, start_ns=samples.CODER.start_ns, ppid=1, comm="node", status=9, uid=0)
    board = folded(
        [AgentSeen(at_ns=1, agent=samples.CODER, because="x"), end, samples.oom_cgroup(), samples.pulse(samples.SCRAPER, 9, 1)]
    )
    assert {row.agent.name: row.ended for row in board.rows.values()} == {
        "coder": "ended by signal 9",
        "researcher": "died: oom/cgroup",
    }


def test_board_is_bounded():
    """A year of incidents and short-lived agents does not grow the board."""
    board = Board()
    for life in range(2000):
        one = samples.agent(f"a{life}", 100 + life, "x")
        board.apply(samples.incident(one, f"i{life}", "exit/status", "h", "c", at_ns=life))
    assert len(board.incidents) == INCIDENTS_KEPT
    assert len(board.rows) <= 101


def test_board_over_a_reboot():
    """After a ready line of another boot nothing of the former boot is said to run."""
    again = msgspec.structs.replace(samples.ready(), boot_id="other", at_ns=S, wall_ns=WHEN_NS + 3600 * S)
    board = folded([samples.ready(), AgentSeen(at_ns=1, agent=samples.CODER, because="x"), again])
    assert board.living == 0
    assert board.now_ns == again.wall_ns


def test_board_is_the_same_from_a_recording():
    """Replay is live minus the kernel: events that went through lines give the same table."""
    recorder = record.Recorder("3d3393b2", samples.BOOT_WALL_NS, host="h")
    live = [
        event for event in samples.night() if not (isinstance(event, IncidentOpened) and event.agent is samples.HOSTILE_AGENT)
    ]
    lines = [recorder.encode(event) for event in live]
    replayed = [envelope.data for _, envelope in record.read_lines(iter(line for line in lines if line))]
    assert render_table(folded(replayed), 120) == render_table(folded(live), 120)


def test_filter_words():
    """Every typed word must be found, in any field and any case."""
    board = folded(samples.night())
    assert [entry.incident.agent.name for entry in board.happened("OOM researcher")] == ["researcher"]
    assert [row.agent.name for row in board.listed("7001")] == ["planner"]
    assert board.listed("nobody of that name") == []


# --- wording --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, "0 B"),
        (None, "?"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (512 << 20, "512 MiB"),
        (1023.9 * 2**20, "1.0 GiB"),
        (9.6 * 2**30, "9.6 GiB"),
    ],
)
def test_sizes(value, says):
    """Sizes have the digits that matter, in binary units."""
    assert wording.size(value) == says


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2_100_000, "2.1 ms"),
        (31 * S, "31.0 s"),
        (240 * S, "4 min"),
        (252 * S, "4 min 12 s"),
        (11524 * S, "3 h 12 min"),
        (9 * 86400 * S, "9 d 0 h"),
        (-S, "1.0 s"),
    ],
)
def test_spans(value, says):
    """Lengths of time read as a person says them."""
    assert wording.span(value) == says


def test_sparkline():
    """The highest of each share is drawn, against the limit; gaps in knowledge are not zeros."""
    assert wording.sparkline([0, 4, 8], 3, 8) == "▁▅█"
    assert wording.sparkline([None, 1, None, None], 2) == "█·"
    assert wording.sparkline([], 5) == ""
    assert wording.sparkline([0, 0], 5) == "▁▁"
    assert len(wording.sparkline(list(range(1000)), 60)) == 60


@given(st.text(st.characters(categories=["L", "Nd", "Zs", "Mn"]), max_size=40), st.integers(0, 30))
def test_cut_fits(text, cells):
    """Cut and padded text takes the cells it was given, wide letters and accents included."""
    assert wording.cells_of(wording.cut(text, cells)) <= cells
    assert wording.cells_of(wording.cut_front(text, cells)) <= cells
    assert wording.cells_of(wording.fit(text, cells)) == cells


@given(st.text("ab/ 日", max_size=80), st.integers(2, 20))
def test_breaks_fit_and_lose_nothing(text, cells):
    """A broken text is the text, and each line fits once its blanks at the end are gone."""
    breaks = [0, *wording.breaks_of(text, cells), len(text)]
    lines = [text[begin:end] for begin, end in itertools.pairwise(breaks)]
    assert "".join(lines) == text
    assert all(wording.cells_of(line.rstrip(" ")) <= cells for line in lines)


def test_breaks_of_long_words():
    """A path that is longer than the line is broken after a slash, everything else at a space."""
    assert wording.breaks_of("see /usr/lib/python3/dist-packages/x.py now", 20) == [4, 21, 40]
    assert wording.breaks_of("a b", 3) == []


# --- import hygiene ---------------------------------------------------------------------------------------------------------


def test_headless_views_load_no_drawing_library():
    """The stream, the board and the table start without rich and textual, and the report without textual."""
    code = (
        "import sys, agentscope.sinks.stdout, agentscope.views.board, agentscope.views.table, agentscope.views.report, agentscope.views.tui\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'rich', 'textual', 'elftools', 'pyroute2', 'jsonschema'}))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_every_public_view_has_a_docstring():
    """A name that other stages call says what it is."""
    assert all(value.__doc__ for name, value in vars(report).items() if name.startswith(("render_", "print_")))
    assert Pulse.__doc__


def test_what_is_done_about_an_incident_stands_beside_it():
    """The table says how far recovery is with an incident: the attempt, the probation, whether it held."""
    incident = samples.oom_cgroup()
    board = Board()
    for event in samples.night():
        board.apply(event)
    told = {"at_ns": incident.at_ns, "incident": incident.incident, "agent": incident.agent}
    act = {"remedy": "restart", "attempt": 1}
    steps = [
        (RemedyStarted(**told, **act, act="restart it", because="it died"), "restart, attempt 1"),
        (RemedyFinished(**told, **act, outcome="failed", says="no such unit", took_ms=1.0), "restart failed: no such unit"),
        (RemedyFinished(**told, remedy="validate", attempt=2, outcome="done", says="200 OK", took_ms=1.0), "on probation"),
        (IncidentClosed(**told, outcome="restarted at 03:16; stable since", held=True), "held: restarted at 03:16"),
    ]
    for event, words in steps:
        board.apply(event)
        assert words in " ".join(render_table(board, 100).split())
