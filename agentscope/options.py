"""Options that several commands share, and what they ask for."""

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def shared_options(command: Command) -> Command:
    """Options that every command takes."""
    state = click.option(
        "--state-dir", metavar="DIR", envvar="AGENTSCOPE_STATE_DIR", help="Where incidents are recorded [/var/lib/agentscope]."
    )
    return state(command)


def target_options(command: Command) -> Command:
    """Options that say what to watch."""
    options = [
        click.option("--pid", "pids", multiple=True, metavar="N", help="Watch this process and its descendants."),
        click.option("--name", "names", multiple=True, metavar="REGEX", help="Watch processes by name, running or started later."),
        click.option("--unit", "units", multiple=True, metavar="NAME", help="Watch a systemd unit."),
        click.option("--cgroup", "cgroups", multiple=True, metavar="PATH", help="Watch the processes of a cgroup."),
        click.option("--config", metavar="FILE", help="Watch the agents of a config file (agentscope.toml)."),
        click.option("--engine", type=click.Choice(["auto", "core", "bcc", "netlink", "none"]), default="auto", show_default=True, help="Where events come from."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return shared_options(patience_option(command))


def resume_option(command: Command) -> Command:
    """Whether recovery goes on with what is open in the ledger: else an agent whose recovery our own end interrupted stays dead."""
    option = click.option(
        "--resume/--no-resume", default=True, help="Go on with recoveries that the ledger still has open [yes]."
    )
    return option(command)


def patience_option(command: Command) -> Command:
    """The option that says how patient to be."""
    return click.option(
        "--hang-after",
        type=click.FloatRange(min=1),
        default=30.0,
        metavar="SECONDS",
        help="How long something may be outstanding before it can be called a hang [30].",
    )(command)


def wanted_of(
    pids: tuple[str, ...], names: tuple[str, ...], units: tuple[str, ...], cgroups: tuple[str, ...], config: str | None
) -> Any:
    """What the options ask for, as a Config; nothing asked means agents known by signature.

    Raises:
        NoSuchProcess, UsageError, BadInput: one of them cannot be watched.
    """
    import msgspec

    from agentscope.agents import Target, check_pid
    from agentscope.config import Config, read_config

    chosen = [Target(kind="pid", value=str(check_pid(pid))) for pid in pids]
    chosen += [Target(kind="name", value=name) for name in names]
    chosen += [Target(kind="unit", value=unit) for unit in units]
    chosen += [Target(kind="cgroup", value=cgroup) for cgroup in cgroups]
    read = read_config(config) if config else Config()
    chosen += read.targets
    for target in chosen:
        if target.kind in {"name", "command"}:
            target.pattern()
    return msgspec.structs.replace(read, targets=tuple(chosen) or (Target(kind="signature", value=""),))
