"""An event in the words of a log: one line for a person, how urgent it is, and the facts that it can be found by."""

from agentscope.examination.proc import plain
from agentscope.model import (
    AgentGone,
    AgentSeen,
    AnyEvent,
    IncidentClosed,
    IncidentOpened,
    Lost,
    Pressure,
    Ready,
    RemedyFinished,
    RemedyStarted,
)
from agentscope.record import redact

VALUE_LIMIT = 2000
CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7  # syslog(3)


def shown(value: str) -> str:
    """Text that a process may have chosen, as others may see it: one line, without secrets, bounded."""
    return redact(plain(value, VALUE_LIMIT))


def said_of(event: AnyEvent) -> tuple[str, int]:
    """What a person reads, and how urgent it is."""
    match event:
        case IncidentOpened():
            urgent = CRITICAL if event.scope == "agent" else ERROR
            return f"{event.agent.name} (pid {event.process.pid}): {event.headline}", urgent
        case IncidentClosed():
            return f"{event.agent.name}: {event.outcome}", WARNING if event.held is False else NOTICE
        case RemedyStarted():
            return f"{event.agent.name}: {event.act} (attempt {event.attempt})", NOTICE
        case RemedyFinished():
            failed = event.outcome != "done"
            return f"{event.agent.name}: {event.remedy} {event.outcome}: {event.says}", WARNING if failed else NOTICE
        case Pressure():
            return event.says, INFO if event.eased else WARNING
        case Lost():
            return f"{event.source} lost {event.count}{f': {event.says}' if event.says else ''}", WARNING
        case AgentSeen():
            return f"{event.agent.name} (pid {event.agent.pid}) is watched: {event.because}", INFO
        case AgentGone():
            return f"{event.agent.name} (pid {event.agent.pid}) is gone: {event.says}", INFO
        case Ready():
            return f"agentscope {event.version} is ready, engine {event.engine}", INFO
    kind = str(type(event).__struct_config__.tag)
    about = getattr(event, "agent_pid", None) or getattr(event, "pid", None)
    return f"{kind.removeprefix('agentscope.')}{f' of pid {about}' if about else ''}", DEBUG


def facts_of(event: AnyEvent) -> dict[str, object]:
    """What an entry can be found by, named as in the environment of a hook."""
    agent = getattr(event, "agent", None)
    found: dict[str, object] = {
        "INCIDENT": getattr(event, "incident", None),
        "AGENT": agent.name if agent else None,
        "AGENT_PID": agent.pid if agent else getattr(event, "agent_pid", None),
        "UNIT": agent.unit if agent else None,
        "CONTAINER": agent.container if agent else None,
        "PID": getattr(event, "pid", None),
    }
    match event:
        case IncidentOpened():
            found |= {
                "PID": event.process.pid, "SCOPE": event.scope, "CAUSE": event.cause, "SUBTYPE": event.subtype,
                "CONFIDENCE": event.confidence, "HEADLINE": event.headline, "CULPRIT": event.culprit,
                "SIGNAL": event.exit.signal, "EXIT_CODE": event.exit.code, "ENGINE": event.engine,
            }  # fmt: skip
        case RemedyStarted() | RemedyFinished():
            found |= {"REMEDY": event.remedy, "ATTEMPT": event.attempt, "OUTCOME": getattr(event, "outcome", None)}
        case IncidentClosed():
            found |= {"OUTCOME": event.outcome, "HELD": event.held}
        case Lost():
            found |= {"SOURCE": event.source, "COUNT": event.count}
    return found
