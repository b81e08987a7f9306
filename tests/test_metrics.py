"""Figures for Prometheus: what is counted, what it costs, and a real Prometheus that scrapes them and alerts."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from agentscope.causes import causes
from agentscope.errors import UsageError
from agentscope.metrics import DASHBOARD as DASHBOARD_NAME
from agentscope.metrics import RULES as RULES_NAME
from agentscope.metrics import shipped
from agentscope.model import AgentGone, AgentSeen, IncidentClosed, Lost, RemedyFinished
from agentscope.sinks._figures import OTHER, VALUES_AT_MOST, Figures, package_of
from tests import samples
from tests.commandline import agentscope
from tests.sink_builders import Hook, opened

exposed = pytest.importorskip("prometheus_client")
DASHBOARD, RULES = shipped(DASHBOARD_NAME), shipped(RULES_NAME)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def scrape(port: int, path: str = "/metrics") -> str:
    """What is served."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def drifted(package: str = "numexpr", number: int = 1):
    """An agent died of a package that changed."""
    return samples.incident(
        samples.CODER, f"drift-{number}", "drift/python-import", "numexpr is not what it was", f"{package} 2.8.4 -> 2.10.0 at 03:12 by pip"
    )  # fmt: skip


def values(text: str) -> dict[str, float]:
    """Every series by its name with labels."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_what_is_counted(tmp_path):
    """Deaths by cause, package and scope, hangs, recoveries, ends of incidents, losses, agents and the time to a verdict are served."""
    port = free_port()
    tee, _ = opened(tmp_path, {"to": f"prometheus:127.0.0.1:{port}"})
    hang = msgspec.structs.replace(samples.oom_cgroup(), cause="hang/deadlock", subtype="deadlock", detected_in_ms=30.0)
    agent, incident = samples.RESEARCHER, "x"
    events = [
        samples.ready(), AgentSeen(at_ns=1, agent=agent, because="x"), AgentSeen(at_ns=1, agent=samples.CODER, because="x"),
        AgentGone(at_ns=2, agent=samples.CODER, says="ended"), samples.oom_cgroup(), samples.oom_cgroup(), samples.tool_killed(), drifted(), hang,
        RemedyFinished(at_ns=1, incident=incident, agent=agent, remedy="restart", attempt=1, outcome="failed", says="no", took_ms=1.0),
        IncidentClosed(at_ns=1, incident=incident, agent=agent, outcome="given up", held=False), Lost(at_ns=1, source="ring buffer", count=12),
    ]  # fmt: skip
    for event in events:
        tee.write(event)
    found = values(scrape(port))
    assert found['agentscope_deaths_total{cause="oom/cgroup",package="",scope="agent"}'] == 2
    assert found['agentscope_deaths_total{cause="drift/python-import",package="numexpr",scope="agent"}'] == 1
    assert (
        sum(value for name, value in found.items() if name.startswith("agentscope_deaths_total") and 'scope="tool"' in name)
        == 1
    )
    assert found['agentscope_hangs_total{cause="hang/deadlock",package="",scope="agent"}'] == 1
    assert found['agentscope_recoveries_total{outcome="failed",remedy="restart"}'] == 1
    assert found['agentscope_incidents_closed_total{result="not_held"}'] == 1
    assert found['agentscope_lost_events_total{source="ring buffer"}'] == 12
    assert found["agentscope_agents"] == 1
    assert found['agentscope_verdict_seconds_count{kind="death"}'] == 4
    assert found['agentscope_verdict_seconds_bucket{kind="hang",le="0.05"}'] == 1
    assert found['agentscope_verdict_seconds_bucket{kind="hang",le="0.025"}'] == 0
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["process_cpu_seconds_total"] > 0
    for cause in causes():
        kind = "hangs" if cause.startswith("hang/") else "deaths"
        assert f'agentscope_{kind}_total{{cause="{cause}",package="",scope="agent"}}' in found, (
            "a first death would not have increased it"
        )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(port, "/")
    tee.close()


async def test_no_label_has_a_pid_or_what_a_process_chose(tmp_path):
    """A night with hostile names leaves nothing of them in the figures, and no number of a process."""
    port = free_port()
    tee, _ = opened(tmp_path, {"to": f"prometheus:127.0.0.1:{port}"})
    for event in samples.night():
        tee.write(event)
    text = scrape(port)
    tee.close()
    pids = {str(incident().process.pid) for incident in samples.INCIDENTS.values()}
    labels = [value for line in text.splitlines() if line[:1] != "#" and "{" in line for value in line.split('"')[1::2]]
    assert labels
    assert not pids & set(labels)
    assert not any("evil" in label or "\x1b" in label for label in labels)
    assert "pid" not in text.replace("process_", "").replace("rapid", "")


def test_labels_are_bounded():
    """However many packages and sources there are, a label never has more than a hundred values, and one more."""
    figures = Figures()
    for number in range(3 * VALUES_AT_MOST):
        list(figures.of(drifted(f"package-{number}", number)))
    seen = {next(figures.of(drifted(f"package-{number}", number))).labels["package"] for number in range(3 * VALUES_AT_MOST)}
    assert len(seen) == VALUES_AT_MOST + 1
    assert OTHER in seen


@pytest.mark.parametrize(
    ("culprit", "package"),
    [
        ("numexpr 2.8.4 -> 2.10.0 at 03:12 by pip", "numexpr"),
        ("@anthropic-ai/claude-code 1.0 -> 2.0", "@anthropic-ai/claude-code"),
        ("libssl3:amd64 3.0.2 -> 3.0.3", "libssl3:amd64"),
        ("\x1b[2Jevil", ""),
        ("", ""),
    ],
)
def test_the_package_of_a_culprit(culprit, package):
    """Of a drift the package is named without versions; anything that is no name of a package is none, nor is the culprit of another cause."""
    assert package_of(msgspec.structs.replace(drifted(), culprit=culprit)) == package
    assert package_of(msgspec.structs.replace(samples.oom_cgroup(), culprit=culprit)) == ""


async def test_who_asks_and_never_reads(tmp_path):
    """Connections that say nothing take no more than a few threads, cost the stream nothing, and the next one is answered again."""
    port = free_port()
    tee, _ = opened(tmp_path, {"to": f"prometheus:127.0.0.1:{port}"})
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    slowest = 0.0
    for event in samples.night():
        started = time.perf_counter()
        tee.write(event)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 3  # whoever waited would wait for ever
    for each in silent:
        each.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            assert "agentscope_deaths_total" in scrape(port)
            break
        except OSError:
            await asyncio.sleep(0.1)
    else:
        pytest.fail("it never answered again")
    tee.close()


async def test_an_address_that_is_taken(tmp_path):
    """Where somebody listens already it says so at the start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="Address already in use"):
            opened(tmp_path, {"to": f"prometheus:127.0.0.1:{taken.getsockname()[1]}"})


