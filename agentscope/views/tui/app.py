"""The app: takes events as they come, draws what is the case at most four times a second, opens pages."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar, cast

from rich.console import RenderableType
from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import Input, Static

from agentscope.model import AnyEvent, Pulse
from agentscope.views import report, safe
from agentscope.views.board import Board, Happened, Row
from agentscope.views.table import empty_lines, engine_of, headline_of, incident_lines, row_line, title_line
from agentscope.views.tui.listing import Listing
from agentscope.views.tui.pages import Page, Parts, help_parts
from agentscope.views.wording import clock, count_of, cut

REDRAW_S = 0.25
BREATH = 200  # events folded before the keyboard gets its turn
LEAST_WIDTH, LEAST_HEIGHT = 40, 10
ENGINE_LINE_FROM = 14  # a shorter screen needs the line for incidents
AIRY_FROM = 20
WIDE_KEYS = "Enter open  / filter  ? help  q quit  d details  Tab other list"
NARROW_KEYS = "Enter open  / filter  ? help  q quit"
ENDED_BY = (signal.SIGTERM, signal.SIGHUP)

PLAIN, DIM, BOLD = Style(), Style(dim=True), Style(bold=True)
DIED, STUCK = Style(color="red"), Style(color="red", bold=True)


class WatchApp(App[None]):
    """Agents above, incidents below. `failure` is what the source of events raised, for the caller to show afterwards."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    * { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    Screen, Listing, Static, Input, VerticalScroll { background: ansi_default; color: ansi_default; }
    Screen { layout: vertical; overflow: hidden; }
    Static { height: 1; }
    Listing { overflow-x: hidden; height: 1fr; scrollbar-gutter: stable; }
    #headline { text-style: bold; }
    #titles, #incidents-title, #engine, #keys { text-style: dim; }
    #empty { height: 1fr; padding: 1 2; }
    #small { height: 1fr; padding: 0 0; }
    #page { height: 1fr; padding: 0 1; }
    #text { height: auto; }
    #filter { height: 1; border: none; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", show=False, priority=False),
        Binding("question_mark,f1", "help", show=False),
        Binding("slash", "filter", show=False),
        Binding("d", "details", show=False),
        Binding("escape", "clear", show=False),
        Binding("tab", "other_list", show=False),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    def __init__(self, events: AsyncIterator[AnyEvent], *, title: str = "", replay: bool = False, engine: str = "") -> None:
        super().__init__(ansi_color=True)  # the user's own colours: a dark blue of ours on their black is no help
        self.title = "agentscope"
        self.animation_level = "none"
        self.events = events
        self.about = safe(title, 200)
        self.replay = replay
        self.engine = engine
        self.board = Board()
        self.failure: Exception | None = None
        self.wanted = ""
        self.over = False
        self.drawn: tuple[int, int] = (-1, -1)
        self.reading: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        """Every part of the main screen; which of them show depends on the size."""
        yield Static(id="headline", markup=False)
        yield Static(id="titles", markup=False)
        yield Listing(self.draw_agent, lambda row: cast("Row", row).key, lines_each=1, id="agents")
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

    async def on_unmount(self) -> None:
        """Stop reading and give the signals back."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError):
            for number in ENDED_BY:
                loop.remove_signal_handler(number)
        if self.reading is not None:
            self.reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.reading

    async def read(self) -> None:
        """Fold events into the board until they end; an error ends the app, which its caller then tells."""
        try:
            count = 0
            async for event in self.events:
                self.board.apply(event)
                count += 1
                if count % BREATH == 0:
                    await asyncio.sleep(0)
            self.over = True
        except Exception as error:  # noqa: BLE001 - raised again by `show` once the terminal is restored
            self.failure = error
            self.exit(return_code=1)

    # --- drawing -------------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Now, or in a replay the time of its last event."""
        return self.board.now_ns if self.replay or self.board.ready is None else time.time_ns()

    def tick(self) -> None:
        """Redraw if a person could see a difference: something happened, or a second went by."""
        if (self.board.changes, self.now_ns // 1_000_000_000) != self.drawn:
            self.redraw()

    def on_resize(self, _: Resize) -> None:
        """Lay out for the new size."""
        self.redraw()

    def redraw(self) -> None:
        """Everything on the main screen."""
        if not self.screen_stack or not self.screen_stack[0].query("#small"):
            return  # a resize can come before the widgets
        self.drawn = (self.board.changes, self.now_ns // 1_000_000_000)
        self.board.now_ns = max(self.board.now_ns, self.now_ns)
        main = self.screen_stack[0]
        width, height = self.size
        rows, happened = self.board.listed(self.wanted), self.board.happened(self.wanted)
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        empty = not self.board.rows
        filtering = main.query_one("#filter", Input).has_focus
        shown = {
            "headline": not small,
            "titles": not small and not empty,
            "agents": not small and not empty,
            "empty": not small and empty,
            "incidents-title": not small and not (empty and not happened),
            "incidents": not small and not (empty and not happened),
            "engine": not small and height >= ENGINE_LINE_FROM,
            "filter": not small and filtering,
            "keys": not small and not filtering,
            "small": small,
        }
        for name, visible in shown.items():
            main.query_one(f"#{name}").display = visible
        if small:
            sentence = f"This window is {width} x {height}. agentscope needs {LEAST_WIDTH} x {LEAST_HEIGHT}: make it larger, or type q, then: agentscope watch --once"
            main.query_one("#small", Static).update(sentence)
            return
        main.query_one("#incidents-title").styles.margin = (1, 0, 0, 0) if height >= AIRY_FROM else 0
        agents = main.query_one("#agents", Listing)
        agents.styles.height = self.agents_height(len(rows), 2 * len(happened), height)
        agents.show(rows)
        main.query_one("#incidents", Listing).show(happened)
        for name, text in self.lines(width, rows, happened).items():
            main.query_one(f"#{name}", Static).update(text)

    def agents_height(self, rows: int, incident_lines_wanted: int, height: int) -> int:
        """Lines for the agents: all they need, but half of the screen stays for incidents that want it."""
        room = height - 4 - (height >= ENGINE_LINE_FROM) - (height >= AIRY_FROM)
        return max(1, min(rows, room - min(incident_lines_wanted or 1, room // 2)))

    def lines(self, width: int, rows: list[Row], happened: list[Happened]) -> dict[str, str]:
        """The single lines around the lists, by the name of their widget."""
        about = self.about or ("replay" if self.replay else "")
        if self.replay and self.over:
            about = f"{about}, at its end"
        said = " · ".join(part for part in (headline_of(self.board), about) if part)
        hour = clock(self.now_ns if self.board.wall_offset_ns is not None else None)
        title = f"INCIDENTS  {len(happened)}, newest first" if happened else "INCIDENTS  none yet"
        if self.wanted:
            title += (
                f"   filter: {safe(self.wanted, 60)} ({count_of(len(rows), 'agent')}, {count_of(len(happened), 'incident')})"
            )
        keys = NARROW_KEYS if width < 60 else WIDE_KEYS
        if self.board.lost and self.size.height < ENGINE_LINE_FROM:
            keys = f"LOST {self.board.lost_count:,}  {keys}"
        return {
            "headline": f"{cut(said, width - len(hour) - 2):<{max(0, width - len(hour) - 1)}}{hour}",
            "titles": f"  {title_line(width - 3)}",
            "empty": "\n".join(empty_lines(max(20, width - 4), self.size.height - 5)),
            "incidents-title": cut(title, width),
            "engine": cut(engine_of(self.board, self.engine), width),
            "keys": cut(keys, width),
        }

    def draw_agent(self, entry: object, _line: int, width: int) -> tuple[str, Style]:
        """One agent in one line."""
        row = cast("Row", entry)
        troubled = STUCK if row.stuck else DIED if self.board.troubled(row) else None
        style = troubled or (DIM if row.ended is not None else PLAIN)
        return row_line(row, self.board, width), style

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
        self.open(message.entry, details=False)

    def action_details(self) -> None:
        """Open what is chosen with everything there is."""
        if isinstance(self.focused, Listing) and self.focused.current is not None:
            self.open(self.focused.current, details=True)

    def open(self, entry: object, *, details: bool) -> None:
        """The page of an incident; of an agent that died, its incident; of one that lives, what it does."""
        if isinstance(entry, Row) and entry.died and entry.last is not None:
            entry = entry.last
        if isinstance(entry, Happened):
            self.push_screen(Page(incident_parts(entry), details=details))
        elif isinstance(entry, Row):
            self.push_screen(Page(self.agent_parts(entry), details=details))

    def agent_parts(self, row: Row) -> Parts:
        """The page of an agent that lives or ended well."""

        def parts(width: int, _details: bool) -> Iterator[RenderableType]:
            pulse = Pulse(
                at_ns=self.board.now_ns,
                agent_pid=row.agent.pid,
                agent_start_ns=row.agent.start_ns,
                state=row.words,
                rss_bytes=row.rss_bytes,
                cpu_percent=row.cpu_percent,
                threads=row.threads or 0,
                cgroup_bytes=row.cgroup_bytes,
                limit_bytes=row.limit_bytes,
            )
            return report.agent_page(row.agent, pulse, ended=row.ended is not None, history=list(row.history), width=width)

        return parts

    def action_help(self) -> None:
        """The keys, once."""
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
            field.focus()
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
        self.query_one("#filter", Input).value = ""
        self.wanted = ""
        self.query_one("#agents", Listing).focus()
        self.call_after_refresh(self.redraw)


def incident_parts(happened: Happened) -> Parts:
    """The report of an incident, for a page."""

    def parts(width: int, details: bool) -> Iterator[RenderableType]:
        return report.incident_page(happened.incident, width=width, when_ns=happened.wall_ns, details=details)

    return parts
