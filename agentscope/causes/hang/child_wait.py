"""It waits for a tool that will never end, or for the end of output that something left behind keeps open.

What it means: an agent that runs a command usually waits until that has ended. If the command itself is stuck (it
reads a FIFO nobody writes, waits for a lock, for an answer), so is the agent. And if the command has ended but a
process that it left in the background still has its output open, the output never comes to an end.

How agentscope knows: a thread waits for a child, or for a pipe from it, without a time-out and for longer than you
allow; and the child has done nothing in that time and waits itself for something that cannot come, or it has ended
while another process that does nothing holds the pipe.

What to do: end the process that is named. In the program, give every command a time-out
(subprocess.run(timeout=...)), start background processes with their output sent elsewhere (> /dev/null 2>&1), and
close what a tool should not inherit.

What looks like it but is not: a tool that works, waits for a person, serves connections, or sleeps for a bounded
time; a tool that waits for the agent to read its output (hang/pipe-full); a lock on a file (hang/file-lock).
"""

from collections.abc import Iterator
from typing import NamedTuple

from agentscope.causes import No
from agentscope.causes.hang import (
    AWAITS_CHILD,
    IDLE,
    MODEL_S,
    MULTIPLEXES,
    OPENS,
    READS,
    at,
    cites,
    doing,
    endless,
    excused,
    seconds,
    stuck_threads,
    where,
    who,
)
from agentscope.evidence.children import Child, Children
from agentscope.evidence.pipes import Pipes
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.thread_waits import ProcessSeen, ThreadSeen, ThreadWaits
from agentscope.examination import Holder, Pipe
from agentscope.examination.frames import worker_state
from agentscope.model import Finding

LONG_SLEEP_S = 600.0
SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox"})


class Seen(NamedTuple):
    """The evidence of one examination, together."""

    waits: ThreadWaits
    children: Children
    pipes: Pipes | None
    sockets: Sockets | None
    python: PythonThreads | None


class Stuck(NamedTuple):
    """Why a child will never end, and the kinds of evidence that say so. `strong`: whoever looks on waits in vain too."""

    says: str
    cites: tuple[str, ...] = ()
    strong: bool = True


