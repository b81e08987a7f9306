"""From a death to the moment when its agent is back and found well, the agent's own start taken off.

Each agent faults (SIGSEGV) and is brought back by the real thing: a service manager, supervisord, `agentscope run`, dockerd, a command.
A death counts from the kernel's own time of it, and the end is the time of the outcome of validation, both as the ledger has them. The
agent's own start is what it stamps itself: from its exec until it begins to work. What its owner needs besides (a fork, a container) is
ours to bear; it is measured beside, as the time that the same owner takes for the same start when nobody watches.
"""

# ruff: noqa: D102 - what an owner does otherwise is said where it is said for all

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.bench.measure import Row, percentile
from tests.bench.observers import AGENTSCOPE, now_ns
from tests.bench.stage import Stage, wait_until

LIVE = Path(__file__).resolve().parents[2] / "live"
sys.path.insert(0, str(LIVE))  # the stages of owners are those of the tests

from drift.places import Unplayable  # noqa: E402
from owners import PYTHON, WORKER, Docker, Session, Supervisord  # noqa: E402

TIMES = 20
BUDGET_MS = 1000.0
LONGEST_S = 30.0
TABLE = """
[agent.victim]
match = {{ command = "{match}" }}
{health}
[agent.victim.recovery]
{restart}
validate = "10s"
probation = "0s"
backoff = "0s"
limit = {{ restarts = 1000, within = "10m", per-cause = 1000 }}
"""


