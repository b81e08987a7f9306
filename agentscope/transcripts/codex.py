"""Codex: ~/.codex/sessions/YYYY/MM/DD/rollout-TIME-ID.jsonl. Verified with 0.169.0.

The folders are days of local time, on which a session began: one that is resumed goes on in its old file. The first line
(`session_meta`) has the working directory. `response_item` lines are what the model and its tools said, `event_msg` lines tell
where a turn begins (`task_started`; in old versions only `user_message`) and ends. A call that was cut off never gets a result.
"""

import re
from collections.abc import Iterator

import msgspec

from agentscope.transcripts import Asked, Session, Unread
from agentscope.transcripts._choosing import Candidate, chosen, named_in
from agentscope.transcripts._course import Course, decoded, moment
from agentscope.transcripts._files import Below, below
from agentscope.transcripts._telling import told

TOOL = "Codex"
PROGRAMS = frozenset({"codex", "codex.js"})
PACKAGES = ("@openai/codex",)
PLACES = ("CODEX_HOME",)
ROLLOUT = re.compile(r"rollout-[0-9T:-]{10,30}-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl")
HEAD_LIMIT = 256 << 10  # the first line holds the instructions, too
DAYS_LIMIT = 31
DAYS_OF_A_NAMED_ONE = 1000
READ_LIMIT = 64


class Meta(msgspec.Struct):
    """What the first line tells, or a later one. A sub-agent's `source` is a table, a session's own is a word."""

    id: str = ""
    cwd: str = ""
    source: object = None
    timestamp: str | None = None


class First(msgspec.Struct):
    """The first line."""

    type: str = ""
    timestamp: str | None = None
    payload: Meta | None = None


class Payload(msgspec.Struct):
    """What we look at of any other line."""

    type: str = ""
    name: str | None = None
    call_id: str | None = None
    role: str | None = None


class Entry(msgspec.Struct):
    """Any line."""

    type: str = ""
    timestamp: str | None = None
    payload: Payload | None = None


FIRST = msgspec.json.Decoder(First)
ENTRY = msgspec.json.Decoder(Entry)
CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})
OVER = frozenset({"task_complete", "turn_complete", "turn_aborted"})


def resume(session: str) -> tuple[str, ...]:
    """`codex resume ID` in a terminal; `codex exec resume ID PROMPT` goes on without one."""
    return ("codex", "resume", session)


def look(asked: Asked) -> Session | Unread | None:
    """The rollout of its folder that was written since it began."""
    place = asked.place("CODEX_HOME", ".codex")
    if place is None:
        return None
    with below(place, asked.uid, asked.root) as home:
        cwds: dict[str, str] = {}
        candidates = []
        for path, session, written_ns in rollouts(home, asked):
            first = first_of(home, path)
            if first is None or first.payload is None or isinstance(first.payload.source, dict):
                continue
            if asked.cwd is None or first.payload.cwd == asked.cwd or session in named_in(asked.argv):
                cwds[session] = first.payload.cwd
                began_ns = moment(first.payload.timestamp or first.timestamp)
                candidates.append(Candidate(session=session, path=path, written_ns=written_ns, began_ns=began_ns))
        found = chosen(asked, TOOL, candidates)
        if found is None or isinstance(found, Unread):
            return found
        return session_in(home, found, cwds[found.session])


def rollouts(home: Below, asked: Asked) -> Iterator[tuple[str, str, int]]:
    """Path, id and time of writing of those written since it began, of the latest days first; bounded."""
    named = named_in(asked.argv)
    given, read = 0, 0
    for day in days(home, DAYS_OF_A_NAMED_ONE if named else DAYS_LIMIT):
        for entry in home.files(day, ".jsonl"):
            match = ROLLOUT.fullmatch(entry.name)
            read += 1
            if match is None or entry.written_ns < asked.began_wall_ns - 2_000_000_000:
                continue
            given += 1
            yield f"{day}/{entry.name}", match[1], entry.written_ns
            if given >= READ_LIMIT or read >= 20000:
                return


def days(home: Below, limit: int) -> Iterator[str]:
    """The folders of days, the latest first."""
    given = 0
    for year in reversed(home.folders("sessions")):
        for month in reversed(home.folders(f"sessions/{year}")):
            for day in reversed(home.folders(f"sessions/{year}/{month}")):
                yield f"sessions/{year}/{month}/{day}"
                given += 1
                if given >= limit:
                    return


def first_of(home: Below, path: str) -> First | None:
    """The first line, or None where it is another, or longer than any we know."""
    try:
        line = home.head(path, HEAD_LIMIT).partition(b"\n")[0]
    except OSError:
        return None
    first = decoded(line, FIRST)
    return first if first is not None and first.type == "session_meta" else None


def session_in(home: Below, found: Candidate, cwd: str) -> Session:
    """The session, and what its rollout tells."""
    course = Course()
    lines, whole = home.tail(found.path)
    entries = [entry for line in lines if (entry := decoded(line, ENTRY)) is not None and entry.payload is not None]
    begins = "task_started" if any(each.payload and each.payload.type == "task_started" for each in entries) else "user_message"
    for entry in entries:
        if entry.payload is not None:
            fold(course, entry.type, entry.payload, moment(entry.timestamp), begins)
    return told("codex", found.session, course, source=f"its own transcript, {found.path}", folder=cwd or None, whole=whole)


def fold(course: Course, kind: str, payload: Payload, at_ns: int | None, begins: str) -> None:
    """One line of the rollout."""
    if kind == "event_msg":
        if payload.type == begins:
            course.prompt()
        elif payload.type in OVER:
            course.ended()
    elif kind == "response_item":
        if payload.type in CALLS:
            name = payload.name or ("local_shell" if payload.type == "local_shell_call" else None)
            course.call(payload.call_id or "", name, payload.type, at_ns)
        elif payload.type in RESULTS:
            course.result(payload.call_id or "")
        elif payload.type == "message" and payload.role == "assistant":
            course.answer(over=False if begins == "task_started" else None)
