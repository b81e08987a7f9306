"""The command line without root: every wrong input gets one clear sentence and the documented exit status."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from agentscope.doctor import GIVES, absent_of
from agentscope.errors import ExitStatus
from tests import samples
from tests.commandline import AGENTSCOPE, LONGEST_S, agentscope, in_terminal, shell, without_root

GONE_PID = "4194001"
COMMANDS = ("diagnose", "doctor", "events", "explain", "replay", "run", "watch")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that can be reached by everybody: those of pytest are closed to other users."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A good recording with several incidents."""
    made = subprocess.run([sys.executable, samples.__file__], capture_output=True, check=True)
    path = tmp_path / "night.ndjson"
    path.write_bytes(made.stdout)
    return path


# --- processes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("diagnose", GONE_PID), ("events", "--pid", GONE_PID), ("watch", "--once", "--pid", GONE_PID)]
)
def test_a_pid_that_does_not_exist(command: tuple[str, ...], tmp_path: Path) -> None:
    """A process that is not there and left no record is exit status 3, and the sentence names it."""
    agentscope(*command, "--state-dir", str(tmp_path)).is_sentence(ExitStatus.NO_SUCH_PROCESS, GONE_PID, "Try: ")


def test_a_pid_that_does_not_exist_without_root(home: Path) -> None:
    """That the kernel log is closed to us does not hide that there is no such process."""
    told = agentscope("diagnose", GONE_PID, front=without_root(home), cwd=home)
    told.is_sentence(ExitStatus.NO_SUCH_PROCESS, GONE_PID)


@pytest.mark.parametrize("target", [("--pid", "1"), ("--name", "x"), ("--config", "/x")])
def test_a_fleet_and_a_target_of_this_host(target: tuple[str, ...]) -> None:
    """A fleet is shown whole: a target beside it is refused and not ignored, also where the fleet comes from the environment."""
    url = "nats://127.0.0.1:1"
    for told in (
        agentscope("watch", "--once", "--fleet", url, *target),
        agentscope("watch", "--once", *target, env={"AGENTSCOPE_FLEET": url}),
    ):
        told.is_sentence(ExitStatus.USAGE, "shown whole", "unset AGENTSCOPE_FLEET")


@pytest.mark.parametrize("pid", ["0", "-1", "abc", "1.5", "", "9" * 40, "4194304", "١٢"])
def test_what_is_no_pid(pid: str) -> None:
    """A target that cannot be a process number is a usage error, whatever it looks like."""
    agentscope("events", f"--pid={pid}").is_sentence(ExitStatus.USAGE, "Try: ")


def test_a_name_that_nothing_has(tmp_path: Path) -> None:
    """`diagnose` of a name that no process has says so with exit status 3."""
    told = agentscope("diagnose", "no-such-agent-anywhere", "--state-dir", str(tmp_path))
    told.is_sentence(ExitStatus.NO_SUCH_PROCESS, "no-such-agent-anywhere")


@pytest.mark.skipif(
    not Path("/proc/2/comm").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n", reason="no kernel threads here"
)
@pytest.mark.parametrize("command", [("diagnose", "2"), ("events", "--pid", "2")])
def test_a_kernel_thread(command: tuple[str, ...]) -> None:
    """A thread of the kernel is refused as such."""
    agentscope(*command).is_sentence(ExitStatus.USAGE, "thread of the kernel")


def test_a_process_of_another_user_without_root(home: Path) -> None:
    """Somebody else's process is exit status 4, and the sentence has the command that may."""
    told = agentscope("diagnose", "1", front=without_root(home), cwd=home)
    told.is_sentence(ExitStatus.NOT_PERMITTED, "process 1", "sudo agentscope diagnose 1")


@pytest.mark.parametrize(
    "command", [("events", "--engine", "core"), ("events", "--pid", "1"), ("events", "--engine", "none", "--pid", "1")]
)
def test_watching_others_without_root(command: tuple[str, ...], home: Path) -> None:
    """Without root, the probes and the processes of others are exit status 4, and the sentence names sudo."""
    told = agentscope(*command, front=without_root(home), cwd=home)
    assert told.status == ExitStatus.NOT_PERMITTED, told.said
    assert "needs root" in told.said
    assert "sudo " in told.said
    assert not told.out


