"""What a look at living processes finds, as frozen values; one file beside this one a subject, each with its own reader.

A look is cheap (what threads wait for, sockets, descriptors); an examination adds what is worth its price only of a suspect
(stacks, locks, a profile of its system calls). Everything here is read from outside: nothing of the target is ever run, no file
of it is trusted, and each reader is bounded in time and size. What could not be read is `missing`, with the reason.

Units are in the names. `since_ns` and `at_ns` are CLOCK_BOOTTIME. Absent is None: it was not read, or there is none.
"""

from typing import Literal

from agentscope.model import MissingEvidence, PythonFrame, Role, Value

DescriptorKind = Literal[
    "socket", "pipe", "fifo", "tty", "file", "folder", "epoll", "eventfd", "timerfd", "signalfd", "inotify", "null", "other"
]
SocketState = Literal[
    "established", "syn-sent", "syn-received", "fin-wait-1", "fin-wait-2", "time-wait", "close", "close-wait", "last-ack",
    "listen", "closing",
]  # fmt: skip


class Holder(Value, frozen=True):
    """A process that has an object open: `descriptor` is its number there; `state` the letter of /proc/PID/stat.

    `cpu_share` is of one CPU, had or waited for, all its threads, over the moment that it was watched; None where it was not. `waits` tells of the
    client of a connection whether a thread of it is blocked in waiting for bytes there; None where that is not known.
    """

    pid: int
    comm: str
    descriptor: int | None = None
    state: str | None = None
    cpu_share: float | None = None
    waits: bool | None = None


class Descriptor(Value, frozen=True):
    """One open file descriptor: `target` is what /proc/PID/fd shows ("socket:[123]", "/dev/pts/3"), cleaned for a person."""

    number: int
    kind: DescriptorKind
    target: str
    inode: int | None = None
    access: Literal["r", "w", "rw"] | None = None
    watches: tuple[int, ...] = ()  # of an epoll: the descriptors in its set


class Call(Value, frozen=True):
    """The system call that a thread is blocked in, its arguments read for what they mean.

    `descriptors` are those it waits for (all of a poll's, or the one of a read; an epoll's own number). `timeout_s` is the
    time-out that the caller gave, from the moment of the call; None means that it waits without end. `futex` is the address
    waited at, `futex_owner` the tid in that word, where it is a mutex of glibc (offset 8: __owner of pthread_mutex_t) or a
    PI futex. `child` is the pid given to wait4 or waitid (None: any).
    """

    name: str
    descriptors: tuple[int, ...] = ()
    timeout_s: float | None = None
    path: str | None = None
    futex: int | None = None
    futex_owner: int | None = None
    child: int | None = None


class Thread(Value, frozen=True):
    """One thread at the time of the look. `since_ns` is when it last had a CPU.

    `cpu_share` is of one CPU, over `interval_s`; `busy_share` the share in which it ran or waited for a CPU, so that a machine
    with too few of them does not make a busy thread look idle.
    """

    tid: int
    comm: str
    state: str
    call: Call | None = None
    since_ns: int | None = None
    cpu_share: float | None = None
    busy_share: float | None = None
    switches_per_s: float | None = None
    kernel_stack: tuple[str, ...] = ()  # innermost first; read of threads in state D only


class ProcessLook(Value, frozen=True):
    """One process of the agent's tree. `tracer` is the debugger attached to it, if any. `ended` marks a zombie: nobody read its status."""

    pid: int
    start_ns: int
    ppid: int
    comm: str
    argv: tuple[str, ...] = ()
    role: Role = "agent"
    uid: int | None = None
    tracer: Holder | None = None
    ended: bool = False
    threads: tuple[Thread, ...] = ()
    descriptors: tuple[Descriptor, ...] = ()
    llm_hosts: tuple[str, ...] = ()  # "host:port" of model APIs that its environment names (values of *_BASE_URL and the like)

    def descriptor(self, number: int) -> Descriptor | None:
        """The descriptor of this number, if it was read."""
        return next((each for each in self.descriptors if each.number == number), None)


