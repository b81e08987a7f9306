"""Whether calls to other machines end by themselves, as far as the sockets and the blocked calls of this moment show it."""

from collections.abc import Iterator
from typing import NamedTuple

from agentscope.checking import Checked, Subject
from agentscope.examination import Call, ProcessLook, Socket, Thread
from agentscope.examination.borrow import borrowed

PLACE = 5
TITLE = "time-outs on outbound calls"
LOOPS = {"epoll_wait", "epoll_pwait", "epoll_pwait2"}
GIVES_TIME = {"poll", "ppoll", "select", "pselect6"}


class Wait(NamedTuple):
    """A thread that is blocked for bytes of another machine. `ends` None: whether it does could not be seen."""

    says: str
    ends: bool | None


def check(subject: Subject) -> Checked:
    """Every thread that waits for one of its own connections."""
    outbound = {each.inode: each for each in subject.scene.examination.sockets if is_outbound(each)}
    if not outbound:
        return Checked(
            None,
            "it has no connection to anybody now, so no call could be seen: check it while it waits for an answer",
            f"agentscope check {subject.pid}",
        )
    waits = [wait for process in subject.scene.examination.processes for wait in waits_of(process, outbound)]
    endless = [wait for wait in waits if wait.ends is False]
    if endless:
        more = f", and {len(endless) - 1} more" if len(endless) > 1 else ""
        return Checked(False, f"{endless[0].says}{more}", line(subject))
    unseen = [wait for wait in waits if wait.ends is None]
    if unseen:
        return Checked(None, unseen[0].says, line(subject))
    if waits:
        return Checked(True, f"all of its waits of this moment end by themselves: {waits[0].says}")
    peers = ", ".join(sorted({str(each.peer) for each in outbound.values()})[:3])
    return Checked(
        None, f"no thread waits for its connections now ({peers}): check it while it does", f"agentscope check {subject.pid}"
    )


def is_outbound(socket: Socket) -> bool:
    """Whether it is a connection that this side made."""
    return (
        socket.kind == "tcp" and socket.peer is not None and not socket.accepted and socket.state in {"established", "syn-sent"}
    )


def waits_of(process: ProcessLook, outbound: dict[int, Socket]) -> Iterator[Wait]:
    """What its blocked threads wait for."""
    for thread in process.threads:
        call = thread.call
        if call is None:
            continue
        for number in call.descriptors:
            held = process.descriptor(number)
            if held is None:
                continue
            if call.name in LOOPS:
                yield from loop_waits(process, thread, call, held.watches, outbound)
            elif held.inode in outbound:
                yield direct(process, thread, call, number, outbound[held.inode])
                break


def direct(process: ProcessLook, thread: Thread, call: Call, number: int, socket: Socket) -> Wait:
    """A thread in recv(2) or poll(2) of one connection."""
    where = f"thread {thread.tid} waits in {call.name} for {socket.peer}"
    if call.timeout_s is not None and call.timeout_s > 0:
        return Wait(f"{where}, at most {call.timeout_s:g} s", ends=True)
    if call.timeout_s is not None:
        return Wait(f"{where} with a time-out that could not be read", ends=True)
    if call.name in GIVES_TIME:
        return Wait(f"{where} without a time-out", ends=False)
    with borrowed(process.pid, number) as copy:
        asked = copy is not None
    if asked:
        return Wait(f"{where} without a time-out, neither of the call nor of the socket (SO_RCVTIMEO)", ends=False)
    return Wait(f"{where} without a time-out of the call; that of the socket (SO_RCVTIMEO) could not be read", ends=None)


def loop_waits(
    process: ProcessLook, thread: Thread, call: Call, watches: tuple[int, ...], outbound: dict[int, Socket]
) -> Iterator[Wait]:
    """An event loop sleeps until its next timer: one that has none at all has no time-out for what is outstanding either."""
    held = [each for number in watches if (each := process.descriptor(number)) is not None]
    asked = [outbound[each.inode] for each in held if each.inode in outbound and is_unanswered(outbound[each.inode])]
    if not asked:
        return
    where = f"the event loop of thread {thread.tid} waits for {asked[0].peer}"
    if call.timeout_s is None and not any(each.kind == "timerfd" for each in held):
        yield Wait(f"{where}, and no timer of any kind would wake it", ends=False)
    else:
        yield Wait(f"{where} and has timers; whether one of them ends this call cannot be seen from outside", ends=None)


def is_unanswered(socket: Socket) -> bool:
    """Whether it sent something and has got nothing since; a connection kept open for later is not outstanding."""
    sent, received = socket.last_sent_ago_ms, socket.last_received_ago_ms
    return socket.state == "syn-sent" or (sent is not None and (received is None or sent < received))


def line(subject: Subject) -> str:
    """What to write where the call is made."""
    if subject.standing is not None and subject.standing.interpreter is not None:
        return "httpx.Client(timeout=30), requests.get(url, timeout=30), or socket.setdefaulttimeout(30) at the start"
    if subject.standing is not None and subject.standing.node_folders:
        return "fetch(url, { signal: AbortSignal.timeout(30_000) })"
    return "set a time-out where the connection is made"
