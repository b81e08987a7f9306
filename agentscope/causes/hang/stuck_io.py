"""It waits for bytes that do not come: a peer that does not answer, stops half-way or is gone, or a pipe nobody writes.

What it means: reading from a connection without a time-out waits for ever if the other side forgets the question,
dies without a word, or the network between loses everything. TCP itself says nothing for minutes or hours.

How agentscope knows: a thread, or its event loop, waits for just that connection without end, and the kernel tells
when the last byte went and came: a question without an answer, half an answer, packets repeated and never
acknowledged, an end that was never read, or a pipe or FIFO that no other process has open for writing.

What to do: look at the peer that is named (does it work, is it there?), and give the read a time-out in the program:
timeout= of the HTTP client, socket.settimeout, a deadline of the request. Model clients often wait ten minutes by
default.

What looks like it but is not: an idle connection kept for later; a long poll or a call with a time-out of its own; an
answer that trickles in; a model that thinks for up to three minutes; a subscription, which waits for news.
"""

from collections.abc import Iterator

from agentscope.causes import No
from agentscope.causes.hang import (
    LONG_S,
    MODEL_S,
    MULTIPLEXES,
    OPENS,
    READS,
    TLS_PORTS,
    WRITES,
    at,
    cites,
    endless,
    excused,
    goes_on,
    loop_threads,
    seconds,
    stuck_threads,
    where,
    who,
)
from agentscope.evidence.async_tasks import AsyncTasks, TaskSeen
from agentscope.evidence.native_threads import NativeThreads
from agentscope.evidence.pipes import Pipes
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import HeldSocket, Sockets
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.examination.frames import awaits_head, function_of, is_own, is_tls, reads_answer, subscribes, worker_state
from agentscope.examination.waiting import Obligation
from agentscope.model import Confidence, Finding, PythonFrame

PATIENT_S = 600.0  # the longest time-out that clients have by default: whoever still waits after that has none
REPEATS = 3
UNREAD_BYTES = 512  # less may be a farewell that nobody reads: an alert of TLS, a 408 of a proxy
BUSES = frozenset({"systemd", "dbus-daemon", "dbus-broker", "Xorg", "Xwayland", "pulseaudio", "pipewire", "systemd-journal"})


