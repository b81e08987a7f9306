"""Brings agents back, beside the loop that watches them: one keeper for each agent whose config has a recovery table.

It hears of incidents from the pipeline, asks the policy what is next, writes the intent to the ledger before each act and the outcome
after it, looks whether it helped, and closes the incident. Nothing here chooses: `policy/` does. What is known is in the ledger:
whoever continues after us, be it ourselves after a kill, folds it and goes on.
"""

import asyncio
import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from agentscope.config import Config
from agentscope.model import Agent, AgentGone, AnyEvent, IncidentClosed, IncidentOpened, RemedyFinished, RemedyStarted
from agentscope.pipeline import Pipeline
from agentscope.record import Envelope
from agentscope.recovery.keeper import Keeper
from agentscope.recovery.known import Line, Surroundings

TOLD = (IncidentOpened, RemedyStarted, RemedyFinished, IncidentClosed)


class Recovery:
    """All keepers of one run. Without a recovery table there are none, and nothing is read, locked or written.

    `take` watches a process as the agent of a label from now on, which no target would find; None where it is gone.
    """

    def __init__(
        self, pipeline: Pipeline, config: Config, state: Path, take: Callable[[int, str], Agent | None] | None = None
    ) -> None:
        self.pipeline = pipeline
        self.keepers: dict[str, Keeper] = {}
        self.owner_uid = config.owner_uid
        self.state = state
        for label, entry in config.agents.items():
            if entry.recovery is not None:
                around = Surroundings(pipeline=pipeline, state=state, owner_uid=config.owner_uid, take=take)
                self.keepers[label] = Keeper(label, entry.recovery, entry.health, around, read=self.lines_of)
        if self.keepers:
            pipeline.hears.append(self.hear)
            pipeline.closes = self.closes
            if pipeline.marks is not None:
                pipeline.marks.snapshot_of = self.snapshot_of

    def start(self, *, resume: bool = True) -> None:
        """Begin to act. With `resume` what is still open in the ledger goes on; without, only what was done before is counted."""
        if self.keepers:  # a rollback that a kill interrupted comes to its end, whoever acts next
            threading.Thread(target=self.settle, daemon=True, name="settle").start()
        lines = list(self.lines(self.keepers.keys()))
        for label, keeper in self.keepers.items():
            keeper.start([(event, at_s) for event, at_s in lines if event.agent.name == label], resume=resume)

    def lines(
        self, labels: Iterable[str]
    ) -> Iterable[tuple[IncidentOpened | RemedyStarted | RemedyFinished | IncidentClosed, float]]:
        """What the ledger tells of these agents, oldest first, with the wall time of each in seconds."""
        wanted = set(labels)
        if not wanted or self.pipeline.ledger is None:
            return
        try:
            for envelope in self.pipeline.ledger.read():
                event = envelope.data
                if isinstance(event, TOLD) and event.agent.name in wanted:
                    yield event, wall_s_of(envelope)
        except OSError as error:
            self.pipeline.lost("recovery", f"what was done before is not known: {error.strerror or error}")

    def lines_of(self, label: str) -> list[Line]:
        """The same of one agent."""
        return list(self.lines((label,)))

    def adopt(self, agent: Agent, label: str | None) -> None:
        """An agent is watched from now on: who would start it is asked while it can be told."""
        keeper = self.keepers.get(label or "")
        if keeper is not None:
            keeper.adopt(agent)

    def hear(self, event: AnyEvent) -> None:
        """An event of the pipeline; comes back at once."""
        if isinstance(event, IncidentOpened | AgentGone):
            keeper = self.keepers.get(event.agent.name)
            if keeper is not None:
                keeper.hear(event)

    def closes(self, closed: IncidentClosed) -> bool:
        """Whether the end of a hang is ours to tell."""
        keeper = self.keepers.get(closed.agent.name)
        return keeper is not None and keeper.closes(closed)

    def is_starting(self, label: str | None) -> bool:
        """Whether an act is under way that may start this agent as a child of ours."""
        keeper = self.keepers.get(label or "")
        return keeper is not None and keeper.is_starting()

    def is_open(self, label: str) -> bool:
        """Whether an incident of this agent is still at work."""
        keeper = self.keepers.get(label)
        return keeper is not None and keeper.chain is not None

    def settle(self) -> None:
        """Finish or clear away switches to a snapshot that were interrupted; what cannot be is tried again at the next one."""
        from agentscope.snapshots import settle

        with contextlib.suppress(OSError):
            settle(self.state)

    def snapshot_of(self, agent: Agent) -> tuple[str, int] | None:
        """The folder that is copied while this agent is well, and whose the config is."""
        keeper = self.keepers.get(agent.name)
        if keeper is None or keeper.policy.snapshot is None or keeper.policy.dry_run:
            return None
        return keeper.policy.snapshot, self.owner_uid

    async def finish(self, within_s: float) -> None:
        """We are asked to end: an act that is under way may come to its end, but no other begins. What is open goes on when we are back."""
        if self.keepers:
            await asyncio.gather(*(keeper.finish(within_s) for keeper in self.keepers.values()))

    def close(self) -> None:
        """Stop at once."""
        for keeper in self.keepers.values():
            keeper.close()


def wall_s_of(envelope: Envelope) -> float:
    """When a line says that it happened, in seconds since 1970; 0 where it does not say."""
    try:
        return dt.datetime.fromisoformat(envelope.time).timestamp()
    except ValueError:
        return 0.0
