"""The nouns of agentscope as frozen values (the words of DESIGN.md section 1).

An *agent* is a watched process and its descendants; our own side is always "agentscope". Absent is `None`, never 0.
Units are in the names; every `at_ns` and `start_ns` is nanoseconds of CLOCK_BOOTTIME, so it survives suspend and can be
compared with `/proc/PID/stat` field 22. Everything here can cross a stage, so everything here can be one line of the record.
"""

from typing import Literal

import msgspec

from agentscope.machines import program_counter, stack_pointer

Role = Literal["agent", "tool", "wrapper"]
Scope = Literal["agent", "tool"]
Confidence = Literal["certain", "likely", "possible"]
Weight = Literal["decisive", "supporting", "context"]
StreamKind = Literal["file", "pty", "pipe", "socket", "null", "other", "closed"]
PressureKind = Literal["memory", "descriptors", "threads", "disk"]
EngineName = Literal["core", "bcc", "netlink", "none", "recording"]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen value with named fields only."""


# --- processes ----------------------------------------------------------------------------------------------------------


class Ancestor(Value, frozen=True):
    """One step up a parent chain, as the kernel saw it at that moment."""

    pid: int
    comm: str


class Process(Value, frozen=True):
    """One process: `pid` (its tgid in the initial pid namespace) and `start_ns` together are its identity within a boot."""

    pid: int
    start_ns: int
    ppid: int | None = None
    comm: str = ""
    argv: tuple[str, ...] = ()
    exe: str | None = None
    uid: int | None = None
    cgroup: str | None = None
    role: Role = "agent"


class Agent(Value, frozen=True):
    """A watched process with its descendants, as the stream names it."""

    name: str
    pid: int
    start_ns: int
    start_time: str
    command: str
    exe: str | None = None
    uid: int | None = None
    cgroup: str | None = None
    unit: str | None = None
    container: str | None = None


# --- events: one thing that was observed, with a time; never edited -------------------------------------------------------


class Event(Value, frozen=True, tag_field="event"):
    """Base of all events. `at_ns` is when it happened; the tag is the last part of the stream's type name."""

    at_ns: int


class Ready(Event, frozen=True, tag="agentscope.ready"):
    """The source is attached: from now on nothing is missed. `wall_ns` is the wall clock (ns since 1970) at `at_ns`."""

    version: str
    engine: EngineName
    kernel: str
    boot_id: str
    wall_ns: int
    targets: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


class AgentSeen(Event, frozen=True, tag="agentscope.agent.seen"):
    """An agent is watched from now on; `because` says which target or signature picked it."""

    agent: Agent
    because: str


class AgentGone(Event, frozen=True, tag="agentscope.agent.gone"):
    """An agent's root process ended. `incident` is set where that was an incident; else `by` and `says` tell why it was not."""

    agent: Agent
    says: str
    by: str | None = None
    incident: str | None = None


class ProcessFork(Event, frozen=True, tag="agentscope.process.fork"):
    """A process of an agent started a child (not a thread)."""

    pid: int
    start_ns: int
    ppid: int
    comm: str


class ProcessExec(Event, frozen=True, tag="agentscope.process.exec"):
    """A process became another program. `argv` is cut at 512 bytes in the probe.

    `stderr` says where file descriptor 2 pointed, `stderr_path` where that is a regular file.
    """

    pid: int
    start_ns: int
    ppid: int
    comm: str
    argv: tuple[str, ...]
    exe: str | None
    uid: int
    cgroup: str | None = None
    stderr: StreamKind | None = None
    stderr_path: str | None = None
    ancestors: tuple[Ancestor, ...] = ()


class Mapping(Value, frozen=True):
    """One executable, file-backed mapping: [start, end) shows the file from byte `offset`."""

    start: int
    end: int
    offset: int
    inode: int
    device: int
    path: str


class LastSyscall(Value, frozen=True):
    """The system call that a thread was in when it ended: number of this architecture and six arguments."""

    number: int
    args: tuple[int, ...]


