"""What stands on the pages that open: an incident, an agent, a look at a living one, its stacks, how it can be brought back, the keys."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from rich.console import RenderableType
from rich.text import Text

from agentscope.model import Agent, IncidentOpened, Pulse
from agentscope.views import page, report, safe
from agentscope.views.board import Board, Happened, Row
from agentscope.views.drawing import BAD, BARS, GOOD, QUIET, STRONG, UNKNOWN, bullet, indented, pairs, section
from agentscope.views.stories import done_lines
from agentscope.views.tui.exporting import story_of
from agentscope.views.tui.lines import full_in, recovery_words
from agentscope.views.wording import age, clock, count_of, plot, size, span

if TYPE_CHECKING:
    from agentscope.views.tui.deeds import Look, Means

Parts = Callable[[int, bool], Iterator[RenderableType]]
PLOT_LINES = 5
INCIDENTS_SHOWN = 8

KEYS = """\
In the lists
  Up Down, k j        choose         PgUp PgDn Home End   far
  Tab                 agents or incidents
  Enter               open what is chosen, with its proof
  d                   diagnose the chosen agent now
  s                   its stacks, now; of an incident, those taken then
  r                   bring the chosen agent back: asks first
  a                   watch one more process, from a list
  e                   export the chosen incident to files here
  /                   filter by any words: name, pid, cause
  Esc                 forget the filter
In a page
  Up Down PgUp PgDn   read
  m                   more or less detail
  d s r e             the same as in the lists
  Esc                 back
In a replay
  Space               pause, go on
  n                   on to the next incident
  + -                 faster, slower
Anywhere
  ?  this page        q  quit        Ctrl+Z  to the shell, fg back

