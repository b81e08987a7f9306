"""`agentscope check`: what can still be done before the first death, audited on the living process.

One file a point; being in the folder is being registered. Each has `PLACE` (its number on the list), `TITLE` and
`check(subject) -> Checked`. It tells passed, failed, or not checkable with the reason; what a process is, it says only as far as it
was seen. The subject is looked at once, in `_subject.py`; a view draws the answers.
"""

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import NamedTuple

from agentscope.baseline import Baseline
from agentscope.baseline.facts import ProcessFacts
from agentscope.config import AgentConfig
from agentscope.errors import ExitStatus, NoSuchProcess, NotPermitted, UsageError
from agentscope.evidence import CgroupMemory, HangScene
from agentscope.model import Agent, IncidentClosed, IncidentOpened, RemedyFinished, Value
from agentscope.supervisors import Owner
from agentscope.views.report import Check

Told = IncidentOpened | RemedyFinished | IncidentClosed


class Uses(Value, frozen=True):
    """Its memory during the look: `samples` are (ns, bytes that the kernel cannot take back), against `limit` bytes of `where`."""

    samples: tuple[tuple[int, int], ...]
    limit: int
    where: str


class Subject(Value, frozen=True):
    """Everything that was found out about one process.

    `entry` is its own in the config (None: `config` says whether there was a config at all). `past` is what the ledger tells of
    agents of its name, each with its wall clock (ns), oldest first; None where it may not be read. `standing` is what it stands on.
    """

    agent: Agent
    scene: HangScene
    facts: ProcessFacts | None = None
    standing: Baseline | None = None
    binding: CgroupMemory | None = None
    uses: Uses | None = None
    owner: Owner | None = None
    entry: AgentConfig | None = None
    config: str | None = None
    owner_uid: int = 0
    past: tuple[tuple[int, Told], ...] | None = None

    @property
    def pid(self) -> int:
        """Of the agent."""
        return self.agent.pid

    @property
    def again(self) -> str:
        """The line that starts it anew."""
        if self.owner is not None and self.owner.kind == "systemd":
            user = "systemctl --user" if self.owner.at else "sudo systemctl"
            return f"{user} restart {self.owner.name}"
        if self.owner is not None and self.owner.kind == "container":
            return f"{self.engine} restart {self.owner.name}"
        return "start it again"

    @property
    def engine(self) -> str:
        """The client of the runtime that has its container."""
        return "podman" if self.owner is not None and "podman" in self.owner.at else "docker"


class Checked(NamedTuple):
    """One point: `ok` None is not checkable. `says` is one sentence with the evidence, `try_this` the line to type."""

    ok: bool | None
    says: str
    try_this: str = ""


@cache
def points() -> dict[str, ModuleType]:
    """Every point by slug, in the order of the list: the folder is the list."""
    found = {
        each.name.replace("_", "-"): importlib.import_module(f"{__name__}.{each.name}")
        for each in pkgutil.iter_modules(__path__)
        if not each.name.startswith("_")
    }
    return dict(sorted(found.items(), key=lambda point: int(point[1].PLACE)))


def audited(subject: Subject) -> dict[str, Check]:
    """Every point, by slug. One that fails costs its own answer only: a hostile process must not silence the rest."""
    found = {}
    for slug, point in points().items():
        try:
            checked = point.check(subject)
        except Exception as error:  # noqa: BLE001 - the reason is told in its place
            checked = Checked(None, f"looking at it failed: {type(error).__name__}: {error}"[:300])
        found[slug] = Check(name=point.TITLE, ok=checked.ok, says=checked.says, try_this=checked.try_this)
    return found


def status_of(checks: Iterable[Check]) -> ExitStatus:
    """0 where all passed, 10 where something failed, 20 where nothing failed but not all could be checked."""
    found = [check.ok for check in checks]
    if False in found:
        return ExitStatus.FAULT_FOUND
    return ExitStatus.UNDETERMINED if None in found else ExitStatus.HEALTHY


def check_process(who: str, state: str | None, config: str | None, *, as_json: bool) -> tuple[ExitStatus, str]:
    """The checklist of one living process, and the exit status that its answers have.

    Raises:
        NoSuchProcess: there is none of this name or number. NotPermitted: it is another user's. UsageError: it is no program.
        BadInput: the config is not right.
    """
    from agentscope.checking._subject import subject_of
    from agentscope.diagnosing import pid_of

    pid = int(who) if who.isascii() and who.isdigit() else pid_of(who)
    check_pid(pid, who)
    subject = subject_of(pid, state, config)
    checks = audited(subject)
    status = status_of(checks.values())
    if as_json:
        told = [
            {"point": slug, "title": each.name, "result": WORDS[each.ok], "says": each.says, "try": each.try_this}
            for slug, each in checks.items()
        ]
        return status, json.dumps({"name": subject.agent.name, "pid": pid, "points": told}) + "\n"
    from agentscope.views.checklist import render_checklist
    from agentscope.views.report import wants_color, width_of

    drawn = render_checklist(subject.agent, tuple(checks.values()), width=width_of(sys.stdout), color=wants_color(sys.stdout))
    return status, drawn


WORDS = {True: "passed", False: "failed", None: "not checkable"}


def check_pid(pid: int, who: str) -> None:
    """Whether this can be looked at.

    Raises:
        NoSuchProcess, UsageError, NotPermitted: it cannot.
    """
    from agentscope.agents import is_kernel_thread

    if not 0 < pid < 1 << 22:
        raise UsageError(f"{who} is not a process number", "a pid is a number from 1 to 4194303", "agentscope check PID")
    try:
        owner = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - one call, whose error is what is asked
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
            ended = stat.read().rpartition(b") ")[2][:1] in {b"Z", b"X"}
    except (FileNotFoundError, ProcessLookupError):
        ended = True
    if ended:
        raise NoSuchProcess(
            f"there is no process {pid}", "what has ended can be diagnosed, not checked", f"agentscope diagnose {pid}"
        )
    if is_kernel_thread(pid):
        raise UsageError(f"process {pid} is a thread of the kernel", "it runs no program", "agentscope check PID")
    if os.geteuid() not in {0, owner}:
        raise NotPermitted(
            f"process {pid} belongs to user {owner}", "its files in /proc are closed to you", f"sudo agentscope check {pid}"
        )
