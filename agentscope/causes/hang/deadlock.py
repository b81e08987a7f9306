"""Threads wait for each other's locks in a circle, or for a lock that nobody is left to release.

What it means: a lock lets one thread at a time into a piece of code. Where one thread holds a lock and waits for a
second one, and whoever holds that waits for the first, neither can ever go on. A thread that takes a plain lock twice
waits for itself; a lock whose holder has ended is never released.

How agentscope knows: it reads from outside who waits for which lock and who holds it, and follows the holders until
it comes back to where it began: a proof. Where holders cannot be known it says so only if every thread of the process
waits without end while a request is unanswered or a probe of yours fails, and then as likely.

What to do: take locks in the same order everywhere, or hold one at a time; use `with`, so that an error releases the
lock; a lock that one thread takes twice must be re-entrant (RLock). Until then the process must be restarted.

What looks like it but is not: a lock whose holder works, sleeps for a bounded time or waits for a model (it will be
released); idle workers of a thread pool; a pool without a free connection (hang/pool-exhausted); a lock on a file
(hang/file-lock); a lock of asyncio (hang/event-loop-stalled).
"""

from collections.abc import Iterator

from agentscope.causes import No
from agentscope.causes.hang import Due, at, cites, dues, endless, excused, loop_threads, seconds, where
from agentscope.evidence.health import HealthCheck
from agentscope.evidence.lock_waits import LockWaits
from agentscope.evidence.native_threads import NativeThreads
from agentscope.evidence.progress import Progress
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.examination import LockWait
from agentscope.examination.frames import file_name, function_of, line_of, own_frame, pool_frame, worker_state
from agentscope.model import Finding

Ring = tuple[LockWait, ...]


def match(
    *,
    waits: ThreadWaits,
    locks: LockWaits | None,
    python: PythonThreads | None,
    native: NativeThreads | None,
    sockets: Sockets | None,
    health: HealthCheck | None,
    progress: Progress | None,
) -> Finding | No:
    """A ring of holders; a lock of a thread that has ended; or nobody is left who could release it."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    ring = ring_of(waits, locks)
    if ring:
        return of_ring(ring, waits, python, native)
    left = next(orphaned(waits, locks), None)
    alone = None if left else nobody_left(waits, locks, python)
    if isinstance(alone, No):
        return alone
    if left is None and alone is None:
        return No("no ring of holders was found")
    pid = left.pid if left is not None else alone.wait.pid if alone is not None else None
    owed = dues(waits, sockets, None, health, progress)
    due = next((each for each in owed if each.obligation is None or each.obligation.pid == pid), None) or joined(pid, waits)
    if due is None:
        return No("its threads wait for locks without end, but nothing is outstanding")
    thread = waits.thread(left.pid, left.tid) if left is not None else alone
    assert thread is not None
    place = where(thread, python, native)
    why = (
        f"thread {left.holder_tid}, which held it, has ended"
        if left is not None
        else "every other thread waits without end too, so nobody is left who could release it"
    )
    kinds = (("lock-waits", left), ("python-threads", python is not None and place), *((kind, True) for kind in due.cites))
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: thread {thread.wait.tid} waits for a lock{at(place)}; {why}; meanwhile {due.says}",
        culprit=f"{place or f'thread {thread.wait.tid}'} waits for a lock that nobody releases",
        confidence="likely" if left is not None or not may_be_woken(waits, thread, python) else "possible",
        cites=cites(*kinds),
        advice=(
            f"find out who takes the lock that is wanted{at(place)} and does not give it back: an error on the way, a missing release()",
            "take it by `with lock:`, which releases it whatever happens, or by acquire(timeout=...)",
        ),
    )


def joined(pid: int | None, waits: ThreadWaits) -> Due | None:
    """The agent's own wait for a worker process: that is outstanding too."""
    waiter = waits.waited_for(pid) if pid is not None and pid != waits.agent.pid else None
    return None if waiter is None else Due(f"the agent waits for {waiter.wait.says}", waiter.for_s, ())


def ring_of(waits: ThreadWaits, locks: LockWaits | None) -> Ring:
    """Threads of one process each of which waits for a lock that the next holds, the last one for the first's."""
    wanted = {}
    for each in locks.waits if locks is not None else ():
        thread = waits.thread(each.pid, each.tid)
        if each.holder_tid is None or thread is None or thread.wait.kind != "lock" or thread.for_s < waits.patience_s:
            continue
        if endless(thread) and not handed_over(each):
            wanted[each.pid, each.tid] = each
    for start in wanted:
        ring: list[LockWait] = []
        step = wanted.get(start)
        while step is not None and step not in ring:
            ring.append(step)
            step = wanted.get((step.pid, step.holder_tid or 0))
        process = waits.process(start[0])
        concerns = process is not None and (process.own or waits.waited_for(process.pid) is not None)
        if step is not None and step == ring[0] and concerns:
            return tuple(ring)
    return ()


def handed_over(wait: LockWait) -> bool:
    """Whether a lock is only a means of waking somebody: threading's Condition and Event take one twice on purpose."""
    frame = wait.waits_at
    return (
        wait.holder_tid == wait.tid
        and frame is not None
        and file_name(frame.file) == "threading.py"
        and function_of(frame) in {"wait", "_wait_for_tstate_lock", "join"}
    )