@pytest.mark.parametrize("engine", ["auto", "none"])
def test_watching_our_own_without_root(engine: str, home: Path) -> None:
    """Without root our own processes are watched all the same, and the first line says what cannot be seen."""
    front = without_root(home)
    told = agentscope("events", "--engine", engine, "--name", "x", "--for", "0.1", front=front, cwd=home)
    told.is_clean()
    assert told.status == ExitStatus.HEALTHY, told.said
    ready = json.loads(told.out.splitlines()[0])["data"]
    if front:
        assert ready["engine"] in {"netlink", "none"}
        assert any("own processes" in lost for lost in ready["degraded"])
        assert ("with less evidence; not core and bcc: " in told.said) == (engine == "auto")
    assert any("who sends a signal" in lost for lost in ready["degraded"]) or ready["engine"] == "core"


def test_the_table_needs_no_root(home: Path) -> None:
    """`watch` without a terminal prints a table once and exits 0 for anybody."""
    told = agentscope("watch", front=without_root(home), cwd=home)
    told.is_clean()
    assert (told.status, told.err) == (0, b"")
    assert b"sudo agentscope" in told.out


def test_doctor_without_root(home: Path) -> None:
    """`doctor` without root says what was not tried, and that the probes cannot run from here."""
    told = agentscope("doctor", front=without_root(home), cwd=home)
    told.is_clean()
    assert told.status == ExitStatus.UNAVAILABLE, told.said
    assert b"sudo agentscope doctor" in told.out


def test_doctor_tells_every_capability(home: Path) -> None:
    """`doctor --json` has a check for each engine and source; what does not work says why, and what to type."""
    told = agentscope("doctor", "--json", front=without_root(home), cwd=home)
    checks = {check["name"]: check for check in json.loads(told.out)["checks"]}
    assert {"engine core", "engine netlink", "engine none", "engine auto", "kernel log", "sockets", "pidfd"} <= checks.keys()
    assert checks["engine none"]["ok"] is True
    assert "sends a signal" in checks["engine netlink"]["says"] or checks["engine netlink"]["ok"] is False
    assert all(check["says"] and (check["ok"] is not False or check["try_this"]) for check in checks.values())


def test_doctor_tells_every_extra(home: Path) -> None:
    """`doctor`, as text and as JSON, has a check for each extra that the package declares: what it gives, or what to type for it."""
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = agentscope("doctor", "--json", front=without_root(home), cwd=home)
    checks = {check["name"]: check for check in json.loads(found.out)["checks"]}
    assert {name for name in checks if name.startswith("extra ")} == {f"extra {name}" for name in declared if name != "dev"}
    assert set(GIVES) == set(declared) - {"dev"}
    for name, gives in GIVES.items():
        check = checks[f"extra {name}"]
        assert gives[0] in check["says"]
        assert check["ok"] or check["try_this"] == f"pip install 'agentscope-linux[{name}]'"
        assert f"extra {name}: ".encode() in agentscope("doctor", front=without_root(home), cwd=home).out


def test_an_engine_that_there_is_not() -> None:
    """An engine of another name is exit status 64, and those that there are stand beside it."""
    told = agentscope("events", "--engine", "no-such-engine")
    assert told.status == ExitStatus.USAGE
    assert "'no-such-engine' is not one of 'auto', 'core', 'bcc', 'netlink', 'none'" in told.said


def test_what_an_extra_lacks() -> None:
    """A requirement of an extra is lacking where it is not installed or too old, also behind an extra of its own; others do not count."""
    wanted = (
        'no-such-thing>=1; extra == "x"',
        'msgspec>=999; extra == "x"',
        'msgspec>=0.19; extra == "x"',
        'no-such-other; extra == "y"',
        "no-such-third",
    )
    assert absent_of(wanted, "x") == ["no-such-thing", "msgspec>=999"]


