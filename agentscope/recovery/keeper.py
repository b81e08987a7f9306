"""Keeps one agent going: asks the policy what is next, does it, and writes down what it did, before and after.

One task an agent, so that there is never a second act while one is under way. Everything it knows is folded from what is in the
ledger; whoever has the lock of the agent's name, and nobody else, acts.
"""

import asyncio
import contextlib
from collections.abc import Callable

from agentscope.agents import same_identity
from agentscope.config import HealthConfig
from agentscope.errors import CannotWrite
from agentscope.model import Agent, AgentGone, IncidentClosed, IncidentOpened, RemedyStarted
from agentscope.pipeline import STOPPED_BY_US, now_ns
from agentscope.policy import RESTORING, Policy
from agentscope.policy.standing import VALIDATE, Chain
from agentscope.policy.steps import (
    Act,
    Commit,
    GiveUp,
    LeaveAlone,
    Probation,
    Rest,
    Settle,
    Step,
    Validate,
    Wait,
    attempt_of,
    next_step,
    starter,
)
from agentscope.recovery.acting import Acting
from agentscope.recovery.claim import Claim
from agentscope.recovery.known import Known, Line, Outcome, Surroundings, same
from agentscope.recovery.looking import Look, is_living, is_there, still_run
from agentscope.recovery.presence import Presence

CLAIM_S = 2.0  # how often we ask for a lock that another has
LOOK_S = 0.05  # between looks at a new instance in its first second; after that four times longer
STALE_S = 3600.0  # what has been open for longer when we come back is left to people, who will have looked by now
ACT_LIMIT_S = 120.0  # how long a command of an act that nobody waits for any more may go on
STARTING_S = 0.5  # how long after an act what it started may still be on its way to its program
NO_START_S = (
    0.5  # how long an instance may be awaited that a command has started which went back, where the next rung starts one
)


