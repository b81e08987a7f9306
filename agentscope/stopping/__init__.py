"""Ends a living agent with everything that it started: asked first, then killed, and nobody is left to hold its port.

SIGTERM goes to the first process by pidfd, so that a number used again is never hit; after the grace the whole tree is stopped and then
killed, through its cgroup where that is the agent's own. All of it is bounded: the grace and about six seconds more. It blocks:
it is run beside the loop.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable

from agentscope.agents import same_identity
from agentscope.examination.proc import plain, read_proc
from agentscope.model import Value
from agentscope.stopping import cgroups
from agentscope.stopping.tree import Held, Members, Row, Tree, hold, row_of

REST_S = 2.0  # how long what a first process leaves behind may take to end after SIGTERM
STILL_S = 1.0  # how long finding everybody may take
KILLED_S = 3.0  # how long a death by SIGKILL may take: a core dump, memory to give back
UNINTERRUPTIBLE_S = 1.0  # after which one that is in state D is said, not waited for
NAMED = 5


class Gone(Value, frozen=True):
    """A process that was ended: `how` is the strongest signal of ours that it had had, empty where it had had none."""

    pid: int
    comm: str
    how: str


class Left(Value, frozen=True):
    """A process that still lives, and why."""

    pid: int
    comm: str
    why: str


class Stopped(Value, frozen=True):
    """What came of stopping an agent: who was ended and how, who was left, how long it took, all of it as one sentence."""

    ended: tuple[Gone, ...]
    left: tuple[Left, ...]
    took_s: float
    says: str


def nobody() -> Iterable[tuple[int, int]]:
    """No members known by birth."""
    return ()


def is_living(pid: int, start_ns: int) -> bool:
    """Whether this very process still runs: a number used again is another, and one that has ended and is not reaped does not run."""
    row = row_of(pid)
    if row is None or not same_identity(row.start_ns, start_ns):
        return False
    held = hold(row)
    if held is not None:
        os.close(held.descriptor)
    return held is not None


def stop(
    root: tuple[int, int],
    grace_s: float,
    members: Members = nobody,
    *,
    ask: Callable[[], object] | None = None,
    as_uid: int = 0,
) -> Stopped:
    """End the agent whose first process has this pid and start time (nanoseconds since boot), and its whole tree.

    `members` tells who else is of its tree by birth, with start times: what /proc shows under another parent. `ask` is called in place
    of our SIGTERM, once everybody is known: its supervisor is to end it. `as_uid`: only processes of this user are touched (0: all). A first process that has ended
    already costs no grace: what it left behind is ended.
    """
    began = time.monotonic()
    with Tree(root, members, as_uid) as tree:
        if root[0] in tree.never:
            return Stopped(ended=(), left=(Left(pid=root[0], comm="", why="agentscope itself runs under it"),), took_s=0.0, says="nothing was ended: agentscope itself runs under it")  # fmt: skip
        tree.look()
        if tree.root is not None:
            if ask is None:
                tree.send(signal.SIGTERM, only=tree.root)
            else:
                ask()
            tree.wake()
            tree.wait(began + grace_s, root_only=True)
        if tree.root is None and tree.held:
            tree.look()
            tree.send(signal.SIGTERM)
            tree.wake()
            tree.wait(time.monotonic() + REST_S, every_s=0.2)
        left = kill(tree)
        ended = tuple(Gone(pid=row.pid, comm=row.comm, how=how) for row, how in tree.ended)
    took_s = time.monotonic() - began
    return Stopped(ended=ended, left=left, took_s=took_s, says=sentence(root[0], ended, left, took_s))


def kill(tree: Tree) -> tuple[Left, ...]:
    """Kill whoever is left until nobody is found any more; those that cannot be killed, with the reason."""
    deadline = time.monotonic() + STILL_S + KILLED_S
    while True:
        tree.still(time.monotonic() + STILL_S)
        if not tree.held:
            break
        tree.kill()
        for group in tree.own:
            cgroups.thaw(group)  # a cgroup that was frozen again meanwhile: version 1 lets no signal through
        killed = time.monotonic()
        while tree.held and time.monotonic() < deadline:
            tree.wait_once(0.1)
            if time.monotonic() - killed > UNINTERRUPTIBLE_S and all(cannot_end(held) for held in tree.held.values()):
                deadline = 0.0
        if time.monotonic() >= deadline:
            break
    lives = [
        Left(pid=held.row.pid, comm=held.row.comm, why=cannot_end(held) or "it has not ended yet")
        for held in tree.held.values()
    ]
    refused = [(row, why) for row, why in tree.refused.values() if still_there(row)]
    return (*lives, *(Left(pid=row.pid, comm=row.comm, why=why) for row, why in refused))


def cannot_end(held: Held) -> str:
    """Why a process that has had SIGKILL goes on; empty where nothing is known that keeps it."""
    pid = held.row.pid
    if cgroups.is_frozen(pid):
        return "it is in a frozen cgroup that others share: it ends when that is thawed"
    row = row_of(pid)
    if row is not None and row.state == "D":
        where = plain((read_proc(f"/proc/{pid}/wchan") or b"").strip(b"0"), 64)
        return f"it is in an uninterruptible wait{f' ({where})' if where else ''}: it ends when that is over"
    return ""


def still_there(row: Row) -> bool:
    """Whether somebody we did not touch is still there."""
    again = row_of(row.pid)
    return again is not None and again.start_ns == row.start_ns and again.state != "Z"


def sentence(root_pid: int, ended: tuple[Gone, ...], left: tuple[Left, ...], took_s: float) -> str:
    """All of it for a person."""
    if not ended and not left:
        return "nobody was left to be ended"
    told = []
    first = next((gone for gone in ended if gone.pid == root_pid), None)
    if first is not None:
        told.append(f"{first.comm} ({first.pid}) {ended_by(first.how)} after {took_s:.1f} s")
    for how in ("", "SIGTERM", "SIGKILL"):
        rest = [gone for gone in ended if gone.how == how and gone is not first]
        if rest:
            told.append(f"{names(rest)} {ended_by(how)}")
    if left:
        told.append("; ".join(f"{each.comm} ({each.pid}) is left: {each.why}" for each in left[:NAMED]))
        if len(left) > NAMED:
            told.append(f"{len(left) - NAMED} more are left")
    return "; ".join(told)


def ended_by(how: str) -> str:
    """How a process ended, as a person would say it."""
    return f"was ended by {how}" if how else "ended by itself"


def names(gone: list[Gone]) -> str:
    """Some processes by name, and how many more."""
    shown = ", ".join(f"{each.comm} ({each.pid})" for each in gone[:NAMED])
    return shown + (f" and {len(gone) - NAMED} more" if len(gone) > NAMED else "")
