"""What is read out of the local sessions of command-line agents: of real ones, trimmed to their frame, and of hostile ones."""

import datetime as dt
import hashlib
import json
import os
import re
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentscope import transcripts
from agentscope.evidence import LastSeen, Missing
from agentscope.evidence.session import AgentSession, collect, going_on, session_of
from agentscope.model import Agent, EvidenceRecord, ExitRecord, IncidentOpened, Process
from agentscope.transcripts import Asked, Session, Unread
from agentscope.transcripts._course import Course
from agentscope.transcripts._files import NAMES_LIMIT, TAIL_BYTES
from tests.test_classifier import scene

REAL = Path(__file__).parent / "transcripts"
CWD = "/srv/agent"
FIRST_LINE = {  # the first line of what came after it was killed
    "claude-code": 6,
    "codex": 11,
    "qwen": 4,
    "gemini": 6,
}
ACTIONS = {"claude-code": "Bash", "codex": "exec_command", "qwen": "run_shell_command", "gemini": None, "opencode": "bash"}
SESSIONS = {
    "claude-code": "ca001ad9-4457-452e-8c51-b5b55d8f0d06",
    "codex": "01a21432-aeda-7cc1-b6a6-f40269114246",
    "qwen": "a54fb4f5-d0f8-4174-a5c4-e1728c3bb613",
    "gemini": "f44e9ad3-80d3-48a2-bd8e-56cb61d67526",
    "opencode": "ses_debcd247effevTTL6ayy2RUV0q",
}
OTHER = "11111111-2222-4333-8444-555555555555"
NOW_NS = int(dt.datetime(2026, 11, 25, 19, 30, tzinfo=dt.UTC).timestamp()) * 1_000_000_000  # before all of the real ones
every_tool = pytest.mark.parametrize("tool", sorted(SESSIONS))
by_lines = pytest.mark.parametrize("tool", sorted(FIRST_LINE))


def place(home: Path, tool: str, session: str) -> Path:
    """Where a tool keeps this session."""
    return (
        home
        / {
            "claude-code": f".claude/projects/-srv-agent/{session}.jsonl",
            "codex": f".codex/sessions/2026/11/25/rollout-2026-11-25T19-33-15-{session}.jsonl",
            "qwen": f".qwen/projects/-srv-agent/chats/{session}.jsonl",
            "gemini": f".gemini/tmp/agent/chats/session-2026-11-25T19-34-{session[:8]}.jsonl",
            "opencode": ".local/share/opencode/opencode.db",
        }[tool]
    )


def real(tool: str, part: str) -> list[str]:
    """A real session: "cut" as it was when its agent was killed in a tool, "resumed" with what came later, "finished" another."""
    name = "resumed" if part == "cut" else part
    lines = (REAL / f"{tool}.{name}.{'sql' if tool == 'opencode' else 'jsonl'}").read_text().splitlines()
    if part == "cut":
        return (
            [line for line in lines if "msg_214346f" not in line and "msg_2143474" not in line]
            if tool == "opencode"
            else lines[: FIRST_LINE[tool]]
        )
    return lines


def put(home: Path, tool: str, lines: list[str], session: str | None = None) -> Path:
    """Write a session where its tool would have it."""
    path = place(home, tool, session or SESSIONS[tool])
    path.parent.mkdir(parents=True, exist_ok=True)
    if tool == "opencode":
        base = sqlite3.connect(path)
        base.execute("PRAGMA journal_mode=WAL")
        base.executescript("\n".join(lines))
        base.commit()
        base.close()
    else:
        path.write_text("\n".join(lines) + "\n")
    if tool == "gemini":
        (home / ".gemini/projects.json").write_text(json.dumps({"projects": {CWD: "agent"}}))
    return path


def asked(home: Path, **more: Any) -> Asked:
    """The question about a process of ours that began before all of these sessions."""
    known: dict[str, Any] = {"pid": 4711, "start_ns": 5_000_000_000, "began_wall_ns": NOW_NS, "uid": os.getuid(), "cwd": CWD}
    return Asked(**known | {"environment": {"HOME": str(home)}} | more)


