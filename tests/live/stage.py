"""Plays scenarios of the hang zoo: the program in its own cgroups, the peers that it talks to, and what is done to it."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cage import Cage
from hangs import Hang, hangs
from scenario import TOOL_PATH, fill_all
from zoo import LAUNCH, Broken, Lines, compiled, reader

READY_S = 60.0  # real agents import for seconds, eight at once
STEP_S = 20.0
GUARDS = ("guard.sh", "disk.sh")  # these undo something once their input ends
FIRST, CAGE, PROCESS, LAST, WIRE = range(
    5
)  # the order of closing: what is frozen cannot be ended, what is traced not be waited for
SAID = re.compile(r"(\w+) (\d+)")
making = threading.Lock()  # of cgroups and network namespaces: both count names


class Wire:
    """Two network namespaces with a cable between them: `near` has 10.99.0.1 on va, `far` 10.99.0.2 on vb."""

    serial = 0

    def __init__(self) -> None:
        Wire.serial += 1
        self.near, self.far = (f"zoo-{os.getpid()}-{Wire.serial}-{end}" for end in ("near", "far"))
        self.run("netns", "add", self.near)
        self.run("netns", "add", self.far)
        self.run("-n", self.near, "link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", self.far)
        for name, link, address in ((self.near, "va", "10.99.0.1/24"), (self.far, "vb", "10.99.0.2/24")):
            self.run("-n", name, "addr", "add", address, "dev", link)
            self.run("-n", name, "link", "set", link, "up")
            self.run("-n", name, "link", "set", "lo", "up")

    @staticmethod
    def run(*arguments: str) -> None:
        """One ip(8)."""
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=10)
        if done.returncode != 0:
            raise Broken(f"ip {' '.join(arguments)}: {done.stderr}")

    def close(self) -> None:
        """Remove both, and the cable with them."""
        for name in (self.near, self.far):
            with contextlib.suppress(Broken):
                self.run("netns", "delete", name)


class Beside:
    """A program that runs beside the agent, outside its tree: a server, a client, the holder of a lock, a guard."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self.guards = any(part.endswith(GUARDS) for part in argv)
        self.errors = (folder / "beside.stderr").open("w+b")
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, cwd=folder, start_new_session=True
        )
        assert self.process.stdout is not None
        self.said = Lines(reader(self.process.stdout.fileno()))
        if self.said.wait_for(lambda line: line == "ready", READY_S) is None:
            self.errors.seek(0)
            words = self.errors.read()[-1000:].decode(errors="replace")
            self.close()
            raise Broken(f"{argv} never said ready: {self.said.lines} {words}")

    def close(self) -> None:
        """End its input, which is all that a guard waits for, then itself."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        if self.guards:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        self.said.thread.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


class Actor:
    """A running scenario that has said ready; `trigger` lets it hang."""

    def __init__(self, hang: Hang, folder: Path) -> None:
        self.hang = hang
        self.closing: list[tuple[int, Callable[[], None]]] = []
        self.sinks: list[Lines] = []
        self.names: dict[str, str | tuple[str, ...]] = {}
        self.terminal: int | None = None
        self.triggered_ns: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        try:
            self._cages()
            compiled(hang)
            self._start()
        except BaseException:
            self.close()
            raise

    def _cages(self) -> None:
        with making:
            cage = Cage(self.hang.run.memory_mib, nested=False)
            self.closing.append((CAGE, cage.close))
            self.names = self.hang.names(home=str(self.folder), unified=str(cage.unified), unified_name=cage.unified.name)
            for controller in self.hang.run.controllers:
                group = Path("/sys/fs/cgroup", controller, cage.memory.name)
                if not group.parent.is_dir():
                    group = cage.unified
                else:
                    group.mkdir()
                    cage.folders.append(group)
                    cage.joined.append(group)
                self.names |= {controller: str(group), f"{controller}_name": group.name}
            if self.hang.run.network == "netns":
                wire = Wire()
                self.closing.append((WIRE, wire.close))
                self.names |= {"near": wire.near, "far": wire.far}
        self.cage = cage

    def _start(self) -> None:
        run = self.hang.run
        if self.hang.peer:
            self._beside("peer", self.hang.peer, "far")
        argv = fill_all(run.argv, self.names)
        env = {
            "PATH": TOOL_PATH,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ZOO_GROUPS": " ".join(map(str, self.cage.joined)),
        }
        env |= dict(zip(run.env, fill_all(tuple(run.env.values()), self.names), strict=True))
        stdin: int = subprocess.PIPE
        stdout: int = subprocess.PIPE
        stderr: int = subprocess.PIPE
        if run.terminal:
            self.terminal, slave = pty.openpty()
            stdin = stdout = stderr = slave
        front = ["nice", "-n", "10"] if self.hang.load == "cpu" and not self.hang.hung else []
        front += ["setsid", "--ctty"] if run.terminal else []
        front = [*self._inside("near"), "sh", "-c", LAUNCH, "sh", *front]
        self.process = subprocess.Popen([*front, *argv], stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=self.folder)
        if run.terminal:
            os.close(slave)
        self.closing.append((PROCESS, self._end))
        self._listen()
        self.pid = self.process.pid
        self.names["pid"] = str(self.pid)

    def _inside(self, end: str) -> list[str]:
        """How to enter a network namespace, where there are any; ip-netns(8) would also change what /sys shows."""
        return ["nsenter", f"--net=/run/netns/{self.names[end]}"] if end in self.names else []

    def _listen(self) -> None:
        """Read what it says until it is ready, and go on reading unless it is declared otherwise."""
        if self.process.stderr is not None:
            self.sinks.append(Lines(reader(self.process.stderr.fileno())))
        out = self.terminal
        if out is None:
            assert self.process.stdout is not None
            out = self.process.stdout.fileno()
        if self.hang.run.stdout == "unread":
            lines = until_ready(out)
        else:
            said = Lines(reader(out))
            self.sinks.append(said)
            said.wait_for(lambda line: line == "ready", READY_S)
            lines = list(said.lines)
        if "ready" not in lines:
            raise Broken(f"{self.hang.slug}: never said ready: {[sink.lines for sink in self.sinks]}")
        self.names |= {match[1]: match[2] for line in lines if (match := SAID.fullmatch(line))}

    def _beside(self, role: str, argv: tuple[str, ...], end: str) -> None:
        folder = self.folder / role
        folder.mkdir(exist_ok=True)
        beside = Beside([*self._inside(end), *fill_all(argv, self.names)], folder)
        self.closing.append((FIRST if beside.guards or role == "client" else LAST, beside.close))
        self.names[role] = str(beside.process.pid)
        prefix = "" if role == "peer" else f"{role}_"
        self.names |= {prefix + match[1]: match[2] for line in beside.said.lines if (match := SAID.fullmatch(line))}

    def trigger(self) -> None:
        """Do to it what the scenario says, step by step; then its client comes."""
        for step in self.hang.outside:
            if step == "line":
                self._write(b"\n")
                continue
            argv = fill_all(step, self.names)
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                check=False,
                timeout=STEP_S,
                stdin=subprocess.DEVNULL,
                env={"PATH": TOOL_PATH},
            )
            if done.returncode != 0:
                raise Broken(f"{self.hang.slug}: {argv} failed: {done.stderr}")
        if self.hang.client:
            self._beside("client", self.hang.client, "far")
        self.triggered_ns = time.monotonic_ns()

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):
            if self.terminal is not None:
                os.write(self.terminal, text)
            elif self.process.stdin is not None:
                self.process.stdin.write(text)
                self.process.stdin.flush()

    @property
    def hangs_since_ns(self) -> int | None:
        """When it began to hang, CLOCK_MONOTONIC: what it said itself, or when everything was done to it."""
        said = [line.split() for sink in self.sinks for line in sink.lines if line.startswith("hanging ")]
        return max((int(words[1]) for words in said), default=self.triggered_ns)

    def status(self) -> int | None:
        """How it ended, if it did."""
        return self.process.poll()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for sink in self.sinks:
            sink.thread.join(2)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        if self.terminal is not None:
            os.close(self.terminal)

    def close(self) -> None:
        """Thaw it, end all of its processes and free everything, whatever goes wrong on the way."""
        for path, word in ((self.names.get("freezer"), "THAWED"), (self.names.get("unified"), "0")):
            with contextlib.suppress(OSError):
                Path(str(path), "freezer.state" if word == "THAWED" else "cgroup.freeze").write_text(word)
        with contextlib.ExitStack() as stack:
            for _, close in sorted(self.closing, key=lambda entry: -entry[0]):
                stack.callback(close)
            self.closing = []


def until_ready(descriptor: int) -> list[str]:
    """The lines up to `ready` and not a byte more."""
    text = b""
    deadline = time.monotonic() + READY_S
    while not text.endswith(b"ready\n") and time.monotonic() < deadline and (byte := os.read(descriptor, 1)):
        text += byte
    return text.decode(errors="replace").splitlines()


@contextlib.contextmanager
def acting(hang: Hang, folder: Path) -> Iterator[Actor]:
    """A scenario that is ready and will be gone afterwards."""
    actor = Actor(hang, folder)
    try:
        yield actor
    finally:
        actor.close()


def main() -> None:
    """`stage.py SLUG…`: plays scenarios for a minute, or until Enter, for whoever wants to look at them by hand."""
    chosen = [hang for hang in hangs() if hang.slug in sys.argv[1:]]
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hang-zoo-", ignore_cleanup_errors=True)))
        actors = [stack.enter_context(acting(hang, home / hang.slug)) for hang in chosen]
        for actor in actors:
            actor.trigger()
            print(
                actor.hang.slug, actor.pid, {key: actor.names[key] for key in ("peer", "client", "port") if key in actor.names}
            )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            import select

            select.select([sys.stdin], [], [], 60)


if __name__ == "__main__":
    main()
