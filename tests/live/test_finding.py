"""Agents that nobody named, found by a real watcher: those that run, those that start later, and nobody else."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
AGENTSCOPE = (sys.executable, "-m", "agentscope")
SECRET = "sk-live-secret-42"
CLIENT = "import socket, sys, time; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print('ready', flush=True); time.sleep(30)"
SHELL = 'exec 3<>/dev/tcp/127.0.0.1/"$1"; echo ready; read -t 30 <&3'


@pytest.fixture
def port() -> Iterator[int]:
    """A server that takes connections and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Started:
    """Processes that end with the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, *argv: str, **environment: str) -> int:
        """Start one and wait until it is ready; its pid."""
        env = {"PATH": os.environ["PATH"], **environment}
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
        self.processes.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process.pid


@pytest.fixture
def start() -> Iterator[Started]:
    """Starts processes."""
    started = Started()
    yield started
    for process in started.processes:
        process.kill()
        process.communicate()


def seen_by_pid(text: str) -> dict[int, Any]:
    """Why each agent was picked."""
    told = [json.loads(line) for line in text.splitlines()]
    return {line["data"]["agent"]["pid"]: line["data"]["because"] for line in told if line["type"] == "agentscope.agent.seen"}


def test_agents_are_found_and_nobody_else(start, port, tmp_path):
    """A watcher without a target finds agents by command line and by key and connection, before and after its start, and no shell."""
    aider = tmp_path / "aider"
    aider.write_text("import time; print('ready', flush=True); time.sleep(30)\n")
    keyed = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    early = start(sys.executable, str(aider))
    client = start(sys.executable, "-c", CLIENT, str(port), **keyed)
    shell = start("bash", "-c", SHELL, "bash", str(port), **keyed)
    idle = start(sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(30)", **keyed)
    argv = [*AGENTSCOPE, "events", "--for", "20", "--state-dir", str(tmp_path / "state")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as events:
        try:
            first = events.stdout.readline()
            assert "agentscope.ready" in first
            assert "known agents by signature" in first
            late = start(sys.executable, str(aider))
            later = start(sys.executable, "-c", CLIENT, str(port), **keyed)
            time.sleep(12.5)  # a look by key and connection comes every ten seconds
        finally:
            events.terminate()
        text = events.stdout.read()
    seen = seen_by_pid(text)
    assert seen[early] == seen[late] == "aider by its command line"
    assert seen[client] == seen[later] == f"OPENAI_API_KEY in its environment and a connection to 127.0.0.1:{port}"
    assert {shell, idle, os.getpid(), events.pid}.isdisjoint(seen)
    assert SECRET not in text


def test_a_plain_table_finds_them_too(start, port, tmp_path):
    """`watch --once` lists an agent that only its key and its connection give away."""
    keyed = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    script = Path(tmp_path) / "researcher-42"
    script.write_text(CLIENT)
    start(sys.executable, str(script), str(port), **keyed)
    argv = [*AGENTSCOPE, "watch", "--once", "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "researcher-42" in done.stdout
    assert SECRET not in done.stdout
