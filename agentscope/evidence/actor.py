"""Who ended it: the sender of the decisive signal, read in the kernel at signal_generate, never at signal_deliver.

The table of who sends what is measured in the research on signals (truth table): SI_KERNEL 128, kill(2) 0, tgkill -6; cgroup.kill
is code 0 without `group`; a parent-death signal comes from a parent that is exiting; a dying pid-namespace init kills with 128.
"""

from typing import Literal

from agentscope.evidence import Aftermath, Evidence, Missing, Scene
from agentscope.model import Actor, SignalSent, Value
from agentscope.symbols.signals import signal_name

ABSENT = "no signal ended it"

SI_KERNEL = 128  # include/uapi/asm-generic/siginfo.h
DELIVERED = frozenset({0, 2, 4})  # TRACE_SIGNAL_DELIVERED, ALREADY_PENDING (an earlier one counts), LOSE_INFO
SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGPIPE, SIGTERM, SIGXCPU = 1, 2, 3, 9, 13, 15, 24
ANSWERED_WITHIN_NS = 30_000_000_000  # a clean-up that takes longer than this is not an answer to the signal

# Programs that stop what they own because somebody asked them to. By the name of their executable, not by comm, which is forgeable.
SERVICE_MANAGERS = frozenset(
    {"systemd", "init", "dockerd", "containerd", "conmon", "podman", "crun", "runc", "supervisord", "s6-supervise", "s6-svscan",
     "runsv", "runsvdir", "monit", "circusd", "kubelet", "docker-init", "tini", "dumb-init", "openrc-run", "start-stop-daemon", "launchd"}
)  # fmt: skip
MANAGER_PREFIXES = ("containerd-shim", "PM2 v")
OOM_DAEMONS = frozenset({"earlyoom", "nohang", "oomd", "systemd-oomd", "bustd", "ohmd"})

Relation = Literal[
    "self", "kernel", "terminal", "ancestor", "family", "dying-parent", "namespace-init", "stranger", "unattributed"
]
SEEN_BY = frozenset({"core", "bcc"})  # the engines that see who sends signals
OUTSIDE: frozenset[Relation] = frozenset({"terminal", "ancestor", "family", "dying-parent", "namespace-init", "stranger"})


class EarlierSignal(Value, frozen=True):
    """A signal that came before the decisive one: its name, how long before the end, and from whom."""

    signal_name: str
    before_end_ns: int
    sender: str
    caught: bool


class SignalActor(Evidence, frozen=True, tag="actor"):
    """The decisive signal and its sender.

    `relation` is what the sender is to the victim. `cgroup_kill` says that a whole cgroup was killed at once. `manager` and
    `oom_daemon` name what the sender is known to be. `answered` is True where the process caught the signal and exited.
    """

    actor: Actor
    signal: int
    signal_name: str
    si_code: int | None
    relation: Relation
    cgroup_kill: bool = False
    manager: str | None = None
    oom_daemon: str | None = None
    answered: bool = False
    before_end_ns: int | None = None
    earlier: tuple[EarlierSignal, ...] = ()

    def says(self) -> str:
        """One sentence for a person."""
        return f"{self.signal_name} {self.actor.says}"

    @property
    def outside(self) -> bool:
        """Whether another process, or a key at its terminal, sent it."""
        return self.relation in OUTSIDE


def program_of(signal: SignalSent) -> str:
    """Name of the sender's program: from its executable where that was read, else its comm (15 bytes, forgeable)."""
    return signal.sender_exe.rsplit("/", 1)[-1] if signal.sender_exe else signal.sender_comm


def manager_of(program: str) -> str | None:
    """The service manager or container runtime that this program name stands for, or None."""
    return program if program in SERVICE_MANAGERS or program.startswith(MANAGER_PREFIXES) else None


def decisive(scene: Scene) -> SignalSent | None:
    """The signal that ended the process, or that it answered by exiting; None if it ended by itself."""
    end = scene.exit
    sent = [signal for signal in scene.signals if signal.result in DELIVERED and signal.at_ns <= end.at_ns]
    if end.signal is not None:
        same = [signal for signal in sent if signal.signal == end.signal]
        if not same:
            return None
        # the first SIGKILL wins, later ones change nothing; of other signals the last one found no handler
        return same[0] if end.signal == SIGKILL else same[-1]
    asked = [s for s in sent if s.signal in {SIGTERM, SIGINT, SIGHUP, SIGQUIT} and end.at_ns - s.at_ns <= ANSWERED_WITHIN_NS]
    return asked[-1] if asked and asked[-1].handler == "caught" else None


def relation_of(signal: SignalSent, scene: Scene) -> Relation:
    """What the sender is to the victim."""
    victim = scene.process
    if signal.sender_is_pidns_init and signal.sender_exiting and signal.sender_pid != victim.pid:
        return "namespace-init"
    if signal.code == SI_KERNEL:
        if signal.signal in {SIGINT, SIGQUIT, SIGHUP} and scene.victim is None:
            return "terminal"
        return "kernel"
    if signal.sender_pid == victim.pid:
        return "self"
    if signal.sender_exiting and signal.code == 0 and signal.sender_pid == victim.ppid:
        return "dying-parent"
    if signal.code > 0:
        return "self"
    if signal.sender_pid in scene.ancestors or signal.sender_pid == victim.ppid:
        return "ancestor"
    return "family" if signal.sender_pid in scene.family else "stranger"


