"""The event loop has nothing to do, though a request waits for its answer: what the request waits for never comes.

What it means: the program took a request and then awaits something inside itself, an asyncio lock, an event, a
future, a promise, that nobody will ever release, set or resolve. The event loop sleeps, all looks idle, and the
client waits.

How agentscope knows: the loop waits for events and no other thread has work; a request was read from a connection and
not answered for longer than you allow; and a task of the program is seen waiting for something of its own, or the
client is seen waiting on this machine, or a probe of yours fails.

What to do: look at the line where the task waits, and find out who should have released, set or resolved that and did
not: an exception on the way, a task that was cancelled or never started. asyncio.wait_for puts an end to such
waiting.

What looks like it but is not: a server without requests; one whose clients send messages that need no answer; an
answer that takes time because a timer, a tool, a worker thread or another server is behind it; a callback that blocks
the loop (hang/event-loop-blocked).
"""

from agentscope.causes import No
from agentscope.causes.hang import (
    LONG_S,
    MULTIPLEXES,
    Due,
    LoopThread,
    an,
    asked_elsewhere,
    cites,
    dues,
    endless,
    excused,
    goes_on,
    has_job,
    loop_threads,
    seconds,
    telling_tasks,
)
from agentscope.evidence.async_tasks import AsyncTasks, TaskSeen
from agentscope.evidence.health import HealthCheck
from agentscope.evidence.progress import Progress
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.model import Finding

NODE_TIMER_S = 30.5  # a Node server looks at its connections every 30 s, whatever else it has to do


def match(
    *,
    waits: ThreadWaits,
    sockets: Sockets,
    python: PythonThreads | None,
    tasks: AsyncTasks | None,
    health: HealthCheck | None,
    progress: Progress | None,
) -> Finding | No:
    """A loop that idles while a request is unanswered, with a second sign that an answer is due."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    loops = idle_loops(waits, python)
    if not loops:
        return No("no event loop of it waits for events")
    owed = [each for each in sockets.obligations if each.kind == "owed"]
    if not any((each.for_s or 0.0) >= waits.patience_s for each in owed):
        return No("no request has waited long for its answer")
    reason = No("only one sign: a request was read and not answered, but whether it needs an answer is not known")
    for due in dues(waits, sockets, tasks, health, progress):
        obligation = due.obligation
        if obligation is None or obligation.kind != "owed":
            continue
        loop = next((each for each in loops if each.thread.wait.pid == obligation.pid), None)
        if loop is None:
            continue
        task = next(telling_tasks(tasks, obligation.pid, sockets), None) if tasks is not None else None
        other = reason_to_wait(loop, waits, sockets, python, task)
        if other is not None:
            reason = other
            continue
        return found(loop, due, sockets, task)
    return reason


def idle_loops(waits: ThreadWaits, python: PythonThreads | None) -> list[LoopThread]:
    """The event loops that wait for events; one that no frames tell of is known by a thread that waits for many things at once."""
    known = [each for each in loop_threads(waits, python) if not each.inside]
    pids = {each.thread.wait.pid for each in known}
    others = [
        LoopThread(each, inside=False, frames=(), runtime="other")
        for each in waits.own()
        if each.wait.pid not in pids and multiplexes(each) and each.wait.kind in {"accept", "events"}
    ]
    return known + others


def multiplexes(thread: ThreadSeen) -> bool:
    """Whether a thread is in poll, select or epoll."""
    return thread.call is not None and thread.call.name in MULTIPLEXES


def reason_to_wait(
    loop: LoopThread, waits: ThreadWaits, sockets: Sockets, python: PythonThreads | None, task: TaskSeen | None
) -> No | None:
    """What the answer may be waiting for, rightly."""
    pid = loop.thread.wait.pid
    busy = goes_on(waits, pid)
    if busy is not None:
        return No(f"thread {busy.wait.tid} of it works")
    elsewhere = asked_elsewhere(sockets, pid)
    if elsewhere is not None:
        return No(f"it waits for {elsewhere.words} itself")
    job = has_job((each for each in waits.of(pid) if each is not loop.thread), python)
    if job is not None:
        return No(f"its worker thread {job.wait.tid} has a job: it waits for {job.wait.says}")
    waiting = next((each for each in waits.of(pid) if each.wait.kind in {"tool", "llm", "disk", "file-lock"}), None)
    if waiting is not None:
        return No(f"thread {waiting.wait.tid} waits for {waiting.wait.says}")
    timeout_s = loop.thread.wait.timeout_s
    timed = not endless(loop.thread, LONG_S) and not (loop.runtime == "node" and (timeout_s or 0.0) <= NODE_TIMER_S)
    if timed and task is None:
        return No(f"its event loop has a timer that ends in {seconds(timeout_s)} at most")
    return None


def found(loop: LoopThread, due: Due, sockets: Sockets, task: TaskSeen | None) -> Finding:
    """The finding."""
    held = sockets.held(due.obligation.inode if due.obligation is not None else None)
    peer = held.words if held is not None else "a client"
    place = task.place if task is not None else ""
    awaits = f" awaits {an(task.awaits)}" if task is not None and task.awaits else " waits"
    what = f"; task {task.name}{awaits} at {place}" if task is not None else ""
    runtime = "py-spy dump --pid" if loop.runtime == "python" else "node's inspector opens with kill -USR1"
    return Finding(
        headline=f"Hung for {seconds(due.for_s)}: its event loop has nothing to do, and the request of {peer} is not answered{what}",
        culprit=f"{place}{awaits}; the request of {peer} has waited for {seconds(due.for_s)}"
        if task is not None
        else f"the request of {peer}, unanswered for {seconds(due.for_s)}",
        confidence="likely",
        cites=cites(
            *((kind, True) for kind in due.cites), ("async-tasks", task is not None and "async-tasks" not in due.cites)
        ),
        advice=(
            f"find out who should end the wait{f' at {place}' if place else ''} and did not: an exception, a cancelled task",
            "put a limit on it: asyncio.wait_for(..., timeout=30)"
            if loop.runtime == "python"
            else "put a limit on it: Promise.race with a timer",
            f"to see more: {runtime} {loop.thread.wait.pid}",
        ),
    )
