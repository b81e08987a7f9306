"""It wants to connect to a peer that does not even answer the request to connect.

What it means: the packets go out and nothing comes back, neither a yes nor a refusal: a firewall drops them, the
address is wrong or belongs to a machine that is gone. The kernel repeats the request after 1, 2, 4 … seconds and
gives up only after some two minutes; many programs then begin anew.

How agentscope knows: the socket is in state SYN-SENT and its request has been repeated, and a thread, or its event
loop, has been waiting for that longer than you allow, without a time-out of its own or with a long one.

What to do: check the address and port that are named, the firewall and the route (ip route get ADDRESS). Give the
connection a time-out of some seconds in the program; nearly every library has one for connecting.

What looks like it but is not: a refused connection, which fails at once (hang/retry-loop if that is repeated); a peer
that takes the connection and then says nothing (hang/stuck-io); a connect with a short time-out of its own.
"""

from agentscope.causes import No
from agentscope.causes.hang import LONG_S, at, cites, endless, excused, goes_on, seconds, stuck_threads, where
from agentscope.evidence.async_tasks import AsyncTasks
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import HeldSocket, Sockets
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.examination.frames import is_own
from agentscope.model import Finding

REPEATS = 2


def match(*, waits: ThreadWaits, sockets: Sockets, python: PythonThreads | None, tasks: AsyncTasks | None) -> Finding | No:
    """A request to connect that was repeated, and a thread that waits for it."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    trying = {held.socket.inode: held for held in sockets.sockets if held.socket.state == "syn-sent"}
    if not trying:
        return No("none of its sockets is waiting to be connected")
    reason = No("a connection is being made, but no thread of it has waited long for that")
    for thread in stuck_threads(waits):
        held = next((trying[inode] for inode in thread.wait.sockets if inode in trying), None)
        if held is None:
            continue
        worker = goes_on(waits, thread.wait.pid, without=thread.wait.tid)
        if held.socket.retransmits < REPEATS:
            reason = No(f"only one sign: the request to {held.words} was repeated {held.socket.retransmits} times so far")
        elif not endless(thread, LONG_S):
            reason = No(f"its own time-out of {seconds(thread.wait.timeout_s)} ends the connection to {held.words}")
        elif worker is not None:
            reason = No(f"thread {worker.wait.tid} of it goes on meanwhile")
        else:
            return found(thread, held, python, tasks)
    return reason


def found(thread: ThreadSeen, held: HeldSocket, python: PythonThreads | None, tasks: AsyncTasks | None) -> Finding:
    """The finding."""
    place = connecting_task(thread, tasks) or where(thread, python)
    peer = held.socket.peer or held.words
    host, _, port = peer.rpartition(":")
    repeats = held.socket.retransmits
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: it is connecting to {held.words}{at(place)}, which does not answer ({repeats} repeats)",
        culprit=f"{held.words} does not answer the request to connect: {seconds(thread.for_s)}, {repeats} repeats",
        confidence="likely",
        cites=cites(("sockets", True), ("python-threads", place and python is not None)),
        advice=(
            f"see whether it can be reached: timeout 5 bash -c '</dev/tcp/{host.strip('[]')}/{port}'; ip route get {host.strip('[]')}",
            f"give the connection a time-out{at(place)}, and say what to do when it passes",
        ),
    )


def connecting_task(thread: ThreadSeen, tasks: AsyncTasks | None) -> str:
    """The line of an asyncio task that is connecting, where there is one."""
    for task in tasks.of(thread.wait.pid) if tasks is not None else ():
        connects = any("connect" in frame.function for frame in task.chain)
        if connects and any(is_own(frame) for frame in task.chain):
            return task.place
    return ""
