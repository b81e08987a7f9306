"""Looking whether an agent is back: is there an instance, is it past its start, does its health check say that it is well?

"Past its start", where no health check tells: it has lived for a moment and waits for something, or has worked for as long as the
policy gives it. Whatever dies later dies on probation.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from agentscope.agents import same_identity, start_ns_of
from agentscope.config import HealthConfig
from agentscope.model import Agent, Value
from agentscope.sources.aside import Aside
from agentscope.sources.checks import CannotAsk, ask, probe_of

LIVED_S = 0.25  # an interpreter that cannot find its library, a port that is taken: these end sooner
RESTS = 3
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Seen(Value, frozen=True):
    """What a look found: `well` is None where it is too early to tell."""

    well: bool | None
    says: str


def is_there(agent: Agent) -> bool:
    """Whether this very process is there and has not ended; one that nobody has reaped yet is not."""
    return is_living(agent.pid, agent.start_ns)


def is_living(pid: int, start_ns: int) -> bool:
    """The same of a pid and a start time."""
    found_ns = start_ns_of(pid)
    if found_ns is None or not same_identity(found_ns, start_ns):
        return False
    return state_of(pid) not in {None, "Z", "X"}


def state_of(pid: int) -> str | None:
    """The letter of /proc/PID/stat."""
    fields = stat_of(pid)
    return fields[0] if fields else None


def cpu_s_of(pids: Iterable[int]) -> float:
    """Processor time that these processes have used (proc_pid_stat(5): utime and stime)."""
    return sum((int(fields[11]) + int(fields[12])) * TICK_S for pid in pids if len(fields := stat_of(pid)) > 12)


def stat_of(pid: int) -> Sequence[str]:
    """The fields of /proc/PID/stat from the state on; none where it is gone."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ()
    return line[line.rfind(b")") + 2 :].decode("ascii", "replace").split()


class Look:
    """Looks again and again at one attempt."""

    def __init__(self, health: HealthConfig | None, owner_uid: int) -> None:
        self.health = health
        self.owner_uid = owner_uid
        self.aside = Aside()
        self.before: tuple[int, float] | None = None  # the instance that was looked at before, and what it had used
        self.restful = 0  # looks in a row in which it used no processor

    async def at(self, agent: Agent | None, pids: Iterable[int], lived_s: float, before: Agent) -> Seen:
        """One look: `agent` is the instance if one is there, `pids` its tree; `before` is who is asked about where none is."""
        if self.health is not None:
            return await self.asked(self.health, agent or before, known=agent is not None)
        if agent is None:
            return Seen(well=None, says="no instance was seen")
        used_s = cpu_s_of(pids)
        former, self.before = self.before, (agent.pid, used_s)
        if lived_s < LIVED_S or former is None or former[0] != agent.pid:
            return Seen(well=None, says=f"pid {agent.pid} has just started")
        # one that waits for its disk in the middle of its start rests for a moment, not for long
        self.restful = self.restful + 1 if used_s - former[1] < TICK_S else 0
        rests = self.restful >= RESTS
        return Seen(well=True if rests else None, says=f"pid {agent.pid} lives and is past its start" if rests else f"pid {agent.pid} lives and is busy")  # fmt: skip

    async def asked(self, health: HealthConfig, agent: Agent, *, known: bool) -> Seen:
        """What the health check of the config says now."""
        try:
            answer = await ask(health, agent, self.owner_uid, self.aside)
        except CannotAsk as error:
            return Seen(well=None, says=f"{probe_of(health)} cannot be asked: {error}")
        who = f"pid {agent.pid}, " if known else ""
        return Seen(well=answer.ok, says=f"{who}{probe_of(health)}: {answer.says}")


def still_run(commands: Sequence[Sequence[str]], since_ns: int) -> int | None:
    """A process, started since then, that runs one of these commands of the config; None where none does.

    A word with braces stands for any: it was filled in. A script is run by its interpreter, so the words stand at the end.
    """
    wanted = [command for command in commands if command]
    for process in psutil.process_iter(["pid"]):
        start_ns = start_ns_of(process.pid)
        if start_ns is None or start_ns < since_ns:
            continue
        try:
            argv = process.cmdline()
        except psutil.Error:
            continue
        if any(is_end_of(command, argv) for command in wanted):
            return int(process.pid)
    return None


def is_end_of(command: Sequence[str], argv: Sequence[str]) -> bool:
    """Whether these words end a command line."""
    end = argv[-len(command) :]
    if len(end) < len(command):
        return False
    first = command[0].rsplit("/", 1)[-1] == end[0].rsplit("/", 1)[-1]
    return first and all("{" in word or word == given for word, given in zip(command[1:], end[1:], strict=True))
