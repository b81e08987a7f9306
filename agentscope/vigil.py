"""Keeps an eye on living agents: samples every second, looks when it is worth it, examines what is suspect, tells a hang.

Looks and examinations block (files of /proc, a stack taker), so they run in threads beside the loop: one round of looks at a
time, and one profile of system calls, which takes seconds and must not keep the looks waiting.
Nothing here judges: `waits.py` says what is outstanding, the causes say whether that is a hang.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import is_

import msgspec

from agentscope.evidence import HangScene
from agentscope.examination import Examination, SyscallProfile
from agentscope.examination.cgroups import CgroupReading
from agentscope.examination.deepen import deepen, sample_stacks, with_native
from agentscope.examination.look import Circumstances, Job, SampleOf, Subject, look_at
from agentscope.incidents import Member, Tree, depth_of
from agentscope.model import Agent, IncidentClosed, MissingEvidence, ProcessSample, WaitChanged
from agentscope.pipeline import Pipeline, now_ns
from agentscope.sources.active import Probes
from agentscope.waits import BUSY, SEEN_BY_PROFILE, AgentWaits, Waits, went_on, words_of_seconds

PROFILE_S = 2.5
THREADS = 4  # most of their time is waiting: for a stack taker, for the tenth of a second that a holder is watched
SETTLED_NS = 3_000_000_000  # a state is told once it has lasted this long; a suspicion at once
CLEAR_LOOKS = 2
MEMBERS_LOOKED_AT = 64  # processes of one agent


@dataclass(slots=True)
class Watched:
    """What the vigil keeps of one agent beside its waits."""

    waits: AgentWaits
    incident: str | None = None
    clear_looks: int = 0
    hung_since_ns: int = 0
    cgroup: CgroupReading | None = None
    told: str = ""
    label: str = ""
    label_since_ns: int = 0
    examined: Examination | None = None
    examined_ns: int = 0  # when its stacks were taken
    samples: tuple[ProcessSample, ...] = ()  # those that the stacks of `examined` belong to
    members: dict[int, Member] = field(default_factory=dict)


class Vigil:
    """One vigil over all agents of a pipeline; `probes` tell what the checks of the config say of an agent."""

    def __init__(self, pipeline: Pipeline, probes: Probes, patience_s: float) -> None:
        self.pipeline = pipeline
        self.probes = probes
        self.waits = Waits(patience_s)
        self.agents: dict[tuple[int, int], Watched] = {}
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="examination")
        self.round: asyncio.Task[None] | None = None
        self.profiling: asyncio.Task[None] | None = None
        self.last_sample_ns = 0
        self.interval_s = 1.0

    def close(self) -> None:
        """Stop looking; a round that is under way ends by its own bounds."""
        for task in (self.round, self.profiling):
            if task is not None:
                task.cancel()
        self.threads.shutdown(wait=False, cancel_futures=True)

    # --- every second ---------------------------------------------------------------------------------------------------

    def sampled(self, tree: Tree, samples: Sequence[ProcessSample], at_ns: int) -> AgentWaits:
        """One agent's sample; tells a change of what it waits for."""
        waits = self.waits.sampled(tree.agent, samples, at_ns)
        key = tree.key
        watched = self.agents.get(key)
        if watched is None:
            watched = self.agents[key] = Watched(waits)
        watched.members = tree.live
        self.feed(tree.agent, samples, at_ns)
        self.tell_change(watched, at_ns)
        return waits

    def feed(self, agent: Agent, samples: Sequence[ProcessSample], at_ns: int) -> None:
        """Give a rule of progress what it counts."""
        signal = self.probes.signal_of(agent)
        if signal == "io":
            moved = sum((thread.read_bytes or 0) + (thread.written_bytes or 0) for each in samples for thread in each.threads)
            self.probes.moved(agent, moved, at_ns)
        elif signal == "stdout":
            wrote = [at for each in samples if (at := self.pipeline.wrote_ns(each.pid)) is not None]
            self.probes.wrote(agent, max(wrote, default=None), at_ns)

    def tell_change(self, watched: Watched, at_ns: int) -> None:
        """A state is told when it has settled; what is suspect or hung, at once."""
        waits = watched.waits
        label = waits.label()
        if label != watched.label:
            watched.label, watched.label_since_ns = label, at_ns
        urgent = waits.suspect is not None or waits.hung is not None
        since_ns = (
            waits.since_ns(waits.wait.tid, waits.wait.pid) if waits.wait is not None and label.startswith("waiting") else None
        )
        lasted_ns = at_ns - min(watched.label_since_ns, since_ns or at_ns)
        if label != watched.told and (urgent or lasted_ns >= min(SETTLED_NS, self.waits.patience_ns // 2)):
            watched.told = label
            self.pipeline.sink(
                WaitChanged(
                    at_ns=at_ns,
                    agent_pid=waits.agent.pid,
                    agent_start_ns=waits.agent.start_ns,
                    state=waits.state(at_ns),
                    suspect=urgent,
                )
            )

    def beat(self, at_ns: int) -> None:
        """Once a second, after all samples: forget who is gone, and begin a round if somebody is due."""
        living = {tree.key: tree.agent for tree in self.pipeline.incidents.trees}
        self.waits.keep_only(living.values())
        for key in [key for key in self.agents if key not in living]:
            watched = self.agents.pop(key)
            self.probes.gone(watched.waits.agent)
            self.gone(watched, at_ns)
        self.round, self.profiling = self.done(self.round), self.done(self.profiling)
        due = self.waits.due(at_ns)
        if due and self.round is None:
            self.round = asyncio.get_running_loop().create_task(self.look_round([self.agents[key_of(waits)] for waits in due]))

    def done(self, task: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
        """A task that still runs; of one that failed, it is said."""
        if task is None or not task.done():
            return task
        if not task.cancelled() and (error := task.exception()) is not None:
            self.pipeline.lost("vigil", f"a look failed: {type(error).__name__}: {error}")
        return None

    def gone(self, watched: Watched, at_ns: int) -> None:
        """A hung agent ended: its hang is over."""
        if watched.incident is not None:
            for_s = words_of_seconds((at_ns - watched.hung_since_ns) / 1e9)
            self.close_incident(watched, at_ns, f"it ended after having hung for {for_s}")

    # --- a round of looks -----------------------------------------------------------------------------------------------

    async def look_round(self, due: Sequence[Watched]) -> None:
        """Look at all that are due, examine what is suspect, profile what is awake without a visible reason."""
        loop = asyncio.get_running_loop()
        jobs = [(watched, self.job(watched)) for watched in due]
        seen = await loop.run_in_executor(self.threads, look_at_all, jobs, self.sample_of)
        profiled: list[tuple[Watched, Examination, bool]] = []
        suspects: list[tuple[Watched, Examination]] = []
        for watched, found in seen:
            if not found.processes:
                continue
            reasons = self.waits.looked(watched.waits, found)
            if watched.incident is not None and watched.waits.hung not in SEEN_BY_PROFILE:
                # one look may have missed what is outstanding; two that could see everything have not
                watched.clear_looks = watched.clear_looks + 1 if not reasons and not found.missing else 0
                if watched.clear_looks >= CLEAR_LOOKS:
                    self.recovered(watched, found)
            elif self.waits.wants_profile(watched.waits, found, possible=self.profiling is None):
                profiled.append((watched, found, bool(reasons)))
            elif watched.incident is not None:
                continue
            elif reasons:
                suspects.append((watched, found))
        if profiled:
            self.profiling = loop.create_task(self.profile(profiled))
        await asyncio.gather(*(self.examine(watched, found) for watched, found in suspects))

    async def examine(self, watched: Watched, found: Examination) -> None:
        """Take stacks and locks, and judge; those that were taken last serve again for a while, if no thread has run since."""
        samples = tuple(known.sample for known in watched.waits.known.values())
        rested = len(samples) == len(watched.samples) and all(map(is_, samples, watched.samples))
        before = (
            watched.examined if rested and self.waits.serves_again(watched.waits, watched.examined_ns, found.at_ns) else None
        )
        loop = asyncio.get_running_loop()
        deeper = await loop.run_in_executor(self.threads, deepen, found, before)
        scene = self.scene(watched, deeper)
        suspect = self.pipeline.suspicion(scene, found.patience_s / 2) if scene is not None else None
        if suspect is not None and watched.incident is None:
            pids = [process.pid for process in deeper.processes]
            if went_on(deeper, samples, await loop.run_in_executor(self.threads, self.sample_of, pids)):
                self.waits.cleared(watched.waits, msgspec.structs.replace(deeper, hurried=True), None)
                return
        if suspect is not None and not deeper.native:
            deeper = await loop.run_in_executor(self.threads, with_native, deeper, self.registers)
        if before is None or before.hurried:
            watched.examined_ns = found.at_ns
        watched.examined, watched.samples = deeper, samples
        self.judge(watched, deeper, suspect)

    async def profile(self, wanted: Sequence[tuple[Watched, Examination, bool]]) -> None:
        """Trace the system calls of these agents for a few seconds, sample their busy threads meanwhile, and judge.

        With each goes whether the look before it found something outstanding.
        """
        engine = self.pipeline.engine
        if engine is None:
            return
        loop = asyncio.get_running_loop()
        pids = [process.pid for _, found, _ in wanted for process in found.processes]
        engine.begin_profile(pids)
        try:
            samples = loop.run_in_executor(
                self.threads, sample_stacks, [found for _, found, _ in wanted], self.registers, PROFILE_S
            )
            await asyncio.sleep(PROFILE_S)
            taken = await samples
        finally:
            profile = engine.end_profile()
        # looked at again, so that what is said is of one moment: the end of the profile
        worth = [watched for watched, found, owed in wanted if owed or not uneventful(watched, found, profile)]
        jobs = [(watched, self.job(watched)) for watched in worth]
        examined = []
        for watched, found in await loop.run_in_executor(self.threads, look_at_all, jobs, self.sample_of):
            if not found.processes:
                continue
            ours = {process.pid for process in found.processes}
            traced = msgspec.structs.replace(found, samples=tuple(each for each in taken if each.pid in ours))
            if isinstance(profile, MissingEvidence):
                traced = msgspec.structs.replace(traced, missing=(*traced.missing, profile))
            else:
                traced = msgspec.structs.replace(traced, profile=of_processes(profile, ours))
            examined.append(self.examine(watched, traced))
        await asyncio.gather(*examined)

    def sample_of(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes as they are now, from the engine."""
        return self.pipeline.engine.sample_of(pids) if self.pipeline.engine is not None else ()

    def registers(self, pid: int) -> Mapping[int, Mapping[int, int]]:
        """The user registers of the threads of a process, from the engine; nothing where it cannot tell."""
        return self.pipeline.engine.registers(pid) if self.pipeline.engine is not None else {}

    def judge(self, watched: Watched, seen: Examination, suspect: str | None) -> None:
        """Let the causes say whether what is outstanding is a hang, or still is; `suspect` is what it would be with half the patience.

        What is none with half of the patience is none with all of it; only what the owner has asked for can say otherwise.
        """
        scene = self.scene(watched, seen)
        if scene is None:
            return
        possible = suspect is not None or seen.health is not None or seen.progress is not None
        found = self.pipeline.hang(scene, already=watched.incident) if possible else None
        if found is None:
            if watched.incident is not None and not seen.hurried:
                self.recovered(watched, seen)
            self.waits.cleared(watched.waits, seen, suspect)
            self.tell_change(watched, now_ns())
        elif watched.incident is None:
            watched.incident, watched.hung_since_ns = found.incident, seen.at_ns
            watched.waits.hung = found.subtype or "unknown"
            self.tell_change(watched, now_ns())

    def recovered(self, watched: Watched, seen: Examination) -> None:
        """Nothing is outstanding any more: it went on by itself."""
        for_s = words_of_seconds((seen.at_ns - watched.hung_since_ns) / 1e9)
        self.close_incident(watched, seen.at_ns, f"it went on by itself after {for_s}")
        self.tell_change(watched, seen.at_ns)

    def close_incident(self, watched: Watched, at_ns: int, outcome: str) -> None:
        """Tell that a hang is over."""
        closed = IncidentClosed(at_ns=at_ns, incident=watched.incident or "", agent=watched.waits.agent, outcome=outcome)
        watched.incident, watched.waits.hung, watched.clear_looks = None, None, 0
        self.pipeline.close_incident(closed)

    # --- what a look is given ----------------------------------------------------------------------------------------------

    def job(self, watched: Watched) -> Job:
        """What a look at this agent is given."""
        return Job(self.subjects(watched), self.circumstances(watched))

    def subjects(self, watched: Watched) -> list[Subject]:
        """The processes of an agent, the innermost of its own line first."""
        found = []
        for pid, known in watched.waits.known.items():
            member = watched.members.get(pid)
            if member is None:
                continue
            subject = Subject(member.process, known.sample, known.rates())
            found.append((not member.on_agent_line, -depth_of(member), pid, subject))
        found.sort(key=lambda each: each[:3])
        return [subject for *_, subject in found[:MEMBERS_LOOKED_AT]]

    def circumstances(self, watched: Watched) -> Circumstances:
        """What is known of an agent beside what a look finds."""
        agent = watched.waits.agent
        return Circumstances(
            patience_s=self.waits.patience_s,
            watched_since_ns=watched.waits.watched_since_ns,
            interval_s=self.interval_s,
            health=self.probes.health_of(agent),
            progress=self.probes.progress_of(agent, now_ns()),
            first_seen=dict(watched.waits.first_seen),
            cgroup_before=watched.cgroup,
        )

    def scene(self, watched: Watched, seen: Examination) -> HangScene | None:
        """Everything known about this agent as one value; None if it has ended meanwhile."""
        member = watched.members.get(seen.processes[0].pid)
        if member is None:
            return None
        return HangScene(
            agent=member.tree.agent,
            process=member.process,
            scope="agent",
            engine=self.pipeline.engine.name if self.pipeline.engine is not None else "none",
            examination=seen,
            signals=tuple(member.signals),
            last_seen=self.pipeline.cache.seen.get(member.process.pid),
            family=member.tree.family(),
        )


def key_of(waits: AgentWaits) -> tuple[int, int]:
    """Identity of an agent within a boot."""
    return waits.agent.pid, waits.agent.start_ns


def look_at_all(jobs: Sequence[tuple[Watched, Job]], sample_of: SampleOf) -> list[tuple[Watched, Examination]]:
    """The looks of one round, in a thread beside the loop."""
    looks = look_at([job for _, job in jobs], sample_of)
    for (watched, _), look in zip(jobs, looks, strict=True):
        watched.cgroup = look.cgroup
    return [(watched, look.seen) for (watched, _), look in zip(jobs, looks, strict=True)]


def uneventful(watched: Watched, found: Examination, profile: SyscallProfile | MissingEvidence) -> bool:
    """Whether an agent need not be examined after its profile: it only wakes now and then; nothing fails, and nothing burns."""
    if isinstance(profile, MissingEvidence) or watched.incident is not None or watched.waits.suspect is not None:
        return False
    busy = any((thread.busy_share or 0.0) >= BUSY for process in found.processes for thread in process.threads)
    return not busy and not of_processes(profile, {process.pid for process in found.processes}).shows_failures()


def of_processes(profile: SyscallProfile, pids: set[int]) -> SyscallProfile:
    """The part of a profile that is about these processes."""
    return SyscallProfile(
        seconds=profile.seconds,
        calls=tuple(each for each in profile.calls if each.pid in pids),
        connects=tuple(each for each in profile.connects if each.pid in pids),
        statuses=tuple(each for each in profile.statuses if each.pid in pids),
        written_bytes={pid: count for pid, count in profile.written_bytes.items() if pid in pids},
    )
