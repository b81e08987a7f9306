"""Runs in a guest with a real systemd as PID 1: units that end in different ways under one `agentscope events`.

`units_guest.py OUT` leaves the stream, what systemd said of each unit, and who died in the given folder. All is slow here, so no
time is checked.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "live"))

import zoo

UNITS = Path("/run/systemd/system")
LONGEST_S = 90.0
PROGRAM = """
import os, signal, sys, time
def grow(*_):
    held = []
    while True:
        held.append(bytearray(b"x" * (1 << 20)))
def grow_below(*_):
    if os.fork() == 0:
        grow()
signal.alarm(120)
signal.signal(signal.SIGUSR1, grow)
signal.signal(signal.SIGUSR2, grow_below)
while True:
    time.sleep(0.2)
"""
UNIT = "[Service]\nExecStart=/usr/bin/python3 {program}\nMemoryMax=48M\nTimeoutStopSec=20\n"
NAMES = ("limit", "tool", "killed", "stopped", "again")
CONFIG = """
[agent.{name}]
match = {{ unit = "{name}.service" }}
"""
RECOVERY = """
[agent.again.recovery]
restart = ["systemctl", "restart", "again.service"]
validate = "5s"
probation = "1s"
"""


def control(*words: str) -> str:
    """What systemctl says."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False, timeout=LONGEST_S).stdout


class Watching:
    """The one agentscope, by a config of all units."""

    def __init__(self, out: Path) -> None:
        config = out / "agentscope.toml"
        config.write_text("".join(CONFIG.format(name=name) for name in NAMES) + RECOVERY)
        config.chmod(0o600)
        options = ("--engine", "core", "--config", str(config), "--for", "1200", "--state-dir", "/run/table-state")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentscope", "events", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(out / "stderr").open("wb"),
        )
        assert self.process.stdout is not None
        self.said = zoo.Lines(zoo.reader(self.process.stdout.fileno()))

    def wait_for(self, kind: str, pid: int | None = None) -> bool:
        """Whether such a line, about this agent, comes in time."""

        def wanted(line: str) -> bool:
            if f'"{kind}"' not in line:
                return False
            event = json.loads(line)
            return event["type"] == kind and (pid is None or event["data"]["agent"]["pid"] == pid)

        return self.said.wait_for(wanted, LONGEST_S) is not None


def started(name: str, watching: Watching) -> int:
    """Start a unit; the pid of its main process, once it is watched."""
    control("start", f"{name}.service")
    pid = int(control("show", "-P", "MainPID", f"{name}.service"))
    watching.wait_for("agentscope.agent.seen", pid)
    time.sleep(3)  # until it has its handlers
    return pid


def main() -> None:
    """Play all and write down what was said."""
    out = Path(sys.argv[1])
    program = out / "program.py"
    program.write_text(PROGRAM)
    for name in NAMES:
        (UNITS / f"{name}.service").write_text(UNIT.format(program=program))
    control("daemon-reload")
    watching = Watching(out)
    watching.wait_for("agentscope.ready")
    found: dict[str, dict[str, str | int]] = {}
    for name, act in zip(NAMES, ("-USR1", "-USR2", "-KILL", "", "-USR1"), strict=True):
        pid = started(name, watching)
        if act:
            subprocess.run(["bash", "-c", f"kill {act} {pid}; exit 0"], check=True, timeout=LONGEST_S)
        else:
            control("stop", f"{name}.service")
        watching.wait_for("agentscope.agent.gone", pid)
        if name == "again":
            watching.wait_for("agentscope.incident.closed", pid)
        time.sleep(2)
        shown = dict(
            line.split("=", 1)
            for line in control("show", "-p", "Result,ActiveState,MainPID,ExecMainStatus", f"{name}.service").splitlines()
        )
        found[name] = {"pid": pid, **shown}
        (out / "found.json").write_text(json.dumps(found))
        print(name, found[name], flush=True)
    watching.process.send_signal(2)
    status = watching.process.wait(LONGEST_S)
    (out / "stream.ndjson").write_text("\n".join(watching.said.lines))
    (out / "status.json").write_text(json.dumps(status))
    for name in NAMES:
        control("kill", "-s", "KILL", f"{name}.service")


if __name__ == "__main__":
    main()
