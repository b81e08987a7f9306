"""A list that draws only the lines that are on the screen, so 500 agents cost as much as ten."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

MARK, NO_MARK = "▸ ", "  "
REVERSE = Style(reverse=True)


class Listing(ScrollView, can_focus=True):
    """Entries of a fixed height in lines. `draw(entry, line, width)` gives one of them; the selection follows the entry's key."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup,ctrl+b", "page(-1)", show=False),
        Binding("pagedown,ctrl+f", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """Enter on an entry."""

        def __init__(self, entry: object) -> None:
            super().__init__()
            self.entry = entry

    class Moved(Message):
        """Another entry is chosen."""

    def __init__(
        self,
        draw: Callable[[object, int, int], tuple[str, Style]],
        key: Callable[[object], object],
        *,
        lines_each: int,
        id: str,  # noqa: A002 - textual's own name for it
    ) -> None:
        super().__init__(id=id)
        self.draw = draw
        self.key = key
        self.lines_each = lines_each
        self.entries: Sequence[object] = ()
        self.selected = 0
        self.touched = False
        self.drawn: dict[int, object] = {}

    def show(self, entries: Sequence[object]) -> None:
        """Show these entries; who was selected stays selected, unless the user has never chosen."""
        chosen = self.key(self.entries[self.selected]) if self.touched and self.selected < len(self.entries) else None
        self.entries = entries
        if chosen is None:
            self.selected = 0
        else:
            self.selected = next(
                (index for index, entry in enumerate(entries) if self.key(entry) == chosen),
                min(self.selected, max(0, len(entries) - 1)),
            )
        height = len(entries) * self.lines_each
        if self.virtual_size != Size(self.size.width, height):
            self.virtual_size = Size(self.size.width, height)
        self.reveal()
        self.refresh_changed()

    def refresh_changed(self) -> None:
        """Draw those lines of the screen again that are not as they were."""
        for y in range(self.size.height):
            if self.drawn.get(y) != self.line_at(y):
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def current(self) -> object | None:
        """The selected entry."""
        return self.entries[self.selected] if self.selected < len(self.entries) else None

    def reveal(self) -> None:
        """Scroll so that the selection is on the screen."""
        if self.size.height > 0:
            top = self.selected * self.lines_each
            self.scroll_to_region(Region(0, top, 1, self.lines_each), animate=False, force=True)

    def action_move(self, steps: int) -> None:
        """Select another entry."""
        if self.entries:
            self.touched = True
            self.selected = max(0, min(len(self.entries) - 1, self.selected + steps))
            self.reveal()
            self.refresh()
            self.post_message(self.Moved())

    def action_page(self, pages: int) -> None:
        """Move by a screenful."""
        self.action_move(pages * max(1, self.size.height // self.lines_each - 1))

    def action_open(self) -> None:
        """Tell the app which entry was chosen."""
        if self.current is not None:
            self.touched = True
            self.post_message(self.Opened(self.current))

    def line_at(self, y: int) -> tuple[str, Style, int] | None:
        """The text of one line of the screen with its style, for a width; None below the last entry."""
        width = self.scrollable_content_region.width
        index, line = divmod(y + self.scroll_offset.y, self.lines_each)
        if index >= len(self.entries):
            return None
        text, style = self.draw(self.entries[index], line, width - len(MARK))
        if index == self.selected and self.has_focus:
            style += REVERSE
        return (MARK if index == self.selected and line == 0 else NO_MARK) + text, style, width

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        self.drawn[y] = found = self.line_at(y)
        if found is None:
            return Strip.blank(self.scrollable_content_region.width)
        text, style, width = found
        return Strip([Segment(text, style)]).adjust_cell_length(width, style)
