"""Step 3: Events -> the tree of each agent -> the ends that may be incidents. A pure fold: the same live and on a recording.

It decides which end is told: the innermost process's, once. Whether an end was wanted is decided by `stopped_on_purpose`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from agentscope.agents import inner_name, role_of, same_identity
from agentscope.commandlines import SHELLS, program_name
from agentscope.evidence import HangScene
from agentscope.evidence.actor import SEEN_BY, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGTERM, SignalActor
from agentscope.examination.waiting import Wait, waits_of
from agentscope.model import (
    Agent,
    AgentSeen,
    AnyEvent,
    Diagnosis,
    Fault,
    OomVictim,
    Process,
    ProcessExec,
    ProcessExit,
    ProcessFork,
    Scope,
    SignalSent,
    TimelineEntry,
    Value,
)
from agentscope.symbols.signals import signal_name

HELD_NS = 1_000_000_000  # how long a wrapper that starts nothing else may take to mirror its child's exit code
MIRROR_NS = 2_000_000_000  # how long after a told death a wrapper's own end is still its mirror
FAULTS_KEPT = 16
SIGNALS_KEPT = 32
RECENT_KEPT = 256
THREADS_TOLD = 8


class Ended(Value, frozen=True):
    """The end of one process of an agent, with everything the kernel said about that process before.

    `is_root`: the agent itself is over with it. `mirrors`: pid of the child whose end this wrapper only repeats.
    `step`: an inner command of a script that went on, so never the agent's own end.
    """

    agent: Agent
    process: Process
    scope: Scope
    exit: ProcessExit
    signals: tuple[SignalSent, ...] = ()
    faults: tuple[Fault, ...] = ()
    victim: OomVictim | None = None
    family: tuple[int, ...] = ()
    ancestors: tuple[int, ...] = ()
    is_root: bool = False
    mirrors: int | None = None
    step: bool = False


@dataclass
class Member:
    """A living process of a tree, and what was observed of it."""

    process: Process
    tree: "Tree"
    parent: "Member | None"
    on_agent_line: bool
    execed: bool = True
    signals: deque[SignalSent] = field(default_factory=lambda: deque(maxlen=SIGNALS_KEPT))
    faults: list[Fault] = field(default_factory=list)
    victim: OomVictim | None = None
    child_ended: ProcessExit | None = None  # the last child that ended otherwise than by exit 0


@dataclass(slots=True)
class Tree:
    """An agent: its root, living members, and the pids of those that ended lately."""

    agent: Agent
    root: Member | None = None
    live: dict[int, Member] = field(default_factory=dict)
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    outer: tuple[int, ...] = ()
    key: tuple[int, int] = field(init=False)  # pid and start of the agent

    def __post_init__(self) -> None:
        self.key = (self.agent.pid, self.agent.start_ns)

    def family(self) -> tuple[int, ...]:
        """Pids of the tree, root first."""
        return (self.agent.pid, *(pid for pid in self.live if pid != self.agent.pid), *self.recent)


def depth_of(member: Member) -> int:
    """How many processes of the agent stand above this one."""
    depth, step = 0, member.parent
    while step is not None:
        depth, step = depth + 1, step.parent
    return depth


class Incidents:
    """The fold. `apply` takes events in kernel order and returns the ends that it completes."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.trees: list[Tree] = []
        self.held: dict[int, Ended] = {}  # by the wrapper's pid

    def apply(self, event: AnyEvent) -> Iterable[Ended]:
        """Fold one event; every end it completes, innermost first."""
        if isinstance(event, ProcessExit):
            return self.exited(event)
        if isinstance(event, ProcessFork):
            self.forked(event)
            return self.went_on(event.ppid, event.at_ns)
        if isinstance(event, ProcessExec):
            self.execed(event)
            return self.went_on(event.pid, event.at_ns)
        if isinstance(event, AgentSeen):
            self.seen(event)
        elif isinstance(event, SignalSent | Fault | OomVictim):
            member = self.member(event.pid, event.start_ns)
            if member is not None:
                self.observed(member, event)
        return ()

    def member(self, pid: int, start_ns: int) -> Member | None:
        """The member of this identity, never of a pid that was used again."""
        member = self.members.get(pid)
        return member if member is not None and same_identity(member.process.start_ns, start_ns) else None

    def seen(self, event: AgentSeen) -> None:
        """A new agent: its root, until the exec event that follows tells more."""
        agent = event.agent
        process = Process(pid=agent.pid, start_ns=agent.start_ns, argv=(), exe=agent.exe, uid=agent.uid, cgroup=agent.cgroup)
        tree = Tree(agent)
        tree.root = self.join(process, tree, None)
        self.trees.append(tree)

    def join(self, process: Process, tree: Tree, parent: Member | None, *, execed: bool = True) -> Member:
        """Put a process into a tree."""
        role, on_line = role_of(process.argv, parent.process.role if parent else None, parent.on_agent_line if parent else True)
        member = Member(msgspec.structs.replace(process, role=role), tree, parent, on_line, execed)
        self.members[process.pid] = tree.live[process.pid] = member
        return member

    def forked(self, event: ProcessFork) -> None:
        """A child starts as a copy of its parent."""
        parent = self.members.get(event.ppid)
        if parent is not None:
            copy = msgspec.structs.replace(
                parent.process, pid=event.pid, start_ns=event.start_ns, ppid=event.ppid, comm=event.comm
            )
            self.join(copy, parent.tree, parent, execed=False)

    def execed(self, event: ProcessExec) -> None:
        """A process becomes another program, and so perhaps another role."""
        member = self.member(event.pid, event.start_ns)
        parent = member.parent if member else self.members.get(event.ppid)
        if member is None and parent is None:
            return
        process = Process(
            pid=event.pid,
            start_ns=event.start_ns,
            ppid=event.ppid,
            comm=event.comm,
            argv=event.argv,
            exe=event.exe,
            uid=event.uid,
            cgroup=event.cgroup,
        )
        if member is None:
            assert parent is not None
            self.join(process, parent.tree, parent)
            return
        role, member.on_agent_line = role_of(
            event.argv, parent.process.role if parent else None, parent.on_agent_line if parent else True
        )
        member.process = msgspec.structs.replace(process, role=role)
        member.execed = True
        if member.tree.root is member:
            member.tree.outer = tuple(ancestor.pid for ancestor in event.ancestors) or member.tree.outer
            if not member.tree.agent.command:
                member.tree.agent = msgspec.structs.replace(
                    member.tree.agent, name=inner_name(event.argv, event.comm), command=" ".join(event.argv)
                )

    @staticmethod
    def observed(member: Member, event: SignalSent | Fault | OomVictim) -> None:
        """Keep what was seen of a process, bounded: the first faults tell most, then the last."""
        if isinstance(event, SignalSent):
            member.signals.append(event)
        elif isinstance(event, OomVictim):
            member.victim = event
        else:
            if len(member.faults) >= FAULTS_KEPT:
                del member.faults[FAULTS_KEPT // 2]
            member.faults.append(event)

    def exited(self, event: ProcessExit) -> list[Ended]:
        """A process ended: told at once, held for its wrapper, or not at all."""
        member = self.member(event.pid, event.start_ns)
        if member is None:
            return []
        del self.members[event.pid]
        tree = member.tree
        tree.live.pop(event.pid, None)
        tree.recent.append(event.pid)
        if not tree.live:
            self.trees.remove(tree)
        told: list[Ended] = []
        held = self.held.pop(event.pid, None)
        if held is not None:
            told.append(held)
        if member.parent is not None and event.status != 0:
            member.parent.child_ended = event
        is_root = tree.root is member
        if is_root and event.status == 0 and self.promoted(tree, member):
            return told
        if event.status == 0 and not is_root:
            return told
        ended = self.ended(member, event, is_root=is_root)
        if self.waits_for_wrapper(member, event):
            assert member.parent is not None
            self.held[member.parent.process.pid] = ended
            return told
        return [*told, ended]

    def waits_for_wrapper(self, member: Member, event: ProcessExit) -> bool:
        """An exit code below a wrapper may be one step of a script: the wrapper's own end tells which."""
        parent = member.parent
        return (
            event.signal is None
            and event.status != 0
            and member.on_agent_line
            and parent is not None
            and parent.process.role == "wrapper"
            and self.members.get(parent.process.pid) is parent
        )

    def ended(self, member: Member, event: ProcessExit, *, is_root: bool) -> Ended:
        """Gather what is known of this end."""
        above: list[int] = []
        step = member.parent
        while step is not None:
            above.append(step.process.pid)
            step = step.parent
        return Ended(
            agent=member.tree.agent,
            process=member.process,
            scope="agent" if member.on_agent_line else "tool",
            exit=event,
            signals=tuple(member.signals),
            faults=tuple(member.faults),
            victim=member.victim,
            family=member.tree.family(),
            ancestors=(*above, *member.tree.outer),
            is_root=is_root,
            mirrors=self.mirrored(member, event),
        )

    @staticmethod
    def mirrored(member: Member, event: ProcessExit) -> int | None:
        """The child whose end this one only repeats, if it does: a wrapper or shell ending like its child, or by it."""
        child = member.child_ended
        if child is None or event.at_ns - child.at_ns > MIRROR_NS or event.status == 0:
            return None
        same = event.status & 0xFF7F == child.status & 0xFF7F
        shell = child.signal is not None and event.code == 128 + child.signal
        wrapper = member.process.role == "wrapper" and event.signal in {None, child.signal}
        is_shell = program_name(member.process.argv[:1], member.process.comm) in SHELLS
        return child.pid if wrapper or ((same or shell) and is_shell) else None

    def promoted(self, tree: Tree, root: Member) -> bool:
        """A daemon's first process exits 0 and leaves its forked copy: the copy is the agent from now on."""
        heir = next((m for m in tree.live.values() if m.parent is root and not m.execed and not m.on_agent_line), None)
        if heir is None or root.process.role != "agent":
            return False
        heir.parent, heir.on_agent_line = None, True
        heir.process = msgspec.structs.replace(heir.process, role="agent")
        tree.root = heir
        tree.agent = msgspec.structs.replace(tree.agent, pid=heir.process.pid, start_ns=heir.process.start_ns)
        return True

    def overdue(self, now_ns: int) -> list[Ended]:
        """Held ends whose wrapper has not ended in time: it went on."""
        return self.steps_of([pid for pid, ended in self.held.items() if now_ns - ended.exit.at_ns > HELD_NS])

    def went_on(self, wrapper_pid: int, at_ns: int) -> list[Ended]:
        """A process started something: if it is a wrapper whose child has ended, that was a step."""
        held = self.held.get(wrapper_pid)
        return self.steps_of([wrapper_pid]) if held is not None and at_ns > held.exit.at_ns else []

    def steps_of(self, wrappers: Iterable[int]) -> list[Ended]:
        """Held ends below wrappers that went on: steps of a script, not the agent's end."""
        steps = []
        for wrapper_pid in wrappers:
            ended = self.held.pop(wrapper_pid, None)
            if ended is None:
                continue
            wrapper = self.members.get(wrapper_pid)
            if wrapper is not None and wrapper.child_ended is ended.exit:
                wrapper.child_ended = None  # the script went on: its own end is its own
            steps.append(msgspec.structs.replace(ended, scope="tool", step=True))
        return steps


def stopped_on_purpose(ended: Ended, actor: SignalActor | None) -> str | None:
    """Why this end is no incident, as a sentence; None if it may be one (DESIGN.md section 3, "No incident")."""
    end = ended.exit
    if end.unseen is not None:
        return f"ended; whether it was an incident is not known: {end.unseen}"
    if end.status == 0:
        return "exited with status 0"
    if ended.mirrors is not None:
        return "a wrapper that repeated the end of what it had started"
    if actor is None:
        # who sends it is not seen by every engine, but who sends SIGPIPE is the writer itself, in all but games
        unread = ended.scope == "tool" and end.signal == SIGPIPE and end.engine not in SEEN_BY
        return "a tool whose reader had ended" if unread else None
    number, relation = actor.signal, actor.relation
    interrupted = any(
        s.signal == SIGINT and (s.code == 128 or s.sender_tty or s.sender_pid in ended.ancestors) for s in ended.signals
    )
    if interrupted and (number == SIGINT or end.code == 128 + SIGINT):
        return "interrupted from its terminal (Ctrl-C)"
    if actor.answered and number in {SIGTERM, SIGINT, SIGHUP, SIGQUIT} and end.code in {0, 128 + number}:
        return f"answered {signal_name(number)} {actor.actor.says} by a clean exit"
    if number in {SIGTERM, SIGKILL, SIGINT, SIGHUP, SIGQUIT} and actor.oom_daemon is None and owned_by_manager(ended, actor):
        return f"stopped by {actor.manager or 'its service manager'} (pid {actor.actor.pid})"
    if ended.scope == "tool":
        if relation in {"ancestor", "family"} and actor.actor.pid in ended.family:
            return "a tool that its own agent ended"
        if relation == "dying-parent" or (number == SIGPIPE and relation == "self"):
            return "a tool whose reader or parent had ended"
    return None


def owned_by_manager(ended: Ended, actor: SignalActor) -> bool:
    """Whether the sender is the service manager or container runtime above this agent, or works for it."""
    sender = actor.actor.pid
    if actor.manager is None or sender is None:
        return False
    above = set(ended.ancestors) - set(ended.family)
    return sender == 1 or sender in above or any(a.pid in above and a.pid != 1 for a in actor.actor.ancestors)


def worth_telling(ended: Ended, diagnosis: Diagnosis) -> bool:
    """A tool that exits non-zero and says nothing did its job: grep found nothing, a test failed. The agent hears of it."""
    if ended.scope == "agent" or ended.exit.signal is not None:
        return True
    return bool(diagnosis.findings) and diagnosis.findings[0].cause != "exit/status"


def timeline_of(ended: Ended) -> tuple[TimelineEntry, ...]:
    """What was observed of this process, oldest first, relative to its end."""
    end = ended.exit
    started = f"{ended.process.comm or 'process'} (pid {ended.process.pid}) started"
    entries = [(end.start_ns, started)] if end.start_ns else []  # of an end that nobody watched it may not be known
    entries += [
        (s.at_ns, f"{signal_name(s.signal)} generated by {s.sender_comm} (pid {s.sender_pid}), {s.handler}")
        for s in ended.signals
    ]
    entries += [(f.at_ns, f"{signal_name(f.signal)} delivered to thread {f.tid}, {f.handler}") for f in ended.faults]
    if ended.victim is not None:
        entries.append((ended.victim.at_ns, f"chosen by the OOM killer; {ended.victim.trigger_comm} was allocating"))
    entries.append((end.at_ns, f"ended: {signal_name(end.signal) if end.signal else f'exit status {end.code}'}"))
    return tuple(TimelineEntry(offset_ns=at_ns - end.at_ns, says=says) for at_ns, says in sorted(entries))


def hang_timeline_of(scene: HangScene) -> tuple[TimelineEntry, ...]:
    """What is known of a hang's course, oldest first, relative to the look that showed it."""
    seen = scene.examination
    entries = [(scene.process.start_ns, f"{scene.process.comm or 'process'} (pid {scene.process.pid}) started")]
    if seen.watched_since_ns is not None:
        entries.append((seen.watched_since_ns, "watched from here on"))
    entries += [
        (s.at_ns, f"{signal_name(s.signal)} generated by {s.sender_comm} (pid {s.sender_pid}), {s.handler}")
        for s in scene.signals
    ]
    waits = [wait for wait in waits_of(seen) if wait.for_s is not None and wait.kind != "running"]
    # what may hang stands before what sleeps, and what began first before what followed
    waits.sort(key=lambda wait: (wait.kind == "timer", -(wait.for_s or 0.0)))
    entries += [(seen.at_ns - int((wait.for_s or 0.0) * 1e9), began(wait)) for wait in waits[:THREADS_TOLD]]
    entries.append((seen.at_ns, "found like this"))
    return tuple(TimelineEntry(offset_ns=at_ns - seen.at_ns, says=says) for at_ns, says in sorted(entries))


def began(wait: Wait) -> str:
    """The beginning of a wait, in words."""
    verb = "fell to" if wait.kind == "timer" else "began to wait for"
    return f"thread {wait.tid} of pid {wait.pid} {verb} {wait.says}"
