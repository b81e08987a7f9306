"""A thread runs round in circles on the CPU: it makes no system call, writes nothing and comes to no end.

What it means: a loop waits for something by looking at it without pause, or a computation never reaches its end.
Where the language has a global lock, as Python has, an extension that keeps it stops all other threads too.

How agentscope knows: a thread used a whole CPU while its process made no system calls and wrote nothing; and either
it only repeats itself (the same instructions with the same values, two hundred times looked at), or somebody waits
for the process meanwhile.

What to do: look at the line or function that is named. Wait with an event, a condition or a sleep instead of looking
again and again; give long computations an end, and let extensions release the interpreter lock.

What looks like it but is not: training, compiling or compressing, which compute at many places and get on; a garbage
collection; a server that is busy and answers; a computation that blocks an event loop (hang/event-loop-blocked); a
call that fails again and again (hang/retry-loop).
"""

from agentscope.causes import No
from agentscope.causes.hang import Due, at, cites, dues, excused, loop_threads, seconds, where
from agentscope.evidence.activity import Activity
from agentscope.evidence.health import HealthCheck
from agentscope.evidence.progress import Progress
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.stack_samples import SampledThreads
from agentscope.evidence.syscall_profile import CallProfile
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.examination import StackSamples
from agentscope.examination.frames import file_name, is_interpreter, module_of, symbol_of
from agentscope.model import Finding

CALLS_PER_S = 5.0
REPEATED_SHARE = 0.5  # of the samples: what only looks repeats itself nearly always, what computes hardly ever
GIL_WAIT_S = 0.1  # who wants the interpreter lock asks for it every 5 ms (ceval_gil.h)
# Calls that a spinning loop makes or that threads make which wait for it: they do nothing. To ask for the time is a call only where
# the machine's clock cannot be read without the kernel (vdso(7); an emulated one, or a clock source such as hpet).
ASKS_TIME = frozenset({"clock_gettime", "clock_getres", "gettimeofday", "time", "getcpu"})
IDLE_CALLS = ASKS_TIME | {"futex", "futex_wait", "futex_waitv", "sched_yield", "restart_syscall"}


def match(
    *,
    waits: ThreadWaits,
    profile: CallProfile,
    samples: SampledThreads | None,
    python: PythonThreads | None,
    sockets: Sockets | None,
    health: HealthCheck | None,
    progress: Progress | None,
    activity: Activity | None,
) -> Finding | No:
    """A busy thread without system calls, in a tight loop or while somebody waits."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    busy = [each for each in waits.own() if each.busy]
    if not busy:
        return No("no thread of it uses a whole CPU")
    output_s = activity.output_ago_s if activity is not None else None
    if output_s is not None and output_s < waits.patience_s:
        return No(f"it wrote output {seconds(output_s)} ago")
    owed = dues(waits, sockets, None, health, progress)
    loops = {(each.thread.wait.pid, each.thread.wait.tid) for each in loop_threads(waits, python)}
    reason = No("no thread of it spins")
    for thread in busy:
        pid, tid = thread.wait.pid, thread.wait.tid
        calls = profile.count(pid, without=IDLE_CALLS) / profile.seconds
        sampled = samples.of(pid, tid) if samples is not None else None
        due = next((each for each in owed if each.obligation is None or each.obligation.pid == pid), None)
        tight = is_tight(sampled)
        if calls >= CALLS_PER_S or profile.written_by(pid):
            reason = No(f"thread {tid} is busy, and its process gets on: {calls:.0f} system calls a second")
        elif (pid, tid) in loops and due is not None:
            return No(f"thread {tid} computes inside a callback of an event loop")
        elif waits.watched_s is not None and thread.for_s < waits.patience_s:
            reason = No(f"thread {tid} has been busy for {seconds(thread.for_s)} only")
        elif due is None and not tight:
            reason = No(
                f"only one sign: thread {tid} computes without system calls, but at many places, and nobody waits for it"
            )
        else:
            return found(thread, profile, sampled, python, waits, due=due, tight=tight)
    return reason


def is_tight(sampled: StackSamples | None) -> bool:
    """Whether a thread only repeats itself: it was found at the same instructions with the same values in all registers."""
    return sampled is not None and (sampled.repeated_share or 0.0) >= REPEATED_SHARE


def gil_waiters(thread: ThreadSeen, waits: ThreadWaits, python: PythonThreads | None) -> list[ThreadSeen]:
    """The Python threads that want the interpreter lock which a busy thread keeps."""
    if python is None or not any(each.tid == thread.wait.tid and each.owns_gil for each in python.threads):
        return []
    return [
        each
        for each in waits.of(thread.wait.pid)
        if each.wait.kind == "lock" and each.wait.timeout_s is not None and each.wait.timeout_s <= GIL_WAIT_S
    ]


def shown(line: str) -> str:
    """A sampled line "function (/srv/agent.py:10)" as places are written everywhere: "agent.py:10 in function"."""
    function, _, place = line.removesuffix(")").rpartition(" (")
    return file_name(place) if function in {"", "<module>"} else f"{file_name(place)} in {function}"


def found(
    thread: ThreadSeen,
    profile: CallProfile,
    sampled: StackSamples | None,
    python: PythonThreads | None,
    waits: ThreadWaits,
    *,
    due: Due | None,
    tight: bool,
) -> Finding:
    """The finding."""
    pid, tid = thread.wait.pid, thread.wait.tid
    lines = sampled.python_lines if sampled is not None else ()
    native = next((each.place for each in sampled.places if not is_interpreter(each.place)), "") if sampled is not None else ""
    place = shown(lines[0]) if lines and tight else where(thread, python) or (shown(lines[0]) if lines else "")
    symbol = f"{symbol_of(native)} ({module_of(native)})" if module_of(native) else native
    spot = ", in ".join(each for each in (place, symbol) if each) or f"thread {tid} of {thread.comm}"
    for_s = thread.for_s if waits.watched_s is not None else max(thread.for_s, profile.seconds)
    kept = gil_waiters(thread, waits, python)
    gil = f"; {len(kept)} other threads want the interpreter lock (GIL), which it keeps" if kept else ""
    meanwhile = f"; meanwhile {due.says}" if due is not None else ""
    late = "" if waits.watched_s is not None else "at least "
    return Finding(
        headline=f"Spinning for {late}{seconds(for_s)}: thread {tid} uses a whole CPU{at(spot)}, without a system call{gil}{meanwhile}",
        culprit=spot,
        confidence="likely",
        cites=cites(
            ("syscall-profile", True),
            ("stack-samples", sampled is not None),
            *((kind, True) for kind in (due.cites if due is not None else ())),
            ("python-threads", python is not None and (place or kept)),
        ),
        advice=(
            "wait by an event, a condition or a sleep instead of looking again and again",
            f"to see the stack yourself: {'py-spy dump --pid' if python is not None else 'sudo perf top -p'} {pid}",
        ),
    )
