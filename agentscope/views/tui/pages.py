"""Screens with text to read, drawn anew when what they tell of changes; and one that asks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Static

from agentscope.views.wording import cut

if TYPE_CHECKING:
    from agentscope.views.board import Happened, Row
    from agentscope.views.tui.parts import Parts


class Page(Screen[None]):
    """Text to scroll. `parts(width, details)` gives what rich can draw, made anew for another width.

    `subject` is whom it is about, for the keys; `stamp` tells by a change that there is something new to draw.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,left", "app.pop_screen", show=False),
        Binding("m", "details", show=False),
        Binding("down,j", "scroll('down')", show=False),
        Binding("up,k", "scroll('up')", show=False),
        Binding("pagedown,space", "scroll('page_down')", show=False),
        Binding("pageup", "scroll('page_up')", show=False),
        Binding("home,g", "scroll('home')", show=False),
        Binding("end,G", "scroll('end')", show=False),
    ]

    def __init__(
        self,
        parts: "Parts",
        *,
        subject: "Happened | Row | None" = None,
        details: bool = False,
        stamp: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self.parts = parts
        self.subject = subject
        self.details = details
        self.stamp = stamp
        self.drawn_at: object = None

    def compose(self) -> ComposeResult:
        """The text and the line of keys."""
        with VerticalScroll(id="page"):
            yield Static(id="text", markup=False)
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        """Draw once; the size is known by now."""
        self.query_one("#page").focus()
        self.draw()

    def on_resize(self, _: Resize) -> None:
        """Draw for the new width."""
        self.draw()

    def show(self, parts: "Parts") -> None:
        """Other text, from its beginning."""
        self.parts = parts
        if self.is_mounted:
            self.draw()

    def draw(self) -> None:
        """Lay the text out for the present width."""
        self.drawn_at = self.stamp()
        width = max(20, self.app.size.width - 4)
        self.query_one("#text", Static).update(Group(*self.parts(width, self.details)))
        self.say("")

    def freshen(self) -> None:
        """Draw again if there is something new."""
        if self.is_mounted and self.stamp() != self.drawn_at:
            self.draw()

    def say(self, notice: str) -> None:
        """The last line: a notice for a while, else the keys."""
        if self.is_mounted:
            self.query_one("#keys", Static).update(cut(notice or self.keys(), self.app.size.width))

    def keys(self) -> str:
        """What can be typed here."""
        on = "d diagnose now  s stacks  r recover  e export  " if self.subject is not None else ""
        return f"Esc back  m {'less' if self.details else 'more'}  {on}? help  q quit"

    def action_details(self) -> None:
        """More, or less."""
        self.details = not self.details
        self.draw()

    def action_scroll(self, where: str) -> None:
        """Move in the text at once: an animation is a wait."""
        page = self.query_one("#page", VerticalScroll)
        getattr(page, f"scroll_{where}")(animate=False)


class Question(Page):
    """A page that asks before something is done: `yes` is called for the key y, and for no other."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "yes", show=False), Binding("n", "app.pop_screen", show=False)]

    def __init__(self, parts: "Parts", yes: Callable[[], None]) -> None:
        super().__init__(parts)
        self.yes = yes

    def action_yes(self) -> None:
        """It was meant."""
        self.app.pop_screen()
        self.yes()

    def keys(self) -> str:
        """What can be typed here."""
        return "y yes, do it  Esc no"
