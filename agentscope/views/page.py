"""One incident in reading order, without a drawing library: what the report and the incident screen of the terminal UI both show.

Records come from recordings too, perhaps of another version, so fields of evidence are looked at, never trusted to be there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agentscope.evidence import kinds
from agentscope.model import EvidenceRecord, IncidentOpened, RuledOut
from agentscope.views import safe, safe_lines
from agentscope.views.wording import count_of, size, span, sparkline

WORD_LINES = 16
FRAMES_SHOWN = 12
STACK_KINDS = ("python-stack", "native-stack", "python-threads", "native-threads", "async-tasks")
STACKS_SHOWN = 4  # of the threads of the living
WORDS_KIND = "last-words"
MEMORY_KINDS = ("memory-history", "memory-limits")
MOST = 2.0**63  # no time and no size that a kernel can tell is more; a recording may hold anything
UNDETERMINED = "undetermined"
RECONSTRUCTED = "reconstructed: nobody watched it end"
WEIGHTS = ("decisive", "supporting", "context")
MARKS = {"decisive": "●", "supporting": "○", "context": "·"}


@dataclass(frozen=True)
class Stack:
    """Frames of one stack, innermost first: (what, where) each; `note` says what was left out or why it ends."""

    title: str
    frames: tuple[tuple[str, str], ...]
    note: str = ""


@dataclass(frozen=True)
class Excerpt:
    """The last words: the lines shown, how many are above them, and where they were read."""

    lines: tuple[str, ...]
    lines_above: int
    source: str


@dataclass(frozen=True)
class Memory:
    """The sparkline of the last minutes and the sentence beside it."""

    bars: str
    says: str


@dataclass(frozen=True)
class Course:
    """Memory over time: (nanoseconds before the end, resident bytes, bytes of its cgroup) each, oldest first; and the limit that binds."""

    points: tuple[tuple[float, float | None, float | None], ...]
    limit_bytes: float | None


def title_of(incident: IncidentOpened) -> str:
    """The headline, or what is known where nobody could say one."""
    unsaid = "ended" if has_ended(incident) else "is not well"
    return safe(incident.headline) or f"{safe(incident.agent.name, 80)} {unsaid} and nothing says why"


def who_of(incident: IncidentOpened) -> str:
    """Whom it is about."""
    who = f"{safe(incident.agent.name, 80)}, {pids_of(incident)}"
    if incident.scope == "tool":
        name = safe(incident.process.comm, 40) or "a tool"
        who = f"{name}, pid {incident.process.pid}, a tool of {safe(incident.agent.name, 80)} (pid {incident.agent.pid}), which was not blamed"
    return who


def pids_of(incident: IncidentOpened) -> str:
    """Its number here outside, and the one inside its own pid namespace where that is another."""
    found = fields_of(incident, "enclosure")
    inside = found[1].get("pid_inside") if found is not None else None
    here = f"pid {incident.process.pid}" if incident.process.pid else "its pid is not known"
    return f"{here} ({inside} inside)" if isinstance(inside, int) else here


def identity_of(incident: IncidentOpened) -> str:
    """Cause, confidence and whom it is about, in one line."""
    slug = "" if incident.cause == UNDETERMINED else f"{slug_of(incident)} · "
    past = f"{RECONSTRUCTED} · " if incident.reconstructed else ""
    return f"{slug}{confidence_of(incident)} · {past}{who_of(incident)}"


def confidence_of(incident: IncidentOpened) -> str:
    """How sure it is, in a word that needs no glossary."""
    return "cause not determined" if incident.confidence == UNDETERMINED else incident.confidence


def blame_of(incident: IncidentOpened) -> str:
    """The culprit, where there is one."""
    return "" if incident.confidence == UNDETERMINED and incident.culprit == "unknown" else safe(incident.culprit)


def no_proof(incident: IncidentOpened) -> str:
    """What to say where no evidence proves the verdict."""
    return "Nothing that was seen proves a cause." if incident.evidence else "No evidence could be had."


def slug_of(incident: IncidentOpened) -> str:
    """The cause as `explain` takes it."""
    return safe(incident.cause, 60)


def ending_of(incident: IncidentOpened) -> str:
    """How the process ended, how long it had lived and how fast that was told."""
    end = incident.exit
    if end.signal is not None:
        how = f"{safe(end.signal, 20)}{', core dumped' if end.core_dumped else ''}"
    elif end.code is not None:
        how = f"exit status {end.code}"
    else:
        how = "it lives"
    lived_ns = incident.at_ns - incident.process.start_ns
    if lived_ns <= 0 or (incident.reconstructed and not incident.process.start_ns):
        return how  # nobody knows when it started
    return f"{how}, after {span(lived_ns)}" if has_ended(incident) else f"{how}, for {span(lived_ns)} so far"


def has_ended(incident: IncidentOpened) -> bool:
    """Whether the process had ended; a hang is told of the living."""
    return incident.exit.code is not None or incident.exit.signal is not None


def facts_of(incident: IncidentOpened, when: str | None) -> list[tuple[str, str]]:
    """The few facts that stand between the headline and its proof, each with its label."""
    facts = []
    blame = blame_of(incident)
    if blame:
        facts.append(("Blame", blame))
    facts.append(("Ended" if has_ended(incident) else "State", ending_of(incident)))
    if incident.actor is not None:
        facts.append(("Sender", safe(incident.actor.says)))
    command = " ".join(incident.process.argv) or (incident.agent.command if incident.process.pid == incident.agent.pid else "")
    if command.strip():
        facts.append(("Command", safe(command, 240)))
    place = incident.agent.unit or incident.agent.container or incident.process.cgroup or incident.agent.cgroup
    found = fields_of(incident, "enclosure")
    if found is not None:
        place = found[0].says.removeprefix("it lived in ").partition("; pid ")[0]
    if place:
        facts.append(("Where", safe(place, 240)))
    if when:
        facts.append(("When", when))
    after = "it" if has_ended(incident) else "the look that showed it"
    told = f"told {incident.detected_in_ms:.1f} ms after {after}, " if incident.detected_in_ms > 0 else ""
    facts.append(("Record", f"{safe(incident.incident, 80)}, {told}engine {incident.engine}"))
    return facts


def proof_of(incident: IncidentOpened) -> list[EvidenceRecord]:
    """Evidence, decisive first; within a weight as the cause cited it."""
    return sorted(incident.evidence, key=lambda record: WEIGHTS.index(record.weight))


def sources_of(record: EvidenceRecord) -> str:
    """Where a fact came from, as a person could look it up."""
    return safe(record.source, 200)


def others_of(incident: IncidentOpened) -> list[str]:
    """Findings beside the one in the headline."""
    return [
        f"{safe(finding.headline, 300)} ({safe(finding.cause, 60)}, {finding.confidence})"
        for finding in incident.findings
        if finding.cause != incident.cause
    ]


def sift(ruled_out: Iterable[RuledOut]) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Reasons with the causes that each rules out, and the causes for which there was simply no sign."""
    no_sign = {kind.absent for kind in kinds().values()}
    reasons: dict[str, list[str]] = {}
    rest = []
    for entry in ruled_out:
        slug = safe(entry.cause, 60)
        if entry.because in no_sign:
            rest.append(slug)
        else:
            reasons.setdefault(safe(entry.because, 300), []).append(slug)
    return list(reasons.items()), rest


