"""A machine that is not as it should be: no BTF, no libbpf, full disks, few privileges. Each is a sentence and the documented status."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope.errors import ExitStatus
from tests.commandline import AGENTSCOPE, LONGEST_S, Told, agentscope, shell

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
PRIVATELY = ("unshare", "--mount", "--propagation", "private")
LIBBPF = next(iter(sorted(Path("/usr/lib").glob("*/libbpf.so.1.*"))), None)
PROBES = "import agentscope.sources, os, pathlib; print(pathlib.Path(agentscope.sources.__file__).parent / 'probes' / os.uname().machine / 'core.bpf.o')"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process to watch, whose standard error is a pipe."""
    process = subprocess.Popen(["sleep", "60"], stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def with_mounts(mounts: str, command: str, *arguments: str) -> Told:
    """Run a command after these mounts, in a mount namespace of its own: nobody else sees them."""
    return shell(f"set -e; {mounts}\n set +e; {command}", *arguments, front=PRIVATELY)


def lines_of(told: Told) -> list[dict]:
    """The stream that was told."""
    return [json.loads(line) for line in told.out.splitlines()]


# --- the kernel and its libraries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["events --for 1 --engine core", "watch --once >/dev/null; $A events --for 1 --engine core"]
)
def test_a_kernel_without_btf(command: str) -> None:
    """Without BTF the probes cannot be fitted to the kernel, and the sentence says that."""
    with_mounts("mount -t tmpfs none /sys/kernel/btf", f"$A {command}").is_sentence(
        ExitStatus.UNAVAILABLE, "/sys/kernel/btf/vmlinux"
    )


def test_a_kernel_without_btf_is_watched_all_the_same() -> None:
    """The best engine that is left watches, and one line says why it is no better one."""
    told = with_mounts("mount -t tmpfs none /sys/kernel/btf", "$A events --for 0.2")
    assert told.status == ExitStatus.HEALTHY, told.said
    (said,) = told.err.decode().splitlines()
    assert said.startswith("agentscope: engine netlink watches, with less evidence; not core: ")
    assert "/sys/kernel/btf/vmlinux" in said
    assert lines_of(told)[0]["data"]["engine"] == "netlink"


@pytest.mark.skipif(LIBBPF is None, reason="libbpf is somewhere else here")
@pytest.mark.parametrize("hide", ["/dev/null", "/etc/hostname"], ids=["empty", "garbage"])
def test_a_machine_without_libbpf(hide: str) -> None:
    """Without libbpf, or with a broken one, the sentence names the package."""
    told = with_mounts(f"mount --bind {hide} {LIBBPF}", "$A events --for 1 --engine core")
    told.is_sentence(ExitStatus.UNAVAILABLE, "libbpf", "Try: ")


@pytest.mark.parametrize("hide", ["/dev/null", "/etc/hostname", "/bin/true"], ids=["empty", "garbage", "another ELF file"])
def test_probes_that_are_damaged(hide: str) -> None:
    """An object file that is no probe is refused in a sentence."""
    probes = subprocess.run([sys.executable, "-c", PROBES], capture_output=True, text=True, check=True).stdout.strip()
    told = with_mounts(f"mount --bind {hide} {probes}", "$A events --for 1 --engine core")
    told.is_sentence(ExitStatus.UNAVAILABLE, "probes")


@pytest.mark.parametrize("missing", ["-sys_admin,-bpf", "-all"], ids=["no BPF", "nothing"])
def test_root_without_capabilities(missing: str) -> None:
    """Root in a container that may not use BPF is told so, not shown an errno."""
    told = shell("$A events --for 1 --engine core", front=("setpriv", f"--bounding-set={missing}", f"--inh-caps={missing}"))
    assert told.status in {ExitStatus.UNAVAILABLE, ExitStatus.NOT_PERMITTED}, told
    told.is_sentence(told.status, "probes")


