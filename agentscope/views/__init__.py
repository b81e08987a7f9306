"""Step 10: one file a way to show records. A view never decides: it takes values of `agentscope.model` and shows them.

`report` draws one incident, `board` folds a stream into what is the case now, `table` and `tui` draw a board; where the stream itself
goes is `agentscope.sinks`. A view may import rich or textual inside the function that draws; the rest of agentscope may not. Whatever a process
controls (names, arguments, paths, words) passes through `safe` or `safe_lines` before a terminal sees it.
"""

import re

from agentscope.record import redact

LINE_CELLS = 1000  # one field on a screen: far more than is read, little enough that nothing floods
READ_AT_MOST = 1 << 16
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"

# ECMA-48 sequences in 7 and 8 bits: CSI, the string sequences (OSC, DCS, SOS, PM, APC) with their end, and two-character escapes.
# Possessive, so linear: a string sequence without an end loses its introducer only, it cannot swallow what follows.
SEQUENCES = re.compile(
    r"""(?x)
    (?:\x1b\[|\x9b)[0-?]{0,64}+[\ -/]{0,16}+[@-~]
    | (?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]{0,4096}+(?:\x07|\x1b\\|\x9c)
    | \x1b[\ -/]{0,8}+[0-~]
    """
)
SPACE = re.compile(r"[ \t\n\r\v\f]+")
UNPRINTABLES = re.compile(f"{UNPRINTABLE}{{2,}}")
MARKS_IN_A_ROW = 2  # as many as real scripts put on one letter; more is a way to write over other lines


def printable(text: str) -> str:
    """The text without control sequences; what cannot be printed (bidi overrides, NUL, lone surrogates) as one mark a run."""
    text = SEQUENCES.sub("", text)
    if text.isascii() and text.isprintable():
        return text
    kept = []
    marks = 0
    for character in text:
        if is_mark(character):
            marks += 1
            if marks > MARKS_IN_A_ROW:
                continue
        else:
            marks = 0
        if character.isprintable():
            kept.append(character)
        else:
            kept.append(" " if character.isspace() else UNPRINTABLE)
    return UNPRINTABLES.sub(UNPRINTABLE, "".join(kept))


def is_mark(character: str) -> bool:
    """Whether it is drawn upon the character before it."""
    if character < "\u0300":
        return False
    from unicodedata import category

    return category(character) in {"Mn", "Me"}


def shortened(text: str, limit: int, unread: int = 0) -> str:
    """At most `limit` characters, and how many were left out, with those that were never looked at."""
    left_out = max(0, len(text) - limit) + unread
    return f"{text[:limit]} … ({left_out:,} more characters)" if left_out else text


def safe(text: str, limit: int = LINE_CELLS) -> str:
    """One line for a terminal from text that a hostile process wrote: no control sequences, no secrets, bounded.

    It is plain text, not markup: draw it as `rich.text.Text`, which reads no markup, or escape it.
    """
    cut = text[:READ_AT_MOST]
    said = redact(printable(SPACE.sub(" ", cut))).strip()
    return shortened(said, limit, len(text) - len(cut))


def safe_lines(text: str, limit: int, line_limit: int = LINE_CELLS) -> tuple[list[str], int]:
    """The last `limit` lines that say something, each safe, with their indentation; and how many lines came before them."""
    lines = [line.rsplit("\r", 1)[-1] for line in text[-READ_AT_MOST:].replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    kept = lines[-limit:]
    shown = [shortened(redact(printable(line.expandtabs(4))).rstrip(), line_limit) for line in kept]
    return shown, len(lines) - len(kept)
