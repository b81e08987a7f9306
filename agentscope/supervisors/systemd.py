"""An agent that is the main process of a systemd service, of the system or of a user's own service manager; asked through systemctl.

systemd keeps one instance by itself. We wait for what it does after an end, and ask for a start only once it has given up: `start`,
which leaves a unit that runs meanwhile as it is. A unit that somebody stopped stays stopped. Sources: systemd.service(5) (the table
at Restart=), org.freedesktop.systemd1(5), systemctl(1).
"""

import asyncio
import re
import time
from typing import Literal

from agentscope.agents import unit_of
from agentscope.commands import Identity, Ran, gid_of
from agentscope.examination.proc import read_proc
from agentscope.model import Agent, ExitRecord, Value
from agentscope.policy import Policy
from agentscope.stopping import cgroups
from agentscope.supervisors import Means, Owner, Started, rights_of
from agentscope.supervisors._asking import ask, is_main_line, is_new, is_the_old, lives, why_not

nearness = 40

NOTICED_S = 5.0  # by when systemd must have noticed an end
START_S = 95.0  # its own limit for a start is 90 s (DefaultTimeoutStartSec=)
LONGEST_PAUSE_S = 600.0
KILLED_S = 10.0
LOOK_S = 0.05
LOOK_LESS_S = 0.5
CLEAN_SIGNALS = {"SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"}  # systemd.service(5), SuccessExitStatus=
SHOWN = ("LoadState", "ActiveState", "SubState", "Result", "MainPID", "ExecMainPID", "NRestarts", "Restart", "RestartUSec", "Job", "FreezerState")  # fmt: skip
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800, "month": 2629800, "y": 31557600}

Standing = Literal["hung", "unnoticed", "started", "coming", "leaving", "down", "stopped", "unknown"]


class Unit(Value, frozen=True):
    """What `systemctl show` says of a unit."""

    load: str = ""
    active: str = ""
    sub: str = ""
    result: str = ""
    main_pid: int = 0
    last_pid: int = 0
    restarts: int = 0
    rule: str = "no"
    pause_s: float = 0.0
    has_job: bool = False
    is_frozen: bool = False


def owner_of(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:  # noqa: ARG001 - every supervisor is asked so
    """The service whose main process the agent is; a scope is started by nobody, so it owns none."""
    name, at = place_of(agent)
    if not name.endswith(".service"):
        return None
    unit = show(name, at)
    if unit is None or unit.load != "loaded" or not owns(unit, agent):
        return None
    restarts = unit.sub == "auto-restart" or (unit.result != "start-limit-hit" and restarts_after(unit.rule, end))
    says = f"{name} (systemd, Restart={unit.rule})"
    return Owner(kind="systemd", name=name, restarts=restarts, says=says, at=at)


def living(owner: Owner) -> int | None:
    """The unit's main process."""
    unit = show(owner.name, owner.at)
    return unit.main_pid or None if unit is not None and unit.active in {"active", "activating", "reloading"} else None


async def restart(owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None], means: Means) -> Started:  # noqa: ARG001
    """Wait for what systemd does, ask it for a restart where the old instance hangs or for a start where it has given up."""
    if owner.at and means.owner_uid not in {0, int(owner.at)}:
        return Started(pid=None, why=f"{owner.name} belongs to the user {owner.at}, the config to the user {means.owner_uid}")
    return await Attempt(owner, agent, policy, identity_at(owner.at) if owner.at else rights_of(means.owner_uid)).run()