def found(home: Path, tool: str, **more: Any) -> Session:
    """The session that must be found."""
    session = transcripts.look(tool, asked(home, **more))
    assert isinstance(session, Session), session
    return session


# --- real ones ----------------------------------------------------------------------------------------------------------


@every_tool
def test_killed_in_a_tool(tmp_path, tool):
    """Of an agent that was killed in a tool, the session, the tool, and that it had not finished are found."""
    put(tmp_path, tool, real(tool, "cut"))
    session = found(tmp_path, tool)
    assert (session.session, session.doing, session.finished) == (SESSIONS[tool], "tool", False)
    assert (session.action, session.turns, session.folder) == (ACTIONS[tool], 1, CWD)
    assert session.began_wall_ns is not None
    assert NOW_NS < session.began_wall_ns < NOW_NS + 600 * 10**9


@every_tool
def test_turn_that_was_over(tmp_path, tool):
    """Of one whose turn was over, the last tool has finished, and nothing is said to have been going on."""
    lines = real(tool, "finished")
    ids = {"opencode": "ses_debb4659affeIxsywfJA4mmj7Y", "gemini": "7d4d7459-696e-4e53-88b9-6d7275ed1c1e"}
    put(tmp_path, tool, lines, OTHER if tool not in ids else None)
    session = found(tmp_path, tool)
    assert session.session == ids.get(tool, OTHER)
    # Gemini writes words before a tool, and the tool only once it has ended: after words, either may be
    assert session.doing == ("unknown" if tool == "gemini" else "nothing")
    assert (session.finished, session.turns) == (True, 1)
    assert session.action == (ACTIONS[tool] or "run_shell_command")


@every_tool
def test_resumed_session(tmp_path, tool):
    """One that was cut off and resumed is the same session with more turns; whether the old call did its work is not known.

    Of the Qwen Code of this recording the launcher alone had been killed: its call came to its end, and that is said.
    """
    put(tmp_path, tool, real(tool, "resumed"))
    session = found(tmp_path, tool)
    assert session.session == SESSIONS[tool]
    assert session.turns >= 2
    assert session.doing in {"nothing", "unknown"}
    assert session.finished is (True if tool == "qwen" else None)


@every_tool
def test_resumed_by_a_later_process(tmp_path, tool):
    """A process whose command line resumes an old session has that one, and one that does not has none."""
    path = put(tmp_path, tool, real(tool, "resumed"))
    later_ns = NOW_NS + 320 * 10**9  # after it was cut off and before its last turn
    os.utime(path, ns=(later_ns + 10**9, later_ns + 10**9))
    if tool == "opencode":
        later_ns = 1795635309 * 10**9
    words = {"codex": ("codex", "resume"), "opencode": ("opencode", "-s")}.get(tool, (tool, "--resume"))
    resuming = found(tmp_path, tool, began_wall_ns=later_ns, argv=(*words, SESSIONS[tool]))
    assert resuming.session == SESSIONS[tool]
    assert transcripts.look(tool, asked(tmp_path, began_wall_ns=later_ns, argv=(words[0],))) is None


@every_tool
def test_no_word_of_the_talk_is_kept(tmp_path, tool):
    """Neither what was said nor what a tool was told is in what is found."""
    secret = "hunter2-in-the-prompt"
    put(tmp_path, tool, [line.replace('"…"', f'"{secret}"') for line in real(tool, "cut")])
    assert secret not in msgspec.json.encode(found(tmp_path, tool)).decode()


@every_tool
def test_nothing_kept(tmp_path, tool):
    """A home without sessions, and one that is not there, are no error: there is no session."""
    assert transcripts.look(tool, asked(tmp_path)) is None
    assert transcripts.look(tool, asked(tmp_path / "gone")) is None


@every_tool
def test_older_than_the_process(tmp_path, tool):
    """A session that was last written before the process began is not its own."""
    path = put(tmp_path, tool, real(tool, "cut"))
    os.utime(path, ns=(NOW_NS, NOW_NS))
    assert transcripts.look(tool, asked(tmp_path, began_wall_ns=NOW_NS + 3600 * 10**9)) is None


