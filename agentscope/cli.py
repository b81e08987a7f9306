"""The command line: what each sub-command is wired to. Only this file chooses among engines, targets and views."""

import json
import os
import sys
from typing import Any

import click

from agentscope import __version__
from agentscope.completion import cause_names, completion, drill_names
from agentscope.errors import AgentscopeError, ExitStatus, UsageError
from agentscope.metrics import metrics
from agentscope.options import patience_option, resume_option, shared_options, target_options, wanted_of
from agentscope.printing import silence, write_out
from agentscope.service import service


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        status = main.main(args=arguments, prog_name="agentscope", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return ExitStatus.USAGE
    except AgentscopeError as error:
        click.echo(f"agentscope: {error}", err=True)
        return error.status
    except BrokenPipeError:
        silence(sys.stdout)
        return ExitStatus.HEALTHY
    except OSError as error:
        hint = f". Try: sudo agentscope {' '.join(arguments)}" if isinstance(error, PermissionError) else ""
        click.echo(f"agentscope: {error.strerror or error}: {error.filename or 'standard output'}{hint}", err=True)
        silence(sys.stdout)
        return ExitStatus.NOT_PERMITTED if isinstance(error, PermissionError) else ExitStatus.CANNOT_WRITE
    return int(status or 0)


@click.group(
    short_help="explain agents that die or hang, bring them back",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    commands=[service, completion, metrics],
)
@click.version_option(__version__, prog_name="agentscope")
def main() -> None:
    """Tells why an agent died or hangs, with proof from the kernel, and brings it back.

    \b
    sudo agentscope watch --name my_agent.py      a screen of what runs and what died
    sudo agentscope run -- python my_agent.py     start it, and explain its end
    agentscope diagnose 4711                      one report, of the living or the dead
    agentscope check 4711                         what it would die of, before it does
    sudo agentscope drill oom                     a sample agent dies, and you see what is said
    agentscope doctor                             what works on this machine
    """  # noqa: D301 - \b is click's mark for "keep these lines"


@main.command(short_help="Print what happens as NDJSON, one a line")
@target_options
@resume_option
@click.option(
    "--to", multiple=True, metavar="URL", help="Send it there, not to standard output (-): file:, unix:, journal:, https: …"
)
@click.option("--for", "for_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after this long.")
def events(state_dir: str | None, hang_after: float, resume: bool, to: tuple[str, ...], for_s: float | None, engine: str, **targets: Any) -> int:  # noqa: PLR0917 - click gives them by name # fmt: skip
    """Print what happens to agents as NDJSON, one CloudEvents object a line; the first line is agentscope.ready."""
    import asyncio

    from agentscope.live import Terms
    from agentscope.session import stream_events
    from agentscope.state import state_dir as state_dir_of

    terms = Terms(hang_after, state_dir_of(state_dir), resume)
    return asyncio.run(stream_events(wanted_of(**targets), engine, terms, for_s, to))


@main.command(short_help="A screen of agents and of what became of them")
@target_options
@resume_option
@click.option("--once", is_flag=True, help="Print a plain table once and leave; needs no privilege.")
@click.option("--replay", "recording", metavar="FILE", help="Show a recording instead of this machine.")
@click.option(
    "--fleet", metavar="URL", envvar="AGENTSCOPE_FLEET", help="Show all hosts that publish to nats://HOST:PORT, not this one."
)
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, metavar="TIMES", help="Play it so many times as fast; 0: its end [1]."
)
def watch(  # noqa: PLR0917 - click gives them by name
    once: bool,
    recording: str | None,
    fleet: str | None,
    speed: float,
    state_dir: str | None,
    engine: str,
    hang_after: float,
    resume: bool,
    **targets: Any,
) -> int:
    """Show agents and their incidents on a screen; without a terminal, print a plain table once."""
    from agentscope.views.tui import can_show

    if fleet is not None and not recording:
        if any(targets.values()):
            why = "--pid, --name, --unit, --cgroup and --config are of this host, and a fleet is shown whole"
            raise UsageError("one of two can be watched", why, "agentscope watch --fleet URL, or unset AGENTSCOPE_FLEET")
        from agentscope.fleet.watching import fleet_screen, print_fleet

        if can_show() and not once:
            return fleet_screen(fleet)
        write_out(print_fleet(fleet))
        return ExitStatus.HEALTHY
    if once or not can_show():
        from agentscope.replaying import recorded_events
        from agentscope.session import print_table

        recorded = recorded_events(recording, sys.stderr.write) if recording else None
        write_out(print_table(() if recording else wanted_of(**targets).targets, state_dir, recorded))
        return ExitStatus.HEALTHY
    from agentscope.screens import Watching, replay_screen, watch_screen

    if recording:
        return replay_screen(recording, speed)
    return watch_screen(Watching(wanted_of(**targets), engine, hang_after, state_dir, resume=resume))


