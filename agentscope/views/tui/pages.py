"""Screens with text to read: one incident or agent, and the keys."""

from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.console import Group, RenderableType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Static

from agentscope.views.wording import cut

Parts = Callable[[int, bool], Iterator[RenderableType]]

KEYS = """\
In the lists
  Up Down, k j        choose         PgUp PgDn Home End   far
  Tab                 agents or incidents
  Enter               open what is chosen, with its proof
  d                   the same with every field and frame
  /                   filter by any words: name, pid, cause
  Esc                 forget the filter
In a page
  Up Down PgUp PgDn   read
  d                   more or less detail
  Esc                 back
Anywhere
  ?  this page        q  quit        Ctrl+Z  to the shell, fg back

Words
  agent     a watched process with its children
  incident  one unplanned end, or hang, of one agent
  tool      a child doing a job: its death is never blamed on
            the agent
  24H       deaths of this agent in the last 24 hours

To keep what you see: agentscope show ID, agentscope incidents"""


class Page(Screen[None]):
    """Text to scroll. `parts(width, details)` gives what rich can draw, made anew for another width."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,left", "app.pop_screen", show=False),
        Binding("d", "details", show=False),
        Binding("down,j", "scroll('down')", show=False),
        Binding("up,k", "scroll('up')", show=False),
        Binding("pagedown,space", "scroll('page_down')", show=False),
        Binding("pageup", "scroll('page_up')", show=False),
        Binding("home,g", "scroll('home')", show=False),
        Binding("end,G", "scroll('end')", show=False),
    ]

    def __init__(self, parts: Parts, *, details: bool = False) -> None:
        super().__init__()
        self.parts = parts
        self.details = details

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

    def draw(self) -> None:
        """Lay the text out for the present width."""
        width = max(20, self.app.size.width - 4)
        self.query_one("#text", Static).update(Group(*self.parts(width, self.details)))
        less = "less" if self.details else "more"
        self.query_one("#keys", Static).update(
            cut(f"Esc back  d {less} detail  PgUp PgDn read  ? help  q quit", self.app.size.width)
        )

    def action_details(self) -> None:
        """More, or less."""
        self.details = not self.details
        self.draw()

    def action_scroll(self, where: str) -> None:
        """Move in the text at once: an animation is a wait."""
        page = self.query_one("#page", VerticalScroll)
        getattr(page, f"scroll_{where}")(animate=False)


def help_parts(_width: int, _details: bool) -> Iterator[RenderableType]:
    """The keys and the words."""
    from rich.text import Text

    yield Text("agentscope: why did it die?", style="bold")
    yield Text()
    yield Text(KEYS, overflow="fold")