@every_tool
def test_of_another_folder(tmp_path, tool):
    """A session of another folder is not its own."""
    put(tmp_path, tool, real(tool, "cut"))
    assert transcripts.look(tool, asked(tmp_path, cwd="/srv/other")) is None


def test_claude_names_its_process(tmp_path):
    """Of two sessions in one folder Claude Code's own note of the process decides; a note of another process counts for nothing."""
    put(tmp_path, "claude-code", real("claude-code", "cut"))
    put(tmp_path, "claude-code", real("claude-code", "finished"), OTHER)
    note = tmp_path / ".claude/sessions/4711.json"
    note.parent.mkdir()
    note.write_text(json.dumps({"pid": 4711, "sessionId": SESSIONS["claude-code"], "cwd": CWD, "procStart": "500"}))
    assert found(tmp_path, "claude-code").session == SESSIONS["claude-code"]
    note.write_text(json.dumps({"pid": 4711, "sessionId": SESSIONS["claude-code"], "cwd": CWD, "procStart": "77"}))
    assert isinstance(transcripts.look("claude-code", asked(tmp_path)), Session | Unread)
    note.write_text(json.dumps({"pid": 4711, "sessionId": "x; reboot", "cwd": CWD, "procStart": "500"}))
    assert "reboot" not in str(transcripts.look("claude-code", asked(tmp_path)))


def test_claude_sub_agents_are_no_turns(tmp_path):
    """What a sub-agent says is not what the session did."""
    lines = real("claude-code", "cut")
    lines += [line.replace('"isSidechain":false', '"isSidechain":true') for line in real("claude-code", "finished")]
    put(tmp_path, "claude-code", lines)
    assert (found(tmp_path, "claude-code").doing, found(tmp_path, "claude-code").turns) == ("tool", 1)


def test_codex_sub_agents_are_no_sessions(tmp_path):
    """The rollout of a sub-agent of Codex is not its session."""
    put(tmp_path, "codex", [line.replace('"source":"exec"', '"source":{"subagent":{}}') for line in real("codex", "cut")])
    assert transcripts.look("codex", asked(tmp_path)) is None


def test_older_form_of_gemini(tmp_path):
    """A chat of an older Gemini CLI is one object, in a folder named by the hash of the path."""
    whole = {
        "sessionId": OTHER,
        "startTime": "2026-11-25T19:34:43.331Z",
        "messages": [
            {"id": "1", "type": "user", "content": "…", "timestamp": "2026-11-25T19:34:44Z"},
            {
                "id": "2",
                "type": "gemini",
                "content": "",
                "timestamp": "2026-11-25T19:34:45Z",
                "toolCalls": [{"id": "t", "name": "glob"}],
            },
        ],
    }
    path = tmp_path / ".gemini/tmp" / hashlib.sha256(CWD.encode()).hexdigest() / "chats/session-x.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(whole, indent=1))
    session = found(tmp_path, "gemini")
    assert (session.session, session.action, session.finished, session.turns) == (OTHER, "glob", True, 1)


# --- two in one folder ----------------------------------------------------------------------------------------------------


def two(home: Path, *, second_begins_s: float, first_ends_s: float) -> None:
    """Two rollouts of Codex in one folder: the first begins one second after the process."""
    for session, begins_s, ends_s in ((SESSIONS["codex"], 1.0, first_ends_s), (OTHER, second_begins_s, 500.0)):
        began = dt.datetime.fromtimestamp(NOW_NS / 1e9 + begins_s, tz=dt.UTC).isoformat()
        first = re.sub(r'"timestamp":"[^"]+"', f'"timestamp":"{began}"', real("codex", "cut")[0])
        path = put(home, "codex", [first, *real("codex", "cut")[1:]], session)
        ended_ns = NOW_NS + int(ends_s * 1e9)
        os.utime(path, ns=(ended_ns, ended_ns))


def test_two_side_by_side(tmp_path):
    """Of two sessions that were both written to in one folder, neither is taken for an interactive agent's: a wrong one does harm."""
    two(tmp_path, second_begins_s=20, first_ends_s=400)
    unread = transcripts.look("codex", asked(tmp_path, argv=("codex",)))
    assert isinstance(unread, Unread)
    assert OTHER in unread.because
    assert SESSIONS["codex"] in unread.because


