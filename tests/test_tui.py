"""The terminal UI, driven by keys: what it shows, what it opens, and that it ends well."""

import asyncio
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from textual.events import Key
from textual.widgets import Input

from agentscope.errors import EngineUnavailable
from agentscope.model import AgentSeen
from agentscope.views.tui.app import WatchApp
from agentscope.views.tui.listing import Listing
from tests import samples

ROOT = Path(__file__).parent.parent


async def from_list(events, then=None):
    """A source of these events that stays open, or raises."""
    for event in events:
        yield event
    if then is not None:
        raise then
    await asyncio.sleep(3600)


def app_of(events, **how) -> WatchApp:
    """The app over these events."""
    return WatchApp(from_list(events), **({"replay": True} | how))


def screen_text(app) -> str:
    """What is on the screen, as a terminal would show it."""
    width, height = app.size
    lines = [["".join(segment.text for segment in strip)] for strip in app.screen._compositor.render_strips()]
    assert len(lines) <= height
    return "\n".join("".join(line)[:width].rstrip() for line in lines)


async def settle(pilot) -> None:
    """Until events are folded and drawn."""
    await pilot.pause()
    pilot.app.redraw()
    await pilot.pause()


async def test_shows_agents_and_incidents():
    """At 80x24 every agent, the newest incidents with whom to blame, and the engine's losses are there."""
    app = app_of(samples.night())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        text = screen_text(app)
    for expected in (
        "2 agents watched",
        "planner",
        "hung(lock)",
        "died: oom/cgroup",
        "nightly exited with status 3",
        "exit/status (possible)",
        "LOST 17",
        "q quit",
    ):
        assert expected in text


async def test_enter_opens_the_proof_and_escape_returns():
    """Enter on an incident shows its report in reading order; m shows more; Esc goes back."""
    app = app_of([samples.ready(), samples.segfault()])
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await pilot.press("tab", "enter")
        await pilot.pause()
        text = screen_text(app)
        assert "✗ indexer crashed in tokenizers.abi3.so" in text
        assert "Blame" in text
        assert "● SIGSEGV (SEGV_MAPERR)" in text
        await pilot.press("m", "end")
        await pilot.pause()
        assert "m less" in screen_text(app)
        assert "What was done" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "INCIDENTS" in screen_text(app)


async def test_enter_on_a_living_agent_says_what_it_does():
    """An agent that lives has a page without a verdict."""
    app = app_of([*samples.night()[:400]])
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"watcher", "enter", "enter")
        await pilot.pause()
        text = screen_text(app)
    assert "watcher is alive: waiting(timer)" in text
    assert "watcher.service" in text


async def test_filter():
    """Typing after / keeps what matches, q is a letter there, Esc forgets."""
    app = app_of(samples.night())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"oomq")
        assert app.query_one("#filter", Input).value == "oomq"
        await pilot.press("backspace", "enter")
        await settle(pilot)
        text = screen_text(app)
        assert "filter: oom (1 agent, 2 incidents)" in text
        assert "nightly" not in text.split("INCIDENTS")[1]
        await pilot.press("escape")
        await settle(pilot)
        assert "filter:" not in screen_text(app)
        assert "planner" in screen_text(app)


async def test_what_is_typed_at_once_after_the_slash_is_the_filter():
    """Keys that come in one burst, as from a paste or a slow line, are words of the filter and no keys of the lists."""
    app = app_of(samples.night())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for key in ("slash", *"drqs"):
            app.post_message(Key(key, "/" if key == "slash" else key))
        await settle(pilot)
        assert app.query_one("#filter", Input).value == "drqs"
        assert len(app.screen_stack) == 1


async def test_help():
    """? shows the keys once, whatever is open, and Esc closes them."""
    app = app_of(samples.night())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("question_mark", "question_mark")
        await pilot.pause()
        assert "why did it die?" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("size", [(40, 10), (60, 14), (80, 24), (200, 60)])
async def test_sizes(size):
    """At every size from 40x10 up there are agents, an incident and the way out."""
    app = app_of(samples.night())
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        text = screen_text(app)
        for expected in ("planner", "INCIDENTS", "03:14:14", "q quit" if size[0] > 40 else "LOST 17"):
            assert expected in text
        await pilot.press("tab", "enter")
        await pilot.pause()
        assert "Esc back" in screen_text(app)


@pytest.mark.parametrize("size", [(39, 24), (80, 9), (5, 2)])
async def test_too_small(size):
    """A window too small is told in a sentence, and growing it brings the lists back."""
    app = app_of(samples.night())
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert "This" in screen_text(app)
        assert "INCIDENTS" not in screen_text(app)
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "INCIDENTS" in screen_text(app)


@pytest.mark.parametrize("size", [(40, 10), (80, 24)])
async def test_empty(size):
    """With nothing to see the screen says what to type."""
    app = app_of([samples.ready()], replay=False)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        text = screen_text(app)
    for expected in ("No agent runs here", "sudo agentscope run -- CMD", "--pid N", "agentscope drill oom"):
        assert expected in text


