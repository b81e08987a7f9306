"""`agentscope watch --fleet nats://…`: the screen over all hosts, or with --once a plain table and the changes that broke agents."""

import asyncio
import platform
import sys
import time
from collections.abc import AsyncIterator

from agentscope import __version__
from agentscope.errors import ExitStatus
from agentscope.fleet.joining import Joined, host_of
from agentscope.fleet.reading import Fleet, check_fleet
from agentscope.model import AnyEvent, IncidentOpened, Ready
from agentscope.pipeline import boot_id, boot_wall_ns, now_ns
from agentscope.sinks import server_of
from agentscope.views.board import Board, wall_ns_of
from agentscope.views.changes import Changes, render_changes

PAST_S = 7 * 86_400.0  # what is shown beside what happens now


class Fleeting:
    """One look at a fleet: its events, and the changes that they tell of."""

    def __init__(self, url: str) -> None:
        """Check the address.

        Raises:
            BadInput, UsageError: it cannot be read.
        """
        check_fleet(url)
        self.url = url
        self.changes = Changes()
        self.incidents = 0

    async def events(self, *, once: bool = False) -> AsyncIterator[AnyEvent]:
        """What hosts tell, as the events of one stream that is ours.

        Raises:
            EngineUnavailable: nobody answers.
        """
        boot_wall = boot_wall_ns()
        kernel = platform.release()
        at_ns = now_ns()
        yield Ready(
            at_ns=at_ns, version=__version__, engine="none", kernel=kernel, boot_id=boot_id(), wall_ns=boot_wall + at_ns
        )
        joined = Joined(boot_wall)
        async for line in Fleet(self.url, PAST_S).lines(once=once):
            wall_ns = wall_ns_of(line)
            if isinstance(line.data, IncidentOpened) and wall_ns is not None:
                self.changes.apply(host_of(line.source), wall_ns, line.data)
                self.incidents += 1
            for event in joined.events(line):
                yield event

    def changes_text(self, width: int) -> str:
        """The changes, as of now."""
        return render_changes(self.changes, width, time.time_ns())


def print_fleet(url: str) -> str:
    """What the fleet has told so far, as a plain table, and the changes that broke agents.

    Raises:
        BadInput, UsageError, EngineUnavailable: it cannot be read.
    """
    from agentscope.views.report import width_of
    from agentscope.views.table import render_table

    looking, board = Fleeting(url), Board()

    async def fold() -> None:
        async for event in looking.events(once=True):
            board.apply(event)

    asyncio.run(fold())
    width = width_of(sys.stdout)
    return f"{render_table(board, width)}\n{looking.changes_text(width)}"


def fleet_screen(url: str) -> int:
    """The terminal UI over all hosts.

    Raises:
        BadInput, UsageError: said before a screen is drawn. EngineUnavailable: told after it.
    """
    looking = Fleeting(url)
    from agentscope.views.tui.fleet import show_fleet

    asyncio.run(
        show_fleet(
            looking.events(), title=f"fleet at {server_of(url)}", changes=looking.changes_text, stamp=lambda: looking.incidents
        )
    )
    return ExitStatus.HEALTHY
