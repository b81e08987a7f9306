"""The prevention checklist of one agent, for a terminal, a pager or a file: what is missing first in colour, always in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentscope.model import Agent
from agentscope.views import safe
from agentscope.views.drawing import BAD, GOOD, QUIET, STRONG, UNKNOWN, bullet, drawn, indented
from agentscope.views.report import UNKNOWN_WIDTH, Check
from agentscope.views.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

MARKS = {True: ("✓", GOOD), False: ("✗", BAD), None: ("○", UNKNOWN)}
WORDS = {True: "", False: "FAILED  ", None: "not checkable  "}


def render_checklist(agent: Agent, checks: Sequence[Check], *, width: int = UNKNOWN_WIDTH, color: bool = False) -> str:
    """Every point with its evidence; below one that did not pass, what to type."""
    return drawn(checklist_page(agent, checks), width, color=color)


def checklist_page(agent: Agent, checks: Sequence[Check]) -> "Iterator[RenderableType]":
    """The page, in the order of the list."""
    from rich.text import Text

    failed, unknown = (sum(1 for check in checks if check.ok is wanted) for wanted in (False, None))
    counts = [f"{len(checks) - failed - unknown} passed"]
    counts += [f"{failed} failed"] if failed else []
    counts += [f"{unknown} not checkable"] if unknown else []
    style = BAD if failed else UNKNOWN if unknown else GOOD
    yield Text(
        f"{safe(agent.name, 80)} (pid {agent.pid}): {', '.join(counts)} of {count_of(len(checks), 'point')}", style=style
    )
    yield indented(Text(safe(agent.command, 160), style=QUIET))
    yield Text()
    for check in checks:
        mark, style = MARKS[check.ok]
        yield bullet(mark, f"{WORDS[check.ok]}{safe(check.name, 60)}: {safe(check.says, 400)}")
        if check.try_this and check.ok is not True:
            yield indented(Text(f"try: {safe(check.try_this, 400)}", style=STRONG), 6)
