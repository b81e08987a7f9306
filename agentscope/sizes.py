"""Sizes as a person writes them: "512M", "4G", "1.5GiB". Every unit counts by 1024, as systemd and docker have it."""

import re

from agentscope.errors import BadInput

SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT])(?:iB|B)?")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE_HINT = '"512M" or "4G"'


def bytes_of(wrong: str, text: str) -> int:
    """A size in bytes, at least one. `wrong` begins the sentence of what is not right.

    Raises:
        BadInput: it is none.
    """
    found = SIZE.fullmatch(text)
    size = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if size < 1:
        raise BadInput(wrong, f"{text!r} is no size", SIZE_HINT)
    return size


def size_of(count_bytes: float) -> str:
    """As "498 MiB", two digits below ten."""
    amount, unit = float(count_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1023.5:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if unit != "B" and abs(amount) < 9.95 else f"{amount:.0f} {unit}"


def percent(share: float) -> str:
    """As "78 %"; what is there but rounds to none is "under 1 %"."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
