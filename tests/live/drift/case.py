"""What a scene is and what must come of it; `cases()` finds them all."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from scenario import Ending

SEGV, BUS, NOT_FOUND, FAILED = Ending(signal="SIGSEGV"), Ending(signal="SIGBUS"), Ending(code=127), Ending(code=1)
WELL = Ending(code=0)
Script = Iterator[Sequence[str]]
Scene = Callable[[Any], Script]  # of a Place, or of a LabPlace
Flow = Literal["running", "restart", "again", "first"]


class Case(NamedTuple):
    """A scene, how it is played, and what must come of it.

    A scene builds the agent, yields its command line, and makes the change. `flow`: "running" changes it under the running agent,
    which then works; "restart" changes it between two runs; "again" is that with agentscope itself started anew in between;
    "first" has no run before the change. `ends` is how the agent ends, `complains` what it must have written before.

    `recorded` ones are kept as fixtures for replay.

    `names` must all be in the culprit or the headline, `proof` anywhere in the incident; where `cause` is "none" no incident may come.
    """

    name: str
    scene: Scene
    ends: Ending
    cause: str
    flow: Flow = "restart"
    names: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()
    complains: str = ""
    stderr: Literal["file", "pipe"] = "file"
    lab: bool = False
    needs: tuple[str, ...] = ("gcc",)
    recorded: bool = False

    @property
    def innocent(self) -> bool:
        """Whether it must not be called drift."""
        return not self.cause.startswith("drift/")


_kept: list[Case] = []


def scene(cause: str, ends: Ending, **more: Any) -> Callable[[Scene], Scene]:
    """Make a function of `scenes/` a case, by its name."""

    def kept(function: Scene) -> Scene:
        _kept.append(Case(function.__name__.replace("_", "-"), function, ends, cause, **more))
        return function

    return kept


def cases() -> list[Case]:
    """Every case there is: the folder `scenes` is the list."""
    from drift import scenes

    for module in sorted(pkgutil.iter_modules(scenes.__path__), key=lambda module: module.name):
        importlib.import_module(f"{scenes.__name__}.{module.name}")
    return list(_kept)
