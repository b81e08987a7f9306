"""The terminal UI: agents above, incidents below, Enter for the proof. It folds events into a board and draws it, no more."""

from collections.abc import AsyncIterator

from agentscope.model import AnyEvent


async def show(events: AsyncIterator[AnyEvent], *, title: str = "", replay: bool = False, engine: str = "") -> None:
    """Run the terminal UI until the user quits; SIGTERM and SIGHUP end it too, with the terminal as it was.

    Raises:
        Exception: whatever `events` raised, once the terminal is restored and can show it.
    """
    from agentscope.views.tui.app import WatchApp

    app = WatchApp(events, title=title, replay=replay, engine=engine)
    # without mouse reporting the terminal's own selection works: evidence gets copied
    await app.run_async(mouse=False)
    if app.failure is not None:
        raise app.failure


def can_show() -> bool:
    """Whether there is a terminal on all three descriptors: keys come from stdin, and textual draws on stderr."""
    import os

    return all(os.isatty(descriptor) for descriptor in (0, 1, 2)) and os.environ.get("TERM", "dumb") != "dumb"
