"""The policy's own `restart` command: `systemctl restart researcher`, a script that leaves a daemon behind, or the agent itself.

It has the rights of the config's owner: root's `systemctl restart` must work, and a user's config gets no more done than the user may
(hooks, which only tell, have the agent's rights or less). What root would run must therefore be nobody else's to change. Whatever was
left of the old instance is ended first. It is started in a session of its own, its output goes to a file in the state directory, and
unlike a hook it is not killed when we stop waiting for it: it may be the agent. One that runs on in the foreground belongs to
agentscope's own cgroup; a unit of its own is the better place for it.

In `restart`, `{session}`, `{pid}` and `{name}` become what they are. An argument with a word that is not known is left out, and so is
the option before it whose value it is: `claude --resume {session}` becomes `claude`, never a half one.
"""

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from agentscope.agents import TICK_NS, inner_name
from agentscope.commandlines import SHELLS
from agentscope.commands import PATH, Identity, spare
from agentscope.examination.proc import plain
from agentscope.model import Agent, ExitRecord
from agentscope.policy import Policy
from agentscope.stopping import Stopped, stop
from agentscope.stopping.tree import Row, rows
from agentscope.supervisors import FARTHEST, Means, Owner, Started, claimed, every, rights_of
from agentscope.supervisors._asking import argv_of, is_new, lives

nearness = FARTHEST

LOOK_S = 0.05
SETTLED_S = 0.3  # how long one that is the agent itself must run to count as started: validating is done by others
FOUND_S = 1.0  # how long a command that has ended may take to have its agent seen
WORD_LIMIT = 256
TEXT_BYTES = 4096
OUTPUT_ROTATED_BYTES = 16 << 20
INTERPRETERS = re.compile(r"^(?:python[0-9.]*|pypy[0-9.]*|node|nodejs|ruby|perl|php|bun|deno)$")


def owner_of(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:
    """The command itself, where the policy has one; `under` is who has the agent's process besides, and knows its new pid."""
    if not policy.restart:
        return None
    shown = plain(" ".join(policy.restart), 200)
    return Owner(
        kind="command",
        name=shown,
        restarts=False,
        says=f"the config's own command ({shown})",
        under=claimed(agent, policy, end),
    )


def living(owner: Owner) -> int | None:
    """The main process that whoever has it besides knows of; a command alone has none."""
    return every()[owner.under.kind].living(owner.under) if owner.under is not None else None


async def restart(owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None], means: Means) -> Started:
    """End what is left of the old instance, run the command, and tell the new main process where it can be known."""
    already = await asyncio.to_thread(living, owner)
    if already is not None and is_new(agent, already):
        return Started(pid=already, says=f"{owner.under.says if owner.under else owner.name} had started it again already")
    command = filled(policy.restart, words)
    if command is None:
        return Started(pid=None, why=f"{owner.name}: its program has a word that is not known")
    rights = rights_of(means.owner_uid)
    why = unsafe(command) if os.geteuid() == 0 and rights is None else ""
    if why:
        return Started(pid=None, why=why)
    stopped = await asyncio.to_thread(end_old, agent, policy, means)
    if lives(agent):
        return Started(pid=None, why=f"the old instance still runs, so no other was started: {stopped.says}")
    output = Output(means.state, agent.name)
    try:
        run = await asyncio.to_thread(launch, command, rights, output.file, fresh=words.get("fresh") is not None)
        if isinstance(run, str):
            return Started(pid=None, why=run)
        found = await Watch(run, owner, agent, policy.hook_s).run()
        return Started(pid=None, why=f"{plain(command[0], 100)}: {found.why}{output.said()}") if found.why else found
    finally:
        output.file.close()


def end_old(agent: Agent, policy: Policy, means: Means) -> Stopped:
    """End the old instance and whatever it left behind; nothing of another user's, where the config is a user's."""
    return stop((agent.pid, agent.start_ns), policy.grace_s, means.members, as_uid=means.owner_uid)


