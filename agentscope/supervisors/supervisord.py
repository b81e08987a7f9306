"""An agent that is a program of supervisord (supervisord.org), asked over its own XML-RPC at the unix socket where it listens.

That socket is the kernel's word, found among the descriptors of the supervisord that is the agent's parent. supervisord keeps one
instance by itself; we wait for what it does after an end and start a program only once it is EXITED, FATAL or stopped by us. A program
that is STOPPED was stopped by a person. Sources: supervisord.org/subprocess.html (states), /api.html, /configuration.html (autorestart).
One in another pid namespace, a container's, is not asked: there the container is what is started again.
"""

import asyncio
import base64
import configparser
import glob
import itertools
import os
import re
import stat
import time
import xmlrpc.client
from typing import Any

from agentscope.examination.proc import link_of, plain
from agentscope.model import Agent, ExitRecord
from agentscope.policy import Policy
from agentscope.stopping import stop
from agentscope.stopping.tree import row_of, rows, uid_of
from agentscope.supervisors import Means, Owner, Started
from agentscope.supervisors._asking import argv_of, is_new, is_the_old, listens_at, lives, may_ask, request

nearness = 20

NOTICED_S = 5.0
COMING_S = 60.0  # it tries startretries times, a second longer apart each time
LOOK_S = 0.05
EXITED_S = 0.4  # each of our questions makes it look at its programs: one that is EXITED so long is not started again by it
CHAIN = 8
CONFIG_LIMIT_BYTES = 1 << 20
LOG_BYTES = 32768
NOT_RUNNING, ALREADY_STARTED = 70, 60  # supervisor/xmlrpc.py, Faults
UP = {"RUNNING", "STARTING"}
PROGRAM = re.compile(r"^[^\s:'\"<>]{1,200}$")


class Refused(Exception):
    """Supervisord does not do or say what it was asked; `code` is its fault, None where it gave none."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code


def owner_of(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:  # noqa: ARG001 - every supervisor is asked so
    """The program that the agent is: by its pid while it lives, by supervisord's own log after its end."""
    living_one = lives(agent)
    for pid in above(agent.pid) if living_one else every_supervisord():
        if uid_of(pid) not in {0, agent.uid} or link_of(f"/proc/{pid}/ns/pid") != link_of("/proc/self/ns/pid"):
            continue
        for path in listens_at(pid):
            at = path.removesuffix(f".{pid}")  # it binds to a name with its pid and links the real name to that
            try:
                name = program_of(agent, at, login_of(pid), living_one)
            except Refused:
                continue
            if name is not None:
                rule = autorestart_of(pid, name)
                restarts = restarts_after(rule, name, at, login_of(pid), end)
                return Owner(
                    kind="supervisord",
                    name=name,
                    restarts=restarts,
                    says=f"{name} (supervisord, autorestart={rule})",
                    at=f"{pid}:{at}",
                )
    return None


def living(owner: Owner) -> int | None:
    """The program's process."""
    try:
        return int(Server(owner).told()["pid"]) or None
    except Refused:
        return None


async def restart(owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None], means: Means) -> Started:  # noqa: ARG001
    """Wait for what supervisord does; have it stop one that hangs, and start it where supervisord has given up."""
    if not may_ask(owner.at.partition(":")[2], means.owner_uid):
        return Started(pid=None, why=f"the config's owner (uid {means.owner_uid}) may not ask supervisord for {owner.name}")
    return await Attempt(owner, agent, policy, means).run()


