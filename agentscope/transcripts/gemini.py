"""Gemini CLI: ~/.gemini/tmp/PROJECT/chats/session-TIME-ID.jsonl. Verified with 0.61.0.

PROJECT is what ~/.gemini/projects.json has for the working directory; in older versions it is the SHA-256 of that path, and the
file is one JSON object. A tool that the model asked for is written down once it has ended, never before: of one that was cut off the
name is not known, and an answer without words and without tools is one whose tool was running. `--resume` takes the whole id,
though its help speaks of an index. A session is resumed in its own folder only.
"""

import hashlib

import msgspec

from agentscope.transcripts import Asked, Place, Session, Unread, is_id
from agentscope.transcripts._choosing import Candidate, chosen
from agentscope.transcripts._course import Course, decoded, moment
from agentscope.transcripts._files import TAIL_BYTES, Below, below
from agentscope.transcripts._telling import told

TOOL = "Gemini CLI"
PROGRAMS = frozenset({"gemini", "gemini-cli"})
PACKAGES = ("@google/gemini-cli",)
PLACES = ("GEMINI_CLI_HOME",)
PROJECTS_LIMIT = 1 << 20


class ToolCall(msgspec.Struct):
    """A tool that ended."""

    id: str = ""
    name: str | None = None


class Entry(msgspec.Struct):
    """One message: of the user, or of the model ("gemini"), which is written again with its tools once they have ended."""

    type: str = ""
    id: str = ""
    timestamp: str | None = None
    content: object = None
    tools: list[ToolCall] | None = msgspec.field(default=None, name="toolCalls")


class Change(msgspec.Struct):
    """A change of the whole: the messages so far."""

    messages: list[Entry] | None = None


class Line(Entry):
    """One line: a message, a change, or the first, which has the id. The older form is one such line."""

    session: str = msgspec.field(default="", name="sessionId")
    began: str | None = msgspec.field(default=None, name="startTime")
    kind: str = "main"
    change: Change | None = msgspec.field(default=None, name="$set")
    messages: list[Entry] | None = None


class Projects(msgspec.Struct):
    """Which folder stands for which path."""

    projects: dict[str, str] = {}


LINE = msgspec.json.Decoder(Line)
PROJECTS = msgspec.json.Decoder(Projects)


def resume(session: str) -> tuple[str, ...]:
    """`gemini --resume ID`, in the folder of the session; with -p PROMPT it goes on without a terminal."""
    return ("gemini", "--resume", session)


def look(asked: Asked) -> Session | Unread | None:
    """The chat of its folder that was written since it began."""
    place = asked.place("GEMINI_CLI_HOME")
    if place is None or asked.cwd is None:
        return None
    with below(Place(base=place.base, path=".gemini"), asked.uid, asked.root) as home:
        candidates = []
        for project in projects_of(home, asked.cwd):
            candidates += candidates_in(home, f"tmp/{project}/chats")
        found = chosen(asked, TOOL, candidates)
        return found if found is None or isinstance(found, Unread) else session_in(home, found, asked.cwd)


def projects_of(home: Below, cwd: str) -> list[str]:
    """The names that may stand for a path: one component each."""
    names = [hashlib.sha256(cwd.encode("utf-8", "surrogateescape")).hexdigest()]
    try:
        known = decoded(home.head("projects.json", PROJECTS_LIMIT), PROJECTS)
    except OSError:
        known = None
    name = known.projects.get(cwd) if known is not None else None
    return [name, *names] if name and is_id(name) else names


def candidates_in(home: Below, chats: str) -> list[Candidate]:
    """The main sessions in a folder. One that is resumed has a second file with the same id; the last written counts."""
    found = []
    try:
        entries = home.files(chats, ".jsonl") + home.files(chats, ".json")
    except FileNotFoundError:
        return []
    for entry in entries[:64]:
        if not entry.name.startswith("session-"):
            continue
        limit = 65536 if entry.name.endswith(".jsonl") else TAIL_BYTES
        text = home.head(f"{chats}/{entry.name}", limit)
        first = decoded(text.partition(b"\n")[0] if entry.name.endswith(".jsonl") else text, LINE)
        if first is not None and first.kind == "main" and is_id(first.session):
            path = f"{chats}/{entry.name}"
            found.append(Candidate(session=first.session, path=path, written_ns=entry.written_ns, began_ns=moment(first.began)))
    return found


def session_in(home: Below, found: Candidate, folder: str) -> Session:
    """The session, and what its chat tells."""
    lines, whole = home.tail(found.path)
    entries: dict[str, Entry] = {}
    for line in lines if found.path.endswith(".jsonl") else [b"\n".join(lines)]:
        entry = decoded(line, LINE)
        if entry is None:
            continue
        messages = entry.change.messages if entry.change is not None else entry.messages
        if messages is not None:
            entries = {each.id: each for each in messages}
        elif entry.type:
            entries[entry.id] = entry
    course = Course()
    for each in entries.values():
        fold(course, each)
    return told("gemini", found.session, course, source=f"its own transcript, {found.path}", folder=folder, whole=whole)


def fold(course: Course, entry: Entry) -> None:
    """One message."""
    if entry.type == "user":
        if is_prompt(entry.content):
            course.prompt()
    elif entry.type == "gemini":
        for call in entry.tools or ():
            course.call(call.id, call.name, "functionCall", moment(entry.timestamp))
            course.result(call.id)
        if not entry.tools and not entry.content:
            course.call(entry.id, None, "functionCall", moment(entry.timestamp))
        elif not entry.tools:
            course.answer(over=None)  # words may stand before a tool that is not written down yet


def is_prompt(content: object) -> bool:
    """Whether a message of the user is one: the program writes the first, and those with the results of tools, itself."""
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict):
        return bool(content)
    text = first.get("text")
    return isinstance(text, str) and not text.startswith("<session_context>")
