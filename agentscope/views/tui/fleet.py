"""The screen of a fleet: that of one host, and on `c` the changes that broke agents on many."""

from collections.abc import AsyncIterable, Callable, Iterator
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType

from agentscope.views.tui.app import Told, WatchApp
from agentscope.views.tui.pages import Page

KEYS = "Enter open  c changes that broke agents  / filter  e export  ? help  q quit"


class FleetApp(WatchApp):
    """`changes(width)` gives the text of the page, made anew when `stamp` changes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "changes", show=False)]
    own_keys = KEYS

    def __init__(
        self, events: AsyncIterable[Told], title: str, changes: Callable[[int], str], stamp: Callable[[], object]
    ) -> None:
        super().__init__(events, title=title, engine="reading the fleet")
        self.changes_of = changes
        self.stamp_of = stamp

    def change_parts(self, width: int, _details: bool) -> Iterator[RenderableType]:
        """The page."""
        yield Text(self.changes_of(width), overflow="fold")

    def action_changes(self) -> None:
        """The page of changes, once."""
        if not any(isinstance(screen, Page) and screen.parts == self.change_parts for screen in self.screen_stack):
            self.push_screen(Page(self.change_parts, stamp=self.stamp_of))


async def show_fleet(
    events: AsyncIterable[Told], *, title: str, changes: Callable[[int], str], stamp: Callable[[], object]
) -> None:
    """Run the screen until the user quits.

    Raises:
        Exception: whatever `events` raised, once the terminal is restored and can show it.
    """
    app = FleetApp(events, title, changes, stamp)
    await app.run_async(mouse=False)
    if app.failure is not None:
        raise app.failure
