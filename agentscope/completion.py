"""Completion of commands, options, causes and drills by the shell: click knows how, this prints what a shell has to load."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_AGENTSCOPE_COMPLETE"  # click looks into it when the shell asks


def cause_names(_context: click.Context, _argument: click.Parameter, typed: str) -> list[str]:
    """The causes, and their classes, that begin with what was typed."""
    from agentscope.causes import causes

    slugs = sorted(causes())
    return [name for name in (*dict.fromkeys(slug.split("/")[0] for slug in slugs), *slugs) if name.startswith(typed)]


def drill_names(_context: click.Context, _argument: click.Parameter, typed: str) -> list[str]:
    """The drills that begin with what was typed."""
    from agentscope.drills import kinds

    return [kind for kind in kinds() if kind.startswith(typed)]


@click.command(short_help="Have the shell complete what you type")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what bash, zsh or fish loads to complete agentscope's commands, options and causes.

    \b
    agentscope completion bash | sudo tee /etc/bash_completion.d/agentscope
    agentscope completion zsh  > ~/.zfunc/_agentscope
    agentscope completion fish > ~/.config/fish/completions/agentscope.fish
    """  # noqa: D301 - \b is click's mark for "keep these lines"
    script = get_completion_class(shell)
    assert script is not None  # of the three that click ships
    click.echo(script(context.find_root().command, {}, "agentscope", VARIABLE).source())
