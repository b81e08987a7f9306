"""Step 8: a remedy does one thing to bring an agent back. One file each; being in the folder is being registered.

The name of a rung in a ladder, `restart-fresh`, is the file `restart_fresh.py`; that module has the two functions of `Remedy`.
A remedy never chooses: the policy did. It never raises for what can go wrong: its outcome says so.
"""

import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from agentscope.model import Agent, IncidentOpened, RemedyOutcome, Value
from agentscope.policy import Policy


class Order(Value, frozen=True):
    """What a remedy is told. `state` is the state directory; `owner_uid` is whose the config is; `attempt` counts from 1.

    `session` is what the agent's own transcripts say it was doing, its fields by name; None where it keeps none.
    `health` tells whether the incident is one of a living agent (a hang), which must be stopped before another is started.
    """

    incident: IncidentOpened
    agent: Agent
    policy: Policy
    attempt: int
    state: Path
    owner_uid: int
    session: dict[str, str | None] | None = None

    @property
    def lives(self) -> bool:
        """Whether the agent is still there: it hangs."""
        return self.incident.exit.code is None and self.incident.exit.signal is None


class Done(Value, frozen=True):
    """What came of it. `pid` is the new instance, where the remedy started one itself or was told of it."""

    outcome: RemedyOutcome
    says: str
    pid: int | None = None


class Remedy(Protocol):
    """What the module of a remedy has."""

    def intent(self, order: Order) -> str:
        """What would be done, as one sentence: what the ledger keeps before the act, and all that a dry run does."""
        ...

    async def act(self, order: Order) -> Done:
        """Do it, within bounds of its own."""
        ...


@lru_cache
def every() -> dict[str, Remedy]:
    """All remedies by the name that a ladder has for them."""
    return {
        found.name.replace("_", "-"): importlib.import_module(f"{__name__}.{found.name}")  # type: ignore[misc] # a module is the object
        for found in pkgutil.iter_modules(__path__)
    }