class Socket(Value, frozen=True):
    """One socket as sock_diag tells it (inet_diag(7), struct tcp_info; unix_diag).

    `local` and `peer` are "address:port" ("[v6]:port"), or a path of a unix socket. Queues are in bytes; of a listening socket
    `receive_queue` is the number of connections that wait to be accepted. `*_ago_ms` count back from `at_ns` of the look.
    `accepted` tells that it came in through a listening socket of this machine (its local port is one that is listened at).
    `retransmits` is the number of repeated sends without an acknowledgement now (0: none outstanding).
    """

    inode: int
    family: Literal["inet", "inet6", "unix"]
    kind: Literal["tcp", "udp", "unix"]
    state: SocketState
    local: str
    peer: str | None
    receive_queue: int
    send_queue: int
    retransmits: int = 0
    accepted: bool = False
    sent_bytes: int | None = None
    received_bytes: int | None = None
    last_sent_ago_ms: int | None = None
    last_received_ago_ms: int | None = None
    peer_holder: Holder | None = None  # whoever holds the other end, if it is on this machine
    queued_since_ns: int | None = None  # of a listening socket: when a look first found connections waiting
    peer_inode: int | None = None  # of the other end, in the same network namespace; its listener's until it is accepted
    unacknowledged_ms: int | None = None  # at least: since the oldest bytes, or the request to connect, that are being repeated


class Pipe(Value, frozen=True):
    """A pipe or FIFO: how full it is, and who has its ends open (every process of the machine, ourselves left out)."""

    inode: int
    path: str | None
    held_bytes: int | None
    capacity_bytes: int | None
    readers: tuple[Holder, ...]
    writers: tuple[Holder, ...]


class FileLock(Value, frozen=True):
    """A lock on a file that somebody of the tree waits for (/proc/locks, lines with "->"). `holder` is None where it is not known."""

    kind: Literal["flock", "posix", "ofd", "lease"]
    path: str | None
    inode: int
    waiter: Holder
    holder: Holder | None


class LockWait(Value, frozen=True):
    """A thread that waits for a lock in memory, and who holds it.

    `kind` says what the lock is: "mutex" (of glibc, its owner is in the mutex), "Lock" or "RLock" (of Python). `holder_tid` is
    None where the holder is not known; `proof` says how it is known. The frames are Python's, innermost first.
    """

    pid: int
    tid: int
    address: int
    kind: Literal["mutex", "pi-mutex", "Lock", "RLock", "futex"]
    holder_tid: int | None
    proof: str
    waits_at: PythonFrame | None = None
    held_at: PythonFrame | None = None


class PythonThread(Value, frozen=True):
    """One Python thread: frames innermost first. `tid` is the kernel's."""

    tid: int
    name: str | None
    frames: tuple[PythonFrame, ...]
    owns_gil: bool
    active: bool


class PythonTask(Value, frozen=True):
    """One asyncio task that has not finished: its name and the chain of what it awaits, outermost coroutine first.

    `awaits` names what the innermost coroutine waits for: "Lock", "Event", "Future", "sleep"; None where it could not be told.
    """

    name: str
    chain: tuple[PythonFrame, ...]
    awaits: str | None = None


class PythonStacks(Value, frozen=True):
    """The Python threads of one process, and its asyncio tasks where this version's could be read. `took_ms` is how long it took."""

    pid: int
    version: str | None
    threads: tuple[PythonThread, ...]
    took_ms: float
    tasks: tuple[PythonTask, ...] | None = None


class NativeThread(Value, frozen=True):
    """The native stack of one thread: "symbol+0x1c (libfoo.so)" a frame, innermost first; `ended` says why there are no more."""

    pid: int
    tid: int
    frames: tuple[str, ...]
    ended: str | None = None


class CgroupState(Value, frozen=True):
    """What its cgroups do to a process. Shares are of the interval looked at; None: that controller is not there or has no limit."""

    path: str
    frozen: bool = False
    frozen_path: str | None = None
    quota_cpus: float | None = None
    quota_path: str | None = None
    throttled_share: float | None = None  # of the CFS periods in which it wanted to run
    memory_high_path: str | None = None
    memory_high_hits: int | None = None  # during the interval
    memory_stalled_share: float | None = None  # of the interval, from PSI "full"
    under_oom_path: str | None = None  # cgroup v1 with its OOM killer switched off: tasks wait for memory


class CallCount(Value, frozen=True):
    """How often one system call ended in one way during a profile; `error` is an errno's name, None where it succeeded."""

    pid: int
    name: str
    error: str | None
    count: int


class ConnectCount(Value, frozen=True):
    """How often connect(2) to one address ended in one way; `error` as above.

    One that did not block counts under what getsockopt(SO_ERROR) told later; under EINPROGRESS where nobody asked.
    """

    pid: int
    address: str
    error: str | None
    count: int


class StatusCount(Value, frozen=True):
    """How often an answer that began "HTTP/1.x STATUS" was read in clear text."""

    pid: int
    status: int
    count: int


