"""`agentscope watch` on a terminal. The screen comes first: what watches, or reads the recording, is loaded once it is there.

Errors of the loading end the screen, and are told like any other once the terminal is as it was.
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agentscope.errors import ExitStatus, NoSuchProcess
from agentscope.model import AnyEvent
from agentscope.record import Envelope
from agentscope.views.board import Glimpse
from agentscope.views.tui import show

if TYPE_CHECKING:
    from agentscope.agents import Target
    from agentscope.config import Config
    from agentscope.desk import Desk
    from agentscope.live import Live

PAINT_S = 0.05  # what the first screen may take before we compete with it
PAST_NS = 7 * 86_400 * 1_000_000_000  # of the ledger, what is shown beside what happens now


class Watching:
    """One run of `watch`: its events, and the desk once there is one."""

    def __init__(self, wanted: "Config", engine_choice: str, hang_after_s: float, state: str | None, *, resume: bool) -> None:
        self.wanted = wanted
        self.engine_choice = engine_choice
        self.hang_after_s = hang_after_s
        self.state = state
        self.resume = resume
        self.desk: Desk | None = None

    async def events(self) -> AsyncIterator[AnyEvent | Envelope | Glimpse]:
        """Show who is there, load, attach, and tell what happens; what is on record comes first.

        Raises:
            EngineUnavailable, NotPermitted, UsageError: nothing can be watched.
        """
        glimpse = await asyncio.to_thread(glimpse_of, self.wanted.targets)
        if glimpse.agents:
            yield glimpse
        await asyncio.sleep(PAINT_S)
        await asyncio.to_thread(load)
        from agentscope.live import Terms
        from agentscope.session import live_events, open_engine
        from agentscope.state import state_dir

        engine = open_engine(self.engine_choice)
        try:
            terms = Terms(self.hang_after_s, state_dir(self.state), self.resume)
            past_ns = time.time_ns() - PAST_NS
            async for event in live_events(self.wanted, engine, terms, self.begun, past_ns):
                yield event
        finally:
            engine.close()

    def begun(self, live: "Live") -> None:
        """From now on there is somebody to ask."""
        from agentscope.desk import Desk

        self.desk = Desk(live, self.hang_after_s)


def glimpse_of(targets: "tuple[Target, ...]") -> Glimpse:
    """Who is there by /proc alone, in a thread; whoever ends meanwhile is told about when we attach."""
    from agentscope.agents import agent_of, configured_name, found_now, ourselves

    began_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        found = found_now(targets, ourselves())
    except NoSuchProcess:
        found = []
    return Glimpse(tuple((agent_of(seen, began_ns, configured_name(targets, seen)), because) for seen, because in found))


def load() -> None:
    """Load what watches, in a thread: a tenth of a second in which the screen stays alive."""
    import agentscope.desk
    import agentscope.session
    import agentscope.sources.ebpf  # noqa: F401 - loading it is the purpose


def watch_screen(watching: Watching) -> int:
    """The terminal UI, live.

    Raises:
        NotPermitted, UsageError: said before a screen is drawn where that is known. EngineUnavailable: told after it.
    """
    if watching.engine_choice != "auto" and (os.geteuid() != 0 or watching.engine_choice != "core"):
        from agentscope.session import open_engine

        open_engine(watching.engine_choice).close()
    title = ", ".join(map(str, watching.wanted.targets))
    asyncio.run(show(watching.events(), title=title, engine="attaching the probes", deeds=lambda: watching.desk))
    return ExitStatus.HEALTHY


def replay_screen(recording: str, speed: float) -> int:
    """The terminal UI on a recording, so many times as fast as it happened; 0: as it ended.

    Raises:
        OSError: it cannot be opened.
    """
    from agentscope.views.tui.playing import Player

    Path(recording).open("rb").close()  # said before a screen is drawn
    problems: list[str] = []

    def read() -> Iterator[AnyEvent]:
        from agentscope.replaying import recorded_events

        try:
            yield from recorded_events(recording, problems.append)
        finally:
            gc.enable()  # it was off for the loading

    asyncio.run(show(Player(read, speed), title=recording, replay=True))
    for problem in problems:
        sys.stderr.write(problem)
    return ExitStatus.HEALTHY