# --- options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("events", "--name", "("), "regular expression"),
        (("events", "--name", "[a-"), "regular expression"),
        (("explain", "no/such-cause"), "no/such-cause"),
        (("explain", "../../etc/passwd"), "there is no cause"),
        (("diagnose",), "either a process or --log"),
        (("diagnose", "1", "--log", "-"), "either a process or --log"),
    ],
)
def test_wrong_options(argv: tuple[str, ...], part: str) -> None:
    """An option that asks for what cannot be is exit status 64 and one sentence."""
    agentscope(*argv).is_sentence(ExitStatus.USAGE, part, "Try: ")


@pytest.mark.parametrize(
    "argv",
    [
        ("nonsense",),
        ("events", "--nonsense"),
        ("events", "--for", "-1"),
        ("events", "--hang-after", "0"),
        ("events", "--engine", "x"),
        ("run",),
        ("replay",),
    ],
)
def test_what_click_refuses(argv: tuple[str, ...]) -> None:
    """Unknown commands, options and values are exit status 64 with the usage, not click's own 2."""
    told = agentscope(*argv)
    told.is_clean()
    assert told.status == ExitStatus.USAGE, told.said
    assert "Error: " in told.said
    assert told.out == b""


@pytest.mark.parametrize("argv", [("--help",), *((command, "--help") for command in COMMANDS)])
def test_help(argv: tuple[str, ...]) -> None:
    """Every command has help, on standard output, with exit status 0."""
    told = agentscope(*argv)
    assert (told.status, told.err) == (0, b"")
    assert told.out.startswith(b"Usage: agentscope")


# --- files ----------------------------------------------------------------------------------------------------------------


def bad_lines() -> dict[str, bytes]:
    """What a damaged or hostile recording may hold, by name."""
    return {
        "text": b"hello",
        "no object": b"[1, 2]",
        "no envelope": b"{}",
        "cut off": b'{"specversion": "1.0", "id": "x", "sour',
        "unknown type": b'{"specversion":"1.0","id":"1","source":"s","type":"agentscope.nonsense","data":{}}',
        "no data": b'{"specversion":"1.0","id":"1","source":"s","type":"agentscope.ready","data":{}}',
        "wrong kind": b'{"specversion":"1.0","id":"1","source":"s","type":"agentscope.lost","data":{"event":"agentscope.lost","at_ns":"x","source":1,"count":[]}}',
        "deep": b"[" * 200_000,
        "not UTF-8": b'{"specversion":"1.0","id":"\xff\xfe"}',
        "binary": bytes(range(256)).replace(b"\n", b""),
        "huge number": b'{"specversion":"1.0","id":"1","source":"s","type":"agentscope.lost","data":{"event":"agentscope.lost","at_ns":1e999,"source":"s","count":1}}',
        "very long": b'{"specversion":"' + b"x" * (5 << 20) + b'"}',
    }


def test_a_damaged_recording(recording: Path) -> None:
    """Each bad line of a recording is named by its number, the rest is replayed as if it were not there, and the status is 65."""
    whole = agentscope("replay", "--json", str(recording))
    good = recording.read_bytes().splitlines()
    mixed, wrong = [], []
    for position, line in enumerate(good):
        if position < len(bad_lines()):
            mixed.append(list(bad_lines().values())[position])
            wrong.append(len(mixed))
        mixed.append(line)
    recording.write_bytes(b"\n".join(mixed) + b"\n")
    told = agentscope("replay", "--json", str(recording))
    told.is_clean()
    named = [int(line.split(", line ")[1].split(":")[0]) for line in told.said.splitlines()]
    assert named == wrong
    assert told.status == ExitStatus.BAD_INPUT
    assert whole.status == ExitStatus.HEALTHY
    assert len(good) > len(wrong) > 0
    assert told.out == whole.out