class Attempt:
    """One bringing back of one program."""

    def __init__(self, owner: Owner, agent: Agent, policy: Policy, means: Means) -> None:
        self.server = Server(owner)
        self.name = owner.name
        self.agent = agent
        self.policy = policy
        self.means = means
        self.began = time.monotonic()
        self.deadline = self.began + NOTICED_S
        self.exited: float | None = None
        self.patience_s = EXITED_S if owner.restarts else 0.0
        self.stopped = False
        self.asked = ""
        self.ended = ""

    async def run(self) -> Started:
        """Look and act until there is an answer, or the time is up."""
        state = "UNKNOWN"
        while time.monotonic() < self.deadline:
            try:
                told = await asyncio.to_thread(self.server.told)
                state = str(told.get("statename"))
                answer = await self.step(told, state)
            except Refused as refused:
                return Started(pid=None, why=f"supervisord: {refused}")
            if answer is not None:
                return answer
            await asyncio.sleep(LOOK_S)
        return Started(pid=None, why=f"supervisord has {self.name} {state} after {time.monotonic() - self.began:.0f} s")

    async def step(self, told: dict[str, Any], state: str) -> Started | None:
        """One look: the answer, or None to go on."""
        pid = int(told.get("pid") or 0)
        if state in UP and pid and is_new(self.agent, pid):
            return Started(pid=pid, says=self.asked or f"supervisord started {self.name} again by itself")
        if state in UP and pid and is_the_old(self.agent, pid):
            if lives(self.agent) and not self.stopped:
                await self.end_old()
            return None
        if state in {"BACKOFF", "STARTING", "STOPPING"}:
            self.deadline = max(self.deadline, self.began + COMING_S)
        if state == "STOPPED" and not self.stopped:
            return Started(pid=None, why=f"{self.name} was stopped: supervisord says STOPPED", stopped=True)
        self.exited = (self.exited or time.monotonic()) if state == "EXITED" else None
        given_up = state in {"FATAL", "STOPPED"} or (
            self.exited is not None and time.monotonic() - self.exited >= self.patience_s
        )
        if not given_up:
            return None
        if self.asked:
            return Started(
                pid=None, why=f"{self.name} did not start: supervisord says {state} {plain(str(told.get('spawnerr', '')), 200)}"
            )
        return await self.start()

    async def end_old(self) -> None:
        """Have supervisord stop it, so that it does not start it again meanwhile, then see to its end and that of its whole tree."""
        self.stopped = True
        self.deadline = time.monotonic() + self.policy.grace_s + COMING_S
        ended = await asyncio.to_thread(
            stop,
            (self.agent.pid, self.agent.start_ns),
            self.policy.grace_s,
            self.means.members,
            ask=lambda: self.server.do("stopProcess", fine=NOT_RUNNING),
            as_uid=self.means.owner_uid,
        )
        self.ended = ended.says

    async def start(self) -> Started | None:
        """End what the old one left behind (it may hold the port), then start the program."""
        ended = await asyncio.to_thread(
            stop, (self.agent.pid, self.agent.start_ns), self.policy.grace_s, self.means.members, as_uid=self.means.owner_uid
        )
        if lives(self.agent):
            return Started(pid=None, why=f"the old instance still runs, so no other was started: {ended.says}")
        self.deadline = time.monotonic() + COMING_S
        self.exited = None
        await asyncio.to_thread(self.server.do, "startProcess", fine=ALREADY_STARTED)
        self.asked = f"supervisord was asked to start {self.name}{f'; {self.ended}' if self.ended else ''}"
        return None


class Server:
    """One supervisord, asked about one program."""

    def __init__(self, owner: Owner) -> None:
        pid, _, self.at = owner.at.partition(":")
        self.name = owner.name
        self.login = login_of(int(pid))

    def told(self) -> dict[str, Any]:
        """What it says of the program: statename, pid, spawnerr."""
        found = call(self.at, self.login, "getProcessInfo", self.name)
        if not isinstance(found, dict):
            raise Refused("it says nothing of this program")
        return found

    def do(self, verb: str, *, fine: int) -> None:
        """Ask for an act without waiting for its end; one fault is none."""
        try:
            call(self.at, self.login, verb, self.name, False)
        except Refused as refused:
            if refused.code != fine:
                raise


# --- asking -------------------------------------------------------------------------------------------------------------


def call(at: str, login: tuple[str, str], verb: str, *words: str | int) -> Any:
    """One call over XML-RPC; with user and password where there are such.

    Raises:
        Refused: it does not answer, or with a fault.
    """
    headers = {"Content-Type": "text/xml"}
    if login[0]:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    body = xmlrpc.client.dumps(tuple(words), f"supervisor.{verb}").encode()
    try:
        status, answer = request(at, "POST", "/RPC2", body, headers=headers)
        content = (
            xmlrpc.client.loads(answer.decode("utf-8", "replace").encode("ascii", "xmlcharrefreplace"))[0][0]
            if status == 200
            else None
        )
    except xmlrpc.client.Fault as fault:
        raise Refused(plain(str(fault.faultString), 200), fault.faultCode) from None
    except Exception as error:  # noqa: BLE001 - what a stranger answers can be wrong in any way
        raise Refused(f"it does not answer at {plain(at, 120)}: {plain(str(error), 120)}") from None
    if status != 200:
        raise Refused("it wants another user and password" if status == 401 else f"it answers with status {status}")
    return content


