"""What goes with the figures of the sink `prometheus`: alert rules, and a dashboard for Grafana. Both are files that are shipped."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

RULES = "agentscope.rules.yml"
DASHBOARD = "agentscope.dashboard.json"


def shipped(name: str) -> "Path":
    """The file of this name."""
    from pathlib import Path  # with its own, a tenth of what `--help` takes

    return Path(__file__).with_name(name)


@click.group(short_help="Alert rules and a dashboard for Prometheus")
def metrics() -> None:
    """Print the alert rules or the dashboard for the figures that `--to prometheus:HOST:PORT` serves."""


@metrics.command(short_help="Alert rules for Prometheus")
def rules() -> None:
    """Print alert rules for Prometheus.

    \b
    agentscope metrics rules | sudo tee /etc/prometheus/agentscope.rules.yml
    """  # noqa: D301 - \b is click's mark for "keep these lines"
    click.echo(shipped(RULES).read_text("utf-8"), nl=False)


@metrics.command(short_help="A dashboard for Grafana")
def dashboard() -> None:
    """Print a dashboard for Grafana, to be imported there."""
    click.echo(shipped(DASHBOARD).read_text("utf-8"), nl=False)