@pytest.mark.parametrize("name", bad_lines())
def test_an_errors_name_is_short(name: str, tmp_path: Path) -> None:
    """A line of garbage makes one short line of complaint with no control character in it, however long the garbage is."""
    path = tmp_path / "bad.ndjson"
    path.write_bytes(bad_lines()[name] + b"\n")
    told = agentscope("replay", str(path))
    told.is_sentence(ExitStatus.BAD_INPUT, "line 1")
    assert len(told.err) < 600
    assert told.said.strip().isprintable()


def test_a_recording_that_cannot_be_read(tmp_path: Path, home: Path) -> None:
    """No file, a folder, and a file without permission are each one sentence with exit status 65."""
    agentscope("replay", str(tmp_path / "none")).is_sentence(ExitStatus.BAD_INPUT, "No such file")
    agentscope("replay", str(tmp_path)).is_sentence(ExitStatus.BAD_INPUT, "Is a directory")
    agentscope("diagnose", "--log", str(tmp_path / "none")).is_sentence(ExitStatus.BAD_INPUT, "No such file")
    agentscope("watch", "--once", "--replay", str(tmp_path / "none")).is_sentence(ExitStatus.BAD_INPUT, "No such file")
    closed = tmp_path / "closed"
    closed.write_text("{}\n")
    closed.chmod(0)
    front = without_root(home)
    agentscope("replay", str(closed), front=front, cwd=home).is_sentence(ExitStatus.BAD_INPUT, "Permission denied")


def test_an_empty_recording(tmp_path: Path) -> None:
    """A recording without a line is no error."""
    path = tmp_path / "empty"
    path.write_bytes(b"")
    told = agentscope("replay", str(path))
    assert (told.status, told.out, told.err) == (0, b"The recording holds no incident.\n", b"")


@pytest.mark.parametrize(
    ("text", "mode", "status", "part"),
    [
        (b'[agent.a]\nmatch = { name = "a" }\n', 0o666, ExitStatus.USAGE, "written by others"),
        (b'[agent.a]\nmatch = { name = "a" }\n', 0o620, ExitStatus.USAGE, "written by others"),
        (b"[agent.a\n", 0o600, ExitStatus.BAD_INPUT, "not right"),
        (b"[agent.a]\n", 0o600, ExitStatus.BAD_INPUT, "match"),
        (b"[agent.a]\nmatch = {}\n", 0o600, ExitStatus.BAD_INPUT, "matches nothing"),
        (b'[agent.a]\nmatch = { colour = "red" }\n', 0o600, ExitStatus.BAD_INPUT, "colour"),
        (b'[agent.a]\nmatch = { name = "(" }\n', 0o600, ExitStatus.USAGE, "regular expression"),
        (b'[agents.a]\nmatch = { name = "a" }\n', 0o600, ExitStatus.BAD_INPUT, "agents"),
        (bytes(range(256)), 0o600, ExitStatus.BAD_INPUT, "not right"),
        (b'[agent.a]\nmatch = { name = "a" }\n#' + b"x" * (2 << 20), 0o600, ExitStatus.BAD_INPUT, ""),
        (b"a = " + b"[" * 100_000, 0o600, ExitStatus.BAD_INPUT, "not right"),
    ],
)  # fmt: skip
def test_a_config_that_is_not_right(text: bytes, mode: int, status: ExitStatus, part: str, tmp_path: Path) -> None:
    """A config file that is damaged, wrong or open to others is refused with a sentence that names the file."""
    path = tmp_path / "agentscope.toml"
    path.write_bytes(text)
    path.chmod(mode)
    agentscope("events", "--for", "0", "--config", str(path)).is_sentence(
        status, str(path) if "regular" not in part else "", part
    )