async def test_the_selection_stays_with_its_incident():
    """A new incident on top does not change what Enter opens for somebody who has chosen."""
    arriving: asyncio.Queue[object] = asyncio.Queue()

    async def events():
        while True:
            yield await arriving.get()

    app = WatchApp(events())
    async with app.run_test(size=(80, 24)) as pilot:
        for event in (samples.ready(), samples.oom_cgroup(), samples.killed_by_bash()):
            arriving.put_nowait(event)
        await settle(pilot)
        await pilot.press("tab", "down")
        chosen = app.query_one("#incidents", Listing).current
        assert chosen.incident.cause == "oom/cgroup"
        arriving.put_nowait(samples.uncaught())
        await settle(pilot)
        assert len(app.board.incidents) == 3
        assert app.query_one("#incidents", Listing).current is chosen


async def test_hostile_text_is_only_text():
    """Escape sequences and markup of a process do nothing on any page."""
    app = app_of([samples.ready(), AgentSeen(at_ns=1, agent=samples.HOSTILE_AGENT, because="x"), samples.pulse(samples.HOSTILE_AGENT, 2, 1, samples.HOSTILE), samples.hostile()], title=samples.HOSTILE)  # fmt: skip
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        texts = [screen_text(app)]
        await pilot.press("enter", "m")
        await pilot.pause()
        texts.append(screen_text(app))
        await pilot.press("end")
        await pilot.pause()
        texts.append(screen_text(app))
    for text in texts:
        assert all(character.isprintable() or character == "\n" for character in text)
    assert "[bold red]rm[/]" in texts[0]


async def test_a_failing_source_is_told_afterwards():
    """When the source raises, the app ends and keeps the error for its caller."""
    app = WatchApp(from_list(samples.night()[:5], then=EngineUnavailable("the ring is gone")))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.5)
    assert isinstance(app.failure, EngineUnavailable)
    assert app.return_code == 1


async def test_five_hundred_agents_are_fluid():
    """A second of pulses of 500 agents is folded and drawn in a fraction of that second."""
    agents = [samples.agent(f"agent-{number:03}", 10_000 + number, "x") for number in range(500)]
    app = app_of([samples.ready(), *(AgentSeen(at_ns=1, agent=one, because="x") for one in agents)])
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        cpu = time.process_time()
        for _ in range(4):
            for one in agents[:125]:
                app.board.apply(samples.pulse(one, samples.STARTED_NS, 1 << 20))
            app.tick()
            await pilot.pause()
        spent = time.process_time() - cpu
        await pilot.press("end")
        await settle(pilot)
        assert "agent-499" in screen_text(app)
    assert spent < 0.5


async def test_q_quits():
    """The key q ends the app without an error."""
    app = app_of(samples.night())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("q")
    assert app.return_code == 0
    assert app.failure is None


PLAY = """
import asyncio, sys
sys.path.insert(0, {root!r})
from tests import samples
from agentscope.views.tui import app, show
async def events():
    for event in samples.night():
        yield event
    {then}
try:
    asyncio.run(show(events(), title="x", replay=True))
except ValueError as error:
    print("TOLD", error)
print("OVER")
"""
BROKEN = "app.lines.agent_line = lambda *_: (_ for _ in ()).throw(ValueError('in drawing'))\n    await asyncio.sleep(60)"


def play(then, send=None, **environment) -> tuple[bytes, int | None]:
    """What the screen wrote on a real terminal until it was over, and how the terminal was set while it was on; it must end well."""
    import termios

    code = PLAY.format(root=str(ROOT), then=then)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", PYTHONPATH=str(ROOT), COLUMNS="80", LINES="24", **environment)
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen, sent, before = b"", send is None, None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            break
        if not sent and b"planner" in seen:
            before = termios.tcgetattr(terminal)[3]
            os.kill(pid, send)
            sent = True
        if b"OVER" in seen:
            after = termios.tcgetattr(terminal)[3]
            assert after & termios.ECHO
            assert after & termios.ICANON
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, seen[-2000:]
    assert seen.rindex(b"\x1b[?1049l") > seen.rindex(b"\x1b[?1049h")
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert b"OVER" in seen[seen.rindex(b"\x1b[?1049l") :]
    return seen, before


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_gives_the_terminal_back(send):
    """On a real terminal a signal that asks it to end leaves the main screen, a visible cursor and echo."""
    import termios

    _, before = play("await asyncio.sleep(60)", send)
    assert before is not None
    assert not before & termios.ECHO


@pytest.mark.parametrize(("then", "says"), [("raise ValueError('gone')", b"TOLD gone"), (BROKEN, b"TOLD in drawing")])
def test_a_failure_gives_the_terminal_back(then, says):
    """A source that fails, or a mistake in drawing, is told on the main screen once the terminal is as it was, and shows no locals."""
    seen, _ = play(then)
    assert says in seen
    assert b"locals" not in seen


def test_without_colour():
    """With NO_COLOR set no colour is sent: words say all that colours say."""
    import re

    def colours(seen: bytes) -> list[bytes]:
        codes = [code for group in re.findall(rb"\x1b\[([0-9;]*)m", seen) for code in group.split(b";")]
        return [code for code in codes if code and (30 <= int(code) <= 38 or 90 <= int(code) <= 97) and int(code) != 39]

    assert colours(play("await asyncio.sleep(60)", signal.SIGTERM)[0])
    assert not colours(play("await asyncio.sleep(60)", signal.SIGTERM, NO_COLOR="1")[0])
