"""A board as plain text, for `watch --once` and for pipes; the terminal UI draws the same columns. Without rich: it starts at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentscope.views import safe
from agentscope.views.board import Board, Happened, Row
from agentscope.views.wording import age, clock, count_of, cut, fit, sparkline, tight_size

GAP_CELLS = 2
NARROWEST = 20
WIDEST = 160
INCIDENTS_SHOWN = 20
SPARK_CELLS = 12
TIME_CELLS = 10

# What to type when there is nothing to see yet.
NOBODY = "No agent runs here that I know of."
HOW_FOUND = (
    "Agents are found by the signature of their program as they start (Claude Code, aider, LangGraph, ...), or by a target."
)
TO_TYPE = (
    ("sudo agentscope run -- CMD", "start CMD and watch it"),
    ("sudo agentscope watch --pid N", "watch a process that runs"),
    ("sudo agentscope drill oom", "see how a death is told"),
)


@dataclass(frozen=True)
class Column:
    """One column of the agents' table. `cells` is its width, None for the one that takes what is left."""

    title: str
    cells: int | None
    says: Callable[[Row, Board], str]
    right: bool = False


def columns_for(width: int, *, ended: bool = False) -> list[Column]:
    """The columns that fit, most needed first; a narrow terminal loses detail, never the state.

    What has ended uses nothing, so its state takes the room of the columns of use.
    """
    name = Column("AGENT", max(8, min(24, width // 4)), lambda row, _: safe(row.agent.name, 80))
    state = Column("STATE", None, state_of)
    pid = Column("PID", 7, lambda row, _: str(row.agent.pid), right=True)
    memory = Column("MEMORY", 13, lambda row, _: memory_with_limit(row), right=True)
    cpu = Column("CPU", 5, lambda row, _: "" if row.cpu_percent is None else f"{row.cpu_percent:.0f}%", right=True)
    deaths = Column("24H", 3, deaths_of, right=True)
    if width < 60:
        return [name, state] if ended else [name, state, Column("MEM", 5, lambda row, _: memory_of(row), right=True)]
    if ended:
        return [name, pid, state, deaths]
    if width < 110:
        return [name, pid, state, memory, cpu, deaths]
    course = Column("2 MINUTES", SPARK_CELLS, lambda row, _: course_of(row))
    threads = Column("THR", 4, lambda row, _: "" if row.threads is None else str(row.threads), right=True)
    return [name, pid, state, memory, course, cpu, threads, deaths]


def state_of(row: Row, board: Board) -> str:
    """Its words, and for an end how long ago that was."""
    words = safe(row.words, 200)
    if row.ended_ns is not None and board.now_ns > row.ended_ns:
        return f"{words}, {age(board.now_ns - row.ended_ns)} ago"
    return words


def used_of(row: Row) -> int | None:
    """What counts against the limit where there is one, else what it holds itself."""
    return row.cgroup_bytes if row.limit_bytes and row.cgroup_bytes is not None else row.rss_bytes


def memory_of(row: Row) -> str:
    """As "498M", or nothing where it is not known."""
    used = used_of(row)
    return "" if used is None else tight_size(used)


def memory_with_limit(row: Row) -> str:
    """As "498M/512M 97%"."""
    used = used_of(row)
    if used is None or not row.limit_bytes:
        return memory_of(row)
    return f"{tight_size(used)}/{tight_size(row.limit_bytes)} {min(999, round(100 * used / row.limit_bytes))}%"


def course_of(row: Row) -> str:
    """Its own memory in the last two minutes: full height is the limit, or else twice its peak, so that level looks level."""
    peak = max((value for value in row.history if value is not None), default=0)
    return sparkline(list(row.history), SPARK_CELLS, row.limit_bytes or 2 * peak)


def deaths_of(row: Row, board: Board) -> str:
    """How often it died in a day; nothing rather than a column of zeros."""
    count = board.deaths_in_a_day(row.agent.name)
    return str(count) if count else ""


def widths_for(columns: Sequence[Column], width: int) -> list[int]:
    """Cells of each column; the flexible one takes what is left."""
    fixed = sum(column.cells or 0 for column in columns) + GAP_CELLS * (len(columns) - 1)
    return [column.cells if column.cells is not None else max(8, width - fixed) for column in columns]


def title_line(width: int) -> str:
    """The titles of the columns."""
    columns = columns_for(width)
    return line_of(columns, [column.title for column in columns], width)


def row_line(row: Row, board: Board, width: int) -> str:
    """One agent in one line."""
    columns = columns_for(width, ended=row.ended is not None)
    return line_of(columns, [column.says(row, board) for column in columns], width)


def line_of(columns: Sequence[Column], texts: Sequence[str], width: int) -> str:
    """Columns side by side, never wider than the screen."""
    cells = widths_for(columns, width)
    parts = [fit(text, wide, right=column.right) for column, text, wide in zip(columns, texts, cells, strict=True)]
    return cut((" " * GAP_CELLS).join(parts).rstrip(), width)


def headline_of(board: Board) -> str:
    """The whole board in one sentence."""
    died = sum(board.deaths_in_a_day(name) for name in board.deaths)
    hung = sum(1 for row in board.rows.values() if row.stuck)
    parts = [f"{count_of(board.living, 'agent')} {'watched' if board.ready else 'here'}"]
    if hung:
        parts.append(f"{hung} in trouble")
    parts.append(f"{count_of(died, 'death')} in 24 h" if died else "no death in 24 h")
    if board.incidents:
        last = board.incidents[0]
        parts.append(f"last: {cut(safe(last.incident.agent.name), 24)}, {age(board.now_ns - last.clock_ns)} ago")
    return ", ".join(parts)


def engine_of(board: Board, before: str = "") -> str:
    """What is attached, what is missing, what was lost. `before` is said until the source is ready."""
    ready = board.ready
    if ready is None:
        parts = [before or "attaching"]
    else:
        attached = "nothing is attached here" if ready.engine == "none" else f"engine {ready.engine}"
        parts = [attached, f"Linux {safe(ready.kernel, 40)}"]
        if ready.degraded:
            parts.append(f"with less evidence: {safe('; '.join(ready.degraded), 200)}")
    parts.append(f"lost {board.lost_count:,} ({losses_of(board)})" if board.lost else "nothing lost")
    return " · ".join(parts)


def losses_of(board: Board) -> str:
    """Who lost how many, and why."""
    return "; ".join(
        f"{safe(source, 40)} {count:,}{f', {safe(says, 120)}' if (says := board.lost_says.get(source)) else ''}"
        for source, count in board.lost.items()
    )


def incident_words(happened: Happened, done: str = "") -> tuple[str, str]:
    """An incident in two sentences: what happened to whom; the cause, whom to blame, and what is done about it."""
    incident = happened.incident
    slug = safe(incident.cause, 40)
    headline = safe(incident.headline, 300) or f"{safe(incident.agent.name, 80)} ended and nothing says why"
    then = f" → {safe(done, 300)}" if done else ""
    doubt = "" if incident.confidence == "certain" else f" ({incident.confidence})"
    blame = f": {safe(incident.culprit, 300)}" if incident.culprit else ""
    told = "cause not determined" if slug == incident.confidence else f"{slug}{doubt}{blame}"
    return f"{'[tool] ' if incident.scope == 'tool' else ''}{headline}", f"{told}{then}"


def incident_lines(happened: Happened, width: int, done: str = "") -> tuple[str, str]:
    """An incident in two lines that fit, for a screen."""
    headline, blame = incident_words(happened, done)
    return cut(f"{time_of(happened)}  {headline}", width), cut(f"{' ' * TIME_CELLS}{blame}", width)


def time_of(happened: Happened) -> str:
    """The time of day, or dashes where nothing said what time it was."""
    return clock(happened.wall_ns) or "--:--:--"


def filled(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """The text in as many lines as it takes, behind `first` and then `rest`."""
    from textwrap import wrap

    return wrap(text, width, initial_indent=first, subsequent_indent=rest)


def empty_lines(width: int, height: int = 100) -> list[str]:
    """What a person needs who sees nothing yet; on a short screen what to type, and no more."""
    wide = max(len(command) for command, _ in TO_TYPE)
    beside = width >= wide + 32
    typed = []
    for command, says in TO_TYPE:
        typed += [f"  {command:<{wide}}  {says}"] if beside else [f"  {command}", f"    {says}"]
    lines = [*filled(NOBODY, width), "", *typed, "", *filled(HOW_FOUND, width)]
    if len(lines) > height:
        lines = [*filled(NOBODY, width), *(f"  {command}" for command, _ in TO_TYPE)]
    return [cut(line, width) for line in lines]


def render_table(board: Board, width: int) -> str:
    """The board as it is now: one headline, the agents, the incidents, what is attached."""
    width = max(NARROWEST, min(width, WIDEST))
    lines = [*filled(headline_of(board), width), ""]
    rows = board.listed()
    if rows:
        lines += [title_line(width), *(row_line(row, board, width) for row in rows)]
    else:
        lines += empty_lines(width)
    if board.incidents:
        lines += ["", "INCIDENTS, newest first"]
        for happened in list(board.incidents)[:INCIDENTS_SHOWN]:
            lines += incident_part(happened, width, board.outcomes.get(happened.incident.incident, ""))
        if len(board.incidents) > INCIDENTS_SHOWN:
            lines.append(f"{' ' * TIME_CELLS}and {len(board.incidents) - INCIDENTS_SHOWN} before these")
    lines += ["", *filled(engine_of(board, "looked once, nothing is attached: sudo agentscope watch shows it live"), width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def incident_part(happened: Happened, width: int, done: str = "") -> list[str]:
    """An incident in as many lines as it takes: nothing is cut where there is no screen to fit."""
    headline, blame = incident_words(happened, done)
    rest = " " * TIME_CELLS
    return [*filled(headline, width, f"{time_of(happened)}  ", rest), *filled(blame, width, rest, rest)]
