"""Stages a recovery: a real service, a config with a recovery table, and agentscope that watches it and may be killed at any moment."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo import AGENTSCOPE, Lines, reader

SERVICE = Path(__file__).resolve().parent / "service.py"
KILLED_AT = SERVICE.with_name("killed_at.py")
LONGEST_S = 30.0


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Watched:
    """A config and a state directory in a folder, and the agentscopes that watch by them. `front` is put before their commands."""

    def __init__(self, folder: Path, table: str, front: Sequence[str] = ()) -> None:
        folder.chmod(0o700)
        self.folder = folder
        self.state = folder / "state"
        self.front = front
        self.config = folder / "agentscope.toml"
        self.config.write_text(table)
        self.config.chmod(0o600)
        self.watchers: list[subprocess.Popen[bytes]] = []

    def watch(self, *more: str, killed_at: int | None = None) -> "Stream":
        """Watch it; comes back when agentscope is ready. `killed_at`: it is killed at this moment of a recovery."""
        program = [AGENTSCOPE] if killed_at is None else [sys.executable, KILLED_AT, str(killed_at)]
        process = subprocess.Popen(
            [*self.front, *program, "events", "--config", self.config, "--state-dir", self.state, "--for", "50", *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.watchers.append(process)
        stream = Stream(process)
        stream.wait("agentscope.ready")
        return stream

    def ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """One of agentscope's own commands about this state directory."""
        command = [AGENTSCOPE, *words, "--state-dir", self.state]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    def ledger(self) -> list[dict]:
        """Every line of the ledger."""
        lines = [line for path in sorted((self.state / "ledger").glob("*.ndjson")) for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    def kept(self, kind: str) -> list[dict]:
        """The data of the ledger's lines of one type."""
        return [line["data"] for line in self.ledger() if line["type"] == f"agentscope.{kind}"]

    def close(self) -> None:
        """End every watcher."""
        for watcher in self.watchers:
            with contextlib.suppress(ProcessLookupError):
                watcher.kill()
            watcher.wait(10)


class Stage(Watched):
    """One service and its config in a folder of its own."""

    def __init__(self, folder: Path, recovery: str, *, health: bool = True, slow_s: float = 0.0) -> None:
        self.port = free_port()
        self.program = folder / f"service-{self.port}.py"  # a name that nobody else has
        self.program.write_text(SERVICE.read_text())
        self.script = folder / "start.sh"
        words = f"sleep {slow_s}\nsetsid {sys.executable} {self.program} {folder} {self.port} </dev/null >>{folder}/out 2>&1 &"
        self.script.write_text(f"#!/bin/sh\necho $$ >>{folder}/acts\n{words}\n")
        self.script.chmod(0o700)
        table = f'{{ url = "http://127.0.0.1:{self.port}/health", timeout = "300ms", interval = "200ms" }}'
        check = f"health = {table}\n" if health else ""
        super().__init__(
            folder,
            f'[agent.victim]\nmatch = {{ command = "^[^ ]*python[^ ]* {self.program}" }}\n{check}'
            f'[agent.victim.recovery]\nrestart = ["{self.script}"]\n{recovery}\n',
        )
        self.first: subprocess.Popen[bytes] | None = None

    # --- the service ------------------------------------------------------------------------------------------------------

    def start(self) -> int:
        """Its first life, started by us. Returns its pid once it is ready."""
        out = (self.folder / "out").open("ab")
        self.first = subprocess.Popen(
            [sys.executable, self.program, self.folder, str(self.port)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        out.close()
        wait_for(lambda: self.lines("ready"))
        return self.first.pid

    def request(self, path: str) -> bytes:
        """One request."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            return client.recv(100)
        return b""

    def lines(self, name: str) -> list[list[int]]:
        """Lines of numbers in a file of the folder."""
        path = self.folder / name
        return [[int(word) for word in line.split()] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def lives(self) -> int:
        """How often it was started."""
        return len(self.lines("lives"))

    @property
    def acts(self) -> int:
        """How often the restart command was run."""
        return len(self.lines("acts"))

    def living(self) -> list[int]:
        """Its instances that are there now."""
        found = []
        for pid in (line[0] for line in self.lines("lives")):
            with contextlib.suppress(OSError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(pid)
        return found

    def close(self) -> None:
        """End everything."""
        super().close()
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.first is not None:
            self.first.kill()
            self.first.wait(10)


class Stream:
    """The stream of one agentscope."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.out = Lines(reader(process.stdout.fileno()))
        self.err = Lines(reader(process.stderr.fileno()))

    def events(self, kind: str, **fields: object) -> list[dict]:
        """The events of a type, whole, whose data have these fields."""
        found = (json.loads(line) for line in list(self.out.lines) if f'"{kind}"' in line)
        return [
            event
            for event in found
            if event["type"] == kind and all(event["data"].get(name) == value for name, value in fields.items())
        ]

    def wait(self, kind: str, timeout_s: float = LONGEST_S, **fields: object) -> dict:
        """The first such event."""
        found = wait_for(lambda: self.events(kind, **fields) or self.out.ended, timeout_s)
        if not self.events(kind, **fields):
            raise AssertionError(f"no {kind} {fields} ({found}): {self.tail()}")
        return self.events(kind, **fields)[0]

    def closed(self, timeout_s: float = LONGEST_S) -> dict:
        """How the first incident that is not part of another was closed."""
        wait_for(lambda: self.whole_closed() or self.out.ended, timeout_s)
        assert self.whole_closed(), self.tail()
        return self.whole_closed()[0]["data"]

    def whole_closed(self) -> list[dict]:
        """The ends of incidents that are not part of others."""
        closed = self.events("agentscope.incident.closed")
        return [each for each in closed if not each["data"]["outcome"].startswith("part of")]

    def tail(self) -> str:
        """The last that it said, for whoever reads a failure."""
        said = [line[:1500] for line in self.out.lines if "agentscope.pulse" not in line]
        return "\n".join([*said[-12:], *self.err.lines[-5:]])

    def kill(self) -> None:
        """Kill it as nothing can prevent."""
        self.process.kill()
        self.process.wait(10)
        self.out.thread.join(5)


def wait_for(wanted: Callable[[], object], timeout_s: float = LONGEST_S, every_s: float = 0.01) -> object:
    """What `wanted` says once it is true; the last it said when time is over."""
    deadline = time.monotonic() + timeout_s
    while not (found := wanted()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return found
