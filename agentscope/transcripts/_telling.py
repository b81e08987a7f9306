"""A session as it is told, from the course that its transcript took."""

from agentscope.transcripts import Session
from agentscope.transcripts._course import Course


def told(tool: str, session: str, course: Course, *, source: str, folder: str | None, whole: bool) -> Session:
    """What was going on at the end of a session. `whole` is False where only the tail of its transcript was read."""
    last = course.action
    return Session(
        tool=tool,
        session=session,
        source=source,
        folder=folder,
        doing=course.doing,
        action=last.name if last else None,
        action_kind=last.kind if last else None,
        began_wall_ns=last.began_wall_ns if last else None,
        finished=course.finished,
        turns=course.turns,
        whole=whole,
    )
