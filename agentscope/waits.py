"""Step 3, of the living: samples and looks -> what each agent is waiting for, since when, and when to look closer. A pure fold.

A look costs milliseconds and a sample nothing, so samples decide when a look is worth it: when a thread has been still, or busy,
for half of the patience. What a look finds decides whether the agent is worth an examination: something is outstanding on which
a clock may run. Whether that is a hang, or will be one if it goes on (*suspect*), is decided by the causes, never here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agentscope.examination import Examination, Thread
from agentscope.examination.look import Rate
from agentscope.examination.waiting import Obligation, Wait, cpu_of, has_left, obligations_of, same_wait, waits_of
from agentscope.model import Agent, ProcessSample, ThreadSample

BUSY = 0.8  # of one CPU
QUIET = 0.02
SEEN_BY_PROFILE = frozenset({"retry-loop", "spin"})  # what only a profile shows, only a profile can clear
SHOWN_AS = {"file-lock": "lock"}
LOOK_AGAIN_S = 120.0  # the longest that a quiet agent is left alone
SOON = 0.1  # of the patience: a third of the shortest pause between looks at one that rests
CLEAN_LOOKS = 4  # the pause between looks at an active agent grows up to this many times the patience
PROFILE_AGAIN_S = 600.0
HURRIED_LOOKS = 3  # how often one that had no time to read everything is made again soon


@dataclass(slots=True)
class Still:
    """One thread and how it has been: `since_ns` is when its present wait, or its present burst on the CPU, began."""

    sample: ThreadSample
    since_ns: int
    cpu_share: float = 0.0
    busy_share: float = 0.0
    switches_per_s: float = 0.0
    wanted: float = 0.0


@dataclass(slots=True)
class Known:
    """One process of an agent as last sampled."""

    sample: ProcessSample
    at_ns: int
    threads: dict[int, Still] = field(default_factory=dict)
    calm: bool = False  # the last sample changed nothing, and its rates say so

    def rates(self) -> dict[int, Rate]:
        """What each thread did lately, as a look is told it."""
        return {
            tid: Rate(each.since_ns, each.cpu_share, each.busy_share, each.switches_per_s) for tid, each in self.threads.items()
        }


@dataclass(slots=True)
class AgentWaits:
    """What is known of one agent: when it will be looked at, and what the last look said."""

    agent: Agent
    watched_since_ns: int
    known: dict[int, Known] = field(default_factory=dict)
    again_ns: int = 0  # when it is looked at whatever its threads do
    next_look_ns: int = 0
    last_look_ns: int | None = None
    clean_looks: int = 0
    hurried_looks: int = 0  # one after the other
    profiled_ns: int | None = None
    profile_pause_s: float = 0.0
    profile_owed: bool = False  # it was worth one when another was under way
    changed_ns: int = 0
    first_seen: dict[tuple[int, str], int] = field(default_factory=dict)
    wait: Wait | None = None
    suspect: str | None = None
    hung: str | None = None
    cpu_share: float = 0.0
    threads: int = 0

    @property
    def rests(self) -> bool:
        """Whether the last look found nothing wrong, and no thread has come to be still since: the next one has time."""
        return self.clean_looks > 0 and self.suspect is None and self.hung is None and self.next_look_ns == self.again_ns

    def label(self) -> str:
        """What it is doing, in words, without how long: "waiting(llm) api.anthropic.com 160.79.104.10:443"."""
        waits = self.wait is not None and self.wait.kind not in {"running", "unknown"}
        object_words = self.wait.says.removeprefix(f"{self.wait.kind} ") if self.wait is not None and waits else ""
        if self.hung is not None or self.suspect is not None:
            return f"hung({self.hung}) {object_words}" if self.hung is not None else f"suspect({self.suspect}) {object_words}"
        works = self.cpu_share >= QUIET and (self.wait is None or self.wait.kind != "tool")
        return (
            "running"
            if self.wait is None or not waits or works
            else f"waiting({SHOWN_AS.get(self.wait.kind, self.wait.kind)}) {object_words}"
        )

    def state(self, now_ns: int) -> str:
        """The same, with how long."""
        label = self.label()
        since = self.since_ns(self.wait.tid, self.wait.pid) if self.wait is not None else None
        if label == "running" or since is None:
            return label
        return f"{label}, {words_of_seconds((now_ns - since) / 1e9)}"

    def since_ns(self, tid: int, pid: int) -> int | None:
        """When the present wait of a thread began."""
        known = self.known.get(pid)
        still = known.threads.get(tid) if known is not None else None
        return still.since_ns if still is not None else None


def words_of_seconds(seconds: float) -> str:
    """A duration for a person."""
    if seconds < 120:
        return f"{round(max(0, seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Waits:
    """The fold over all agents, by (pid, start time) of their root."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.patience_ns = int(patience_s * 1e9)
        self.agents: dict[tuple[int, int], AgentWaits] = {}

    def of(self, agent: Agent, now_ns: int) -> AgentWaits:
        """What is kept of this agent."""
        key = (agent.pid, agent.start_ns)
        found = self.agents.get(key)
        if found is None:
            found = self.agents[key] = AgentWaits(agent, now_ns, again_ns=now_ns + self.patience_ns // 2, changed_ns=now_ns)
            found.next_look_ns = found.again_ns
        return found

    def keep_only(self, agents: Iterable[Agent]) -> None:
        """Forget agents that are gone."""
        living = {(agent.pid, agent.start_ns) for agent in agents}
        for key in [key for key in self.agents if key not in living]:
            del self.agents[key]

    def sampled(self, agent: Agent, samples: Sequence[ProcessSample], now_ns: int) -> AgentWaits:
        """One sample of an agent's processes. What has not changed since the last costs nothing."""
        waits = self.of(agent, now_ns)
        changed = len(samples) != len(waits.known)
        for sample in samples:
            known = waits.known.get(sample.pid)
            if known is not None and known.sample is sample and known.calm:
                continue
            changed |= self.fold(waits, known, sample, now_ns)
        if changed:
            gone = waits.known.keys() - {sample.pid for sample in samples}
            for pid in gone:
                del waits.known[pid]
            waits.threads = sum(len(known.threads) for known in waits.known.values())
            waits.cpu_share = sum(still.cpu_share for known in waits.known.values() for still in known.threads.values())
            waits.changed_ns = now_ns
            self.schedule(waits)
        return waits

    def fold(self, waits: AgentWaits, known: Known | None, sample: ProcessSample, now_ns: int) -> bool:
        """One process: what each of its threads did since the last sample. Returns whether anything changed."""
        if known is None or known.sample.start_ns != sample.start_ns:
            threads = {thread.tid: Still(thread, began(thread, now_ns)) for thread in sample.threads}
            waits.known[sample.pid] = Known(sample, now_ns, threads)
            return True
        elapsed_ns = max(1, now_ns - known.at_ns)
        threads = known.threads
        for thread in sample.threads:
            still = threads.get(thread.tid)
            if still is None:
                threads[thread.tid] = Still(thread, began(thread, now_ns))
            else:
                go_on(still, thread, elapsed_ns, now_ns)
        if len(threads) != len(sample.threads):
            known.threads = {thread.tid: threads[thread.tid] for thread in sample.threads}
        known.calm = known.sample is sample
        known.sample, known.at_ns = sample, now_ns
        return True

    def schedule(self, waits: AgentWaits) -> None:
        """A look is due when a thread has been still for half of the patience in a wait that no look has judged; else by and by."""
        half_ns = self.patience_ns // 2
        judged_ns = waits.last_look_ns - half_ns if waits.last_look_ns is not None else -1
        fresh = [
            each.since_ns for known in waits.known.values() for each in known.threads.values() if each.since_ns > judged_ns
        ]
        waits.next_look_ns = min(waits.again_ns, min(fresh) + half_ns) if fresh else waits.again_ns

    def due(self, now_ns: int) -> list[AgentWaits]:
        """The agents whose time for a look has come, and with them those that rest and whose time comes soon.

        Much of a look is the same for all that are looked at together: without this they would come one by one after a while.
        """
        found = [waits for waits in self.agents.values() if waits.next_look_ns <= now_ns]
        if found:
            soon_ns = now_ns + int(self.patience_ns * SOON)
            found += [waits for waits in self.agents.values() if now_ns < waits.next_look_ns <= soon_ns and waits.rests]
        return found

    def looked(self, waits: AgentWaits, seen: Examination) -> tuple[str, ...]:
        """What a look found: what the agent waits for, and what is outstanding for half of the patience or longer, in words."""
        now_ns = seen.at_ns
        waits.last_look_ns, waits.profile_owed = now_ns, False
        all_waits, owed = waits_of(seen), obligations_of(seen)
        waits.wait = telling(all_waits, seen)
        for each in owed:
            waits.first_seen.setdefault((each.inode, each.kind), now_ns)
        current = {(each.inode, each.kind) for each in owed}
        waits.first_seen = {key: at for key, at in waits.first_seen.items() if key in current}
        reasons = outstanding(seen, all_waits, owed, self.patience_s / 2)
        if reasons:
            waits.again_ns = now_ns + self.patience_ns // 2
            self.schedule(waits)
        else:
            self.rest(waits, now_ns)
        return reasons

    def cleared(self, waits: AgentWaits, seen: Examination, suspect: str | None) -> None:
        """The causes found no hang in what was outstanding: `suspect` names what would be one if it went on; else it is let alone.

        Where there was no time to read everything, that there is no hang is not known yet.
        """
        waits.suspect = suspect
        if suspect in SEEN_BY_PROFILE:
            waits.profiled_ns, waits.profile_pause_s = None, 0.0  # so that the next look can see it again
        waits.hurried_looks = waits.hurried_looks + 1 if seen.hurried and suspect is None else 0
        if suspect is None and not 0 < waits.hurried_looks <= HURRIED_LOOKS:
            self.rest(waits, seen.at_ns)
        else:
            waits.clean_looks = 0
            waits.again_ns = seen.at_ns + self.patience_ns // 2
            self.schedule(waits)

    def serves_again(self, waits: AgentWaits, taken_ns: int, now_ns: int) -> bool:
        """Whether stacks of an agent that rests need not be taken again: for as long again as the rest had lasted when they were.

        A reading that went wrong must not stand for ever; the longer nothing happens, the less often it is worth another.
        """
        return now_ns - taken_ns < max(self.patience_ns, taken_ns - waits.changed_ns)

    def rest(self, waits: AgentWaits, now_ns: int) -> None:
        """Nothing is wrong with it: unless a thread comes to be still, the next look has time, the more the oftener that was so."""
        waits.suspect = None
        waits.clean_looks += 1
        quiet_s = (now_ns - waits.changed_ns) / 1e9
        pause_s = max(self.patience_s * min(waits.clean_looks, CLEAN_LOOKS), 2 * quiet_s)
        longest_s = self.patience_s / 2 if waits.profile_owed else max(self.patience_s, LOOK_AGAIN_S)
        waits.again_ns = now_ns + int(min(pause_s, longest_s) * 1e9)
        self.schedule(waits)

    def wants_profile(self, waits: AgentWaits, seen: Examination, *, possible: bool = True) -> bool:
        """Whether its system calls are traced for a few seconds now: it is awake, and what it does cannot be seen otherwise.

        Where that is not `possible` since another is under way, it is looked at again soon.
        """
        wanted = self.is_worth_profile(waits, seen)
        waits.profile_owed = wanted and not possible
        if wanted and possible:
            waits.profiled_ns = seen.at_ns
            waits.profile_pause_s = min(max(self.patience_s, 2 * waits.profile_pause_s), PROFILE_AGAIN_S)
        elif wanted:
            waits.again_ns = min(waits.again_ns, seen.at_ns + self.patience_ns // 2)
            self.schedule(waits)
        return wanted and possible

    def is_worth_profile(self, waits: AgentWaits, seen: Examination) -> bool:
        """Whether it is awake for no visible reason, and its last profile is long enough ago."""
        process = seen.processes[0] if seen.processes else None
        if process is None or (waits.wait is not None and waits.wait.kind in {"human", "stopped", "traced"}):
            return False
        awake = any((thread.switches_per_s or 0) >= 0.2 or (thread.busy_share or 0) >= BUSY for thread in process.threads)
        rested = waits.profiled_ns is None or seen.at_ns - waits.profiled_ns >= waits.profile_pause_s * 1e9
        return awake and rested and seen.at_ns - waits.watched_since_ns >= self.patience_ns // 2


def began(thread: ThreadSample, now_ns: int) -> int:
    """When the present wait of a thread began, as the kernel knows it."""
    return now_ns if thread.state == "R" or thread.last_ran_ns is None else min(now_ns, thread.last_ran_ns)


def go_on(still: Still, thread: ThreadSample, elapsed_ns: int, now_ns: int) -> None:
    """One thread, a sample later: whether it is in the same wait, or the same burst, as before."""
    old = still.sample
    if old is thread:
        still.cpu_share = still.busy_share = still.switches_per_s = still.wanted = 0.0
        return
    cpu = max(0, thread.user_ns + thread.system_ns - old.user_ns - old.system_ns) / elapsed_ns
    switches = thread.voluntary_switches + thread.involuntary_switches - old.voluntary_switches - old.involuntary_switches
    # what it waited for a CPU is counted only once it has got one, so two seconds are taken together
    wanted = cpu + max(0, thread.delayed_ns - old.delayed_ns) / elapsed_ns
    if never_slept(old, thread):
        wanted = max(wanted, 1.0)
    share = min(1.0, max(wanted, (wanted + still.wanted) / 2))
    busy = share >= BUSY and still.busy_share >= BUSY
    if share >= BUSY and not busy:
        still.since_ns = now_ns - elapsed_ns
    elif not busy and not same_wait(old, thread, cpu):
        still.since_ns = began(thread, now_ns)
    still.sample, still.cpu_share, still.busy_share, still.wanted = thread, cpu, share, wanted
    still.switches_per_s = switches * 1e9 / elapsed_ns


def went_on(seen: Examination, before: Iterable[ProcessSample], after: Iterable[ProcessSample]) -> bool:
    """Whether a thread that had waited for the whole patience at a look has left that wait since; samples of before it, and of now.

    Then the stacks, which are taken after the look, are of another moment: on a machine that had stood still (a virtual one whose
    host took its processors) a wait that is over is seen once more, and the answer to it already given.
    """
    known = {thread.tid: thread for sample in before for thread in sample.threads}
    now = {thread.tid: thread for sample in after for thread in sample.threads}
    long = [
        known[thread.tid]
        for process in seen.processes
        for thread in process.threads
        if thread.tid in known and thread.since_ns is not None and seen.at_ns - thread.since_ns >= seen.patience_s * 1e9
    ]
    return bool(now) and any(old.syscall is not None and (old.tid not in now or has_left(old, now[old.tid])) for old in long)


def never_slept(old: ThreadSample, thread: ThreadSample) -> bool:
    """Whether a thread ran or wanted to run all the time between two samples: only who goes to sleep switches voluntarily.

    Its times do not add up to that where another machine has the CPU meanwhile: what is stolen is neither used nor waited for
    (kernel/sched/core.c: `update_rq_clock_task` takes it off, `__schedule` counts nvcsw for a task that is not runnable any more).
    """
    return old.state == thread.state == "R" and old.voluntary_switches == thread.voluntary_switches


def telling(waits: Sequence[Wait], seen: Examination) -> Wait | None:
    """The wait that says most of what the agent is doing: its main thread's, unless another waits for something outside."""
    if not seen.processes:
        return None
    own = [wait for wait in waits if wait.pid == seen.processes[0].pid]
    main = next((wait for wait in own if wait.tid == wait.pid), own[0] if own else None)
    outside = [wait for wait in own if wait.kind in {"llm", "human", "tool", "peer"}]
    if main is not None and main.kind in {"lock", "timer", "events", "unknown"} and outside:
        return max(outside, key=lambda wait: wait.for_s or 0.0)
    return main


def outstanding(seen: Examination, waits: Sequence[Wait], owed: Sequence[Obligation], after_s: float) -> tuple[str, ...]:
    """Everything on which a clock has run for `after_s`, in words, what is outside first."""
    asked_alone = {inode for wait in waits if wait.kind in {"peer", "llm"} and len(wait.sockets) == 1 for inode in wait.sockets}
    found = [
        (each.for_s, each.says)
        for each in owed
        if (each.for_s or 0.0) >= after_s and (each.kind != "half-answered" or each.inode in asked_alone)
    ]
    for wait in waits:
        process = seen.process(wait.pid)
        if process is None or process.tracer is not None or (wait.for_s or 0.0) < after_s or waits_for_work(wait, seen):
            continue
        child = seen.process(wait.child) if wait.child is not None else None
        busy_child = child is not None and cpu_of(child) >= 0.05
        endless = wait.endless and wait.kind in {"lock", "pipe", "file-lock", "tool", "peer", "llm"} and not busy_child
        if endless or wait.kind in {"disk", "stopped"}:
            found.append((wait.for_s, f"{wait.says} (thread {wait.tid})"))
        elif wait.kind == "running" and busy(wait, seen):
            found.append((wait.for_s, f"on the CPU without a pause (thread {wait.tid})"))
    if seen.cgroup is not None and (seen.cgroup.frozen or (seen.cgroup.throttled_share or 0.0) >= 0.5):
        found.append((None, "its cgroup holds it back"))
    if seen.health is not None and seen.health.failing_since_ns is not None:
        found.append((None, seen.health.says))
    if seen.progress is not None and seen.progress.overdue:
        found.append((None, f"no progress ({seen.progress.signal}) within {seen.progress.within_s:g} s"))
    return tuple(says for _, says in sorted(found, key=lambda each: -(each[0] or 0.0)))


def waits_for_work(wait: Wait, seen: Examination) -> bool:
    """Whether it reads its standard input, a pipe that somebody outside of its tree has open for writing, as a tool server does."""
    thread = thread_of(wait, seen)
    if wait.kind != "pipe" or thread is None or thread.call is None or thread.call.descriptors != (0,):
        return False
    tree = {process.pid for process in seen.processes}
    pipes = [pipe for inode in wait.pipes if (pipe := seen.pipe(inode)) is not None]
    return any(end.pid not in tree for pipe in pipes for end in pipe.writers)


def thread_of(wait: Wait, seen: Examination) -> Thread | None:
    """The thread of a wait."""
    process = seen.process(wait.pid)
    return next((each for each in process.threads if each.tid == wait.tid), None) if process else None


def busy(wait: Wait, seen: Examination) -> bool:
    """Whether the thread of this wait uses a whole CPU."""
    thread = thread_of(wait, seen)
    return thread is not None and (thread.busy_share or 0.0) >= BUSY
