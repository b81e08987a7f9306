"""An incident as others are told of it: as JSON with its secrets redacted, in the environment of a program, as lines for a person."""

import msgspec

from agentscope.commands import Ran
from agentscope.examination.proc import plain
from agentscope.model import IncidentOpened
from agentscope.record import redact, well_formed
from agentscope.remedies import Order
from agentscope.symbols.signals import signal_name

VALUE_LIMIT = 2000
WORDS_LIMIT = 300


def incident_json(order: Order) -> bytes:
    """The incident as in the stream's `data`, and beside it `text`, `attempt` and, where it is known, the agent's `session`."""
    whole = msgspec.to_builtins(order.incident)
    whole.pop("event", None)
    whole |= {"text": headline(order.incident), "attempt": order.attempt}
    if order.session is not None:
        whole["session"] = order.session
    return redact(msgspec.json.encode(well_formed(whole)).decode()).encode()


def headline(incident: IncidentOpened) -> str:
    """What a person reads first."""
    return redact(plain(f"{incident.agent.name} (pid {incident.process.pid}): {incident.headline}", VALUE_LIMIT))


def environment_of(order: Order) -> dict[str, str]:
    """What a program is told of an incident; the last three as systemd has them (systemd.exec(5), $SERVICE_RESULT)."""
    incident = order.incident
    told = {
        "INCIDENT": incident.incident,
        "AGENT": incident.agent.name,
        "PID": str(incident.process.pid),
        "AGENT_PID": str(incident.agent.pid),
        "SCOPE": incident.scope,
        "CAUSE": incident.cause,
        "SUBTYPE": incident.subtype,
        "CONFIDENCE": incident.confidence,
        "HEADLINE": incident.headline,
        "CULPRIT": incident.culprit,
        "UNIT": incident.agent.unit,
        "CONTAINER": incident.agent.container,
        "ATTEMPT": str(order.attempt),
        "RESULT": incident.cause.partition("/")[0],
        "EXIT_CODE": how_it_ended(incident),
        "EXIT_STATUS": status_of(incident),
    }
    for name, value in (order.session or {}).items():
        told["SESSION" if name == "session" else f"SESSION_{name.upper().replace('-', '_')}"] = value
    return {f"AGENTSCOPE_{name}": redact(plain(value, VALUE_LIMIT)) for name, value in told.items() if value}


def how_it_ended(incident: IncidentOpened) -> str:
    """In systemd's words: "exited", "killed", "dumped"; "running" of an agent that hangs."""
    if incident.exit.signal is not None:
        return "dumped" if incident.exit.core_dumped else "killed"
    return "running" if incident.exit.code is None else "exited"


def status_of(incident: IncidentOpened) -> str:
    """The exit status, or the name of the signal without its "SIG", as systemd has it; empty of an agent that hangs."""
    if incident.exit.signal is not None:
        return incident.exit.signal.removeprefix("SIG")
    return "" if incident.exit.code is None else str(incident.exit.code)


def words_of(ran: Ran, limit_s: float) -> str:
    """What became of a command, with the beginning of what it wrote."""
    words = redact(plain(b" ".join(ran.output.split()), WORDS_LIMIT))
    wrote = f": {words}" if words else ""
    if ran.flooded:
        return f"it wrote without end and was killed{wrote}"
    if ran.status is None:
        return f"it did not end within {limit_s:g} s and was killed{wrote}"
    if ran.status < 0:
        return f"it was ended by {signal_name(-ran.status)}{wrote}"
    return f"exit status {ran.status}{wrote}"
