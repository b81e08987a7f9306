"""The prevention checklist: each point passes, fails and says honestly that it cannot be checked; of real files, sockets and servers."""

import http.server
import json
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agentscope.agents import start_ns_of
from agentscope.baseline import Baseline, Interpreter, LockFile, MappedFile
from agentscope.baseline.facts import ProcessFacts
from agentscope.checking import (
    Checked,
    Subject,
    Uses,
    armed_drift,
    audited,
    health_endpoint,
    last_resort,
    last_words,
    memory_growth,
    memory_limit,
    pinned_versions,
    points,
    recovery_drill,
    status_of,
    supervision,
    time_outs,
    unattended_upgrades,
)
from agentscope.config import AgentConfig, HealthConfig
from agentscope.distributions import Deviation
from agentscope.errors import ExitStatus
from agentscope.evidence import CgroupMemory, LastSeen
from agentscope.model import IncidentClosed
from agentscope.pipeline import boot_wall_ns, now_ns
from agentscope.policy import Policy
from agentscope.supervisors import Owner
from agentscope.views.checklist import render_checklist
from agentscope.views.report import Check

from . import hang_builders as hang
from . import samples
from .commandline import agentscope, without_root


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that a user without privileges can enter and write."""
    folder = Path(tempfile.mkdtemp(prefix="agentscope-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


GIB, MIB, S = 1 << 30, 1 << 20, 1_000_000_000


def subject(*processes, sockets=(), **fields) -> Subject:
    """Somebody who started an hour ago and of whom nothing is known but what is said."""
    scene = hang.scene(hang.seen(*(processes or (hang.process(hang.thread()),)), sockets=sockets))
    scene = msgspec.structs.replace(scene, last_seen=fields.pop("last_seen", LastSeen(at_ns=1, host_total_bytes=16 * GIB)))
    agent = msgspec.structs.replace(scene.agent, name="researcher", start_ns=now_ns() - 3600 * S)
    return Subject(agent=agent, scene=scene, **fields)


def standing(**fields) -> Baseline:
    """What a Python program stands on."""
    return Baseline(
        wall_ns=1, boot_id="b", kernel="k", interpreter=Interpreter(path="/usr/bin/python3", version="3.11.2"), **fields
    )


SYSTEMD = Owner(kind="systemd", name="researcher.service", restarts=False, says="researcher.service (systemd, Restart=no)")
DOCKER = Owner(
    kind="container", name="abc", restarts=True, says="container abc (docker, restart=always)", at="unix:/run/docker.sock"
)


def test_the_list_is_the_folder():
    """There are ten points and armed drift, each with its own place and title; being in the folder is enough."""
    assert [point.PLACE for point in points().values()] == list(range(1, 12))
    assert len({point.TITLE for point in points().values()}) == 11
    assert "_subject" not in points()


def test_a_point_that_fails_costs_its_own_answer():
    """A point that cannot cope is not checkable, with the reason; the others are there."""
    found = audited(subject(uses=Uses(samples=((0, 1), (1, 1)), limit=0, where="x")))
    assert found["memory-growth"].ok is None
    assert "ZeroDivisionError" in found["memory-growth"].says
    assert len(found) == 11


@pytest.mark.parametrize(
    ("answers", "status"),
    [((True, True), 0), ((True, None), 20), ((None, False, True), 10), ((), 0)],
)
def test_exit_status(answers, status):
    """0 all passed, 10 something failed, 20 nothing failed but not all could be checked."""
    assert status_of(Check(name="x", ok=ok, says="") for ok in answers) == ExitStatus(status)


# --- memory -----------------------------------------------------------------------------------------------------------------


def limited(**fields) -> CgroupMemory:
    """A cgroup of 512 MiB."""
    return CgroupMemory(path="/agents/a", version=2, limit_bytes=512 * MIB, usage_bytes=100 * MIB, **fields)


def test_a_memory_limit():
    """A limit of its cgroup or of the process passes; without one it fails, with the line that its owner takes."""
    assert memory_limit.check(subject(binding=limited())) == Checked(True, "cgroup /agents/a allows 512 MiB")
    assert memory_limit.check(subject(last_seen=LastSeen(at_ns=1, soft_limits={"AS": GIB}))).ok is True
    used = Uses(samples=((0, 300 * MIB), (S, 300 * MIB)), limit=16 * GIB, where="what the host can give")
    bare = memory_limit.check(subject(owner=SYSTEMD, uses=used))
    assert (bare.ok, bare.try_this) == (False, "sudo systemctl set-property researcher.service MemoryMax=768M")
    assert "16 GiB" in bare.says
    assert memory_limit.check(subject(owner=DOCKER)).try_this == "docker update --memory 512m --memory-swap 512m abc"
    assert memory_limit.check(subject(last_seen=None)).ok is None


def uses(*mebibytes, limit=1024) -> Uses:
    """Samples a second apart."""
    samples = tuple((second * S, int(amount * MIB)) for second, amount in enumerate(mebibytes))
    return Uses(samples=samples, limit=limit * MIB, where="cgroup /agents/a")


def test_memory_growth():
    """Far from the limit and steady passes; near it, or on the way there within minutes, fails; a young one needs watching."""
    assert memory_growth.check(subject(uses=uses(100, 100.1, 99.9, 100, 100))).ok is True
    near = memory_growth.check(subject(uses=uses(800, 800, 800, 800, 800)))
    assert (near.ok, near.says) == (False, "it holds 800 MiB (78 %) of 1.0 GiB of cgroup /agents/a, above 70 %")
    fast = memory_growth.check(subject(uses=uses(400, 405, 410, 415, 420)))
    assert fast.ok is False
    assert "full in 2 min" in fast.says
    young = subject(uses=uses(100, 100, 100, 100, 100))
    young = msgspec.structs.replace(young, agent=msgspec.structs.replace(young.agent, start_ns=now_ns() - 30 * S))
    assert memory_growth.check(young).ok is None
    assert "needs watching" in memory_growth.check(young).says
    assert memory_growth.check(subject(uses=None)).ok is None
    killed = memory_growth.check(subject(uses=uses(100, 100), binding=limited(oom_kill_count=2)))
    assert (killed.ok, "2 times" in killed.says) == (False, True)


def test_growth_that_a_few_seconds_cannot_tell():
    """What holds half of its limit after an hour may go on growing: not checkable, never passed."""
    assert memory_growth.check(subject(uses=uses(500, 500, 500, 500, 500))).ok is None


# --- what it stands on ------------------------------------------------------------------------------------------------------


def test_pins(tmp_path):
    """A lock file that is kept passes, one that is not fails with the line that installs it, none at all fails."""
    kept = LockFile(path="/srv/uv.lock", digest="d", locked=34)
    assert pinned_versions.check(subject(standing=standing(lock=kept))).ok is True
    wrong = msgspec.structs.replace(kept, count=2, deviating=(Deviation(name="httpx", locked=("1.0",), installed="2.0"),))
    found = pinned_versions.check(subject(standing=standing(lock=wrong)))
    assert (found.ok, found.try_this) == (False, "uv sync --locked")
    assert "httpx 2.0 is installed, the lock file has 1.0, and 1 more" in found.says
    assert pinned_versions.check(subject(standing=standing())).ok is False
    assert pinned_versions.check(subject()).ok is None
    assert pinned_versions.check(subject(standing=msgspec.structs.replace(standing(), interpreter=None))).ok is None
    unread = LockFile(path="/srv/uv.lock", digest="", unread="Permission denied")
    assert pinned_versions.check(subject(standing=standing(lock=unread))).ok is None
    loose = tmp_path / "requirements.txt"
    loose.write_text("httpx==1.0\nrequests>=2\nrich==13.*  # any\n-r other.txt\nurl @ https://example.org/x.whl\n")
    lock = LockFile(path=str(loose), digest="d", locked=1)
    found = pinned_versions.check(subject(standing=standing(lock=lock)))
    assert (found.ok, found.says) == (False, f"{loose} names no exact version of requests, rich")


class System:
    """A small Debian in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("etc/apt/apt.conf.d", "usr/bin", "var/lib/dpkg/info"):
            (root / folder).mkdir(parents=True)
        (root / "usr/bin/unattended-upgrade").write_text("")
        (root / "var/lib/dpkg/info/libssl3:amd64.list").write_text("/.\n/usr/lib/libssl.so.3\n")
        (root / "var/lib/dpkg/info/libc6:amd64.list").write_text("/.\n/lib/libc.so.6\n")
        (root / "var/lib/dpkg/info/other.list").write_text("/.\n/usr/bin/other\n")
        self.status()

    def status(self, held: str = "") -> None:
        """The database, with one package on hold."""
        rows = [
            f"Package: {name}\nStatus: {'hold' if name == held else 'install'} ok installed\n" for name in ("libc6", "libssl3")
        ]
        (self.root / "var/lib/dpkg/status").write_text("\n".join(rows))

    def setting(self, text: str, name: str = "20auto-upgrades") -> None:
        """One file of apt's configuration."""
        (self.root / "etc/apt/apt.conf.d" / name).write_text(text)

    def checked(self) -> Checked:
        """Of a program that has libc and libssl mapped."""
        mapped = tuple(
            MappedFile(path=path, inode=1, device="1", file=None) for path in ("/usr/lib/libssl.so.3", "/usr/lib/libc.so.6")
        )
        facts = ProcessFacts(root=str(self.root))
        return unattended_upgrades.check(subject(facts=facts, standing=standing(mapped=mapped)))


