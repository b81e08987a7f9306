"""Incidents with what was done about them and whether it held, as a list and one by one."""

from collections.abc import Sequence

import msgspec

from agentscope.model import IncidentClosed, IncidentOpened, RemedyFinished, RemedyStarted, Value
from agentscope.views import safe
from agentscope.views.board import Happened
from agentscope.views.table import NARROWEST, TIME_CELLS, WIDEST, filled, incident_part
from agentscope.views.wording import clock, span

NS_PER_MS = 1_000_000


class Act(Value, frozen=True):
    """One remedy: its intent, and what came of it; without that it is under way, or agentscope ended in the middle.

    `looked` is what came of looking whether it had helped.
    """

    started: RemedyStarted
    finished: RemedyFinished | None = None
    looked: RemedyFinished | None = None


class Story(Value, frozen=True):
    """One incident from its beginning to its end. `wall_ns` is when it was found, None where the record does not say."""

    opened: IncidentOpened
    wall_ns: int | None
    acts: tuple[Act, ...] = ()
    closed: IncidentClosed | None = None


def continued(story: Story, event: object) -> Story:
    """The story with what came next."""
    from agentscope.policy.standing import VALIDATE

    if isinstance(event, RemedyStarted):
        return msgspec.structs.replace(story, acts=(*story.acts, Act(started=event)))
    if isinstance(event, IncidentClosed):
        return msgspec.structs.replace(story, closed=event)
    if isinstance(event, RemedyFinished):
        field = "looked" if event.remedy == VALIDATE else "finished"
        acts = tuple(
            msgspec.structs.replace(act, **{field: event}) if act.started.attempt == event.attempt else act
            for act in story.acts
        )
        return msgspec.structs.replace(story, acts=acts)
    return story


def done_lines(story: Story) -> list[str]:
    """What was done, a sentence each, and how it ended."""
    lines = []
    for act in story.acts:
        intent, outcome = act.started, act.finished
        lines.append(f"{intent.attempt}. {safe(intent.remedy, 40)}: {safe(intent.act, 300)}")
        if outcome is None:
            lines.append("   no outcome on record: under way, or agentscope ended in the middle of it")
        else:
            instance = f", new process {outcome.pid}" if outcome.pid is not None else ""
            took = span(outcome.took_ms * NS_PER_MS)
            lines.append(f"   {outcome.outcome} after {took}{instance}: {safe(outcome.says, 300)}")
        if act.looked is not None:
            well = "well" if act.looked.outcome == "done" else "not well"
            lines.append(f"   {well} after {span(act.looked.took_ms * NS_PER_MS)} more: {safe(act.looked.says, 300)}")
    closed = story.closed
    if closed is not None:
        held = {True: "It held: ", False: "It did not hold: ", None: "Over: "}[closed.held]
        lines.append(f"{held}{safe(closed.outcome, 300)}")
    return lines


def render_stories(stories: Sequence[Story], width: int) -> str:
    """`agentscope incidents`: each in the order given, under its day, with what was done and what to type to read it."""
    width = max(NARROWEST, min(width, WIDEST))
    if not stories:
        return "No incident in this time.\n"
    lines: list[str] = []
    day, rest = None, " " * TIME_CELLS
    for story in stories:
        incident = story.opened
        date = clock(story.wall_ns, with_date=True)[:10]
        if date != day:
            lines += ([""] if lines else []) + [date or "at an unknown time"]
            day = date
        lines += incident_part(Happened(incident, story.wall_ns or incident.at_ns, story.wall_ns), width)
        for line in done_lines(story):
            lines += filled(line, width, rest, f"{rest}   ")
        lines.append(f"{rest}agentscope show {safe(incident.incident, 80)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_story(story: Story, *, width: int, color: bool) -> str:
    """`agentscope show`: the report, and what was done."""
    from agentscope.views.report import render_report

    report = render_report(story.opened, width=width, color=color, when_ns=story.wall_ns)
    done = done_lines(story)
    if not done:
        return f"{report}\nNothing was done about it.\n"
    lines = [line for each in done for line in filled(each, max(NARROWEST, width), "  ", "     ")]
    return "\n".join([f"{report}\nWhat was done", *lines]) + "\n"