# Failing so is how calls say "not yet", or "not here": no sign of anything gone wrong.
NOT_YET = frozenset(
    {"EAGAIN", "EWOULDBLOCK", "EINTR", "ETIMEDOUT", "EINPROGRESS", "ERESTARTSYS", "ECHILD", "ERESTART_RESTARTBLOCK"}
)


class SyscallProfile(Value, frozen=True):
    """What the agent's processes called during `seconds`, from raw_syscalls attached for just that long; what was lost is counted."""

    seconds: float
    calls: tuple[CallCount, ...]
    connects: tuple[ConnectCount, ...] = ()
    statuses: tuple[StatusCount, ...] = ()
    written_bytes: dict[int, int] = {}  # pid -> bytes written to descriptors 1 and 2
    lost: int = 0  # calls that no table had room for

    def shows_failures(self) -> bool:
        """Whether a call could have failed again and again: who connects nowhere, is answered nothing and fails at nothing did not."""
        failing = any(each.error not in {None, *NOT_YET} and each.count >= self.seconds for each in self.calls)
        return failing or bool(self.connects or self.statuses or self.lost)


class SampledPlace(Value, frozen=True):
    """Where a thread was found on the CPU: "symbol (module)" and how many of the samples."""

    place: str
    count: int


class StackSamples(Value, frozen=True):
    """The registers of one busy thread, sampled some 200 times: the places, and how wide they are spread in the code.

    `repeated_share` is the share of samples which, at an instruction that had been met before, met the very same registers again.
    A loop that only looks whether something has changed repeats itself (0.7 to 1.0 measured, CPython's evaluation of
    `while not done: pass` among them); what computes has new values every time (0 to 0.1: training loops, garbage collection).
    None: fewer than 20 samples could be compared. `python_lines` are the innermost Python frames, "function (file:line)", one a
    stack that was taken.
    """

    pid: int
    tid: int
    samples: int
    places: tuple[SampledPlace, ...]
    span_bytes: int | None  # highest minus lowest address, where all are in one module; None: several modules
    repeated_share: float | None = None
    python_lines: tuple[str, ...] = ()


class HealthResult(Value, frozen=True):
    """What the health check of the config says now: how often in a row it failed, and with what.

    `failing_since_ns` is the first of those failures, and set only once they are as many as the config allows: then it fails.
    `answered` tells whether the last check was answered at all, though not as it should be (a status 503); None: cannot be told.
    """

    probe: str
    failures: int
    says: str
    failing_since_ns: int | None = None
    answered: bool | None = None


class ProgressResult(Value, frozen=True):
    """What the progress rule of the config says now: nothing for longer than `within_s`, or how long ago the last was.

    `says` quotes what was seen last, or tells why nothing can be known: then `last_ago_s` is None and `overdue` False.
    """

    signal: str
    within_s: float
    last_ago_s: float | None
    overdue: bool
    says: str = ""


class Examination(Value, frozen=True):
    """One look at one agent's whole tree, deepened or not.

    `patience_s` is what --hang-after says; `interval_s` the time over which rates and shares were taken; `watched_since_ns` when
    the watching began (None: nobody watched before this look). `processes` has the agent's innermost process first.
    `hurried`: there was no time to read all stacks or locks, so that another look may tell more.
    """

    at_ns: int
    patience_s: float
    interval_s: float
    watched_since_ns: int | None
    processes: tuple[ProcessLook, ...]
    sockets: tuple[Socket, ...] = ()
    pipes: tuple[Pipe, ...] = ()
    file_locks: tuple[FileLock, ...] = ()
    lock_waits: tuple[LockWait, ...] = ()
    python: tuple[PythonStacks, ...] = ()
    native: tuple[NativeThread, ...] = ()
    cgroup: CgroupState | None = None
    profile: SyscallProfile | None = None
    samples: tuple[StackSamples, ...] = ()
    health: HealthResult | None = None
    progress: ProgressResult | None = None
    output_ago_s: float | None = None  # since it last wrote anything to descriptors 1 and 2, where that is known
    missing: tuple[MissingEvidence, ...] = ()
    hurried: bool = False

    def process(self, pid: int) -> ProcessLook | None:
        """The process of this pid in the tree."""
        return next((each for each in self.processes if each.pid == pid), None)

    def socket(self, inode: int | None) -> Socket | None:
        """The socket of this inode, if it was read."""
        return next((each for each in self.sockets if each.inode == inode), None)

    def pipe(self, inode: int | None) -> Pipe | None:
        """The pipe of this inode, if it was read."""
        return next((each for each in self.pipes if each.inode == inode), None)