ON = 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'


def test_unattended_upgrades(tmp_path):
    """On, and touching what it has mapped, fails with the packages; off, held back or on a list of its own passes."""
    system = System(tmp_path)
    assert system.checked().ok is True
    system.setting(ON)
    found = system.checked()
    assert (found.ok, found.try_this) == (False, "sudo apt-mark hold libc6 libssl3")
    system.status(held="libc6")
    assert system.checked().try_this == "sudo apt-mark hold libssl3"
    system.setting(
        'Unattended-Upgrade::Package-Blacklist {\n  // not yet: "libc6";\n  "libssl";\n};\n', "50unattended-upgrades"
    )
    assert system.checked().ok is True
    system.status()
    assert system.checked().try_this == "sudo apt-mark hold libc6"
    system.setting('APT::Periodic::Enable "0";\n', "99off")
    assert system.checked().ok is True


def test_a_later_setting_counts(tmp_path):
    """Apt reads its files in the order of their names: the last word counts, and what is commented out does not."""
    system = System(tmp_path)
    system.setting(ON)
    system.setting('APT { Periodic { Unattended-Upgrade "0"; }; };\n# APT::Periodic::Unattended-Upgrade "1";\n', "90mine")
    assert system.checked().ok is True


def test_dnf(tmp_path):
    """dnf-automatic counts where its timer is enabled and it installs what it downloads."""
    (tmp_path / "etc/dnf").mkdir(parents=True)
    (tmp_path / "etc/dnf/automatic.conf").write_text("[commands]\napply_updates = yes\n")
    found = subject(facts=ProcessFacts(root=str(tmp_path)), standing=standing())
    assert unattended_upgrades.check(found).ok is True
    wants = tmp_path / "etc/systemd/system/timers.target.wants"
    wants.mkdir(parents=True)
    (wants / "dnf-automatic.timer").symlink_to("/usr/lib/systemd/system/dnf-automatic.timer")
    assert unattended_upgrades.check(found).ok is False
    (tmp_path / "etc/dnf/automatic.conf").write_text("[commands]\napply_updates = no\n")
    assert unattended_upgrades.check(found).ok is True