class ProcessExit(Event, frozen=True, tag="agentscope.process.exit"):
    """A whole process ended (its last thread): `status` is the raw wait status that waitpid(2) would report.

    `mappings` are the executable mappings at the end (None: not had on this kernel, see research on kernels before 6.16).
    `stderr` tells where file descriptor 2 pointed at the end, `stderr_path` where that is a regular file.
    `fatal_tid` is the thread that took the signal which dumped core, where that was told. `unseen` says why nobody knows how it
    ended; `status` is 0 then and means nothing.
    """

    pid: int
    start_ns: int
    ppid: int
    comm: str
    status: int
    uid: int
    cgroup: str | None = None
    max_rss_bytes: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    last_syscall: LastSyscall | None = None
    mappings: tuple[Mapping, ...] | None = None
    stderr: StreamKind | None = None
    stderr_path: str | None = None
    fatal_tid: int | None = None
    unseen: str | None = None
    engine: EngineName = "core"

    @property
    def code(self) -> int | None:
        """Exit code, or None where a signal ended it."""
        return None if self.status & 0x7F else (self.status >> 8) & 0xFF

    @property
    def signal(self) -> int | None:
        """Signal that ended it, or None where it exited."""
        return self.status & 0x7F or None

    @property
    def core_dumped(self) -> bool:
        """Whether the kernel wrote a core dump."""
        return bool(self.status & 0x80)


class SignalSent(Event, frozen=True, tag="agentscope.signal.sent"):
    """A signal was generated for a process of an agent (tracepoint signal:signal_generate).

    `code` is si_code (0 kill(2), 128 kernel, -6 tgkill, -1 sigqueue, 1.. faults); `group` tells a process-directed signal;
    `result` is 0 delivered, 1 ignored, 2 already pending, 3 overflow failure, 4 lost info (include/trace/events/signal.h).
    `handler` is "default", "ignore" or "caught" as the target had it set. The sender is the task in whose context it was
    generated: for kernel-made signals that task is a bystander or the target itself.
    """

    signal: int
    code: int
    group: bool
    result: int
    pid: int
    tid: int
    start_ns: int
    comm: str
    handler: Literal["default", "ignore", "caught"]
    sender_pid: int
    sender_tid: int
    sender_start_ns: int
    sender_comm: str
    sender_uid: int
    sender_exe: str | None = None
    sender_cgroup: str | None = None
    sender_ancestors: tuple[Ancestor, ...] = ()
    sender_exiting: bool = False
    sender_is_pidns_init: bool = False
    sender_tty: bool = False


class PythonFrame(Value, frozen=True):
    """One Python frame, innermost first in every tuple of them. `line` is None where the line table could not be read."""

    function: str
    file: str
    first_line: int
    line: int | None = None


class Fault(Event, frozen=True, tag="agentscope.fault"):
    """A thread is about to take a signal that ends a program by its own doing (SEGV, BUS, FPE, ILL, TRAP, SYS, ABRT).

    Taken in the probe at signal_deliver. `registers` are by DWARF number (`machines`): of x86-64 0..16, of aarch64 0..32.
    `stack` is raw user memory from the stack pointer up (at most 16 KiB); it never reaches the stream or the disk. `module` is the mapping
    that holds `ip`. `handler` "caught" means that the program may survive.
    """

    signal: int
    code: int
    address: int | None
    pid: int
    tid: int
    start_ns: int
    comm: str
    handler: Literal["default", "ignore", "caught"]
    registers: dict[int, int]
    stack: bytes | None = None
    module: Mapping | None = None
    python_frames: tuple[PythonFrame, ...] | None = None
    sys_number: int | None = None

    @property
    def ip(self) -> int:
        """Instruction pointer."""
        return program_counter(self.registers) or 0

    @property
    def sp(self) -> int:
        """Stack pointer."""
        return stack_pointer(self.registers) or 0


class OomVictim(Event, frozen=True, tag="agentscope.oom.victim"):
    """The kernel's OOM killer chose a process (tracepoint oom:mark_victim). The trigger is the task that was allocating."""

    pid: int
    start_ns: int
    comm: str
    uid: int
    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    total_vm_bytes: int | None
    pgtables_bytes: int | None
    oom_score_adj: int | None
    cgroup: str | None
    trigger_pid: int
    trigger_comm: str
    trigger_cgroup: str | None = None


class KernelLine(Event, frozen=True, tag="agentscope.kernel.line"):
    """One record of /dev/kmsg: `seq` is its sequence number, `priority` the syslog level 0..7. Never on the public stream."""

    seq: int
    priority: int
    text: str


