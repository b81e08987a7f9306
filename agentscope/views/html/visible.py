"""Text of hostile processes with what cannot be seen named: a page in a ticket shows that somebody tried, and does not obey.

Terminals get such text without its control sequences (`agentscope.views.printable`); here each character that has no form of its own
stands as ⟨ESC⟩, ⟨NUL⟩ or ⟨U+202E⟩, a run of them once with its number. Colours alone (SGR sequences) are left out: they say nothing.
"""

import re
from unicodedata import category

import msgspec

from agentscope.record import redact
from agentscope.views import READ_AT_MOST, printable
from agentscope.views.stories import Story

SGR = re.compile(r"(?:\x1b\[|\x9b)[0-9;:]{0,64}m")  # ECMA-48, 8.3.117
NAMES = {"\0": "NUL", "\a": "BEL", "\b": "BS", "\v": "VT", "\f": "FF", "\x1b": "ESC", "\x7f": "DEL"}
KEPT = "\t\n\r"  # the shape of lines, which the views read


def visible(text: str) -> str:
    """The same text, all of it printable but for tabs and the ends of lines, and without secrets."""
    if text.isascii() and text.isprintable():
        return redact(text)
    between = len(text) - 2 * READ_AT_MOST
    if between > 0:  # no view looks further into a text, from either end; what is not looked at is still counted
        return visible(text[:READ_AT_MOST]) + "…" * between + visible(text[-READ_AT_MOST:])
    return "\n".join(visible_line(line) for line in text.split("\n"))


def visible_line(line: str) -> str:
    """One line. Where a secret was cut in pieces by invisible characters, it goes, and their names with it."""
    seen = printable(line)
    redacted = redact(seen)
    if redacted != seen:
        return redacted
    kept = SGR.sub("", line)
    odd = {character for character in set(kept) if is_odd(character)}
    if not odd:
        return kept
    each = "".join(re.escape(character) for character in sorted(odd))
    return re.sub(f"([{each}])\\1*", lambda run: named(run[1], len(run[0])), kept)


def is_odd(character: str) -> bool:
    """Whether it has no form of its own: control, format (bidi overrides), surrogate, unassigned; spaces have one."""
    return not character.isprintable() and character not in KEPT and category(character) != "Zs"


def named(character: str, count: int) -> str:
    """As ⟨ESC⟩ or ⟨U+202E x12⟩."""
    name = NAMES.get(character) or f"U+{ord(character):04X}"
    return f"⟨{name}⟩" if count == 1 else f"⟨{name} x{count:,}⟩"


def all_visible(story: Story) -> Story:
    """The story with every text in it made visible, whatever field it stands in."""
    return msgspec.convert(seen_through(msgspec.to_builtins(story)), Story)


def seen_through(value: object) -> object:
    """The same builtin value with its texts made visible, keys too."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {seen_through(key): seen_through(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [seen_through(inner) for inner in value]
    return value
