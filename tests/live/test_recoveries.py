"""Recoveries end to end: each headline cause under a real supervisor, from the death to the incident that is closed because it held.

What must be so is the same for all: one incident in the stream and in the ledger with the same steps in the same order, one new
instance and no more, a ledger that verifies, and `agentscope show`, which tells it to a person.
"""

import http.server
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from owners import PYTHON, WORKER, Docker, Supervisord, Systemd, cmdline, is_gone, playing, settled
from recovering import Stage, Stream, Watched, wait_for
from test_rollback import PAIRS, made, pip, works
from zoo import AGENTSCOPE

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
QUICK = 'validate = "8s"\nprobation = "1s"\nbackoff = "200ms"\ngrace = "2s"\n'
STORY = ("incident.opened", "remedy.started", "remedy.finished", "incident.closed")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """One systemd for all tests."""
    yield from playing(Systemd, tmp_path_factory.mktemp("systemd"))


@pytest.fixture(scope="module")
def supervisord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisord]:
    """One supervisord for all tests."""
    yield from playing(Supervisord, tmp_path_factory.mktemp("supervisord"))


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """One dockerd for all tests."""
    yield from playing(Docker, tmp_path_factory.mktemp("docker"))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Makes what is watched, and ends whoever watches it."""
    made: list[Watched] = []

    def make(match: str, recovery: str = "", front: tuple[str, ...] = ()) -> Watched:
        table = f"[agent.victim]\nmatch = {{ {match} }}\n[agent.victim.recovery]\n{QUICK}{recovery}\n"
        made.append(Watched(tmp_path, table, front))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Webhook(http.server.BaseHTTPRequestHandler):
    """Takes alerts."""

    def do_POST(self) -> None:
        """One alert."""
        self.server.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict]]]:
    """A real webhook: its address, and what it was told."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.taken = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", server.taken  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def told(events: list[dict]) -> list[tuple[str, ...]]:
    """The steps of an incident as they were told: what, which remedy, what came of it."""
    steps = []
    for event in events:
        kind, data = event["type"].removeprefix("agentscope."), event["data"]
        if kind in STORY:
            steps.append((kind, *(data[name] for name in ("remedy", "outcome") if name in data and kind != "incident.closed")))
    return steps


def is_whole(watching: Watched, stream: Stream | None, cause: str, remedies: tuple[str, ...]) -> dict:
    """Assert that one incident of this class is told whole, everywhere, and held. Returns the outcome of its validation."""
    kept = [line for line in watching.ledger() if line["type"].removeprefix("agentscope.") in STORY]
    if stream is not None:
        seen = [json.loads(line) for line in list(stream.out.lines) if '"agentscope.' in line]
        assert told(seen) == told(kept), stream.tail()
    steps = told(kept)
    opened, closed = kept[0]["data"], kept[-1]["data"]
    assert steps[0] == ("incident.opened",)
    assert opened["cause"].split("/")[0] == cause, opened["headline"]
    assert [step[1] for step in steps if step[0] == "remedy.started"] == list(remedies), steps
    finished = [step[1:] for step in steps if step[0] == "remedy.finished"]
    restoring = next(name for name in reversed(remedies) if name.startswith("restart"))
    wanted = [(name, "done") for name in remedies]
    wanted.insert(remedies.index(restoring) + 1, ("validate", "done"))
    assert finished == wanted, kept
    assert {line["data"]["incident"] for line in kept} == {opened["incident"]}
    assert steps[-1] == ("incident.closed",)
    assert closed["held"] is True
    verified = watching.ask("ledger", "verify")
    assert verified.returncode == 0, verified.stdout
    shown = watching.ask("show", opened["incident"])
    assert shown.returncode == 0, shown.stderr
    for number, remedy in enumerate(remedies, 1):
        assert f"{number}. {remedy}: " in shown.stdout, shown.stdout
    assert "It held: " in shown.stdout
    assert opened["headline"].split()[0] in shown.stdout
    validated = next(line["data"] for line in kept if line["data"].get("remedy") == "validate")
    print(f"{opened['cause']}, {' then '.join(remedies)}: {(validated['at_ns'] - opened['at_ns']) / 1e6:.0f} ms to validated")
    return validated


def test_out_of_memory_under_systemd(systemd, watched, webhook, tmp_path):
    """A unit that outgrew its MemoryMax is started afresh through systemd, once, and somebody is told."""
    address, alerts = webhook
    watching = watched('unit = "greedy.service"', f'alert = "{address}"', systemd.seen_from_outside(tmp_path))
    inner = systemd.start("greedy")
    stream = watching.watch()
    stream.wait("agentscope.agent.seen")
    systemd.control("kill", "--kill-who=main", "--signal=SIGUSR1", "greedy.service")
    closed = stream.closed()
    validated = is_whole(watching, stream, "oom", ("restart-fresh", "alert"))
    assert closed["agent"]["unit"] == "greedy.service"
    starts = settled(systemd.starts, "greedy")
    assert len(starts) == 2
    assert starts[0] == str(inner)
    assert systemd.main_pid("greedy") == int(starts[1])
    assert f"NSpid:\t{validated['pid']}\t{starts[1]}" in Path(f"/proc/{validated['pid']}/status").read_text()
    assert len(alerts) == 1
    systemd.control("stop", "greedy.service")


