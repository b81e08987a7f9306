"""The few shapes that every page is made of: a heading, labelled lines, a sentence behind a mark, somebody else's words.

Drawn by rich, without markup, highlighting or hyperlinks: text of a hostile process stays text. Colour only repeats what words say.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from agentscope.views.wording import breaks_of, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.text import Text

WIDEST = 120  # longer lines are not read, they are lost
NARROWEST = 30
INDENT = 2
LABEL_CELLS = 28
BAD, GOOD, UNKNOWN, STRONG, QUIET, BARS = "bold red", "bold green", "bold yellow", "bold", "dim", "cyan"


def drawn(parts: "Iterator[RenderableType]", width: int, *, color: bool) -> str:
    """The parts as text, without blanks at the ends of lines, which a pager or a paste would keep."""
    from io import StringIO

    from rich.console import Console

    buffer = StringIO()
    console: Console = Console(
        file=buffer,
        width=max(NARROWEST, min(width, WIDEST)),
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))


def warm() -> None:
    """Load now what drawing will need: a tenth of a second that can be spent while something else is waited for."""
    import rich.padding
    import rich.table
    import rich.text

    drawn(iter((rich.text.Text(), rich.padding.Padding(rich.table.Table()))), WIDEST, color=False)


@cache
def folding() -> "type[Text]":
    """Text that is broken at spaces, and of a word that is longer than a line, such as a path, after a slash."""
    from rich.containers import Lines
    from rich.text import Text

    class Folding(Text):
        def wrap(self, console: "Console", width: int, **_: object) -> Lines:  # noqa: ARG002 - as rich calls it
            lines = Lines()
            for line in self.split(allow_blank=True):
                lines.extend(line.divide(breaks_of(line.plain, width)))
            for line in lines:
                line.rstrip_end(width)
            return lines

    return Folding


def section(title: str, note: str = "") -> "RenderableType":
    """A heading with a blank line above it."""
    from rich.text import Text

    return Text.assemble("\n", (title, STRONG), (f"  {note}" if note else "", QUIET))


def indented(part: "RenderableType", cells: int = INDENT) -> "RenderableType":
    """Moved to the right."""
    from rich.padding import Padding

    return Padding(part, (0, 0, 0, cells))


def pairs(rows: Sequence[tuple[str, str]], style: str = "") -> "RenderableType":
    """Label and text in two columns; the text wraps in its own."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(Text(cut(label, LABEL_CELLS), style=QUIET), folding()(text, style=style, overflow="fold"))
    return indented(grid)


def listed(title: str, rows: Sequence[tuple[str, str]]) -> "Iterator[RenderableType]":
    """A section of labelled lines, or nothing."""
    if rows:
        yield section(title)
        yield pairs(rows)


def bullet(mark: str, text: str, note: str = "", style: str = "", indent: int = INDENT) -> "RenderableType":
    """One sentence behind a mark, a note in brackets after it, both wrapping clear of the mark."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    said = folding().assemble((text, style), (f" [{note}]" if note else "", QUIET), overflow="fold")
    grid.add_row(Text(mark, style=style), said)
    return indented(grid, indent)


def quoted(lines: Sequence[str]) -> "RenderableType":
    """Lines of somebody else behind a rule, every part of a folded line too."""
    from rich.console import ConsoleOptions, RenderResult
    from rich.segment import Segment
    from rich.text import Text

    class Quote:
        def __rich_console__(self, console: "Console", options: ConsoleOptions) -> "RenderResult":
            rule = Segment("  │ ", console.get_style(QUIET))
            for line in lines:
                body = Text(line, overflow="fold", no_wrap=False)
                for part in console.render_lines(body, options.update(width=max(8, options.max_width - 4)), pad=False):
                    yield rule
                    yield from part
                    yield Segment.line()

    return Quote()
