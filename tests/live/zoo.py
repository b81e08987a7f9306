"""Plays a scenario: a victim in its own memory cgroup, what is done to it from outside, and agentscope watching."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
from cage import Cage
from scenario import BUILD, REPOSITORY, TOOL_PATH, Ending, Scenario, fill_all

AGENTSCOPE = Path(os.environ.get("ZOO_AGENTSCOPE") or Path(sys.executable).parent / "agentscope")
SCHEMA = REPOSITORY / "agentscope" / "stream.schema.json"
READY_S = 15.0
LONGEST_S = 25.0  # every victim ends itself after 20 s
GONE_S = 5.0
GRACE_S = 0.6  # an incident that must not come gets this long to come
LAUNCH = 'ulimit -c 0; for g in $ZOO_GROUPS; do echo 0 >"$g/cgroup.procs" || exit 125; done; unset ZOO_GROUPS; exec env --default-signal "$@"'
INCIDENT = "agentscope.incident.opened"


class Broken(AssertionError):
    """The zoo itself could not play a scenario."""


def compiled(scenario: Scenario) -> None:
    """Compile what the scenario needs, once for each text of its sources and commands."""
    scenario.build.mkdir(parents=True, exist_ok=True)
    stamp = scenario.build / "stamp"
    sources = sorted(path for path in scenario.folder.iterdir() if path.suffix in {".c", ".go", ".rs", ".java"})
    text = repr(scenario.run.compile) + "".join(source.read_text() for source in sources)
    if stamp.exists() and stamp.read_text() == text:
        return
    for command in scenario.run.compile:
        argv = fill_all(command, scenario.names())
        env = {**os.environ, "PATH": TOOL_PATH, "GOCACHE": str(BUILD / "go-cache"), "GO111MODULE": "off"}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180, env=env, cwd=scenario.build)
        if done.returncode != 0:
            raise Broken(f"{scenario.slug}: {argv} failed: {done.stderr[-2000:]}")
    stamp.write_text(text)


# --- lines --------------------------------------------------------------------------------------------------------------


class Lines:
    """The lines of a stream, read by a thread so that nobody is ever blocked by us."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.lines: list[str] = []
        self.ended = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._follow, args=(read,), daemon=True)
        self.thread.start()

    def _follow(self, read: Callable[[], bytes]) -> None:
        rest = b""
        while chunk := read():
            *whole, rest = (rest + chunk).split(b"\n")
            with self.changed:
                self.lines.extend(line.decode(errors="replace").rstrip("\r") for line in whole)
                self.changed.notify_all()
        with self.changed:
            self.lines.extend([rest.decode(errors="replace")] if rest else [])
            self.ended = True
            self.changed.notify_all()

    def wait_for(self, wanted: Callable[[str], bool], timeout_s: float) -> str | None:
        """The first line that is wanted, or None when time or the stream is over."""

        def found() -> str | None:
            return next((line for line in self.lines if wanted(line)), None)

        with self.changed:
            self.changed.wait_for(lambda: found() is not None or self.ended, timeout_s)
            return found()


def reader(descriptor: int) -> Callable[[], bytes]:
    """Read from a descriptor; a terminal that nobody holds any more is at its end."""

    def read() -> bytes:
        try:
            return os.read(descriptor, 65536)
        except OSError:
            return b""

    return read


# --- the victim -----------------------------------------------------------------------------------------------------------


