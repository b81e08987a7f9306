"""A recording read back as a source: replay is this, and nothing else changes."""

import sys
from collections.abc import Iterator
from pathlib import Path

from agentscope.errors import BadInput
from agentscope.record import Envelope, read_lines


def read_recording(name: str) -> Iterator[tuple[int, Envelope | BadInput]]:
    """Every line of a recording with its number, decoded or with its own error. "-" is standard input.

    Raises:
        BadInput: the file cannot be opened.
    """
    if name == "-":
        yield from read_lines(sys.stdin.buffer)
        return
    path = Path(name)
    try:
        lines = path.open("rb")
    except OSError as error:
        raise BadInput(
            f"cannot read {name}", error.strerror or str(error), "agentscope events > FILE makes a recording"
        ) from None
    with lines:
        yield from read_lines(lines)
