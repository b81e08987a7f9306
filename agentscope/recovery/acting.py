"""One act: what a remedy is told, its intent in words, and its outcome, whatever goes wrong in it."""

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from agentscope import remedies, supervisors
from agentscope.model import Agent, IncidentOpened
from agentscope.policy import RESTORING, Policy
from agentscope.policy.steps import Act
from agentscope.recovery.known import Surroundings
from agentscope.remedies import Done, Order
from agentscope.supervisors._asking import is_main_line

if TYPE_CHECKING:
    from agentscope.supervisors import Owner

LONGEST_S = 900.0  # a remedy has bounds of its own; this is for one that breaks its word
OWNERS_KEPT = 16
MAINS_KEPT = 16
HEARD_S = 5.0
ASKING_S = 5.0
Key = tuple[int, int]


class Acting:
    """Acts for one agent, one at a time: `busy` while one is under way."""

    def __init__(self, label: str, policy: Policy, around: Surroundings) -> None:
        self.label = label
        self.policy = policy
        self.around = around
        self.pipeline = around.pipeline
        self.busy = False
        self.owners: dict[Key, Owner] = {}
        self.mains: tuple[Key, ...] = ()

    def ask_owner(self, agent: Agent) -> None:
        """Ask who would start this agent, beside the loop: that can take seconds, and can be told only while it lives."""
        key = (agent.pid, agent.start_ns)

        def work() -> None:
            try:
                owner = supervisors.chosen(agent, self.policy)
            except Exception:  # noqa: BLE001 - it is asked again when it is needed
                return
            if owner is not None:
                self.owners[key] = owner
            while len(self.owners) > OWNERS_KEPT:
                self.owners.pop(next(iter(self.owners)), None)

        threading.Thread(target=work, daemon=True, name=f"owner of {agent.pid}").start()

    async def owner_of(self, incident: IncidentOpened, agent: Agent) -> "Owner | None":
        """Who starts it: as it was found while it lived, made good by what can be told now that it is known how it ended."""
        known = self.owners.get((agent.pid, agent.start_ns))
        known = known or self.owners.get((incident.agent.pid, incident.agent.start_ns))
        ended = incident.exit.code is not None or incident.exit.signal is not None
        try:
            asked = await asyncio.wait_for(
                asyncio.to_thread(supervisors.chosen, agent, self.policy, incident.exit if ended else None), ASKING_S
            )
        except Exception:  # noqa: BLE001 - what was found before has to do
            return known
        return better(known, asked)

    async def is_main(self, incident: IncidentOpened, agent: Agent) -> bool:
        """Whether this is what its owner takes for its main process, and not a step before its start (ExecStartPre=) or something beside it.

        An agent that is known by its unit has the same name as everything that runs in that. Where nobody can tell, it is.
        """
        key = (agent.pid, agent.start_ns)
        if key in self.mains:
            return True
        owner = await self.owner_of(incident, incident.agent)
        owner = owner.under if owner is not None and owner.kind == "command" else owner
        if owner is not None and owner.kind != "run":
            with contextlib.suppress(TimeoutError):
                asking = asyncio.to_thread(supervisors.every()[owner.kind].living, owner)
                pid = await asyncio.wait_for(asking, ASKING_S)
                if pid is None or not is_main_line(agent.pid, pid):
                    return False
        self.mains = (*self.mains[-MAINS_KEPT:], key)
        return True

    async def order(self, incident: IncidentOpened, agent: Agent, attempt: int, *, restores: bool) -> Order:
        """What the remedy is told. `agent` is the instance to be replaced."""
        from agentscope.evidence.session import session_of

        members = tuple(
            (member.process.pid, member.process.start_ns)
            for tree in self.pipeline.incidents.trees
            if tree.agent == agent
            for member in list(tree.live.values())
        )
        return Order(
            incident=incident,
            agent=agent,
            policy=self.policy,
            attempt=attempt,
            state=self.around.state,
            owner_uid=self.around.owner_uid,
            session=session_of(incident),
            owner=await self.owner_of(incident, agent) if restores else None,
            members=lambda: members,
        )

    def intent(self, step: Act, order: Order, newcomer: Agent | None) -> str:
        """What would be done, in one sentence."""
        if newcomer is not None:
            return f"nothing: pid {newcomer.pid} was started by somebody else, and is looked at"
        remedy = remedies.every().get(step.remedy)
        try:
            says = remedy.intent(order) if remedy is not None else f"{step.remedy}, which this version does not have"
        except Exception as error:  # noqa: BLE001 - a sentence is no reason not to act
            says = f"{step.remedy} ({type(error).__name__} while it was put into words)"
        return f"dry run: {says}" if self.policy.dry_run else says

    async def act(self, step: Act, order: Order, newcomer: Agent | None) -> Done:
        """Do it. Never raises: whatever goes wrong is an outcome."""
        if newcomer is not None:
            return Done(outcome="done", says=f"pid {newcomer.pid} was there already", pid=newcomer.pid)
        if self.policy.dry_run:
            return Done(outcome="refused", says="dry run: nothing was done")
        remedy = remedies.every().get(step.remedy)
        if remedy is None:
            return Done(outcome="refused", says=f"there is no remedy {step.remedy} in this version")
        if step.remedy in RESTORING:
            # whatever ends it now does so for us, and is no incident
            ending = {(order.agent.pid, order.agent.start_ns)} & self.living()
            self.pipeline.stopping |= ending
        else:
            ending = set()
        self.busy = True
        try:
            return await asyncio.wait_for(remedy.act(order), LONGEST_S)
        except TimeoutError:
            return Done(outcome="failed", says=f"{step.remedy} did not come back within {LONGEST_S:g} s")
        except Exception as error:  # noqa: BLE001 - the next rung must have its turn
            return Done(outcome="failed", says=f"{step.remedy}: {type(error).__name__}: {error}")
        finally:
            self.busy = False
            # its end may be heard a little later; what ends it long after was not us
            asyncio.get_running_loop().call_later(HEARD_S, self.pipeline.stopping.difference_update, ending)

    def living(self) -> set[Key]:
        """Who is watched now."""
        return {(tree.agent.pid, tree.agent.start_ns) for tree in self.pipeline.incidents.trees}


def better(known: "Owner | None", asked: "Owner | None") -> "Owner | None":
    """Of what was found while it lived and after its end: the latter, unless that has lost who has the process."""
    if asked is None or known is None:
        return known or asked
    lost = asked.kind == "command" and asked.under is None and (known.kind != "command" or known.under is not None)
    return known if lost else asked
