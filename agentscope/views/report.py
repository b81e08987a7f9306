"""One incident a page, for a terminal, a pager or a file: what happened, whom to blame, the proof, what to do."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from agentscope.model import Agent, EvidenceRecord, IncidentOpened, Pulse, Reading, RuledOut, Value
from agentscope.views import page, safe, safe_lines
from agentscope.views.drawing import (
    BAD,
    BARS,
    GOOD,
    INDENT,
    QUIET,
    STRONG,
    UNKNOWN,
    WIDEST,
    bullet,
    drawn,
    indented,
    listed,
    pairs,
    quoted,
    section,
)
from agentscope.views.wording import cells_of, clock, count_of, cut_front, encodable, fit, size, sparkline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

UNKNOWN_WIDTH = 80


class Check(Value, frozen=True):
    """One line of `doctor`: `ok` is None where it could not be told or does not matter here."""

    name: str
    ok: bool | None
    says: str
    try_this: str = ""


# --- to the outside -------------------------------------------------------------------------------------------------------


def render_report(
    incident: IncidentOpened,
    *,
    width: int = UNKNOWN_WIDTH,
    color: bool = False,
    when_ns: int | None = None,
    details: bool = False,
) -> str:
    """The whole report. `when_ns` is the wall clock of the end; `details` leaves nothing out."""
    return drawn(incident_page(incident, width=width, when_ns=when_ns, details=details), width, color=color)


def print_incident(
    incident: IncidentOpened, file: TextIO | None = None, *, width: int | None = None, when_ns: int | None = None
) -> None:
    """Print the report as this file can show it: its width, and colour only on a terminal whose user did not refuse it."""
    out = sys.stdout if file is None else file
    say(render_report(incident, width=width or width_of(out), color=wants_color(out), when_ns=when_ns), out)


def render_live(
    agent: Agent,
    *,
    pulse: Pulse | None = None,
    evidence: Sequence[EvidenceRecord] = (),
    not_checked: Sequence[RuledOut] = (),
    advice: Sequence[str] = (),
    width: int = UNKNOWN_WIDTH,
    color: bool = False,
) -> str:
    """`diagnose PID` of a process that lives and is well: what it is, what it does, what it uses."""
    return drawn(live_page(agent, pulse, evidence, not_checked, advice), width, color=color)


def render_log_findings(readings: Sequence[Reading], *, width: int = UNKNOWN_WIDTH, color: bool = False) -> str:
    """`diagnose --log`: what each passage of a pasted log says."""
    return drawn(readings_page(readings), width, color=color)


def render_explanation(slug: str, text: str, *, width: int = UNKNOWN_WIDTH, color: bool = False) -> str:
    """`explain CAUSE`: the cause's own docstring, its paragraphs filled to the width."""
    return drawn(explanation_page(slug, text), width, color=color)


def render_doctor(checks: Sequence[Check], *, width: int = UNKNOWN_WIDTH, color: bool = False) -> str:
    """`doctor`: what works on this machine, what does not, and what to type."""
    return drawn(doctor_page(checks), width, color=color)


def say(text: str, file: TextIO) -> None:
    """Write text to a file whose encoding may not have all our characters."""
    file.write(encodable(text, getattr(file, "encoding", None)))
    file.flush()


def width_of(file: TextIO) -> int:
    """Columns of the terminal behind the file; COLUMNS decides where there is none."""
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    try:
        return os.get_terminal_size(file.fileno()).columns or UNKNOWN_WIDTH
    except (OSError, ValueError, AttributeError):
        return UNKNOWN_WIDTH