class Victim:
    """A running scenario. `watched` is the pid to watch, `pid` the process that said ready (the same unless it is wrapped)."""

    def __init__(self, scenario: Scenario, folder: Path, front: tuple[str, ...] = ()) -> None:
        self.scenario = scenario
        self.front = front  # what it is started by, once it is in its cage
        folder.mkdir(parents=True, exist_ok=True)
        compiled(scenario)
        self.cage = Cage(scenario.run.memory_mib, nested=scenario.run.nested)
        self.closing: list[Callable[[], None]] = [self.cage.close]
        self.terminal: int | None = None
        self.sinks: list[Lines] = []
        try:
            self._start(folder)
        except BaseException:
            self.close()
            raise

    def _start(self, folder: Path) -> None:
        run, names = self.scenario.run, self.scenario.names(cgroup=str(self.cage.memory), unified=str(self.cage.unified))
        argv = fill_all(run.argv, names)
        env = {"PATH": TOOL_PATH, "HOME": str(folder), "LANG": "C.UTF-8", "ZOO_GROUPS": " ".join(map(str, self.cage.joined))}
        env |= dict(zip(run.env, fill_all(tuple(run.env.values()), names), strict=True))
        stdin, stdout, stderr, ours = self._descriptors(folder)
        front = [*self.front, *(["setsid", "--ctty"] if run.terminal else [])]
        self.process = subprocess.Popen(
            ["sh", "-c", LAUNCH, "sh", *front, *argv], stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=folder
        )
        for descriptor in ours:
            os.close(descriptor)
        said = self._said()
        if self.process.stderr is not None:
            self.sinks.append(Lines(reader(self.process.stderr.fileno())))
        line = said.wait_for(lambda text: text.split(" ")[0] == "ready", READY_S)
        if line is None:
            raise Broken(f"{self.scenario.slug}: never said ready: {said.lines} {[sink.lines for sink in self.sinks]}")
        self.said = said
        self.pid = int(line.split(" ")[1]) if " " in line else self.process.pid
        self.watched = self.pid if run.watch == "said" else self.process.pid
        self.names = self.scenario.names(cgroup=str(self.cage.memory), unified=str(self.cage.unified), pid=str(self.pid))

    def _descriptors(self, folder: Path) -> tuple[int, int, int, list[int]]:
        """Descriptors 0, 1, 2 for the victim, and those that we must close once it has them."""
        kind = self.scenario.run.stderr
        if self.scenario.run.terminal:
            master, slave = pty.openpty()
            self.terminal = master
            return slave, slave, slave, [slave]
        if kind == "pty":
            master, slave = pty.openpty()
            self.sinks.append(Lines(reader(master)))
            self.closing.append(lambda: os.close(master))
            return subprocess.PIPE, subprocess.PIPE, slave, [slave]
        if kind == "file":
            opened = os.open(folder / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if self.front:
                os.fchmod(opened, 0o644)  # it belongs to another user than the log's owner, and reads it as if it were its own
            return subprocess.PIPE, subprocess.PIPE, opened, [opened]
        return subprocess.PIPE, subprocess.PIPE, subprocess.DEVNULL if kind == "null" else subprocess.PIPE, []

    def _said(self) -> Lines:
        if self.terminal is not None:
            return Lines(reader(self.terminal))
        assert self.process.stdout is not None
        return Lines(reader(self.process.stdout.fileno()))

    def trigger(self) -> None:
        """Do to it what the scenario says, step by step."""
        for step in self.scenario.outside:
            if isinstance(step, tuple):
                subprocess.run(
                    fill_all(step, self.names),
                    check=False,
                    timeout=LONGEST_S,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"PATH": TOOL_PATH, "LANG": "C.UTF-8"},
                )
            elif step == "hang-up":
                assert self.terminal is not None
                self._hang_up()
            else:
                self._write(b"\x03" if step == "ctrl-c" else b"\n")

    def _hang_up(self) -> None:
        """Close the terminal's other end; a reader that holds it open in read() would keep it alive, so make it return first."""
        assert self.terminal is not None
        os.set_blocking(self.terminal, False)
        os.write(self.terminal, b"\n")
        terminal, self.terminal = self.terminal, None
        self.said.thread.join(2)
        os.close(terminal)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):
            if self.terminal is not None:
                os.write(self.terminal, text)
            elif self.process.stdin is not None:
                self.process.stdin.write(text)
                self.process.stdin.flush()

    def wait(self) -> Ending:
        """How it ended, as waitpid tells it."""
        try:
            code = self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.scenario.slug}: did not end within {LONGEST_S} s") from None
        return Ending(code=code) if code >= 0 else Ending(signal=signal.Signals(-code).name)

    def mirrored(self) -> Ending | None:
        """How the process inside ended, where the started one waited for it and said `status N` (a raw wait status)."""
        line = self.said.wait_for(lambda text: text.startswith("status "), 0.2)
        if line is None:
            return None
        code = os.waitstatus_to_exitcode(int(line.split()[1]))
        return Ending(code=code) if code >= 0 else Ending(signal=signal.Signals(-code).name)

    def close(self) -> None:
        """End what is left and free everything."""
        process = getattr(self, "process", None)
        for close in self.closing:
            close()
        if process is not None:
            process.kill()
            process.wait(5)
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
        if self.terminal is not None:
            os.close(self.terminal)


