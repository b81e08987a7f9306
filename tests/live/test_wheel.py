"""The package as a stranger gets it: a wheel in an empty environment without a compiler, and a fresh clone."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope.machines import MACHINES

pytestmark = pytest.mark.live
REPOSITORY = Path(__file__).resolve().parents[2]
PRIVATELY = ("unshare", "--mount", "--propagation", "private")  # it mounts tracefs where that is missing
TOOLCHAIN = ("clang", "llc", "llvm-strip", "bpftool", "gcc", "cc", "make")
NETWORK = (
    "Temporary failure in name resolution",
    "No matching distribution",
    "ConnectionError",
    "Could not fetch URL",
    "Network is unreachable",
)


def done(*argv: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a step that must succeed; without a network the test is skipped, aloud."""
    run = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)
    if run.returncode != 0 and any(sign in run.stderr for sign in NETWORK):
        pytest.skip(f"packages cannot be fetched: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, f"{argv}: {run.stdout[-2000:]}{run.stderr[-3000:]}"
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(REPOSITORY), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty environment into which only the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=True)
    done(str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel), cwd=folder)
    return folder / "venv" / "bin"


@pytest.fixture(scope="module")
def poor_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PATH with everything of this machine but its compilers."""
    folder = tmp_path_factory.mktemp("path")
    for place in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(place).iterdir():
            if not program.name.startswith(TOOLCHAIN) and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    yield str(folder)
    shutil.rmtree(folder)


def test_what_is_in_the_wheel(wheel: Path) -> None:
    """One wheel for every machine: with the probes of each processor, the schema and the licences, no test, and of sources the one that engine bcc compiles."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name: archive.getinfo(name).file_size for name in archive.namelist()}
    for machine in MACHINES:
        assert names[f"agentscope/sources/probes/{machine}/core.bpf.o"] > 10_000
        assert names[f"agentscope/sources/probes/{machine}/examine.bpf.o"] > 10_000
    assert len([name for name in names if name.endswith(".bpf.o")]) == 2 * len(MACHINES)
    assert names["agentscope/stream.schema.json"] > 1000
    assert names["agentscope/service/agentscope.service"] > 1000
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in names if not name.startswith(("agentscope/", "agentscope_linux-"))]
    # what engine bcc compiles where it runs
    assert [name for name in names if name.endswith((".c", ".h", ".pyc"))] == ["agentscope/sources/probes/bcc.c"]


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    """What git knows below agentscope/ is what the wheel carries: nothing is missing, nothing is there by accident."""
    known = set(done("git", "ls-files", "agentscope", cwd=REPOSITORY).split())
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if name.startswith("agentscope/")}
    assert known - carried == set()


@pytest.mark.usefixtures("root")
def test_the_wheel_watches_without_a_compiler(installed: Path, poor_path: str, tmp_path: Path) -> None:
    """`agentscope events` from the wheel gets ready where there is no clang, and tells a death."""
    assert shutil.which("clang", path=poor_path) is None
    env = {"PATH": poor_path, "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    victim = subprocess.Popen(["sh", "-c", "read _; exit 3"], stdin=subprocess.PIPE)
    argv = [str(installed / "agentscope"), "events", "--for", "15", "--pid", str(victim.pid), "--state-dir", str(tmp_path)]
    process = subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    assert first, process.stderr.read()
    assert json.loads(first)["type"] == "agentscope.ready"
    assert json.loads(first)["data"]["engine"] == "core"
    victim.communicate(b"\n")
    kinds = []
    while "agentscope.agent.gone" not in kinds and (line := process.stdout.readline()):
        kinds.append(json.loads(line)["type"])
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert kinds.count("agentscope.incident.opened") == 1


IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, agentscope
declared = [line for line in importlib.metadata.requires("agentscope-linux") if "extra ==" in line and "dev" not in line.split(";")[1]]
extras = {line.split(">")[0].split("[")[0].replace("-", "_") for line in declared}
for module in pkgutil.walk_packages(agentscope.__path__, "agentscope."):
    try:
        module.name.endswith("__main__") or importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        top = error.name.split(".")[0]
        if not any(f"{extra}_".startswith(f"{top}_") for extra in extras):
            raise
        print(module.name, top)
"""


def test_the_wheel_needs_nothing_that_is_not_declared(installed: Path, tmp_path: Path) -> None:
    """Every module of the package can be imported with its declared dependencies alone; of the sinks, only what speaks OTLP wants its extra."""
    without = done(str(installed / "python"), "-I", "-c", IMPORT_ALL, cwd=tmp_path)
    assert [line.split()[0] for line in without.splitlines()] == ["agentscope.sinks._telemetry"]


@pytest.mark.usefixtures("root")
def test_a_fresh_clone_sets_itself_up(tmp_path: Path) -> None:
    """`git clone` and `make setup`, as the README has it, leave a program that runs; the second `make setup` does nothing."""
    clone = tmp_path / "clone"
    done("git", "clone", "--quiet", str(REPOSITORY), str(clone), cwd=tmp_path)
    env = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE"}
    }
    done(*PRIVATELY, "make", "setup", cwd=clone, env=env)
    said = done(str(clone / ".venv" / "bin" / "agentscope"), "doctor", "--json", cwd=tmp_path)
    engine = next(check for check in json.loads(said)["checks"] if check["name"] == "engine core")
    assert engine["ok"], engine
    ready = clone / ".venv" / ".ready"
    before = ready.stat().st_mtime_ns
    done(*PRIVATELY, "make", "setup", cwd=clone, env=env)
    assert ready.stat().st_mtime_ns == before
    assert done("git", "status", "--porcelain", cwd=clone) == ""