def program_of(agent: Agent, at: str, login: tuple[str, str], living_one: bool) -> str | None:
    """The name of the program that this agent is, as group:name; None where supervisord does not have it."""
    known = [each for each in call(at, login, "getAllProcessInfo") if isinstance(each, dict)]
    names = {str(each.get("name")): f"{each.get('group')}:{each.get('name')}" for each in known}
    if living_one:
        mine = {agent.pid, *ancestors(agent.pid)}
        found = next((f"{each.get('group')}:{each.get('name')}" for each in known if each.get("pid") in mine), None)
    else:
        log = str(call(at, login, "readLog", -LOG_BYTES, 0))
        told = re.findall(rf"^[0-9-]+ [0-9:,]+ INFO spawned: '([^']+)' with pid {agent.pid}$", log, re.MULTILINE)
        found = names.get(told[-1]) if told else None
    return found if found is not None and all(PROGRAM.match(part) for part in found.split(":")) else None


def ancestors(pid: int) -> list[int]:
    """The parents of a living process, the nearest first, bounded."""
    found: list[int] = []
    row = row_of(pid)
    while row is not None and row.ppid > 1 and len(found) < CHAIN:
        found.append(row.ppid)
        row = row_of(row.ppid)
    return found


def above(pid: int) -> list[int]:
    """The supervisord processes among the parents of a process."""
    return [each for each in ancestors(pid) if is_supervisord(each)]


def every_supervisord() -> list[int]:
    """All supervisord processes of the host."""
    return [row.pid for row in rows().values() if is_supervisord(row.pid)]


def is_supervisord(pid: int) -> bool:
    """Whether this is a supervisord by its command line: the program, or the script of a Python."""
    return any(word.rpartition("/")[2] == "supervisord" for word in argv_of(pid)[:2])


# --- its config file ----------------------------------------------------------------------------------------------------


def config_of(pid: int) -> configparser.RawConfigParser:
    """The config file that a supervisord was started with, and what that includes; empty where it cannot be told."""
    found = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    argv = argv_of(pid)
    given = next((word for before, word in itertools.pairwise(argv) if before in {"-c", "--configuration"}), "")
    given = given or next((word.partition("=")[2] for word in argv if word.startswith("--configuration=")), "")
    folder = link_of(f"/proc/{pid}/cwd") or "/"
    usual = ("supervisord.conf", "etc/supervisord.conf", "/etc/supervisord.conf", "/etc/supervisor/supervisord.conf")
    for name in (given,) if given else usual:
        path = os.path.join(folder, name)  # noqa: PTH118 - a text
        if add(found, path):
            for each in included(os.path.dirname(path), found.get("include", "files", fallback="")):  # noqa: PTH120 - a text
                add(found, each)
            break
    return found


def included(folder: str, patterns: str) -> list[str]:
    """The files that a config includes, bounded; of a pattern only the last part may be one, so that nobody has us search the disk."""
    found: list[str] = []
    for pattern in patterns.replace("%(here)s", folder).split()[:64]:
        path = os.path.join(folder, pattern)  # noqa: PTH118 - a text
        if not glob.has_magic(os.path.dirname(path)):  # noqa: PTH120 - a text
            found += sorted(glob.glob(path))[:256]  # noqa: PTH207 - a text
    return found


def add(found: configparser.RawConfigParser, path: str) -> bool:
    """Read one file of a config, bounded; tells whether it could be read."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            found.read_string(file.read(CONFIG_LIMIT_BYTES).decode("utf-8", "replace"))
    except (OSError, ValueError, configparser.Error):
        return False
    return True


def login_of(pid: int) -> tuple[str, str]:
    """User and password for the unix socket; what is kept hashed there stands plain at supervisorctl's."""
    config = config_of(pid)
    for section in ("unix_http_server", "supervisorctl"):
        user, password = config.get(section, "username", fallback=""), config.get(section, "password", fallback="")
        if user and not password.startswith("{SHA}"):
            return user, password
    return "", ""


def autorestart_of(pid: int, name: str) -> str:
    """The rule of a program: true, false, or unexpected, which is what it is where nothing is said."""
    config = config_of(pid)
    group, _, program = name.partition(":")
    sections = [f"program:{each}" for each in (program, group) if config.has_section(f"program:{each}")]
    given = config.get(sections[0], "autorestart", fallback="unexpected").strip().lower() if sections else "unexpected"
    return {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}.get(given, given)


def restarts_after(rule: str, name: str, at: str, login: tuple[str, str], end: ExitRecord | None) -> bool:
    """Whether it starts the program again by itself: by rule, and by whether the exit status is one that is expected."""
    if rule in {"true", "false"} or end is None or end.signal is not None:
        return rule != "false"  # an end by a signal is never expected
    try:
        configs = call(at, login, "getAllConfigInfo")
    except Refused:
        return True
    expected = next((each.get("exitcodes") for each in configs if f"{each.get('group')}:{each.get('name')}" == name), [0])
    return end.code not in (expected or [])