class Keeper:
    """The keeper of one agent, known by its label. `read` gives what the ledger tells of it, for when the lock comes late."""

    def __init__(
        self, label: str, policy: Policy, health: HealthConfig | None, around: Surroundings, read: Callable[[str], list[Line]]
    ) -> None:
        self.label = label
        self.policy = policy
        self.health = health
        self.around = around
        self.read = read
        self.pipeline = around.pipeline
        self.known = Known(label, policy, around)
        self.claim = Claim(around.state, label)
        self.presence = Presence(self.claim.path, around.pipeline.recorder.boot_id)
        self.acting = Acting(label, policy, around)
        self.wanted: str | None = None  # why it is over with this incident though the policy would go on
        self.news = asyncio.Event()
        self.turn = 0  # grows with everything that is heard: who looked meanwhile looks anew
        self.leaving = False
        self.back_s: float | None = None  # when we took up an incident that was open
        self.started_ns: int | None = None  # when the last act that starts something ended
        self.task: asyncio.Task[None] | None = None

    # --- to the outside ---------------------------------------------------------------------------------------------------

    def start(self, lines: list[Line], *, resume: bool) -> None:
        """Begin, from what the ledger tells."""
        self.known.begin(lines)
        self.look_back()
        for agent in self.known.instances():
            self.presence.note(agent)
        self.task = asyncio.get_running_loop().create_task(self.run(resume=resume))

    def look_back(self) -> None:
        """Say so where an instance ended while we were not there, and nobody knows how."""
        left = self.presence.left()
        if left is None or is_living(left.pid, left.start_ns):
            return
        self.presence.forget()
        incident = self.known.incident
        told = incident is not None and same_identity(incident.agent.start_ns, left.start_ns) and incident.agent.pid == left.pid
        if not told and self.chain is None:
            says = f"{self.label} (pid {left.pid}) ended while agentscope was not there: whether that was wanted is not known, so nothing is started"
            self.pipeline.lost("recovery", says)

    def adopt(self, agent: Agent) -> None:
        """An instance is watched."""
        self.acting.ask_owner(agent)
        if self.task is not None:
            self.presence.note(agent)
        self.heard()

    def heard(self) -> None:
        """Something is new: whoever waits looks again."""
        self.turn += 1
        self.news.set()

    def hear(self, event: IncidentOpened | AgentGone) -> None:
        """An incident of ours is folded; an end that was wanted ends what is open."""
        if isinstance(event, IncidentOpened):
            if event.scope != "agent":
                return
            before = self.chain
            self.known.fold(event)
            after = self.chain
            if before is not None and after is not None and before.incident == after.incident != event.incident:
                self.known.tell_joined(event, before.incident)
        else:
            self.presence.forget()
            if self.is_wanted(event):
                self.wanted = event.says
        self.heard()

    def is_wanted(self, event: AgentGone) -> bool:
        """Whether an end in the middle of a recovery ends that too: somebody stopped it, or it ended by itself once it had been well."""
        if event.incident is not None or event.says == STOPPED_BY_US or self.acting.busy:
            return False
        deed = self.chain.restoring if self.chain is not None else None
        ours = deed is not None and deed.pid in {
            None,
            event.agent.pid,
        }  # not something else that has its name, as a step before a start
        return event.by is not None or (ours and isinstance(self.step(), Probation))

    def closes(self, closed: IncidentClosed) -> bool:
        """A hang ended: what we are at goes on; one that went on by itself before anything was done is over."""
        chain = self.chain
        if chain is None or closed.incident not in {death.incident for death in chain.deaths}:
            return False
        lives = any(is_there(agent) for agent in self.known.instances() if same(agent, closed.agent))
        if lives and chain.restoring is None and not self.acting.busy:
            self.wanted = closed.outcome
            self.heard()
        return True

    def is_starting(self) -> bool:
        """Whether what starts now as a child of ours may be the agent."""
        just = self.started_ns is not None and now_ns() - self.started_ns < STARTING_S * 1e9
        return self.acting.busy or (just and (self.health is None or self.health.kind != "exec"))

    async def finish(self, within_s: float) -> None:
        """No further act begins; one that is under way may end, but no longer than this."""
        self.leaving = True
        self.news.set()
        if self.task is not None:
            await asyncio.wait([self.task], timeout=within_s)
        self.close()

    def close(self) -> None:
        """Stop at once; an act without its outcome is looked into by whoever comes back."""
        if self.task is not None:
            self.task.cancel()
            self.task = None
        self.claim.release()

    # --- the loop ---------------------------------------------------------------------------------------------------------

    @property
    def chain(self) -> Chain | None:
        """The open incident."""
        return self.known.standing.chain

    async def run(self, *, resume: bool) -> None:
        """Take the lock, then one step after the other, for ever."""
        if not await self.claimed():
            self.known.begin(self.read(self.label))  # whoever had it has done something meanwhile
        if self.chain is not None and self.known.incident is not None:
            self.come_back(self.chain, resume=resume)
        while not self.leaving:
            turn = self.turn
            try:
                await self.take(self.step(), turn)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with us must not end the recovery of this agent
                self.pipeline.lost("recovery", f"{self.label}: {type(error).__name__}: {error}")
                await self.rest(1.0, turn)

    async def claimed(self) -> bool:
        """Wait for the lock, as long as it takes. Returns whether we had it at once."""
        at_once = True
        while not self.leaving:
            try:
                if self.claim.take():
                    return at_once
            except CannotWrite as error:
                self.pipeline.lost("recovery", f"{self.label} is brought back without a lock: {error}")
                return at_once
            if at_once:
                at_once = False
                self.pipeline.lost("recovery", f"another agentscope brings {self.label} back: this one only watches it")
            await asyncio.sleep(CLAIM_S)
        return at_once

    def come_back(self, chain: Chain, *, resume: bool) -> None:
        """What was open when we were not there: it goes on, unless that is long ago or not wanted."""
        self.back_s = self.known.now_s()
        away_s = self.known.now_s() - chain.last_s
        if not resume:
            self.known.tell_closed(chain, LeaveAlone(why="agentscope was started with --no-resume"))
        elif away_s > STALE_S + self.policy.probation_s:
            self.known.tell_closed(chain, LeaveAlone(why=f"agentscope was away for {away_s / 3600:.0f} hours"))

    def step(self) -> Step:
        """What the policy says."""
        return next_step(self.policy, self.known.standing, self.known.now_s())

    async def take(self, step: Step, turn: int) -> None:
        """Do a step, or wait for its time."""
        chain = self.chain
        if chain is None:
            self.wanted = None
            await self.rest(None, turn)
        elif self.wanted is not None and not isinstance(step, Settle):
            why, self.wanted = self.wanted, None
            self.known.tell_closed(chain, LeaveAlone(why=why))
        else:
            await self.go_on(chain, step, turn)

    async def go_on(self, chain: Chain, step: Step, turn: int) -> None:
        """A step of an incident that is open."""
        match step:
            case Wait() if self.known.is_unseen(chain, await self.instance(chain)):  # somebody else was quicker
                await self.act(chain, Act(remedy="restart", attempt=attempt_of(chain), because="it was started meanwhile"))
            case Wait() | Probation():
                await self.rest(step.until_s - self.known.now_s(), turn)
            case Act():
                await self.act(chain, step)
            case Settle():
                await self.settle(chain, step)
            case Validate():
                await self.validate(chain, step)
            case Commit():
                self.commit(chain, step)
            case GiveUp() | LeaveAlone():
                self.known.tell_closed(chain, step)
            case Rest():
                pass

    async def rest(self, for_s: float | None, turn: int) -> None:
        """Until something is heard, or the time has come."""
        if self.turn == turn and not self.leaving:
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), None if for_s is None else max(0.0, for_s))

    # --- steps ------------------------------------------------------------------------------------------------------------

    async def act(self, chain: Chain, step: Act) -> None:
        """Intent, act, outcome. What somebody else has started meanwhile is not started again."""
        incident = self.known.incident
        assert incident is not None
        restores = step.remedy in RESTORING
        there = await self.instance(chain) if restores else self.known.newer(chain)
        newcomer = there if restores and self.known.is_unseen(chain, there) else None
        order = await self.acting.order(incident, there or incident.agent, step.attempt, restores=restores)
        intent = RemedyStarted(
            at_ns=now_ns(),
            incident=chain.incident,
            agent=order.agent,
            remedy=step.remedy,
            attempt=step.attempt,
            act=self.acting.intent(step, order, newcomer),
            because=step.because,
            fingerprint=chain.death.fingerprint,
        )
        await self.pipeline.keep_durably(intent)
        self.known.told(intent)
        began_ns = now_ns()
        done = await self.acting.act(step, order, newcomer)
        if restores:
            self.started_ns = now_ns()
        self.known.watch(done.pid)
        self.known.tell_outcome(chain, step.remedy, step.attempt, Outcome(done.outcome, done.says, began_ns, done.pid))

    async def instance(self, chain: Chain) -> Agent | None:
        """The new instance, if one is there: one that an act told of, or that its owner takes for it."""
        incident, deed = self.known.incident, chain.restoring
        assert incident is not None
        there = self.known.newer(chain)
        told = there is not None and deed is not None and there.pid == deed.pid
        return there if there is None or told or await self.acting.is_main(incident, there) else None

    async def settle(self, chain: Chain, step: Settle) -> None:
        """An act whose outcome nobody saw: what is there now is all that can be told."""
        there = await self.instance(chain)
        says = "agentscope ended before it knew what came of this"
        if step.remedy in RESTORING:
            says += f"; pid {there.pid} lives" if there is not None else "; no instance lives"
        came = Outcome("unknown", says, now_ns(), there.pid if there is not None else None)
        self.known.tell_outcome(chain, step.remedy, step.attempt, came)

    async def validate(self, chain: Chain, step: Validate) -> None:
        """Look until it is well, or the time is up. A death that is heard meanwhile ends the looking."""
        deed, incident = chain.restoring, self.known.incident
        assert deed is not None
        assert incident is not None
        look = Look(self.health, self.around.owner_uid)
        began_ns, until_s = now_ns(), self.until(step, chain)
        while True:
            there = await self.instance(chain) or self.known.watch(deed.pid)
            lived_s = 0.0 if there is None else (now_ns() - there.start_ns) / 1e9
            seen = await look.at(there, self.known.pids_of(there), lived_s, incident.agent)
            if self.wanted is not None or self.leaving or self.chain is None or self.chain.deaths != chain.deaths:
                return None
            over = self.known.now_s() >= until_s
            # who computes for as long as it is given is at work, and not past its start only by our measure
            if seen.well or (over and seen.well is None and there is not None):
                came = Outcome("done", seen.says, began_ns, there.pid if there is not None else None)
                return self.known.tell_outcome(chain, VALIDATE, step.attempt, came)
            if over and not (deed.outcome == "unknown" and self.act_goes_on(deed.started_s)):
                return self.known.tell_outcome(chain, VALIDATE, step.attempt, Outcome("failed", seen.says, began_ns))
            await asyncio.sleep(LOOK_S if now_ns() - began_ns < 1e9 else 4 * LOOK_S)

    def until(self, step: Validate, chain: Chain) -> float:
        """How long it may take; while we were away nobody looked.

        A command that goes back does not always start anything: then the next rung does, and soon.
        """
        deed, now_s = chain.restoring, self.known.now_s()
        if deed is not None and self.back_s is not None and deed.started_s < self.back_s:
            return max(step.until_s, self.back_s + self.policy.validate_s)
        if deed is None or deed.remedy != "rollback" or deed.outcome != "done":
            return step.until_s
        is_next = starter(self.policy, self.known.standing, now_s) is not None and self.known.newer(chain) is None
        return min(step.until_s, now_s + NO_START_S) if is_next else step.until_s

    def act_goes_on(self, since_s: float) -> bool:
        """Whether a command of an act that we did not see end still runs: until it has ended, nothing can be told."""
        if self.known.now_s() - since_s > ACT_LIMIT_S:
            return False
        since_ns = int(since_s * 1e9) - self.pipeline.recorder.boot_wall_ns - 50_000_000
        return still_run((self.policy.restart, self.policy.rollback), since_ns) is not None

    def commit(self, chain: Chain, step: Commit) -> None:
        """The probation is over: is it still there?"""
        deed = chain.restoring
        could_be_seen = self.health is None or (deed is not None and deed.pid is not None)
        if self.known.newer(chain) is None and could_be_seen:
            came = Outcome("failed", "it was gone at the end of its probation", now_ns())
            return self.known.tell_outcome(chain, VALIDATE, step.attempt, came)
        return self.known.tell_closed(chain, step)
