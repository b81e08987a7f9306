"""Qwen Code: ~/.qwen/projects/FOLDER/chats/ID.jsonl. Verified with 0.24.4.

FOLDER is named as Claude Code names it. One entry a line: `user` (a prompt), `assistant` (parts, among them `functionCall`),
`tool_result` (`functionResponse`), `system`. A session is resumed in its own folder only.
"""

import re

import msgspec

from agentscope.transcripts import Asked, Session, Unread
from agentscope.transcripts._choosing import Candidate, chosen
from agentscope.transcripts._course import Course, decoded, moment
from agentscope.transcripts._files import Below, below
from agentscope.transcripts._slugs import slug_of
from agentscope.transcripts._telling import told

TOOL = "Qwen Code"
PROGRAMS = frozenset({"qwen", "qwen-code"})
PACKAGES = ("@qwen-code/qwen-code",)
PLACES = ("QWEN_HOME", "QWEN_RUNTIME_DIR")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Function(msgspec.Struct):
    """A call of a tool, or its result."""

    id: str | None = None
    name: str | None = None


class Part(msgspec.Struct):
    """One part of a message."""

    call: Function | None = msgspec.field(default=None, name="functionCall")
    response: Function | None = msgspec.field(default=None, name="functionResponse")


class Message(msgspec.Struct):
    """What was said."""

    parts: list[Part] = []


class Entry(msgspec.Struct):
    """One line."""

    type: str = ""
    timestamp: str | None = None
    message: Message | None = None


ENTRY = msgspec.json.Decoder(Entry)


def resume(session: str) -> tuple[str, ...]:
    """`qwen --resume ID`, in the folder of the session; with -p PROMPT it goes on without a terminal."""
    return ("qwen", "--resume", session)


def look(asked: Asked) -> Session | Unread | None:
    """The chat of its folder that was written since it began."""
    named = "QWEN_RUNTIME_DIR" if asked.environment.get("QWEN_RUNTIME_DIR") else "QWEN_HOME"
    place = asked.place(named, ".qwen")
    if place is None or asked.cwd is None:
        return None
    chats = f"projects/{slug_of(asked.cwd)}/chats"
    with below(place, asked.uid, asked.root) as home:
        candidates = [
            Candidate(
                session=entry.name[:-6],
                path=f"{chats}/{entry.name}",
                written_ns=entry.written_ns,
                began_ns=began(home, f"{chats}/{entry.name}"),
            )
            for entry in home.files(chats, ".jsonl")[:64]
            if UUID.fullmatch(entry.name[:-6])
        ]
        found = chosen(asked, TOOL, candidates)
        return found if found is None or isinstance(found, Unread) else session_in(home, found, asked.cwd)


def began(home: Below, path: str) -> int | None:
    """When a chat began: the time of its first entry."""
    try:
        entry = decoded(home.head(path, 65536).partition(b"\n")[0], ENTRY)
    except OSError:
        return None
    return None if entry is None else moment(entry.timestamp)


def session_in(home: Below, found: Candidate, folder: str) -> Session:
    """The session, and what its chat tells."""
    course = Course()
    lines, whole = home.tail(found.path)
    for line in lines:
        entry = decoded(line, ENTRY)
        if entry is not None and entry.message is not None:
            fold(course, entry, entry.message)
    return told("qwen", found.session, course, source=f"its own transcript, {found.path}", folder=folder, whole=whole)


def fold(course: Course, entry: Entry, message: Message) -> None:
    """One entry of the conversation."""
    calls = [part.call for part in message.parts if part.call is not None]
    if entry.type == "user":
        course.prompt()
    elif entry.type == "assistant":
        for call in calls:
            course.call(call.id or "", call.name, "functionCall", moment(entry.timestamp))
        course.answer(over=not calls)
    elif entry.type == "tool_result":
        for part in message.parts:
            if part.response is not None:
                course.result(part.response.id or "")
