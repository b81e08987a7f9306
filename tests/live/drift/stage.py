"""Plays a scene: the agent runs, what it stands on is changed, it works or breaks, and agentscope says what it makes of it."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cage import Cage
from scenario import TOOL_PATH, Ending
from zoo import GONE_S, GRACE_S, LAUNCH, LONGEST_S, Broken, Lines, Outcome, Watcher, parsed, reader

from drift.case import Flow, Scene
from drift.places import Place

BASELINE_S = 10.0


class Run:
    """One run of the agent in its place, in a memory cgroup of its own."""

    def __init__(self, place: Place, argv: Sequence[str], folder: Path, stderr: str) -> None:
        self.cage = Cage(300, nested=False)
        self.log = folder / "stderr.log"
        enter = (*place.inside, "sh", "-c", 'cd "$0" && exec "$@"', str(place.folder)) if place.inside else ()
        env = {
            "PATH": TOOL_PATH,
            "HOME": str(place.folder),
            "LANG": "C.UTF-8",
            "ZOO_GROUPS": " ".join(map(str, self.cage.joined)),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", LAUNCH, "sh", *enter, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log if stderr == "file" else subprocess.PIPE,
                env=env,
                cwd=place.outside if not place.inside else "/",
            )
        assert self.process.stdout is not None
        self.said = Lines(reader(self.process.stdout.fileno()))
        self.complaints = Lines(reader(self.process.stderr.fileno())) if self.process.stderr is not None else None
        self.pid = self.process.pid

    def ready(self) -> bool:
        """Whether it came to be ready; False where it ended first."""
        return self.said.wait_for(lambda line: line == "ready", 20) is not None

    def tell(self, word: str) -> None:
        """Write a line to it."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(f"{word}\n".encode())
            self.process.stdin.flush()

    def wait(self) -> Ending:
        """How it ended."""
        try:
            code = self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            raise Broken(f"it did not end within {LONGEST_S} s; it said {self.said.lines}") from None
        return Ending(code=code) if code >= 0 else Ending(signal=signal.Signals(-code).name)

    def stderr(self) -> str:
        """What it wrote on stderr."""
        if self.complaints is not None:
            self.complaints.thread.join(2)
            return "\n".join(self.complaints.lines)
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        """End what is left of it."""
        self.cage.close()
        self.process.kill()
        self.process.wait(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Played(NamedTuple):
    """A scenario that was played: how it ended, what it wrote, when the change was made (wall time, ns), and what was said."""

    ended: Ending
    stderr: str
    changed_ns: tuple[int, int]
    outcome: Outcome


class Stage:
    """Plays one scene; what agentscope said is that of its last run."""

    def __init__(self, place: Place, folder: Path, stderr: str) -> None:
        self.place, self.folder, self.stderr = place, folder, stderr
        self.state = folder / "state"
        self.watcher: Watcher | None = None
        self.lines: list[str] = []
        self.status = 0
        self.errors = ""
        folder.mkdir(parents=True, exist_ok=True)

    def watch(self) -> None:
        """Start agentscope, and wait until nothing can be missed."""
        name = f"^{self.place.agent}(\\.|$)"
        which = ("--name", name)
        if self.place.lockfile is not None:
            config = self.folder / "agentscope.toml"
            config.write_text(f"[agent.locked]\nmatch = {{ name = '{name}' }}\nlockfile = '{self.place.lockfile}'\n")
            config.chmod(0o600)
            which = ("--config", str(config))
        self.watcher = Watcher([], self.folder, *which)
        self.watcher.attach([])

    def unwatch(self) -> None:
        """Stop agentscope and keep what it said."""
        if self.watcher is not None:
            self.status = self.status or self.watcher.stop()
            self.lines = self.watcher.said.lines
            self.errors += self.watcher.stderr()
            self.watcher.errors.close()
            self.watcher = None

    def start(self, argv: Sequence[str]) -> Run:
        """Start the agent."""
        return Run(self.place, argv, self.folder, self.stderr)

    def healthy(self, running: Run) -> None:
        """Wait until the agent works and its baseline is kept."""
        if not running.ready():
            raise Broken(f"it never was healthy: {running.wait()} {running.stderr()[-800:]}")
        if self.watcher is None:
            return
        if not self.watcher.wait_for("agentscope.agent.seen", running.pid, 5):
            raise Broken(f"the agent was not found: {self.watcher.said.lines[:5]}")
        deadline = time.monotonic() + BASELINE_S
        while not list(self.state.glob("baselines/*.json.gz")):
            if time.monotonic() > deadline:
                raise Broken(f"no baseline was kept within {BASELINE_S} s in {self.state}")
            time.sleep(0.02)

    def over(self, running: Run) -> Ending:
        """Wait for the end of a run, and until it was told."""
        ended = running.wait()
        if self.watcher is not None:
            self.watcher.wait_for("agentscope.agent.gone", running.pid, GONE_S)
        return ended


def played(scene: Scene, flow: Flow, stage: Stage) -> Played:
    """Play a scene as its flow says; see `Case`."""
    script = scene(stage.place)
    argv = next(script)
    runs: list[Run] = []
    try:
        if flow != "first":
            stage.watch()
            runs.append(stage.start(argv))
            stage.healthy(runs[-1])
        if flow in {"restart", "again"}:
            runs[-1].tell("quit")
            if (ended := stage.over(runs[-1])) != Ending(code=0):
                raise Broken(f"the healthy run ended with {ended}: {runs[-1].stderr()[-800:]}")
        if flow == "again":
            stage.unwatch()
        changed = time.time_ns()
        for _ in script:
            raise Broken("a scene yields once")
        changed_ns = (changed, time.time_ns())
        if flow in {"first", "again"}:
            stage.watch()
        if flow != "running":
            runs.append(stage.start(argv))
        running = runs[-1]
        if flow == "running" or running.ready():
            running.tell("go")
            running.tell("quit")
        ended = stage.over(running)
        if stage.watcher is not None:
            time.sleep(GRACE_S)
    finally:
        stage.unwatch()
        for each in runs:
            each.close()
    lines = tuple(stage.lines)
    outcome = Outcome(
        ended, None, lines, tuple(map(parsed, lines)), stage.status, stage.errors, running.pid, running.pid, stage.folder
    )
    return Played(ended, running.stderr(), changed_ns, outcome)
