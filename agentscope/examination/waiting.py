"""What each thread waits for, and what is owed: pure reading of one Examination.

An obligation is something outstanding that a clock may run on (DESIGN.md section 5): a question without an answer, a request
that was taken and not answered, bytes nobody reads. Waiting alone is no obligation.
"""

from typing import Literal

from agentscope.examination import Call, Descriptor, Examination, Holder, ProcessLook, Socket, Thread
from agentscope.model import LastSyscall, ThreadSample, Value
from agentscope.symbols.syscalls import syscall_number

WaitKind = Literal[
    "running", "human", "tool", "llm", "peer", "timer", "lock", "disk", "accept", "pipe", "file-lock", "events", "stopped",
    "traced", "unknown",
]  # fmt: skip
ObligationKind = Literal[
    "unanswered", "half-answered", "owed", "unread", "backlog", "connecting", "unacknowledged", "closed-unread"
]


class Wait(Value, frozen=True):
    """What one thread waits for. `says` is its object in words, "llm api.anthropic.com 160.79.104.10:443"; never how long.

    `for_s` is how long it has not run, `timeout_s` the time-out that its call was given (None: without end). `sockets` are the
    inodes of sockets that could end the wait, `pipes` those of pipes, `pid` a process it waits for.
    """

    pid: int
    tid: int
    kind: WaitKind
    says: str
    for_s: float | None = None
    timeout_s: float | None = None
    sockets: tuple[int, ...] = ()
    pipes: tuple[int, ...] = ()
    child: int | None = None

    @property
    def endless(self) -> bool:
        """Whether nothing but its object can end it: it waits, and was given no time-out."""
        return self.kind not in {"running", "stopped", "traced"} and self.timeout_s is None


class Obligation(Value, frozen=True):
    """Something outstanding on one socket of the tree, and for how long. None: it cannot be told from one look."""

    kind: ObligationKind
    pid: int
    inode: int
    for_s: float | None
    says: str