# --- what is shipped with it ---------------------------------------------------------------------------------------------------


def test_rules_and_dashboard_are_printed():
    """`agentscope metrics` prints the files that are shipped, as they are."""
    assert agentscope("metrics", "rules").out == RULES.read_bytes()
    assert agentscope("metrics", "dashboard").out == DASHBOARD.read_bytes()
    panels = json.loads(DASHBOARD.read_bytes())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def expressions() -> list[str]:
    """What every panel asks, as Grafana would ask it."""
    panels = json.loads(DASHBOARD.read_bytes())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return [
        each.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$instance", ".*") for each in asked
    ]  # fmt: skip


def needs(program: str) -> str:
    """The program, or a skip: Debian's packages of Prometheus are too large for every run."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install prometheus prometheus-alertmanager)")
    return found


def test_promtool_takes_the_rules():
    """Prometheus' own checker finds nothing wrong with the rules."""
    done = subprocess.run([needs("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "8 rules found" in done.stdout


class Servers:
    """A Prometheus that scrapes us, with our rules, and an Alertmanager that tells a webhook."""

    def __init__(self, folder: Path, ours: int, told: str, stack: ExitStack) -> None:
        self.port, self.alerts = free_port(), free_port()
        (folder / "am.yml").write_text(
            "route: {receiver: us, group_by: [alertname], group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: us, webhook_configs: [{{url: '{told}'}}]}}]\n"
        )
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
            f"rule_files: ['{RULES}']\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{self.alerts}']}}]}}]}}\n"
            f"scrape_configs: [{{job_name: agentscope, static_configs: [{{targets: ['127.0.0.1:{ours}']}}]}}]\n"
        )
        self.start(
            stack, needs("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
        )  # fmt: skip
        self.start(
            stack, needs("prometheus-alertmanager"), f"--config.file={folder}/am.yml", f"--storage.path={folder}/am",
            f"--web.listen-address=127.0.0.1:{self.alerts}", "--cluster.listen-address=", "--log.level=error",
        )  # fmt: skip

    @staticmethod
    def start(stack: ExitStack, *command: str) -> None:
        """One server, ended with the test."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait, 20)
        stack.callback(process.kill)

    def ask(self, expression: str) -> list[dict]:
        """An instant query.

        Raises:
            OSError: it does not answer, or refuses it.
        """
        quoted = urllib.parse.quote(expression)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?query={quoted}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]


def eventually(true, limit_s: float = 60.0):
    """What it returns once that is something, within the time."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            if found := true():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    return true()


async def test_a_real_prometheus_scrapes_and_alerts(tmp_path):
    """Prometheus scrapes the figures, takes every question of the dashboard, and the first death of an agent reaches Alertmanager's webhook."""
    needs("prometheus"), needs("prometheus-alertmanager")
    port = free_port()
    with ExitStack() as stack:
        told = Hook([])
        stack.callback(told.close)
        tee, _ = opened(tmp_path, {"to": f"prometheus:127.0.0.1:{port}"})
        stack.callback(tee.close)
        tee.write(samples.ready())
        servers = Servers(tmp_path, port, told.url, stack)
        assert eventually(lambda: servers.ask("agentscope_info"))
        for expression in expressions():
            servers.ask(expression)  # a question that is wrong is answered with 400
        await asyncio.sleep(1.5)  # two scrapes without a death
        tee.write(drifted())
        tee.write(samples.oom_cgroup())
        assert eventually(lambda: servers.ask('ALERTS{alertname="AgentDied",alertstate="firing"}'))
        assert eventually(lambda: servers.ask('agentscope_deaths_total{package="numexpr"} == 1'))

        def alerts() -> set[str]:
            sent = [json.loads(content) for _, content in told.got]
            return {alert["annotations"]["summary"] for each in sent for alert in each["alerts"]}

        assert eventually(lambda: len(alerts()) >= 2), alerts()
        assert alerts() == {
            f"An agent on 127.0.0.1:{port} died: oom/cgroup",
            f"An agent on 127.0.0.1:{port} died: drift/python-import (numexpr)",
        }


async def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    """Where prometheus-client is not installed, the sink is refused at the start with the line to type."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"pip install 'agentscope-linux\[metrics\]'"):
        opened(tmp_path, {"to": f"prometheus:127.0.0.1:{free_port()}"})
