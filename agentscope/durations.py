"""Durations as a person writes them in the config ("500ms", "30s", "2m", "1h", "90d"), and as one says them ("4 min 12 s")."""

import re

from agentscope.errors import BadInput

DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NS_PER_S = 1_000_000_000
DURATION_HINT = '"500ms", "30s" or "2m"'


def seconds_of(wrong: str, text: str, least_s: float, most_s: float) -> float:
    """A duration such as "500ms", "30s", "2m", "1h", in seconds. `wrong` begins the sentence of what is not right.

    Raises:
        BadInput: it is none, or out of bounds.
    """
    found = DURATION.fullmatch(text)
    if found is None:
        raise BadInput(wrong, f"{text!r} is no duration", DURATION_HINT)
    seconds = float(found[1]) * SECONDS[found[2]]
    if not least_s <= seconds <= most_s:
        raise BadInput(wrong, f"{text!r} is not from {least_s:g} s to {most_s:g} s", DURATION_HINT)
    return seconds


def span(length_ns: float) -> str:
    """As "250 ms", "12.4 s", "4 min 12 s", "3 h 05 min", "2 d 4 h"."""
    seconds = abs(length_ns) / NS_PER_S
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00995 else f"{seconds * 1000:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s" if rest_s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