def test_a_config_that_cannot_be_read(tmp_path: Path, home: Path) -> None:
    """No file, a folder, a pipe and a file without permission are each one sentence, and none of them waits."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, part in (("none", "No such file"), (".", "directory"), ("pipe", "not a regular file")):
        agentscope("events", "--config", str(tmp_path / name)).is_sentence(ExitStatus.BAD_INPUT, part)
    closed = tmp_path / "closed.toml"
    closed.touch(0)
    front = without_root(home)
    agentscope("events", "--config", str(closed), front=front, cwd=home).is_sentence(ExitStatus.BAD_INPUT, "Permission denied")


# --- standard output and the terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["replay --json $1", "replay $1", "explain", "doctor", "watch --once", "--help"])
def test_a_reader_that_leaves(command: str, recording: Path) -> None:
    """`| head -1` ends the program quietly: no traceback, no word on standard error."""
    many = recording.read_bytes() * (20 if "--json" in command else 1)
    recording.write_bytes(many)
    told = shell(f"$A {command} | head -1; exit ${{PIPESTATUS[0]}}", str(recording))
    told.is_clean()
    assert told.err == b""
    assert told.out.count(b"\n") == 1
    assert told.status in {ExitStatus.HEALTHY, ExitStatus.UNAVAILABLE}


@pytest.mark.parametrize(
    "command", ["replay --json $1", "explain", "doctor", "watch --once", "diagnose --log $1", "--help", "--version"]
)
def test_a_full_disk_behind_standard_output(command: str, recording: Path) -> None:
    """Output that cannot be written is one sentence and exit status 74."""
    told = shell(f"$A {command} > /dev/full", str(recording))
    told.is_sentence(ExitStatus.CANNOT_WRITE, "No space left on device")


@pytest.mark.parametrize("command", ["replay $1", "explain", "watch --once", "--help", "run -- true"])
def test_closed_descriptors(command: str, recording: Path) -> None:
    """Started without standard input, output or error, as some supervisors do, it neither crashes nor writes into another file."""
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        told = shell(f"$A {command} {closed}", str(recording))
        told.is_clean()
        assert told.status in {ExitStatus.HEALTHY, ExitStatus.CANNOT_WRITE}, (closed, told)


@pytest.mark.parametrize(
    "command",
    [("explain", "oom/cgroup"), ("doctor",), ("watch", "--once"), ("replay", "{}"), ("watch", "--once", "--replay", "{}")],
)
def test_a_narrow_terminal(command: tuple[str, ...], recording: Path) -> None:
    """On 40 columns no line is wider than the terminal."""
    from rich.text import Text

    told = in_terminal(*(word.format(recording) for word in command), columns=40, lines=10)
    told.is_clean()
    lines = [Text.from_ansi(line).cell_len for line in told.out.decode().splitlines()]
    assert lines
    assert max(lines) <= 40


@pytest.mark.parametrize("size", [(40, 10), (20, 5), (300, 90)])
def test_the_screen_on_any_terminal(size: tuple[int, int], recording: Path) -> None:
    """The terminal UI comes up on a terminal of any size and leaves with exit status 0 when q is typed."""
    told = in_terminal("watch", "--replay", str(recording), columns=size[0], lines=size[1], keys=b"q")
    told.is_clean()
    assert (told.status, told.err) == (0, b"")
    assert len(told.out) > 200


# --- run ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["as we are", "without root"])
def run(request: pytest.FixtureRequest, home: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Starts a command under `agentscope run`, with the privileges we have and with none."""
    if request.param == "as we are" and os.geteuid() != 0:
        pytest.skip("we are not root: the other half of this test is the same")
    front = without_root(home) if request.param == "without root" else []

    def start(
        *command: str, stdin: bytes = b"", stderr: int | BinaryIO = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        argv = [*front, *AGENTSCOPE, "run", "--state-dir", str(home / "state"), "--", *command]
        return subprocess.run(
            argv, input=stdin, stdout=subprocess.PIPE, stderr=stderr, check=False, timeout=LONGEST_S, cwd=home
        )

    return start


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 255])
def test_run_mirrors_exit_codes(run: Run, code: int) -> None:
    """`run` exits with what its command exits with."""
    assert run("sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGINT, signal.SIGPIPE, signal.SIGUSR1],
    ids=lambda number: number.name,
)
def test_run_mirrors_signals(run: Run, number: signal.Signals) -> None:
    """`run` ends by the signal that ended its command, so that a supervisor sees the same."""
    done = run("sh", "-c", f"ulimit -c 0; kill -{number.value} $$")
    assert done.returncode == -number
    assert b"Traceback" not in done.stderr


