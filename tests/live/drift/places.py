"""Where a scene plays: a folder with an agent and what it stands on, which can be built, replaced and upgraded there."""

import itertools
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from scenario import BUILD
from zoo import Broken

PROGRAMS = Path(__file__).resolve().parent / "programs"
WHEELS = BUILD / "wheels"
NPM_CACHE = BUILD / "npm"
PYTHON = str(Path(sys.executable).resolve())
PIP = BUILD / "alone" / "pip"  # a link: run by its path, pip sees what stands beside it as installed
QUIET = ("--disable-pip-version-check", "-q")
CFLAGS = ("-O1", "-w", "-fno-toplevel-reorder")


class Unplayable(Exception):
    """What a scene needs is not to be had here: a reason to skip."""


def ran(argv: Sequence[str], *, timeout_s: float = 60, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program of the stage to its end; its stdout.

    Raises:
        Broken: it failed.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s, env=env, cwd=cwd)
    if done.returncode != 0:
        raise Broken(f"{' '.join(argv)[:300]} exited with {done.returncode}: {done.stdout[-800:]}{done.stderr[-1500:]}")
    return done.stdout


DOWNLOADING = threading.Lock()


def fetch(wheels: Sequence[str]) -> None:
    """Have these wheels ready, from PyPI at the first time.

    Raises:
        Unplayable: one of them cannot be had.
    """
    for wheel in wheels:
        if (WHEELS / f"{wheel}.had").exists():
            continue
        WHEELS.mkdir(parents=True, exist_ok=True)
        argv = [
            sys.executable,
            "-m",
            "pip",
            *QUIET,
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            str(WHEELS),
            wheel,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
        if done.returncode != 0:
            raise Unplayable(f"{wheel} cannot be had: {done.stderr[-300:]}")
        (WHEELS / f"{wheel}.had").touch()


class Place:
    """A folder where a scenario plays: `folder` as the agent names it, `outside` as we reach it.

    `agent` names its program, as no other test that runs on this machine does, in no more than the kernel keeps of a name. `lockfile`
    is what a configuration says of it.
    """

    lockfile: str | None = None
    inside: tuple[str, ...] = ()
    serial = itertools.count(1)

    def __init__(self, name: str, folder: Path, outside: Path | None = None) -> None:
        self.name = name
        self.agent = f"ag{os.getpid() % 1_000_000}-{next(Place.serial)}"
        self.folder = folder
        self.outside = outside or folder
        self.outside.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> str:
        """A file of the place as the agent names it."""
        return str(self.folder / name)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Put a text there."""
        file = self.outside / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def run(self, *argv: str, env: dict[str, str] | None = None) -> str:
        """Run something to its end in this place."""
        return ran([*self.inside, *argv], env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})})

    def compiled(self, name: str, source: str, *flags: str) -> None:
        """Compile one of the stage's sources to a file of this place, put in place by rename."""
        beside = self.outside / f"{name}.new"
        beside.parent.mkdir(parents=True, exist_ok=True)
        ran(
            [
                "gcc",
                *CFLAGS,
                "-o",
                str(beside),
                str(PROGRAMS / source),
                *(flag.replace("@", str(self.outside)) for flag in flags),
            ]
        )
        beside.rename(self.outside / name)

    def library(self, *flags: str, name: str = "libfoo.so.1", soname: str | None = None) -> None:
        """Build libfoo as a shared library of this place."""
        self.compiled(name, "libfoo.c", "-shared", "-fPIC", f"-Wl,-soname,{soname or name}", *flags)

    def program(self, *flags: str, library: str = "libfoo.so.1") -> tuple[str, ...]:
        """Build the agent against the libfoo that stands there now; its command line."""
        self.compiled(self.agent, "agent.c", *flags, f"@/{library}", "-Wl,-rpath,$ORIGIN")
        return (self.path(self.agent),)

    def python_module(self, *flags: str, library: str = "libfoo.so.1", name: str = "extension.so") -> None:
        """Build the Python module over the libfoo that stands there now."""
        self.compiled(name, "extension.c", "-shared", "-fPIC", *flags, f"@/{library}", "-Wl,-rpath,$ORIGIN")

    def script(self, imports: str, work: str, *, python: str = PYTHON) -> tuple[str, ...]:
        """Write a Python agent that imports, is ready, and works each time it is told; its command line."""
        body = "\n".join(f"    {line}" for line in work.splitlines())
        self.write(f"{self.agent}.py", AGENT_PY.format(imports=imports, work=body))
        return (python, self.path(f"{self.agent}.py"))

    def venv(self, *wheels: str, base: str = PYTHON, copies: bool = False) -> str:
        """Make a venv with these distributions, by pip; its interpreter."""
        ran([base, "-m", "venv", "--without-pip", *(["--copies"] if copies else []), str(self.outside / "venv")])
        self.pip(*wheels)
        return self.path("venv/bin/python")

    def pip(self, *wheels: str) -> None:
        """Install or upgrade distributions of the venv, as a person would with pip; wheels are kept for the next time."""
        with DOWNLOADING:
            fetch(wheels)
        if wheels:
            self._install("--find-links", str(WHEELS), *wheels)

    def _install(self, *words: str) -> None:
        with DOWNLOADING:
            if not PIP.exists():
                PIP.parent.mkdir(parents=True, exist_ok=True)
                PIP.unlink(missing_ok=True)
                PIP.symlink_to(Path(find_spec("pip").origin).parent)  # type: ignore[union-attr, arg-type]
        venv = str(self.outside / "venv/bin/python")
        ran([venv, str(PIP), *QUIET, "install", "--no-compile", "--no-deps", "--no-index", *words])

    def wheel(self, name: str, version: str, files: dict[str, str]) -> None:
        """Make a distribution of our own and install it by pip."""
        stem = f"{name}-{version}"
        wheel = self.outside / f"{stem}-py3-none-any.whl"
        dist = {
            f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: stage\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in {**files, **dist}.items():
                archive.writestr(path, text)
            record = "".join(f"{path},,\n" for path in (*files, *dist, f"{stem}.dist-info/RECORD"))
            archive.writestr(f"{stem}.dist-info/RECORD", record)
        self._install(str(wheel))

    def node(self, imports: str, work: str) -> tuple[str, ...]:
        """Write a Node agent; its command line."""
        self.write(f"{self.agent}.js", AGENT_JS.replace("@imports", imports).replace("@work", work))
        return ("node", self.path(f"{self.agent}.js"))

    def npm(self, *packages: str) -> None:
        """Install Node packages by npm, and those that the place's package.json wants."""
        NPM_CACHE.mkdir(parents=True, exist_ok=True)
        how = ("--prefer-offline", "--no-audit", "--no-fund", "--prefix", str(self.outside), "--cache", str(NPM_CACHE))
        env = {**os.environ, "HOME": str(self.outside)}
        done = subprocess.run(
            ["npm", "install", *how, *packages],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env=env,
            cwd=self.outside,
        )
        if done.returncode != 0:
            raise Unplayable(f"{', '.join(packages) or 'a Node package'} cannot be had: {done.stderr[-300:]}")


AGENT_PY = """\
import signal, sys
signal.alarm(50)
sys.path.insert(0, __file__.rpartition("/")[0])
{imports}

def work():
{work}

print("ready", flush=True)
for line in sys.stdin:
    if line.startswith("quit"):
        break
    work()
    print("done", flush=True)
"""

AGENT_JS = """\
setTimeout(() => process.exit(99), 50000).unref();
@imports
function work() {
  @work
}
console.log("ready");
process.stdin.setEncoding("utf8").on("data", (line) => {
  if (line.startsWith("quit")) process.exit(0);
  work();
  console.log("done");
}).on("end", () => process.exit(0));
"""
