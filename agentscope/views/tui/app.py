"""The app: takes events as they come, draws what is the case at most four times a second, opens pages, and asks for deeds."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterable, Callable
from typing import ClassVar, cast

from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Input, Static

from agentscope.model import AnyEvent, Ready
from agentscope.record import Envelope
from agentscope.views import safe
from agentscope.views.board import Board, Glimpse, Happened, Row
from agentscope.views.table import incident_lines
from agentscope.views.tui import lines
from agentscope.views.tui.asking import Asking
from agentscope.views.tui.deeds import Candidate, Deeds
from agentscope.views.tui.empty import empty_lines
from agentscope.views.tui.listing import Listing
from agentscope.views.tui.pages import Page
from agentscope.views.tui.playing import Player
from agentscope.views.wording import clock, count_of, cut

REDRAW_S = 0.25
FIRST_S = 0.02
BREATH = 200  # events folded before the keyboard gets its turn
NOTICE_S = 8.0
LIKELY_S = 1.0  # between looks whether there is still no agent
LEAST_WIDTH, LEAST_HEIGHT = 40, 10
ENGINE_LINE_FROM = 14  # a shorter screen needs the line for incidents
AIRY_FROM = 20
PLOT_FROM = 34  # where there is room for a plot of the chosen agent's memory
ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

PLAIN, DIM, BOLD = Style(), Style(dim=True), Style(bold=True)
DIED, STUCK, PRESSED = Style(color="red"), Style(color="red", bold=True), Style(color="yellow")
Told = AnyEvent | Envelope | Glimpse


class WatchApp(Asking, App[None]):
    """Agents above, incidents below. `failure` is what the source of events raised, for the caller to show afterwards."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    * { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; scrollbar-background: ansi_default; scrollbar-color: ansi_bright_black;
        scrollbar-background-active: ansi_default; scrollbar-color-active: ansi_bright_black; }
    Screen, Listing, Static, Input, VerticalScroll { background: ansi_default; color: ansi_default; }
    Screen { layout: vertical; overflow: hidden; }
    Static { height: 1; }
    Listing { overflow-x: hidden; height: 1fr; scrollbar-gutter: stable; }
    #headline { text-style: bold; }
    #titles, #incidents-title, #engine, #keys { text-style: dim; }
    #small { height: 1fr; }
    #empty { height: 1fr; padding: 1 2; }
    #page { height: 1fr; padding: 0 1; }
    #text { height: auto; }
    #filter, #find { height: 1; border: none; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", show=False, priority=False),
        Binding("q", "leave", show=False),
        Binding("question_mark,f1", "help", show=False),
        Binding("slash", "filter", show=False, priority=True),  # before what is typed next is given to the list
        Binding("d", "diagnose", show=False),
        Binding("s", "stacks", show=False),
        Binding("r", "recover", show=False),
        Binding("a", "add", show=False),
        Binding("e", "export", show=False),
        Binding("escape", "clear", show=False),
        Binding("tab", "other_list", show=False),
        Binding("ctrl+z", "suspend_process", show=False),
        Binding("space", "play('pause')", show=False),
        Binding("n", "play('skip')", show=False),
        Binding("plus", "play('faster')", show=False),
        Binding("minus", "play('slower')", show=False),
        *(Binding(digit, f"pick({digit})", show=False) for digit in "123456789"),
    ]

    own_keys = ""  # what the line of keys says where it is another's

    def __init__(
        self,
        events: AsyncIterable[Told],
        *,
        title: str = "",
        replay: bool = False,
        engine: str = "",
        deeds: Callable[[], Deeds | None] = lambda: None,
    ) -> None:
        super().__init__(ansi_color=True)  # the user's own colours: a dark blue of ours on their black is no help
        self.title = "agentscope"
        self.animation_level = "none"
        self.events = events
        self.player = events if isinstance(events, Player) else None
        self.about = safe(title, 200)
        self.replay = replay
        self.engine = engine
        self.deeds_of = deeds
        self.board = Board()
        self.failure: Exception | None = None
        self.wanted = ""
        self.over = False
        self.drawn: object = None
        self.said: dict[str, str] = {}
        self.likely: list[Candidate] = []
        self.notice, self.notice_until_s = "", 0.0
        self.reading: asyncio.Task[None] | None = None
        self.begun: set[asyncio.Task[None]] = set()

    def compose(self) -> ComposeResult:
        """Every part of the main screen; which of them show depends on the size."""
        yield Static(id="headline", markup=False)
        yield Static(id="titles", markup=False)
        yield Listing(self.draw_agent, lambda row: cast("Row", row).key, lines_each=1, id="agents")
        yield Static(id="chosen", markup=False)
        yield Static(id="empty", markup=False)
        yield Static(id="incidents-title", markup=False)
        yield Listing(self.draw_incident, lambda entry: cast("Happened", entry).incident.incident, lines_each=2, id="incidents")
        yield Static(id="engine", markup=False)
        yield Input(id="filter", placeholder="words to look for; Enter keeps, Esc forgets", select_on_focus=False)
        yield Static(id="keys", markup=False)
        yield Static(id="small", markup=False)

    def on_mount(self) -> None:
        """Start reading, and drawing."""
        self.query_one("#filter", Input).display = False
        self.query_one("#agents", Listing).focus()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: whoever runs us has the signals
            for number in ENDED_BY:
                loop.add_signal_handler(number, self.exit)
        self.reading = asyncio.create_task(self.read(), name="agentscope-tui-events")
        self.set_interval(REDRAW_S, self.tick)
        self.redraw()
        self.set_interval(LIKELY_S, self.find_likely)

    async def on_unmount(self) -> None:
        """Stop reading and give the signals back."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError):
            for number in ENDED_BY:
                loop.remove_signal_handler(number)
        for task in [*self.begun, *([self.reading] if self.reading is not None else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def read(self) -> None:
        """Fold events into the board until they end; an error ends the app, which its caller then tells."""
        try:
            count = 0
            async for event in self.events:
                if isinstance(event, Envelope):
                    self.board.recall(event)
                elif isinstance(event, Glimpse):
                    self.board.glimpse(event)
                else:
                    self.board.apply(event)
                count += 1
                if isinstance(event, Ready | Glimpse):
                    self.set_timer(FIRST_S, self.tick)  # whoever has waited for the first agents waits no longer
                if count % BREATH == 0:
                    await asyncio.sleep(0)
            self.over = True
        except Exception as error:  # noqa: BLE001 - raised again by `show` once the terminal is restored
            self.failure = error
            self.exit(return_code=1)

    def _handle_exception(self, error: Exception) -> None:
        """What goes wrong in drawing ends the app like a source that fails: our caller tells."""
        self.failure = self.failure or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End; textual would also print our locals, with whatever processes wrote in them."""
        self._close_messages_no_wait()

    # --- drawing -------------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Now, or in a replay the time of its last event."""
        return self.board.now_ns if self.replay or self.board.ready is None else time.time_ns()

    def stamp(self) -> object:
        """Whatever a person could see a change of."""
        played = self.player.says() if self.player is not None else ""
        return self.board.changes, self.now_ns // 1_000_000_000, self.notice, played

    def tick(self) -> None:
        """Redraw if a person could see a difference: something happened, or a second went by."""
        if self.notice and time.monotonic() > self.notice_until_s:
            self.notice = ""
        if self.stamp() == self.drawn or not self.screen_stack:
            return
        if isinstance(self.screen, Page):
            self.drawn = self.stamp()
            self.board.now_ns = max(self.board.now_ns, self.now_ns)
            self.screen.freshen()
            self.screen.say(self.notice)
        else:
            self.redraw()

    def tell(self, notice: str) -> None:
        """A sentence in the last line, for a while."""
        self.notice, self.notice_until_s = safe(notice, 400), time.monotonic() + NOTICE_S
        if isinstance(self.screen, Page):
            self.screen.say(self.notice)
        else:
            self.redraw()

    def on_resize(self, _: Resize) -> None:
        """Lay out for the new size."""
        self.redraw()

    def on_screen_resume(self) -> None:
        """Back on the main screen: what has changed meanwhile."""
        self.redraw()

    def redraw(self) -> None:
        """Everything on the main screen that is not as it was."""
        if not self.screen_stack or not self.screen_stack[0].query("#small"):
            return  # a resize can come before the widgets
        self.drawn = self.stamp()
        self.board.now_ns = max(self.board.now_ns, self.now_ns)
        main = self.screen_stack[0]
        width, height = self.size
        rows, happened = self.board.listed(self.wanted), self.board.happened(self.wanted)
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        empty = not self.board.rows
        self.show_parts(main, small=small, empty=empty, quiet=not happened, height=height)
        if small:
            sentence = f"This window is {width} x {height}. agentscope needs {LEAST_WIDTH} x {LEAST_HEIGHT}: make it larger, or type q, then: agentscope watch --once"
            self.put(main, "small", sentence)
            return
        agents = main.query_one("#agents", Listing)
        agents.show(rows)
        main.query_one("#incidents", Listing).show(happened)
        chosen = lines.chosen_lines(cast("Row", agents.current), self.board, width, self.chosen_height(height)) if rows else []
        room = height - 4 - (height >= ENGINE_LINE_FROM) - (height >= AIRY_FROM) - len(chosen)
        wanted = 2 * len(happened) or 1
        main.query_one("#chosen").styles.height = max(1, len(chosen))
        main.query_one("#chosen").display = bool(chosen)
        # all that the agents need, but half of the screen stays for incidents that want it
        agents.styles.height = max(1, min(len(rows), room - min(wanted, room // 2)))
        self.put(main, "chosen", "\n".join(chosen))
        for name, text in self.lines(width, height, rows, happened).items():
            self.put(main, name, text)

    def put(self, main: Screen[object], name: str, text: str) -> None:
        """The text of one part, where it is another than before: an update lays the screen out anew."""
        if self.said.get(name) != text:
            self.said[name] = text
            main.query_one(f"#{name}", Static).update(text)

    def show_parts(self, main: Screen[object], *, small: bool, empty: bool, quiet: bool, height: int) -> None:
        """Which parts there are at this size."""
        filtering = main.query_one("#filter", Input).has_focus
        shown = {
            "headline": not small,
            "titles": not small and not empty,
            "agents": not small and not empty,
            "chosen": not small and not empty and self.chosen_height(height) > 0,
            "empty": not small and empty,
            "incidents-title": not small and not (empty and quiet),
            "incidents": not small and not (empty and quiet),
            "engine": not small and height >= ENGINE_LINE_FROM,
            "filter": not small and filtering,
            "keys": not small and not filtering,
            "small": small,
        }
        for name, visible in shown.items():
            widget = main.query_one(f"#{name}")
            if widget.display != visible:
                widget.display = visible
        main.query_one("#incidents-title").styles.margin = (1, 0, 0, 0) if height >= AIRY_FROM else 0

    @staticmethod
    def chosen_height(height: int) -> int:
        """Lines for more about the chosen agent."""
        return lines.PLOT_LINES + 2 if height >= PLOT_FROM else 2 if height >= AIRY_FROM else 0

    def lines(self, width: int, height: int, rows: list[Row], happened: list[Happened]) -> dict[str, str]:
        """The single lines around the lists, by the name of their widget."""
        about = self.about or ("replay" if self.replay else "")
        if self.replay and self.over and self.player is None:
            about += ", at its end"
        attaching = self.board.ready is None and not self.over
        seen = lines.glimpse_of(self.board) if attaching and not self.replay else lines.headline_of(self.board)
        said = " · ".join(part for part in (seen, about) if part)
        hour = clock(self.now_ns if self.board.wall_offset_ns is not None else None)
        hour = f"{self.player.says()}  {hour}" if self.player is not None else hour
        title = f"INCIDENTS  {len(happened)}, newest first" if happened else "INCIDENTS" if attaching else "INCIDENTS  none yet"
        if self.wanted:
            title += (
                f"   filter: {safe(self.wanted, 60)} ({count_of(len(rows), 'agent')}, {count_of(len(happened), 'incident')})"
            )
        can_add = self.deeds is not None
        keys = self.own_keys or lines.keys_line(width, playing=self.player is not None)
        if self.board.lost and height < ENGINE_LINE_FROM:
            keys = f"LOST {self.board.lost_count:,}  {keys}"
        waiting = f"{self.engine or 'reading'} …" if attaching else ""
        return {
            "headline": lines.headline(said, hour, width),
            "titles": f"  {lines.title_line(width - 3)}",
            "empty": waiting or "\n".join(empty_lines(max(20, width - 4), height - 5, self.likely, can_add=can_add)),
            "incidents-title": cut(title, width),
            "engine": cut(lines.engine_line(self.board, waiting), width),
            "keys": cut(self.notice or keys, width),
        }

    def draw_agent(self, entry: object, _line: int, width: int) -> tuple[str, Style]:
        """One agent in one line."""
        row = cast("Row", entry)
        fresh = DIED if row.ended is not None and self.board.troubled(row) else None
        style = STUCK if row.stuck else PRESSED if row.pressures else fresh or (DIM if row.ended is not None else PLAIN)
        return lines.agent_line(row, self.board, width), style

    def draw_incident(self, entry: object, line: int, width: int) -> tuple[str, Style]:
        """One incident in two lines."""
        happened = cast("Happened", entry)
        done = self.board.outcomes.get(happened.incident.incident, "")
        return incident_lines(happened, width, done)[line], (
            PLAIN if happened.incident.scope == "tool" else BOLD
        ) if line == 0 else DIM

    # --- keys ----------------------------------------------------------------------------------------------------------

    def on_listing_opened(self, message: Listing.Opened) -> None:
        """Enter on an agent or on an incident."""
        self.open(message.entry)

    def on_listing_moved(self, _: Listing.Moved) -> None:
        """Another one is chosen: what is said of it changes."""
        self.redraw()

    def open(self, entry: object) -> None:
        """The page of an incident; of an agent that died or hangs, its incident; of one that lives, what it does."""
        from agentscope.views.tui.parts import agent_parts, incident_parts

        if isinstance(entry, Row):
            entry = entry.incident or entry
        board = self.board
        if isinstance(entry, Happened):
            name = entry.incident.incident
            page = Page(incident_parts(entry, board), subject=entry, stamp=lambda: len(board.done.get(name, ())))
            self.push_screen(page)
        elif isinstance(entry, Row):
            row = entry
            self.push_screen(
                Page(agent_parts(row, board), subject=row, stamp=lambda: (row.state, row.ended, board.now_ns // 10**9))
            )

    def action_help(self) -> None:
        """The keys, once."""
        from agentscope.views.tui.parts import help_parts

        if not any(isinstance(screen, Page) and screen.parts is help_parts for screen in self.screen_stack):
            self.push_screen(Page(help_parts))

    def action_other_list(self) -> None:
        """Agents or incidents."""
        if len(self.screen_stack) == 1:
            wanted = "#incidents" if self.focused is not None and self.focused.id == "agents" else "#agents"
            self.query_one(wanted, Listing).focus()

    def action_filter(self) -> None:
        """Ask for words."""
        if len(self.screen_stack) == 1:
            field = self.query_one("#filter", Input)
            field.display = True
            self.screen.set_focus(field)  # at once: `focus` is put off, and what is typed meanwhile would be keys of ours
            self.query_one("#keys").display = False

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter while typing."""
        self.wanted = message.value
        self.redraw()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Keep the filter and go back to the list."""
        self.query_one("#agents", Listing).focus()
        self.call_after_refresh(self.redraw)

    def action_clear(self) -> None:
        """Forget the filter."""
        if len(self.screen_stack) == 1:
            self.query_one("#filter", Input).value = ""
            self.wanted = ""
            self.query_one("#agents", Listing).focus()
            self.call_after_refresh(self.redraw)
