"""What a command prints: whole, or an error that says why not."""

import os
import sys
from typing import Any

from agentscope.errors import CannotWrite


def silence(stream: Any) -> None:
    """Point a stream whose reader has gone at nothing, so that Python's own flush at exit stays quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_out(text: str) -> None:
    """Text to standard output, whole.

    Raises:
        CannotWrite: the disk behind it is full. BrokenPipeError: the reader has gone.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise CannotWrite("cannot write to standard output", os.strerror(error.errno or 0), "df -h .") from None
