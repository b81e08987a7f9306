"""opencode: ~/.local/share/opencode/opencode.db, an SQLite database with a write-ahead log. Verified with 1.18.33.

`session` has the working directory, `message` who said what, `part` the pieces of messages, among them tools with their state: of one
that was cut off it stays "running". The database of a killed opencode lies mostly in its log, so it must be opened as SQLite does it.
It is hostile, and SQLite locks and maps files beside it: a child process reads it, with no more rights than the agent's user has.
"""

import json
import os
import subprocess
import sys

import msgspec

from agentscope.model import Value
from agentscope.transcripts import SLACK_NS, Asked, Place, Session, Unread, is_id
from agentscope.transcripts._choosing import Candidate, chosen, named_in
from agentscope.transcripts._course import Course
from agentscope.transcripts._files import below
from agentscope.transcripts._telling import told

TOOL = "opencode"
PROGRAMS = frozenset({"opencode", "opencode.exe"})
PACKAGES = ("opencode-ai",)
PLACES = ("XDG_DATA_HOME", "OPENCODE_DB")
LONGEST_S = 0.7
ANSWER_LIMIT = 1 << 16
MS_NS = 1_000_000
NOBODY = 65534

# What the child runs. Its modules are loaded while it still may read them; then it becomes the agent's user, and only then it
# opens anything. SQLite's own advice for hostile databases (sqlite.org/security.html): no trusted schema, cell sizes checked,
# limits, a progress callback. Of JSON only the fields that are named here leave it.
CHILD = """
import json, os, resource, sqlite3, sys, time
path, uid, gid, cwd, since_ms, named = json.loads(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
base = sqlite3.connect("file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?mode=ro", uri=True, timeout=0.2)
until = time.monotonic() + 0.4
base.set_progress_handler(lambda: time.monotonic() > until, 10000)
for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON"):
    base.execute("PRAGMA " + pragma)
base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 16 << 20)
found = []
rows = base.execute("SELECT substr(id, 1, 200), substr(directory, 1, 4096), time_created, time_updated FROM session WHERE parent_id IS NULL AND (directory = ? OR ? IS NULL"
    " OR id IN (SELECT value FROM json_each(?))) ORDER BY time_updated DESC LIMIT 64", (cwd, cwd, json.dumps(named))).fetchall()
for session, folder, created, updated in rows:
    last = base.execute("SELECT id, time_updated, substr(json_extract(data, '$.role'), 1, 20), json_extract(data, '$.time.completed') IS NOT NULL, substr(json_extract(data, '$.finish'), 1, 40)"
        " FROM message WHERE session_id = ? ORDER BY time_created DESC, id DESC LIMIT 1", (session,)).fetchone()
    tools = base.execute("SELECT substr(json_extract(data, '$.tool'), 1, 200), substr(json_extract(data, '$.state.status'), 1, 20), json_extract(data, '$.state.time.start'), time_created, time_updated"
        " FROM part WHERE message_id = ? AND json_extract(data, '$.type') = 'tool' ORDER BY id DESC LIMIT 64", (last[0],)).fetchall() if last else []
    written = max([updated] + [last[1]] * bool(last) + [tool[4] for tool in tools])
    if written < since_ms:
        continue
    before = [] if tools or not last else base.execute("SELECT substr(json_extract(data, '$.tool'), 1, 200), substr(json_extract(data, '$.state.status'), 1, 20), json_extract(data, '$.state.time.start'), time_created"
        " FROM part WHERE session_id = ? AND json_extract(data, '$.type') = 'tool' ORDER BY time_created DESC, id DESC LIMIT 1", (session,)).fetchall()
    turns = base.execute("SELECT count(*) FROM message WHERE session_id = ? AND json_extract(data, '$.role') = 'user'", (session,)).fetchone()[0]
    found.append({"session": session, "folder": folder, "created_ms": created, "written_ms": written, "turns": turns, "role": last[2] if last else None,
        "completed": bool(last and last[3]), "finish": last[4] if last else None, "earlier": bool(before),
        "tools": [{"name": tool[0], "status": tool[1], "start_ms": tool[2] or tool[3]} for tool in reversed(tools or before)]})
print(json.dumps(found[:16]))
"""


class Tool(Value, frozen=True):
    """One call of a tool: `status` is pending, running, completed or error."""

    name: str | None = None
    status: str | None = None
    start_ms: int | None = None


class Row(Value, frozen=True):
    """One session: who spoke last in it, whether that message is complete, and its tools, or the last tool `earlier` than it."""

    session: str
    folder: str
    created_ms: int
    written_ms: int
    turns: int
    role: str | None = None
    completed: bool = False
    finish: str | None = None
    earlier: bool = False
    tools: tuple[Tool, ...] = ()


def resume(session: str) -> tuple[str, ...]:
    """`opencode -s ID` in a terminal; `opencode run -s ID PROMPT` goes on without one."""
    return ("opencode", "-s", session)


def look(asked: Asked) -> Session | Unread | None:
    """The session of its folder that was written since it began."""
    place = asked.place("XDG_DATA_HOME", ".local", "share")
    if place is None:
        return None
    place = Place(base=place.base, path=f"{place.path}/opencode".lstrip("/"))
    name = asked.environment.get("OPENCODE_DB") or "opencode.db"
    if name.startswith("/"):
        base, _, name = name.rpartition("/")
        place = Place(base=base or "/")
    with below(place, asked.uid, asked.root) as home:
        descriptor, status = home.opened(name)
        os.close(descriptor)
    rows = rows_of(f"{asked.root or ''}{place}/{name}", status.st_gid, asked)
    if isinstance(rows, Unread):
        return rows
    known = {row.session: row for row in rows if is_id(row.session)}
    candidates = [
        Candidate(session=row.session, path=name, written_ns=row.written_ms * MS_NS, began_ns=row.created_ms * MS_NS)
        for row in known.values()
    ]
    found = chosen(asked, TOOL, candidates)
    return found if found is None or isinstance(found, Unread) else session_of(known[found.session])


def rows_of(path: str, gid: int, asked: Asked) -> tuple[Row, ...] | Unread:
    """What the child read: of a database that is none of opencode's, or busy, or too slow, why not."""
    since_ms = (asked.began_wall_ns - SLACK_NS) // MS_NS
    question = json.dumps(
        [path, asked.uid, NOBODY if gid == 0 and asked.uid else gid, asked.cwd, since_ms, named_in(asked.argv)]
    )
    argv = (sys.executable, "-I", "-S", "-c", CHILD, question)
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S, check=False, env={}, cwd="/"
        )
    except subprocess.TimeoutExpired:
        return Unread(because=f"opencode's database did not answer within {LONGEST_S:g} s")
    if done.returncode != 0:
        why = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Unread(because=f"opencode's database could not be read: {why[:160]}")
    try:
        return msgspec.json.decode(done.stdout[:ANSWER_LIMIT], type=tuple[Row, ...])
    except msgspec.DecodeError as error:
        return Unread(because=f"opencode's database is not as we know it: {error}")


def session_of(row: Row) -> Session:
    """The session as its last message leaves it."""
    course = Course()
    for number, tool in enumerate(row.tools):
        course.call(str(number), tool.name, "tool", tool.start_ms * MS_NS if tool.start_ms else None)
        if tool.status not in {"pending", "running"}:
            course.result(str(number))
    if row.earlier:
        course.pending.clear()
    if not course.pending:
        course.doing = "model"
        course.answer(over=row.role == "assistant" and row.completed and row.finish != "tool-calls")
    course.turns = row.turns
    return told("opencode", row.session, course, source="its own database, opencode.db", folder=row.folder, whole=True)