def wants_color(file: TextIO) -> bool:
    """Whether to colour: a terminal, NO_COLOR (no-color.org) unset or empty, and not TERM=dumb."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return bool(getattr(file, "isatty", lambda: False)())


# --- drawing ------------------------------------------------------------------------------------------------------------


def incident_page(
    incident: IncidentOpened, *, width: int, when_ns: int | None = None, details: bool = False
) -> "Iterator[RenderableType]":
    """The parts of the report in reading order."""
    from rich.text import Text

    when = clock(when_ns, with_date=True)
    bad = UNKNOWN if incident.confidence == "undetermined" else BAD
    yield bullet("✗", page.title_of(incident), style=bad, indent=0)
    yield indented(Text(page.identity_of(incident), style=QUIET))
    yield Text()
    yield pairs(page.facts_of(incident, when))
    yield from proof_part(incident, details=details)
    yield from ruled_out_part(incident, details=details)
    yield from stacks_part(incident, width, details=details)
    yield from words_part(incident, details=details)
    yield from memory_part(incident, width)
    yield from listed("Time line", page.timeline_of(incident))
    if details:
        yield from fields_part(incident)
    yield from advice_part(incident.advice, "" if incident.cause == page.UNDETERMINED else page.slug_of(incident))


def proof_part(incident: IncidentOpened, *, details: bool = False) -> "Iterator[RenderableType]":
    """Each fact with where it came from, decisive ones standing out; then what was known besides, whose sources are details."""
    records = page.proof_of(incident)
    proving = [record for record in records if record.weight != "context"]
    yield section("Proof", "● decides it  ○ supports it" if proving else "")
    for record in proving:
        style = STRONG if record.weight == "decisive" else ""
        yield bullet(page.MARKS[record.weight], safe(record.says, 400), page.sources_of(record), style)
    if not proving:
        yield bullet("·", page.no_proof(incident))
    others = page.others_of(incident)
    if others:
        yield section("It may also be")
        for other in others:
            yield bullet("·", other)
    beside = [record for record in records if record.weight == "context"]
    if beside:
        yield section("Also known", "true, but no proof")
        for record in beside:
            yield bullet("·", safe(record.says, 400), page.sources_of(record) if details else "")


def ruled_out_part(incident: IncidentOpened, *, details: bool) -> "Iterator[RenderableType]":
    """What it was not and why; what nobody could check and why."""
    reasons, no_sign = (page.grouped(incident.ruled_out), []) if details else page.sift(incident.ruled_out)
    if reasons or no_sign:
        yield section("Ruled out")
        for because, slugs in reasons:
            yield bullet("·", f"{page.named(slugs)}: {because}")
        if no_sign:
            yield bullet("·", f"no sign of {count_of(len(no_sign), 'other cause')}: {page.named(no_sign, 3)}", style=QUIET)
    unchecked = page.grouped(incident.not_checked)
    if unchecked:
        yield section("Not checked")
        for because, slugs in unchecked:
            yield bullet("·", f"{page.named(slugs)}: {because}")


def stacks_part(incident: IncidentOpened, width: int, *, details: bool) -> "Iterator[RenderableType]":
    """Python, then native, innermost frame first: one line a frame, whose place is cut at the front, or all of it."""
    from rich.text import Text

    for stack in page.stacks_of(incident, None if details else page.FRAMES_SHOWN):
        yield section(stack.title, "innermost first")
        if details:
            for name, where in stack.frames:
                yield bullet("·", name, where)
        else:
            names = min(max(cells_of(name) for name, _ in stack.frames), max(12, width * 2 // 5))
            for name, where in stack.frames:
                place = cut_front(where, max(8, min(width, WIDEST) - names - INDENT - 2))
                yield indented(Text(f"{fit(name, names)}  {place}", no_wrap=True, overflow="crop"))
        if stack.note:
            yield bullet("·", stack.note, style=QUIET)


def words_part(incident: IncidentOpened, *, details: bool) -> "Iterator[RenderableType]":
    """The end of what it wrote, behind a rule that shows where its words begin and end."""
    words = page.words_of(incident, 200 if details else page.WORD_LINES)
    if words is None:
        return
    above = f", {count_of(words.lines_above, 'line')} above" if words.lines_above else ""
    yield section("Last words", f"{words.source}{above}")
    yield quoted(words.lines)


def memory_part(incident: IncidentOpened, width: int) -> "Iterator[RenderableType]":
    """The sparkline and what it shows."""
    from rich.text import Text

    memory = page.memory_of(incident, min(60, max(16, width - 8)))
    if memory is not None:
        yield section("Memory")
        yield indented(Text(memory.bars, style=BARS, no_wrap=True, overflow="crop"))
        yield indented(Text(memory.says))


def fields_part(incident: IncidentOpened) -> "Iterator[RenderableType]":
    """Every field of every kind of evidence that no other part has shown."""
    shown = {*page.STACK_KINDS, page.WORDS_KIND, "memory-history"}
    for record in page.proof_of(incident):
        if record.kind not in shown and record.data:
            yield section(f"Evidence {safe(record.kind, 60)}", page.sources_of(record))
            yield pairs([(safe(str(key), 40), safe(str(value), 600)) for key, value in record.data.items()])


def advice_part(advice: Sequence[str], slug: str = "") -> "Iterator[RenderableType]":
    """What to do, numbered, last on the page because that is where the eye is."""
    if advice or slug:
        yield section("What to do")
    for number, step in enumerate(advice, start=1):
        yield bullet(f"{number}.", safe(step, 600))
    if slug:
        yield bullet("·", f"more about this cause: agentscope explain {slug}", style=QUIET)


# --- the other pages ------------------------------------------------------------------------------------------------------


def live_page(
    agent: Agent,
    pulse: Pulse | None,
    evidence: Sequence[EvidenceRecord],
    not_checked: Sequence[RuledOut],
    advice: Sequence[str],
) -> "Iterator[RenderableType]":
    """A process that lives: no verdict, only what is the case."""
    yield from agent_page(agent, pulse)
    if evidence:
        yield section("What was looked at")
        for record in sorted(evidence, key=lambda record: page.WEIGHTS.index(record.weight)):
            yield bullet("·", safe(record.says, 400), page.sources_of(record))
    if not_checked:
        yield section("Not checked")
        for because, slugs in page.grouped(not_checked):
            yield bullet("·", f"{page.named(slugs)}: {because}")
    if advice:
        yield from advice_part(advice)


def agent_page(
    agent: Agent, pulse: Pulse | None, *, ended: bool = False, history: Sequence[int | None] = (), width: int = UNKNOWN_WIDTH
) -> "Iterator[RenderableType]":
    """One agent now: what it is, what it does, what it uses."""
    from rich.text import Text

    state = safe(pulse.state, 200) if pulse is not None else "running"
    name = safe(agent.name, 80)
    yield bullet("○", f"{name} {state}", indent=0) if ended else bullet("●", f"{name} is alive: {state}", style=GOOD, indent=0)
    rows = [("Process", f"pid {agent.pid}, since {safe(agent.start_time, 40)}"), ("Command", safe(agent.command, 240))]
    place = agent.unit or agent.container or agent.cgroup
    if place:
        rows.append(("Where", safe(place, 160)))
    yield Text()
    yield pairs(rows + ([] if ended else pulse_rows(pulse)))
    if len(history) > 1:
        yield section("Memory", "resident, the last two minutes")
        yield indented(Text(sparkline(history, min(60, width - 8)), style=BARS, no_wrap=True, overflow="crop"))


def pulse_rows(pulse: Pulse | None) -> list[tuple[str, str]]:
    """What the last sample says, leaving out what it does not know."""
    if pulse is None:
        return []
    rows = []
    used = pulse.cgroup_bytes if pulse.cgroup_bytes is not None else pulse.rss_bytes
    if used is not None:
        limit = f" of {size(pulse.limit_bytes)}" if pulse.limit_bytes else ", no limit above it"
        rows.append(("Memory", f"{size(used)}{limit}"))
    if pulse.cpu_percent is not None:
        rows.append(("CPU", f"{pulse.cpu_percent:.0f} % of one core"))
    processes = f" in {count_of(len(pulse.processes), 'process', 'processes')}" if pulse.processes else ""
    rows.append(("Threads", f"{pulse.threads}{processes}"))
    return rows


def readings_page(readings: Sequence[Reading]) -> "Iterator[RenderableType]":
    """Each passage that a reader knew, with the words it stands on."""
    from rich.text import Text

    ends = [reading for reading in readings if reading.suggests]
    if not readings:
        yield Text("? nothing in this text is known to me", style=UNKNOWN)
        yield indented(
            Text("It was read as kernel log and as program output. The whole passage is needed, from its first line.")
        )
        return
    found = f"{count_of(len(ends), 'passage')} that can end a program" if ends else "nothing in this text ends a program"
    yield Text.assemble(("✗ " if ends else "● ", BAD if ends else GOOD), (found, BAD if ends else GOOD))
    for reading in sorted(readings, key=lambda reading: reading.suggests is None):
        yield section(safe(reading.suggests or "harmless", 60), f"pid {reading.pid}" if reading.pid is not None else "")
        yield indented(Text(safe(reading.says, 400), overflow="fold"))
        rows = [("Blame", safe(reading.culprit, 300))] if reading.culprit else []
        rows += [(safe(str(name), 40), safe(str(value), 240)) for name, value in reading.facts.items() if value is not None]
        if rows:
            yield pairs(rows)
        lines, above = safe_lines(reading.excerpt, 8, line_limit=240)
        if lines:
            yield quoted([*([f"… {count_of(above, 'line')}"] if above else []), *lines])
    yield section("Text alone proves nothing", "agentscope diagnose PID, while it lives or just after, brings the proof")


def explanation_page(slug: str, text: str) -> "Iterator[RenderableType]":
    """Paragraphs are filled; lines that are indented or begin with a dash are kept as they are."""
    from rich.text import Text

    yield Text(slug, style=STRONG)
    for paragraph in text.replace("\r", "").strip().split("\n\n"):
        yield Text()
        lines = [line.rstrip() for line in paragraph.split("\n") if line.strip()]
        if any(line.startswith((" ", "-", "*")) for line in lines):
            for line in lines:
                yield Text(line, overflow="fold")
        else:
            yield Text(" ".join(line.strip() for line in lines), overflow="fold")


def doctor_page(checks: Sequence[Check]) -> "Iterator[RenderableType]":
    """One check a line; below one that fails, what to type."""
    from rich.text import Text

    bad = sum(1 for check in checks if check.ok is False)
    unknown = sum(1 for check in checks if check.ok is None)
    says = "everything works here" if not bad and not unknown else f"{bad} of {count_of(len(checks), 'check')} failed"
    if not bad and unknown:
        says = f"nothing failed; {unknown} could not be told, or is not used here"
    style = BAD if bad else GOOD
    yield Text(says, style=style)
    yield Text()
    marks = {True: ("✓", GOOD), False: ("✗", BAD), None: ("○", UNKNOWN)}
    words = {True: "", False: "FAILED  ", None: "open  "}
    for check in checks:
        mark, style = marks[check.ok]
        name = safe(check.name, 60)
        yield bullet(mark, f"{words[check.ok]}{name}: {safe(check.says, 800)}" if check.says else f"{words[check.ok]}{name}")
        if check.try_this:
            yield indented(Text(f"try: {safe(check.try_this, 400)}", style=STRONG), 6)
