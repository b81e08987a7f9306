"""Lines of many hosts -> events of one stream: times on our own clock, and the host before the name of each agent."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agentscope.model import Agent, AgentGone, AgentSeen, AnyEvent, IncidentOpened, Lost, Ready
from agentscope.record import Envelope
from agentscope.views.board import wall_ns_of

RESTARTED = "ended: the machine restarted"
TIMES = ("at_ns", "start_ns", "agent_start_ns", "wrote_ns")


def host_of(source: str) -> str:
    """The host that a line comes from."""
    return urlsplit(source).netloc or source


class Joined:
    """What is known of each host: how its clock stands to ours, and its agents. `boot_wall_ns` is our wall clock at CLOCK_BOOTTIME 0."""

    def __init__(self, boot_wall_ns: int) -> None:
        self.boot_wall_ns = boot_wall_ns
        # source -> what its times are moved by; the same for all, or nothing would be found again
        self.shifts: dict[str, int] = {}
        self.sources: dict[str, str] = {}  # host -> the source (with the boot) that it had last
        self.agents: dict[str, dict[tuple[int, int], Agent]] = {}  # source -> its agents that live, as we tell them

    def events(self, line: Envelope) -> Iterator[AnyEvent]:
        """The events that this line stands for: none where it says no time, more where a host has started again."""
        wall_ns = wall_ns_of(line)
        if wall_ns is None:
            return
        host = host_of(line.source)
        # some nanoseconds apart, so that agents of two hosts with one pid that started together stay two
        exact = wall_ns - line.data.at_ns - self.boot_wall_ns
        shift = self.shifts.setdefault(line.source, exact + len(self.shifts))
        former = self.sources.get(host)
        if former != line.source and isinstance(line.data, Ready):
            self.sources[host] = line.source
            for agent in self.agents.pop(former or "", {}).values():
                yield AgentGone(at_ns=line.data.at_ns + shift, agent=agent, says=RESTARTED)
        if isinstance(line.data, Ready):
            return  # of a fleet there is one, and that is ours
        event = moved(line.data, shift, host)
        living = self.agents.setdefault(line.source, {})
        if isinstance(event, AgentSeen):
            living[event.agent.pid, event.agent.start_ns] = event.agent
        elif isinstance(event, AgentGone):
            living.pop((event.agent.pid, event.agent.start_ns), None)
        yield event


def moved(event: AnyEvent, shift_ns: int, host: str) -> AnyEvent:
    """The event on our clock, its agent named HOST/NAME."""
    changed: dict[str, Any] = {
        name: value + shift_ns for name in TIMES if (value := getattr(event, name, None)) is not None
    }  # fmt: skip
    agent = getattr(event, "agent", None)
    if isinstance(agent, Agent):
        changed["agent"] = msgspec.structs.replace(agent, name=f"{host}/{agent.name}", start_ns=agent.start_ns + shift_ns)
    if isinstance(event, IncidentOpened):
        changed["process"] = msgspec.structs.replace(event.process, start_ns=event.process.start_ns + shift_ns)
    if isinstance(event, Lost):
        changed["source"] = f"{host}: {event.source}"
    return msgspec.structs.replace(event, **changed)
