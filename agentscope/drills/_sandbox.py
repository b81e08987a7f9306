"""Where a sample agent runs: a cgroup of its own, a user without rights, a folder with nothing but its program, and a minute at most."""

import contextlib
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agentscope.cages import Cage, cage
from agentscope.commands import NOBODY, PATH, Identity, entering
from agentscope.drills import Drill
from agentscope.errors import AgentscopeError

PREFIX = "agentscope-drill-"
LEFT_AFTER_S = 3600.0
PROBE_S = 5.0
READY_S = 10.0
MINUTE_S = 60
# Run as the sample's user, which may lower its own limits though we may not lower another's (setrlimit(2)), and which ends with us
# (prctl(2), PR_SET_PDEATHSIG: kept by execve(2), lost with a change of user).
LIMITING = """\
import ctypes, os, resource, sys
for pair in sys.argv[1].split(","):
    limit, value = map(int, pair.split("="))
    resource.setrlimit(limit, (value, value))
ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[2], sys.argv[2:])
"""
ASKED = "import sys; print('%d.%d' % sys.version_info[:2])"


class Sandbox:
    """One drill's folder and cgroups, and the sample that runs in them now, if any. Made by `sandbox`, which also clears it away."""

    def __init__(self, kind: str, drill: Drill, folder: Path, caged: Cage) -> None:
        self.kind = kind
        self.drill = drill
        self.folder = folder
        self.cage = caged
        self.identity = Identity(uid=NOBODY, gid=NOBODY) if os.geteuid() == 0 else None
        self.python, self.version, self.as_root = self._python()
        self.process: subprocess.Popen[bytes] | None = None
        self.program = folder / f"drill-{kind}"
        shutil.copyfile(drill.__file__, self.program)
        self.program.chmod(0o644)
        self.stderr = folder / "stderr"

    @property
    def limited(self) -> bool:
        """Whether the kernel keeps its memory limit by a cgroup; else by its address space (setrlimit(2), RLIMIT_AS)."""
        return "memory" in self.cage.holds

    @property
    def cause(self) -> str:
        """What must be found here."""
        return self.drill.CAUSE if self.limited or self.drill.ROOTLESS is None else self.drill.ROOTLESS

    def _python(self) -> tuple[str, str, bool]:
        """A Python that the sample's user may run, its version, and whether there is none, so that it has to run as root."""
        candidates = [str(getattr(sys, "_base_executable", sys.executable)), "/usr/bin/python3", "/usr/local/bin/python3"]
        for candidate in candidates:
            if (version := asked(candidate, self.identity)) is not None:
                return os.path.realpath(candidate), version, False
        self.identity = None
        return sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}", os.geteuid() == 0

    def start(self, live_s: float) -> int:
        """Start the sample and wait until it is ready; it goes on once it is `let go`. Its pid.

        Raises:
            AgentscopeError: it did not come so far.
        """
        limits = ",".join(f"{limit}={value}" for limit, value in self.limits.items())
        command = (
            self.python,
            "-I",
            "-S",
            "-c",
            LIMITING,
            limits,
            self.interpreter,
            "-I",
            "-u",
            str(self.program),
            str(live_s),
        )
        self.errors = self.stderr.open("wb")
        self.process = subprocess.Popen(
            entering(command, self.identity, self.cage.folders),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, cwd=self.folder, start_new_session=True,
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(self.folder)},
        )  # fmt: skip
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], READY_S)
        if not ready or self.process.stdout.readline() != b"ready\n":
            self.stop()
            said = self.stderr.read_text("utf-8", "replace")[-300:]
            raise AgentscopeError("the sample agent did not start", said or "it said nothing", "agentscope doctor")
        return self.process.pid

    @property
    def interpreter(self) -> str:
        """What runs the sample: the venv's Python, where it has one."""
        venv = self.folder / "venv/bin/python"
        return str(venv) if venv.is_symlink() else self.python

    @property
    def limits(self) -> dict[int, int]:
        """The limits that need no cgroup, the narrowest last."""
        limits = {
            resource.RLIMIT_CORE: 1,  # less than any dump, and 1 is also what keeps a crash reporter from starting (core(5))
            resource.RLIMIT_CPU: MINUTE_S,
            resource.RLIMIT_FSIZE: 1 << 20,
            resource.RLIMIT_NOFILE: 64,
        }
        return limits if self.limited else {**limits, resource.RLIMIT_AS: self.drill.MEMORY_MIB << 20}

    def let_go(self) -> None:
        """Let it live, and die."""
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()

    def install(self, library: str, version: str, source: str) -> None:
        """Put a version of a library into the venv in place of the one before, as pip does (PyPA, "Recording installed projects")."""
        bin_ = self.folder / "venv/bin"
        site = self.folder / f"venv/lib/python{self.version}/site-packages"
        if not bin_.is_dir():
            bin_.mkdir(parents=True)
            (bin_ / "python").symlink_to(self.python)
            (self.folder / "venv/pyvenv.cfg").write_text(
                f"home = {Path(self.python).parent}\ninclude-system-site-packages = false\nversion = {self.version}\n"
            )
            site.mkdir(parents=True)
        for old in site.iterdir():
            shutil.rmtree(old)
        name = f"{library}-{version}.dist-info"
        files = {
            f"{library}/__init__.py": source,
            f"{name}/METADATA": f"Metadata-Version: 2.1\nName: {library.replace('_', '-')}\nVersion: {version}\n",
            f"{name}/WHEEL": "Wheel-Version: 1.0\nGenerator: agentscope-drill\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}/INSTALLER": "pip\n",
        }
        files[f"{name}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{name}/RECORD"))
        for path, text in files.items():
            (site / path).parent.mkdir(exist_ok=True)
            (site / path).write_text(text)

    def stop(self) -> int | None:
        """End the sample, if it has not ended; its status as `subprocess` has it."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        return self.process.returncode


def asked(python: str, identity: Identity | None) -> str | None:
    """The version of a Python, if this user may run it; else None."""
    whom: dict[str, object] = {}
    if identity is not None:
        whom = {"user": identity.uid, "group": identity.gid, "extra_groups": ()}
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", ASKED], capture_output=True, text=True, check=False, timeout=PROBE_S, cwd="/", env={"PATH": PATH}, **whom,
        )  # type: ignore[call-overload] # fmt: skip # the three are spelled as one mapping
    except (OSError, subprocess.TimeoutExpired):
        return None
    version: str = done.stdout.strip()
    return version if done.returncode == 0 and version.startswith("3.") else None


@contextlib.contextmanager
def sandbox(kind: str, drill: Drill) -> Iterator[Sandbox]:
    """A sandbox for one drill; at its end nothing of it is left: no process, no cgroup, no file."""
    tidy()
    mask = os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place()))
    try:
        folder.chmod(0o755)
        with cage("drill", memory_bytes=drill.MEMORY_MIB << 20, anywhere=True) as caged:
            box = Sandbox(kind, drill, folder, caged)
            if isinstance(versions := getattr(drill, "VERSIONS", None), tuple):
                box.install(drill.LIBRARY, *versions[0])  # type: ignore[attr-defined] # of a drill with versions
            try:
                yield box
            finally:
                box.stop()
    finally:
        os.umask(mask)
        shutil.rmtree(folder, ignore_errors=True)


def place() -> str:
    """Where the folder is made: root's own TMPDIR may be closed to the user that the sample runs as."""
    return "/tmp" if os.geteuid() == 0 and Path("/tmp").is_dir() else tempfile.gettempdir()  # noqa: S108 - by mkdtemp(3)


def tidy() -> None:
    """Remove the folders of drills that were killed before they could do so themselves."""
    with contextlib.suppress(OSError), os.scandir(place()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.geteuid() and time.time() - status.st_mtime > LEFT_AFTER_S:
                    shutil.rmtree(entry.path, ignore_errors=True)