@main.command(
    short_help="Start a command, explain its end, bring it back",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--name", help="Name of the agent in what is told, and in the config.")
@click.option("--config", metavar="FILE", help="Bring it back as its entry in a config file says.")
@click.option("--recover", is_flag=True, help="Bring it back as is usual: by starting COMMAND again.")
@click.option("--engine", type=click.Choice(["auto", "core", "bcc", "netlink", "none"]), default="auto", show_default=True)
@patience_option
@shared_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(  # noqa: PLR0917 - click gives them by name
    command: tuple[str, ...],
    name: str | None,
    config: str | None,
    recover: bool,
    engine: str,
    hang_after: float,
    state_dir: str | None,
) -> int:
    """Start COMMAND, watch it, explain its end and bring it back; input, output and exit status are passed through untouched."""
    from agentscope.config import AgentConfig, Config, read_config
    from agentscope.live import Terms
    from agentscope.policy import Policy
    from agentscope.running import label_of, run_child
    from agentscope.state import state_dir as state_dir_of

    wanted = read_config(config) if config else Config()
    if recover and not wanted.agents:
        usual = AgentConfig(match={}, recovery=Policy())
        wanted = Config(agents={label_of(command, name): usual}, owner_uid=os.getuid())
    return run_child(command, name, engine, Terms(hang_after, state_dir_of(state_dir)), wanted)


@main.command(short_help="Explain one process: alive, hung or dead")
@click.argument("who", required=False, metavar="PID|NAME|UNIT")
@click.option("--log", "log", metavar="FILE", help="Read kernel or program output from FILE, or - for standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the same facts as JSON.")
@patience_option
@shared_options
def diagnose(who: str | None, log: str | None, as_json: bool, hang_after: float, state_dir: str | None) -> int:
    """Tell what is known of one process, alive, hung or just dead, or read a pasted log.

    Exit status: 0 healthy or a clean end, 10 fault found, 20 undetermined, 3 no such process, 4 not permitted, 64 usage.
    """
    from agentscope.sources.ahead import ahead_of

    ahead = ahead_of(who)
    from agentscope.diagnosing import diagnose_log, diagnose_process

    if (who is None) == (log is None):
        raise UsageError(
            "diagnose takes either a process or --log",
            "it got both or neither",
            "agentscope diagnose 4711, or agentscope diagnose --log FILE",
        )
    status, text = (
        diagnose_log(log, as_json) if log is not None else diagnose_process(who or "", state_dir, as_json, hang_after, ahead)
    )
    write_out(text)
    return status


@main.command(short_help="Audit a living process for what kills agents")
@click.argument("who", metavar="PID|NAME|UNIT")
@click.option("--config", metavar="FILE", help="Take its health check, lock file and recovery from a config file.")
@click.option("--json", "as_json", is_flag=True, help="Print the points as JSON.")
@shared_options
def check(who: str, config: str | None, as_json: bool, state_dir: str | None) -> int:
    """Audit a living process for what kills agents, before it does: limits, pins, time-outs, supervision, recovery.

    Exit status: 0 all passed, 10 something failed, 20 nothing failed but not all could be checked, 3, 4 and 64 as diagnose.
    """
    from agentscope.checking import check_process

    status, text = check_process(who, state_dir, config, as_json=as_json)
    write_out(text)
    return status


@main.command(short_help="Judge a recording again")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print the replayed lines instead of reports.")
@shared_options
def replay(file: str, as_json: bool, state_dir: str | None) -> int:  # noqa: ARG001 - the option is on every command
    """Judge a recording again. Needs no BPF and no root; lines that cannot be read are named and the rest is replayed."""
    from agentscope.replaying import judged_again

    text, problems = judged_again(file, as_json=as_json)
    for problem in problems:
        click.echo(f"agentscope: {problem}", err=True)
    write_out(text)
    return ExitStatus.BAD_INPUT if problems else ExitStatus.HEALTHY


@main.command(short_help="A cause in plain words")
@click.argument("cause", required=False, shell_complete=cause_names)
def explain(cause: str | None) -> int:
    """Explain a cause in plain words, such as oom/cgroup; without one, list them all."""
    from agentscope.causes import causes
    from agentscope.views.report import render_explanation, wants_color, width_of

    known = causes()
    if cause is None:
        width = max(len(slug) for slug in known)
        write_out("".join(f"{slug:<{width}}  {found.explanation.splitlines()[0]}\n" for slug, found in sorted(known.items())))
        return ExitStatus.HEALTHY
    chosen = [slug for slug in sorted(known) if slug == cause or slug.split("/")[0] == cause or slug.split("/")[1] == cause]
    if not chosen:
        raise UsageError(f"there is no cause {cause!r}", f"the causes are {', '.join(sorted(known))}", "agentscope explain")
    for slug in chosen:
        write_out(render_explanation(slug, known[slug].explanation, width=width_of(sys.stdout), color=wants_color(sys.stdout)))
    return ExitStatus.HEALTHY


@main.command(short_help="What works on this machine, and what does not")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@shared_options
def doctor(as_json: bool, state_dir: str | None) -> int:
    """Say what works on this machine, what does not, and what to type. Exit status 69 if the probes cannot run."""
    import msgspec

    from agentscope.doctor import checks
    from agentscope.state import state_dir as state_dir_of
    from agentscope.views.report import render_doctor, wants_color, width_of

    found = list(checks(state_dir_of(state_dir)))
    if as_json:
        write_out(json.dumps({"version": __version__, "checks": msgspec.to_builtins(found)}) + "\n")
    else:
        write_out(render_doctor(found, width=width_of(sys.stdout), color=wants_color(sys.stdout)))
    engine = next(check for check in found if check.name == "engine core")
    return ExitStatus.HEALTHY if engine.ok else ExitStatus.UNAVAILABLE


@main.command(short_help="What died, and what was done about it")
@click.option("--since", metavar="DURATION", help="Only what happened in the last 30m, 24h or 7d.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the records of the stream: incidents, and what was done about them."
)
@shared_options
def incidents(since: str | None, as_json: bool, state_dir: str | None) -> int:
    """List the incidents on record, newest first, with what was done and whether it held."""
    from agentscope.history import list_incidents, since_ns_of
    from agentscope.ledger import Ledger
    from agentscope.state import state_dir as state_dir_of
    from agentscope.views.report import width_of

    since_ns = None if since is None else since_ns_of(since)
    write_out(list_incidents(Ledger(state_dir_of(state_dir)), since_ns, as_json=as_json, width=width_of(sys.stdout)))
    return ExitStatus.HEALTHY


@main.command(short_help="One incident on record, as text or as a page")
@click.argument("incident", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print its records as the stream had them, one a line.")
@click.option("--html", "page", metavar="FILE", help="Write it as one page to attach to a ticket; - is standard output.")
@shared_options
def show(incident: str, as_json: bool, page: str | None, state_dir: str | None) -> int:
    """Show one incident on record: its report, what was done, and whether it held. The beginning of its ID is enough."""
    from agentscope.history import show_incident
    from agentscope.ledger import Ledger
    from agentscope.state import state_dir as state_dir_of

    write_out(show_incident(Ledger(state_dir_of(state_dir)), incident, as_json=as_json, page=page))
    return ExitStatus.HEALTHY


@main.group(short_help="Is the record of all that whole?")
def ledger() -> None:
    """The record of incidents and of what was done: is it whole?"""


@ledger.command(short_help="Check that nothing is missing or changed")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("--config", metavar="FILE", help="Look for anchors where the [ledger] table of this file puts them, too.")
@click.option("--anchors", metavar="FILE", help="Compare with these anchored heads, one a line, too.")
@shared_options
def verify(as_json: bool, config: str | None, anchors: str | None, state_dir: str | None) -> int:
    """Check that nothing in the ledger is missing or changed. Exit status 0 only if that is so, else 10."""
    from pathlib import Path

    import msgspec

    from agentscope.config import read_config
    from agentscope.ledger.verifying import verify as verify_ledger
    from agentscope.state import state_dir as state_dir_of
    from agentscope.views.report import width_of
    from agentscope.views.verified import render_verified

    settings = read_config(config).ledger if config else None
    found = verify_ledger(state_dir_of(state_dir), settings, Path(anchors) if anchors else None)
    write_out(json.dumps(msgspec.to_builtins(found)) + "\n" if as_json else render_verified(found, width_of(sys.stdout)))
    return ExitStatus.HEALTHY if found.whole else ExitStatus.FAULT_FOUND


@main.command(hidden=True)
def schema() -> int:
    """Print the JSON Schema of a line of the stream."""
    from agentscope.record import schema as schema_of

    write_out(json.dumps(schema_of(), indent=1, sort_keys=True) + "\n")
    return ExitStatus.HEALTHY


@main.command(short_help="Have a sample agent die, to see what is said")
@click.argument("kind", metavar="oom|hang|segfault|drift|exception", shell_complete=drill_names)
@click.option("--diagnose/--no-diagnose", default=None, help="Judge it here [if nobody else watches].")
@shared_options
def drill(kind: str, diagnose: bool | None, state_dir: str | None) -> int:
    """Start a sample agent that dies in this way, to see what is said of it. It is bounded, and nothing of it is left behind."""
    from agentscope.drills import play

    return play(kind, diagnose, state_dir)
