"""agentscope as a service of systemd: its unit file, and what it tells systemd of itself."""

import click


@click.command(short_help="A unit file for systemd")
@click.option("--config", metavar="FILE", help="The config file that it watches by [/etc/agentscope.toml].")
@click.option("--state-dir", metavar="DIR", help="Where incidents are recorded [/var/lib/agentscope].")
def service(config: str | None, state_dir: str | None) -> None:
    """Print a unit file for systemd, under which agentscope watches from boot on and is started again should it end.

    \b
    agentscope service --config FILE | sudo tee /etc/systemd/system/agentscope.service
    sudo systemctl daemon-reload && sudo systemctl enable --now agentscope.service
    """  # noqa: D301 - \b is click's mark for "keep these lines"
    from agentscope.config import read_config
    from agentscope.service.unit import program, unit
    from agentscope.supervisors.command import unsafe

    if config is not None:
        read_config(config)  # what is wrong with it is said now, and not by a service that does not start
    text = unit(config, state_dir)
    if why := unsafe(program()):
        click.echo(f"agentscope: {why.partition('. Try')[0]}. Try: install it where only root can write", err=True)
    click.echo(text, nl=False)
