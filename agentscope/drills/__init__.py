"""Sample agents that die on purpose: `agentscope drill KIND`. One file a kind; being in the folder is being registered.

A file is both the program, which is started by its path and needs nothing but Python's own library, and what is told of it: its
docstring, CAUSE (what must be found), ROOTLESS (what is found instead without a cgroup of its own, None: the same), MEMORY_MIB, and
RUNS (how often it is started before it dies: one that drifts must have been well once). It says `ready`, lives on for the seconds
that its argument tells once it has read a line, and then goes wrong; a run before ends well at another line. Modules whose name begins with an underscore are no drills.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol

from agentscope.errors import UsageError


class Drill(Protocol):
    """What the module of a drill has."""

    __doc__: str | None
    __file__: str
    CAUSE: str
    ROOTLESS: str | None
    MEMORY_MIB: int
    RUNS: int


def kinds() -> tuple[str, ...]:
    """The drills that there are, by name."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(sorted(each.name for each in found if not each.name.startswith("_")))


def drill_of(kind: str) -> Drill:
    """The drill of this name.

    Raises:
        UsageError: there is none.
    """
    if kind not in kinds():
        raise UsageError(
            f"there is no drill {kind!r}", f"there are {', '.join(kinds())}", f"sudo agentscope drill {kinds()[0]}"
        )
    module: Drill = importlib.import_module(f"{__name__}.{kind}")  # type: ignore[assignment] # the tests look at each
    return module


def play(kind: str, diagnose: bool | None, state: str | None) -> int:
    """Play a drill and tell of it on standard output; the exit status. `diagnose` None: judge it here unless somebody else watches."""
    from agentscope.drills._playing import play as play_one

    return play_one(kind, drill_of(kind), diagnose, state)