def test_run_passes_bytes_through(run: Run) -> None:
    """Standard input, output and error of the command are passed through untouched, whatever the bytes are."""
    block = bytes(range(256)) * 1000
    done = run("sh", "-c", "cat; printf '\\377\\000\\033[31mraw' >&2", stdin=block)
    assert done.returncode == 0
    assert done.stdout == block
    assert b"\xff\x00\x1b[31mraw" in done.stderr


def test_run_says_nothing_of_a_clean_end(run: Run) -> None:
    """A command that ends well gets no report; without root one line says that there is less evidence."""
    done = run("true")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.count(b"\n") <= 1
    assert not done.stderr or b"less evidence" in done.stderr


def test_run_takes_only_what_its_command_wrote_for_its_words(run: Run, tmp_path: Path) -> None:
    """A log that its command shares with others, us among them, has no last words of a command that wrote none."""
    log = tmp_path / "log"
    log.write_text("KeyError: 'of another'\n")
    with log.open("ab") as stderr:
        done = run("sh", "-c", "sleep 0.2; exit 3", stderr=stderr)
    assert done.returncode == 3
    said = log.read_text().partition("KeyError")[2]
    assert "exited with status 3" in said
    assert "KeyError" not in said
    assert said.count("less evidence") <= 1


@pytest.mark.parametrize(
    ("command", "status", "part"),
    [
        ("/nonexistent/program", 127, b"No such file"),
        ("no-such-program-anywhere", 127, b"No such file"),
        ("/etc/passwd", 126, b"Permission denied"),
        ("/", 126, b"ermission denied"),
    ],
)
def test_run_of_what_cannot_run(run: Run, command: str, status: int, part: bytes) -> None:
    """A command that is not there is 127, one that is no program 126, as in a shell; it is one sentence and no incident."""
    done = run(command)
    assert done.returncode == status
    lines = [line for line in done.stderr.splitlines() if b"less evidence" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(b"agentscope: cannot run " + command.encode())
    assert part in lines[0]


def test_run_forwards_a_request_to_stop(tmp_path: Path) -> None:
    """SIGTERM to `run` reaches the command, which may answer it in its own way."""
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*AGENTSCOPE, "run", "--state-dir", str(tmp_path), "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(20) == 7
    process.stdout.close()


def test_run_leaves_signals_and_descriptors_as_they_were(run: Run) -> None:
    """The command finds default signal actions, an empty signal mask and no descriptor of ours."""
    script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | wc -l"
    bare = subprocess.run(["sh", "-c", script], input=b"", capture_output=True, check=False, preexec_fn=None)
    assert run("sh", "-c", script).stdout == bare.stdout


def test_run_tells_an_exception_without_root(home: Path) -> None:
    """Without root, `run` still tells how the command ended, and says what could not be checked."""
    front = without_root(home)
    told = agentscope("run", "--", sys.executable, "-c", "raise SystemExit(3)", front=front, cwd=home)
    told.is_clean()
    assert told.status == 3
    assert "status 3" in told.said
    assert "not checked" in told.said.lower()


def test_run_where_the_record_cannot_be_written(tmp_path: Path) -> None:
    """A state folder that cannot be made costs the record, never the command or its report."""
    (tmp_path / "file").touch()
    told = agentscope("run", "--state-dir", str(tmp_path / "file"), "--", "sh", "-c", "exit 3")
    told.is_clean()
    assert told.status == 3
    assert "status 3" in told.said


def test_diagnose_of_a_log_from_standard_input() -> None:
    """Garbage on standard input is an undetermined log: 20, and valid JSON when asked for it."""
    told = agentscope("diagnose", "--log", "-", "--json", stdin=bytes(range(256)) * 100)
    assert told.status == ExitStatus.UNDETERMINED, told.said
    assert json.loads(told.out) == {"findings": []}