def test_doctor_where_probes_cannot_run() -> None:
    """`doctor` names what is missing, with exit status 69."""
    told = with_mounts("mount -t tmpfs none /sys/kernel/btf", "$A doctor --json")
    told.is_clean()
    assert told.status == ExitStatus.UNAVAILABLE
    failed = {check["name"] for check in json.loads(told.out)["checks"] if check["ok"] is False}
    assert {"engine core", "BTF"} <= failed


def test_run_where_probes_cannot_run() -> None:
    """`run` goes on with less evidence where the probes cannot run, and says so once."""
    told = with_mounts("mount -t tmpfs none /sys/kernel/btf", "$A run -- sh -c 'echo out; exit 3'")
    told.is_clean()
    assert (told.status, told.out) == (3, b"out\n")
    assert told.said.count("less evidence") == 1
    assert "status 3" in told.said


def test_what_ends_before_it_can_be_looked_at() -> None:
    """The report of a command that ends at once has its command line, also where that is read in /proc; the sender is not made up."""
    told = with_mounts("mount -t tmpfs none /sys/kernel/btf", "$A run -- sh -c 'kill -9 $$'")
    said = " ".join(told.said.split())
    assert "Command sh -c kill -9 $$" in said
    assert "engine netlink" in said
    assert "who sent it could not be seen" in said
    assert "oom/userspace-killer: who sends signals is seen by BPF only" in said


def test_a_machine_without_tracefs(sleeper: subprocess.Popen[bytes]) -> None:
    """Without tracefs only the last words on pipes and terminals are lost: the stream says so and goes on."""
    told = with_mounts(
        "mount -t tmpfs none /sys/kernel/tracing; ! umount -l /sys/kernel/debug/tracing 2>/dev/null || true",
        "$A events --for 1 --pid $1",
        str(sleeper.pid),
    )
    told.is_clean()
    assert (told.status, told.err) == (0, b"")
    first = lines_of(told)[0]
    assert first["type"] == "agentscope.ready"


def test_a_machine_without_kernel_log(sleeper: subprocess.Popen[bytes]) -> None:
    """A /dev/kmsg that ends at once, as in some containers, costs its lines and no processor time."""
    told = with_mounts("mount --bind /dev/null /dev/kmsg", "time -p $A events --for 3 --pid $1", str(sleeper.pid))
    assert told.status == 0, told.said
    used = dict(line.split() for line in told.said.splitlines() if line[:4] in {"user", "sys "})
    assert float(used["user"]) + float(used["sys"]) < 1.5


@pytest.mark.parametrize("limit", ["--nofile=12", "--memlock=0", "--as=120000000", "--nproc=1"])
def test_small_limits(limit: str, sleeper: subprocess.Popen[bytes]) -> None:
    """Under a small resource limit it works or says what is wrong; it never shows a traceback."""
    told = shell("$A events --for 1 --pid $1", str(sleeper.pid), front=("prlimit", limit))
    told.is_clean()
    if told.status != 0:
        told.is_sentence(told.status)
        assert told.status != ExitStatus.UNEXPECTED


# --- full disks and readers that leave ----------------------------------------------------------------------------------------


def test_a_full_disk_behind_the_record(tmp_path: Path) -> None:
    """A full disk costs the record of an incident and the baselines, never a line of the stream; each loss is a line of its own."""
    script = """
      ulimit -c 0; sh -c 'read _; kill -11 $$' < <(sleep 2; echo) & victim=$!
      $A events --for 4 --pid $victim --state-dir $1
    """
    full = "mount -t tmpfs -o size=64k none $1; head -c 60k /dev/zero > $1/filler; cat /dev/zero > $1/rest 2>/dev/null || true"
    told = with_mounts(full, script, str(tmp_path))
    told.is_clean()
    assert told.status == 0, told.said
    types = [line["type"] for line in lines_of(told)]
    assert types.count("agentscope.incident.opened") == 1
    lost = [line["data"] for line in lines_of(told) if line["type"] == "agentscope.lost"]
    assert sorted(loss["source"] for loss in lost) == ["baseline", "ledger"]
    assert all("No space left" in loss["says"] for loss in lost)


