"""Real command-line agents, killed in the middle of a tool: what the incident says that they were doing, and that they can go on."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cage import Cage
from clis import BIN, CLIS, FIRST, Cli, installed, owner, sessions_of, tree_of
from zoo import AGENTSCOPE, INCIDENT, LAUNCH, Broken, Lines, Watcher, parsed, reader

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

MODEL = Path(__file__).resolve().parent / "peers" / "tool_model.py"
COMMAND = "timeout 50 tail -f /dev/null"  # ends itself; one of them refuses a plain sleep
CALLED_S, TOLD_S, RESUMED_S = 40.0, 10.0, 40.0
MEMORY_MIB = 2048
every_cli = pytest.mark.parametrize("cli", CLIS, ids=lambda cli: cli.slug)


class Run:
    """One agent with a home, a folder and a model API of its own, waiting for a tool that it has been asked for."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli, self.home, self.log = cli, folder / "home", folder / "model.log"
        self.work = folder / "work" / "my.proj_x ü"
        self.work.mkdir(parents=True)
        self.model = subprocess.Popen(
            [sys.executable, str(MODEL), COMMAND, str(self.log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.model.stdout is not None
        line = Lines(reader(self.model.stdout.fileno())).wait_for(lambda text: text.startswith("port "), 15)
        if line is None:
            raise Broken("the model API never said its port")
        address = f"http://127.0.0.1:{line.split()[1]}"
        for name, text in cli.files.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).write_text(text.replace("{address}", address).replace("{work}", str(self.work)))
        self.home.mkdir(exist_ok=True)
        (self.home / "tmp").mkdir()  # not every machine's /tmp may be written by all
        self.who = owner()
        if self.who:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.who["user"], self.who["group"])
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        self.env["TMPDIR"] = str(self.home / "tmp")
        self.env |= {name: value.replace("{port}", line.split()[1]) for name, value in cli.env.items()}
        self.cage = Cage(MEMORY_MIB, nested=False)
        self.output = (folder / "output").open("w+b")
        self.process = self.start([str(BIN / cli.program), *cli.argv[1:]], self.work)
        self.victim, self.called_at = 0, 0.0

    def start(
        self, argv: list[str], folder: Path, stdin: int = subprocess.DEVNULL, shown: Any = None
    ) -> subprocess.Popen[bytes]:
        """Start it in its cgroups, where what it leaves behind is found; it gives up root only then."""
        drop = ["setpriv", f"--reuid={self.who['user']}", f"--regid={self.who['group']}", "--clear-groups"] if self.who else []
        return subprocess.Popen(
            ["sh", "-c", LAUNCH, "sh", *drop, *argv],
            stdin=stdin,
            stdout=self.output if shown is None else shown,
            stderr=self.output if shown is None else shown,
            env={**self.env, "ZOO_GROUPS": " ".join(map(str, self.cage.joined))},
            cwd=folder,
            start_new_session=True,
        )

    def requests(self) -> list[dict[str, Any]]:
        """What its model was asked."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def runs_tool(self) -> bool:
        """Whether the command runs somewhere below it."""
        for pid in (self.cage.memory / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "tail\n":
                    return True
        return False

    def wait_for_tool(self) -> None:
        """Until the tool runs that it was asked for."""
        until = time.monotonic() + CALLED_S
        while time.monotonic() < until:
            called = [each["at"] for each in self.requests() if each["call"]]
            if called and self.runs_tool():
                self.called_at, self.victim = called[0], tree_of(self.process.pid)[self.cli.depth]
                return
            time.sleep(0.1)
        self.output.seek(0)
        raise Broken(f"{self.cli.slug} called no tool: {self.requests()} {self.output.read()[-1500:]!r}")

    def resumed(self, resume: list[str], folder: str) -> dict[str, Any] | None:
        """Give the resume command what it needs to go on alone; the first request that has the second prompt."""
        if self.cli.instead:
            resume = [part.format(program=self.cli.program, session=resume[-1]) for part in self.cli.instead]
        argv = [str(BIN / resume[0]), *resume[1:], *self.cli.again]
        with terminal() if self.cli.terminal else contextlib.nullcontext(subprocess.DEVNULL) as end:
            started = self.start(argv, Path(folder), end, end if self.cli.terminal else None)
            try:
                until = time.monotonic() + RESUMED_S
                while time.monotonic() < until:
                    found = next((each for each in self.requests() if each["second"]), None)
                    if found is not None:
                        if not self.cli.terminal:
                            started.wait(10)
                        return found
                    time.sleep(0.1)
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGKILL)
                started.wait(5)

    def close(self) -> None:
        """End it and its model."""
        self.cage.close()
        self.process.wait(5)
        self.model.kill()
        self.model.wait(5)
        self.output.close()


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    """A terminal whose other end answers what a program asks of one: where its cursor is."""
    master, slave = pty.openpty()

    def answer() -> None:
        with contextlib.suppress(OSError):
            while said := os.read(master, 65536):
                if b"\x1b[6n" in said:
                    os.write(master, b"\x1b[1;1R")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield slave
    finally:
        os.close(slave)
        thread.join(2)
        os.close(master)


class Play:
    """All of them at once under one `agentscope events`, killed, and gone on with."""

    def __init__(self, folder: Path, clis: tuple[Cli, ...]) -> None:
        self.runs: dict[str, Run] = {}
        self.incidents: dict[str, list[dict[str, Any]]] = {}
        self.sessions: dict[str, tuple[set[str], set[str]]] = {}
        self.again: dict[str, dict[str, Any] | None] = {}
        try:
            for cli in clis:
                (folder / cli.slug).mkdir()
                self.runs[cli.slug] = Run(cli, folder / cli.slug)
            self.play(folder)
        finally:
            for run in self.runs.values():
                run.close()

    def play(self, folder: Path) -> None:
        """One after the other, as it would happen."""
        runs = list(self.runs.values())
        for run in runs:
            run.wait_for_tool()
        watcher = Watcher([run.process.pid for run in runs], folder)
        watcher.attach([run.process.pid for run in runs])
        time.sleep(2.5)  # what dies with a process is read with the pulse, once a second
        for run in runs:
            os.kill(run.victim, signal.SIGKILL)
        until = time.monotonic() + TOLD_S
        while time.monotonic() < until and not all(self.told(watcher, run) for run in runs):
            time.sleep(0.1)
        self.status, self.errors = watcher.stop(), watcher.stderr()
        self.incidents = {slug: self.told(watcher, run) for slug, run in self.runs.items()}
        before = {slug: sessions_of(run.cli, run.home) for slug, run in self.runs.items()}
        with ThreadPoolExecutor(3) as pool:
            self.again = dict(zip(self.runs, pool.map(self.go_on, self.runs), strict=True))
        self.sessions = {slug: (before[slug], sessions_of(run.cli, run.home)) for slug, run in self.runs.items()}

    @staticmethod
    def told(watcher: Watcher, run: Run) -> list[dict[str, Any]]:
        """The incidents of one agent."""
        events = (parsed(line) for line in list(watcher.said.lines))
        return [each["data"] for each in events if each["type"] == INCIDENT and each["data"]["agent"]["pid"] == run.process.pid]

    def go_on(self, slug: str) -> dict[str, Any] | None:
        """Do what the incident says."""
        found = self.session(slug)
        return self.runs[slug].resumed(list(found["data"]["resume"]), found["data"]["folder"]) if found else None

    def session(self, slug: str) -> dict[str, Any] | None:
        """The session evidence of the first incident that has any."""
        records = (each for incident in self.incidents[slug] for each in incident["evidence"])
        return next((each for each in records if each["kind"] == "session"), None)


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[Play]:
    """The one run that these tests ask about: of the agents that were chosen on the command line."""
    if not AGENTSCOPE.exists():
        pytest.skip(f"agentscope is not installed at {AGENTSCOPE}: pip install -e .")
    why = installed()
    if why is not None:
        pytest.skip(why)
    asked = {item.callspec.params["cli"].slug for item in request.session.items if item.path == Path(__file__)}
    folder = Path(tempfile.mkdtemp(prefix="agentscope-sessions-"))
    folder.chmod(0o711)
    try:
        yield Play(folder, tuple(cli for cli in CLIS if cli.slug in asked))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@every_cli
def test_session_is_told(cli: Cli, played: Play) -> None:
    """The incident of an agent that was killed in a tool names the session, the tool, and that it had not finished."""
    found = played.session(cli.slug)
    assert found is not None, [(each["cause"], each["missing"]) for each in played.incidents[cli.slug]] + [played.errors]
    told = found["data"]
    assert {told["session"]} == played.sessions[cli.slug][0]
    assert (told["tool"], told["action"], told["doing"], told["finished"]) == (cli.slug, cli.action, "tool", False)
    assert abs(told["began_wall_ns"] / 1e9 - played.runs[cli.slug].called_at) < 3
    assert (told["turns"], told["folder"]) == (1, str(played.runs[cli.slug].work))


@every_cli
def test_resume_command_is_said(cli: Cli, played: Play) -> None:
    """A person reads in the evidence what to type to go on with it, and nothing of the talk or of what the tool was told."""
    found = played.session(cli.slug)
    assert found is not None
    told = found["data"]
    assert told["resume"] == [part.format(program=cli.program, session=told["session"]) for part in cli.resume]
    assert found["says"].startswith(f"{cli.tool} session {told['session']}: it was running ")
    assert " ".join(told["resume"]) in found["says"]
    incident = next(each for each in played.incidents[cli.slug] if found in each["evidence"])
    assert any(" ".join(told["resume"]) in advice for advice in incident["advice"])
    assert not [word for word in (FIRST, COMMAND, "That is done") if word in json.dumps(found)]


@every_cli
def test_resume_command_works(cli: Cli, played: Play) -> None:
    """What it says goes on with that very session: the model sees what was said before, and no other session is begun."""
    request = played.again[cli.slug]
    assert request is not None, "nothing was asked of the model again"
    assert (request["first"], request["second"]) == (True, True), request
    assert played.sessions[cli.slug][1] == played.sessions[cli.slug][0]


@every_cli
def test_cause_is_untouched(cli: Cli, played: Play) -> None:
    """With its session known, the agent's incident is still that of a SIGKILL from outside."""
    causes = [incident["cause"] for incident in played.incidents[cli.slug]]
    assert "killed/sigkill" in causes, causes
    assert played.status == 0
