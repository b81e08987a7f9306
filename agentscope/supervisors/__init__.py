"""Who owns an agent's process and would start it again: one file each; being in the folder is being registered.

agentscope asks the owner and never fights it: two that restart one agent make two instances.
"""

import importlib
import pkgutil
from functools import lru_cache
from typing import Protocol

from agentscope.model import Agent, Value
from agentscope.policy import Policy


class Owner(Value, frozen=True):
    """Who starts this agent. `kind` is the module's name; `name` is the agent in the owner's words (a unit, a program, a container).

    `restarts` tells whether it starts the agent again by itself after such an end: then we wait for that and validate it.
    """

    kind: str
    name: str
    restarts: bool
    says: str


class Started(Value, frozen=True):
    """What came of asking for a start: `pid` is the new main process, None where it could not be learnt; `why` is empty on success."""

    pid: int | None
    why: str = ""


class Supervisor(Protocol):
    """What the module of a supervisor has. `kill_s` bounds how long a living instance may take to stop."""

    def owner_of(self, agent: Agent, policy: Policy) -> Owner | None:
        """Whether it owns this agent (which may have ended already: what is known of it is in the value)."""
        ...

    async def restart(self, owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None]) -> Started:
        """Have one new instance, and never two: a living one is stopped first. `words` are what `{session}` and the like become."""
        ...


@lru_cache
def every() -> dict[str, Supervisor]:
    """All supervisors by name."""
    return {
        found.name: importlib.import_module(f"{__name__}.{found.name}")  # type: ignore[misc] # a module is the object
        for found in pkgutil.iter_modules(__path__)
    }