def test_a_full_disk_behind_the_stream(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A stream that cannot be written ends with exit status 74 and the reason."""
    full = "mount -t tmpfs -o size=8k none $1; cat /dev/zero > $1/filler 2>/dev/null || true"
    told = with_mounts(full, "$A events --for 20 --pid $2 > $1/stream", str(tmp_path), str(sleeper.pid))
    told.is_sentence(ExitStatus.CANNOT_WRITE, "No space left on device")
    shell("$A events --for 20 --pid $1 > /dev/full", str(sleeper.pid)).is_sentence(
        ExitStatus.CANNOT_WRITE, "No space left on device"
    )


def test_a_reader_that_leaves_the_stream(sleeper: subprocess.Popen[bytes]) -> None:
    """`events | head -1` prints agentscope.ready and ends at once, quietly."""
    told = shell("$A events --for 30 --pid $1 | head -1; exit ${PIPESTATUS[0]}", str(sleeper.pid), front=("timeout", "15"))
    told.is_clean()
    assert (told.status, told.err) == (0, b"")
    assert [line["type"] for line in lines_of(told)] == ["agentscope.ready"]


def test_a_stream_without_standard_output(sleeper: subprocess.Popen[bytes]) -> None:
    """Started with standard output closed it says that it cannot write, instead of watching for nobody."""
    told = shell("$A events --for 20 --pid $1 >&-", str(sleeper.pid), front=("timeout", "15"))
    told.is_sentence(ExitStatus.CANNOT_WRITE)


def test_a_record_folder_that_is_a_file(tmp_path: Path) -> None:
    """A state directory that cannot be one costs the record and the baselines only."""
    place = tmp_path / "file"
    place.write_text("")
    script = "ulimit -c 0; sh -c 'read _; kill -11 $$' < <(sleep 2; echo) & $A events --for 4 --pid $! --state-dir $1"
    told = shell(script, str(place))
    told.is_clean()
    types = [line["type"] for line in lines_of(told)]
    assert (told.status, types.count("agentscope.incident.opened"), types.count("agentscope.lost")) == (0, 1, 2)


# --- ends -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(number: signal.Signals, sleeper: subprocess.Popen[bytes]) -> None:
    """SIGINT and SIGTERM end the stream with exit status 0 and whole lines."""
    argv = [*AGENTSCOPE, "events", "--pid", str(sleeper.pid)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert b"agentscope.ready" in process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=LONGEST_S)
    assert (process.returncode, err) == (0, b"")
    assert all(json.loads(line) for line in out.splitlines())


def test_a_target_that_is_already_a_zombie() -> None:
    """A process that has ended and was not waited for is no traceback: it is watched in vain or named as gone."""
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    told = agentscope("events", "--for", "1", "--pid", str(dead.pid))
    dead.wait()
    told.is_clean()
    assert told.status in {ExitStatus.HEALTHY, ExitStatus.NO_SUCH_PROCESS}


def test_nothing_is_left_behind(sleeper: subprocess.Popen[bytes]) -> None:
    """Killed with SIGKILL, agentscope leaves no program and no map in the kernel."""
    before = loaded()
    process = subprocess.Popen([*AGENTSCOPE, "events", "--pid", str(sleeper.pid)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert loaded() - before
    process.kill()
    process.communicate()
    for _ in range(50):  # the kernel frees them after a grace period
        if not loaded() - before:
            return
        signal.sigtimedwait([], 0.1)
    raise AssertionError(f"still loaded: {loaded() - before}")


def loaded() -> set[tuple[str, int]]:
    """The BPF programs and maps of the machine, by id."""
    found = set()
    for kind in ("prog", "map"):
        shown = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, check=True)
        found |= {(kind, each["id"]) for each in json.loads(shown.stdout)}
    return found