# --- the command --------------------------------------------------------------------------------------------------------


def filled(command: tuple[str, ...], words: dict[str, str | None]) -> tuple[str, ...] | None:
    """The command with its words in place; None where its program itself cannot be known."""
    kept: list[str] = []
    for position, argument in enumerate(command):
        wanted = [name for name in words if f"{{{name}}}" in argument]
        values = {name: words[name] for name in wanted}
        if any(not is_sound(value) for value in values.values()):
            if position == 0:
                return None
            if len(kept) > 1 and kept[-1] == command[position - 1] and kept[-1].startswith("-") and argument.startswith("{"):
                kept.pop()  # the option whose value this was
            continue
        for name, value in values.items():
            argument = argument.replace(f"{{{name}}}", value or "")  # noqa: PLW2901 - word by word
        kept.append(argument)
    return tuple(kept)


def is_sound(value: str | None) -> bool:
    """Whether a word may stand in a command: known, printable, short, and no option."""
    return bool(value) and value is not None and len(value) <= WORD_LIMIT and value.isprintable() and not value.startswith("-")


def unsafe(command: tuple[str, ...]) -> str:
    """Why root does not run this; empty where only root can change what it would run."""
    program = shutil.which(command[0], path=PATH) or command[0]
    base = os.path.basename(program)  # noqa: PTH119 - a text
    script = (
        next((word for word in command[1:] if not word.startswith("-")), "")
        if INTERPRETERS.match(base) or base in SHELLS
        else ""
    )
    for path in (program, script):
        if not path.startswith("/"):
            continue
        real = os.path.realpath(path)
        for place in (real, os.path.dirname(real)):  # noqa: PTH120 - a text
            try:
                facts = os.stat(place)  # noqa: PTH116 - no Path is needed
            except OSError:
                continue  # not there: starting it says so
            open_to_all = facts.st_mode & 0o022 and not (place != real and facts.st_mode & 0o1000)
            if facts.st_uid != 0 or open_to_all:
                user = name_for(facts.st_uid)
                return (
                    f"root does not run {plain(path, 200)}: {plain(place, 200)} can be changed by others than root. "
                    f'Try: restart = ["runuser", "-u", "{user}", "--", …]'
                )
    return ""


def name_for(uid: int) -> str:
    """The name of a user, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def environment_of(rights: Identity | None) -> dict[str, str]:
    """What a login of that user would have at the least; nothing of ours."""
    uid = os.geteuid() if rights is None else rights.uid
    found = {"PATH": PATH, "LANG": "C.UTF-8"}
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(uid)
        found |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    if Path(f"/run/user/{uid}").is_dir():
        found["XDG_RUNTIME_DIR"] = f"/run/user/{uid}"
    return found


class Output:
    """The file that the command's output is added to, 0600; an older one is kept once. A disk that is full costs the words only."""

    def __init__(self, state: Path, name: str) -> None:
        folder = state / "output"
        path = folder / (re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:64] + ".log")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > OUTPUT_ROTATED_BYTES:
                path.replace(path.with_suffix(".log.1"))
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
        except OSError:
            self.file = Path(os.devnull).open("r+b", buffering=0)  # noqa: SIM115 - whoever made us closes it
        self.begin = os.fstat(self.file.fileno()).st_size

    def said(self) -> str:
        """The last of what the command wrote, as the end of a sentence."""
        with contextlib.suppress(OSError):
            begin = max(self.begin, os.fstat(self.file.fileno()).st_size - TEXT_BYTES)
            text = plain(b" ".join(os.pread(self.file.fileno(), TEXT_BYTES, begin).split())[-300:], 300)
            return f": {text}" if text else ""
        return ""


