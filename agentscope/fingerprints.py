"""When two deaths are the same death, and what a person would say of a row of them. Pure.

A fingerprint is of the cause, the culprit and the top frames of the stacks, without what differs from one life to the next:
pids, addresses, files under /tmp, counts. The same programming error has the same one after every restart.
"""

import hashlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from agentscope.model import IncidentOpened, Value

HEX_DIGITS = 8  # of the hundred deaths that are kept of an agent, two different ones would collide once in a million
FRAMES_COUNTED = 3
TEXT_READ = 2000
VARYING = (
    (re.compile(r"(?:/private)?/(?:tmp|var/tmp|dev/shm|run/user/[0-9]{1,10})/[^\s:,;'\"()]{1,400}"), "/tmp/*"),  # noqa: S108 - nothing is opened
    (re.compile(r"/proc/(?:self|[0-9]{1,10})/[^\s:,;'\"()]{0,400}"), "/proc/*"),
    (re.compile(r"\b0x[0-9a-fA-F]{1,32}\b"), "#"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "#"),
    (re.compile(r"\b(?=[0-9a-f]{0,63}[0-9])[0-9a-f]{12,64}\b"), "#"),
    (re.compile(r"[0-9]{1,40}(?:[.,:][0-9]{1,40}){0,8}"), "#"),
)
SLOW_S = 3600.0  # a loop whose rounds are longer than this looks like unrelated deaths to whoever counts in minutes
APART_S = 2 * 86400.0  # deaths that are further apart are no loop
STEADY = 0.25  # rounds that differ by less than a quarter of their length have a period


class Loop(Value, frozen=True):
    """The deaths of one agent that make a loop: `times` of the `fingerprints`, one after the other, within `span_s`.

    `period_s` is the length of a round where they are steady and slow; None for a fast or irregular loop.
    """

    fingerprints: tuple[str, ...]
    times: int
    span_s: float
    period_s: float | None = None


def fingerprint(incident: IncidentOpened) -> str:
    """That of a death or hang, as short hexadecimal text."""
    end = incident.exit
    ending = "" if end.code is None and end.signal is None else f"{end.signal or end.code}"
    parts = (incident.cause, ending, plain(incident.culprit), *frames_of(incident))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:HEX_DIGITS]


def plain(text: str) -> str:
    """The text without what differs from one life to the next."""
    text = text[:TEXT_READ]
    for pattern, instead in VARYING:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def frames_of(incident: IncidentOpened) -> list[str]:
    """The innermost frames of the stack that the incident has, by function and file; line numbers move with every edit."""
    found = {record.kind: record.data for record in incident.evidence}
    for kind, name, place in (("python-stack", "function", "file"), ("native-stack", "symbol", "module")):
        rows = rows_of(found.get(kind, {}).get("frames"))
        if rows:
            return [frame(row, name, place) for row in rows[:FRAMES_COUNTED]]
    threads = rows_of(found.get("python-threads", {}).get("threads"))
    if threads:
        return [frame(row, "function", "file") for row in rows_of(threads[0].get("frames"))[:FRAMES_COUNTED]]
    return []


def frame(row: Mapping[str, object], name: str, place: str) -> str:
    """One frame. A native one without a symbol is known by its offset in its file, which is the same in every life."""
    what = row.get(name)
    where = str(row.get(place) or "").rsplit("/", 1)[-1]
    if what is None and isinstance(row.get("offset"), int):
        return f"{where}+{row['offset']:#x}"
    return f"{str(what or '?').partition('+0x')[0]} {where}"[:TEXT_READ]


def rows_of(value: object) -> list[Mapping[str, object]]:
    """The mappings in what should be a list of mappings: records of other versions are read too."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


# --- loops ------------------------------------------------------------------------------------------------------------------


def loop_of(deaths: Sequence[tuple[float, str]]) -> Loop | None:
    """The loop that the last of these deaths is in, or None. Each is its wall time in seconds and its fingerprint, oldest first.

    A loop is the same death again and again, or two that alternate. What else happened between them ends it.
    """
    if len(deaths) < 2:
        return None
    last = deaths[-1][1]
    others = [mark for _, mark in deaths[:-1] if mark != last]
    allowed = {last}
    run = run_of(deaths, allowed)
    if others:
        with_other = run_of(deaths, {last, others[-1]})
        # two causes alternate only if each came more than once and neither merely followed the other
        if alternates(with_other) and len(with_other) > len(run):
            run, allowed = with_other, {last, others[-1]}
    if len(run) < (2 if len(allowed) == 1 else 4):
        return None
    gaps = [after - before for (before, _), (after, _) in pairwise(run)]
    round_s = statistics.median(gaps) * len(allowed)
    steady = len(gaps) >= 2 and all(abs(gap - statistics.median(gaps)) <= STEADY * statistics.median(gaps) for gap in gaps)
    marks = tuple(dict.fromkeys(mark for _, mark in run))
    period_s = round_s if steady and round_s >= SLOW_S else None
    return Loop(fingerprints=marks, times=len(run), span_s=max(0.0, run[-1][0] - run[0][0]), period_s=period_s)


def run_of(deaths: Sequence[tuple[float, str]], allowed: Iterable[str]) -> list[tuple[float, str]]:
    """The last deaths in a row that have one of these fingerprints."""
    wanted = set(allowed)
    run: list[tuple[float, str]] = []
    for death in reversed(deaths):
        if death[1] not in wanted or (run and run[-1][0] - death[0] > APART_S):
            break
        run.append(death)
    return run[::-1]


def alternates(run: Sequence[tuple[float, str]]) -> bool:
    """Whether it changes from one to the other more often than not, and both came at least twice."""
    marks = [mark for _, mark in run]
    changes = sum(before != after for before, after in pairwise(marks))
    return len(marks) >= 4 and changes * 2 > len(marks) - 1 and all(marks.count(mark) >= 2 for mark in set(marks))


def loop_words(loop: Loop | None) -> str:
    """As "same death 4 times in 9 minutes", "the same death about every 11 hours, 4 times by now"; empty where there is no loop."""
    if loop is None:
        return ""
    two = len(loop.fingerprints) > 1
    if loop.period_s is not None:
        what = "the same two deaths in turn" if two else "the same death"
        return f"{what} about every {span_words(loop.period_s)}, {loop.times} times by now"
    if two:
        return f"two deaths in turn, {loop.times} in {span_words(loop.span_s)}"
    return f"same death {loop.times} times in {span_words(loop.span_s)}"


def span_words(seconds: float) -> str:
    """As "40 seconds", "9 minutes", "11 hours", "3 days": the unit that a person would count in."""
    for unit_s, unit in ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= 1.95 * unit_s or (seconds >= unit_s and unit != "day"):
            count = round(seconds / unit_s)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    count = max(1, round(seconds))
    return f"{count} second" if count == 1 else f"{count} seconds"
