"""Class `hang`: it lives, and does not get on. What the causes of this class judge by, once for all of them.

A clock runs only on something outstanding, and a verdict needs two signs that do not depend on each other. What a person, a
debugger or a tool that works makes it wait for is no hang, however long.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agentscope.causes import No
from agentscope.evidence.async_tasks import AsyncTasks, TaskSeen
from agentscope.evidence.health import HealthCheck
from agentscope.evidence.native_threads import NativeThreads
from agentscope.evidence.progress import Progress
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import HeldSocket, Sockets
from agentscope.evidence.thread_waits import ProcessSeen, ThreadSeen, ThreadWaits
from agentscope.examination import Holder
from agentscope.examination.frames import blamed_native, blamed_place, file_name, function_of, is_own, loop_state, worker_state
from agentscope.examination.waiting import Obligation, Wait
from agentscope.model import PythonFrame

IDLE = 0.05
LONG_S = 60.0  # a time-out above this is as good as none to whoever waits
MODEL_S = 180.0  # what a model may take to begin its answer
TLS_PORTS = frozenset({"443", "8443", "465", "636", "993", "5671"})

# man-pages(2): what the calls do with their descriptors
READS = frozenset({"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg", "splice", "tee"})
WRITES = frozenset(
    {"write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "sendfile", "vmsplice"}
)
MULTIPLEXES = frozenset({"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2"})
OPENS = frozenset({"open", "openat", "openat2", "creat"})
AWAITS_CHILD = frozenset({"wait4", "waitid"})
RUNTIMES_WITH_A_LOOP = frozenset({"node", "nodejs", "bun", "deno"})


# --- words ----------------------------------------------------------------------------------------------------------------


def seconds(length_s: float | None) -> str:
    """A duration for a headline: "43 s", "4 min", "2.5 h"."""
    if length_s is None:
        return "an unknown time"
    if length_s < 120:
        return f"{max(0.0, length_s):.0f} s"
    return f"{length_s / 60:.0f} min" if length_s < 7200 else f"{length_s / 3600:.1f} h"


def who(holder: Holder) -> str:
    """A process as it is named in a sentence."""
    return f"{holder.comm} (pid {holder.pid})"


def where(thread: ThreadSeen, python: PythonThreads | None, native: NativeThreads | None = None) -> str:
    """The place in the program where a thread waits: "agent.py:12 in ask"; its native symbol; "" where neither is known."""
    pid, tid = thread.wait.pid, thread.wait.tid
    place = blamed_place(python.of(pid, tid)) if python is not None else ""
    return place or (blamed_native(native.of(pid, tid)) if native is not None else None) or ""


def doing(wait: Wait) -> str:
    """What a thread does, as a clause: "waits for a lock", "is sleeping 90 s"."""
    return f"is {wait.says}" if wait.kind == "timer" and wait.says.startswith("sleeping") else f"waits for {wait.says}"


def an(noun: str) -> str:
    """A noun with its article."""
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def at(place: str) -> str:
    """A place as a clause, where there is one."""
    return f" at {place}" if place else ""


def cites(*kinds: tuple[str, object]) -> tuple[str, ...]:
    """The kinds of evidence that a finding rests on, thread-waits first, then those that are there and speak for it."""
    return ("thread-waits", *(kind for kind, speaks in kinds if speaks))


# --- what excuses every wait ------------------------------------------------------------------------------------------------


def excused(waits: ThreadWaits) -> No | None:
    """Why waiting is right, whatever it waits for: a debugger holds it, a person is asked, a tool that it waits for works."""
    agent = waits.agent
    if agent.tracer is not None:
        return No(f"{agent.tracer} traces it: a debugger decides when it goes on")
    if agent.threads and agent.stopped == agent.threads:
        return No("a signal stopped it: nothing of it can go on")
    for thread in waits.of(agent.pid):
        wait = thread.wait
        if wait.kind == "traced":
            return No("a debugger holds it")
        if wait.kind == "human":
            return No(f"it waits for a person: {wait.says}")
        if wait.kind == "tool" and wait.child is not None and waits.works(wait.child):
            return No(f"it waits for {wait.says}, which works")
    if any(thread.call is not None and thread.call.name in MULTIPLEXES for thread in waits.of(agent.pid)):
        tool = next((each for each in waits.below(agent.pid) if each.works and not each.own), None)
        if tool is not None:
            return No(f"its tool {tool.words} works")
    return None


def stuck_threads(waits: ThreadWaits) -> Iterator[ThreadSeen]:
    """The threads of the agent's own that have waited at least as long as a person is patient, longest first."""
    long = [each for each in waits.own() if each.for_s >= waits.patience_s and each.wait.kind not in {"running", "traced"}]
    yield from sorted(long, key=lambda each: (each.wait.pid != waits.agent.pid, not each.main, -each.for_s))


def goes_on(waits: ThreadWaits, pid: int, *, without: int | None = None) -> ThreadSeen | None:
    """A thread of a process, other than `without`, that uses a CPU: then the process as a whole is not stuck."""
    return next(
        (
            each
            for each in waits.of(pid)
            if each.wait.tid != without and (each.wait.kind == "running" or (each.cpu_share or 0.0) >= IDLE)
        ),
        None,
    )


def endless(thread: ThreadSeen, longest_s: float | None = None) -> bool:
    """Whether a wait was given no time-out, or one above `longest_s`."""
    timeout_s = thread.wait.timeout_s
    return timeout_s is None or (longest_s is not None and timeout_s > longest_s)


# --- event loops -------------------------------------------------------------------------------------------------------------


class LoopThread(NamedTuple):
    """A thread that runs an event loop. `inside`: it is in a callback, not waiting for events."""

    thread: ThreadSeen
    inside: bool
    frames: tuple[PythonFrame, ...]
    runtime: str


