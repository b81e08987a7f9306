"""One examination of a living process, by whoever asks now: nobody need have watched it before.

Two samples a tenth of a second apart tell what runs and what waits; the kernel knows since when a thread has been off the CPU,
and the sockets when the last byte came. What only a watcher could have known is said to be missing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from agentscope.agents import agent_of, children_by_parent, descendants_of, read_process
from agentscope.classifier import classify
from agentscope.errors import AgentscopeError
from agentscope.evidence import HangScene, collect_all
from agentscope.examination import Examination, SyscallProfile
from agentscope.examination.cgroups import read_cgroup
from agentscope.examination.look import Circumstances, Job, Subject, look_at
from agentscope.incidents import Incidents, Member, depth_of
from agentscope.lastseen import read_last_seen
from agentscope.model import AgentSeen, EngineName, MissingEvidence, ProcessSample
from agentscope.pipeline import boot_wall_ns, now_ns
from agentscope.waits import AgentWaits, Waits

if TYPE_CHECKING:
    from agentscope.sources.ahead import Ahead

BETWEEN_S = 0.1
QUOTA_S = 1.0
PROFILE_S = 2.5
SHORT_S = 5.0  # a wait that ends by itself so soon may be the pause of a loop
PROCESSES = 64


class Sampler(Protocol):
    """Whatever can sample threads: the examination probes, or /proc where they may not be loaded."""

    name: EngineName

    def sample(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes with their threads, now."""
        ...

    def registers(self, pid: int) -> Mapping[int, Mapping[int, int]]:
        """User registers of the threads of a process by DWARF number; empty where they cannot be had."""
        ...

    def profile(self, pids: Sequence[int], seconds: float) -> SyscallProfile | MissingEvidence:
        """Their system calls during `seconds`, or why that cannot be had."""
        ...

    def close(self) -> None:
        """Detach everything."""
        ...