def launch(
    command: tuple[str, ...], rights: Identity | None, output: FileIO, *, fresh: bool = False
) -> "subprocess.Popen[bytes] | str":
    """Start it, with AGENTSCOPE_FRESH=1 where it is to take up nothing of the old one; the reason where it cannot be."""
    as_whom = {} if rights is None else {"user": rights.uid, "group": rights.gid, "extra_groups": rights.groups}
    try:
        run = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd="/", umask=0o022,
            env=environment_of(rights) | ({"AGENTSCOPE_FRESH": "1"} if fresh else {}), **as_whom,
        )  # type: ignore[call-overload] # fmt: skip # the three are spelled as one mapping
    except (OSError, ValueError) as error:
        return f"{plain(command[0], 100)} cannot be started: {getattr(error, 'strerror', None) or error}"
    spare(run.pid)
    return run  # type: ignore[no-any-return] # mypy has lost the type with the mapping


# --- what becomes of it -------------------------------------------------------------------------------------------------


class Watch:
    """Waits until a command has ended, or is plainly the agent itself."""

    def __init__(self, run: "subprocess.Popen[bytes]", owner: Owner, agent: Agent, limit_s: float) -> None:
        self.process = run
        self.owner = owner
        self.agent = agent
        self.limit_s = limit_s
        self.began = time.monotonic()
        self.since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 5 * TICK_NS
        self.names = {agent.command} | {inner_name(tuple(agent.command.split(" ")), "")}
        self.names -= {name for name in self.names if INTERPRETERS.match(name) or name in SHELLS}

    async def run(self) -> Started:
        """The new main process, or why there is none."""
        while time.monotonic() - self.began < self.limit_s:
            status = self.process.poll()
            if status is not None:
                return await self.ended(status)
            mine = self.alike(below=self.process.pid) if time.monotonic() - self.began >= SETTLED_S else []
            if mine and self.owner.under is None:
                self.leave()
                return Started(pid=mine[0], says="its command runs it in the foreground")
            await asyncio.sleep(LOOK_S)
        if self.owner.under is not None:  # the agent is somebody else's child, so this is no agent: it hangs
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.leave()
            return Started(pid=None, why=f"no end within {self.limit_s:g} s, so it was killed")
        self.leave()
        return Started(pid=self.process.pid, says=f"its command still runs after {self.limit_s:g} s and is taken for the agent")

    async def ended(self, status: int) -> Started:
        """A command that has ended: its agent is whoever its supervisor says, or one that is like the old and came since."""
        if status != 0:
            return Started(pid=None, why=f"it ended by signal {-status}" if status < 0 else f"exit status {status}")
        until = time.monotonic() + FOUND_S
        while True:
            pid = await asyncio.to_thread(living, self.owner)
            if pid is not None and is_new(self.agent, pid):
                return Started(pid=pid, says="its command was run")
            found = next(iter(self.alike()), None) if self.owner.under is None else None
            if found is not None or time.monotonic() > until:
                return Started(pid=found, says="its command was run")
            await asyncio.sleep(2 * LOOK_S)

    def alike(self, below: int | None = None) -> list[int]:
        """Processes like the old agent that came since, the oldest first; `below` one process only, itself among them."""
        now = rows()
        fresh = sorted(
            (row.start_ns, row.pid) for row in now.values() if row.start_ns >= self.since_ns and row.pid != os.getpid()
        )
        return [pid for _, pid in fresh if (below is None or is_below(pid, below, now)) and self.is_alike(pid)]

    def is_alike(self, pid: int) -> bool:
        """Whether a process is by its command line, or by the name of what it runs, what the agent was."""
        argv = argv_of(pid)
        return bool(argv) and bool({" ".join(argv), inner_name(argv, "")} & self.names)

    def leave(self) -> None:
        """Let it run; its end is heard by nobody but a thread that waits for it, so that it does not stay a zombie."""
        threading.Thread(target=self.process.wait, daemon=True, name="agentscope-reaper").start()


def is_below(pid: int, top: int, now: Mapping[int, Row]) -> bool:
    """Whether a process is another, or descends from it."""
    for _ in range(64):
        if pid == top:
            return True
        row = now.get(pid)
        if row is None:
            return False
        pid = row.ppid
    return False
