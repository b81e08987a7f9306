"""Elements whose text is always escaped and whose attributes are never anybody's but ours.

`Html` is text that is markup already; only `element` and `text` make it, and whatever else is put into an element is escaped. An
attribute that holds more than the letters that our own values need is refused, so a process cannot get into one even by mistake.
"""

import re
from collections.abc import Iterable
from html import escape

MARK = re.compile("⟨(?:U\\+[0-9A-F]{4,6}|[A-Z]{2,3})(?: x[0-9,]+)?⟩")  # as `visible` writes them
NAME = re.compile(r"[a-z][A-Za-z0-9-]*")
VALUE = re.compile(r"[A-Za-z0-9 .,;:%()'=/+_#-]*")
VOID = frozenset({"meta"})


class Html(str):
    """Markup: text of others in it is escaped."""

    __slots__ = ()


def plain(words: str) -> Html:
    """The text escaped and nothing else, for where no element may stand (a title)."""
    return Html(escape(words))


def text(words: str) -> Html:
    """The text escaped, the names of characters that cannot be shown set apart from what was written."""
    return Html(MARK.sub(r'<span class="mark">\g<0></span>', escape(words)))


def join(parts: Iterable[str], between: str = "") -> Html:
    """The parts one after another; those that are no markup are escaped."""
    return Html(between.join(part if isinstance(part, Html) else text(part) for part in parts))


def element(tag: str, *children: str, **attributes: str | float) -> Html:
    """As `<tag name="value">children</tag>`. Of a name, underscores are hyphens and one at the end is left out (`class_`).

    Raises:
        ValueError: a name or value that we would never write.
    """
    written = ""
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        if not NAME.fullmatch(name) or not VALUE.fullmatch(shown):
            raise ValueError(f"{name}={shown!r} is no attribute of ours")
        written += f' {name}="{shown}"'
    if not NAME.fullmatch(tag):
        raise ValueError(f"{tag!r} is no element of ours")
    return Html(f"<{tag}{written}>" if tag in VOID else f"<{tag}{written}>{join(children)}</{tag}>")
