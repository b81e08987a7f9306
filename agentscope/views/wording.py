"""Quantities as a person says them, and text measured in terminal cells. Pure, and without rich: the plain table needs it too."""

import datetime as dt
import unicodedata
from collections.abc import Sequence

from agentscope import durations

BARS = "▁▂▃▄▅▆▇█"
EIGHTHS = "▏▎▍▌▋▊▉"
GAP = "·"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
NS_PER_S = durations.NS_PER_S
span = durations.span
# For output that cannot carry the character: each is replaced by what an old terminal can draw.
PLAIN = str.maketrans(
    dict.fromkeys(EIGHTHS, "#")
    | {"…": "...", "·": "-", "←": "<-", "→": "->", "│": "|", "─": "-", "●": "*", "○": "o", "✓": "+", "✗": "x", "▸": ">"}
    | dict(zip(BARS, "_.:-=+*#", strict=True))
)


def size(count_bytes: float | None) -> str:
    """As "498 MiB"; "?" where it is not known."""
    if count_bytes is None:
        return "?"
    amount, unit = float(count_bytes), 0
    while abs(amount) >= 1023.5 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    # two digits tell enough below ten of anything but bytes
    return f"{amount:.1f} {UNITS[unit]}" if unit and abs(amount) < 9.95 else f"{amount:.0f} {UNITS[unit]}"


def tight_size(count_bytes: float | None) -> str:
    """As "498M", for columns."""
    words = size(count_bytes).split(" ")
    return words[0] + words[1][0] if len(words) == 2 else words[0]


def age(length_ns: float) -> str:
    """As "12 s", "4 min", "3 h", "2 d": one unit, for a column."""
    seconds = max(0, int(length_ns / NS_PER_S))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def clock(wall_ns: int | None, *, with_date: bool = False) -> str:
    """Time of day here, from nanoseconds since 1970."""
    if wall_ns is None:
        return ""
    moment = dt.datetime.fromtimestamp(wall_ns / NS_PER_S, tz=dt.UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z" if with_date else "%H:%M:%S")


def count_of(count: int, noun: str, plural: str = "") -> str:
    """As "1 agent", "3 agents"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def sparkline(values: Sequence[float | None], cells: int, top: float | None = None) -> str:
    """The values as bars, oldest first, `top` (or the greatest) at full height; each bar is the greatest of its share."""
    if not values or cells < 1:
        return ""
    cells = min(cells, len(values))
    known = [value for value in values if value is not None]
    ceiling = max([*known, top or 0], default=0)
    bars = []
    for cell in range(cells):
        share = values[cell * len(values) // cells : (cell + 1) * len(values) // cells]
        seen = [value for value in share if value is not None]
        if not seen:
            bars.append(GAP)
        else:
            level = 0.0 if ceiling <= 0 else max(seen) / ceiling
            bars.append(BARS[max(0, min(len(BARS) - 1, int(level * len(BARS))))])
    return "".join(bars)


def plot(values: Sequence[float | None], cells: int, lines: int, top: float | None = None) -> list[str]:
    """The same over several lines, the highest first."""
    bars = [share_of(values, cell, min(cells, len(values))) for cell in range(min(cells, len(values)))]
    ceiling = max([*(bar for bar in bars if bar is not None), top or 0], default=0) or 1
    eighths = [None if bar is None else max(1, min(8 * lines, round(8 * lines * bar / ceiling))) for bar in bars]
    drawn = []
    for line in range(lines - 1, -1, -1):
        heights = [None if each is None else max(0, min(8, each - 8 * line)) for each in eighths]
        drawn.append(
            "".join((GAP if line == 0 else " ") if each is None else BARS[each - 1] if each else " " for each in heights)
        )
    return drawn


def share_of(values: Sequence[float | None], cell: int, cells: int) -> float | None:
    """The greatest of the values that one cell stands for; None where none is known."""
    seen = [value for value in values[cell * len(values) // cells : (cell + 1) * len(values) // cells] if value is not None]
    return max(seen, default=None)


def gauge(share: float, cells: int) -> str:
    """A bar that is full at 1: what is used in blocks to an eighth of a cell, the rest in points."""
    eighths = max(0, min(8 * cells, round(8 * cells * share)))
    full, part = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[part - 1] if part else "")).ljust(cells, GAP)


def tight_age(length_ns: float) -> str:
    """As "43s", "12m", "3h", "2d", for columns."""
    count, unit = age(length_ns).split(" ")
    return count + unit[0]


def cells_of(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(cell_width(character) for character in text)


def cell_width(character: str) -> int:
    """Columns of one printable character: 0 for marks, 2 for wide East Asian ones and emoji."""
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def cut(text: str, cells: int) -> str:
    """The text in at most `cells` columns, with an ellipsis where something is left out."""
    if cells_of(text) <= cells:
        return text
    if cells < 1:
        return ""
    kept, used = [], 0
    for character in text:
        width = cell_width(character)
        if used + width > cells - 1:
            break
        kept.append(character)
        used += width
    return "".join(kept).rstrip() + "…"


def cut_front(text: str, cells: int) -> str:
    """The end of the text in at most `cells` columns: of a path, the end tells more."""
    return text if cells_of(text) <= cells else cut(text[::-1], cells)[::-1]


def breaks_of(text: str, cells: int) -> list[int]:
    """Where to break a text into lines of at most `cells` columns: at a space; within a longer word after a slash, or where it must be."""
    breaks = []
    begin = 0
    while cells_of(text[begin:]) > cells:
        end, used = begin, 0
        while used + cell_width(text[end]) <= cells:
            used += cell_width(text[end])
            end += 1
        if text[end] != " ":
            end = text.rfind(" ", begin, end) + 1 or text.rfind("/", begin + 1, end) + 1 or max(end, begin + 1)
        while end < len(text) and text[end] == " ":
            end += 1
        breaks.append(end)
        begin = end
    return breaks


def fit(text: str, cells: int, *, right: bool = False) -> str:
    """The text in exactly `cells` columns: cut or padded, flush right for numbers."""
    text = cut(text, cells)
    pad = " " * max(0, cells - cells_of(text))
    return pad + text if right else text + pad


def encodable(text: str, encoding: str | None) -> str:
    """The text as this encoding can carry it: our own signs become plain ones, the rest a question mark."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(name, "replace").decode(name)
    return text
