"""What is counted of the stream, the same for every tool that takes figures: no pid, no text that a process chose, few values a label."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from agentscope.model import (
    AgentGone,
    AgentSeen,
    AnyEvent,
    IncidentClosed,
    IncidentOpened,
    Lost,
    RemedyFinished,
)

PACKAGE = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@._/+:-]{0,79}")
VALUES_AT_MOST = 100
OTHER = "other"
HELD = {True: "held", False: "not_held", None: "nothing_done"}
VERDICT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SAYS = {
    "deaths": "Unplanned ends of agents and their tools",
    "hangs": "Hangs of agents and their tools",
    "recoveries": "Remedies that were tried, and what came of each",
    "incidents_closed": "Incidents that are over, and whether what was done held",
    "verdict": "From the end, or from the look that found a hang, to the line that explains it",
    "lost_events": "Events that were not seen, or not delivered",
    "agents": "Agents that are watched now",
}


class Figure(NamedTuple):
    """So much more of something."""

    name: str
    amount: float
    labels: dict[str, str]


class Figures:
    """Turns events into figures. A label that had a hundred values has only `other` from then on."""

    def __init__(self) -> None:
        self.values: dict[str, set[str]] = {}
        self.agents: set[tuple[int, int]] = set()

    def of(self, event: AnyEvent) -> Iterator[Figure]:
        """What this event adds."""
        match event:
            case IncidentOpened():
                kind = "hang" if event.cause.startswith("hang/") or lives(event) else "death"
                labels = {"cause": event.cause, "package": self.bounded("package", package_of(event)), "scope": event.scope}
                yield Figure("hangs" if kind == "hang" else "deaths", 1, labels)
                yield Figure("verdict", event.detected_in_ms / 1000, {"kind": kind})
            case RemedyFinished():
                yield Figure("recoveries", 1, {"remedy": event.remedy, "outcome": event.outcome})
            case IncidentClosed():
                yield Figure("incidents_closed", 1, {"result": HELD[event.held]})
            case Lost():
                yield Figure("lost_events", event.count, {"source": self.bounded("source", event.source)})
            case AgentSeen(agent=agent) if (agent.pid, agent.start_ns) not in self.agents:
                self.agents.add((agent.pid, agent.start_ns))
                yield Figure("agents", 1, {})
            case AgentGone(agent=agent) if (agent.pid, agent.start_ns) in self.agents:
                self.agents.discard((agent.pid, agent.start_ns))
                yield Figure("agents", -1, {})

    def bounded(self, label: str, value: str) -> str:
        """The value, or `other` where there are too many."""
        known = self.values.setdefault(label, set())
        if value in known:
            return value
        if len(known) >= VALUES_AT_MOST:
            return OTHER
        known.add(value)
        return value


def lives(incident: IncidentOpened) -> bool:
    """Whether it did not end."""
    return incident.exit.code is None and incident.exit.signal is None


def package_of(incident: IncidentOpened) -> str:
    """The package that changed and is to blame, without its versions; empty where none is. A drift's culprit begins with its name."""
    if not incident.cause.startswith("drift/"):
        return ""
    found = PACKAGE.match(incident.culprit)
    return found[0].rstrip(":") if found else ""