def match(
    *,
    waits: ThreadWaits,
    sockets: Sockets | None,
    pipes: Pipes | None,
    python: PythonThreads | None,
    native: NativeThreads | None,
    tasks: AsyncTasks | None,
) -> Finding | No:
    """A thread or loop that waits for bytes which do not come."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    seen = Seen(waits, sockets, python, native, tasks)
    reason: No | None = None
    unsure: Finding | None = None
    for answer in answers(seen, pipes):
        if isinstance(answer, Finding):
            if answer.confidence != "possible":
                return answer
            unsure = unsure or answer
        else:
            reason = reason or answer
    return unsure or reason or No("no thread of it has waited long for bytes")


class Seen:
    """The evidence of one examination, together."""

    def __init__(
        self,
        waits: ThreadWaits,
        sockets: Sockets | None,
        python: PythonThreads | None,
        native: NativeThreads | None,
        tasks: AsyncTasks | None,
    ) -> None:
        self.waits, self.sockets, self.python, self.native, self.tasks = waits, sockets, python, native, tasks
        self.loops = {(loop.thread.wait.pid, loop.thread.wait.tid) for loop in loop_threads(waits, python) if not loop.inside}

    def frames(self, thread: ThreadSeen) -> tuple[PythonFrame, ...]:
        """The Python frames of a thread."""
        return self.python.of(thread.wait.pid, thread.wait.tid) if self.python is not None else ()

    def is_loop(self, thread: ThreadSeen) -> bool:
        """Whether a thread waits for events on behalf of many."""
        return (thread.wait.pid, thread.wait.tid) in self.loops

    def reader(self, thread: ThreadSeen) -> TaskSeen | None:
        """The asyncio task that waits for bytes in the loop of this thread: one that reads an answer, else one that reads at all."""
        mine = self.tasks.of(thread.wait.pid) if self.tasks is not None and self.is_loop(thread) else ()
        reading = [each for each in mine if any(is_own(frame) for frame in each.chain)]
        whole = next((each for each in reading if reads_answer(each.chain[::-1])), None)
        if whole is None and thread.wait.kind == "llm" and reading:  # frameworks ask the model in tasks of their own
            whole = next((each for each in mine if reads_answer(each.chain[::-1]) and not subscribes(each.chain[::-1])), None)
        return whole or next((each for each in reading if each.chain[-1].file.endswith("asyncio/streams.py")), None)

    def place(self, thread: ThreadSeen) -> str:
        """Where in the program it is waited."""
        task = self.reader(thread)
        if task is not None and not any(is_own(frame) for frame in task.chain) and self.tasks is not None:
            asks = next((each for each in self.tasks.of(thread.wait.pid) if any(is_own(frame) for frame in each.chain)), None)
            return (asks or task).place
        return task.place if task is not None else where(thread, self.python, self.native)


def answers(seen: Seen, pipes: Pipes | None) -> Iterator[Finding | No]:
    """What each thread that has waited long says, and then what lies unread."""
    for thread in stuck_threads(seen.waits):
        process = seen.waits.process(thread.wait.pid)
        worker = goes_on(seen.waits, thread.wait.pid, without=thread.wait.tid)
        if worker is not None:
            yield No(f"thread {worker.wait.tid} goes on meanwhile")
        elif thread.call is not None and thread.call.name in OPENS and thread.wait.kind == "pipe":
            yield of_open(thread, seen)
        elif thread.ends and thread.call is not None and thread.call.name in READS and pipes is not None:
            alone = process is not None and process.threads == 1
            yield of_own_pipe(thread, seen, pipes, alone=alone)
        elif seen.sockets is not None:
            held = [each for inode in thread.wait.sockets if (each := seen.sockets.held(inode)) is not None]
            yield from of_sockets(thread, held, seen)
    yield from of_unread(seen)


# --- pipes ------------------------------------------------------------------------------------------------------------------


def of_open(thread: ThreadSeen, seen: Seen) -> Finding:
    """Blocked in open(2) of a FIFO: the kernel waits there for somebody to open the other end."""
    path = thread.call.path if thread.call is not None and thread.call.path else "a FIFO"
    place = seen.place(thread)
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: it opens the FIFO {path}{at(place)}, and nobody opens the other end",
        culprit=f"{path}: a FIFO whose other end nobody has open",
        confidence="likely",
        cites=cites(("python-threads", place and seen.python is not None), ("activity", True)),
        advice=(
            f"start whoever should use the other end, or see who does: fuser -v {path}",
            "open it without waiting (O_NONBLOCK) and poll with a time-out",
        ),
    )


def of_own_pipe(thread: ThreadSeen, seen: Seen, pipes: Pipes, *, alone: bool) -> Finding | No:
    """Blocked in reading a pipe that only the reader itself could write."""
    pipe = next((found for each in thread.ends if each.reads and (found := pipes.pipe(each.inode)) is not None), None)
    if pipe is None:
        return No("it waits at a pipe that could not be read")
    name = f"FIFO {pipe.path}" if pipe.path else "a pipe"
    other = next((end for end in pipe.writers if end.pid != thread.wait.pid), None)
    if other is not None or not pipe.writers:
        return No(f"it waits for bytes from {name}, which {who(other) if other else 'somebody who cannot be seen'} may write")
    if not alone:
        return No(f"it waits for bytes from {name}, which another thread of it may write")
    place = seen.place(thread)
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: it reads {name}{at(place)} that nobody but itself has open for writing",
        culprit=f"{name} without a writer: the reader holds the only writing end itself",
        confidence="certain" if pipes.whole else "likely",
        cites=cites(("pipes", True), ("python-threads", place and seen.python is not None)),
        advice=("close the writing end in the process that reads: then the read ends when the writer does",),
    )


# --- sockets ----------------------------------------------------------------------------------------------------------------


def of_sockets(thread: ThreadSeen, held: list[HeldSocket], seen: Seen) -> Iterator[Finding | No]:
    """A thread that waits at sockets: what is outstanding on them, the surest sign first."""
    assert seen.sockets is not None
    mine = [
        (each, owed) for each in held if not each.socket.accepted and (owed := seen.sockets.owed(each.socket.inode)) is not None
    ]
    gone = next(((each, owed) for each, owed in mine if owed.kind == "unacknowledged"), None)
    if gone is not None:
        yield of_vanished(thread, gone[0], seen)
    if thread.call is not None and thread.call.name in WRITES:
        full = next((each for each in held if each.socket.kind == "tcp" and each.socket.send_queue), None)
        if full is not None and not full.socket.retransmits:
            yield of_full(thread, full, seen)
        return
    asked = max(
        ((each, owed) for each, owed in mine if owed.kind == "unanswered"), key=lambda pair: pair[1].for_s or 0.0, default=None
    )
    if asked is not None:
        yield of_unanswered(thread, *asked, seen)
        return
    partly = [(each, owed) for each, owed in mine if owed.kind == "half-answered"]
    if partly:
        latest = min(partly, key=lambda pair: pair[1].for_s or 0.0)
        yield of_half(thread, *latest, seen, only=len(held) == 1)
        return
    local = held[0] if len(held) == 1 and held[0].socket.kind == "unix" else None
    if local is not None and thread.call is not None and thread.call.name in READS:
        yield of_unix(thread, local, seen)


def finding(
    thread: ThreadSeen,
    held: HeldSocket,
    seen: Seen,
    *,
    what: str,
    culprit: str,
    for_s: float | None,
    confidence: Confidence = "likely",
) -> Finding:
    """A finding about one peer."""
    place = seen.place(thread)
    task = seen.reader(thread)
    return Finding(
        headline=f"Hung for {seconds(for_s)}: it waits for {held.words}{at(place)}, {what}",
        culprit=f"{held.words} {culprit}",
        confidence=confidence,
        cites=cites(
            ("sockets", True), ("async-tasks", task), ("python-threads", place and task is None and seen.python is not None)
        ),
        advice=(
            f"see whether the other side works; the connection as the kernel sees it: ss -tanpoie dst {held.socket.peer}"
            if held.socket.kind == "tcp"
            else "see what the other side does: agentscope diagnose PID of it",
            f"give the wait a time-out{at(place)}: timeout= of the client, or socket.settimeout",
        ),
    )


def of_vanished(thread: ThreadSeen, held: HeldSocket, seen: Seen) -> Finding | No:
    """Nothing that was sent is acknowledged."""
    repeats = held.socket.retransmits
    silent_s = max((held.socket.unacknowledged_ms or 0) / 1e3, thread.for_s)
    if repeats < REPEATS:
        return No(f"only one sign: what was sent to {held.words} was repeated {repeats} times so far")
    if not endless(thread, LONG_S) and (held.socket.unacknowledged_ms or 0) / 1e3 < max(seen.waits.patience_s, LONG_S):
        return No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the wait for {held.words}")
    return finding(
        thread,
        held,
        seen,
        what=f"which acknowledges nothing any more ({repeats} repeats of {held.socket.send_queue} bytes)",
        culprit=f"has vanished: {repeats} repeats of {held.socket.send_queue} bytes in {seconds(silent_s)}, none acknowledged",
        for_s=silent_s,
    )


def of_full(thread: ThreadSeen, held: HeldSocket, seen: Seen) -> Finding | No:
    """Blocked in sending: the peer is there, and takes no more."""
    if not endless(thread, LONG_S):
        return No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the sending to {held.words}")
    queued = held.socket.send_queue
    return finding(
        thread, held, seen, what=f"which takes no more of what is sent to it ({queued} bytes wait)",
        culprit=f"does not read what is sent to it: {queued} bytes have waited for {seconds(thread.for_s)}", for_s=thread.for_s,
    )  # fmt: skip


def of_unanswered(thread: ThreadSeen, held: HeldSocket, owed: Obligation, seen: Seen) -> Finding | No:
    """A question, and not a byte since."""
    model = held.model is not None or thread.wait.kind == "llm"
    budget_s = max(seen.waits.patience_s, MODEL_S) if model else seen.waits.patience_s
    asked_s = owed.for_s or 0.0
    if asked_s < budget_s:
        within = f", of the {seconds(budget_s)} that a model may take" if model else ""
        return No(f"{held.words} was asked {seconds(asked_s)} ago{within}")
    if not endless(thread) and not (seen.is_loop(thread) and asked_s >= max(budget_s, PATIENT_S)):
        whose = "its event loop has a timer" if seen.is_loop(thread) else "its own time-out"
        return No(f"{whose} of {seconds(thread.wait.timeout_s)} that may end the wait for {held.words}")
    if subscribes(seen.frames(thread)):
        return No(f"it waits for news from {held.words}, as a subscriber does")
    return finding(
        thread, held, seen, what=f"which has not answered since it was asked {seconds(asked_s)} ago",
        culprit=f"has not answered for {seconds(asked_s)}, and the wait has no time-out", for_s=asked_s,
    )  # fmt: skip


def of_half(thread: ThreadSeen, held: HeldSocket, owed: Obligation, seen: Seen, *, only: bool) -> Finding | No:
    """Bytes came after the question, and then no more. An idle connection looks the same: the reader's frames tell."""
    frames = seen.frames(thread)
    task = seen.reader(thread)
    chain = task.chain[::-1] if task is not None else frames
    silent_s = owed.for_s or 0.0
    if silent_s < seen.waits.patience_s:
        return No(f"{held.words} sent something {seconds(silent_s)} ago")
    if awaits_head(chain):  # it asked again in the very millisecond in which the last answer came
        return of_unanswered(thread, held, owed, seen)
    if subscribes(chain):
        return No(f"it waits for news from {held.words}, as a subscriber does")
    multiplexed = thread.call is None or thread.call.name in MULTIPLEXES
    if not only and task is None:
        return No(f"its connection to {held.words} is idle, and it waits for other things as well")
    encrypted = is_tls(chain) or (held.socket.peer or "").rpartition(":")[2] in TLS_PORTS
    if encrypted:  # what came may be the protocol's own: then it is as if there was no answer
        if silent_s < (max(seen.waits.patience_s, MODEL_S) if held.model else seen.waits.patience_s):
            return No(f"{held.words} was asked {seconds(silent_s)} ago, within what a model may take")
        if not endless(thread):
            return No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the wait for {held.words}")
    elif not endless(thread, LONG_S):
        return No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the wait for {held.words}")
    if not reads_answer(chain) and multiplexed:
        return No(f"only one sign: its connection to {held.words} is silent, as an idle one is")
    return finding(
        thread, held, seen, what=f"which answered in part and then fell silent {seconds(silent_s)} ago",
        culprit=f"stopped in the middle of its answer {seconds(silent_s)} ago", for_s=silent_s,
        confidence="likely" if reads_answer(chain) else "possible",
    )  # fmt: skip