def test_two_side_by_side_headless(tmp_path):
    """An agent that runs once has one session, begun with it: the later one is somebody else's. The later process has the later one."""
    two(tmp_path, second_begins_s=20, first_ends_s=400)
    argv = ("codex", "exec", "x")
    assert found(tmp_path, "codex", argv=argv).session == SESSIONS["codex"]
    assert found(tmp_path, "codex", argv=argv, began_wall_ns=NOW_NS + 19 * 10**9).session == OTHER


def test_one_after_the_other(tmp_path):
    """A person who begins another session leaves the first: the last one is meant."""
    two(tmp_path, second_begins_s=300, first_ends_s=200)
    assert found(tmp_path, "codex", argv=("codex",)).session == OTHER


# --- hostile ones ---------------------------------------------------------------------------------------------------------


@by_lines
def test_last_line_cut(tmp_path, tool):
    """A last line that was not written to its end costs that line only."""
    path = put(tmp_path, tool, real(tool, "cut"))
    with path.open("a") as file:
        file.write('{"type":"assistant","message":{"content":[{"type":"tool_u')
    assert found(tmp_path, tool).doing == "tool"


@by_lines
@pytest.mark.parametrize(
    "line",
    ["[" * 400_000, '{"message":' * 40_000, "\x00\xff{}", '{"type":7,"message":[],"payload":"x","$set":3}', "null", "[]"],
)
def test_lines_that_are_none(tmp_path, tool, line):
    """Deep nesting, other types and bytes that are no text cost those lines only, and no time."""
    began = time.monotonic()
    lines = real(tool, "cut")
    put(tmp_path, tool, [*lines[:2], line, *lines[2:], line])
    assert found(tmp_path, tool).doing == "tool"
    assert time.monotonic() - began < 5


@by_lines
def test_huge_line(tmp_path, tool):
    """Of a long file only the tail is read, and that is said; a line longer than that leaves the id."""
    lines = real(tool, "cut")
    filler = json.dumps({"type": "x", "text": "y" * (2 * TAIL_BYTES)})
    put(tmp_path, tool, [lines[0], filler, *lines[1:]])
    session = found(tmp_path, tool)
    assert (session.doing, session.whole) == ("tool", False)
    put(tmp_path, tool, [*lines, filler])
    assert (found(tmp_path, tool).session, found(tmp_path, tool).doing) == (SESSIONS[tool], "unknown")


@by_lines
def test_flood_of_calls(tmp_path, tool):
    """A file of many gigabytes on a sparse disk is read as fast as any."""
    path = put(tmp_path, tool, real(tool, "cut"))
    os.truncate(path, 1 << 40)
    began = time.monotonic()
    assert found(tmp_path, tool).doing == "unknown"
    assert time.monotonic() - began < 5


@every_tool
def test_link_out_of_the_home(tmp_path, tool):
    """A session behind a link that leads out of the home is not read, wherever on the way the link is."""
    outside, home = tmp_path / "outside", tmp_path / "home"
    home.mkdir()
    path = put(outside, tool, real(tool, "cut"))
    top = path.relative_to(outside).parts[0]
    (home / top).symlink_to(outside / top)
    assert not isinstance(transcripts.look(tool, asked(home)), Session)
    (home / top).unlink()
    inside = home / path.relative_to(outside)
    inside.parent.mkdir(parents=True)
    inside.symlink_to(path)
    assert not isinstance(transcripts.look(tool, asked(home)), Session)


@every_tool
def test_link_within_the_home(tmp_path, tool):
    """A folder that a person keeps elsewhere in the same home is followed there."""
    put(tmp_path, tool, real(tool, "cut"))
    top = place(tmp_path, tool, "x").relative_to(tmp_path).parts[0]
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / top).rename(tmp_path / "dotfiles/kept")
    (tmp_path / top).symlink_to("dotfiles/kept")
    assert found(tmp_path, tool).session == SESSIONS[tool]


