"""`agentscope.toml`: which processes are agents, how to ask whether they are well, and where what is told goes.

Read as root, so it must be owned by root or by the caller, and writable by nobody else.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from agentscope.agents import Target
from agentscope.durations import seconds_of
from agentscope.errors import BadInput, UsageError
from agentscope.ledger.settings import Settings, read_settings
from agentscope.model import Agent, Value
from agentscope.policy import Policy, read_policy
from agentscope.pressure import WARN
from agentscope.sinks import Chosen, read_sinks
from agentscope.sizes import bytes_of

SIZE_LIMIT_BYTES = 1 << 20
MATCH_KINDS = ("unit", "pid", "name", "command", "cgroup", "user")
SOCKET_PATH_LIMIT = 107  # bytes; sun_path has 108 with its end (unix(7))
HEALTH_HINT = 'health = "http://127.0.0.1:8080/health", "tcp:127.0.0.1:6379", "unix:/run/agent.sock" or { exec = ["/usr/local/bin/check"] }'
TABLE_HINT = 'health = { url = "http://127.0.0.1:8080/health", timeout = "500ms", interval = "2s", strikes = 3 }'
MEMORY_HINT = 'memory = { limit = "4G", warn = 0.7 }'
PROGRESS_HINT = 'progress = { within = "30s", signal = "io" }'
FILE_HINT = 'progress = { within = "30s", signal = "heartbeat-file", path = "/run/agent/heartbeat" }'


class HealthConfig(Value, frozen=True):
    """How an agent is asked whether it is well: `target` is a URL, HOST:PORT or a path; a command has its words instead."""

    kind: Literal["http", "tcp", "unix", "exec"]
    target: str = ""
    command: tuple[str, ...] = ()
    timeout_s: float = 0.5
    interval_s: float = 2.0
    strikes: int = 3


class ProgressConfig(Value, frozen=True):
    """What shows that an agent gets on, and how long it may be without; `path` is that of a heartbeat file."""

    within_s: float
    signal: Literal["io", "stdout", "heartbeat-file", "sd_notify"]
    path: str | None = None


class MemoryConfig(Value, frozen=True):
    """From which share of its limit on the agent's memory is told of; `limit_bytes` is one of the owner's own (None: what binds it)."""

    limit_bytes: int | None = None
    warn: float = WARN


class AgentConfig(Value, frozen=True):
    """One `[agent.NAME]` table. What later versions act on is read and kept, so that one file serves them all.

    Without `recovery` the agent is only observed.
    """

    match: dict[str, str | int]
    health: HealthConfig | None = None
    progress: ProgressConfig | None = None
    memory: MemoryConfig | None = None
    lockfile: str | None = None
    recovery: Policy | None = None


class Config(Value, frozen=True):
    """The whole file. `owner_uid` is whose it is: what it asks for is done in that name, or in the agent's."""

    agents: dict[str, AgentConfig] = {}
    targets: tuple[Target, ...] = ()  # each carries the name of its agent, which is the key of `agents`
    owner_uid: int = 0
    ledger: Settings = Settings()
    sinks: tuple[Chosen, ...] = ()


class _HealthTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`health` written as a table."""

    url: str | None = None
    command: tuple[str, ...] | None = msgspec.field(default=None, name="exec")
    timeout: str = "500ms"
    interval: str = "2s"
    strikes: int = 3


class _ProgressTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`progress` as it is written."""

    within: str
    signal: Literal["io", "stdout", "heartbeat-file", "sd_notify"]
    path: str | None = None


class _MemoryTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`memory` as it is written."""

    limit: str | None = None
    warn: float = WARN


class _AgentTable(msgspec.Struct, frozen=True):
    """An agent as it is written."""

    match: dict[str, str | int]
    health: str | _HealthTable | None = None
    progress: _ProgressTable | None = None
    memory: _MemoryTable | None = None
    lockfile: str | None = None
    recovery: dict[str, Any] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written; its agents are read one by one, so that an error can name the one."""

    agent: dict[str, dict[str, Any]] = {}
    ledger: dict[str, Any] = {}
    sink: dict[str, dict[str, Any]] = {}


def lockfiles(wanted: Config) -> Callable[[Agent], str | None]:
    """The lock file that is configured for an agent, by the name that its entry gives it."""
    named = {label: agent.lockfile for label, agent in wanted.agents.items()}
    return lambda agent: named.get(agent.name)