class Agent:
    """One agent with its own owner, in a folder of its own. The lines of `stamps` and `ready` are its starts, in their order."""

    match = str(WORKER)
    restart = ""
    front: tuple[str, ...] = ()
    health = ""

    def __init__(self, stage: Stage, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o700)
        self.folder = folder
        self.stage = stage
        self.state = folder / "state"
        self.watcher: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What is started: its exec is stamped, and it stamps that it works."""
        stamped = [self.stage.program("stamp"), f"{self.folder}/stamps", str(PYTHON.resolve()), "-I", "-S"]
        return [*stamped, str(WORKER), f"{self.folder}/starts", f"ready={self.folder}/ready"]

    def begin(self) -> None:
        """Its first start."""
        raise NotImplementedError

    def again(self) -> None:
        """Another start by its owner after an end, when nobody watches."""
        self.begin()

    def pid(self) -> int:
        """Its process, here outside."""
        return int((self.folder / "starts").read_text().split()[-1])

    def numbers(self, name: str) -> list[int]:
        """The last number of each line of a file."""
        path = self.folder / name
        return [int(line.split()[-1]) for line in path.read_text().splitlines()] if path.exists() else []

    def works(self, count: int) -> bool:
        """Whether it has begun to work so often."""
        return wait_until(lambda: len(self.numbers("ready")) >= count, LONGEST_S)

    def own_ms(self) -> list[float]:
        """From exec to work, of each start."""
        stamps, ready = self.numbers("stamps"), self.numbers("ready")
        return [(worked - begun) / 1e6 for begun, worked in zip(stamps, ready, strict=False)]

    def end(self) -> None:
        """It faults, and is gone."""
        pid = self.pid()
        os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), LONGEST_S)

    def alone_ms(self, times: int) -> list[float]:
        """What its owner needs until the agent's exec, when nobody watches."""
        spent = []
        for _ in range(times):
            count = len(self.numbers("ready"))
            if count:
                self.end()
            begun_ns = now_ns()
            self.again() if count else self.begin()
            if not self.works(count + 1):
                raise Unplayable("it did not start")
            spent.append((self.numbers("stamps")[-1] - begun_ns) / 1e6)
        return spent

    def watch(self) -> None:
        """Begin to watch it."""
        config = self.folder / "agentscope.toml"
        config.write_text(TABLE.format(match=self.match, restart=self.restart, health=self.health))
        config.chmod(0o600)
        with (self.folder / "stream").open("wb") as stream:
            self.watcher = subprocess.Popen(
                [*self.front, str(AGENTSCOPE), "events", "--config", str(config), "--state-dir", str(self.state)],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(lambda: b"agentscope.agent.seen" in (self.folder / "stream").read_bytes(), LONGEST_S)
        time.sleep(1)

    def story(self) -> list[dict[str, object]]:
        """What the ledger tells."""
        found = []
        for path in sorted((self.state / "ledger").glob("chain-*.ndjson")):
            found += [json.loads(line) for line in path.read_text().splitlines()]
        return found

    def recover(self, count: int) -> list[dict[str, object]]:
        """The lines of the next incident, once it is closed."""
        os.kill(self.pid(), signal.SIGUSR2)
        closed = "agentscope.incident.closed"
        if not wait_until(lambda: sum(line["type"] == closed for line in self.story()) > count, LONGEST_S):
            raise Unplayable(f"an incident was not closed: {self.story()[-1:]}")
        lines = self.story()
        incident = lines[-1]["data"]["incident"]  # type: ignore[index]
        return [line["data"] for line in lines if line["data"]["incident"] == incident]  # type: ignore[index, misc]

    def close(self) -> None:
        """End agentscope, then the agent."""
        if self.watcher is not None:
            self.watcher.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.watcher.wait(15)
            self.watcher.kill()
        with suppress(OSError, ValueError, IndexError):
            os.kill(self.pid(), signal.SIGKILL)


class ByCommand(Agent):
    """Started by the config's own command, which leaves it in a session of its own."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        super().__init__(stage, folder)
        self.script = folder / "start.sh"
        self.script.write_text(f"#!/bin/sh\nsetsid {' '.join(self.command())} </dev/null >>{folder}/out 2>&1 &\n")
        self.script.chmod(0o700)
        self.restart = f'restart = ["{self.script}"]'
        self.match = f"{WORKER} {folder}/starts"

    def begin(self) -> None:
        subprocess.run([str(self.script)], check=True)


class ByCommandWithHealth(ByCommand):
    """The same with a health check, which tells that it works before "alive and past its start" could."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        from recovering import free_port

        self.port = free_port()
        super().__init__(stage, folder)
        self.health = f'health = {{ url = "tcp:127.0.0.1:{self.port}", timeout = "300ms", interval = "500ms" }}'

    def command(self) -> list[str]:
        return [*super().command(), f"port={self.port}"]


class BySystemd(Agent):
    """The main process of a unit with Restart=no."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        super().__init__(stage, folder)
        unit = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={' '.join(self.command())}\nMemoryMax=64M\n"
        self.session = Session(folder, {"victim.service": unit})
        self.front = self.session.front
        self.match = f"{WORKER} {folder}/starts"

    def begin(self) -> None:
        self.session.control("start", "victim.service")

    def close(self) -> None:
        super().close()
        self.session.close()


class BySupervisord(Agent):
    """A program with autorestart=false."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        super().__init__(stage, folder)
        self.supervisord = Supervisord(folder, ("victim", "autorestart=false", self.command()))
        self.match = f"{WORKER} {folder}/starts"

    def begin(self) -> None:
        self.supervisord.control("start", "victim")

    def close(self) -> None:
        super().close()
        self.supervisord.close()


class ByDocker(Agent):
    """The main process of a container without a restart policy."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        super().__init__(stage, folder)
        self.docker = Docker(folder)
        source = Path(__file__).resolve().parents[1] / "programs" / "stamp.c"
        subprocess.run(["gcc", "-O2", "-static", "-o", f"{folder}/starts/stamp", str(source)], check=True)
        self.match = "/place/worker.py /starts/victim"

    def begin(self) -> None:
        self.docker.start(
            "victim",
            "--security-opt=seccomp=unconfined",
            words=("ready=/starts/ready",),
            before=("/starts/stamp", "/starts/stamps"),
        )

    def again(self) -> None:
        self.docker.run("start", "victim")

    def pid(self) -> int:
        return self.docker.pid("victim")

    def numbers(self, name: str) -> list[int]:
        path = self.folder / "starts" / name
        return [int(line.split()[-1]) for line in path.read_text().splitlines()] if path.exists() else []

    def close(self) -> None:
        super().close()
        self.docker.close()


class ByRun(Agent):
    """The child of `agentscope run`: its parent both watches and starts it."""

    def watch(self) -> None:
        config = self.folder / "agentscope.toml"
        config.write_text(TABLE.format(match="worker", restart="", health=""))
        config.chmod(0o600)
        run = [str(AGENTSCOPE), "run", "--config", str(config), "--state-dir", str(self.state), "--", *self.command()]
        with (self.folder / "stream").open("wb") as stream:
            self.watcher = subprocess.Popen(run, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        if not self.works(1):
            raise Unplayable("it did not start")
        time.sleep(1.5)

    def alone_ms(self, times: int) -> list[float]:
        """Nobody but us starts such a child: a plain start of the same command is beside it."""
        spent = []
        for _ in range(times):
            begun_ns = now_ns()
            child = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL)
            count = len(self.numbers("ready"))
            self.works(count + 1)
            spent.append((self.numbers("stamps")[-1] - begun_ns) / 1e6)
            child.kill()
            child.wait()
        for name in ("stamps", "ready", "starts"):
            (self.folder / name).unlink(missing_ok=True)
        return spent

    def close(self) -> None:
        if self.watcher is not None:
            self.watcher.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.watcher.wait(15)
            self.watcher.kill()


OWNERS: dict[str, Callable[[Stage, Path], Agent]] = {
    "systemd": BySystemd,
    "supervisord": BySupervisord,
    "agentscope run": ByRun,
    "docker": ByDocker,
    "a command": ByCommand,
    "a command, with a health check": ByCommandWithHealth,
}


def rows(stage: Stage) -> Iterator[Row]:
    """One row an owner."""
    for name, make in OWNERS.items():
        agent = None
        try:
            agent = make(stage, stage.folder / f"recovering-{len(name)}-{name.split()[-1]}")
            yield measured(stage, name, agent)
        except Unplayable as why:
            yield Row(f"death to validated, {name}", "not measured", note=str(why))
        finally:
            if agent is not None:
                agent.close()


def measured(stage: Stage, name: str, agent: Agent) -> Row:
    """Let it die again and again."""
    alone = agent.alone_ms(stage.times(TIMES) // 2)
    before = len(agent.own_ms()) - 1
    agent.watch()
    whole, phases = [], []
    for count in range(stage.times(TIMES)):
        lines = agent.recover(count)
        opened, validated = lines[0], next(line for line in lines if line.get("remedy") == "validate")
        acted = next(line for line in lines if line.get("remedy") == "restart" and "took_ms" in line)
        if validated["outcome"] != "done":
            raise Unplayable(f"it was not found well: {validated['says']}")
        whole.append((validated["at_ns"] - opened["at_ns"]) / 1e6)
        phases.append((opened["detected_in_ms"], acted["took_ms"], validated["took_ms"]))
        time.sleep(0.3)
    own = agent.own_ms()[before + 1 :][-len(whole) :] if not isinstance(agent, ByRun) else agent.own_ms()[1:]
    taken_off = [spent - start for spent, start in zip(whole, own, strict=True)]
    medians = [statistics.median(each) for each in zip(*phases, strict=True)]
    told, acted_ms, looked = medians
    note = (
        f"whole p50 {statistics.median(whole):.0f}, p95 {percentile(whole, 95):.0f}; own start p50 {statistics.median(own):.0f}; "
        f"of it: told {told:.0f}, acted {acted_ms:.0f}, looked {looked:.0f}, the rest (intent, disk) {statistics.median(whole) - sum(medians):.0f} ms"
    )
    figures = f"{statistics.median(taken_off):.0f} / {percentile(taken_off, 95):.0f} ms"
    return Row(
        f"death to validated, {name}: p50 / p95 of {len(whole)}", figures, f"{BUDGET_MS:.0f} ms",
        percentile(taken_off, 95) <= BUDGET_MS, {"the same start by its owner alone": f"{statistics.median(alone):.0f} ms"}, note,
    )  # fmt: skip
