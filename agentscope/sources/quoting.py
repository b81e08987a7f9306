"""Text of others in a sentence of ours: one bounded line, without anything that a terminal would obey."""

QUOTED_CHARACTERS = 200


def quoted(text: bytes | str, most: int = QUOTED_CHARACTERS) -> str:
    """The text on one line, at most `most` characters of it; what cannot be printed is a space."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in plain[: 16 * most]).split())
    return line if len(line) <= most else f"{line[:most]}…"