def of_unix(thread: ThreadSeen, held: HeldSocket, seen: Seen) -> Finding | No:
    """A daemon of this machine behind a unix socket. When it was asked the kernel does not tell."""
    holder, path = held.socket.peer_holder, held.socket.peer or held.socket.local
    if holder is None or not path or held.socket.accepted or held.socket.receive_queue or held.socket.state != "established":
        return No("it waits at a unix socket, and who should write there is not known")
    if seen.waits.process(holder.pid) is not None or holder.comm in BUSES or subscribes(seen.frames(thread)):
        return No(f"it waits for news from {who(holder)}")
    if not endless(thread):
        return No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the wait for {who(holder)}")
    if holder.state == "R" or worker_state(seen.frames(thread)) is not None:
        return No(f"{who(holder)}, for which it waits, works")
    named = f"{path} ({who(holder)})"
    found = finding(thread, held, seen, what="which does not answer", culprit="", for_s=thread.for_s)
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: it waits for {named}{at(seen.place(thread))}, which does not answer and is idle",
        culprit=f"{named} has not answered for {seconds(thread.for_s)}, and the wait has no time-out",
        confidence="likely",
        cites=found.cites,
        advice=(f"see what it does: agentscope diagnose {holder.pid}", found.advice[1]),
    )


def of_unread(seen: Seen) -> Iterator[Finding | No]:
    """The peer has answered and closed, and what it sent is not read by anybody."""
    waits = seen.waits
    for owed in seen.sockets.obligations if seen.sockets is not None else ():
        held = seen.sockets.held(owed.inode) if seen.sockets is not None else None
        process = waits.process(owed.pid)
        if owed.kind != "closed-unread" or held is None or process is None or not process.own:
            continue
        unread = held.socket.receive_queue - (held.socket.kind == "tcp")  # the end of the stream counts as one
        blocked = next((each for each in stuck_threads(waits) if waits_inside(each, owed.pid, seen)), None)
        if any(owed.inode in each.wait.sockets for each in waits.of(owed.pid)) or (owed.for_s or 0.0) < waits.patience_s:
            continue
        if unread < UNREAD_BYTES or blocked is None or goes_on(waits, owed.pid) is not None:
            yield No(f"only one sign: {held.words} closed, and {unread} bytes of it are not read")
            continue
        place = seen.place(blocked)
        yield Finding(
            headline=f"Hung for {seconds(owed.for_s)}: {held.words} has answered and closed, and {unread} bytes of that are not read; "
            f"thread {blocked.wait.tid} waits for {blocked.wait.says}{at(place)} instead",
            culprit=f"{unread} bytes from {held.words} that nobody reads{f'; {place} waits for {blocked.wait.says}' if place else ''}",
            confidence="likely",
            cites=cites(("sockets", True), ("python-threads", place and seen.python is not None)),
            advice=(
                f"find out what the reader waits for{at(place)}: a queue that nobody empties, a lock that is not given back",
                f"to see the stacks yourself: py-spy dump --pid {owed.pid}",
            ),
        )


def waits_inside(thread: ThreadSeen, pid: int, seen: Seen) -> bool:
    """Whether a thread of a process waits without end for something inside it, and is no idle worker of a pool."""
    frames = seen.frames(thread)
    inside = thread.wait.pid == pid and thread.wait.kind == "lock" and endless(thread)
    joins = bool(frames) and function_of(frames[0]) in {"_wait_for_tstate_lock", "join"}
    return inside and not joins and worker_state(frames) != "idle"