def read_config(name: str) -> Config:
    """A config file, checked whole.

    Raises:
        BadInput: it cannot be read, is no TOML, or has a field of the wrong kind. UsageError: others may write it.
    """
    path = Path(name)
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            facts = os.fstat(file.fileno())
            check_owner(name, facts)
            text = file.read(SIZE_LIMIT_BYTES + 1)
        if len(text) > SIZE_LIMIT_BYTES:
            raise BadInput(f"the config file {name} is too big", f"it may have {SIZE_LIMIT_BYTES} bytes")
        found = msgspec.toml.decode(text, type=_File)
    except OSError as error:
        raise BadInput(f"cannot read the config file {name}", error.strerror or str(error), f"ls -l {name}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"the config file {name} is not right",
            str(error),
            'an entry such as [agent.researcher] with match = { name = "researcher" }',
        ) from None
    agents = {label: agent_of(name, label, table) for label, table in found.agent.items()}
    targets = tuple(target for label, agent in agents.items() for target in targets_of(name, label, agent))
    ledger = read_settings(f"the config file {name} is not right: ledger", found.ledger, facts.st_uid)
    sinks = read_sinks(f"the config file {name} is not right", found.sink)
    return Config(agents=agents, targets=targets, owner_uid=facts.st_uid, ledger=ledger, sinks=sinks)


def check_owner(name: str, facts: os.stat_result) -> None:
    """A config that others may write would let them choose what root does.

    Raises:
        UsageError: wrong owner or mode. BadInput: not a regular file.
    """
    if not stat.S_ISREG(facts.st_mode):
        raise BadInput(f"the config file {name} is not a regular file")
    invoking = int(os.environ.get("SUDO_UID", os.getuid()))
    if facts.st_uid not in {0, os.getuid(), invoking}:
        raise UsageError(
            f"the config file {name} belongs to another user", f"its owner is uid {facts.st_uid}", f"sudo chown root {name}"
        )
    if facts.st_mode & 0o022:
        raise UsageError(
            f"the config file {name} can be written by others", f"its mode is {facts.st_mode & 0o777:o}", f"chmod go-w {name}"
        )


def agent_of(name: str, label: str, table: dict[str, Any]) -> AgentConfig:
    """One `[agent.NAME]` table, checked.

    Raises:
        BadInput: a field is of the wrong kind; it says which and what to type.
    """
    wrong = f"the config file {name} is not right: agent {label}"
    try:
        given = msgspec.convert(table, _AgentTable)
    except msgspec.ValidationError as error:
        hints = {"$.health": TABLE_HINT, "$.progress": PROGRESS_HINT, "$.memory": MEMORY_HINT}
        hint = next((hint for at, hint in hints.items() if at in str(error)), 'match = { name = "researcher" }')
        raise BadInput(wrong, str(error), hint) from None
    if given.lockfile is not None:
        check_lockfile(f"{wrong}: lockfile", given.lockfile)
    progress = None if given.progress is None else progress_of(f"{wrong}: progress", label, given.progress)
    return AgentConfig(
        match=given.match,
        health=None if given.health is None else health_of(f"{wrong}: health", given.health),
        progress=progress,
        memory=None if given.memory is None else memory_of(f"{wrong}: memory", given.memory),
        lockfile=given.lockfile,
        recovery=None if given.recovery is None else read_policy(f"{wrong}: recovery", given.recovery),
    )


def targets_of(name: str, label: str, agent: AgentConfig) -> list[Target]:
    """The targets of one entry.

    Raises:
        BadInput: it matches by something that does not exist.
    """
    targets = []
    for kind, value in agent.match.items():
        if kind not in MATCH_KINDS:
            raise BadInput(f"{name}: agent {label} cannot match by {kind!r}", f"agents are matched by {', '.join(MATCH_KINDS)}")
        targets.append(msgspec.convert({"kind": kind, "value": str(value), "name": label}, Target))
    if not targets:
        raise BadInput(f"{name}: agent {label} matches nothing", "its match is empty", 'match = { name = "..." }')
    return targets


def health_of(wrong: str, given: str | _HealthTable) -> HealthConfig:
    """A health check, checked. `wrong` begins the sentence of what is not right.

    Raises:
        BadInput: there is no such check.
    """
    table = _HealthTable(url=given) if isinstance(given, str) else given
    if (table.url is None) == (table.command is None):
        raise BadInput(wrong, "a table has either url or exec", TABLE_HINT)
    timeout_s = seconds_of(f"{wrong}: timeout", table.timeout, 0.001, 60)
    interval_s = seconds_of(f"{wrong}: interval", table.interval, 0.1, 3600)
    if not 1 <= table.strikes <= 100:
        raise BadInput(f"{wrong}: strikes", f"{table.strikes} is not from 1 to 100", TABLE_HINT)
    asked = asked_of(wrong, table.url) if table.url is not None else HealthConfig(kind="exec", command=table.command or ())
    if asked.kind == "exec":
        check_command(wrong, asked.command)
    return msgspec.structs.replace(asked, timeout_s=timeout_s, interval_s=interval_s, strikes=table.strikes)