@every_tool
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
def test_no_regular_file(tmp_path, tool, kind):
    """What is no file is not opened: a FIFO would hang whoever opens it."""
    path = place(tmp_path, tool, SESSIONS[tool])
    path.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path.name[-90:])
                Path(path.name[-90:]).rename(path.name)
        finally:
            os.chdir(here)
    began = time.monotonic()
    assert not isinstance(transcripts.look(tool, asked(tmp_path)), Session)
    assert time.monotonic() - began < 5


@every_tool
def test_of_another_owner(tmp_path, tool):
    """A file that is not the agent's user's own is not read: by a hard link anybody could have us read another's."""
    put(tmp_path, tool, real(tool, "cut"))
    assert not isinstance(transcripts.look(tool, asked(tmp_path, uid=os.getuid() + 1)), Session)


@pytest.mark.parametrize("name", ["$(reboot)", "a b", "\x1b[2J", "-rf", "x" * 300, "", "a/b", "ä", "x\n"])
def test_ids_that_are_none(tmp_path, name):
    """What could be an option, a path, or words of a shell or a terminal is the id of no session, wherever it stands."""
    assert not transcripts.is_id(name)
    assert transcripts.resume("codex", name) is None
    lines = [line.replace(SESSIONS["gemini"], json.dumps(name)[1:-1]) for line in real("gemini", "cut")]
    put(tmp_path, "gemini", lines)
    assert not isinstance(transcripts.look("gemini", asked(tmp_path)), Session)
    sql = [line.replace(SESSIONS["opencode"], name.replace("'", "''")) for line in real("opencode", "cut")]
    put(tmp_path, "opencode", sql)
    assert not isinstance(transcripts.look("opencode", asked(tmp_path)), Session)


@by_lines
def test_names_of_tools_are_names(tmp_path, tool):
    """A tool's name that could move a cursor or hold a sentence is left out, and all else is still told."""
    name = ACTIONS[tool] or "gemini-2.5-flash"
    put(tmp_path, tool, [line.replace(f'"{name}"', '"\\u001b[31mrm -rf /"') for line in real(tool, "cut")])
    assert (found(tmp_path, tool).action, found(tmp_path, tool).doing) == (None, "tool")


def test_thousands_of_files(tmp_path):
    """A folder with more files than are looked through is said not to be, in bounded time."""
    tool = "claude-code"
    path = put(tmp_path, tool, real(tool, "cut"))
    for number in range(NAMES_LIMIT + 10):
        (path.parent / f"{number}.jsonl").touch()
    began = time.monotonic()
    unread = transcripts.look(tool, asked(tmp_path))
    assert isinstance(unread, Unread)
    assert "more than 4096 names" in unread.because
    assert time.monotonic() - began < 5


def test_databases_that_are_none(tmp_path):
    """A file that is no database, one with other tables, and a view that never ends, are said and over within a second."""
    path = place(tmp_path, "opencode", "")
    path.parent.mkdir(parents=True)
    endless = (
        "CREATE VIEW session AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT 'ses_' || id AS id, '/srv/agent' AS directory, 1 AS time_created, id AS time_updated, NULL AS parent_id FROM n"
    )
    for text, sql in ((b"no database at all" * 100, ""), (None, "CREATE TABLE t (x)"), (None, endless)):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_bytes(text)
        else:
            base = sqlite3.connect(path)
            base.executescript(sql)
            base.close()
        began = time.monotonic()
        unread = transcripts.look("opencode", asked(tmp_path))
        assert isinstance(unread, Unread), unread
        assert "opencode's database" in unread.because
        assert time.monotonic() - began < 4


def test_database_that_lies_in_its_log(tmp_path):
    """What a killed opencode had not yet moved from its log to its database is read, and neither is changed by it."""
    path = put(tmp_path, "opencode", [])
    held = sqlite3.connect(path)
    held.execute("PRAGMA wal_autocheckpoint=0")
    held.executescript("\n".join(real("opencode", "cut")))
    held.commit()
    log = path.with_name("opencode.db-wal")
    before = (path.read_bytes(), log.read_bytes())
    assert len(before[1]) > 10_000
    assert found(tmp_path, "opencode").doing == "tool"
    assert (path.read_bytes(), log.read_bytes()) == before
    held.close()


