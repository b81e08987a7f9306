"""Whoever starts agents, for tests of bringing them back: real supervisors with real agents below them, each in a folder of its own."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from drift.places import Unplayable
from zoo import AGENTSCOPE

HERE = Path(__file__).parent
LAB = HERE / "systemd" / "lab.sh"
PLACE = HERE / "supervisors"
WORKER = PLACE / "worker.py"
PYTHON = AGENTSCOPE.parent / "python"
IMAGE_PYTHON = Path("/usr/bin/python3.11")
TOO_SLOW = 75  # EX_TEMPFAIL of lab.sh
POLICY = {"grace_s": 1.0, "hook_s": 15.0}


def settled(starts: Callable[..., Any], *words: str) -> Any:
    """What a log of starts says once nothing was added to it for a while: an agent notes its start when it runs, a little after it."""
    seen, since = starts(*words), time.monotonic()
    while time.monotonic() - since < 0.7:
        time.sleep(0.05)
        if starts(*words) != seen:
            seen, since = starts(*words), time.monotonic()
    return seen


class Closing(Protocol):
    """Whatever has to be ended."""

    def close(self) -> None:
        """End it."""


Owner = TypeVar("Owner", bound=Closing)


def playing(make: Callable[[Path], Owner], folder: Path) -> Iterator[Owner]:
    """A fixture's body: the owner, ended in any case; where it cannot be had the test is skipped with the reason."""
    try:
        owner = make(folder)
    except Unplayable as why:
        pytest.skip(str(why))
    try:
        yield owner
    finally:
        owner.close()


class Systemd:
    """A real systemd in namespaces of its own, and what its units wrote of their starts."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir() or shutil.which("unshare") is None:
            raise Unplayable("needs root and cgroup v1: the lab mounts the v1 controllers")
        if not Path("/lib/systemd/systemd").exists():
            raise Unplayable("systemd is not installed: apt-get install systemd")
        units = folder / "units"
        units.mkdir()
        for unit in (HERE / "systemd" / "agent.service", *PLACE.glob("*.service")):
            place = HERE / "systemd" if unit.name == "agent.service" else PLACE
            (units / unit.name).write_text(unit.read_text().replace("@HERE@", str(place)))
        started = self.lab("start", str(units), str(folder / "run"), check=False, timeout=120)
        if started.returncode == TOO_SLOW:
            raise Unplayable(f"no systemd can be started here: {started.stderr.strip()}")
        assert started.returncode == 0, started.stderr
        self.pid = int(started.stdout.split()[-1])

    @staticmethod
    def lab(*words: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run the lab's script."""
        return subprocess.run(
            [str(LAB), *words],
            check=check,
            timeout=timeout,
            capture_output=True,
            text=True,
            env={**os.environ, "LAB_NAME": "zoo-supervisors"},
        )

    def control(self, *words: str) -> str:
        """Run systemctl inside."""
        return self.lab("exec", str(self.pid), "systemctl", *words).stdout

    def starts(self, name: str) -> list[str]:
        """The pids that a unit's agent had at each of its starts."""
        log = Path(f"/proc/{self.pid}/root/run/starts-{name}")
        return log.read_text().split() if log.exists() else []

    def start(self, name: str) -> int:
        """Start a unit afresh; the pid of its worker inside."""
        self.control("stop", name)
        Path(f"/proc/{self.pid}/root/run/starts-{name}").unlink(missing_ok=True)
        self.control("start", name)
        for _ in range(100):
            if self.starts(name):
                time.sleep(0.2)
                return int(self.starts(name)[0])
            time.sleep(0.05)
        raise AssertionError(f"{name} did not start")

    def act(self, pid: int, act: str, policy: dict[str, Any] | None = None, late_s: float = 0.5) -> dict[str, Any]:
        """Have act.py do its part inside, and hear what came of it."""
        words = ["env", f"LATE_S={late_s}", str(PYTHON), str(PLACE / "act.py"), str(pid), act]
        ran = self.lab("exec", str(self.pid), *words, json.dumps({**POLICY, **(policy or {})}), check=False)
        assert ran.returncode == 0, ran.stderr
        return dict(json.loads(ran.stdout))

    def seen_from_outside(self, folder: Path) -> tuple[str, ...]:
        """What is put before a command here outside, so that its `systemctl` is one that asks this systemd."""
        client = folder / "systemctl"
        subprocess.run(["gcc", "-O1", f"-DLAB={self.pid}", "-o", str(client), str(LAB.with_name("outside.c"))], check=True)
        private = 'mount --bind "$0" /usr/bin/systemctl && exec "$@"'
        return ("unshare", "--mount", "--propagation", "private", "sh", "-c", private, str(client))

    def main_pid(self, name: str) -> int:
        """The unit's main process as systemd knows it."""
        return int(self.control("show", "--property=MainPID", "--value", name))

    def close(self) -> None:
        """Power it off and remove its cgroups."""
        self.lab("stop", str(self.pid), check=False)