class ThreadSample(Value, frozen=True, gc=False):
    """One thread at one moment. `state` is the letter of /proc/PID/stat.

    `last_ran_ns` is when it last got a CPU (CLOCK_BOOTTIME; time in which the machine was suspended is not counted as waiting);
    None while it runs or wants to. `read_bytes` and `written_bytes` went through read(2), write(2) and their kin, which recv(2)
    and send(2) are not. `delayed_ns` is how long it was ready to run and had no CPU. `ip` is its instruction pointer in user space, None while it runs.
    """

    tid: int
    comm: str
    state: str
    syscall: LastSyscall | None = None
    user_ns: int = 0
    system_ns: int = 0
    delayed_ns: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    last_ran_ns: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    ip: int | None = None


class ProcessSample(Value, frozen=True):
    """One process at one moment; rss is of the whole address space."""

    pid: int
    start_ns: int
    anon_bytes: int | None
    rss_bytes: int | None
    threads: tuple[ThreadSample, ...]


class Pulse(Event, frozen=True, tag="agentscope.pulse"):
    """Once a second, one agent: its processes, what they use, and the memory of its cgroup against the limit that binds.

    `wrote_ns` is when one of them last wrote to descriptors 1 or 2; None where nobody sees that.
    """

    agent_pid: int
    agent_start_ns: int
    state: str
    rss_bytes: int | None
    cpu_percent: float | None
    threads: int
    processes: tuple[ProcessSample, ...] = ()
    cgroup_bytes: int | None = None
    limit_bytes: int | None = None
    limit_path: str | None = None
    wrote_ns: int | None = None


class WaitChanged(Event, frozen=True, tag="agentscope.wait.changed"):
    """An agent waits for something else than before: `state` in words, with its object; `suspect` where something is outstanding."""

    agent_pid: int
    agent_start_ns: int
    state: str
    suspect: bool = False


class Health(Event, frozen=True, tag="agentscope.health"):
    """A health check of the config was made of an agent: told when its outcome changes and at each failure.

    `probe` is what was asked, `failures` how often in a row it failed, `says` what came of it. `answered` tells whether the agent
    answered at all, though perhaps not as it should; None where that cannot be told (a command that failed).
    """

    agent_pid: int
    agent_start_ns: int
    probe: str
    ok: bool
    failures: int
    says: str
    took_ms: float
    answered: bool | None = None


class Pressure(Event, frozen=True, tag="agentscope.pressure"):
    """An agent comes near a limit, told before it dies of it: once a crossing, and again where the time left gets a good deal shorter.

    `used` and `limit` are bytes of `memory` (page cache is not counted) and `disk` (inodes, where `says` tells so), else how many
    descriptors of the process or threads of the cgroup there are; `share` is used of limit. `seconds_to_limit` is how long until the limit is reached at
    the slope of now, between `seconds_at_least` and `seconds_at_most`; None where it does not grow, or that could not be told.
    `eased`: it is well below again, so the warning is over. `limit_path` says whose limit it is: a cgroup, a folder, a process.
    """

    agent_pid: int
    agent_start_ns: int
    kind: PressureKind
    used: int
    limit: int
    share: float
    says: str
    slope_bytes_per_s: float | None = None
    seconds_to_limit: float | None = None
    seconds_at_least: float | None = None
    seconds_at_most: float | None = None
    limit_path: str | None = None
    eased: bool = False


class Lost(Event, frozen=True, tag="agentscope.lost"):
    """Something was not seen or not delivered: how many, by whom."""

    source: str
    count: int
    says: str = ""


# --- what text says -----------------------------------------------------------------------------------------------------


class Reading(Value, frozen=True):
    """What one passage of a log or of last words says, as read by one reader of `agentscope/readers/`.

    `suggests` is the slug of the cause that these words name ("exception/uncaught", "oom/cgroup"), or None where they end
    nothing (a handled or harmless text). Text alone never proves a cause of a live incident. `facts` uses the fact names of
    the corpus (pid, comm, exception_type, message, file, line, function, total_vm_kb ...); `says` is one sentence.
    """

    reader: str
    suggests: str | None
    says: str
    culprit: str | None = None
    pid: int | None = None
    facts: dict[str, object] = {}
    excerpt: str = ""


# --- incidents and diagnoses ------------------------------------------------------------------------------------------


class EvidenceRecord(Value, frozen=True):
    """Evidence as the stream carries it: `says` is one sentence for a person, `data` all its fields."""

    kind: str
    source: str
    says: str
    weight: Weight
    data: dict[str, object]


class RuledOut(Value, frozen=True):
    """A cause that was considered and does not fit, with the reason."""

    cause: str
    because: str


