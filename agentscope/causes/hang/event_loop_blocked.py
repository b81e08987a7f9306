"""A piece of code blocks the event loop, so that nothing else of the program can run meanwhile.

What it means: asyncio, Node and the like run everything in one thread, turn by turn. Code that sleeps, computes or
waits for something in the ordinary, blocking way keeps its turn, and every other task, timer and connection waits
with it.

How agentscope knows: the thread that runs the event loop is inside one callback instead of waiting for events, for
longer than you allow, and somebody waits meanwhile: connections that are not accepted, bytes that are not read, a
request that is not answered, or a probe of yours that fails.

What to do: the line that is named must not block. Use the awaitable form (asyncio.sleep, an asynchronous client), or
move the work into a thread or process: await asyncio.to_thread(...), run_in_executor, worker_threads.

What looks like it but is not: a server that is busy but answers; work in an executor, during which the loop waits for
events as it should; a loop that has nothing to do because a task waits (hang/event-loop-stalled).
"""

from agentscope.causes import No
from agentscope.causes.hang import (
    Due,
    LoopThread,
    at,
    cites,
    doing,
    dues,
    excused,
    loop_threads,
    program_of,
    seconds,
    where,
)
from agentscope.evidence.async_tasks import AsyncTasks
from agentscope.evidence.health import HealthCheck
from agentscope.evidence.progress import Progress
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.stack_samples import SampledThreads
from agentscope.evidence.syscall_profile import CallProfile
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.examination.frames import own_frame
from agentscope.model import Finding

TURNS = frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"})


def match(
    *,
    waits: ThreadWaits,
    sockets: Sockets | None,
    python: PythonThreads | None,
    tasks: AsyncTasks | None,
    health: HealthCheck | None,
    progress: Progress | None,
    profile: CallProfile | None,
    samples: SampledThreads | None,
) -> Finding | No:
    """The loop's thread is in a callback, and somebody waits."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    loops = loop_threads(waits, python)
    if not loops:
        return No("no event loop was found in it")
    reason = No("its event loop waits for events, as it should")
    owed = dues(waits, sockets, tasks, health, progress)
    for loop in (each for each in loops if each.inside):
        due = next((each for each in owed if concerns(each, loop)), None)
        turns = profile.succeeded(loop.thread.wait.pid, TURNS) if profile is not None else 0
        busy = loop.thread.busy
        if not busy and loop.thread.for_s < waits.patience_s:
            reason = No(f"its event loop has been in a callback for {seconds(loop.thread.for_s)} only")
        elif busy and turns:
            reason = No(f"its event loop is busy, but came round {turns} times while it was looked at")
        elif due is None:
            reason = No("only one sign: its event loop is in a callback, but nobody is known to wait for it")
        elif busy and not lasted(loop, due, waits, profile):
            reason = No("its event loop is busy, but nobody has waited long")
        else:
            return found(loop, due, waits, python, busy=busy, profile=profile, samples=samples)
    return reason


def concerns(due: Due, loop: LoopThread) -> bool:
    """Whether what is owed is owed by the loop's process; what a probe says is said of the agent as a whole."""
    return due.obligation is None or due.obligation.pid == loop.thread.wait.pid


def lasted(loop: LoopThread, due: Due, waits: ThreadWaits, profile: CallProfile | None) -> bool:
    """Whether a busy loop has been so for long, by its own time on the CPU or by the time that somebody has waited."""
    if loop.thread.for_s >= waits.patience_s or (due.for_s or 0.0) >= waits.patience_s:
        return True
    return waits.watched_s is None and profile is not None  # it was traced for seconds, and did not come round once


def found(
    loop: LoopThread,
    due: Due,
    waits: ThreadWaits,
    python: PythonThreads | None,
    *,
    busy: bool,
    profile: CallProfile | None,
    samples: SampledThreads | None,
) -> Finding:
    """The finding."""
    thread = loop.thread
    process = waits.process(thread.wait.pid) or waits.agent
    place = where(thread, python)
    sampled = samples.of(thread.wait.pid, thread.wait.tid) if samples is not None else None
    hottest = sampled.python_lines[0] if sampled is not None and sampled.python_lines and not place else ""
    call = blocking_call(loop)
    for_s = thread.for_s if not busy or thread.for_s >= (due.for_s or 0.0) else due.for_s
    does = "computes" if busy else doing(thread.wait)
    spot = place or hottest or f"the main thread of {program_of(process)} (pid {process.pid})"
    return Finding(
        headline=f"Hung for {seconds(for_s)}: its event loop is blocked{at(place or hottest)}, where it {does}; meanwhile {due.says}",
        culprit=f"{call} at {place}" if call and place else f"{spot} {does if busy else 'blocks'}",
        confidence="likely",
        cites=cites(
            ("python-threads", loop.frames),
            *((kind, True) for kind in due.cites),
            ("syscall-profile", busy and profile is not None),
            ("stack-samples", busy and sampled is not None),
        ),
        advice=(
            f"move the blocking call{at(place)} out of the loop: await asyncio.to_thread(...)"
            if loop.runtime == "python"
            else f"see what it computes: kill -USR1 {thread.wait.pid} opens Node's inspector; move the work to worker_threads",
            f"to see the stack yourself: py-spy dump --pid {thread.wait.pid}"
            if loop.runtime == "python"
            else "give up the turn now and then: setImmediate between pieces of the work",
        ),
    )


def blocking_call(loop: LoopThread) -> str:
    """What the program's own line calls, where it is known: "time.sleep"."""
    thread, own = loop.thread, own_frame(loop.frames)
    if thread.call is not None and thread.call.name in {"nanosleep", "clock_nanosleep"} and own == (loop.frames or (None,))[0]:
        return "time.sleep"
    return "" if thread.call is None else f"a blocking call ({thread.call.name})"
