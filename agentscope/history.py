"""`agentscope incidents` and `agentscope show`: what happened, what was done about it, and whether that held. Reads the ledger only."""

import sys
import time
from collections.abc import Iterable, Iterator

from agentscope.durations import seconds_of
from agentscope.errors import BadInput, UsageError
from agentscope.ledger import Ledger
from agentscope.model import IncidentClosed, IncidentOpened, RemedyFinished, RemedyStarted
from agentscope.record import Envelope, encode_again
from agentscope.views.board import wall_ns_of
from agentscope.views.stories import Story, continued

TOLD = (IncidentOpened, RemedyStarted, RemedyFinished, IncidentClosed)


def since_ns_of(duration: str) -> int:
    """The wall clock (nanoseconds since 1970) such a time ago: "30m", "24h", "7d".

    Raises:
        UsageError: it is no duration.
    """
    try:
        return time.time_ns() - int(seconds_of("--since", duration, 1, 36500 * 86400) * 1_000_000_000)
    except BadInput as error:
        raise UsageError(f"--since {duration!r} is not right", error.why, "--since 24h") from None


def told_of(ledger: Ledger, since_ns: int | None) -> Iterator[Envelope]:
    """What is on record of incidents that began, or went on, since then (wall clock)."""
    for envelope in ledger.read(since_ns):
        if isinstance(envelope.data, TOLD) and (since_ns is None or (wall_ns_of(envelope) or 0) >= since_ns):
            yield envelope


def stories_of(envelopes: Iterable[Envelope]) -> list[Story]:
    """Each incident with what was done, in the order in which they began. Acts whose beginning is not among these are left out."""
    stories: dict[str, Story] = {}
    for envelope in envelopes:
        event = envelope.data
        if isinstance(event, IncidentOpened):
            stories[event.incident] = Story(opened=event, wall_ns=wall_ns_of(envelope))
            continue
        story = stories.get(event.incident) if isinstance(event, TOLD) else None
        if story is not None:
            stories[story.opened.incident] = continued(story, event)
    return list(stories.values())


def list_incidents(ledger: Ledger, since_ns: int | None, *, as_json: bool, width: int) -> str:
    """All incidents since then, newest first; as JSON their records, oldest first, as the stream had them."""
    if as_json:
        return "".join(encode_again(envelope).decode() for envelope in told_of(ledger, since_ns))
    from agentscope.views.stories import render_stories

    return render_stories(stories_of(told_of(ledger, since_ns))[::-1], width)


def show_incident(ledger: Ledger, incident: str, *, as_json: bool, page: str | None = None) -> str:
    """One incident: its report and what was done; as JSON its records; as a page for a ticket, in this file or on standard output.

    Raises:
        UsageError: there is none of this name, the beginning of a name fits several, or two forms are asked for at once.
        CannotWrite: the page cannot be written.
    """
    if as_json and page is not None:
        raise UsageError("show takes --json or --html", "it got both", f"agentscope show {incident} --html FILE")
    of_it = told_of_one(ledger, incident)
    if as_json:
        return "".join(encode_again(envelope).decode() for envelope in of_it)
    story = stories_of(of_it)[-1]
    if page is None:
        from agentscope.views.report import wants_color, width_of
        from agentscope.views.stories import render_story

        return render_story(story, width=width_of(sys.stdout), color=wants_color(sys.stdout))
    from agentscope.views.html import render_html
    from agentscope.views.html.saving import for_output, save_page

    html = render_html(story)
    return for_output(html, sys.stdout.encoding) if page == "-" else save_page(html, page)


def told_of_one(ledger: Ledger, incident: str) -> list[Envelope]:
    """What is on record of the incident with this name, or with the only name that begins so.

    Raises:
        UsageError: there is none, or there are several.
    """
    told = [envelope for envelope in told_of(ledger, None) if getattr(envelope.data, "incident", "").startswith(incident)]
    names = {envelope.data.incident for envelope in told if isinstance(envelope.data, IncidentOpened)}
    if incident in names:
        names = {incident}
    if not names:
        raise UsageError(f"there is no incident {incident!r} on record", f"looked in {ledger.folder}", "agentscope incidents")
    if len(names) > 1:
        raise UsageError(
            f"{len(names)} incidents begin with {incident!r}", ", ".join(sorted(names)[:8]), "agentscope incidents"
        )
    return [envelope for envelope in told if getattr(envelope.data, "incident", None) in names]
