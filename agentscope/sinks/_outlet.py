"""A sink whose way out may make us wait: a thread that waits instead of the loop, a bounded queue before it, and another try."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from agentscope.record import Line
from agentscope.sinks import Around, Chosen
from agentscope.sinks._waiting import QUEUE_BYTES, Waiting

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0


class NotTaken(Exception):
    """A line was not taken: why, as a clause. `taken` lines before it were; `for_good`: it never will be, but the next may.

    `after_s` is how long the other side asks us to wait.
    """

    def __init__(self, why: str, taken: int = 0, *, for_good: bool = False, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.taken = taken
        self.for_good = for_good
        self.after_s = after_s


class Place(Protocol):
    """The other side. Both are called in the thread of its outlet, and may wait as long as that is bounded."""

    def put(self, lines: Sequence[Line]) -> None:
        """Send these in order.

        Raises:
            NotTaken: one of them was not taken.
        """

    def close(self) -> None:
        """Let go of it."""


class Outlet:
    """A place behind its queue. What it does not take is tried again, longer and longer apart; meanwhile the queue fills, and then drops."""

    def __init__(self, chosen: Chosen, around: Around, place: Place, called: str, queue_bytes: int = QUEUE_BYTES) -> None:
        """`called` says in words where it goes: "the file /var/log/agents.ndjson"."""
        self.place = place
        self.called = called
        self.say = around.say
        self.why = ""
        self.waiting = Waiting(around.recorder, f"sink {chosen.name}", f"{called} was too slow", queue_bytes)
        self.loop = asyncio.get_running_loop()
        self.lock = threading.Lock()
        self.ready = threading.Condition(self.lock)
        self.stopping = threading.Event()
        self.drained = asyncio.Event()
        self.drained.set()
        # a daemon: a disk or a server that does not answer must not keep the program from ending
        self.thread = threading.Thread(target=self.run, name=f"sink-{chosen.name}"[:15], daemon=True)
        self.thread.start()

    @property
    def lost_count(self) -> int:
        """Lines that will never arrive."""
        return self.waiting.lost_count

    # --- on the loop's thread ------------------------------------------------------------------------------------------

    def take(self, line: Line) -> None:
        """Let it wait for the thread."""
        with self.lock:
            if self.stopping.is_set():
                return
            self.waiting.put(line)
            self.drained.clear()
            self.ready.notify()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drained.wait(), timeout_s)
        return self.drained.is_set()

    def close(self) -> None:
        """Stop; what waits is lost."""
        with self.lock:
            self.stopping.set()
            for line in self.waiting.take(self.waiting.limit_bytes * 2):
                self.waiting.drop(line)
            self.ready.notify()

    def emptied(self) -> None:
        """The thread has sent everything, unless something came meanwhile."""
        with self.lock:
            if not self.waiting.bytes:
                self.drained.set()

    # --- on its own thread ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Send what waits, in order, until the sink is closed."""
        try:
            while lines := self.next_lines():
                left = self.sent(lines)
                with self.lock:
                    for line in left:
                        self.waiting.drop(line)
                    self.waiting.done(lines)
                    if lines[-1] not in left:  # who refuses everything is not asked for ever whether he takes the saying of it
                        self.waiting.tell_loss()
                    empty = not self.waiting.bytes
                if empty:
                    self.on_loop(self.emptied)
        finally:
            self.place.close()

    def next_lines(self) -> list[Line]:
        """What is to be sent next; nothing at the end."""
        with self.lock:
            while not self.waiting.lines and not self.stopping.is_set():
                self.ready.wait()
            return [] if self.stopping.is_set() else self.waiting.take()

    def sent(self, lines: list[Line]) -> list[Line]:
        """Send them, however often it takes; what is returned was not, and never will be."""
        refused: list[Line] = []
        pause_s = FIRST_PAUSE_S
        while lines and not self.stopping.is_set():
            try:
                self.place.put(lines)
            except NotTaken as error:
                self.on_loop(self.fails, error.why)
                if error.taken:
                    pause_s = FIRST_PAUSE_S
                lines = lines[error.taken :]
                if error.for_good:
                    refused.append(lines[0])
                    lines = lines[1:]
                    continue
                self.stopping.wait(min(max(pause_s, error.after_s), LONGEST_PAUSE_S))
                pause_s *= 2
            else:
                lines = []
                if not refused:
                    self.on_loop(self.fails, "")
        return refused + lines

    def on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """Have the loop's thread call this; the loop may be gone when the program is ending."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(call, *arguments)

    def fails(self, why: str) -> None:
        """Say when it begins to fail, and when it works again; not each time."""
        if bool(why) != bool(self.why):
            self.say(
                f"{self.called} does not take the stream: {why}; trying again" if why else f"{self.called} takes the stream"
            )
        self.why = why