# --- who is which tool ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "exe", "tool"),
    [
        (("claude", "-p", "x"), "/root/.local/share/claude/versions/2.1.332", "claude-code"),
        (("node", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"), "/usr/bin/node", "claude-code"),
        (("node", "/usr/local/bin/codex", "exec"), "/usr/bin/node", "codex"),
        (("/x/codex", "exec"), "/x/codex", "codex"),
        (("opencode",), "/root/.opencode/bin/opencode", "opencode"),
        (("node", "--expose-gc", "/x/node_modules/@qwen-code/qwen-code/cli.js"), "/usr/bin/node", "qwen"),
        (("/usr/bin/node", "--max-old-space-size=1", "/usr/bin/gemini"), "/usr/bin/node", "gemini"),
        (("node", "server.js", "claude"), "/usr/bin/node", None),
        (("vi", "claude"), "/usr/bin/vi", None),
        (("python3", "agent.py"), "/usr/bin/python3.11", None),
        ((), None, None),
    ],
)
def test_tool_is_known_by_its_program(argv, exe, tool):
    """The program, or the script of an interpreter, says which tool it is; an argument that is named so does not."""
    assert transcripts.tool_of(argv, exe) == tool


@every_tool
def test_resume_commands(tool):
    """Each tool has a command that goes on, with the id as one argument."""
    command = transcripts.resume(tool, SESSIONS[tool])
    assert command is not None
    assert command[-1] == SESSIONS[tool]
    assert transcripts.tool_of(command, None) == tool


def test_folder_is_registering():
    """Every file of the folder is a reader, and has what a reader has."""
    folder = Path(transcripts.__file__).parent
    names = {path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert set(transcripts.readers()) == names == set(SESSIONS)
    for reader in transcripts.readers().values():
        assert "Verified with" in (reader.__doc__ or "")
        assert reader.TOOL
        assert reader.PROGRAMS
        assert reader.PLACES


# --- the evidence ---------------------------------------------------------------------------------------------------------


def death(home: Path, tool: str | None, **more: Any) -> Any:
    """The scene of an agent of this tool that was killed."""
    program = {"claude-code": "claude", None: "python3"}.get(tool, tool)
    began = dt.datetime.fromtimestamp(NOW_NS / 1e9, tz=dt.UTC).isoformat()
    agent = Agent(name="a", pid=4711, start_ns=5_000_000_000, start_time=began, command="a")
    process = Process(pid=4711, start_ns=5_000_000_000, argv=(str(program),), exe=f"/usr/bin/{program}", uid=os.getuid())
    seen = LastSeen(at_ns=6_000_000_000, cwd=CWD, environment={"HOME": str(home)})
    return msgspec.structs.replace(scene(9), **{"agent": agent, "process": process, "last_seen": seen} | more)


@every_tool
def test_evidence_says_how_to_go_on(tmp_path, tool):
    """The sentence names the tool, the session, what it was running, that it had not finished, and what to type."""
    put(tmp_path, tool, real(tool, "cut"))
    evidence = collect(death(tmp_path, tool))
    assert isinstance(evidence, AgentSession)
    said = evidence.says()
    assert said.startswith(f"{transcripts.readers()[tool].TOOL} session {SESSIONS[tool]}: it was running ")
    assert ", not finished; go on with: " in said
    assert " ".join(evidence.resume) in said
    assert said.endswith(f", in {CWD}")
    assert len(said) <= 400  # what a view shows of a sentence


def test_evidence_of_a_strange_folder(tmp_path):
    """A folder's name cannot write to a terminal, and a long one does not push the command out of sight."""
    cwd = "/srv/\x1b]0;x\x07" + "a" * 900
    put(tmp_path, "codex", [line.replace(f'"{CWD}"', json.dumps(cwd)) for line in real("codex", "cut")])
    evidence = collect(death(tmp_path, "codex", last_seen=LastSeen(at_ns=1, cwd=cwd, environment={"HOME": str(tmp_path)})))
    assert isinstance(evidence, AgentSession)
    assert evidence.says().isprintable()
    assert "codex resume" in evidence.says()[:400]


@pytest.mark.parametrize(
    ("folder", "typed"),
    [
        ("/srv/agent", f"cd /srv/agent && codex resume {OTHER}"),
        ("/srv/a b;reboot", f"cd '/srv/a b;reboot' && codex resume {OTHER}"),
        ("/srv/\x1b[2J", f"codex resume {OTHER}"),
        (None, f"codex resume {OTHER}"),
    ],
)
def test_advice_can_be_pasted(folder, typed):
    """What is advised goes to the folder first, which is quoted, and left out where it would write to a terminal."""
    evidence = AgentSession(
        source="s", tool="codex", tool_name="Codex", session=OTHER, doing="tool", action="x", action_kind="y", began_wall_ns=None, finished=False,
        turns=1, whole=True, folder=folder, resume=("codex", "resume", OTHER),
    )  # fmt: skip
    assert going_on(evidence) == (f"go on with its session: {typed}",)
    assert going_on(None) == going_on(Missing(kind="session", because="b")) == ()


def test_ambiguity_is_missing_evidence(tmp_path):
    """Where it cannot be told which session it was, the incident says so instead of guessing."""
    two(tmp_path, second_begins_s=20, first_ends_s=400)
    missing = collect(death(tmp_path, "codex"))
    assert isinstance(missing, Missing)
    assert "cannot be told" in missing.because


def test_no_agent_of_these_costs_nothing(tmp_path):
    """Of a process that is none of these tools nothing is read, in less than 5 ms."""
    dead = death(tmp_path, None)
    collect(dead)
    began = time.perf_counter()
    for _ in range(100):
        assert collect(dead) is None
    assert (time.perf_counter() - began) / 100 < 0.005


def incident(*records: EvidenceRecord) -> IncidentOpened:
    """An incident with this evidence."""
    dead = scene(9)
    return IncidentOpened(
        at_ns=1, incident="i", agent=dead.agent, process=dead.process, scope="agent", cause="killed/sigkill", subtype="sigkill", confidence="certain",
        headline="h", culprit="c", exit=ExitRecord(code=None, signal="SIGKILL", core_dumped=False), actor=None, evidence=records, ruled_out=(),
        not_checked=(), advice=(), timeline=(), engine="core", detected_in_ms=1.0,
    )  # fmt: skip


@every_tool
def test_session_for_a_restart(tmp_path, tool):
    """A restart and a hook get the session's fields as words, through the record that a stream or a ledger carries."""
    put(tmp_path, tool, real(tool, "cut"))
    evidence = collect(death(tmp_path, tool))
    assert isinstance(evidence, AgentSession)
    carried = msgspec.json.decode(msgspec.json.encode(evidence.record("context")), type=EvidenceRecord)
    words = session_of(incident(carried))
    assert words is not None
    assert (words["session"], words["action"], words["finished"]) == (SESSIONS[tool], ACTIONS[tool], "no")
    assert words["resume"] == " ".join(evidence.resume)
    assert words["folder"] == CWD
    assert words["began"].startswith("2026-11-25T19:3")
    assert all(value is None or isinstance(value, str) for value in words.values())


@pytest.mark.parametrize(
    "change", [{"session": "$(reboot)"}, {"session": None}, {"tool": "rm"}, {"tool": ["x"]}, {"session": "--help"}]
)
def test_forged_record_gives_no_session(change):
    """A record of a ledger that somebody else wrote puts nothing into a command that is no id."""
    record = EvidenceRecord(
        kind="session",
        source="s",
        says="s",
        weight="context",
        data={"tool": "codex", "session": OTHER, "resume": ["rm", "-rf"]},
    )
    words = session_of(incident(record))
    assert words is not None
    assert words["resume"] == f"codex resume {OTHER}"
    assert session_of(incident(msgspec.structs.replace(record, data=record.data | change))) is None
    assert session_of(incident()) is None


def test_parallel_calls():
    """Of several calls at once, one that has no result yet is what it was doing."""
    course = Course()
    course.prompt()
    for key in "abc":
        course.call(key, f"tool-{key}", "x", None)
    course.result("c")
    assert (course.doing, course.finished, course.action.name) == ("tool", False, "tool-b")
    course.result("a")
    course.result("b")
    assert (course.doing, course.finished) == ("model", True)