class Attempt:
    """One bringing back of one unit: what was asked so far, and how long may be waited for what."""

    def __init__(self, owner: Owner, agent: Agent, policy: Policy, identity: Identity | None) -> None:
        self.owner = owner
        self.agent = agent
        self.policy = policy
        self.identity = identity
        self.began = time.monotonic()
        self.deadline = self.began + NOTICED_S
        self.asked = ""
        self.killed = False
        self.ending = 0.0  # by when the old instance must be over, once it was asked to end

    async def run(self) -> Started:
        """Look and act until there is an answer, or the time is up."""
        standing: Standing = "unknown"
        while time.monotonic() < self.deadline:
            unit = await asyncio.to_thread(show, self.owner.name, self.owner.at)
            standing = standing_of(unit, self.agent)
            answer = await self.step(unit or Unit(), standing)
            if answer is not None:
                return answer
            await asyncio.sleep(LOOK_S if time.monotonic() - self.began < 2 else LOOK_LESS_S)
        return Started(pid=None, why=f"{self.owner.name}: {overdue(standing)}")

    async def step(self, unit: Unit, standing: Standing) -> Started | None:
        """One look: the answer, or None to go on."""
        name = self.owner.name
        if standing == "started":
            return Started(pid=unit.main_pid, says=self.asked or f"systemd started {name} again by itself")
        if standing == "stopped":
            return Started(pid=None, why=f"{name} was stopped: systemd says inactive, not failed", stopped=True)
        if standing in {"coming", "leaving"}:
            self.deadline = max(self.deadline, self.began + START_S + min(unit.pause_s, LONGEST_PAUSE_S))
        if standing == "down":
            if self.asked:
                return Started(pid=None, why=f"{name} did not start: systemd says {unit.result}; see journalctl -u {name}")
            # its start limit may be hit without Result= saying so (an earlier failure stays there); our own limits are the policy's
            await self.control("reset-failed")
            return await self.act("start")
        if standing == "hung" and not self.asked:
            if unit.is_frozen:
                await self.control("thaw")
            thaw(self.agent.pid, name)
            self.ending = time.monotonic() + self.policy.grace_s
            return await self.act("restart")
        if self.asked and self.ending and not self.killed and time.monotonic() > self.ending and lives(self.agent):
            self.killed = True
            self.deadline = time.monotonic() + KILLED_S + START_S
            await self.control("kill", "--signal=SIGKILL")
            self.asked += f", and killed what had not ended within {self.policy.grace_s:g} s"
        return None

    async def act(self, verb: str) -> Started | None:
        """Ask for a job without waiting for its end; the reason where that is refused."""
        self.deadline = time.monotonic() + self.policy.grace_s + KILLED_S + START_S
        ran = await self.control(verb, "--no-block")
        why = why_not(ran)
        if why:
            return Started(pid=None, why=f"systemctl {verb} {self.owner.name}: {why}")
        self.asked = f"systemctl {verb} {self.owner.name}"
        return None

    async def control(self, *words: str) -> Ran:
        """Run systemctl about this unit."""
        return await asyncio.to_thread(control, self.owner.at, self.identity, *words, "--", self.owner.name)


def standing_of(unit: Unit | None, agent: Agent) -> Standing:
    """Where a unit stands with regard to the instance that is to be replaced."""
    if unit is None or unit.load != "loaded":
        return "unknown"
    if unit.main_pid and is_the_old(agent, unit.main_pid):
        if unit.active == "deactivating":
            return "leaving"
        return "hung" if lives(agent) else "unnoticed"
    if unit.active in {"active", "reloading"} and unit.main_pid and is_new(agent, unit.main_pid):
        return "started"
    if unit.active in {"activating", "reloading", "active"} or unit.has_job:
        return "coming"
    if unit.active == "deactivating":
        return "leaving"
    # an end that systemd takes for a good one, or that somebody asked it for: either way nobody failed
    return "stopped" if unit.active == "inactive" and unit.result == "success" else "down"


def overdue(standing: Standing) -> str:
    """What was waited for in vain."""
    return {
        "unknown": "systemd does not know this unit, or does not answer; see systemctl status",
        "unnoticed": "systemd has not noticed that its main process ended",
        "hung": "its main process has not ended",
        "leaving": "systemd has not got it stopped",
    }.get(standing, "systemd has not got it started within the time; see systemctl status")


