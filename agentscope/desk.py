"""What a person at the screen of `watch` can have done on this machine: look, take stacks, watch one more, bring one back.

Whatever blocks goes into a thread beside the loop; what changes the watching is done in the loop.
"""

import asyncio
import os
import pwd
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from agentscope.agents import is_kernel_thread, live_processes, same_identity, start_ns_of
from agentscope.commandlines import program_name
from agentscope.errors import NoSuchProcess, UsageError
from agentscope.evidence import Collected, Evidence, HangScene, Missing, collect_all
from agentscope.model import Agent, IncidentOpened, Pulse, RuledOut
from agentscope.pipeline import hang_of, now_ns
from agentscope.views.tui.deeds import Candidate, Look, Means

if TYPE_CHECKING:
    from agentscope.live import Live
    from agentscope.vigil import Watched

PICKED = "a person picked it from the list of processes"
STACK_KINDS = frozenset({"python-threads", "native-threads", "async-tasks"})
NO_RECOVERY = "no config says how: without [agent.NAME.recovery] agentscope only watches, and starts nothing"


class Desk:
    """The deeds of one run of `watch`."""

    def __init__(self, live: "Live", patience_s: float) -> None:
        self.live = live
        self.patience_s = patience_s

    # --- looking ---------------------------------------------------------------------------------------------------------

    async def look(self, agent: Agent) -> Look:
        """Examine it, as `agentscope diagnose PID` does."""
        _, look = await asyncio.to_thread(self.examined, agent)
        return look

    def examined(self, agent: Agent) -> tuple[HangScene, Look]:
        """The same, with the scene, in a thread."""
        from agentscope.classifier import classify
        from agentscope.examining import examine

        check_same(agent)
        found = examine(agent.pid, self.patience_s)
        scene = msgspec.structs.replace(found.scene, agent=agent)
        collected = collect_all(scene)
        pulse = Pulse(
            at_ns=now_ns(), agent_pid=agent.pid, agent_start_ns=agent.start_ns, state=found.state, rss_bytes=None,
            cpu_percent=found.cpu_percent, threads=sum(len(process.threads) for process in scene.examination.processes),
        )  # fmt: skip
        return scene, look_of(agent, collected, pulse, hang_of(scene, collected, classify(collected)))

    async def stacks(self, agent: Agent) -> Look:
        """Take its stacks, whether anything is outstanding or not."""
        return await asyncio.to_thread(self.stacks_taken, agent)

    def stacks_taken(self, agent: Agent) -> Look:
        """The same, in a thread."""
        from agentscope.examination.deepen import deepen, with_native
        from agentscope.examination.look import Circumstances, Job, look_at
        from agentscope.examining import family_of, sampler, scene_of, subjects
        from agentscope.waits import Waits

        check_same(agent)
        members = family_of(agent.pid)
        with sampler() as sampled:
            kept = Waits(self.patience_s).sampled(agent, sampled.sample([each.process.pid for each in members]), now_ns())
            around = Circumstances(patience_s=self.patience_s, interval_s=1.0)
            seen = with_native(deepen(look_at([Job(subjects(members, kept), around)])[0].seen), sampled.registers)
            collected = {
                kind: each for kind, each in collect_all(scene_of(members, seen, sampled.name)).items() if kind in STACK_KINDS
            }
        return look_of(agent, collected, None, None)

    # --- watching one more -------------------------------------------------------------------------------------------------

    async def processes(self) -> Sequence[Candidate]:
        """Every process that could be watched and is not yet, likely agents first, then the newest."""
        return await asyncio.to_thread(candidates, frozenset(self.live.own | self.live.members.keys()))

    async def add(self, candidate: Candidate) -> str:
        """Watch it with its descendants from now on."""
        check_same(candidate)
        if is_kernel_thread(candidate.pid):
            raise UsageError(f"process {candidate.pid} is a thread of the kernel", "it runs no program that could be an agent")
        agent = self.live.take(candidate.pid, None, PICKED)
        if agent is None:
            raise NoSuchProcess(f"there is no process {candidate.pid}", "it has just ended")
        return f"{agent.name} (pid {agent.pid}) is watched from now on"

    # --- bringing back -----------------------------------------------------------------------------------------------------

    def means(self, agent: Agent) -> Means:
        """What the config allows, and what may be asked for now."""
        keeper = self.live.recovery.keepers.get(agent.name)
        if keeper is None:
            says = [NO_RECOVERY]
            if agent.unit is not None:
                says.append(f"it belongs to unit {agent.unit}: sudo systemctl restart {agent.unit}")
            elif agent.container is not None:
                says.append(f"it lives in container {agent.container}: docker restart {agent.container}")
            return Means(says=tuple(says))
        if keeper.chain is not None:
            return Means(says=(f"that is under way: incident {keeper.chain.incident}, as the ladder of its config says",))
        if start_ns_of(agent.pid) is None or not same_identity(start_ns_of(agent.pid) or 0, agent.start_ns):
            command = " ".join(keeper.policy.restart or ())
            typed = f": {command}" if command else ""
            return Means(
                says=("its recovery is over, and what was tried stands in its incident", f"to start it by hand{typed}")
            )
        ladder = ", then ".join(keeper.policy.ladder_of("hang"))
        return Means(
            says=(
                "it is examined first; where a hang is found, it is told as an incident and brought back as its config says",
                f"for a hang that is: {ladder or 'nothing'}",
                "an agent that is well is left alone",
            ),
            can=True,
        )

    async def recover(self, agent: Agent) -> str:
        """Examine it, and where it hangs tell that, so that its recovery begins."""
        if not self.means(agent).can:
            raise UsageError(f"{agent.name} cannot be brought back now", "its recovery says nothing, or is under way")
        scene, look = await asyncio.to_thread(self.examined, agent)
        watched = self.live.vigil.agents.get((agent.pid, agent.start_ns))
        if look.incident is None or watched is None:
            return f"{agent.name} was left alone: no hang was found, so there is nothing to recover from"
        if watched.incident is None:
            self.tell(watched, scene, look.incident)
        return f"{agent.name} hangs: {look.incident.headline}; its recovery has begun"

    def tell(self, watched: "Watched", scene: HangScene, incident: IncidentOpened) -> None:
        """Tell a hang that a person had looked for, as the vigil tells its own."""
        watched.incident, watched.hung_since_ns = incident.incident, scene.examination.at_ns
        watched.waits.hung = incident.subtype or "unknown"
        self.live.pipeline.keep(incident)
        self.live.pipeline.announce(incident)