def describe(signal: SignalSent, relation: Relation, scene: Scene) -> Actor:
    """The sender as a person would say it."""
    program = program_of(signal)
    if relation == "kernel":
        why = ""
        if scene.victim is not None:
            why = " (the OOM killer)"
        elif any(s.signal == SIGXCPU and s.code == SI_KERNEL for s in scene.signals):
            why = " (the CPU time limit, RLIMIT_CPU)"
        return Actor(kind="kernel", says=f"from the kernel{why}")
    if relation == "terminal":
        return Actor(kind="terminal", says="from the terminal (a key, or its hang-up)")
    if relation == "self":
        return Actor(
            kind="self", says="from the process itself", pid=signal.sender_pid, comm=signal.sender_comm, uid=signal.sender_uid
        )
    chain = " ← ".join(f"{a.comm} {a.pid}" for a in signal.sender_ancestors[:3])
    extra = {
        "dying-parent": ", its parent, which was ending (parent-death signal)",
        "namespace-init": ", the init of its pid namespace, which was ending",
        "ancestor": ", above it in the process tree",
        "family": ", of the same agent",
    }.get(relation, "")
    at_terminal = " at a terminal" if signal.sender_tty and relation == "stranger" else ""
    return Actor(
        kind="process",
        says=f"from {program} (pid {signal.sender_pid}, uid {signal.sender_uid}){at_terminal}{extra}{f', started by {chain}' if chain else ''}",
        pid=signal.sender_pid,
        comm=signal.sender_comm,
        exe=signal.sender_exe,
        uid=signal.sender_uid,
        cgroup=signal.sender_cgroup,
        ancestors=signal.sender_ancestors,
    )  # fmt: skip


def earlier_than(signal: SignalSent | None, scene: Scene) -> tuple[EarlierSignal, ...]:
    """The last few signals that came before the decisive one."""
    before = [s for s in scene.signals if s is not signal and (signal is None or s.at_ns <= signal.at_ns)]
    return tuple(
        EarlierSignal(
            signal_name=signal_name(s.signal),
            before_end_ns=scene.exit.at_ns - s.at_ns,
            sender=describe(s, relation_of(s, scene), scene).says,
            caught=s.handler == "caught",
        )
        for s in before[-5:]
    )


def from_records(scene: Scene, past: Aftermath) -> SignalActor | Missing | None:
    """The sender that a log names, where nobody watched; what no log names stays unknown."""
    end, sent = scene.exit, past.sent
    if sent is None:
        return (
            None
            if end.signal is None
            else Missing(kind="actor", because="nobody watched who sent it, and no log names a sender")
        )
    kind: Literal["self", "process"] = "self" if sent.itself else "process"
    return SignalActor(
        source=sent.source,
        actor=Actor(kind=kind, says=sent.says, comm=sent.program, exe=None if sent.itself else sent.program),
        signal=sent.signal,
        signal_name=signal_name(sent.signal),
        si_code=None,
        relation="self" if sent.itself else "stranger",
        manager=manager_of(sent.program),
        oom_daemon=sent.program if sent.program in OOM_DAEMONS else None,
        answered=end.signal is None,
        before_end_ns=max(0, end.at_ns - sent.at_ns),
    )


def collect(scene: Scene) -> SignalActor | Missing | None:
    """From signal:signal_generate, joined with the end; of the past, from whoever wrote down that it sent a signal."""
    end = scene.exit
    if scene.past is not None:
        return from_records(scene, scene.past)
    signal = decisive(scene)
    if signal is None:
        if end.signal is None and (not end.status or scene.engine in SEEN_BY):
            return None
        if scene.engine not in SEEN_BY or end.signal is None:
            return Missing(kind="actor", because="who sends signals is seen by BPF only, which is not attached here")
        return SignalActor(
            source="tracepoint signal:signal_generate",
            actor=Actor(kind="unattributed", says="from nobody that was seen sending it"),
            signal=end.signal,
            signal_name=signal_name(end.signal),
            si_code=None,
            relation="unattributed",
            earlier=earlier_than(None, scene),
        )
    relation = relation_of(signal, scene)
    # of a signal that the kernel made, the "sender" is only whoever ran at that moment
    program = program_of(signal) if relation in OUTSIDE and relation != "terminal" else ""
    return SignalActor(
        source="tracepoint signal:signal_generate",
        actor=describe(signal, relation, scene),
        signal=signal.signal,
        signal_name=signal_name(signal.signal),
        si_code=signal.code,
        relation=relation,
        cgroup_kill=signal.signal == SIGKILL
        and signal.code == 0
        and not signal.group
        and relation not in {"self", "dying-parent"},
        manager=manager_of(program),
        oom_daemon=program if program in OOM_DAEMONS else None,
        answered=end.signal is None,
        before_end_ns=end.at_ns - signal.at_ns,
        earlier=earlier_than(signal, scene),
    )
