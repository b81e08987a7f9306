"""Threads or tasks wait for a connection out of a pool, while all connections of the pool sit idle and are not given back.

What it means: a pool lends connections to a database or server and gets them back after use. If code forgets to give
one back, on an error say, or one holder needs a second connection, the pool runs dry and everybody waits at its door.

How agentscope knows: a thread or task has waited without time-out in the function of a pool that hands out
connections, for longer than you allow, while no connection of the process has a question outstanding, and no thread
works.

What to do: see that every connection is given back whatever happens (with, try/finally), that nobody holds one while
asking for another, and give the pool a time-out, so that the error shows where it is.

What looks like it but is not: a pool whose connections are all busy with questions (they come back); idle workers of
a thread pool, which wait for work; a server behind the pool that does not answer (hang/stuck-io).
"""

from typing import NamedTuple

from agentscope.causes import No
from agentscope.causes.hang import LONG_S, cites, endless, excused, goes_on, loop_threads, seconds
from agentscope.evidence.async_tasks import AsyncTasks
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import HeldSocket, Sockets
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.examination.frames import function_of, is_own, own_frame, place_of, pool_frame
from agentscope.model import Finding, PythonFrame


class Waiting(NamedTuple):
    """Somebody who waits for a connection: the pool's frame, the program's own line, and for how long."""

    pid: int
    pool: PythonFrame
    own: PythonFrame | None
    for_s: float
    kind: str


def match(*, waits: ThreadWaits, sockets: Sockets, python: PythonThreads, tasks: AsyncTasks | None) -> Finding | No:
    """Waiting at a pool, all of whose connections are idle."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    waiting = at_a_pool(waits, python) or tasks_at_a_pool(waits, python, tasks)
    if not waiting:
        return No("no thread of it has waited long for a connection of a pool")
    first = waiting[0]
    mine = [held for held in sockets.of(first.pid) if not held.socket.accepted and held.socket.kind in {"tcp", "unix"}]
    connected = [held for held in mine if held.socket.state in {"established", "close-wait"} and held.socket.peer]
    busy = next((held for held in connected if is_busy(held, waits, sockets)), None)
    if busy is not None:
        return No(f"the pool is empty because its connections are busy: {busy.words} is in use")
    if not connected:
        return No("only one sign: it waits for a connection of a pool, but no connection is open that could come back")
    worker = goes_on(waits, first.pid)
    if worker is not None:
        return No(f"thread {worker.wait.tid} of it works")
    return found(waiting, connected)


def is_busy(held: HeldSocket, waits: ThreadWaits, sockets: Sockets) -> bool:
    """Whether a question is outstanding on a connection, an answer on its way, or a thread in the middle of using it.

    A question that follows an answer within a millisecond cannot be told from an answer: then the thread that reads tells.
    """
    owed = sockets.owed(held.socket.inode)
    used = any(held.socket.inode in each.wait.sockets and each.wait.kind in {"peer", "llm"} for each in waits.of(held.pid))
    return used or (owed is not None and owed.kind != "half-answered")


def at_a_pool(waits: ThreadWaits, python: PythonThreads) -> list[Waiting]:
    """The threads that have waited long, without time-out, in a pool's function."""
    found = []
    for thread in waits.own():
        frames = python.of(thread.wait.pid, thread.wait.tid)
        pool = pool_frame(frames)
        long = thread.for_s >= waits.patience_s and endless(thread, LONG_S) and thread.wait.kind == "lock"
        if pool is not None and long:
            found.append(Waiting(thread.wait.pid, pool, own_frame(frames), thread.for_s, "thread"))
    return sorted(found, key=lambda each: -each.for_s)


def tasks_at_a_pool(waits: ThreadWaits, python: PythonThreads, tasks: AsyncTasks | None) -> list[Waiting]:
    """The asyncio tasks that wait in a pool's function while their loop has had nothing to do for long."""
    found = []
    loops = {each.thread.wait.pid: each.thread for each in loop_threads(waits, python) if not each.inside}
    for task in tasks.tasks if tasks is not None else ():
        loop, chain = loops.get(task.pid), task.chain[::-1]
        pool = pool_frame(chain)
        timed = any(function_of(frame) == "wait_for" for frame in chain) or (loop is not None and not endless(loop, LONG_S))
        if pool is None or loop is None or timed or loop.for_s < waits.patience_s or task.awaits in {None, "sleep"}:
            continue
        found.append(Waiting(task.pid, pool, own_frame(chain), loop.for_s, "task"))
    return found


def found(waiting: list[Waiting], connected: list[HeldSocket]) -> Finding:
    """The finding."""
    first = waiting[0]
    peers = sorted({held.words for held in connected})
    place = place_of(first.pool)
    caller = f", called from {place_of(first.own)}" if first.own is not None and not is_own(first.pool) else ""
    many = f"{len(waiting)} {first.kind}s wait" if len(waiting) > 1 else f"a {first.kind} waits"
    idle = f"{len(connected)} connections to {', '.join(peers[:3])} sit idle"
    return Finding(
        headline=f"Hung for {seconds(first.for_s)}: {many} for a connection of a pool at {place}{caller}, while {idle}",
        culprit=f"{place}{caller}: {many}; {idle}",
        confidence="likely",
        cites=cites(("python-threads", True), ("sockets", True), ("async-tasks", first.kind == "task")),
        advice=(
            "give every connection back whatever happens: with, or try/finally; do not ask for a second one while holding one",
            "give the pool a time-out, so that the error names whoever waits",
        ),
    )