# The calls by what they do with their descriptors: man-pages(2) of each.
_READS = frozenset({"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg", "splice", "tee"})
_WRITES = frozenset(
    {"write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "sendfile", "vmsplice"}
)
_MULTIPLEXES = frozenset({"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2"})
_SLEEPS = frozenset({"nanosleep", "clock_nanosleep"})
_FUTEX = frozenset({"futex", "futex_wait", "futex_waitv"})
_AWAITS_CHILD = frozenset({"wait4", "waitid"})
_OPENS = frozenset({"open", "openat", "openat2", "creat"})
_SYNCS = frozenset({"fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync"})
_SIGNALS = frozenset({"pause", "rt_sigsuspend", "rt_sigtimedwait"})
_OWN_WAKEUPS = frozenset({"eventfd", "signalfd", "inotify", "timerfd"})
_LETTERS: dict[str, tuple[WaitKind, str]] = {
    "R": ("running", "running"),
    "T": ("stopped", "stopped by a signal"),
    "t": ("traced", "held by a debugger"),
    "D": ("disk", "the kernel, without interruption"),
}
_QUIET = 0.02  # of one CPU
_CALLS_WITH_TIMEOUT = frozenset(
    syscall_number(name)
    for name in (
        "poll", "select", "nanosleep", "futex", "clock_nanosleep", "epoll_wait", "pselect6", "ppoll", "epoll_pwait", "epoll_pwait2",
        "futex_waitv",
    )
) - {None}  # fmt: skip
_FUTEX_NUMBER, _FUTEX_TIMEOUT = syscall_number("futex"), 3
_SHOWN = 60  # characters of a command line


def wait_of(thread: Thread, process: ProcessLook, seen: Examination) -> Wait:
    """What one thread waits for."""
    for_s = None if thread.since_ns is None else max(0.0, (seen.at_ns - thread.since_ns) / 1e9)
    wait = Wait(pid=process.pid, tid=thread.tid, kind="unknown", says="nothing that could be read", for_s=for_s)
    if thread.state in _LETTERS and not (thread.state == "D" and thread.call and thread.call.name in _OPENS):
        kind, says = _LETTERS[thread.state]
        if kind == "disk" and thread.call is not None:
            says = f"{says}, in {thread.call.name}"
        return _with(wait, kind=kind, says=says)
    call = thread.call
    if call is None:
        return wait
    return _of_call(_with(wait, timeout_s=call.timeout_s), call, process, seen)


def waits_of(seen: Examination) -> tuple[Wait, ...]:
    """What every thread of the tree waits for, the agent's innermost process first."""
    return tuple(wait_of(thread, process, seen) for process in seen.processes for thread in process.threads)


def _with(wait: Wait, **changes: object) -> Wait:
    import msgspec

    return msgspec.structs.replace(wait, **changes)


def _of_call(wait: Wait, call: Call, process: ProcessLook, seen: Examination) -> Wait:
    """What a thread in this call waits for."""
    name = call.name
    if name in _SLEEPS:
        return _with(wait, kind="timer", says=_sleep(call.timeout_s))
    if name in _FUTEX:
        return _with(wait, kind="lock", says=f"a lock held by thread {call.futex_owner}" if call.futex_owner else "a lock")
    if name in _AWAITS_CHILD:
        return _of_child(wait, call.child, process, seen)
    if name in {"accept", "accept4"}:
        return _with(wait, kind="accept", says=_listening(call.descriptors, process, seen))
    if name in {"flock", "fcntl"}:
        return _of_file_lock(wait, call, process, seen)
    if name in _OPENS:
        return _with(wait, kind="pipe", says=f"somebody to open {call.path or 'a FIFO'}")
    if name in _MULTIPLEXES:
        return _of_set(wait, call, process, seen)
    if name in _READS or name in _WRITES or name == "connect":
        return _of_descriptor(wait, call, process, seen, writes=name in _WRITES)
    if name in _SYNCS:
        return _with(wait, kind="disk", says=f"{name} on {_target(call, process)}")
    if name in _SIGNALS:
        kind = "events" if call.timeout_s is None else "timer"
        return _with(wait, kind=kind, says="a signal")
    if name == "restart_syscall":
        return _with(wait, kind="timer", says="a call that a stop interrupted", timeout_s=wait.timeout_s)
    return _with(wait, says=f"{name}{f' on {_target(call, process)}' if call.descriptors else ''}")


def _of_child(wait: Wait, pid: int | None, process: ProcessLook, seen: Examination) -> Wait:
    """A thread in wait4 or waitid: the child that it means, or the one that does most."""
    children = [each for each in seen.processes if each.ppid == process.pid and not each.ended]
    meant = [each for each in children if each.pid == pid] or children
    child = max(meant, key=cpu_of, default=None)
    if child is None:
        return _with(wait, kind="tool", says=f"child {pid}" if pid else "a child", child=pid)
    return _with(wait, kind="tool", says=tool_words(child), child=child.pid)


def tool_words(child: ProcessLook) -> str:
    """A tool in words: "tool `cargo test` pid 992, using 7.8 CPUs"."""
    command = " ".join(word.rsplit("/", 1)[-1] if at == 0 else word for at, word in enumerate(child.argv)) or child.comm
    used = cpu_of(child)
    return f"tool `{' '.join(command.split())[:_SHOWN]}` pid {child.pid}" + (f", using {used:.1f} CPUs" if used >= 0.05 else "")


def cpu_of(process: ProcessLook) -> float:
    """How many CPUs the process used during the interval."""
    return sum(thread.cpu_share or 0.0 for thread in process.threads)


def _of_file_lock(wait: Wait, call: Call, process: ProcessLook, seen: Examination) -> Wait:
    found = next((lock for lock in seen.file_locks if lock.waiter.pid == process.pid), None)
    path = (found.path if found else None) or _target(call, process)
    by = f", held by {found.holder.comm} (pid {found.holder.pid})" if found and found.holder else ""
    return _with(wait, kind="file-lock", says=f"the lock on {path}{by}")


def _of_descriptor(wait: Wait, call: Call, process: ProcessLook, seen: Examination, *, writes: bool) -> Wait:
    """A thread blocked in reading, writing or connecting one descriptor."""
    descriptor = process.descriptor(call.descriptors[0]) if call.descriptors else None
    if descriptor is None:
        return _with(wait, says=f"{call.name} on descriptor {call.descriptors[0] if call.descriptors else '?'}")
    if descriptor.kind == "tty":
        return _with(wait, kind="human", says=f"{'room on' if writes else 'input at'} {descriptor.target}")
    if descriptor.kind in {"pipe", "fifo"}:
        return _of_pipe(wait, descriptor, process, seen, writes=writes)
    if descriptor.kind == "socket":
        return _of_socket(wait, descriptor, process, seen)
    if descriptor.kind in _OWN_WAKEUPS:
        return _with(wait, kind="events", says=f"its own {descriptor.kind}")
    if descriptor.kind in {"file", "folder"}:
        return _with(wait, kind="disk", says=f"{call.name} on {descriptor.target}")
    return _with(wait, says=f"{call.name} on {descriptor.target}")


def _of_pipe(wait: Wait, descriptor: Descriptor, process: ProcessLook, seen: Examination, *, writes: bool) -> Wait:
    """A thread at a pipe: who is at the other end."""
    pipe = seen.pipe(descriptor.inode)
    name = f"FIFO {pipe.path}" if pipe is not None and pipe.path else "a pipe"
    inodes = () if descriptor.inode is None else (descriptor.inode,)
    if pipe is None:
        return _with(wait, kind="pipe", says=f"{'room in' if writes else 'bytes from'} {name}", pipes=inodes)
    ends = [end for end in (pipe.readers if writes else pipe.writers) if end.pid != process.pid]
    if not ends:
        return _with(
            wait, kind="pipe", says=f"{name} that nobody else has open for {'reading' if writes else 'writing'}", pipes=inodes
        )
    if writes:
        return _with(wait, kind="pipe", says=f"room in {name} that {holder_words(ends[0])} should read", pipes=inodes)
    tool = next((each for end in ends for each in seen.processes if each.pid == end.pid and each.ppid == process.pid), None)
    if tool is not None:
        return _with(wait, kind="tool", says=tool_words(tool), pipes=inodes, child=tool.pid)
    return _with(wait, kind="pipe", says=f"bytes from {name} that {holder_words(ends[0])} writes", pipes=inodes)


def holder_words(holder: Holder) -> str:
    """A process as it is named in a sentence."""
    return f"{holder.comm} (pid {holder.pid})"


def _of_socket(wait: Wait, descriptor: Descriptor, process: ProcessLook, seen: Examination) -> Wait:
    """A thread that waits for just this socket."""
    socket = seen.socket(descriptor.inode)
    inodes = () if descriptor.inode is None else (descriptor.inode,)
    if socket is None:
        return _with(wait, kind="peer", says="a socket that could not be read", sockets=inodes)
    if socket.state == "listen":
        return _with(wait, kind="accept", says=f"connections at {socket.local}", sockets=inodes)
    if socket.accepted:
        return _with(wait, kind="accept", says=f"the next request of {socket_words(socket, process)}", sockets=inodes)
    model = model_name(socket, process)
    if model is not None:
        return _with(wait, kind="llm", says=f"llm {socket_words(socket, process)}", sockets=inodes)
    doing = "connecting to " if socket.state == "syn-sent" else ""
    return _with(wait, kind="peer", says=f"{doing}{socket_words(socket, process)}", sockets=inodes)


def socket_words(socket: Socket, process: ProcessLook) -> str:
    """The other end in words: name of a model API and address, or the process behind it where it is on this machine."""
    address = socket.peer or socket.local or "its unix socket"
    name = model_name(socket, process)
    if name is not None:
        return address if address.startswith(name) else f"{name} {address}"
    return f"{address} ({holder_words(socket.peer_holder)})" if socket.peer_holder else address


def model_name(socket: Socket, process: ProcessLook) -> str | None:
    """The model API at the other end, where it is one."""
    from agentscope.examination.sockets import is_model_api

    return None if socket.accepted else is_model_api(socket, process.llm_hosts)


def _of_set(wait: Wait, call: Call, process: ProcessLook, seen: Examination) -> Wait:
    """A thread in poll, select or epoll: what of its set could end the wait; its own wake-ups cannot by themselves."""
    found = [descriptor for number in call.descriptors if (descriptor := process.descriptor(number)) is not None]
    watched = [each for one in found if one.kind == "epoll" for number in one.watches if (each := process.descriptor(number))]
    meant = [each for each in (*found, *watched) if each.kind != "epoll" and not _own_wakeup(each, process, seen)]
    if any(each.kind == "tty" and each.number == 0 for each in meant) and not any(each.kind == "socket" for each in meant):
        return _with(wait, kind="human", says=f"input at {next(each.target for each in meant if each.kind == 'tty')}")
    sockets = [socket for each in meant if each.kind == "socket" and (socket := seen.socket(each.inode)) is not None]
    pipes = [each for each in meant if each.kind in {"pipe", "fifo"} and each.access != "w"]
    inodes = tuple(socket.inode for socket in sockets)
    if len(meant) == 1:
        one = meant[0]
        return _of_descriptor(
            wait, Call(name="read", descriptors=(one.number,), timeout_s=call.timeout_s), process, seen, writes=False
        )
    asked = [socket for socket in sockets if not socket.accepted and _asked(socket)]
    if asked:
        longest = max(asked, key=lambda socket: socket.last_sent_ago_ms or 0)
        kind: WaitKind = "llm" if model_name(longest, process) else "peer"
        words = socket_words(longest, process)
        return _with(wait, kind=kind, says=f"llm {words}" if kind == "llm" else words, sockets=inodes)
    if pipes and not sockets:
        return _with(
            _of_pipe(wait, pipes[0], process, seen, writes=False), pipes=tuple(each.inode for each in pipes if each.inode)
        )
    if any(socket.state == "listen" or socket.accepted for socket in sockets):
        places = ", ".join(sorted({socket.local for socket in sockets if socket.state == "listen"})[:3])
        return _with(wait, kind="accept", says=f"requests{f' at {places}' if places else ''}", sockets=inodes)
    if not meant and call.timeout_s is not None:
        return _with(wait, kind="timer", says=_sleep(call.timeout_s))
    says = f"any of {len(meant)} descriptors" if meant else "its own wake-up"
    return _with(wait, kind="events", says=says, sockets=inodes)


def _own_wakeup(descriptor: Descriptor, process: ProcessLook, seen: Examination) -> bool:
    """Whether only the process itself can make this descriptor readable: an eventfd, or a pipe or socket pair with itself."""
    if descriptor.kind in _OWN_WAKEUPS:
        return True
    if descriptor.kind == "pipe":
        pipe = seen.pipe(descriptor.inode)
        return pipe is not None and bool(pipe.writers) and all(end.pid == process.pid for end in pipe.writers)
    if descriptor.kind == "socket":
        socket = seen.socket(descriptor.inode)
        holder = socket.peer_holder if socket is not None and socket.kind == "unix" else None
        return holder is not None and holder.pid == process.pid
    return False


def _listening(descriptors: tuple[int, ...], process: ProcessLook, seen: Examination) -> str:
    descriptor = process.descriptor(descriptors[0]) if descriptors else None
    socket = seen.socket(descriptor.inode) if descriptor else None
    return f"connections at {socket.local}" if socket is not None else "connections"


def _target(call: Call, process: ProcessLook) -> str:
    descriptor = process.descriptor(call.descriptors[0]) if call.descriptors else None
    return descriptor.target if descriptor is not None else call.path or "a file"


def _sleep(length_s: float | None) -> str:
    """A sleep in words, without what changes from one turn of a loop to the next."""
    if length_s is None:
        return "sleeping without end"
    if length_s < 2:
        return "sleeping for a moment"
    return f"sleeping {length_s:.0f} s" if length_s < 600 else f"sleeping {length_s / 60:.0f} min"


def same_wait(old: ThreadSample, new: ThreadSample, cpu_share: float) -> bool:
    """Whether a thread that woke up is back in the wait it was in: only a call with a time-out wakes up without having got anything."""
    if old.state != new.state or new.state == "R" or old.syscall is None or new.syscall is None or cpu_share >= _QUIET:
        return False
    if old.voluntary_switches == new.voluntary_switches:
        return old.syscall == new.syscall
    if new.syscall.number != old.syscall.number or new.syscall.args[:1] != old.syscall.args[:1]:
        return False
    return _has_timeout(new.syscall) and (old.read_bytes, old.written_bytes) == (new.read_bytes, new.written_bytes)


def has_left(old: ThreadSample, new: ThreadSample) -> bool:
    """Whether a thread that was blocked in a call has got on since. Who wakes by a time-out may be met awake for a moment, and has not."""
    awake = new.state == "R" and old.syscall is not None and _has_timeout(old.syscall)
    if awake and (old.read_bytes, old.written_bytes) == (new.read_bytes, new.written_bytes):
        return False
    return old.syscall is not None and not same_wait(old, new, 0.0)


def _has_timeout(call: LastSyscall) -> bool:
    """Whether a call can end without having got anything."""
    return call.number in _CALLS_WITH_TIMEOUT and (call.number != _FUTEX_NUMBER or bool(call.args[_FUTEX_TIMEOUT]))


# --- what is owed ---------------------------------------------------------------------------------------------------------


def _asked(socket: Socket) -> bool:
    """Whether the last bytes on it were ours: a question that has no answer yet. Within one millisecond it counts as answered."""
    if socket.state not in {"established", "close-wait"} or not socket.sent_bytes or socket.last_sent_ago_ms is None:
        return False
    return socket.last_received_ago_ms is None or socket.last_received_ago_ms > socket.last_sent_ago_ms


def obligations_of(seen: Examination) -> tuple[Obligation, ...]:
    """Everything outstanding on the sockets of the tree, longest first."""
    found = []
    for process in seen.processes:
        for descriptor in process.descriptors:
            socket = seen.socket(descriptor.inode) if descriptor.kind == "socket" else None
            obligation = socket and _owed_on(socket, process, seen.at_ns)
            if obligation:
                found.append(obligation)
    return tuple(sorted(found, key=lambda each: -(each.for_s or 0.0)))


def _owed_on(socket: Socket, process: ProcessLook, at_ns: int) -> Obligation | None:
    """What is outstanding on one socket, if anything."""
    who = socket_words(socket, process)
    received_s = None if socket.last_received_ago_ms is None else socket.last_received_ago_ms / 1e3
    sent_s = None if socket.last_sent_ago_ms is None else socket.last_sent_ago_ms / 1e3

    def of(kind: ObligationKind, for_s: float | None, says: str) -> Obligation:
        return Obligation(kind=kind, pid=process.pid, inode=socket.inode, for_s=for_s, says=says)

    if socket.state == "listen":
        waiting = socket.receive_queue
        queued_s = None if socket.queued_since_ns is None else (at_ns - socket.queued_since_ns) / 1e9
        return of("backlog", queued_s, f"{waiting} connections wait to be accepted at {socket.local}") if waiting else None
    repeated_s = None if socket.unacknowledged_ms is None else socket.unacknowledged_ms / 1e3
    if socket.state == "syn-sent":
        return of("connecting", repeated_s, f"{who} does not answer the connection request ({socket.retransmits} repeats)")
    if socket.state == "close-wait":
        # of TCP the end of the stream counts as one
        unread = socket.receive_queue - (socket.kind == "tcp")
        return of("closed-unread", received_s, f"{who} closed, and {unread} bytes from it are not read") if unread > 0 else None
    if socket.state != "established":
        return None
    if socket.send_queue and socket.retransmits:
        says = f"{who} acknowledges nothing: {socket.send_queue} bytes were sent {socket.retransmits} times more"
        return of("unacknowledged", repeated_s, says)
    if socket.receive_queue:
        return of("unread", received_s, f"{socket.receive_queue} bytes from {who} are not read")
    if socket.accepted:
        owed = bool(socket.received_bytes) and received_s is not None and (sent_s is None or sent_s > received_s)
        return of("owed", received_s, f"a request of {who} is not answered") if owed else None
    if _asked(socket):
        return of("unanswered", sent_s, f"{who} has not answered")
    if received_s is not None and sent_s is not None:
        return of("half-answered", received_s, f"nothing more from {who}, which answered at least in part")
    return None
