"""What a person at the screen can have done. The screen asks; whoever opened it does, and tells what came of it."""

from collections.abc import Sequence
from typing import Protocol

from agentscope.model import Agent, EvidenceRecord, IncidentOpened, Pulse, RuledOut, Value


class Candidate(Value, frozen=True):
    """A process that could be watched. `because` tells why it looks like an agent; empty where it does not."""

    pid: int
    start_ns: int
    name: str
    command: str
    user: str = ""
    because: str = ""


class Look(Value, frozen=True):
    """What a look at a living agent found: a hang as its incident, or what it does and what was looked at."""

    agent: Agent
    pulse: Pulse | None = None
    evidence: tuple[EvidenceRecord, ...] = ()
    not_checked: tuple[RuledOut, ...] = ()
    incident: IncidentOpened | None = None


class Means(Value, frozen=True):
    """How an agent can be brought back: in sentences, and whether it can be asked for now. `config` are lines to type."""

    says: tuple[str, ...]
    can: bool = False
    config: tuple[str, ...] = ()


class Deeds(Protocol):
    """What can be done on this machine, now.

    Raises:
        AgentscopeError: it could not be done; the error says why.
    """

    async def look(self, agent: Agent) -> Look:
        """Examine it."""
        ...

    async def stacks(self, agent: Agent) -> Look:
        """Take its stacks, whether anything is wrong with it or not."""
        ...

    async def processes(self) -> Sequence[Candidate]:
        """Every process that could be watched and is not yet, likely ones first."""
        ...

    async def add(self, candidate: Candidate) -> str:
        """Watch it from now on; says what came of it."""
        ...

    def means(self, agent: Agent) -> Means:
        """How it can be brought back."""
        ...

    async def recover(self, agent: Agent) -> str:
        """Bring it back now; says what was begun."""
        ...
