"""The examination probes, loaded in a thread while the rest of a one-shot command is: most of that work is the kernel's.

It checks the programs for some 30 ms, which is a tenth of what a report takes.
"""

import os
import sys
import threading
from pathlib import Path

from agentscope.errors import AgentscopeError
from agentscope.sources.examiner import Examiner

SWITCH_S = (
    0.0005  # it comes back from the kernel some dozen times, and whoever loads modules gives the interpreter up no sooner
)


class Ahead:
    """An examiner that is being loaded from now on. One that nobody asks for goes with the process."""

    def __init__(self) -> None:
        self._usual_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self._found: Examiner | AgentscopeError | OSError | None = None
        self._thread = threading.Thread(target=self._load, name="probes")
        self._thread.start()

    def examiner(self) -> Examiner:
        """The examiner, once it is loaded.

        Raises:
            EngineUnavailable, OSError: this machine or this user cannot have it.
        """
        self._thread.join()
        sys.setswitchinterval(self._usual_s)
        if not isinstance(self._found, Examiner):
            raise self._found or OSError("the examination probes could not be loaded")
        return self._found

    def _load(self) -> None:
        try:
            self._found = Examiner()
        except (AgentscopeError, OSError) as error:
            self._found = error


def ahead_of(who: str | None) -> Ahead | None:
    """Begin to load for an examination of this process; None where it is no number of a living one, or we may not."""
    known = who is not None and who.isascii() and who.isdecimal() and Path(f"/proc/{who}").exists()
    return Ahead() if known and os.geteuid() == 0 else None
