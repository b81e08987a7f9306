"""What the config asks to be found out about agents by asking them: their health checks and rules of progress, by agent.

For `live.py` to own. It only yields events and values; an agent without an entry in the config is never asked anything.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agentscope.config import Config
from agentscope.errors import CannotWrite
from agentscope.examination import HealthResult, ProgressResult
from agentscope.model import Agent, AnyEvent, Lost

if TYPE_CHECKING:
    from agentscope.sources.health import HealthProbe
    from agentscope.sources.notify import NotifySocket
    from agentscope.sources.progress import ProgressRule

ENVIRONMENT_BYTES = 1 << 18
Key = tuple[int, int]


class Probes:
    """The probes of all agents. `agent_of` tells whose tree a living process is in; the loop must be running from `start` on."""

    def __init__(
        self, config: Config, tell: Callable[[AnyEvent], None], state: Path, agent_of: Callable[[int], Agent | None]
    ) -> None:
        self.config = config
        self.tell = tell
        self.folder = state.absolute() / "notify"
        self.agent_of = agent_of
        self.health: dict[Key, HealthProbe] = {}
        self.progress: dict[Key, ProgressRule] = {}
        self.sockets: dict[str, NotifySocket] = {}
        self.refused: dict[str, str] = {}  # why a socket could not be made, by label
        self.granted: dict[str, dict[Key, int]] = {}  # label -> its living agents and their users
        self.fed: dict[Key, int] = {}

    def start(self) -> None:
        """Open the sockets that agents report to: they must be there before an agent starts."""
        for label, entry in self.config.agents.items():
            if entry.progress is not None and entry.progress.signal == "sd_notify":
                from agentscope.sources.notify import NotifySocket

                socket = NotifySocket(self.folder, label)
                try:
                    socket.open()
                except CannotWrite as error:
                    self.refused[label] = str(error)
                    self.tell(Lost(at_ns=now_ns(), source="progress", count=1, says=f"{label} cannot report: {error}"))
                    continue
                self.sockets[label] = socket
                asyncio.get_running_loop().add_reader(socket.fileno(), self.heard, socket)

    def adopt(self, agent: Agent, label: str | None) -> None:
        """Begin to ask a new agent what the entry `label` of the config asks: the name of the target that it matches."""
        entry = self.config.agents.get(label or "")
        key = (agent.pid, agent.start_ns)
        if entry is None or label is None:
            return
        if entry.health is not None and key not in self.health:
            from agentscope.sources.health import HealthProbe

            self.health[key] = HealthProbe(agent, entry.health, self.tell, self.config.owner_uid)
            self.health[key].start()
        if entry.progress is not None and key not in self.progress:
            from agentscope.sources.progress import ProgressRule

            rule = self.progress[key] = ProgressRule(agent, entry.progress, now_ns())
            if entry.progress.signal == "sd_notify":
                rule.hindered = self.admit(agent, label)
            rule.start()

    def gone(self, agent: Agent) -> None:
        """Ask it no more."""
        key = (agent.pid, agent.start_ns)
        probe, rule = self.health.pop(key, None), self.progress.pop(key, None)
        if probe is not None:
            probe.close()
        if rule is not None:
            rule.close()
        self.fed.pop(key, None)
        for users in self.granted.values():
            users.pop(key, None)

    def close(self) -> None:
        """Stop asking, close and remove the sockets; safe to call twice."""
        for probe in self.health.values():
            probe.close()
        for rule in self.progress.values():
            rule.close()
        for socket in self.sockets.values():
            with contextlib.suppress(ValueError):
                asyncio.get_running_loop().remove_reader(socket.fileno())
            socket.close()
        self.health, self.progress, self.sockets, self.granted, self.fed = {}, {}, {}, {}, {}

    # --- what is known now --------------------------------------------------------------------------------------------------

    def health_of(self, agent: Agent) -> HealthResult | None:
        """What its health check says now; None where there is none, or nothing is known."""
        probe = self.health.get((agent.pid, agent.start_ns))
        return None if probe is None else probe.state()

    def progress_of(self, agent: Agent, at_ns: int) -> ProgressResult | None:
        """What its rule of progress says at this time; None where there is none."""
        rule = self.progress.get((agent.pid, agent.start_ns))
        return None if rule is None else rule.state(at_ns)

    # --- what the caller counts ---------------------------------------------------------------------------------------------

    def signal_of(self, agent: Agent) -> str | None:
        """What its rule counts: where it is "io" or "stdout", feed `moved` or `wrote` once a second."""
        rule = self.progress.get((agent.pid, agent.start_ns))
        return None if rule is None else rule.asked.signal

    def moved(self, agent: Agent, total_bytes: int, at_ns: int) -> None:
        """Bytes that its tree has read and written up to now. What its health check alone can have moved is no progress."""
        key = (agent.pid, agent.start_ns)
        rule, probe = self.progress.get(key), self.health.get(key)
        if rule is not None and rule.asked.signal == "io":
            rule.moved(total_bytes, at_ns, checked=probe is not None and probe.asked_since(self.fed.get(key, 0)))
            self.fed[key] = at_ns

    def wrote(self, agent: Agent, wrote_ns: int | None, at_ns: int) -> None:
        """When it last wrote to descriptors 1 or 2, as known now; call it only while such writes are seen."""
        rule = self.progress.get((agent.pid, agent.start_ns))
        if rule is not None and rule.asked.signal == "stdout":
            rule.wrote(wrote_ns, at_ns)

    # --- the sockets --------------------------------------------------------------------------------------------------------

    def admit(self, agent: Agent, label: str) -> str:
        """Let the agent's user report. Returns why nothing can be known of it, or nothing."""
        from agentscope.commands import identity_of

        socket = self.sockets.get(label)
        if socket is None:
            return self.refused.get(label, "its socket is closed")
        uid = identity_of(agent).uid
        users = self.granted.setdefault(label, {})
        if set(users.values()) - {uid}:
            return f"{socket.path} belongs to uid {next(iter(users.values()))} already: give uid {uid} an entry of its own"
        refused = socket.grant(uid)
        if refused:
            return refused
        users[agent.pid, agent.start_ns] = uid
        if f"NOTIFY_SOCKET={socket.path}".encode() in environment_of(agent.pid):
            return ""
        return f"it has not reported yet, and was not started with NOTIFY_SOCKET={socket.path}"

    def heard(self, socket: "NotifySocket") -> None:
        """Messages: those of a living process of an agent count, all others are nobody's."""
        for notice in socket.drain():
            agent = self.agent_of(notice.pid) if notice.pid > 0 else None
            rule = None if agent is None else self.progress.get((agent.pid, agent.start_ns))
            if rule is not None and rule.asked.signal == "sd_notify":
                rule.noticed(notice, now_ns())


def environment_of(pid: int) -> list[bytes]:
    """The environment that a process was started with, as far as it is bounded; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, ENVIRONMENT_BYTES).split(b"\0")
        finally:
            os.close(descriptor)
    return []


def now_ns() -> int:
    """CLOCK_BOOTTIME, the clock of every event."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