def match(
    *,
    waits: ThreadWaits,
    children: Children,
    pipes: Pipes | None,
    sockets: Sockets | None,
    python: PythonThreads | None,
) -> Finding | No:
    """Waiting for a child that is stuck, or for what a child left behind."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    reason: No | None = None
    for answer in answers(Seen(waits, children, pipes, sockets, python)):
        if isinstance(answer, Finding):
            return answer
        reason = reason or answer
    return reason or No("no thread of it has waited long for a child")


def answers(seen: Seen) -> Iterator[Finding | No]:
    """What each thread that has waited long says."""
    for thread in stuck_threads(seen.waits):
        if serves_a_pool(thread, seen):
            continue
        left = left_behind(thread, seen)
        if left is not None:
            yield left if isinstance(left, No) else of_left(thread, left, seen)
        elif thread.wait.kind == "tool":
            child = seen.children.child(thread.wait.child)
            if child is None:
                yield No("it waits for a child that is not known")
            elif not endless(thread):
                yield No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the wait for {child.words}")
            else:
                yield judged(thread, child, seen)
        elif thread.wait.kind in {"events", "accept"} and thread.call is not None and thread.call.name in MULTIPLEXES:
            for child in seen.children.children:
                if child.parent == thread.wait.pid and listens_to(thread, child, seen):
                    yield judged(thread, child, seen, strongly=True)


def serves_a_pool(thread: ThreadSeen, seen: Seen) -> bool:
    """Whether a thread only looks after worker processes of a pool: they wait for work, and it for them."""
    frames = seen.python.of(thread.wait.pid, thread.wait.tid) if seen.python is not None else ()
    child = seen.waits.process(thread.wait.child)
    return worker_state(frames) is not None or (not thread.main and not frames and child is not None and child.own)


def read_ends(thread: ThreadSeen, seen: Seen) -> list[Pipe]:
    """The pipes from which a thread reads."""
    found = (seen.pipes.pipe(each.inode) for each in thread.ends if each.reads and seen.pipes is not None)
    return [pipe for pipe in found if pipe is not None]


def listens_to(thread: ThreadSeen, child: Child, seen: Seen) -> bool:
    """Whether an event loop has the output of a child in its set."""
    pids = {child.pid, child.innermost}
    if any(end.pid in pids for pipe in read_ends(thread, seen) for end in pipe.writers):
        return True
    held = (seen.sockets.held(inode) for inode in thread.wait.sockets if seen.sockets is not None)
    return any(
        each is not None and each.socket.peer_holder is not None and each.socket.peer_holder.pid in pids for each in held
    )


# --- a child that is stuck ----------------------------------------------------------------------------------------------------


def judged(thread: ThreadSeen, child: Child, seen: Seen, *, strongly: bool = False) -> Finding | No:
    """What the innermost process below a child waits for."""
    inner = seen.waits.process(child.innermost)
    if inner is None or child.ended or child.works:
        return No(f"it waits for {child.words}, which {'has ended' if child.ended else 'works'}")
    if inner.tracer is not None:
        return No(f"{inner.tracer} traces {inner.words}")
    if inner.still_for_s is None or inner.still_for_s < seen.waits.patience_s:
        return No(f"{inner.words}, for which it waits, did something {seconds(inner.still_for_s)} ago")
    stuck = stuck_in(inner, thread, seen)
    if isinstance(stuck, No):
        return stuck
    if strongly and not stuck.strong:
        return No(f"{inner.words} waits, and whether the agent needs its end is not known")
    place = where(thread, seen.python)
    through = "" if inner.pid == child.pid else f" through {child.words}"
    named = f"{'worker' if inner.own else 'tool'} `{inner.command}` (pid {inner.pid})"
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: it waits{at(place)} for {named}{through}, which {stuck.says}",
        culprit=f"{named} {stuck.says}",
        confidence="likely",
        cites=cites(("children", True), *((kind, True) for kind in stuck.cites), ("python-threads", place)),
        advice=(
            f"let the agent go on by ending the tool: kill {inner.pid}",
            f"give it a time-out{at(place)}: subprocess.run(..., timeout=60)",
        ),
    )


def stuck_in(inner: ProcessSeen, thread: ThreadSeen, seen: Seen) -> Stuck | No:
    """Why a process will never go on by itself; No where it may."""
    main = next((each for each in seen.waits.of(inner.pid) if each.main), None)
    if inner.threads and inner.stopped == inner.threads:
        return Stuck("is stopped by a signal")
    if main is None:
        return No(f"what {inner.words} waits for could not be read")
    if inner.locked == inner.threads:
        idle = seen.python is not None and worker_state(seen.python.of(inner.pid, main.wait.tid)) == "idle"
        many = f"all {inner.threads} threads of it do" if inner.threads > 1 else "it has no other thread"
        return (
            No(f"{inner.words} is an idle worker")
            if idle
            else Stuck(f"waits for a lock that nobody is left to release: {many}")
        )
    wait = main.wait
    if wait.kind == "timer":
        return of_sleep(inner, main, seen.waits)
    if wait.kind == "pipe":
        return of_pipe(inner, main, thread, seen)
    if wait.kind in {"peer", "llm"} and seen.sockets is not None:
        return of_peer(inner, main, seen.waits, seen.sockets)
    return No(f"{inner.words} {doing(wait)}: that may come")


def of_sleep(inner: ProcessSeen, main: ThreadSeen, waits: ThreadWaits) -> Stuck | No:
    """A process that sleeps: only for very long is it as good as stuck, and a shell that sleeps between its jobs never."""
    timeout_s = main.wait.timeout_s
    scripted = inner.comm == "sleep" and (waits.agent.role == "wrapper" or waits.agent.comm in SHELLS)
    if scripted or (timeout_s is not None and timeout_s <= LONG_SLEEP_S):
        return No(f"{inner.words} sleeps for a time that it was told")
    return Stuck("sleeps without end" if timeout_s is None else f"sleeps for {seconds(timeout_s)}", strong=False)


def of_pipe(inner: ProcessSeen, main: ThreadSeen, thread: ThreadSeen, seen: Seen) -> Stuck | No:
    """A process at a pipe or FIFO: whether anybody can still write there."""
    name = main.call.name if main.call is not None else ""
    if name in OPENS:
        return Stuck(f"waits for {main.wait.says}")
    pipe = next(iter(read_ends(main, seen)), None)
    if name in READS and pipe is not None and pipe.writers:
        others = {end.pid for end in pipe.writers} - {inner.pid}
        ends = thread.call is not None and thread.call.name in AWAITS_CHILD
        if not others:
            what = f"the FIFO {pipe.path}" if pipe.path else "a pipe"
            return Stuck(f"reads {what} that nobody but itself has open for writing", ("pipes",))
        if others == {thread.wait.pid} and ends:
            return Stuck("waits for input from the agent, which itself waits for it to end", ("pipes",))
    return No(f"{inner.words} {doing(main.wait)}: that may come")


def of_peer(inner: ProcessSeen, main: ThreadSeen, waits: ThreadWaits, sockets: Sockets) -> Stuck | No:
    """A process that waits for a peer: stuck if it asked, has no answer and no time-out."""
    for inode in main.wait.sockets:
        held, owed = sockets.held(inode), sockets.owed(inode)
        if held is None or owed is None or owed.kind not in {"unanswered", "unacknowledged", "connecting"}:
            continue
        budget_s = max(waits.patience_s, MODEL_S) if held.model else waits.patience_s
        if endless(main) and (owed.for_s or 0.0) >= budget_s:
            return Stuck(
                f"waits without time-out for {held.words}, which has not answered for {seconds(owed.for_s)}", ("sockets",)
            )
    return No(f"{inner.words} {doing(main.wait)}: that may come")


# --- what a child left behind -------------------------------------------------------------------------------------------------


def left_behind(thread: ThreadSeen, seen: Seen) -> Holder | No | None:
    """Who keeps a pipe open from which a thread reads, though the child that it was made for has ended; None: nobody does."""
    reads = thread.call is not None and thread.call.name in READS | MULTIPLEXES and 0 not in thread.call.descriptors[:1]
    ends = read_ends(thread, seen)
    if not reads or not ends or len(ends) < len(thread.ends) or not endless(thread):
        return None
    holders = {end.pid: end for pipe in ends for end in pipe.writers if end.pid != thread.wait.pid}
    living = {each.pid for each in seen.children.children if not each.ended}
    ended = ended_child(thread, seen)
    known = ended or any(seen.waits.process(pid) for pid in holders) or reads_a_tool(thread, seen)
    if not holders or living & holders.keys() or not known:
        return None
    for pid, holder in holders.items():
        if holder.state == "R" or (holder.cpu_share or 0.0) >= IDLE or seen.waits.works(pid):
            return No(f"{who(holder)}, which has the pipe open, works")
    return next(iter(holders.values()))


def reads_a_tool(thread: ThreadSeen, seen: Seen) -> bool:
    """Whether a thread is in Python's own code that reads the output of a command."""
    frames = seen.python.of(thread.wait.pid, thread.wait.tid) if seen.python is not None else ()
    return any(frame.file.endswith(("/subprocess.py", "/asyncio/subprocess.py")) for frame in frames[:8])


def ended_child(thread: ThreadSeen, seen: Seen) -> Child | None:
    """A child of the thread's process that has ended, and whose status was not read."""
    return next((each for each in seen.children.children if each.ended and each.parent == thread.wait.pid), None)


def of_left(thread: ThreadSeen, holder: Holder, seen: Seen) -> Finding:
    """The finding for a pipe that outlives its child."""
    ended, place = ended_child(thread, seen), where(thread, seen.python)
    child = f"its tool {ended.words} has ended" if ended is not None else "its tool has ended"
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: it reads{at(place)} the output of a tool to its end; {child},"
        f" but {who(holder)}, which does nothing, keeps the pipe open",
        culprit=f"{who(holder)} keeps the pipe open that {place or 'the agent'} reads",
        confidence="likely",
        cites=cites(("pipes", True), ("children", ended), ("python-threads", place)),
        advice=(
            f"let the agent go on by ending what was left behind: kill {holder.pid}",
            "start background processes with their output sent elsewhere: COMMAND > /dev/null 2>&1 &",
        ),
    )
