"""What is known of one agent: its standing, folded from the ledger and from now; its last incident; the instances that are there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agentscope.agents import same_identity
from agentscope.model import Agent, AnyEvent, IncidentClosed, IncidentOpened, RemedyFinished, RemedyOutcome
from agentscope.pipeline import Pipeline, now_ns
from agentscope.policy import Policy
from agentscope.policy.standing import Chain, Standing, fold
from agentscope.policy.steps import Commit, GiveUp, LeaveAlone
from agentscope.policy.words import closing_words
from agentscope.recovery.looking import is_there

ROUNDING_S = 0.05  # /proc rounds start times to 10 ms, and clocks are read one after the other
Line = tuple[AnyEvent, float]


class Surroundings(NamedTuple):
    """What a keeper works with. `take` watches a process as an instance of a label; None where nobody watches."""

    pipeline: Pipeline
    state: Path
    owner_uid: int
    take: Callable[[int, str], Agent | None] | None


class Outcome(NamedTuple):
    """What came of an act, or of the looking after it; `began_ns` is when that began."""

    outcome: RemedyOutcome
    says: str
    began_ns: int
    pid: int | None = None


class Known:
    """The knowledge of one keeper. What it tells goes to the ledger, to the stream, and into its own standing."""

    def __init__(self, label: str, policy: Policy, around: Surroundings) -> None:
        self.label = label
        self.policy = policy
        self.around = around
        self.pipeline = around.pipeline
        self.standing = Standing(name=label)
        self.incident: IncidentOpened | None = None

    def begin(self, lines: list[Line]) -> None:
        """From what the ledger tells, and nothing else."""
        self.standing = Standing(name=self.label)
        for event, at_s in lines:
            if isinstance(event, IncidentOpened) and event.scope == "agent":
                self.incident = event
            self.standing = fold(self.standing, event, at_s)

    def fold(self, event: AnyEvent) -> None:
        """One event of now."""
        if isinstance(event, IncidentOpened):
            self.incident = event
        self.standing = fold(self.standing, event, (self.pipeline.recorder.boot_wall_ns + event.at_ns) / 1e9)

    def now_s(self) -> float:
        """The wall clock, which within one run of ours never jumps."""
        return (self.pipeline.recorder.boot_wall_ns + now_ns()) / 1e9

    # --- instances --------------------------------------------------------------------------------------------------------

    def instances(self) -> list[Agent]:
        """The agents of this label that are watched now."""
        return [tree.agent for tree in self.pipeline.incidents.trees if tree.agent.name == self.label]

    def newer(self, chain: Chain | None) -> Agent | None:
        """The instance that began after the last death and is there: not one that hangs, nor one that was there before.

        Of several the one that an act told of, else the newest.
        """
        if chain is None:
            return None
        ended = self.incident.agent if self.incident is not None else None
        since_s = chain.death.at_s - ROUNDING_S
        boot_s = self.pipeline.recorder.boot_wall_ns / 1e9
        found = [
            agent
            for agent in self.instances()
            if boot_s + agent.start_ns / 1e9 > since_s and not (ended is not None and same(agent, ended)) and is_there(agent)
        ]
        told = chain.restoring.pid if chain.restoring is not None else None
        return max(found, key=lambda agent: (agent.pid == told, agent.start_ns), default=None)

    def is_unseen(self, chain: Chain, agent: Agent | None) -> bool:
        """Whether an instance came by itself: nothing that was done since the death was about it, nor was it looked at in vain.

        One that began while it was rolled back may have loaded what was taken away.
        """
        deed = chain.restoring
        if deed is None or agent is None:
            return agent is not None
        over_s = deed.failed_s or deed.finished_s
        began_s = self.pipeline.recorder.boot_wall_ns / 1e9 + agent.start_ns / 1e9
        return over_s is not None and began_s > over_s

    def pids_of(self, agent: Agent | None) -> list[int]:
        """The processes of an instance."""
        trees = self.pipeline.incidents.trees
        return [pid for tree in trees if agent is not None and tree.agent == agent for pid in tree.live]

    def watch(self, pid: int | None) -> Agent | None:
        """A new instance that a remedy told of."""
        return self.around.take(pid, self.label) if self.around.take is not None and pid is not None else None

    def whom(self, chain: Chain) -> Agent:
        """Whom an event is about: the new instance, else the one that ended."""
        there = self.newer(chain)
        if there is not None:
            return there
        assert self.incident is not None
        return self.incident.agent

    # --- what is told -----------------------------------------------------------------------------------------------------

    def tell_outcome(self, chain: Chain, remedy: str, attempt: int, came: Outcome) -> None:
        """An outcome, kept and told."""
        at_ns = now_ns()
        self.tell(
            RemedyFinished(
                at_ns=at_ns,
                incident=chain.incident,
                agent=self.whom(chain),
                remedy=remedy,
                attempt=attempt,
                outcome=came.outcome,
                says=came.says,
                took_ms=round((at_ns - came.began_ns) / 1e6, 1),
                pid=came.pid,
            )
        )

    def tell_closed(self, chain: Chain, step: Commit | GiveUp | LeaveAlone) -> None:
        """The incident is over."""
        held = {Commit: True, GiveUp: None if self.policy.dry_run else False, LeaveAlone: None}[type(step)]
        says = closing_words(self.standing, chain, step)
        self.tell(IncidentClosed(at_ns=now_ns(), incident=chain.incident, agent=self.whom(chain), outcome=says, held=held))

    def tell_joined(self, event: IncidentOpened, first: str) -> None:
        """A death on probation is told as an incident of its own, and closed with the name of the one that it belongs to."""
        says = f"part of {first}, which goes on"
        closed = IncidentClosed(at_ns=event.at_ns, incident=event.incident, agent=event.agent, outcome=says)
        self.tell(closed)

    def tell(self, event: AnyEvent) -> None:
        """To the ledger, to the stream, and into our own standing. A ledger that cannot be written stops nothing."""
        self.pipeline.keep(event)
        self.told(event)

    def told(self, event: AnyEvent) -> None:
        """The same of what is in the ledger already."""
        self.pipeline.sink(event)
        self.fold(event)


def same(one: Agent, other: Agent) -> bool:
    """Whether two values are of the same instance."""
    return one.pid == other.pid and same_identity(one.start_ns, other.start_ns)
