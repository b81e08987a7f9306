"""The terminal UI: agents above, incidents below, Enter for the proof. It folds events into a board and draws it, no more."""

from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING

from agentscope.model import AnyEvent
from agentscope.record import Envelope
from agentscope.views.board import Glimpse

if TYPE_CHECKING:
    from agentscope.views.tui.deeds import Deeds


async def show(
    events: AsyncIterable[AnyEvent | Envelope | Glimpse],
    *,
    title: str = "",
    replay: bool = False,
    engine: str = "",
    deeds: "Callable[[], Deeds | None]" = lambda: None,
) -> None:
    """Run the terminal UI until the user quits; a signal that asks it to end does so too, with the terminal as it was.

    Lines of the ledger among the events are from before we watched. `deeds` gives who does what a key asks for, once there is somebody.

    Raises:
        Exception: whatever `events` raised, once the terminal is restored and can show it.
    """
    from agentscope.views.tui.app import WatchApp

    app = WatchApp(events, title=title, replay=replay, engine=engine, deeds=deeds)
    # without mouse reporting the terminal's own selection works: evidence gets copied
    await app.run_async(mouse=False)
    if app.failure is not None:
        raise app.failure


def can_show() -> bool:
    """Whether there is a terminal on all three descriptors: keys come from stdin, and textual draws on stderr."""
    import os

    return all(os.isatty(descriptor) for descriptor in (0, 1, 2)) and os.environ.get("TERM", "dumb") != "dumb"
