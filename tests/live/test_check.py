"""The prevention checklist of a real service as root: what was prepared passes, what was left out fails."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from cage import Cage
from zoo import AGENTSCOPE

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

SERVICE = """\
import http.server, signal, sys
signal.alarm(50)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(port: int) -> None:
    """Until it answers."""
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the service did not start")


def points_of(pid: int, *options: str) -> tuple[int, dict[str, dict]]:
    """The exit status and the points of one check."""
    done = subprocess.run(
        [AGENTSCOPE, "check", str(pid), "--json", *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.returncode, {each["point"]: each for each in json.loads(done.stdout)["points"]}


def test_a_service_that_is_prepared(tmp_path: Path) -> None:
    """Under a memory limit, with a log, a health page and somebody who starts it again: those points pass, with their evidence."""
    port = free_port()
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "requirements.txt").write_text("requests>=2\n")
    config = tmp_path / "agentscope.toml"
    config.write_text(
        f'[agent.web]\nmatch = {{ command = "service.py {port}" }}\nhealth = {{ url = "http://127.0.0.1:{port}/health", timeout = "5s" }}\n'
    )
    config.chmod(0o600)
    cage = Cage(200, nested=False)
    join = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in cage.joined)
    state = str(tmp_path / "state")
    with (tmp_path / "err.log").open("w") as log:
        run = subprocess.Popen(
            ["sh", "-c", f'{join}; exec "$@"', "sh", AGENTSCOPE, "run", "--recover", "--name", "web", "--state-dir", state, "--",
             "/usr/bin/python3", "service.py", str(port)],
            cwd=tmp_path, stderr=log, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        wait_for(port)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        pid = next(int(child) for child in children if b"service.py" in Path(f"/proc/{child}/cmdline").read_bytes())
        status, found = points_of(pid, "--config", str(config), "--state-dir", state)
    finally:
        run.terminate()
        run.wait(10)
        cage.close()
    results = {point: each["result"] for point, each in found.items()}
    passed = ("memory-limit", "health-endpoint", "supervision", "last-words", "armed-drift")
    assert [results[point] for point in passed] == ["passed"] * 5, found
    assert "200 MiB" in found["memory-limit"]["says"]
    assert "answers 200 OK" in found["health-endpoint"]["says"]
    assert "404" in found["health-endpoint"]["says"]
    assert str(tmp_path / "err.log") in found["last-words"]["says"]
    assert results["pinned-versions"] == "failed"
    assert "no exact version of requests" in found["pinned-versions"]["says"]
    assert results["memory-growth"] == results["last-resort"] == "not checkable"
    assert results["recovery-drill"] == "failed"
    assert status == 10


def test_a_process_that_is_not_prepared(tmp_path: Path) -> None:
    """A bare process that waits for a silent peer for ever: no limit, no owner, no last words, no time-out, each with a line to type."""
    code = (
        "import socket, signal; signal.alarm(50); s = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(s.getsockname()); c.sendall(b'x'); print('ready', flush=True); c.recv(1)"
    )
    victim = subprocess.Popen(["/usr/bin/python3", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        status, found = points_of(victim.pid, "--state-dir", str(tmp_path / "state"))
        whole = subprocess.run(
            [AGENTSCOPE, "check", str(victim.pid), "--state-dir", str(tmp_path / "state")],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "80"},
        )  # fmt: skip
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    failed = {point for point, each in found.items() if each["result"] == "failed"}
    assert {"supervision", "last-words", "time-outs", "recovery-drill"} <= failed
    assert "SO_RCVTIMEO" in found["time-outs"]["says"]
    assert all(found[point]["try"] for point in failed)
    assert (status, whole.returncode) == (10, 10)
    assert "FAILED  supervision: nobody starts it again" in whole.stdout
    assert max(map(len, whole.stdout.splitlines())) <= 80
