"""A recording as a source of events that plays: at its own pace or faster, with pauses, and from incident to incident."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable

from agentscope.model import AnyEvent, IncidentOpened, Ready

LONGEST_PAUSE_S = 2.0  # nobody waits through a suspended night
SLICE_S = 0.05  # what is due within this is told at once
SOON_S = 0.005  # between looks for more of what is still being read
BREATH, BREATH_S = 500, 0.001  # after so many events read, the keyboard gets its turn
SLOWEST, FASTEST = 1.0, 1024.0


class Player:
    """Plays events, oldest first. `speed` is how many times as fast as it happened; 0 is all at once.

    `read` gives them; that goes on in a thread while the first are played.
    """

    def __init__(self, read: Callable[[], Iterable[AnyEvent]], speed: float = 1.0) -> None:
        self.read = read
        self.events: list[AnyEvent] = []
        self.whole = False  # whether all has been read
        self.left = False  # whether nobody wants the rest
        self.at_once = speed <= 0
        self.speed = speed if speed > 0 else SLOWEST
        self.told = 0
        self.paused = False
        self.skipping = False
        self.woken = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[AnyEvent]:
        """Play from here on."""
        return self.play()

    async def play(self) -> AsyncIterator[AnyEvent]:
        """Each event when it is due.

        Raises:
            BadInput: the recording cannot be read.
        """
        reading = asyncio.create_task(asyncio.to_thread(self.fill))
        try:
            async for event in self.due(reading):
                yield event
        finally:
            self.left = True

    def fill(self) -> None:
        """Read what there is, in a thread."""
        for event in self.read():
            self.events.append(event)
            if len(self.events) % BREATH == 0:
                time.sleep(BREATH_S)
            if self.left:
                return
        self.whole = True

    async def more(self, reading: "asyncio.Task[None]") -> bool:
        """Whether there is another event, once that is known.

        Raises:
            BadInput: the recording cannot be read.
        """
        while self.told >= len(self.events) and not reading.done():
            await asyncio.wait({reading}, timeout=SOON_S)
        if self.told < len(self.events):
            return True
        reading.result()
        return False

    async def due(self, reading: "asyncio.Task[None]") -> AsyncIterator[AnyEvent]:
        """Each event when it is due."""
        events = self.events
        owed_s = 0.0
        while await self.more(reading):
            owed_s += self.gap_s()
            while self.paused or owed_s > SLICE_S:
                if self.skipping or (self.at_once and not self.paused):
                    break
                self.woken.clear()
                before_s = asyncio.get_running_loop().time()
                try:
                    await asyncio.wait_for(self.woken.wait(), None if self.paused else owed_s)
                except TimeoutError:
                    owed_s = 0.0
                else:
                    owed_s = max(0.0, owed_s - (asyncio.get_running_loop().time() - before_s))
            if self.skipping or self.at_once:
                owed_s = 0.0
            event = events[self.told]
            self.told += 1
            if isinstance(event, IncidentOpened):
                self.skipping = False
            yield event

    def gap_s(self) -> float:
        """How long until the next event, at this speed; no time passes between boots, or backwards."""
        events = self.events
        if not self.told or isinstance(events[self.told], Ready):
            return 0.0
        gap_ns = events[self.told].at_ns - events[self.told - 1].at_ns
        return min(LONGEST_PAUSE_S, max(0, gap_ns) / 1e9) / self.speed

    @property
    def over(self) -> bool:
        """Whether all has been told."""
        return self.whole and self.told >= len(self.events)

    def says(self) -> str:
        """Where it is, in words."""
        if not self.events and not self.whole:
            return "reading"
        if self.over:
            return "at its end"
        if not self.whole:  # how much there is will be known in a moment
            return "paused" if self.paused else f"{self.speed:g}x"
        done = f"{100 * self.told // max(1, len(self.events))} %"
        return f"paused at {done}" if self.paused else f"{self.speed:g}x, {done}"

    def pause(self) -> None:
        """Pause, or go on."""
        self.paused = not self.paused
        self.woken.set()

    def faster(self, factor: float) -> None:
        """At another pace."""
        self.speed = max(SLOWEST, min(FASTEST, self.speed * factor))
        self.woken.set()

    def skip(self) -> None:
        """On to the next incident, or to the end."""
        self.paused, self.skipping = False, True
        self.woken.set()