def check_same(process: Agent | Candidate) -> None:
    """The process is still the one that was meant: a number is used again.

    Raises:
        NoSuchProcess: it has ended.
    """
    start_ns = start_ns_of(process.pid)
    if start_ns is None or not same_identity(start_ns, process.start_ns):
        raise NoSuchProcess(f"{process.name} (pid {process.pid}) does not run any more", "it has ended since it was listed")


def look_of(agent: Agent, collected: dict[str, Collected], pulse: Pulse | None, incident: IncidentOpened | None) -> Look:
    """What was found, for the screen."""
    evidence = tuple(each.record("context") for each in collected.values() if isinstance(each, Evidence))
    missing = tuple(RuledOut(cause=kind, because=each.because) for kind, each in collected.items() if isinstance(each, Missing))
    return Look(agent=agent, pulse=pulse, evidence=evidence, not_checked=missing, incident=incident)


def candidates(watched: frozenset[int]) -> list[Candidate]:
    """The processes of this machine, in a thread."""
    from agentscope.discovery import Scan, known_by

    acting = {each.pid: each.because for each in Scan().look(watched)}
    found = [
        Candidate(
            pid=seen.pid,
            start_ns=seen.start_ns,
            name=program_name(seen.argv, seen.comm) or seen.comm,
            command=" ".join(seen.argv) or f"[{seen.comm}]",
            user=user_of(seen.uid),
            because=known_by(seen) or acting.get(seen.pid, ""),
        )
        for seen in live_processes()
        if seen.pid not in watched and seen.pid != os.getpid()
    ]
    return sorted(found, key=lambda each: (not each.because, -each.start_ns))


def user_of(uid: int) -> str:
    """The user's name, or the number where it has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
