"""What a person at the screen of `watch` can have done on this machine: look, take stacks, watch one more, bring one back.

Whatever blocks goes into a thread beside the loop; what changes the watching is done in the loop.
"""

import asyncio
import json
import os
import pwd
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from agentscope.agents import is_kernel_thread, live_processes, same_identity, start_ns_of
from agentscope.commandlines import program_name
from agentscope.errors import NoSuchProcess, UsageError
from agentscope.evidence import Collected, Evidence, HangScene, Missing, collect_all
from agentscope.model import Agent, Diagnosis, IncidentOpened, Pulse, RuledOut
from agentscope.pipeline import hang_of, now_ns
from agentscope.policy import RESTORING, Policy
from agentscope.views.tui.deeds import Candidate, Look, Means

if TYPE_CHECKING:
    from agentscope.live import Live
    from agentscope.vigil import Watched

PICKED = "a person picked it from the list of processes"
STACK_KINDS = frozenset({"python-threads", "native-threads", "async-tasks"})
NO_RECOVERY = "no config says how, and without that agentscope only watches, and starts nothing"
ASKED_ADVICE = "nothing was found wrong with it; if it is not well again, d on the screen while it is so tells what it does"
TYPE_THIS = "to have r do it, put this into a file and watch with --config FILE:"


class Examined(NamedTuple):
    """One examination: what was looked at, what was found, what that means, and the same for the screen."""

    scene: HangScene
    collected: dict[str, Collected]
    diagnosis: Diagnosis
    look: Look


class Desk:
    """The deeds of one run of `watch`."""

    def __init__(self, live: "Live", patience_s: float) -> None:
        self.live = live
        self.patience_s = patience_s

    # --- looking ---------------------------------------------------------------------------------------------------------

    async def look(self, agent: Agent) -> Look:
        """Examine it, as `agentscope diagnose PID` does."""
        return (await asyncio.to_thread(self.examined, agent)).look

    def examined(self, agent: Agent) -> Examined:
        """The same, with all that led to it, in a thread."""
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
        diagnosis = classify(collected)
        return Examined(scene, collected, diagnosis, look_of(agent, collected, pulse, hang_of(scene, collected, diagnosis)))

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
                says.append(f"by hand: it belongs to unit {agent.unit}: sudo systemctl restart {agent.unit}")
            elif agent.container is not None:
                says.append(f"by hand: it lives in container {agent.container}: docker restart {agent.container}")
            if any(target.name == agent.name for target in self.live.targets):
                return Means(says=(*says, "to have r do it, add to its entry in the config:"), config=config_of(agent)[2:])
            return Means(says=(*says, TYPE_THIS), config=config_of(agent))
        if keeper.chain is not None:
            return Means(says=(f"that is under way: incident {keeper.chain.incident}, as the ladder of its config says",))
        if start_ns_of(agent.pid) is None or not same_identity(start_ns_of(agent.pid) or 0, agent.start_ns):
            command = " ".join(keeper.policy.restart or ())
            typed = f": {command}" if command else ""
            return Means(
                says=("its recovery is over, and what was tried stands in its incident", f"to start it by hand{typed}")
            )
        return means_of(keeper.policy)

    async def recover(self, agent: Agent) -> str:
        """Examine it, tell its hang or that a person found it not well, and so begin its recovery, which writes down what it does."""
        if not self.means(agent).can:
            raise UsageError(f"{agent.name} cannot be brought back now", "its recovery says nothing, or is under way")
        found = await asyncio.to_thread(self.examined, agent)
        watched = self.live.vigil.agents.get((agent.pid, agent.start_ns))
        if watched is None or not self.means(agent).can:
            return f"{agent.name} has ended meanwhile, or its recovery has begun"
        if found.look.incident is not None:
            if watched.incident is None:
                self.tell(watched, found.scene, found.look.incident)
            return f"{agent.name} hangs: {found.look.incident.headline}; its recovery has begun"
        asked = f"A person had {agent.name} brought back; no hang was found"
        incident = hang_of(found.scene, found.collected, found.diagnosis, asked)
        assert incident is not None
        incident = msgspec.structs.replace(incident, advice=(ASKED_ADVICE,))
        # not as its hang: the vigil would soon find that it goes on, and close it
        self.live.pipeline.keep(incident)
        self.live.pipeline.announce(incident)
        return f"no hang of {agent.name} was found; its recovery has begun, because you asked for it"

    def tell(self, watched: "Watched", scene: HangScene, incident: IncidentOpened) -> None:
        """Tell a hang that a person had looked for, as the vigil tells its own."""
        watched.incident, watched.hung_since_ns = incident.incident, scene.examination.at_ns
        watched.waits.hung = incident.subtype or "unknown"
        self.live.pipeline.keep(incident)
        self.live.pipeline.announce(incident)


def means_of(policy: Policy) -> Means:
    """What would be done about an agent that lives, by the ladder for a hang."""
    ladder = policy.ladder_of("hang")
    named = ", then ".join(ladder) or "nothing"
    if RESTORING.isdisjoint(ladder):
        return Means(
            says=(
                f"its ladder for a hang is: {named}; that does not start it again",
                "to have r do it, in its recovery table:",
            ),
            config=('ladder = { hang = ["stacks", "restart", "alert"] }',),
        )
    how = (
        f"restart is: {' '.join(policy.restart)}"
        if policy.restart
        else "restart asks whoever owns it (systemd, a container ...)"
    )
    first = (
        "dry-run = true: nothing is done, only recorded"
        if policy.dry_run
        else "it is brought back at once, whether or not a hang is found"
    )
    return Means(
        says=(
            f"{first}; it is looked at before, for up to three seconds, so that the record tells how it was",
            f"as its config says for a hang: {named}; what does not help is left for the next",
            how,
        ),
        can=True,
    )


def config_of(agent: Agent) -> tuple[str, ...]:
    """The lines of a config by which this agent would be brought back; JSON's strings are TOML's."""
    name = (
        agent.name
        if agent.name.replace("-", "").replace("_", "").isalnum() and agent.name.isascii()
        else json.dumps(agent.name)
    )
    match, command = ("name", re.escape(agent.name)), ["/path/to/what/starts/it"]
    if agent.unit is not None:
        match, command = ("unit", agent.unit), ["systemctl", "restart", agent.unit]
    elif agent.container is not None:
        command = ["docker", "restart", agent.container]
    return (
        f"[agent.{name}]",
        f"match = {{ {match[0]} = {json.dumps(match[1])} }}",
        f"[agent.{name}.recovery]",
        f"restart = {json.dumps(command)}",
    )


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
