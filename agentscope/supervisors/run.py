"""The child of `agentscope run`: we are its parent, so nobody else could start it again with the same terminal.

`running.py` keeps a `Launch` from before it changes anything (`remember`), starts the child with `start_held`, and takes a `Seat` for it
(`take`), whose `start` makes a new child with the same `start_held`, watches it and lets it go. What the policy's `restart` says is what
is started in place of the first command: `claude --resume {session}` in the same terminal.
"""

import asyncio
import contextlib
import os
import signal
import termios
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentscope.agents import same_identity
from agentscope.model import Agent, ExitRecord
from agentscope.policy import Policy
from agentscope.stopping import stop
from agentscope.stopping.tree import row_of
from agentscope.supervisors import Means, Owner, Started
from agentscope.supervisors._asking import is_new, is_the_old, lives
from agentscope.supervisors.command import filled

nearness = 10

TERMINAL = 0  # the child has its terminal, if any, at descriptor 0
REAPED_S = 2.0  # by when a child that has ended must have been waited for
PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}  # Python does so itself: not as our caller left them


class Launch(NamedTuple):
    """How our child was first started. `folder` is a descriptor of the working directory; `terminal` its settings as termios has them."""

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: int
    ignored: frozenset[int]
    blocked: frozenset[int]
    terminal: list[Any] | None


class Held(NamedTuple):
    """A child that has not become its command yet: it starts on a byte to `go`, and `refused` then tells whether it could."""

    pid: int
    go: int
    refused: int


@dataclass
class Seat:
    """One child of `agentscope run`, whichever instance of it runs. `start` has a new one run, watched from its first instruction."""

    name: str
    pid: int
    start_ns: int
    launch: Launch
    start: Callable[[tuple[str, ...]], Awaitable[Started]]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


seats: dict[str, Seat] = {}


def remember(command: tuple[str, ...]) -> Launch:
    """Everything that a child started now would have of us. Called first of all: later, signals and the terminal are not as they were."""
    ignored = {number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN} - PYTHON_IGNORES
    terminal = None
    with contextlib.suppress(termios.error, OSError):
        terminal = termios.tcgetattr(TERMINAL)
    return Launch(
        command=command,
        environment=dict(os.environ),
        folder=os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        ignored=frozenset(int(number) for number in ignored),
        blocked=frozenset(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        terminal=terminal,
    )


def start_held(launch: Launch, command: tuple[str, ...], refusal: Callable[[str, OSError], tuple[int, str]]) -> Held:
    """Fork a child that waits for one byte before it becomes the command, so that nothing of it is missed. In the main thread only.

    Between fork and exec it takes no lock that another of our threads could hold: it sets signals, reads a byte and becomes another.
    """
    wait, go = os.pipe()
    refused, refuse = os.pipe()  # closed by a successful exec, as every descriptor that Python opens
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            if os.read(wait, 1) != b"g":
                os._exit(125)  # our parent has gone before it let us go
            as_before(launch)
            os.execvpe(command[0], command, launch.environment)  # noqa: S606 - there is no shell on purpose
        except OSError as error:
            status, why = refusal(command[0], error)
            os.write(2, f"agentscope: cannot run {command[0]}: {why}. Try: which {command[0]}\n".encode(errors="replace"))
            os.write(refuse, b"r")
            os.read(wait, 1)  # until our parent knows that this end is not one of the command
            os._exit(status)
        finally:
            os._exit(125)
    os.close(wait)
    os.close(refuse)
    return Held(pid, go, refused)


def as_before(launch: Launch) -> None:
    """In the child: signals and working directory as they were when the first one was started."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # the two that the C library keeps for itself
            signal.signal(number, signal.SIG_IGN if int(number) in launch.ignored else signal.SIG_DFL)
    os.fchdir(launch.folder)
    signal.pthread_sigmask(signal.SIG_SETMASK, launch.blocked)


def restore_terminal(launch: Launch) -> None:
    """Give the terminal back its settings and its foreground: a child that died in the middle of its screen has left its own.

    SIGTTOU is blocked meanwhile: a group in the background that sets a terminal would be stopped by it (tcsetpgrp(3)).
    """
    if launch.terminal is None:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with contextlib.suppress(OSError, termios.error):
            foreground = os.tcgetpgrp(TERMINAL)
            leader = row_of(foreground)
            if foreground != os.getpgrp() and leader is not None and leader.state != "Z":
                return  # somebody else has it now: a shell that put us into the background
            os.tcsetpgrp(TERMINAL, os.getpgrp())
            termios.tcsetattr(TERMINAL, termios.TCSANOW, launch.terminal)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take(seat: Seat) -> None:
    """From now on this child is one that we start again; a seat of the same name is taken over."""
    seats[seat.name] = seat


def leave(seat: Seat) -> None:
    """No longer: `agentscope run` ends with its child."""
    seats.pop(seat.name, None)


def owner_of(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:  # noqa: ARG001 - every supervisor is asked so
    """Whether the agent is our own child."""
    for seat in seats.values():
        if seat.pid == agent.pid and same_identity(seat.start_ns, agent.start_ns):
            return Owner(kind="run", name=seat.name, restarts=False, says="agentscope run, its parent")
    return None


def living(owner: Owner) -> int | None:
    """Our child, if it has not ended."""
    seat = seats.get(owner.name)
    if seat is None:
        return None
    row = row_of(seat.pid)
    return seat.pid if row is not None and same_identity(row.start_ns, seat.start_ns) and row.state != "Z" else None


async def restart(owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None], means: Means) -> Started:
    """End the old child and what it left, then start the next one in the same terminal."""
    seat = seats.get(owner.name)
    if seat is None:
        return Started(pid=None, why="agentscope run has no such child any more")
    if policy.restart and os.geteuid() == 0 and means.owner_uid != 0:
        return Started(
            pid=None, why=f"root does not run the command of a config of uid {means.owner_uid}. Try: chown root CONFIG"
        )
    command = filled(policy.restart, words) if policy.restart else seat.launch.command
    if command is None:
        return Started(pid=None, why="the config's restart command has a word in its program's place that is not known")
    async with seat.lock:
        now = living(owner)
        if now is not None and is_new(agent, now):
            return Started(pid=now, says="agentscope run had started it again already")
        stopped = await asyncio.to_thread(
            stop, (agent.pid, agent.start_ns), policy.grace_s, means.members, as_uid=means.owner_uid
        )  # fmt: skip
        if lives(agent):
            return Started(pid=None, why=f"the old instance still runs, so no other was started: {stopped.says}")
        until = time.monotonic() + REAPED_S
        while is_the_old(agent, agent.pid) and row_of(agent.pid) is not None and time.monotonic() < until:  # noqa: ASYNC110 - what is waited for is the kernel's
            await asyncio.sleep(0.01)  # its end is heard by this same loop
        restore_terminal(seat.launch)
        seat.launch.environment.pop("AGENTSCOPE_FRESH", None)
        if words.get("fresh") is not None:
            seat.launch.environment["AGENTSCOPE_FRESH"] = "1"  # it is to take up nothing of the old one
        return await seat.start(command)
