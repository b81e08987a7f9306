"""What the main screen says, line by line: pure text that fits, for agents, for the chosen one, and for what is attached."""

from agentscope.views import safe
from agentscope.views.board import Board, Row
from agentscope.views.table import Column, line_of, losses_of, memory_of, state_of
from agentscope.views.wording import (
    age,
    cells_of,
    count_of,
    cut,
    gauge,
    plot,
    size,
    span,
    sparkline,
    tight_age,
    tight_size,
)

NARROW, WIDE = 60, 110  # below the first only what matters most, from the second everything
GAUGE_CELLS, WIDE_GAUGE_CELLS = 7, 8
PLOT_LINES = 4
WIDE_KEYS = "Enter open  d diagnose  s stacks  r recover  a add  / filter  e export  ? help  q quit"
MIDDLE_KEYS = "Enter open  d diagnose  s stacks  r recover  a add  / filter  ? help  q quit"
NARROW_KEYS = "Enter open  d diagnose  / filter  ? help  q quit"
REPLAY_KEYS = "Enter open  Space pause  n next incident  + - pace  / filter  ? help  q quit"
NEVER_FULL_NS = 48 * 3600 * 1_000_000_000  # what takes longer than this to fill is no news


# --- agents ---------------------------------------------------------------------------------------------------------------


