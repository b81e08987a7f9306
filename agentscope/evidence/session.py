"""What the agent's own transcript says it was doing, and how to go on: an id, the name of a tool and times, never a word of the talk."""

import datetime as dt
import shlex

from agentscope import transcripts
from agentscope.evidence import Collected, Evidence, HangScene, Missing, Scene
from agentscope.model import IncidentOpened
from agentscope.record import timestamp
from agentscope.transcripts import Asked, Unread

ABSENT = "it keeps no transcript that is known here"
FOLDER_SHOWN = 160


class AgentSession(Evidence, frozen=True, tag="session"):
    """One session of a command-line agent. `finished` is None where it cannot be told; `resume` is the command that goes on.

    `doing` is "tool" (one has no result yet), "model" (an answer was awaited), "nothing" (its turn was over) or "unknown".
    `began_wall_ns` is when the last action began (ns since 1970). `turns` are prompts; of a long transcript only those in its tail.
    """

    tool: str
    tool_name: str
    session: str
    doing: str
    action: str | None
    action_kind: str | None
    began_wall_ns: int | None
    finished: bool | None
    turns: int
    whole: bool
    folder: str | None
    resume: tuple[str, ...]

    def says(self) -> str:
        """One sentence for a person, with the command to type."""
        folder = f", in {clean(self.folder)}" if self.folder else ""
        return f"{self.tool_name} session {self.session}: {self.was()}; go on with: {' '.join(self.resume)}{folder}"

    def was(self) -> str:
        """What was going on at the end."""
        began = "" if self.began_wall_ns is None else f", begun {clock(self.began_wall_ns)}"
        action = self.action or ("a tool whose name it had not written down" if self.action_kind else None)
        if self.doing == "tool":
            return f"it was running {action}{began}, not finished"
        last = (
            ""
            if action is None
            else f"; last it ran {action}{began}, {'finished' if self.finished else 'perhaps not finished'}"
        )
        return {"model": "it waited for its model", "nothing": "its turn was over"}.get(
            self.doing, "what it was doing is not told"
        ) + last


def going_on(found: Collected) -> tuple[str, ...]:
    """What to type to go on with the session, as advice: none where there is none."""
    if not isinstance(found, AgentSession) or not found.resume:
        return ()
    command = " ".join(found.resume)
    if found.folder and found.folder == clean(found.folder):
        command = f"cd {shlex.quote(found.folder)} && {command}"
    return (f"go on with its session: {command}",)


def clock(wall_ns: int) -> str:
    """The time of day, as the clock of this machine shows it."""
    return dt.datetime.fromtimestamp(wall_ns / 1e9, tz=dt.UTC).astimezone().strftime("%H:%M:%S")


def clean(text: str) -> str:
    """A path that may stand before a person."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= FOLDER_SHOWN else f"…{shown[-FOLDER_SHOWN:]}"


def collect(scene: Scene | HangScene) -> AgentSession | Missing | None:
    """From the local files of the tool, if the agent is one that keeps such: who it is tells its program, and most are none."""
    process, agent, seen = scene.process, scene.agent, scene.last_seen
    slug = transcripts.tool_of(process.argv, process.exe)
    uid = process.uid if process.uid is not None else agent.uid
    if slug is None or uid is None:
        return None
    began_wall_ns = wall_ns_of(agent.start_time, process.start_ns - agent.start_ns)
    if began_wall_ns is None:
        return None
    found = transcripts.look(
        slug,
        Asked(
            pid=process.pid,
            start_ns=process.start_ns,
            began_wall_ns=began_wall_ns,
            uid=uid,
            argv=process.argv,
            exe=process.exe,
            cwd=seen.cwd if seen else None,
            environment=seen.environment if seen else {},
            root=scene.root,
        ),
    )
    if found is None:
        return None
    if isinstance(found, Unread):
        return Missing(kind="session", because=found.because)
    return AgentSession(
        source=found.source,
        tool=found.tool,
        tool_name=transcripts.readers()[slug].TOOL,
        session=found.session,
        doing=found.doing,
        action=found.action,
        action_kind=found.action_kind,
        began_wall_ns=found.began_wall_ns,
        finished=found.finished,
        turns=found.turns,
        whole=found.whole,
        folder=found.folder,
        resume=transcripts.resume(slug, found.session) or (),
    )


def wall_ns_of(start_time: str, after_ns: int) -> int | None:
    """When a process of the agent began (ns since 1970), which is so long after the agent did; None for what is no time."""
    try:
        return int(dt.datetime.fromisoformat(start_time).timestamp() * 1e6) * 1000 + after_ns
    except ValueError:
        return None


def session_of(incident: IncidentOpened) -> dict[str, str | None] | None:
    """The session of an incident for a hook or a restart, as words; None where there is none.

    `session` is its id, `resume` the command that goes on with it, `folder` where, `action` the last tool and `finished` "yes", "no" or
    "unknown", `began` when that tool did. A record may come from a ledger that somebody else wrote: ids are checked again.
    """
    record = next((each for each in incident.evidence if each.kind == "session"), None)
    if record is None:
        return None
    fields = record.data
    tool, session = fields.get("tool"), fields.get("session")
    command = transcripts.resume(tool, session) if isinstance(tool, str) and isinstance(session, str) else None
    if command is None:
        return None
    began = fields.get("began_wall_ns")
    folder = fields.get("folder")
    return {
        "tool": str(tool),
        "session": str(session),
        "resume": " ".join(command),
        "folder": folder if isinstance(folder, str) and folder.startswith("/") and "\0" not in folder else None,
        "doing": word(fields.get("doing")),
        "action": word(fields.get("action")),
        "began": timestamp(began) if isinstance(began, int) and 0 < began < 1 << 62 else None,
        "finished": {True: "yes", False: "no"}.get(fields.get("finished"), "unknown"),  # type: ignore[call-overload] # JSON has both
        "turns": str(fields.get("turns")) if isinstance(fields.get("turns"), int) else None,
    }


def word(value: object) -> str | None:
    """A name out of a record, if it is one."""
    return transcripts.name_of(value)