class MissingEvidence(Value, frozen=True):
    """A kind of evidence that could not be had, with the reason."""

    kind: str
    because: str


class Finding(Value, frozen=True):
    """A cause that matched. `cites` names the kinds of evidence it rests on; `cause` is filled in by the classifier."""

    headline: str
    culprit: str
    confidence: Confidence
    cites: tuple[str, ...]
    advice: tuple[str, ...] = ()
    cause: str = ""


class Diagnosis(Value, frozen=True):
    """What the classifier made of the evidence: findings best first, what was ruled out, what could not be checked."""

    findings: tuple[Finding, ...]
    ruled_out: tuple[RuledOut, ...]
    not_checked: tuple[RuledOut, ...]


class ExitRecord(Value, frozen=True):
    """How the process ended, as the stream carries it: one of `code` and `signal` is None; `signal` is a name, "SIGKILL"."""

    code: int | None
    signal: str | None
    core_dumped: bool


class Actor(Value, frozen=True):
    """Who sent the decisive signal. `kind` "kernel" has no pid; "unattributed" means that nobody was seen sending it."""

    kind: Literal["process", "kernel", "self", "terminal", "unattributed"]
    says: str
    pid: int | None = None
    comm: str | None = None
    exe: str | None = None
    uid: int | None = None
    cgroup: str | None = None
    ancestors: tuple[Ancestor, ...] = ()


class TimelineEntry(Value, frozen=True):
    """One line of an incident's history: nanoseconds before (negative) or after the end, and what happened."""

    offset_ns: int
    says: str


class IncidentOpened(Event, frozen=True, tag="agentscope.incident.opened"):
    """One unplanned end of one agent or tool, diagnosed: the public contract of DESIGN.md section 3.

    `cause` is the slug `class/name` that `explain` takes, `subtype` its name again. Where nothing explains the end, `cause` is
    "undetermined" and `subtype` empty. `reconstructed`: nobody watched it end; it was put together afterwards from what was left.
    """

    incident: str
    agent: Agent
    process: Process
    scope: Scope
    cause: str
    subtype: str
    confidence: Confidence | Literal["undetermined"]
    headline: str
    culprit: str
    exit: ExitRecord
    actor: Actor | None
    evidence: tuple[EvidenceRecord, ...]
    ruled_out: tuple[RuledOut, ...]
    not_checked: tuple[RuledOut, ...]
    advice: tuple[str, ...]
    timeline: tuple[TimelineEntry, ...]
    engine: EngineName
    detected_in_ms: float
    missing: tuple[MissingEvidence, ...] = ()
    findings: tuple[Finding, ...] = ()
    reconstructed: bool = False


RemedyOutcome = Literal["done", "failed", "refused", "unknown"]


class RemedyStarted(Event, frozen=True, tag="agentscope.remedy.started"):
    """The intent to act, recorded before the act. `attempt` counts the acts of one incident from 1; `act` says what is done.

    `fingerprint` is that of the death (cause, culprit, top frames): what is counted when it happens again.
    """

    incident: str
    agent: Agent
    remedy: str
    attempt: int
    act: str
    because: str
    fingerprint: str = ""


class RemedyFinished(Event, frozen=True, tag="agentscope.remedy.finished"):
    """What came of an act. "unknown": agentscope itself ended between the act and its outcome, and found this when it came back.

    `pid` is the new instance, where the act made one and it is known. The remedy "validate", which has no start of its own, is the
    outcome of looking whether the act with this `attempt` helped: from "done" on the agent is on probation.
    """

    incident: str
    agent: Agent
    remedy: str
    attempt: int
    outcome: RemedyOutcome
    says: str
    took_ms: float
    pid: int | None = None


class IncidentClosed(Event, frozen=True, tag="agentscope.incident.closed"):
    """An incident is over: `outcome` says whether anything was done and whether it held.

    `held`: True, what was done passed its probation; False, the ladder is spent; None, nothing was done.
    """

    incident: str
    agent: Agent
    outcome: str
    held: bool | None = None


AnyEvent = (
    Ready
    | AgentSeen
    | AgentGone
    | ProcessFork
    | ProcessExec
    | ProcessExit
    | SignalSent
    | Fault
    | OomVictim
    | KernelLine
    | Pulse
    | WaitChanged
    | Health
    | Pressure
    | Lost
    | IncidentOpened
    | RemedyStarted
    | RemedyFinished
    | IncidentClosed
)