class FromProc:
    """Samples from /proc alone: no registers, no profile."""

    name: EngineName = "none"

    def sample(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes with their threads, now."""
        from agentscope.examination.threads import sample

        return sample(pids)

    def registers(self, pid: int) -> Mapping[int, Mapping[int, int]]:  # noqa: ARG002 - the protocol's
        """None: /proc does not tell them."""
        return {}

    def profile(self, pids: Sequence[int], seconds: float) -> MissingEvidence:  # noqa: ARG002 - the protocol's
        """Tracing system calls needs the probes."""
        return MissingEvidence(kind="syscall-profile", because="tracing system calls needs BPF (sudo)")

    def close(self) -> None:
        """Nothing is open."""


class Examined(NamedTuple):
    """One examination: the scene for the causes, what is outstanding in words, and the state in words."""

    scene: HangScene
    outstanding: tuple[str, ...]
    state: str
    cpu_percent: float


@contextlib.contextmanager
def sampler(ahead: "Ahead | None" = None) -> Iterator[Sampler]:
    """The best that this user may have: the examination probes, which may be loaded `ahead`, else /proc."""
    found: Sampler
    try:
        from agentscope.sources.examiner import Examiner

        found = Examiner() if ahead is None else ahead.examiner()
    except (AgentscopeError, OSError):
        found = FromProc()
    try:
        yield found
    finally:
        found.close()


def examine(
    pid: int, patience_s: float, meanwhile: Callable[[], None] = lambda: None, ahead: "Ahead | None" = None
) -> Examined:
    """Examine this process and its descendants, as a suspect if anything is outstanding.

    `meanwhile` is done between the two samples, which are a tenth of a second apart. `ahead` has the probes, or will have them.

    Raises:
        NoSuchProcess: it ended meanwhile.
    """
    members = family_of(pid)
    waits = Waits(patience_s)
    with sampler(ahead) as sampled:
        pids = [member.process.pid for member in members]
        agent = members[0].tree.agent
        held = read_cgroup(pid)
        began = now_ns()
        waits.sampled(agent, sampled.sample(pids), began)
        warm()
        meanwhile()
        # a quota is dealt out in periods of a tenth of a second: a few of them tell whether it is used up
        between_s = QUOTA_S if held.quotas else BETWEEN_S
        time.sleep(max(0.0, between_s - (now_ns() - began) / 1e9))
        kept = waits.sampled(agent, sampled.sample(pids), now_ns())
        around = Circumstances(patience_s=patience_s, interval_s=(now_ns() - began) / 1e9, cgroup_before=held)
        seen = look_at([Job(subjects(members, kept), around)])[0].seen
        outstanding = waits.looked(kept, seen) if seen.processes else ()
        scene = closer(
            scene_of(members, seen, sampled.name), sampled, suspect=bool(outstanding), awake=worth_a_profile(kept, seen)
        )
    return Examined(scene, outstanding, kept.state(seen.at_ns), round(100 * kept.cpu_share, 1))


def scene_of(members: Sequence[Member], seen: Examination, engine: EngineName) -> HangScene:
    """What was found, with all that the causes are given beside."""
    front = next((member for member in members if seen.processes and member.process.pid == seen.processes[0].pid), members[0])
    return HangScene(
        agent=members[0].tree.agent,
        process=front.process,
        scope="agent",
        engine=engine,
        examination=seen,
        last_seen=read_last_seen(front.process),
        family=front.tree.family(),
    )


def closer(scene: HangScene, sampled: Sampler, *, suspect: bool, awake: bool) -> HangScene:
    """The same, examined as closely as it takes: stacks and locks, then a profile of its calls if those explain nothing."""
    from agentscope.examination.deepen import deepen, with_native

    def of(seen: Examination) -> HangScene:
        return msgspec.structs.replace(scene, examination=seen)

    found = of(deepen(scene.examination)) if suspect else scene
    if awake and not explained(found):
        found = of(deepen(profiled(scene.examination, sampled)))
    return of(with_native(found.examination, sampled.registers)) if suspect or explained(found) else found


def explained(scene: HangScene) -> bool:
    """Whether a cause is at least likely."""
    return any(finding.confidence != "possible" for finding in classify(collect_all(scene)).findings)


def family_of(pid: int) -> list[Member]:
    """The process and its descendants with their roles, the innermost of the agent's own line first."""
    seen = read_process(pid)
    incidents = Incidents()
    incidents.apply(AgentSeen(at_ns=now_ns(), agent=agent_of(seen, boot_wall_ns()), because="diagnose"))
    for process in (seen, *descendants_of(pid, children_by_parent())):
        incidents.apply(process)
    members = sorted(incidents.members.values(), key=lambda each: (not each.on_agent_line, -depth_of(each), each.process.pid))
    return members[:PROCESSES]


def subjects(members: Sequence[Member], waits: AgentWaits) -> list[Subject]:
    """What a look needs of each process that was sampled."""
    found = []
    for member in members:
        known = waits.known.get(member.process.pid)
        if known is not None:
            found.append(Subject(member.process, known.sample, known.rates()))
    return found


def worth_a_profile(waits: AgentWaits, seen: Examination) -> bool:
    """Whether what it does can only be seen by tracing its calls for a while: it runs, or pauses for a moment only."""
    if waits.wait is None or not seen.processes or seen.processes[0].tracer is not None:
        return False
    short = (waits.wait.timeout_s is not None and waits.wait.timeout_s <= SHORT_S) or (waits.wait.for_s or 0.0) < SHORT_S
    return waits.wait.kind not in {"human", "stopped", "traced", "tool"} and (waits.cpu_share >= 0.02 or short)


def profiled(seen: Examination, sampled: Sampler) -> Examination:
    """The look with its system calls of the next seconds, and where its busy threads are found meanwhile."""
    from concurrent.futures import ThreadPoolExecutor

    from agentscope.examination.deepen import sample_stacks

    with ThreadPoolExecutor(1) as beside:
        samples = beside.submit(sample_stacks, [seen], sampled.registers, PROFILE_S)
        traced = sampled.profile([process.pid for process in seen.processes], PROFILE_S)
        seen = msgspec.structs.replace(seen, samples=tuple(samples.result()))
    if isinstance(traced, MissingEvidence):
        return msgspec.structs.replace(seen, missing=(*seen.missing, traced))
    return msgspec.structs.replace(seen, profile=traced)


def warm() -> None:
    """Load between the two samples what the look will need."""
    import agentscope.causes
    import agentscope.examination.calls
    import agentscope.examination.deepen
    import agentscope.examination.sockets

    agentscope.causes.causes_of(living=True)