def asked_of(wrong: str, url: str) -> HealthConfig:
    """What a check that is written as text asks, without its times.

    Raises:
        BadInput: it is no check.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "exec":
        try:
            return HealthConfig(kind="exec", command=msgspec.json.decode(rest, type=tuple[str, ...]))
        except msgspec.DecodeError:
            raise BadInput(wrong, f'{url!r}: after exec: stands a list, exec:["/usr/local/bin/check"]', HEALTH_HINT) from None
    try:
        why = fault_of(scheme, rest, url)
    except ValueError as error:  # a port or an IPv6 address that is none
        why = str(error)
    if why:
        raise BadInput(wrong, f"{url!r}: {why}", HEALTH_HINT)
    if scheme == "tcp":
        return HealthConfig(kind="tcp", target=rest)
    return HealthConfig(kind="unix", target=rest) if scheme == "unix" else HealthConfig(kind="http", target=url)


def fault_of(scheme: str, rest: str, url: str) -> str:
    """Why this is no address that can be asked; empty where it is one."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return "it has characters that an address cannot have"
    if scheme in {"http", "https"} and rest.startswith("//"):
        parts = urlsplit(url)
        return "" if parts.hostname and parts.port != 0 else "it names no host"
    if scheme == "tcp":
        parts = urlsplit(f"//{rest}")
        return "" if parts.hostname and parts.port and parts.netloc == rest and "@" not in rest else "it is not tcp:HOST:PORT"
    if scheme == "unix":
        whole = rest.startswith("/") and len(rest) <= SOCKET_PATH_LIMIT
        return "" if whole else f"a socket has a path from / on, of at most {SOCKET_PATH_LIMIT} bytes"
    return "it begins with none of http:, https:, tcp:, unix:, exec:"


def check_command(wrong: str, command: tuple[str, ...]) -> None:
    """There is no shell, and no folder that a relative path could start from.

    Raises:
        BadInput: this cannot be started.
    """
    program = command[0] if command else ""
    if not program or ("/" in program and not program.startswith("/")) or any("\0" in word for word in command):
        raise BadInput(
            f"{wrong}: exec", "it begins with a program, by name or by its path from / on; each word is its own", HEALTH_HINT
        )


def memory_of(wrong: str, given: _MemoryTable) -> MemoryConfig:
    """A warning of memory, checked.

    Raises:
        BadInput: its limit is no size, or its share none.
    """
    if not 0.1 <= given.warn <= 0.99:
        raise BadInput(f"{wrong}: warn", f"{given.warn:g} is not a share from 0.1 to 0.99", MEMORY_HINT)
    return MemoryConfig(limit_bytes=None if given.limit is None else bytes_of(f"{wrong}: limit", given.limit), warn=given.warn)


def check_lockfile(wrong: str, path: str) -> None:
    """A lock file is compared with what is installed, so its form must be one that is known; a relative path is in the agent's folder.

    Raises:
        BadInput: it is none.
    """
    from agentscope.distributions.lockfile import FORMS, form_of

    if not path.isprintable() or form_of(path.rpartition("/")[2]) is None:
        raise BadInput(wrong, f"{path!r} is none of {', '.join(FORMS)}", 'lockfile = "uv.lock"')


def progress_of(wrong: str, label: str, given: _ProgressTable) -> ProgressConfig:
    """A rule of progress, checked.

    Raises:
        BadInput: it cannot be kept.
    """
    within_s = seconds_of(f"{wrong}: within", given.within, 1, 86400)
    if given.signal == "heartbeat-file":
        if not given.path or not given.path.startswith("/") or "\0" in given.path:
            raise BadInput(wrong, "a heartbeat file has a path from / on", FILE_HINT)
    elif given.path is not None:
        raise BadInput(wrong, f"signal {given.signal} has no path", FILE_HINT)
    if given.signal == "sd_notify" and (
        label.startswith(".") or len(label) > 64 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in label)
    ):
        raise BadInput(
            wrong, "its socket has the agent's name, so that has letters, digits, . _ and - only", "[agent.researcher]"
        )
    return ProgressConfig(within_s=within_s, signal=given.signal, path=given.path)