class Session:
    """A real service manager of root's own (`systemd --user`), over a /run of its own: the numbers of its processes are the machine's.

    The systemd of the lab counts pids in a namespace of its own, and probes do not; what is to watch from below systemd runs here.
    `front` is put before a command that is to see this manager. Units are those that are given, by their names.
    """

    NAME = "agentscope-session"
    PLACE_ALL = (
        'for c in /sys/fs/cgroup/*/; do mkdir -p "$c$0/user@0.service"; case $c in */cpuset/) for f in cpuset.cpus cpuset.mems; do '
        'cat "$c$f" >"$c$0/$f"; cat "$c$f" >"$c$0/user@0.service/$f"; done; esac; echo $$ >"$c$0/user@0.service/cgroup.procs"; done; '
        'exec unshare --mount --propagation private sh -c "$1"'
    )
    BEGIN = (
        "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/systemd/system /run/user/0 && chmod 700 /run/user/0 && "
        "exec env -i HOME=/root USER=root PATH=/usr/sbin:/usr/bin:/sbin:/bin XDG_RUNTIME_DIR=/run/user/0 XDG_CONFIG_HOME={0}/config "
        "XDG_STATE_HOME={0}/kept XDG_CACHE_HOME={0}/cache /lib/systemd/systemd --user --unit=basic.target --log-target=console"
    )

    def __init__(self, folder: Path, units: dict[str, str]) -> None:
        if os.geteuid() != 0 or not Path("/sys/fs/cgroup/systemd").is_dir() or not Path("/lib/systemd/systemd").exists():
            raise Unplayable("needs root, systemd (apt-get install systemd) and its own hierarchy of cgroups")
        self.folder = folder
        self.units = folder / "config" / "systemd" / "user"
        self.units.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            (self.units / name).write_text(text)
        with (folder / "session.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", self.PLACE_ALL, self.NAME, self.BEGIN.format(folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.front = ("nsenter", "-t", str(self.process.pid), "-m", "--")
        until = time.monotonic() + 20
        while self.control("is-system-running", check=False).strip() not in {"running", "degraded"}:
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                raise Unplayable(f"no service manager can be started here: {(folder / 'session.log').read_text()[-300:]}")
            time.sleep(0.1)

    def control(self, *words: str, check: bool = True) -> str:
        """Run systemctl about its units."""
        command = [*self.front, "env", "XDG_RUNTIME_DIR=/run/user/0", "systemctl", "--user", *words]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0 or not check, ran.stderr
        return ran.stdout

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.control("show", f"--property={name}", "--value", unit).strip()

    def close(self) -> None:
        """End it with all its units, and remove its cgroups."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        for _ in range(50):
            groups = [each for place in Path("/sys/fs/cgroup").iterdir() for each in (place / self.NAME).rglob("cgroup.procs")]
            left = {int(pid) for group in groups for pid in group.read_text().split()}
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.05)
        for place in Path("/sys/fs/cgroup").iterdir():
            folders = sorted(
                (each.parent for each in (place / self.NAME).rglob("cgroup.procs")), key=lambda each: -len(each.parts)
            )
            for each in folders:
                with contextlib.suppress(OSError):
                    each.rmdir()


class Supervisord:
    """A real supervisord with a few programs."""

    PROGRAMS = (
        ("steady", "", "autorestart=false"),
        ("raising", "does=exception", "autorestart=false"),
        ("stubborn", "stubborn", "autorestart=false\nstopwaitsecs=30"),
        ("again", "", "autorestart=unexpected"),
        ("stubborn-again", "stubborn", "autorestart=true\nstopwaitsecs=30"),
        ("holder", "child port={port}", "autorestart=false"),
    )

    def __init__(self, folder: Path, *more: tuple[str, str, list[str]]) -> None:
        """`more` are programs of its caller's: a name, its rule, and its command."""
        if not (PYTHON.parent / "supervisord").exists():
            raise Unplayable("supervisord is not installed: pip install -e '.[dev]'")
        self.folder = folder
        self.config = folder / "supervisord.conf"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        programs = "".join(
            f"[program:{name}]\ncommand={PYTHON} {WORKER} {folder}/starts-{name} {words.format(port=port)}\n"
            f"autostart=false\nstartsecs=0\n{rule}\n"
            for name, words, rule in self.PROGRAMS
        )
        programs += "".join(
            f"[program:{name}]\ncommand={' '.join(command)}\nautostart=false\nstartsecs=0\n{rule}\n"
            for name, rule, command in more
        )
        self.config.write_text(
            f"[unix_http_server]\nfile={folder}/sock\nusername=root\npassword=secret ; plain\n[supervisord]\n"
            f"nodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{folder}/sock\nusername=root\npassword=secret\n{programs}"
        )
        self.process = subprocess.Popen(
            [str(PYTHON.parent / "supervisord"), "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            if (folder / "sock").exists():
                return
            time.sleep(0.05)
        raise AssertionError("supervisord did not start")

    def control(self, *words: str) -> str:
        """Run supervisorctl."""
        command = [str(PYTHON.parent / "supervisorctl"), "-c", str(self.config), *words]
        return subprocess.run(command, check=False, timeout=60, capture_output=True, text=True).stdout

    def starts(self, name: str) -> list[str]:
        """The pids of a program at each of its starts."""
        log = self.folder / f"starts-{name}"
        return log.read_text().split() if log.exists() else []

    def start(self, name: str) -> int:
        """Start a program afresh."""
        self.control("stop", name)
        (self.folder / f"starts-{name}").unlink(missing_ok=True)
        self.control("start", name)
        for _ in range(100):
            if self.starts(name):
                time.sleep(0.3)
                return int(self.starts(name)[0])
            time.sleep(0.05)
        raise AssertionError(f"{name} did not start")

    def act(self, pid: int, act: str, policy: dict[str, Any] | None = None, late_s: float = 0.5) -> dict[str, Any]:
        """Have act.py do its part."""
        return acted(self.folder, pid, act, policy, late_s)

    def close(self) -> None:
        """End it with its programs."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for name, *_ in self.PROGRAMS:
                for pid in self.starts(name):
                    if WORKER.name in cmdline(int(pid)):
                        os.kill(int(pid), signal.SIGKILL)
            self.process.kill()
            self.process.wait(5)


def acted(folder: Path, pid: int, act: str, policy: dict[str, Any] | None, late_s: float = 0.5) -> dict[str, Any]:
    """Run act.py here, and hear what came of it."""
    ran = subprocess.run(
        [str(PYTHON), str(PLACE / "act.py"), str(pid), act, json.dumps({**POLICY, **(policy or {})}), str(folder / "state")],
        check=False,
        timeout=90,
        capture_output=True,
        text=True,
        env={**os.environ, "LATE_S": str(late_s)},
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def cmdline(pid: int) -> str:
    """A process's command line; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_gone(pid: int) -> bool:
    """Whether a process no longer runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Alone:
    """An agent that nobody owns: started by this test, in a session of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.log = folder / "starts"
        self.command = [str(PYTHON), str(WORKER), str(self.log), *words]
        self.process = subprocess.Popen(self.command, start_new_session=True)
        for _ in range(100):
            if self.starts():
                break
            time.sleep(0.05)
        time.sleep(0.2)
        self.pid = self.process.pid

    def starts(self) -> list[str]:
        """The pids of its starts."""
        return self.log.read_text().split() if self.log.exists() else []

    def act(self, act: str, policy: dict[str, Any]) -> dict[str, Any]:
        """Have act.py do its part; a child that has ended is waited for meanwhile, as by any parent."""
        threading.Thread(target=self.process.wait, daemon=True).start()
        return acted(self.folder, self.pid, act, policy)

    def close(self) -> None:
        """End every instance."""
        for pid in self.starts():
            if WORKER.name in cmdline(int(pid)):
                os.kill(int(pid), signal.SIGKILL)


class Runtime:
    """A real container runtime of its own, with one image: this machine's Python."""

    forced: tuple[str, ...] = ("-f",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "starts").mkdir()

    def run(self, *words: str, check: bool = True) -> str:
        """Run the client."""
        # conmon leaves a file "oom" in the folder that it was started in (src/oom.c of conmon)
        ran = subprocess.run([*self.client(), *words], check=False, capture_output=True, text=True, timeout=90, cwd=self.folder)
        assert ran.returncode == 0 or not check, ran.stderr
        return ran.stdout

    def client(self) -> list[str]:
        """The client's command."""
        raise NotImplementedError

    def starts(self, name: str) -> int:
        """How often a container's agent was started."""
        log = self.folder / "starts" / name
        return len(log.read_text().split()) if log.exists() else 0

    def start(self, name: str, *options: str, words: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> int:
        """Run a container afresh; the pid of its agent here outside. `before` is put before its command."""
        self.run("rm", "-f", name, check=False)
        (self.folder / "starts" / name).unlink(missing_ok=True)
        mounts = ("-v", f"{PLACE}:/place:ro", "-v", f"{self.folder}/starts:/starts")
        worker = (str(IMAGE_PYTHON), "/place/worker.py", f"/starts/{name}", *words)
        self.run("run", "-d", "--network=none", "-m", "64m", "--name", name, *mounts, *options, "agent:1", *before, *worker)
        for _ in range(100):
            if self.starts(name):
                time.sleep(0.3)
                return self.pid(name)
            time.sleep(0.05)
        raise AssertionError(f"{name} did not start")

    def pid(self, name: str) -> int:
        """The container's main process."""
        return int(self.run("inspect", "--format", "{{.State.Pid}}", name))

    def act(self, pid: int, act: str, policy: dict[str, Any] | None = None, late_s: float = 0.5) -> dict[str, Any]:
        """Have act.py do its part."""
        return acted(self.folder, pid, act, policy, late_s)

    def image(self) -> None:
        """This machine's Python and the libraries it needs, as an image."""
        libraries = subprocess.run(["ldd", str(IMAGE_PYTHON)], capture_output=True, text=True, check=True).stdout
        ctypes_needs = Path("/usr/lib/python3.11/lib-dynload").glob("_ctypes.*.so")
        for extension in ctypes_needs:
            libraries += subprocess.run(["ldd", str(extension)], capture_output=True, text=True, check=True).stdout
        files = {str(Path(word).resolve()) for word in libraries.split() if word.startswith("/")}
        files |= {word for word in libraries.split() if word.startswith("/")}
        root = self.folder / "root"
        for place in ("usr/bin", "usr/lib", "usr/lib64", "place", "starts", "tmp"):
            (root / place).mkdir(parents=True)
        for name in ("lib", "lib64", "bin"):
            (root / name).symlink_to(f"usr/{name}")
        for path in files:
            aim = root / (path[1:] if path.startswith("/usr") else f"usr{path}")
            aim.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, aim)
        shutil.copy(str(IMAGE_PYTHON), root / "usr/bin/python3.11")
        shutil.copytree(
            "/usr/lib/python3.11", root / "usr/lib/python3.11", ignore=shutil.ignore_patterns("test", "dist-packages", "idlelib"),
            symlinks=True, ignore_dangling_symlinks=True,
        )  # fmt: skip
        subprocess.run(["tar", "-cf", str(self.folder / "root.tar"), "-C", str(root), "."], check=True)
        self.run("import", str(self.folder / "root.tar"), "agent:1")
        shutil.rmtree(root)
        (self.folder / "root.tar").unlink()

    def close(self) -> None:
        """End it with its containers."""
        names = self.run("ps", "-aq", check=False).split()
        if names:
            self.run("rm", *self.forced, *names, check=False)


class Docker(Runtime):
    """A dockerd of our own beside any other."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("docker") is None:
            raise Unplayable("needs root and docker's engine: apt-get install docker.io")
        if not IMAGE_PYTHON.exists():
            raise Unplayable(f"the image is made of {IMAGE_PYTHON}, which is not here")
        super().__init__(folder)
        self.runtime = Path(f"/run/agentscope-dock-{os.getpid()}")
        self.socket = f"unix://{folder}/sock"
        self.process = subprocess.Popen(
            ["dockerd", "--data-root", str(folder / "kept"), "--exec-root", str(self.runtime), "-H", self.socket, "--iptables=false", "--ip-forward=false",
             "--ip-masq=false", "--bridge=none", "--pidfile", str(folder / "pid"), "--default-ulimit", "nofile=20000:20000"],
            stdout=(folder / "log").open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        for _ in range(300):
            if self.process.poll() is not None or "API listen on" in (folder / "log").read_text():
                break
            time.sleep(0.1)
        if self.process.poll() is not None:
            raise Unplayable(f"dockerd does not run here: {(folder / 'log').read_text()[-300:]}")
        self.image()

    def client(self) -> list[str]:
        """Docker's, with our socket."""
        return ["docker", "-H", self.socket]

    def close(self) -> None:
        """End it with its containers."""
        super().close()
        self.process.terminate()
        self.process.wait(30)
        subprocess.run(["umount", "-l", *map(str, self.runtime.glob("netns/*"))], check=False, capture_output=True)
        shutil.rmtree(self.runtime, ignore_errors=True)


class Podman(Runtime):
    """Podman with a store and settings of our own, which agentscope is told of by the same variables as any podman."""

    forced = ("-f", "-t", "0")

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or shutil.which("podman") is None or shutil.which("runc") is None:
            raise Unplayable("needs root and podman with runc: apt-get install podman runc")
        if not IMAGE_PYTHON.exists():
            raise Unplayable(f"the image is made of {IMAGE_PYTHON}, which is not here")
        settings, storage = folder / "containers.conf", folder / "storage.conf"
        settings.write_text(
            '[engine]\ncgroup_manager="cgroupfs"\nruntime="runc"\nevents_logger="file"\n'
            '[containers]\ndefault_ulimits=["nofile=20000:20000","nproc=32768:32768"]\n'
        )
        storage.write_text(f'[storage]\ndriver="overlay"\ngraphroot="{folder}/graph"\nrunroot="{folder}/run"\n')
        self.before = {name: os.environ.get(name) for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")}
        os.environ.update({"CONTAINERS_CONF": str(settings), "CONTAINERS_STORAGE_CONF": str(storage)})
        super().__init__(folder)
        try:
            self.image()
        except BaseException:
            self.close()
            raise

    def client(self) -> list[str]:
        """Podman's."""
        return ["podman"]

    def close(self) -> None:
        """Remove every container of our store, by podman or, where that does not, by our own hand; then the store."""
        try:
            super().close()
        finally:
            self.end_monitors()
            mounted = [
                line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.folder) in line
            ]
            subprocess.run(["umount", "-l", *reversed(mounted)], check=False, capture_output=True) if mounted else None
            for name, value in self.before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def end_monitors(self) -> None:
        """Kill what is left of our containers: the first process of each, then its conmon, which has our store on its command line."""
        for monitor in monitors_of(self.folder):
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.kill(monitor, signal.SIGKILL)


def monitors_of(folder: Path) -> list[int]:
    """The conmon processes of containers whose store is in this folder."""
    found = [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]
    return [pid for pid in found if cmdline(pid).startswith("/usr/bin/conmon ") and f" -b {folder}/graph/" in cmdline(pid)]


class Run:
    """One `agentscope run` on a terminal of its own."""

    def __init__(self, folder: Path, *act: str, restart: str = "", name: str = "screen", options: tuple[str, ...] = ()) -> None:
        self.log = folder / "noted"
        config = folder / "agentscope.toml"
        config.write_text(
            f'[agent.{name}]\nmatch = {{ name = "screen.py" }}\n[agent.{name}.recovery]\n{restart}\n'
            'validate = "500ms"\nprobation = "500ms"\nbackoff = "100ms"\ngrace = "1s"\n'
            'ladder = { crash = ["restart"], hang = ["restart"], killed = ["restart"], exit = [] }\n'
        )
        self.ours, theirs = os.openpty()
        command = [
            str(AGENTSCOPE),
            "run",
            "--name",
            name,
            "--config",
            str(config),
            "--state-dir",
            str(folder / "state"),
            *options,
            "--",
        ]
        self.process = subprocess.Popen(
            [*command, str(PYTHON), str(PLACE / "screen.py"), str(self.log), *act],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env={**os.environ, "SCREEN_WORD": "a b"},
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),  # noqa: PLW1509 - it takes no lock
        )  # fmt: skip
        os.close(theirs)
        self.said = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Keep what comes on the terminal."""
        while True:
            try:
                self.said += os.read(self.ours, 4096)
            except OSError:
                return

    def noted(self) -> list[dict[str, Any]]:
        """How each instance was started."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def wait(self) -> int:
        """Its exit status."""
        try:
            return self.process.wait(45)
        finally:
            self.process.kill()
            os.close(self.ours)