def of_ring(ring: Ring, waits: ThreadWaits, python: PythonThreads | None, native: NativeThreads | None) -> Finding:
    """A proven deadlock."""
    process = waits.process(ring[0].pid)
    threads = [thread for each in ring if (thread := waits.thread(each.pid, each.tid)) is not None]
    for_s = min(thread.for_s for thread in threads)
    inside = "" if process is None or process.pid == waits.agent.pid else f" of {process.words}, for which the agent waits,"
    if len(ring) == 1:
        place = site(ring[0], threads[0], python, native)
        taken = f", which it took{at(line_of(ring[0].held_at))}" if ring[0].held_at is not None else ""
        headline = f"thread {ring[0].tid}{inside} waits{at(place)} for a lock that it holds itself (deadlock)"
        culprit = f"{place or f'thread {ring[0].tid}'} waits for a lock that the same thread holds{taken}"
    else:
        chain = ", which waits for one that ".join(f"thread {each.holder_tid} holds" for each in ring)
        headline = f"thread {ring[0].tid}{inside} waits for a lock that {chain} (deadlock)"
        culprit = "; ".join(
            f"{site(each, thread, python, native) or f'thread {each.tid}'} holds {name(ring, place - 1)}{taken_at(ring[place - 1])}"
            f" and waits for {name(ring, place)}"
            for place, (each, thread) in enumerate(zip(ring, threads, strict=True))
        )
    kinds = (("lock-waits", True), ("python-threads", python is not None), ("native-threads", python is None and native))
    return Finding(
        headline=f"Hung for {seconds(for_s)}: {headline}",
        culprit=culprit,
        confidence="certain",
        cites=cites(*kinds),
        advice=(
            "take the locks in the same order everywhere, or never wait for one while holding the other"
            if len(ring) > 1
            else "use a re-entrant lock (RLock), or split off the part that needs no lock of its own",
            f"to see the stacks yourself: py-spy dump --pid {ring[0].pid}"
            if python is not None
            else f"to see the stacks yourself: gdb -p {ring[0].pid} -batch -ex 'thread apply all bt'",
        ),
    )


def name(ring: Ring, place: int) -> str:
    """A letter for the lock that the thread at this place of the ring waits for."""
    return "ABCDEFGH"[place % len(ring)] if len(ring) <= 8 else f"lock {ring[place].address:#x}"


def taken_at(wait: LockWait) -> str:
    """Where the holder took a lock, as a clause."""
    return f" (taken at {line_of(wait.held_at)})" if wait.held_at is not None else ""


def site(wait: LockWait, thread: ThreadSeen, python: PythonThreads | None, native: NativeThreads | None) -> str:
    """Where a thread of a ring waits: the program's own line rather than the library's."""
    place = where(thread, python, native)
    return place or (line_of(wait.waits_at) if wait.waits_at is not None else "")


def orphaned(waits: ThreadWaits, locks: LockWaits | None) -> Iterator[LockWait]:
    """Waits for a lock whose holder is a thread that its process no longer has."""
    for each in locks.waits if locks is not None else ():
        thread, process = waits.thread(each.pid, each.tid), waits.process(each.pid)
        if thread is None or process is None or not process.own or each.holder_tid is None or not waits.whole(each.pid):
            continue
        gone = waits.thread(each.pid, each.holder_tid) is None
        if gone and endless(thread) and thread.wait.kind == "lock" and thread.for_s >= waits.patience_s:
            yield each


def nobody_left(waits: ThreadWaits, locks: LockWaits | None, python: PythonThreads | None) -> ThreadSeen | No | None:
    """A thread that waits for a lock in a process of which every other thread waits without end as well."""
    if loop_threads(waits, python):
        return No("no ring of holders was found, and an event loop runs that can release a lock")
    found = None
    for process in waits.processes:
        threads = waits.of(process.pid)
        idle = all(
            each.for_s >= waits.patience_s and endless(each) and each.wait.kind not in {"running", "disk"} for each in threads
        )
        if not process.own or not threads or not idle or not waits.whole(process.pid):
            continue
        for each in threads:
            frames = python.of(process.pid, each.wait.tid) if python is not None else ()
            held = locks.of(process.pid, each.wait.tid) if locks is not None else None
            if each.wait.kind != "lock" or worker_state(frames) == "idle" or (not frames and held is None):
                continue
            if pool_frame(frames) is not None:
                return No("it waits for a connection of a pool")
            found = each if found is None or (held is not None and own_frame(frames) is not None) else found
    return found


def may_be_woken(waits: ThreadWaits, thread: ThreadSeen, python: PythonThreads | None) -> bool:
    """Whether a new request may wake it: it waits for an event rather than for its turn, and another thread takes requests."""
    frames = python.of(thread.wait.pid, thread.wait.tid) if python is not None else ()
    for_news = bool(frames) and file_name(frames[0].file) in {"threading.py", "queue.py"}
    takes = any(each.wait.kind in {"accept", "events", "peer", "pipe"} for each in waits.of(thread.wait.pid))
    return for_news and takes
