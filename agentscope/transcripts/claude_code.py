"""Claude Code: ~/.claude/projects/FOLDER/ID.jsonl, and ~/.claude/sessions/PID.json of what runs. Verified with 2.1.332.

FOLDER is the path of the working directory with "-" for all but ASCII letters and digits; after 200 of them comes a hash. One entry
a line: `user` (a prompt, or the results of tools), `assistant` (one block of an answer), and much that is not looked at. A session
is resumed in its own folder only; a call that was cut off is told to the model then as "its outcome is unknown".
"""

import re

import msgspec

from agentscope.transcripts import Asked, Session, Unread, is_id
from agentscope.transcripts._choosing import Candidate, chosen
from agentscope.transcripts._course import Course, decoded, moment
from agentscope.transcripts._files import Below, below
from agentscope.transcripts._slugs import slug_of
from agentscope.transcripts._telling import told

TOOL = "Claude Code"
PROGRAMS = frozenset({"claude", "claude.exe"})
PACKAGES = ("@anthropic-ai/claude-code",)
PLACES = ("CLAUDE_CONFIG_DIR",)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SLUG_LIMIT = 200
RUNNING_LIMIT = 65536
TICK_NS = 10_000_000
INTERRUPTED = "[Request interrupted by user"
CUT_OFF = "[Tool call interrupted"  # what it puts in the place of a result when it goes on with a session that was cut off


class Block(msgspec.Struct):
    """One block of a message: text, a call of a tool (`tool_use`, `server_tool_use`), or the result of one."""

    type: str = ""
    id: str = ""
    name: str | None = None
    tool_use_id: str = ""
    text: str = ""
    content: object = None


class Message(msgspec.Struct):
    """What was said."""

    content: str | list[Block] = ""
    stop_reason: str | None = None


class Entry(msgspec.Struct):
    """One line."""

    type: str = ""
    timestamp: str | None = None
    message: Message | None = None
    is_sidechain: bool | None = msgspec.field(default=None, name="isSidechain")
    is_meta: bool | None = msgspec.field(default=None, name="isMeta")


class Running(msgspec.Struct):
    """What it keeps of a running process: `procStart` is field 22 of /proc/PID/stat."""

    pid: int = 0
    session: str = msgspec.field(default="", name="sessionId")
    cwd: str = ""
    start_ticks: str = msgspec.field(default="", name="procStart")


ENTRY = msgspec.json.Decoder(Entry)
RUNNING = msgspec.json.Decoder(Running)


def resume(session: str) -> tuple[str, ...]:
    """`claude --resume ID`, in the folder of the session; with -p PROMPT it goes on without a terminal."""
    return ("claude", "--resume", session)


def look(asked: Asked) -> Session | Unread | None:
    """The session that its own list of running processes names for this one, else the one in its folder."""
    place = asked.place("CLAUDE_CONFIG_DIR", ".claude")
    if place is None:
        return None
    with below(place, asked.uid, asked.root) as home:
        running = running_of(home, asked)
        folder = running.cwd if running is not None and running.cwd.startswith("/") else asked.cwd
        if folder is None:
            return None
        project = project_of(home, folder)
        if running is not None:
            return session_in(home, project, running.session, folder)
        if project is None:
            return None
        candidates = [
            Candidate(
                session=entry.name[:-6],
                path=project,
                written_ns=entry.written_ns,
                began_ns=began(home, f"{project}/{entry.name}"),
            )
            for entry in home.files(project, ".jsonl")[:64]
            if UUID.fullmatch(entry.name[:-6])
        ]
        found = chosen(asked, TOOL, candidates)
        return found if found is None or isinstance(found, Unread) else session_in(home, project, found.session, folder)


def running_of(home: Below, asked: Asked) -> Running | None:
    """What it noted of this very process: the number alone may be of another, in another container or of long ago."""
    try:
        found = decoded(home.head(f"sessions/{asked.pid}.json", RUNNING_LIMIT), RUNNING)
    except OSError:
        return None
    if found is None or not found.start_ticks.isdecimal() or len(found.start_ticks) > 20 or not is_id(found.session):
        return None
    return found if abs(int(found.start_ticks) * TICK_NS - asked.start_ns) < 2 * TICK_NS else None


def project_of(home: Below, folder: str) -> str | None:
    """Where the sessions of a folder are."""
    slug = slug_of(folder)
    if len(slug) <= SLUG_LIMIT:
        return f"projects/{slug}"
    names = [name for name in home.folders("projects") if name.startswith(f"{slug[:SLUG_LIMIT]}-")]
    return f"projects/{names[0]}" if len(names) == 1 else None


def began(home: Below, path: str) -> int | None:
    """When a session began: the first time that it tells."""
    try:
        lines = home.head(path, 16384).split(b"\n")
    except OSError:
        return None
    times = (moment(entry.timestamp) for line in lines if (entry := decoded(line, ENTRY)) is not None)
    return next((time for time in times if time is not None), None)


def session_in(home: Below, project: str | None, session: str, folder: str) -> Session:
    """The session, and what its file tells; its id is known without."""
    course, whole = Course(), True
    path = None if project is None else f"{project}/{session}.jsonl"
    try:
        lines, whole = home.tail(path) if path is not None else ([], True)
    except OSError:
        lines = []
    for line in lines:
        entry = decoded(line, ENTRY)
        if entry is not None and not entry.is_sidechain and not entry.is_meta and entry.message is not None:
            fold(course, entry, entry.message)
    return told("claude-code", session, course, source=f"its own transcript, {path or 'sessions'}", folder=folder, whole=whole)


def fold(course: Course, entry: Entry, message: Message) -> None:
    """One entry of the conversation."""
    blocks = [Block(type="text", text=message.content)] if isinstance(message.content, str) else message.content
    if entry.type == "user":
        results = [block for block in blocks if block.type == "tool_result"]
        for block in results:
            if isinstance(block.content, str) and block.content.startswith(CUT_OFF):
                course.cut_off(block.tool_use_id)
            else:
                course.result(block.tool_use_id)
        if any(block.text.startswith(INTERRUPTED) for block in blocks):
            course.ended()
        elif blocks and not results:
            course.prompt()
    elif entry.type == "assistant":
        for block in blocks:
            if block.type.endswith("tool_use"):
                course.call(block.id, block.name, block.type, moment(entry.timestamp))
            elif block.type.endswith("tool_result"):
                course.result(block.tool_use_id)
        # a version that writes blocks while they stream knows no reason yet
        course.answer(over=None if message.stop_reason is None else message.stop_reason not in {"tool_use", "pause_turn"})