def test_an_exception_under_supervisord(supervisord, watched):
    """A program that raised, and that supervisord leaves down, is started through supervisord, once."""
    watching = watched(f'command = "{WORKER} {supervisord.folder}/starts-raising"')
    first = supervisord.start("raising")
    stream = watching.watch()
    stream.wait("agentscope.agent.seen")
    os.kill(first, signal.SIGUSR1)
    stream.closed()
    validated = is_whole(watching, stream, "exception", ("restart",))
    assert "KeyError" in stream.events("agentscope.incident.opened")[0]["data"]["culprit"]
    assert settled(supervisord.starts, "raising") == [str(first), str(validated["pid"])]
    assert not is_gone(validated["pid"])
    assert "RUNNING" in supervisord.control("status", "raising")


def test_a_crash_under_docker(docker, watched):
    """A container whose process faulted, and that docker leaves down, is started through docker, once."""
    watching = watched('command = "/place/worker.py /starts/crashing"')
    first = docker.start("crashing")
    stream = watching.watch()
    stream.wait("agentscope.agent.seen")
    os.kill(first, signal.SIGUSR2)
    stream.closed()
    validated = is_whole(watching, stream, "crash", ("restart",))
    assert settled(docker.starts, "crashing") == 2
    assert docker.pid("crashing") == validated["pid"] != first


def test_a_hang_under_docker(docker, watched):
    """A container in a deadlock has its stacks kept, is stopped, and started once by docker."""
    watching = watched('command = "/place/worker.py /starts/hanging"')
    first = docker.start("hanging", words=("does=deadlock",))
    stream = watching.watch("--hang-after", "2")
    stream.wait("agentscope.agent.seen")
    os.kill(first, signal.SIGUSR1)
    stream.closed()
    validated = is_whole(watching, stream, "hang", ("stacks", "restart"))
    (stacks,) = (watching.state / "stacks").glob("*.txt")
    assert "want (" in stacks.read_text()
    assert is_gone(first)
    assert settled(docker.starts, "hanging") == 2
    assert docker.pid("hanging") == validated["pid"]


def test_a_hang_under_run(watched, tmp_path):
    """A deadlock of the child of `agentscope run`: its stacks are kept, it is stopped, and one new child takes its place."""
    watching, log = watched('name = "worker.py"'), tmp_path / "starts"
    process = subprocess.Popen(
        [AGENTSCOPE, "run", "--config", watching.config, "--state-dir", watching.state, "--hang-after", "2", "--",
         PYTHON, WORKER, log, "does=deadlock"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    watching.watchers.append(process)
    assert wait_for(lambda: log.exists() and log.read_text())
    time.sleep(1)
    first = int(log.read_text())
    os.kill(first, signal.SIGUSR1)
    assert wait_for(lambda: watching.kept("incident.closed"))
    validated = is_whole(watching, None, "hang", ("stacks", "restart"))
    assert settled(lambda: log.read_text().split()) == [str(first), str(validated["pid"])]
    assert is_gone(first)
    assert f"{WORKER}" in cmdline(validated["pid"])
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM


# it notes that it began before it loads what an upgrade breaks, and ends well when it is asked to
AGENT = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / "lives").open("a") as lives:
    lives.write(f"{os.getpid()}\\n")
from pydantic import BaseSettings
with (folder / "ready").open("a") as ready:
    ready.write(f"{os.getpid()}\\n")
until = time.monotonic() + 55
while time.monotonic() < until and not (folder / "end").exists():
    time.sleep(0.05)
"""


def test_drift_by_a_command(tmp_path):
    """A good run, a real upgrade, a death that is told as drift; the venv is put back as it was and the agent started by its command, once."""
    before, upgrade, imports, version = PAIRS["pydantic"]
    stage = Stage(tmp_path, f'snapshot = "{tmp_path}/venv"\n{QUICK}', health=False)
    try:
        venv = made(tmp_path / "venv", *before)
        stage.program.write_text(AGENT)
        stage.script.write_text(
            f"#!/bin/sh\necho $$ >>{tmp_path}/acts\nsetsid {venv}/bin/python {stage.program} {tmp_path} </dev/null >>{tmp_path}/out 2>&1 &\n"
        )
        stream = stage.watch()
        subprocess.run([stage.script], check=True)
        assert wait_for(lambda: stage.lines("ready"))
        time.sleep(3)  # until its parts are loaded
        (tmp_path / "end").touch()
        assert wait_for(lambda: list(stage.state.glob("snapshots/venv-*/*/manifest.json"))), stream.tail()
        (tmp_path / "end").unlink()
        pip(venv, *upgrade)
        subprocess.run([stage.script], check=True)
        stream.closed()
        validated = is_whole(stage, stream, "drift", ("rollback", "restart"))
        assert stream.events("agentscope.incident.opened")[0]["data"]["cause"] == "drift/python-import"
        finished = [event["data"] for event in stream.events("agentscope.remedy.finished")]
        assert version in finished[0]["says"]
        began = [event["data"]["at_ns"] for event in stream.events("agentscope.remedy.started")]
        assert (began[1] - finished[0]["at_ns"]) / 1e9 < 0.5  # nothing is awaited that nobody starts
        assert (len(settled(lambda: stage.lines("lives"))), len(stage.lines("ready"))) == (3, 2)
        assert stage.living() == [validated["pid"]]
        assert works(venv, imports)
    finally:
        stage.close()