def columns_for(width: int, *, ended: bool = False) -> list[Column]:
    """The columns that fit, most needed first; a narrow terminal loses detail, never the state.

    What has ended uses nothing, so its state takes the room of the columns of use.
    """
    name = Column("AGENT", max(8, min(22, width // 6)), lambda row, _: safe(row.agent.name, 80))
    state = Column("STATE", None, state_of)
    if width < NARROW:
        return [name, state] if ended else [name, state, Column("MEM", 5, lambda row, _: memory_of(row), right=True)]
    deaths = Column("24H", 3, deaths_of, right=True)
    cpu = Column("CPU", 5, lambda row, _: "" if row.cpu_percent is None else f"{row.cpu_percent:.0f}%", right=True)
    said = Column("SAID", 4, said_of, right=True)
    if width < WIDE:
        memory = Column("MEMORY", 18, memory_cell)
        return [name, state, deaths] if ended else [name, state, memory, cpu, said, deaths]
    pid = Column("PID", 7, lambda row, _: str(row.agent.pid), right=True)
    memory = Column("MEMORY", 25, lambda row, board: memory_cell(row, board, wide=True))
    recovery = Column("RECOVERY", 16, recovery_of)
    return [name, pid, state, deaths, recovery] if ended else [name, pid, state, memory, cpu, said, deaths, recovery]


def title_line(width: int) -> str:
    """The titles of the columns."""
    columns = columns_for(width)
    return line_of(columns, [column.title for column in columns], width)


def agent_line(row: Row, board: Board, width: int) -> str:
    """One agent in one line; where its state is too long, its end stays, which says for how long."""
    columns = columns_for(width, ended=row.ended is not None)
    texts = [column.says(row, board) for column in columns]
    place = next(number for number, column in enumerate(columns) if column.cells is None)
    fixed = sum(column.cells or 0 for column in columns) + 2 * (len(columns) - 1)
    texts[place] = cut_middle(texts[place], max(8, width - fixed))
    return line_of(columns, texts, width)


def cut_middle(text: str, cells: int) -> str:
    """The text in at most `cells`, without what stands before its last part: "waiting(llm) api.anthr… 43 s"."""
    head, comma, tail = text.rpartition(", ")
    if cells_of(text) <= cells or not comma or cells_of(tail) > min(14, cells - 6):
        return cut(text, cells)
    return f"{cut(head, cells - cells_of(tail) - 1)} {tail}"


def memory_cell(row: Row, board: Board, *, wide: bool = False) -> str:
    """As "498M ██████▏· 97%", or where it is known when it is full, "97% full in 12m"; without a limit only how much."""
    used, share = row.used_bytes, row.memory_share
    if used is None or share is None:
        return memory_of(row)
    percent = f"{min(999, round(100 * share))}%"
    much = f"{tight_size(used)}/{tight_size(row.limit_bytes)}" if wide else f"{tight_size(used):>5}"
    left = full_in(row, board)
    if left:
        return f"{much} {percent} {left}" if wide else f"{percent} {left}"
    return (
        f"{much:<10} {gauge(share, WIDE_GAUGE_CELLS)} {percent:>4}"
        if wide
        else f"{much} {gauge(share, GAUGE_CELLS)} {percent:>4}"
    )


def full_in(row: Row, board: Board) -> str:
    """As "full in 12m", where a warning told so; nothing once that time has come and gone."""
    left_ns = None if row.full_ns is None else row.full_ns - board.now_ns
    return "" if left_ns is None or not 0 <= left_ns <= NEVER_FULL_NS else f"full in {tight_age(left_ns)}"


def said_of(row: Row, board: Board) -> str:
    """How long ago it last wrote to its output, where that is known."""
    return "" if row.wrote_ns is None else tight_age(board.now_ns - row.wrote_ns)


def deaths_of(row: Row, board: Board) -> str:
    """How often it died in a day; nothing rather than a column of zeros."""
    count = board.deaths_in_a_day(row.agent.name)
    return str(count) if count else ""


def recovery_of(row: Row, board: Board) -> str:
    """The last word about bringing it back, and how long ago."""
    last = board.recovered.get(row.agent.name)
    if last is None:
        return ""
    return (
        f"{safe(last.words, 40)} …" if last.under_way else f"{safe(last.words, 40)} {tight_age(board.now_ns - last.clock_ns)}"
    )


# --- the chosen one -------------------------------------------------------------------------------------------------------


def chosen_lines(row: Row, board: Board, width: int, lines: int) -> list[str]:
    """More about the chosen agent: who it is; its memory as far as there is room; what presses it and how it was brought back."""
    if lines < 1:
        return []
    who = f"{safe(row.agent.name, 60)}  pid {row.agent.pid}"
    began_ns = board.began_ns(row)
    since = f", for {span(board.now_ns - began_ns)}" if row.ended is None and began_ns is not None else ""
    place = row.agent.unit or row.agent.container or ""
    first = " · ".join(part for part in (f"{who}{since}", safe(place, 60), safe(row.agent.command, 240)) if part)
    says = memory_words(row, board)
    notes = [*(safe(pressure.says, 200) for pressure in row.pressures.values()), *recovery_words(row, board)]
    kept = list(row.held)
    top = row.limit_bytes or 2 * max((value for value in kept if value is not None), default=0)
    if lines >= PLOT_LINES + 2 and len(kept) > 1:
        bars = plot(kept, min(60, width - 30), PLOT_LINES, top)
        beside = [f"{size(row.limit_bytes)}, the limit" if row.limit_bytes else f"{size(top)}, twice its peak", "", "", says]
        body = [f"{bar}  {text}".rstrip() for bar, text in zip(bars, beside, strict=True)]
        return [cut(line, width) for line in [first, *body, " · ".join(notes)]]
    if len(kept) > 1:
        says = f"{sparkline(kept, max(8, min(24, width // 4)), top)}  {says}"
    return [cut(line, width) for line in [first, " · ".join(part for part in (says, *notes) if part)]][:lines]


def memory_words(row: Row, board: Board) -> str:
    """Its memory in words."""
    used = row.used_bytes
    if used is None:
        return ""
    limit = f" of {size(row.limit_bytes)}" if row.limit_bytes else ", no limit"
    left = full_in(row, board)
    return f"{size(used)}{limit}{f', {left}' if left else ''}"


def recovery_words(row: Row, board: Board) -> list[str]:
    """How it was brought back last, as a sentence, if it ever was."""
    last = board.recovered.get(row.agent.name)
    if last is None:
        return []
    ago = "under way" if last.under_way else f"{age(board.now_ns - last.clock_ns)} ago"
    return [f"recovery: {safe(last.words, 60)}, {ago}"]


# --- around the lists -----------------------------------------------------------------------------------------------------


def headline_of(board: Board) -> str:
    """The whole board in one sentence."""
    living = count_of(board.living, "agent")
    hung = sum(1 for row in board.rows.values() if row.stuck)
    pressed = sum(1 for row in board.rows.values() if row.ended is None and row.pressures)
    died = sum(board.deaths_in_a_day(name) for name in board.deaths)
    parts = [f"{living} {'watched' if board.ready else 'here'}"]
    parts += [f"{hung} in trouble"] if hung else []
    parts += [f"{pressed} near a limit"] if pressed else []
    parts.append(f"{count_of(died, 'death')} in 24 h" if died else "no death in 24 h")
    if board.incidents:
        last = board.incidents[0]
        parts.append(f"last: {cut(safe(last.incident.agent.name), 20)}, {age(board.now_ns - last.clock_ns)} ago")
    return ", ".join(parts)


def glimpse_of(board: Board) -> str:
    """The same before anything is attached: nothing is known yet of deaths."""
    return f"{count_of(board.living, 'agent')} here" if board.rows else "looking"


def headline(said: str, hour: str, width: int) -> str:
    """The sentence at the left, the time at the right."""
    room = max(0, width - len(hour) - 1)
    text = cut(said, room - 1 if hour else room)
    return f"{text}{' ' * (room - cells_of(text))} {hour}"


def engine_line(board: Board, before: str = "") -> str:
    """What is attached, what is not, what was lost: losses first, because the line may be cut."""
    ready = board.ready
    if ready is None:
        return before or "attaching"
    lost = f"LOST {board.lost_count:,} ({losses_of(board)})" if board.lost else "nothing lost"
    without = f"with less evidence: {safe('; '.join(ready.degraded), 200)}" if ready.degraded else "all probes attached"
    bare = ready.engine == "recording" or (ready.engine == "none" and not ready.degraded)
    attached = f"engine {ready.engine}" if bare else f"engine {ready.engine}, {without}"
    targets = f"watching {safe(', '.join(ready.targets), 160)}" if ready.targets else ""
    return " · ".join(part for part in (attached, lost, f"Linux {safe(ready.kernel, 40)}", targets) if part)


def keys_line(width: int, *, playing: bool) -> str:
    """What can be typed, as far as there is room."""
    if width < len(MIDDLE_KEYS):
        return NARROW_KEYS
    return REPLAY_KEYS if playing else WIDE_KEYS if width >= len(WIDE_KEYS) else MIDDLE_KEYS
