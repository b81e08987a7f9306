"""The screen on which one more process is picked from those that run, by typing what is known of it."""

from collections.abc import Callable, Sequence
from typing import ClassVar, cast

from rich.style import Style
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input, Static

from agentscope.views import safe
from agentscope.views.board import matches
from agentscope.views.tui.deeds import Candidate
from agentscope.views.tui.listing import Listing
from agentscope.views.wording import count_of, cut, fit

LIKELY = Style(bold=True)
PLAIN = Style()


def candidate_line(candidate: Candidate, width: int) -> str:
    """One process in one line: number, user, what it is, and why it looks like an agent, or its command line."""
    name, user = safe(candidate.name, 60), safe(candidate.user, 20)
    rest = safe(candidate.because, 200) or safe(candidate.command, 300)
    return cut(f"{candidate.pid:>7}  {fit(user, 8)}  {fit(name, max(8, min(22, width // 4)))}  {rest}", width)


class Adding(Screen[None]):
    """Processes below what is typed to find them. `chosen` is called with the one that Enter picks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", show=False),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, chosen: Callable[[Candidate], None]) -> None:
        super().__init__()
        self.chosen = chosen
        self.candidates: Sequence[Candidate] = ()
        self.problem = "looking at what runs here"

    def compose(self) -> ComposeResult:
        """What is typed, the list, the keys."""
        yield Static(id="headline", markup=False)
        yield Input(id="find", placeholder="words of its name, command line, user or pid", select_on_focus=False)
        yield Listing(self.draw_candidate, lambda entry: cast("Candidate", entry).pid, lines_each=1, id="candidates")
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        """Type at once."""
        self.set_focus(self.query_one("#find", Input))
        self.redraw()

    def on_resize(self) -> None:
        """For the new width."""
        self.redraw()

    def show(self, candidates: Sequence[Candidate], problem: str = "") -> None:
        """These can be picked."""
        self.candidates, self.problem = candidates, problem
        if self.is_mounted:
            self.redraw()

    def wanted(self) -> list[Candidate]:
        """Those that match what is typed."""
        words = self.query_one("#find", Input).value
        return [
            each for each in self.candidates if matches(words, each.name, each.command, each.user, str(each.pid), each.because)
        ]

    def redraw(self) -> None:
        """Everything."""
        found = self.wanted()
        width = self.app.size.width
        says = self.problem or f"{count_of(len(found), 'process', 'processes')} that could be watched, likely agents first"
        self.query_one("#headline", Static).update(cut(f"Watch one more: {says}", width))
        self.query_one("#candidates", Listing).show(found)
        self.query_one("#keys", Static).update(cut("Enter watch it  Up Down choose  Esc back", width))

    def draw_candidate(self, entry: object, _line: int, width: int) -> tuple[str, Style]:
        """One line of the list."""
        candidate = cast("Candidate", entry)
        return candidate_line(candidate, width), LIKELY if candidate.because else PLAIN

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter while typing."""
        message.stop()
        listing = self.query_one("#candidates", Listing)
        listing.touched, listing.selected = False, 0
        self.redraw()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """The chosen one."""
        message.stop()
        self.choose(self.query_one("#candidates", Listing).current)

    def on_listing_opened(self, message: Listing.Opened) -> None:
        """The same, with the list focused."""
        message.stop()
        self.choose(message.entry)

    def choose(self, entry: object) -> None:
        """Close, and tell."""
        if isinstance(entry, Candidate):
            self.app.pop_screen()
            self.chosen(entry)

    def action_move(self, steps: int) -> None:
        """Choose another while typing."""
        self.query_one("#candidates", Listing).action_move(steps)

    def action_page(self, pages: int) -> None:
        """Far."""
        self.query_one("#candidates", Listing).action_page(pages)