@contextlib.contextmanager
def victim(scenario: Scenario, folder: Path, front: tuple[str, ...] = ()) -> Iterator[Victim]:
    """A victim that is ready and will be gone afterwards."""
    started = Victim(scenario, folder, front)
    try:
        yield started
    finally:
        started.close()


def unwatched_end(scenario: Scenario, folder: Path) -> tuple[Ending, Ending | None]:
    """How the scenario really ends, with nobody watching: what waitpid tells, and what the started process says of the inner one."""
    with victim(scenario, folder) as running:
        running.trigger()
        return running.wait(), running.mirrored()


# --- agentscope -------------------------------------------------------------------------------------------------------------


class Watcher:
    """One `agentscope events` and what it has said so far."""

    def __init__(self, pids: list[int], folder: Path, *options: str, front: tuple[str, ...] = ()) -> None:
        argv: list[str] = [*front, str(AGENTSCOPE), "events", *options]
        for pid in pids:
            argv += ["--pid", str(pid)]
        self.errors: IO[bytes] = (folder / "agentscope.stderr").open("w+b")
        self.process = subprocess.Popen(
            [*argv, "--for", "90", "--state-dir", str(folder / "state")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        assert self.process.stdout is not None
        self.said = Lines(reader(self.process.stdout.fileno()))

    def wait_for(self, kind: str, pid: int | None, timeout_s: float) -> bool:
        """Wait for a line of this type, about this agent where one is given."""

        def wanted(line: str) -> bool:
            if f'"{kind}"' not in line:
                return False
            event = json.loads(line)
            return event["type"] == kind and (pid is None or event["data"]["agent"]["pid"] == pid)

        return self.said.wait_for(wanted, timeout_s) is not None

    def attach(self, pids: list[int]) -> None:
        """Wait until nothing can be missed any more."""
        if not self.wait_for("agentscope.ready", None, 20) or not all(
            self.wait_for("agentscope.agent.seen", pid, 5) for pid in pids
        ):
            status = self.stop()
            raise Broken(f"agentscope was not ready (exit {status}): {self.said.lines[:5]} {self.stderr()}")

    def stderr(self) -> str:
        """The end of what agentscope said on stderr."""
        self.errors.seek(0)
        return self.errors.read()[-3000:].decode(errors="replace")

    def stop(self) -> int:
        """Ask it to stop, as a person would with Ctrl-C; its exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait(5)
        self.said.thread.join(5)
        return status


class Outcome(msgspec.Struct, frozen=True):
    """One run under agentscope: how the victim ended, every line, agentscope's own end, and who was watched."""

    ended: Ending
    mirrored: Ending | None
    lines: tuple[str, ...]
    events: tuple[dict[str, Any], ...]
    status: int
    stderr: str
    watched: int
    pid: int
    folder: Path

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The contents of all lines of one type."""
        return [event["data"] for event in self.events if event["type"] == kind]


def parsed(line: str) -> dict[str, Any]:
    """One line of the stream; what is no JSON object is kept as a line of type None, for the checks to find."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and isinstance(event.get("data"), dict) else {"type": None, "data": {}, "raw": line}


def watched_run(
    scenario: Scenario, folder: Path, *options: str, front: tuple[str, ...] = (), of_victim: tuple[str, ...] = ()
) -> Outcome:
    """Play the scenario with agentscope attached; `front` starts agentscope with these options, `of_victim` the victim."""
    with victim(scenario, folder, of_victim) as running:
        watcher = Watcher([running.watched], folder, *options, front=front)
        try:
            watcher.attach([running.watched])
            running.trigger()
            ended = running.wait()
            mirrored = running.mirrored()
            watcher.wait_for("agentscope.agent.gone", running.watched, GONE_S)
            time.sleep(GRACE_S)
        finally:
            status = watcher.stop()
        lines = tuple(watcher.said.lines)
        outcome = Outcome(
            ended, mirrored, lines, tuple(map(parsed, lines)), status, watcher.stderr(), running.watched, running.pid, folder
        )
        watcher.errors.close()
        return outcome