def test_armed_drift_that_nobody_could_look_at():
    """Without what stands on disk now nothing is said to be well."""
    assert armed_drift.check(subject()).ok is None


# --- calls ------------------------------------------------------------------------------------------------------------------


def waiting(call, *descriptors, **fields) -> Checked:
    """One thread in one call, with one connection of its own."""
    process = hang.process(hang.thread(call), descriptors=(*descriptors, hang.descriptor(3, 30)))
    return time_outs.check(subject(process, sockets=(hang.client(30, **fields),)))


def test_time_outs():
    """A wait for a peer with a time-out passes, one without fails, and what could not be seen is said to be so."""
    assert waiting(hang.recv(3, timeout_s=30.0)).ok is True
    assert waiting(hang.on("poll", 3, timeout_s=10.0)).ok is True
    endless = waiting(hang.on("poll", 3))
    assert (endless.ok, "without a time-out" in endless.says) == (False, True)
    hidden = waiting(hang.recv(3))  # no process here has this pid: its socket cannot be asked
    assert (hidden.ok, "SO_RCVTIMEO) could not be read" in hidden.says) == (None, True)
    assert waiting(hang.sleep()).ok is None
    assert time_outs.check(subject()).ok is None


def test_time_outs_of_an_event_loop():
    """A loop with no timer at all waits for its answer without end; one with timers may; an idle connection is no call."""
    held = hang.loop_set(3)
    assert waiting(hang.epoll(), held).ok is False
    assert waiting(hang.epoll(timeout_s=1.0), held).ok is None
    assert waiting(hang.epoll(), held, sent_ago_s=40.0, received_ago_s=39.0).ok is None


