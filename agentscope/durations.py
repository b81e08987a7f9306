"""Durations as a person writes them in the config: "500ms", "30s", "2m", "1h", "90d"."""

import re

from agentscope.errors import BadInput

DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
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