def grouped(entries: Iterable[RuledOut]) -> list[tuple[str, list[str]]]:
    """Reasons with all causes that share each, in the order they came."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        reasons.setdefault(safe(entry.because, 300), []).append(safe(entry.cause, 60))
    return list(reasons.items())


def named(slugs: Sequence[str], limit: int = 4) -> str:
    """A few of the slugs, and how many more."""
    more = len(slugs) - limit
    return ", ".join(slugs[:limit]) + (f" and {more} more" if more > 0 else "")


# --- what evidence holds ------------------------------------------------------------------------------------------------


def fields_of(incident: IncidentOpened, kind: str) -> tuple[EvidenceRecord, Mapping[str, object]] | None:
    """The record of this kind with its fields, if the incident has one."""
    record = next((record for record in incident.evidence if record.kind == kind), None)
    return None if record is None else (record, record.data)


def rows_of(value: object) -> list[Mapping[str, object]]:
    """The mappings in a list that should hold mappings."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def number_of(value: object) -> float | None:
    """A number that is one, or None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MOST:
        return None
    return float(value)


def amount_of(value: object) -> float | None:
    """A number of bytes, or None for anything else."""
    number = number_of(value)
    return number if number is not None and number >= 0 else None


def stacks_of(incident: IncidentOpened, limit: int | None = FRAMES_SHOWN, *, all_threads: bool = False) -> list[Stack]:
    """Python first, because its author can read it; then native. With a `limit` of frames, only the first threads, unless asked for all."""
    found = []
    python = fields_of(incident, "python-stack")
    if python is not None and rows_of(python[1].get("frames")):
        found.append(stack("Python stack", python_frames(python[1].get("frames")), "", limit))
    native = fields_of(incident, "native-stack")
    if native is not None and rows_of(native[1].get("frames")):
        frames = [
            (native_name(row), safe(str(row.get("module") or "no file"), 240)) for row in rows_of(native[1].get("frames"))
        ]
        ended = safe(str(native[1].get("ended") or ""), 160)
        found.append(stack("Native stack", frames, f"unwinding ended: {ended}" if ended else "", limit))
    living = living_stacks(incident, limit)
    left_out = 0 if all_threads or limit is None else len(living) - STACKS_SHOWN
    if left_out > 0:
        last = living[STACKS_SHOWN - 1]
        more = f"{count_of(left_out, 'more stack')} not shown"
        living = [*living[: STACKS_SHOWN - 1], replace(last, note=f"{last.note}; {more}" if last.note else more)]
    return [*found, *living]


def living_stacks(incident: IncidentOpened, limit: int | None) -> list[Stack]:
    """The stacks of a process that lives: Python threads and tasks; native ones only where there is no Python."""
    found = []
    threads = fields_of(incident, "python-threads")
    for row in rows_of(threads[1].get("threads")) if threads is not None else ():
        title = f"Python thread {row.get('name') or ''}".rstrip() + f" ({row.get('tid')})"
        found.append(stack(safe(title, 80), python_frames(row.get("frames")), "", limit))
    tasks = fields_of(incident, "async-tasks")
    for row in rows_of(tasks[1].get("tasks")) if tasks is not None else ():
        awaits = f"awaits {safe(str(row['awaits']), 60)}" if row.get("awaits") else ""
        found.append(stack(safe(f"Task {row.get('name')}", 80), python_frames(row.get("chain"))[::-1], awaits, limit))
    native = fields_of(incident, "native-threads")
    if threads is None and native is not None:
        for row in rows_of(native[1].get("threads")):
            given = row.get("frames")
            names = [str(name) for name in given] if isinstance(given, list | tuple) else []
            split = [name.rpartition(" (") for name in names]
            frames = [
                (safe(before or after, 120), safe(after.rstrip(")") if before else "", 240)) for before, _, after in split
            ]
            found.append(stack(f"Native stack of thread {row.get('tid')}", frames, "", limit))
    return [entry for entry in found if entry.frames]


def python_frames(frames: object) -> list[tuple[str, str]]:
    """Python frames of a record: function, and file with line."""
    return [
        (
            safe(str(row.get("function", "?")), 80),
            safe(f"{row.get('file', '?')}:{row.get('line') or row.get('first_line')}", 240),
        )
        for row in rows_of(frames)
    ]


def native_name(row: Mapping[str, object]) -> str:
    """The symbol, or the offset in the file where none is known."""
    if row.get("symbol"):
        return safe(str(row["symbol"]), 120)
    offset = row.get("offset")
    return f"+{offset:#x}" if isinstance(offset, int) else "?"


def stack(title: str, frames: list[tuple[str, str]], note: str, limit: int | None) -> Stack:
    """At most `limit` frames: the innermost, and the outermost two, because the entry point tells which program it was."""
    if limit is None or len(frames) <= limit:
        return Stack(title, tuple(frames), note)
    left_out = len(frames) - limit
    kept = [*frames[: limit - 2], ("…", f"{count_of(left_out, 'frame')} not shown"), *frames[-2:]]
    return Stack(title, tuple(kept), note)


def words_of(incident: IncidentOpened, limit: int = WORD_LINES) -> Excerpt | None:
    """The end of what it wrote."""
    found = fields_of(incident, WORDS_KIND)
    if found is None:
        return None
    lines, above = safe_lines(str(found[1].get("text") or ""), limit, line_limit=400)
    return Excerpt(tuple(lines), above, sources_of(found[0])) if lines else None


def course_of(incident: IncidentOpened) -> Course | None:
    """The samples of its memory in order, if at least two were taken."""
    found = fields_of(incident, "memory-history")
    samples = found[1].get("samples") if found else None
    rows = (
        [row for row in samples if isinstance(row, list | tuple) and len(row) == 3] if isinstance(samples, list | tuple) else []
    )
    points = []
    for row in rows:
        at_ns, resident, cgroup = number_of(row[0]), amount_of(row[1]), amount_of(row[2])
        if at_ns is not None and (resident is not None or cgroup is not None):
            points.append((at_ns, resident, cgroup))
    if len(points) < 2:
        return None
    limits = fields_of(incident, "memory-limits")
    binding = limits[1].get("binding") if limits else None
    limit = amount_of(binding.get("limit_bytes")) if isinstance(binding, Mapping) else None
    return Course(tuple(sorted(points, key=lambda point: point[0])), limit or None)


def memory_of(incident: IncidentOpened, cells: int = 48) -> Memory | None:
    """The course of its memory against its limit, if there were samples."""
    course = course_of(incident)
    if course is None:
        return None
    limit = course.limit_bytes
    # the limit binds the cgroup, so show the cgroup where a limit is drawn as the top
    column = 2 if limit and any(point[2] is not None for point in course.points) else 1
    values = [point[column] for point in course.points]
    known = [value for value in values if value is not None]
    if not known:
        return None
    whose = "its cgroup" if column == 2 else "resident"
    says = f"{whose}: {size(known[0])} to {size(known[-1])} in {span(course.points[0][0])}"
    if limit:
        says += f"; full height is the limit, {size(limit)}"
    return Memory(sparkline(values, cells, limit), says)


def timeline_of(incident: IncidentOpened) -> list[tuple[str, str]]:
    """(how long before or after the end, what happened), oldest first."""
    entries = sorted(incident.timeline, key=lambda entry: entry.offset_ns)
    zero = zero_of(incident)
    return [(offset_words(entry.offset_ns, zero), safe(entry.says, 300)) for entry in entries]


def zero_of(incident: IncidentOpened) -> str:
    """The moment from which the time line counts."""
    return "the end" if has_ended(incident) else "this look"


def offset_words(offset_ns: int, zero: str = "the end") -> str:
    """As "12.4 s before", "the end", "6.3 ms after"."""
    if offset_ns == 0:
        return zero
    return f"{span(offset_ns)} {'before' if offset_ns < 0 else 'after'}"