def loop_threads(waits: ThreadWaits, python: PythonThreads | None) -> list[LoopThread]:
    """The threads of the agent's own that run an event loop: known by their Python frames, or by the runtime of the program."""
    found = []
    for thread in waits.own():
        process = waits.process(thread.wait.pid)
        frames = python.of(thread.wait.pid, thread.wait.tid) if python is not None else ()
        state = loop_state(frames)
        if state is not None:
            found.append(LoopThread(thread, state == "inside", frames, "python"))
        elif process is not None and thread.main and has_a_loop(process):
            waiting = thread.call is not None and thread.call.name in MULTIPLEXES
            found.append(
                LoopThread(thread, not waiting and thread.wait.kind not in {"unknown", "stopped", "traced"}, (), "node")
            )
    return found


def has_a_loop(process: ProcessSeen) -> bool:
    """Whether the main thread of a process runs an event loop, as Node's does."""
    return process.comm in RUNTIMES_WITH_A_LOOP or program_of(process) in RUNTIMES_WITH_A_LOOP


def program_of(process: ProcessSeen) -> str:
    """The program of a process by its command: Node's main thread calls itself MainThread."""
    words = process.command.split()
    return file_name(words[0]) if words else process.comm


# --- what others wait for -----------------------------------------------------------------------------------------------------


class Due(NamedTuple):
    """Something that the agent owes: in words, for how long, and the kinds of evidence that say so."""

    says: str
    for_s: float | None
    cites: tuple[str, ...]
    obligation: Obligation | None = None


def dues(
    waits: ThreadWaits,
    sockets: Sockets | None,
    tasks: AsyncTasks | None = None,
    health: HealthCheck | None = None,
    progress: Progress | None = None,
) -> list[Due]:
    """What the agent owes for longer than a person is patient, the surest first.

    A request that was read and not answered counts with a second sign only: many protocols have messages that need no answer.
    """
    own = {process.pid for process in waits.processes if process.own}
    unwell = [*failing(health, progress)]
    found = []
    for each in sockets.obligations if sockets is not None else ():
        long = each.for_s is not None and each.for_s >= waits.patience_s
        if each.pid not in own or not (long or (each.kind == "backlog" and each.for_s is None)):
            continue
        if each.kind in {"unread", "backlog"}:
            found.append(Due(each.says, each.for_s, ("sockets",), each))
        elif each.kind == "owed" and sockets is not None:
            signs = answer_is_due(each, sockets, tasks, unwell)
            found += [Due(each.says, each.for_s, ("sockets", *signs), each)] if signs is not None else []
    found.sort(key=lambda due: (due.for_s is None, -len(due.cites), -(due.for_s or 0.0)))
    return found + unwell


def failing(health: HealthCheck | None, progress: Progress | None) -> Iterator[Due]:
    """What the owner's own probes say, where they say that it is not well."""
    if health is not None and health.failing:
        yield Due(health.says(), health.failing_for_s, ("health",))
    if progress is not None and progress.overdue:
        yield Due(progress.says(), progress.last_ago_s, ("progress",))


def answer_is_due(owed: Obligation, sockets: Sockets, tasks: AsyncTasks | None, unwell: list[Due]) -> tuple[str, ...] | None:
    """Whether a request that was read really waits for an answer: the further kinds of evidence that say so, or None."""
    if unwell:
        return unwell[0].cites
    held = sockets.held(owed.inode)
    if tasks is not None and next(telling_tasks(tasks, owed.pid, sockets), None) is not None:
        return ("async-tasks",)
    client = held.socket.peer_holder if held is not None else None
    return () if client is not None and client.state in {"S", "D"} and client.waits is not False else None


def telling_tasks(tasks: AsyncTasks, pid: int, sockets: Sockets) -> Iterator[TaskSeen]:
    """The tasks of a process that wait for something of the program's own, not for bytes, a pause, or work to do.

    Where as many tasks read from connections as there are connections, each has its reader, and none waits for an answer.
    """
    mine = tasks.of(pid)
    reading = sum(innermost_file(task).endswith("asyncio/streams.py") for task in mine)
    accepted = sum(held.socket.accepted and held.socket.state == "established" for held in sockets.of(pid))
    if reading and reading >= accepted:
        return
    for task in mine:
        idle = innermost_file(task).endswith(("asyncio/streams.py", "asyncio/queues.py", "asyncio/base_events.py"))
        own = any(is_own(frame) for frame in task.chain)
        timed = any(function_of(frame) == "wait_for" for frame in task.chain)
        # the first task is the program's own life, which often waits for a signal to end
        if task.awaits not in {None, "sleep"} and own and not idle and not timed and task.name != "Task-1":
            yield task


def innermost_file(task: TaskSeen) -> str:
    """The file in which the innermost coroutine of a task waits."""
    return task.chain[-1].file if task.chain else ""


def asked_elsewhere(sockets: Sockets | None, pid: int) -> HeldSocket | None:
    """A socket of a process on which it has asked somebody else and has no answer: then it waits for that."""
    if sockets is None:
        return None
    kinds = {"unanswered", "connecting", "unacknowledged"}
    return next((held for held in sockets.of(pid) if (owed := sockets.owed(held.socket.inode)) and owed.kind in kinds), None)


def has_job(threads: Iterable[ThreadSeen], python: PythonThreads | None) -> ThreadSeen | None:
    """A worker thread of a pool that has a job: what waits for a thread of the program may wait for it."""
    if python is None:
        return None
    return next((each for each in threads if worker_state(python.of(each.wait.pid, each.wait.tid)) == "job"), None)