def test_a_time_out_of_the_socket():
    """A real thread in recv(2): SO_RCVTIMEO is asked of the socket itself, so that its absence is known."""
    ours, theirs = socket.socketpair()
    code = "import socket, sys; s = socket.socket(fileno=0); print('ready', flush=True); s.recv(1)"
    with subprocess.Popen(["/usr/bin/python3", "-c", code], stdin=theirs, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        process = hang.process(hang.thread(hang.recv(0)), pid=victim.pid, descriptors=(hang.descriptor(0, 30),))
        found = time_outs.check(subject(process, sockets=(hang.client(30),)))
        ours.close()
        theirs.close()
    assert (found.ok, "neither of the call nor of the socket" in found.says) == (False, True)


# --- health -----------------------------------------------------------------------------------------------------------------


class Server:
    """A real HTTP server that answers a path with a status, and others with another."""

    def __init__(self, well: int, other: int) -> None:
        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(well if self.path == "/health" else other)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                """Keep quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def checked(self) -> Checked:
        """Asked as a config would have it."""
        asked = HealthConfig(kind="http", target=f"http://127.0.0.1:{self.server.server_port}/health", timeout_s=5)
        entry = AgentConfig(match={"name": "a"}, health=asked)
        try:
            return health_endpoint.check(subject(entry=entry, config="a.toml", owner_uid=0))
        finally:
            self.server.shutdown()
            self.server.server_close()


@pytest.mark.parametrize(
    ("well", "other", "ok", "words"),
    [(200, 404, True, "404"), (200, 200, False, "checks nothing"), (503, 404, False, "503"), (200, 503, True, "503")],
)
def test_a_health_endpoint(well, other, ok, words):
    """One that answers passes, unless it answers so to any page; one that says it is ill fails."""
    found = Server(well, other).checked()
    assert (found.ok, words in found.says) == (ok, True)


def test_a_health_check_that_asks_the_kernel():
    """A port that is open is let in by the kernel even of a program that hangs: that checks nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = HealthConfig(kind="tcp", target=f"127.0.0.1:{server.getsockname()[1]}", timeout_s=5)
        found = health_endpoint.check(subject(entry=AgentConfig(match={}, health=asked)))
    assert (found.ok, "checks nothing" in found.says) == (False, True)


def test_no_health_check():
    """Without a config it is not known, and the port that it listens at is a hint; an entry without one fails."""
    found = health_endpoint.check(subject(sockets=(hang.listening(20),)))
    assert found.ok is None
    assert "listens at port" in found.says
    assert health_endpoint.check(subject(entry=AgentConfig(match={}), config="a.toml")).ok is False


# --- who keeps it ------------------------------------------------------------------------------------------------------------


def test_supervision():
    """An owner that restarts passes; one that does not, and none, fail; a config needs a watcher that runs."""
    assert supervision.check(subject(owner=DOCKER)).ok is True
    found = supervision.check(subject(owner=SYSTEMD))
    assert (found.ok, "Restart=on-failure" in found.try_this) == (False, True)
    assert supervision.check(subject()).says == "nobody starts it again"
    entry = AgentConfig(match={}, recovery=Policy(restart=("/usr/local/bin/start",)))
    assert supervision.check(subject(entry=entry, config="a.toml")).ok is None


@pytest.mark.parametrize(
    ("where", "ok", "words"),
    [("file", True, "goes to"), ("deleted", False, "deleted"), ("null", False, "/dev/null"), ("closed", False, "closed"), ("pipe", True, "cat (pid")],
)  # fmt: skip
def test_last_words(where, ok, words, tmp_path):
    """Where a real process's stderr leads: a file or a pipe that is read passes; what is thrown away fails."""
    log = tmp_path / "agent.log"
    ends = {
        "file": f"exec 2>{log};",
        "deleted": f"exec 2>{log}; rm {log};",
        "null": "exec 2>/dev/null;",
        "closed": "exec 2>&-;",
    }
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    victim = subprocess.Popen(
        ["sh", "-c", f"{ends.get(where, '')} echo ready; read forever"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=reader.stdin,
        text=True,
    )
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        found = subject(hang.process(hang.thread(), pid=victim.pid))
        process = msgspec.structs.replace(found.scene.process, pid=victim.pid, start_ns=start_ns_of(victim.pid))
        checked = last_words.check(msgspec.structs.replace(found, scene=msgspec.structs.replace(found.scene, process=process)))
    finally:
        for each in (victim, reader):
            each.kill()
            each.wait()
            for stream in (each.stdin, each.stdout):
                if stream is not None:
                    stream.close()
    assert (checked.ok, words in checked.says) == (ok, True), checked


def test_a_top_level_handler():
    """A death that nothing caught shows that there was none; else it is not said to be known."""
    assert last_resort.check(subject()).ok is None
    found = last_resort.check(subject(past=((samples.BOOT_WALL_NS, samples.uncaught()),)))
    assert (found.ok, "client.py:24" in found.says) == (False, True)


def test_a_recovery_drill():
    """Only a recovery that held, and not long ago, passes; a ledger that may not be read is said to be so."""
    closed = IncidentClosed(at_ns=1, incident="i", agent=samples.RESEARCHER, outcome="restarted, and well", held=True)
    now_wall_ns = boot_wall_ns() + now_ns()
    assert recovery_drill.check(subject(past=((now_wall_ns, closed),))).ok is True
    assert recovery_drill.check(subject(past=((now_wall_ns - 365 * 86400 * S, closed),))).ok is False
    failed = msgspec.structs.replace(closed, held=False)
    assert recovery_drill.check(subject(past=((now_wall_ns - S, closed), (now_wall_ns, failed)))).ok is False
    assert recovery_drill.check(subject(past=((now_wall_ns, msgspec.structs.replace(closed, held=None)),))).ok is False
    assert recovery_drill.check(subject(past=())).ok is False
    assert recovery_drill.check(subject(past=None)).ok is None


# --- what a person sees --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [30, 80, 120])
def test_a_hostile_process_writes_nothing_of_its_own(width):
    """Names, arguments, paths and sentences of a hostile process reach the terminal as text only, within its width."""
    checks = (Check(name="x", ok=False, says=samples.HOSTILE * 3, try_this=samples.HOSTILE), Check(name="y", ok=None, says="z"))
    drawn = render_checklist(samples.HOSTILE_AGENT, checks, width=width)
    assert all(line.isprintable() for line in drawn.splitlines())
    assert max(len(line) for line in drawn.splitlines()) <= max(30, width)
    assert "FAILED  x: evil" in drawn
    assert "not checkable  y: z" in drawn


def test_the_heading_counts():
    """The first line says how it stands."""
    checks = [Check(name=str(ok), ok=ok, says="") for ok in (True, True, False, None)]
    first = render_checklist(samples.RESEARCHER, checks).splitlines()[0]
    assert first == "researcher (pid 4242): 2 passed, 1 failed, 1 not checkable of 4 points"


def test_what_cannot_be_checked_at_all(home):
    """No such process is 3, another user's 4, a number that is none and a thread of the kernel 64; each one sentence."""
    agentscope("check", "4194302").is_sentence(ExitStatus.NO_SUCH_PROCESS, "4194302")
    agentscope("check", "0").is_sentence(ExitStatus.USAGE, "not a process number")
    agentscope("check", "2").is_sentence(ExitStatus.USAGE, "kernel") if b"kthreadd" in Path(
        "/proc/2/stat"
    ).read_bytes() else None
    agentscope("check", "1", front=without_root(home), cwd=home).is_sentence(
        ExitStatus.NOT_PERMITTED, "sudo agentscope check 1"
    )
    agentscope("check", "no-such-agent-anywhere").is_sentence(ExitStatus.NO_SUCH_PROCESS, "no-such-agent-anywhere")


def test_a_check_without_root(home):
    """A user's own process is checked without root: every point is there, in words and as JSON, with the same exit status."""
    front = without_root(home)
    with subprocess.Popen([*front, "sleep", "50"], cwd=home) as victim:
        try:
            told = agentscope("check", str(victim.pid), "--json", "--state-dir", str(home / "state"), front=front, cwd=home)
        finally:
            victim.kill()
    told.is_clean()
    found = {each["point"]: each for each in json.loads(told.out)["points"]}
    assert list(found) == list(points())
    assert {each["result"] for each in found.values()} <= {"passed", "failed", "not checkable"}
    assert found["supervision"]["result"] == "failed"
    assert found["time-outs"]["result"] == "not checkable"
    assert told.status == ExitStatus.FAULT_FOUND