Words
  agent     a watched process with its children
  incident  one unplanned end, or hang, of one agent
  tool      a child doing a job: its death is never blamed on
            the agent
  SAID      how long ago the agent last wrote to its output
  24H       deaths of this agent in the last 24 hours; a hang
            is none
  RECOVERY  the last word about bringing it back"""


def help_parts(_width: int, _details: bool) -> Iterator[RenderableType]:
    """The keys and the words."""
    yield Text("agentscope: why did it die?", style=STRONG)
    yield Text()
    yield Text(KEYS, overflow="fold")


def said_parts(title: str, says: Sequence[str], style: str = STRONG) -> Parts:
    """A sentence, and others below it."""

    def parts(_width: int, _details: bool) -> Iterator[RenderableType]:
        yield Text(safe(title, 300), style=style)
        for line in says:
            yield Text()
            yield Text(safe(line, 600), overflow="fold")

    return parts


def incident_parts(happened: Happened, board: Board) -> Parts:
    """The report of an incident, and what was done about it so far."""

    def parts(width: int, details: bool) -> Iterator[RenderableType]:
        incident = happened.incident
        yield from report.incident_page(incident, width=width, when_ns=happened.wall_ns, details=details)
        yield section("What was done")
        done = done_lines(story_of(happened, board))
        for line in done or ["nothing: whoever wants it brought back says so in the config, under [agent.NAME.recovery]"]:
            # an outcome stands below its act
            yield bullet("·", line.strip(), indent=4 if line.startswith(" ") else 2)

    return parts


def agent_parts(row: Row, board: Board) -> Parts:
    """An agent that lives or ended well: what it is, does and uses, what presses it, and how it fared before."""

    def parts(width: int, _details: bool) -> Iterator[RenderableType]:
        yield from report.agent_page(row.agent, pulse_of(row, board), ended=row.ended is not None, width=width)
        yield from pressures_part(row, board)
        yield from memory_part(row, width)
        earlier = [each for each in board.incidents if each.incident.agent.name == row.agent.name][:INCIDENTS_SHOWN]
        if earlier:
            yield section("Its incidents", "newest first")
            yield pairs([(clock(each.wall_ns) or "earlier", page.title_of(each.incident)) for each in earlier])
        for words in recovery_words(row, board):
            yield bullet("·", words)
        if row.because:
            yield section("Why it is watched")
            yield bullet("·", safe(row.because, 300))

    return parts


def pulse_of(row: Row, board: Board) -> Pulse:
    """The row as the pulse it came from."""
    said = f", last output {age(board.now_ns - row.wrote_ns)} ago" if row.wrote_ns is not None and row.ended is None else ""
    return Pulse(
        at_ns=board.now_ns,
        agent_pid=row.agent.pid,
        agent_start_ns=row.agent.start_ns,
        state=f"{row.words}{said}",
        rss_bytes=row.rss_bytes,
        cpu_percent=row.cpu_percent,
        threads=row.threads or 0,
        cgroup_bytes=row.cgroup_bytes,
        limit_bytes=row.limit_bytes,
    )


def pressures_part(row: Row, board: Board) -> Iterator[RenderableType]:
    """What it comes near to."""
    if row.pressures:
        yield section("Near a limit")
        for pressure in row.pressures.values():
            yield bullet("●", safe(pressure.says, 300), style=UNKNOWN)
        if full_in(row, board):
            yield bullet("·", f"its memory is {full_in(row, board)}, if it goes on like this")


def memory_part(row: Row, width: int) -> Iterator[RenderableType]:
    """The last two minutes of its memory, against the limit where there is one."""
    kept = list(row.held)
    known = [value for value in kept if value is not None]
    if len(known) < 2:
        return
    top = row.limit_bytes or 2 * max(known)
    yield section(
        "Memory", f"the last two minutes; full height is {'the limit' if row.limit_bytes else 'twice the peak'}, {size(top)}"
    )
    for line in plot(kept, max(8, min(len(kept), 60, width - 8)), PLOT_LINES, top):
        yield indented(Text(line, style=BARS, no_wrap=True, overflow="crop"))
    yield indented(Text(f"{size(known[0])} to {size(known[-1])}"))


def look_parts(look: "Look", when_ns: int | None) -> Parts:
    """What a look at a living agent found."""

    def parts(width: int, details: bool) -> Iterator[RenderableType]:
        if look.incident is not None:
            yield from report.incident_page(look.incident, width=width, when_ns=when_ns, details=details)
            return
        yield from report.live_page(look.agent, look.pulse, look.evidence, look.not_checked if details else (), ())
        yield section("No hang", "a cause would have to be at least likely to be called one")
        if look.not_checked and not details:
            yield bullet(
                "·", f"{count_of(len(look.not_checked), 'kind')} of evidence could not be had: m shows why", style=QUIET
            )
        yield from stacks_of(look.evidence, details=details)

    return parts


def stacks_parts(agent: Agent, evidence: Sequence[object], note: str, missing: Sequence[str] = ()) -> Parts:
    """Nothing but stacks."""

    def parts(_width: int, details: bool) -> Iterator[RenderableType]:
        yield bullet("●", f"{safe(agent.name, 80)}, pid {agent.pid}: {note}", style=STRONG, indent=0)
        shown = list(stacks_of(evidence, details=True))
        yield from shown
        if not shown:
            yield Text("no stack could be had")
        for because in missing if details or not shown else ():
            yield bullet("·", safe(because, 300), style=QUIET)

    return parts


def stacks_of(evidence: Sequence[object], *, details: bool) -> Iterator[RenderableType]:
    """The stacks among this evidence, one frame a line."""
    # whatever has evidence has stacks: of the record, only that field is read
    holder = cast("IncidentOpened", Holder(evidence))
    for stack in page.stacks_of(holder, None if details else page.FRAMES_SHOWN):
        yield section(stack.title, "innermost first")
        for name, where in stack.frames:
            yield bullet("·", name, where)
        if stack.note:
            yield bullet("·", stack.note, style=QUIET)


class Holder:
    """Evidence without an incident."""

    def __init__(self, evidence: Sequence[object]) -> None:
        self.evidence = tuple(evidence)


def means_parts(agent: Agent, means: "Means", row: Row | None, board: Board) -> Parts:
    """How an agent can be brought back, and what is asked."""

    def parts(_width: int, _details: bool) -> Iterator[RenderableType]:
        name = f"{safe(agent.name, 80)} (pid {agent.pid})"
        yield Text(f"Bring back {name}?" if means.can else f"{name} cannot be brought back from here", style=STRONG)
        yield Text()
        if row is not None:
            state = safe(row.words, 200)
            ago = f", {span(board.now_ns - row.ended_ns)} ago" if row.ended_ns is not None else ""
            yield bullet("○" if row.ended else "●", f"{state}{ago}", style=BAD if row.died or row.stuck else GOOD)
        for line in means.says:
            yield bullet("·", safe(line, 600))
        for line in means.config:
            yield Text(f"    {safe(line, 600)}")
        if means.can:
            yield Text()
            yield Text("y yes, do it    Esc no", style=STRONG)

    return parts
