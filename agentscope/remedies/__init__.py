"""Step 8: a remedy does one thing to bring an agent back. One file each; being in the folder is being registered.

The name of a rung in a ladder, `restart-fresh`, is the file `restart_fresh.py`; that module has the two functions of `Remedy`.
A remedy never chooses: the policy did. It never raises for what can go wrong: its outcome says so.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from agentscope.model import Agent, IncidentOpened, RemedyOutcome, Value
from agentscope.policy import Policy
from agentscope.supervisors import Owner


def nobody() -> Iterable[tuple[int, int]]:
    """No members known by birth."""
    return ()


class Order(Value, frozen=True):
    """What a remedy is told. `state` is the state directory; `owner_uid` is whose the config is; `attempt` counts from 1.

    `session` is what the agent's own transcripts say it was doing, its fields by name; None where it keeps none.
    `agent` is the instance that is to be replaced: it may live, though it be not well. `owner` is who would start it, as found while
    it lived. `members` are the pids and start times of its tree by birth; it may be called from another thread.
    """

    incident: IncidentOpened
    agent: Agent
    policy: Policy
    attempt: int
    state: Path
    owner_uid: int
    session: dict[str, str | None] | None = None
    owner: Owner | None = None
    members: Callable[[], Iterable[tuple[int, int]]] = nobody

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
        found.name.replace("_", "-"): importlib.import_module(f"{__name__}.{found.name}")  # a module is the object
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")
    }
