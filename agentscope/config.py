"""`agentscope.toml`: which processes are agents. Read as root, so it must be owned by root or by the caller, and writable by nobody else."""

import os
import stat
from pathlib import Path
from typing import Any

import msgspec

from agentscope.agents import Target
from agentscope.errors import BadInput, UsageError

SIZE_LIMIT_BYTES = 1 << 20
MATCH_KINDS = ("unit", "pid", "name", "command", "cgroup", "user")


class AgentConfig(msgspec.Struct, frozen=True):
    """One `[agent.NAME]` table. What later versions act on is read and kept, so that one file serves them all."""

    match: dict[str, str | int]
    health: str | dict[str, Any] | None = None
    progress: dict[str, str] | None = None
    memory: dict[str, Any] | None = None
    lockfile: str | None = None
    recovery: dict[str, Any] | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    agent: dict[str, AgentConfig] = {}


def read_config(name: str) -> list[Target]:
    """The targets of a config file.

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
        config = msgspec.toml.decode(text, type=Config)
    except OSError as error:
        raise BadInput(f"cannot read the config file {name}", error.strerror or str(error), f"ls -l {name}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"the config file {name} is not right",
            str(error),
            'an entry such as [agent.researcher] with match = { name = "researcher" }',
        ) from None
    return [target for label, agent in config.agent.items() for target in targets_of(name, label, agent)]


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