def owns(unit: Unit, agent: Agent) -> bool:
    """Whether the agent is what this unit runs, and not what something in it has started beside."""
    if agent.pid in {unit.main_pid, unit.last_pid} or (lives(agent) and is_main_line(agent.pid, unit.main_pid)):
        return True
    # it has ended: then the unit is down, or has a main process that is younger
    return not lives(agent) and (unit.main_pid == 0 or is_new(agent, unit.main_pid))


def restarts_after(rule: str, end: ExitRecord | None) -> bool:
    """The table of systemd.service(5) at Restart=. An agent that has not ended (None) ends uncleanly if it does."""
    if end is None or rule in {"no", "always"}:
        return rule != "no"
    is_clean = not end.core_dumped and (end.signal in CLEAN_SIGNALS if end.signal else end.code == 0)
    if rule == "on-success":
        return is_clean
    if rule == "on-failure":
        return not is_clean
    return rule in {"on-abnormal", "on-abort"} and end.signal is not None and not is_clean


# --- asking -------------------------------------------------------------------------------------------------------------


def place_of(agent: Agent) -> tuple[str, str]:
    """The agent's unit, and the user whose service manager has it ("" for the system's)."""
    lines = (
        (read_proc(f"/proc/{agent.pid}/cgroup") or b"").decode("utf-8", "surrogateescape").splitlines() if lives(agent) else []
    )
    for path in (agent.cgroup or "", *(line.split(":", 2)[2] for line in lines if line.count(":") >= 2)):
        unit = unit_of(path)
        if unit is not None and not unit.startswith("user@") and unit != "init.scope":
            user = re.search(r"/user@([0-9]{1,10})\.service/", path)
            return unit, user.group(1) if user else ""
    return agent.unit or "", ""


def identity_at(at: str) -> Identity | None:
    """As whom a user's own service manager is asked: as that user, unless that is who we are."""
    import os

    return Identity(uid=int(at), gid=gid_of(int(at))) if os.geteuid() == 0 else None


def control(at: str, identity: Identity | None, *words: str) -> Ran:
    """Run systemctl; of the system's manager, or of a user's."""
    if not at:
        return ask(("systemctl", "--no-ask-password", *words), identity)
    runtime = f"/run/user/{at}"
    return ask(("systemctl", "--user", *words), identity, {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"})  # fmt: skip


def show(name: str, at: str) -> Unit | None:
    """What systemd says of a unit; None where there is no systemd to ask."""
    ran = control(at, identity_at(at) if at else None, "show", *(f"--property={each}" for each in SHOWN), "--", name)
    return parse(ran.output.decode("utf-8", "replace")) if ran.status == 0 else None


def parse(text: str) -> Unit:
    """The lines Name=value of `systemctl show`."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def number(key: str) -> int:
        return int(found[key]) if found.get(key, "").isdigit() else 0

    return Unit(
        load=found.get("LoadState", ""),
        active=found.get("ActiveState", ""),
        sub=found.get("SubState", ""),
        result=found.get("Result", ""),
        main_pid=number("MainPID"),
        last_pid=number("ExecMainPID"),
        restarts=number("NRestarts"),
        rule=found.get("Restart", "no"),
        pause_s=seconds_of(found.get("RestartUSec", "")),
        has_job=number("Job") != 0,
        is_frozen=found.get("FreezerState", "") == "frozen",
    )


def seconds_of(span: str) -> float:
    """A time span as systemctl prints it, "1min 30s" (systemd.time(7)); what is none, or without end, is 0."""
    return sum(
        float(count) * SECONDS[unit] for count, unit in re.findall(r"([0-9.]+)(us|ms|s|min|h|d|w|month|y)(?![a-z])", span)
    )


def thaw(pid: int, name: str) -> None:
    """Thaw the unit's own cgroup where something else than systemd froze it: nothing in it could hear a signal (version 1)."""
    for group in cgroups.groups_of(pid, cgroups.hierarchies()):
        if name in group.path.split("/"):
            cgroups.thaw(group)
