"""The core engine against real processes: what it reports is what /proc and waitpid say."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from agentscope.model import (
    AnyEvent,
    Fault,
    KernelLine,
    Lost,
    OomVictim,
    ProcessExec,
    ProcessExit,
    ProcessFork,
    SignalSent,
)
from agentscope.sources.ebpf import CORE, CoreEngine
from agentscope.sources.kmsg import KernelLog, read_past

Kind = TypeVar("Kind")

HERE = Path(__file__).parent
PYTHONS = [
    path for path in (Path("/usr/bin/python3"), *(Path("/root/.pyenv/versions").glob("3.1[1-4].*/bin/python"))) if path.exists()
]

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]


@pytest.fixture
def engine() -> Iterator[CoreEngine]:
    """An engine of its own for each test, so that no test sees another's processes."""
    if not CORE.exists():
        pytest.skip("the probes are not built: make probes")
    engine = CoreEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def victim_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled victim."""
    program = tmp_path_factory.mktemp("victim") / "engine_victim"
    subprocess.run(["cc", "-O1", "-w", "-pthread", HERE / "engine_victim.c", "-o", program], check=True)
    return program


def collect(engine: CoreEngine, until: Callable[[list[AnyEvent]], bool], timeout_s: float = 20) -> list[AnyEvent]:
    """Events until there is what is waited for, and what comes with it."""
    events: list[AnyEvent] = []
    deadline = time.monotonic() + timeout_s
    while not until(events):
        assert time.monotonic() < deadline, f"not seen in {timeout_s} s; had {events}"
        select.select([engine.fileno()], [], [], 0.2)
        events += engine.drain()
    return events


def ended(pid: int) -> Callable[[list[AnyEvent]], bool]:
    """Whether the process has been reported dead."""
    return lambda events: any(isinstance(event, ProcessExit) and event.pid == pid for event in events)


def only(events: list[AnyEvent], kind: type[Kind], pid: int) -> list[Kind]:
    """The events of one kind of one process."""
    return [event for event in events if isinstance(event, kind) and event.pid == pid]  # type: ignore[attr-defined]


class Gated:
    """A process that waits for a line before it does what it should: time to watch it and to look at its /proc."""

    def __init__(self, engine: CoreEngine, *command: str | Path, **options: object) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", 'read line && exec "$@"', "sh", *command],
            stdin=subprocess.PIPE,
            **options,  # type: ignore[call-overload]
        )
        self.pid = self.process.pid
        engine.watch(self.pid)
        wait_for_read(self.pid)  # so that the exec of the gate itself, if it was seen, is behind us
        engine.drain()

    def go(self) -> None:
        """Let it exec, and give it the line it may be waiting for itself."""
        assert self.process.stdin
        self.process.stdin.write(b"\n\n")
        self.process.stdin.close()

    def status(self) -> int:
        """The raw wait status."""
        return os.waitpid(self.pid, 0)[1]


def run_victim(engine: CoreEngine, *command: str | Path, **options: object) -> tuple[int, int, list[AnyEvent]]:
    """Pid, wait status as waitpid gives it, and all events until the end."""
    gated = Gated(engine, *command, stdout=subprocess.DEVNULL, **options)
    gated.go()
    status = gated.status()
    return gated.pid, status, collect(engine, ended(gated.pid))


def proc_start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def proc_cgroup(pid: int | str) -> str:
    """The cgroup that binds the memory of a process, as /proc tells."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    memory = [path for _, controllers, path in lines if "memory" in controllers.split(",")]
    return (memory or [path for number, _, path in lines if number == "0"])[0]


def test_statuses_of_random_deaths_are_those_of_the_waiter(engine: CoreEngine, tmp_path: Path) -> None:
    """Codes, signals, threads, leader first, vfork, exec from a thread: 300 statuses equal what waitpid gave, each once."""
    program = tmp_path / "dice"
    subprocess.run(["cc", "-O1", "-w", "-pthread", HERE / "dice.c", "-o", program], check=True)
    seed = str(time.time_ns() % 2**31)
    process = subprocess.Popen([program, "300", seed], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    engine.watch(process.pid)
    out, _ = process.communicate(b"\n", timeout=60)
    waited = dict(line.split() for line in out.decode().splitlines() if line[:1].isdigit())
    events = collect(engine, ended(process.pid))
    told = sorted((str(e.pid), str(e.status)) for e in events if isinstance(e, ProcessExit) and e.pid != process.pid)
    assert len(waited) == 300
    assert told == sorted(waited.items()), f"seed {seed}"
    assert not [event for event in events if isinstance(event, Lost)]


def test_exec_is_what_proc_says(engine: CoreEngine) -> None:
    """Arguments, executable, parent, cgroup, user, start time and ancestors of an exec are those of /proc."""
    gated = Gated(engine, "/usr/bin/python3", "-c", "import time; time.sleep(30)", "ä", "", stderr=subprocess.DEVNULL)
    gated.go()
    try:
        event = only(collect(engine, lambda events: bool(only(events, ProcessExec, gated.pid))), ProcessExec, gated.pid)[0]
        proc = Path(f"/proc/{gated.pid}")
        assert event.argv == tuple(proc.joinpath("cmdline").read_bytes().removesuffix(b"\0").decode().split("\0"))
        assert event.exe == str(proc.joinpath("exe").readlink())
        assert event.comm == "python3"
        assert event.ppid == os.getpid()
        assert event.uid == os.getuid()
        assert event.cgroup == proc_cgroup(gated.pid)
        assert event.start_ns // (10**9 // os.sysconf("SC_CLK_TCK")) == proc_start_ticks(gated.pid)
        assert [ancestor.pid for ancestor in event.ancestors] == ancestors_of(gated.pid)[:4]
        assert event.ancestors[0].comm == Path("/proc/self/comm").read_text().strip()
        assert event.stderr == "null"
    finally:
        gated.process.kill()
        gated.process.wait()


def ancestors_of(pid: int) -> list[int]:
    """The parent chain by /proc/PID/stat."""
    chain = []
    while pid:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        chain.append(pid)
    return chain[:-1]


def test_fork_is_reported_and_inherited(engine: CoreEngine) -> None:
    """A child of a watched process that lives a moment is seen with its birth and its death; a thread is no birth."""
    pid, _, events = run_victim(engine, "/bin/sh", "-c", "(exit 7); (sh -c 'exit 8'); exit 0")
    forks = [event for event in events if isinstance(event, ProcessFork)]
    children = {event.pid for event in forks if event.ppid == pid}
    codes = sorted(event.code for event in events if isinstance(event, ProcessExit) and event.pid != pid)  # type: ignore[type-var]
    assert len(children) == 2
    assert codes[:2] == [7, 8]
    threads = "import threading\nfor _ in range(20):\n t = threading.Thread(target=int); t.start(); t.join()"
    pid, _, events = run_victim(engine, "/usr/bin/python3", "-c", threads)
    assert not [event for event in events if isinstance(event, ProcessFork)]
    assert len(only(events, ProcessExit, pid)) == 1


def test_path_crosses_mounts_and_names_what_is_gone(engine: CoreEngine, tmp_path: Path) -> None:
    """An executable on a mount of a private namespace has its whole path; one that was deleted says so."""
    where = tmp_path / "mount" / "deep"
    where.mkdir(parents=True)
    script = (
        f"mount -t tmpfs x {where} && cp /bin/sleep {where}/nap && {where}/nap 0; cp /bin/sleep {where}/n2; exec {where}/n2 0.4"
    )
    gated = Gated(engine, "unshare", "-m", "/bin/sh", "-c", script)
    gated.go()
    gated.status()
    events = collect(engine, ended(gated.pid))
    paths = {event.exe for event in events if isinstance(event, ProcessExec)}
    assert {f"{where}/nap", f"{where}/n2"} <= paths
    script = f"cp /bin/sh {tmp_path}/sh2; exec {tmp_path}/sh2 -c 'rm {tmp_path}/sh2; kill -6 $$'"
    pid, _, events = run_victim(engine, "/bin/sh", "-c", script)
    assert only(events, SignalSent, pid)[0].sender_exe == f"{tmp_path}/sh2 (deleted)"


def test_long_arguments_are_cut(engine: CoreEngine) -> None:
    """512 bytes of arguments are taken, of however many there are."""
    pid, _, events = run_victim(engine, "/bin/true", "x" * 300, "y" * 5000)
    event = only(events, ProcessExec, pid)[-1]
    assert event.argv[:2] == ("/bin/true", "x" * 300)
    assert sum(len(argument) + 1 for argument in event.argv) in (512, 513)


def test_stderr_is_named(engine: CoreEngine, tmp_path: Path) -> None:
    """Where descriptor 2 points is told at exec and at the end, with the path of a file."""
    log = tmp_path / "log"
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    control, terminal = pty.openpty()
    with log.open("wb") as opened:
        targets = {
            "file": opened.fileno(),
            "pipe": writer,
            "socket": theirs.fileno(),
            "pty": terminal,
            "null": subprocess.DEVNULL,
        }
        for kind, target in targets.items():
            pid, _, events = run_victim(engine, "/bin/true", stderr=target)
            for event in (only(events, ProcessExec, pid)[-1], only(events, ProcessExit, pid)[-1]):
                assert event.stderr == kind
                assert event.stderr_path == (str(log) if kind == "file" else None)
    pid, _, events = run_victim(engine, "/bin/sh", "-c", "exec 2>&-; exit 1")
    assert only(events, ProcessExit, pid)[0].stderr == "closed"
    for descriptor in (reader, writer, control, terminal):
        os.close(descriptor)
    ours.close(), theirs.close()


def test_exit_tells_times_memory_and_last_call(engine: CoreEngine) -> None:
    """CPU time of all threads, the highest memory of this program, the call it died in."""
    burn = "import threading,time\ndef f():\n t=time.thread_time()\n while time.thread_time()<t+.15: pass\n"
    burn += (
        "l=[threading.Thread(target=f) for _ in range(3)]\n[x.start() for x in l]\n[x.join() for x in l]\nx=bytearray(60<<20)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    process = subprocess.Popen(["/usr/bin/python3", "-c", f"input()\n{burn}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    engine.watch(process.pid)
    process.stdin.write(b"\n")  # type: ignore[union-attr]
    process.stdin.close()  # type: ignore[union-attr]
    highest_kib = int(process.stdout.read())  # type: ignore[union-attr]
    _, status, usage = os.wait4(process.pid, 0)
    end = only(collect(engine, ended(process.pid)), ProcessExit, process.pid)[0]
    assert end.status == status
    assert end.user_ns
    assert end.system_ns is not None
    assert end.max_rss_bytes
    used_s = usage.ru_utime + usage.ru_stime
    # sampled at ticks, while getrusage(2) has them scaled to the exact run time
    assert abs((end.user_ns + end.system_ns) / 1e9 - used_s) < 0.05 + 0.3 * used_s
    # its own VmHWM: getrusage(2) counts the parent before exec as well
    assert abs(end.max_rss_bytes / 1024 - highest_kib) < 2048
    sleeper = subprocess.Popen(["/bin/sleep", "30"])
    engine.watch(sleeper.pid)
    wait_for_call(sleeper.pid, "230 ")
    sleeper.kill()
    sleeper.wait()
    end = only(collect(engine, ended(sleeper.pid)), ProcessExit, sleeper.pid)[0]
    assert end.last_syscall
    assert end.last_syscall.number == 230


@pytest.mark.parametrize("number", [9, 15, 11, 12, 34])
def test_signal_names_its_sender(engine: CoreEngine, number: int) -> None:
    """A signal from outside has its sender with executable, cgroup, user and ancestors, and is no fault of the target's own."""
    target = subprocess.Popen(["/bin/sleep", "30"])
    engine.watch(target.pid)
    sender = subprocess.Popen(["/bin/bash", "-c", f"kill -{number} {target.pid}; read x"], stdin=subprocess.PIPE)
    try:
        _, status = os.waitpid(target.pid, 0)
        events = collect(engine, ended(target.pid))
        event = only(events, SignalSent, target.pid)[0]
        assert (event.signal, event.code, event.group, event.result, event.handler) == (number, 0, True, 0, "default")
        assert event.sender_pid == event.sender_tid == sender.pid
        assert event.sender_comm == "bash"
        assert event.sender_exe == str(Path(f"/proc/{sender.pid}/exe").readlink())
        assert event.sender_cgroup == proc_cgroup(sender.pid)
        assert event.sender_uid == os.getuid()
        assert event.sender_start_ns // 10**7 == proc_start_ticks(sender.pid)
        assert [ancestor.pid for ancestor in event.sender_ancestors] == ancestors_of(sender.pid)[:4]
        assert not event.sender_exiting
        assert not event.sender_is_pidns_init
        assert only(events, ProcessExit, target.pid)[0].status & 0x7F == status & 0x7F == number
    finally:
        sender.kill()
        sender.wait()


def test_only_telling_signals_are_reported(engine: CoreEngine) -> None:
    """SIGTERM is told even if it is caught; SIGALRM that is caught and SIGCHLD are not; SIGKILL always is."""
    code = "import signal,os,subprocess\nfor s in (15,14): signal.signal(s,lambda *a:None)\n"
    code += "subprocess.run(['true'])\nos.kill(os.getpid(),14)\nos.kill(os.getpid(),15)\nos.kill(os.getpid(),9)"
    pid, status, events = run_victim(engine, "/usr/bin/python3", "-c", code)
    assert status == 9
    assert [(e.signal, e.handler) for e in only(events, SignalSent, pid)] == [(15, "caught"), (9, "default")]


def test_dying_sender_is_marked(engine: CoreEngine, victim_program: Path) -> None:
    """The signal of a dying parent (PR_SET_PDEATHSIG) and that of a dying init of a pid namespace tell what they are."""
    _, _, events = run_victim(engine, victim_program, "pdeathsig")
    kill = [event for event in events if isinstance(event, SignalSent) and event.signal == signal.SIGKILL]
    assert [(event.code, event.sender_exiting, event.sender_is_pidns_init) for event in kill] == [(0, True, False)]
    _, _, events = run_victim(engine, "unshare", "-p", "-f", "/bin/sh", "-c", "sleep 30 & sleep 0.1; exit 0")
    events += collect(engine, lambda seen: any(isinstance(e, SignalSent) for e in [*events, *seen]))
    kill = [event for event in events if isinstance(event, SignalSent) and event.signal == signal.SIGKILL]
    assert [(event.comm, event.code, event.sender_is_pidns_init) for event in kill] == [("sleep", 128, True)]


@pytest.mark.parametrize(
    ("way", "number", "code", "address"),
    [("null", 11, 1, 0x18), ("thread", 11, 1, 0x18), ("fpe", 8, 1, None), ("seccomp", 31, 1, None)],
)
def test_fault_is_taken(
    engine: CoreEngine, victim_program: Path, way: str, number: int, code: int, address: int | None
) -> None:
    """A fault has its reason, address, thread, registers, stack and the module of its instruction; the end has the mappings."""
    for _ in range(5):
        pid, status, events = run_victim(engine, victim_program, way)
        fault = only(events, Fault, pid)[0]
        if fault.module:  # a second agentscope that watches the same process may have been quicker: -EBUSY, see fault.bpf.c
            break
    assert (fault.signal, fault.code, fault.handler) == (number, code, "default")
    assert status & 0x7F == number
    if address is not None:
        assert fault.address == address
    assert fault.comm == ("worker" if way == "thread" else "engine_victim")
    assert (fault.tid != fault.pid) == (way == "thread")
    assert set(fault.registers) == set(range(17))
    assert fault.stack
    assert len(fault.stack) >= 256
    assert fault.sys_number == (110 if way == "seccomp" else None)
    assert fault.module
    assert fault.module.start <= fault.ip < fault.module.end
    inside = victim_program if way != "seccomp" else "libc"
    assert str(inside) in fault.module.path
    if way != "seccomp":
        assert fault.module.inode == victim_program.stat().st_ino
    end = only(events, ProcessExit, pid)[0]
    if end.mappings is None:
        assert any("mappings" in sentence for sentence in engine.degraded)
    else:
        assert fault.module in end.mappings


def test_mappings_are_those_of_proc(engine: CoreEngine) -> None:
    """The mappings at the end are the executable, file-backed lines of /proc/PID/maps just before."""
    code = "import os,ssl,sys\nsys.stdout.write(open('/proc/self/maps').read())\nsys.stdout.flush()\nos.abort()"
    gated = Gated(engine, "/usr/bin/python3", "-c", code, stdout=subprocess.PIPE)
    gated.go()
    text = gated.process.stdout.read().decode()  # type: ignore[union-attr]
    gated.status()
    end = only(collect(engine, ended(gated.pid)), ProcessExit, gated.pid)[0]
    lines = [line.split(None, 5) for line in text.splitlines()]
    wanted = [
        (*[int(edge, 16) for edge in fields[0].split("-")], int(fields[2], 16), int(fields[4]), fields[5])
        for fields in lines
        if "x" in fields[1] and len(fields) == 6 and fields[5].startswith("/")
    ]
    assert len(wanted) > 5
    if end.mappings is None:
        pytest.skip("; ".join(engine.degraded))
    assert [(m.start, m.end, m.offset, m.inode, m.path) for m in end.mappings] == wanted


def test_caught_faults_are_limited(engine: CoreEngine, victim_program: Path) -> None:
    """A program that takes SIGSEGV on purpose a thousand times does not flood: eight full records, and it lives."""
    pid, status, events = run_victim(engine, victim_program, "handled")
    faults = only(events, Fault, pid)
    assert status == 0
    assert 8 <= len(faults) <= 10
    assert {fault.handler for fault in faults} == {"caught"}


CRASH = """
import ctypes, threading, sys

class Agent:
    def step(self, n):
        if n:
            return self.step(n - 1)
        ctypes.string_at(
            0
        )

def main():
    Agent().step(2)

def crème():
    main()

input()
if len(sys.argv) > 1:
    t = threading.Thread(target=crème); t.start(); t.join()
else:
    crème()
"""


@pytest.mark.parametrize("known", ["pid", "exe"])
@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_python_frames_are_read(engine: CoreEngine, tmp_path: Path, python: Path, known: str) -> None:
    """Function, file and line of each Python frame of the faulting thread, also of a process nobody has looked at before."""
    script = tmp_path / "agent.py"
    script.write_text(CRASH)
    first = subprocess.Popen([python, script, "thread"], stdin=subprocess.PIPE)
    second = subprocess.Popen([python, script, "thread"], stdin=subprocess.PIPE)
    taught, victim = (first, second) if known == "exe" else (first, first)
    for process in (first, second):
        engine.watch(process.pid)
        wait_for_read(process.pid)
    engine.know_python([taught.pid])
    victim.communicate(b"\n")
    for process in (first, second):
        process.kill()
        process.communicate()
    fault = only(collect(engine, ended(victim.pid)), Fault, victim.pid)[0]
    assert fault.python_frames
    ours = [(frame.function, frame.line) for frame in fault.python_frames if frame.file == str(script)]
    assert ours == [("Agent.step", 8), ("Agent.step", 7), ("Agent.step", 7), ("main", 13), ("crème", 16)]
    assert fault.python_frames[0].function == "string_at"
    assert fault.tid != fault.pid


def wait_for_read(pid: int) -> None:
    """Until the process sits in read(0): it has started, and has not gone on."""
    wait_for_call(pid, "0 0x0 ")


def wait_for_call(pid: int, call: str) -> None:
    """Until the process sits in this system call."""
    deadline = time.monotonic() + 20
    while not Path(f"/proc/{pid}/syscall").read_text().startswith(call):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_oom_victim_is_told(engine: CoreEngine) -> None:
    """The OOM killer's choice comes with its memory and cgroup, before the end by SIGKILL that the kernel sent."""
    v1 = Path("/sys/fs/cgroup/memory")
    root = v1 / proc_cgroup("self").lstrip("/") if v1.is_dir() else Path("/sys/fs/cgroup")
    group = root / f"engine-oom-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")).write_text(str(48 << 20))
        if not v1.is_dir() and (group / "memory.swap.max").exists():
            (group / "memory.swap.max").write_text("0")
        code = f"open('{group}/cgroup.procs','w').write('0')\nx=[]\nwhile 1: x.append(bytearray(1<<20))"
        pid, status, events = run_victim(engine, "/usr/bin/python3", "-c", code)
        victim = only(events, OomVictim, pid)[0]
        assert status == 9
        assert victim.cgroup == "/" + str(group.relative_to(v1 if v1.is_dir() else "/sys/fs/cgroup"))
        assert victim.trigger_cgroup == victim.cgroup
        assert victim.trigger_pid == pid
        assert victim.comm == "python3"
        said = next(line.text for line in reversed(read_past()) if f"Killed process {pid} " in line.text)
        said_bytes = {name: int(kib) << 10 for name, kib in re.findall(r"(total-vm|anon-rss|pgtables):(\d+)kB", said)}
        # each CPU may hold back 32 pages of the counter; the log adds them up
        assert victim.anon_rss_bytes is not None
        assert abs(victim.anon_rss_bytes - said_bytes["anon-rss"]) <= (os.cpu_count() or 1) * 32 * 4096
        assert (victim.total_vm_bytes, victim.pgtables_bytes) == (said_bytes["total-vm"], said_bytes["pgtables"])
        assert victim.oom_score_adj == 0
        kill = only(events, SignalSent, pid)[0]
        assert (kill.signal, kill.code) == (9, 128)
        assert events.index(kill) < events.index(victim) < events.index(only(events, ProcessExit, pid)[0])
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.mark.parametrize("where", ["pipe", "null", "pty"])
def test_words_are_kept(engine: CoreEngine, where: str) -> None:
    """The tail of what went to descriptors 1 and 2 is kept wherever it went, and given once; other descriptors do not count."""
    engine.capture_words(enabled=True)
    code = "import os,sys\nos.write(1,b'a'*5000)\nos.writev(2,[b'one ',b'two'])\nf=os.open('/dev/null',1)\nos.write(f,b'no')\nprint(' end')"
    control, terminal = pty.openpty()
    target = {"pipe": subprocess.PIPE, "null": subprocess.DEVNULL, "pty": terminal}[where]
    gated = Gated(engine, "/usr/bin/python3", "-c", code, stdout=target, stderr=target)
    gated.go()
    if where == "pipe":
        gated.process.stdout.read()  # type: ignore[union-attr]
    gated.status()
    os.close(terminal)
    os.close(control)
    collect(engine, ended(gated.pid))
    taken = engine.take_words(gated.pid)
    assert taken is not None
    words, written_ns = taken
    assert 0 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - written_ns < 30_000_000_000
    assert len(words) == 4096
    assert words.endswith(b"aaaone two end\n")
    assert engine.take_words(gated.pid) is None
    engine.capture_words(enabled=False)
    deadline = time.monotonic() + 5  # the kernel lets go of the probe in its own time, and nobody waits for that
    while engine.take_words(run_victim(engine, "/bin/echo", "unheard")[0]) is not None:
        assert time.monotonic() < deadline


def test_sample_tells_who_waits_for_what(engine: CoreEngine) -> None:
    """A sample has every thread of the watched processes with its call, state and when it last had a CPU."""
    code = "import socket,threading\na,b=socket.socketpair()\nthreading.Thread(target=a.recv,args=(1,),daemon=True).start()\n"
    code += "x=bytearray(30<<20)\nprint(flush=True)\nwhile 1: pass"
    process = subprocess.Popen(["/usr/bin/python3", "-c", code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()  # type: ignore[union-attr]
        assert not engine.sample()
        engine.watch(process.pid)
        began = time.monotonic()
        first = engine.sample()
        time.sleep(0.3)
        (sample,) = engine.sample()
        assert sample.pid == process.pid
        assert sample.start_ns // 10**7 == proc_start_ticks(process.pid)
        assert sample.anon_bytes
        assert sample.rss_bytes
        assert 30 << 20 < sample.anon_bytes < sample.rss_bytes < 60 << 20
        busy, waiting = sorted(sample.threads, key=lambda thread: thread.tid)
        assert (busy.tid, busy.state) == (process.pid, "R")
        assert busy.user_ns > first[0].threads[0].user_ns
        assert (waiting.state, waiting.syscall.number) == ("S", 45)  # type: ignore[union-attr]  # recvfrom
        assert waiting.last_ran_ns is not None
        blocked_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - waiting.last_ran_ns) / 1e9
        assert 0.29 < blocked_s < time.monotonic() - began + 1.0
        assert busy.last_ran_ns is None
    finally:
        process.kill()
        process.wait()


def test_memory_is_that_of_a_sample(engine: CoreEngine) -> None:
    """Reading the memory of processes alone tells the same as a sample of all their threads, which comes out whole after it."""
    process = subprocess.Popen(["/bin/sleep", "30"])
    engine.watch(process.pid)
    wait_for_call(process.pid, "230 ")
    try:
        told = engine.memory()[process.pid]
        (sample,) = [each for each in engine.sample() if each.pid == process.pid]
        assert told is not None
        assert told > 0
        assert told == sample.rss_bytes
        assert [thread.tid for thread in sample.threads] == [process.pid]
    finally:
        process.kill()
        process.wait()


def test_discovery_watches_every_exec(engine: CoreEngine) -> None:
    """With discovery on, a process nobody named is reported from its exec; with it off, nothing is."""
    subprocess.run(["/bin/true", "unseen"], check=True)
    engine.watch_discovered(enabled=True)
    process = subprocess.Popen(["/bin/sh", "-c", "exit 5"])
    process.wait()
    events = collect(engine, ended(process.pid))
    assert only(events, ProcessExec, process.pid)[0].argv == ("/bin/sh", "-c", "exit 5")
    assert only(events, ProcessExit, process.pid)[0].code == 5
    engine.watch_discovered(enabled=False)
    engine.drain()
    process = subprocess.Popen(["/bin/true", "unseen"])
    process.wait()
    time.sleep(0.1)
    assert not [event for event in engine.drain() if getattr(event, "pid", 0) == process.pid]
    assert not any(isinstance(event, ProcessExec) and "unseen" in event.argv for event in events)


def test_unwatched_is_silent(engine: CoreEngine) -> None:
    """After unwatch nothing is heard of a process, and watching one that is gone is nothing."""
    process = subprocess.Popen(["/bin/sleep", "30"])
    engine.watch(process.pid)
    wait_for_call(process.pid, "230 ")  # clock_nanosleep: its exec is over
    engine.unwatch(process.pid, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    engine.drain()
    process.kill()
    process.wait()
    engine.watch(process.pid)
    engine.watch(2**22 + 5)
    time.sleep(0.05)
    assert not engine.drain()


def test_a_later_program_is_not_unwatched_with_the_earlier(engine: CoreEngine) -> None:
    """Who is turned down for what it was before an exec stays watched as what it became: its end and its words are heard."""
    engine.watch_discovered(enabled=True)
    engine.capture_words(enabled=True)
    script = 'exec sh -c "read line; echo last >&2; exit 3"'
    process = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    events: list[AnyEvent] = []
    deadline = time.monotonic() + 5
    while len(execs := [each for each in events if isinstance(each, ProcessExec) and each.pid == process.pid]) < 2:
        assert time.monotonic() < deadline, events
        events.extend(engine.drain())
        time.sleep(0.01)
    engine.watch_discovered(enabled=False)
    engine.unwatch(process.pid, execs[0].at_ns)  # as if the first had only now been looked at
    _, complaint = process.communicate(b"go\n", 5)
    time.sleep(0.05)
    assert [(event.pid, event.status >> 8) for event in engine.drain() if isinstance(event, ProcessExit)] == [(process.pid, 3)]
    words = engine.take_words(process.pid)
    assert words is not None
    assert words[0] == complaint == b"last\n"


def test_every_record_is_delivered_or_counted(engine: CoreEngine) -> None:
    """When nobody drains, what does not fit is counted: delivered and lost together are what was sent."""
    sent = 20000
    code = f"import os,signal\nsignal.signal(10,lambda *a:None)\nfor _ in range({sent}): os.kill(os.getpid(),10)\nos._exit(0)"
    gated = Gated(engine, "/usr/bin/python3", "-c", code)
    engine.drain()
    gated.go()
    gated.status()
    time.sleep(0.05)
    events = list(engine.drain())
    lost = [event for event in events if isinstance(event, Lost)]
    assert lost
    execs = len(
        only(events, ProcessExec, gated.pid)
    )  # of the gate, if it was watched in time, and of python: before the ring is full
    delivered = len(only(events, SignalSent, gated.pid)) + len(only(events, ProcessExit, gated.pid))
    assert delivered + sum(event.count for event in lost) == sent + 1
    assert execs in (1, 2)
    pid, _, events = run_victim(engine, "/bin/true")
    assert len(only(events, ProcessExit, pid)) == 1
    assert not [event for event in events if isinstance(event, Lost)]


def test_storm_is_delivered(engine: CoreEngine) -> None:
    """Thousands of births and deaths, drained as they come: none lost, each once."""
    code = "import os\nfor i in range(3000):\n p=os.fork()\n if not p: os._exit(i & 127)\n os.waitpid(p,0)"
    gated = Gated(engine, "/usr/bin/python3", "-c", code)
    gated.go()
    events = collect(engine, ended(gated.pid), 120)
    gated.status()
    codes = [event.code for event in events if isinstance(event, ProcessExit) and event.pid != gated.pid]
    assert codes == [i & 127 for i in range(3000)]
    assert not [event for event in events if isinstance(event, Lost)]


UNAVAILABLE = """
import sys
from agentscope.errors import EngineUnavailable
from agentscope.sources.ebpf import CoreEngine
try:
    CoreEngine()
except EngineUnavailable as error:
    print(error.why, "|", error.try_this)
else:
    print("loaded")
"""


@pytest.mark.parametrize(
    ("hide", "why", "try_this"),
    [
        ("mount -t tmpfs x /sys/kernel/btf", "does not describe its types", "--engine auto"),
        ("mount --bind /dev/null {libbpf}", "libbpf.so.1", "apt install libbpf1"),
        ("mount -t tmpfs x {probes}", "not been built", "make probes"),
        ("mount -t tmpfs x /sys/kernel/tracing; umount -l /sys/kernel/tracing /sys/kernel/debug 2>/dev/null; true", None, None),
    ],
    ids=["btf", "libbpf", "probes", "tracefs"],
)
def test_what_is_missing_is_named(hide: str, why: str | None, try_this: str | None) -> None:
    """A machine without BTF, libbpf or probes gets a sentence that says what to do; tracefs need not be mounted."""
    libraries = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    libbpf = next(line.split()[-1] for line in libraries.splitlines() if "libbpf.so.1" in line)
    script = hide.format(libbpf=libbpf, probes=CORE.parent) + '; exec "$@"'
    answer = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", script, "sh", sys.executable, "-c", UNAVAILABLE],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    if why is None:
        assert answer == "loaded\n"
    else:
        assert why in answer
        assert try_this
        assert try_this in answer


def test_without_root_sudo_is_named() -> None:
    """Without privileges the advice is sudo."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    answer = subprocess.run([*drop, "/usr/bin/python3", "-c", "print(1)"], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("cannot drop privileges here")
    answer = subprocess.run([*drop, sys.executable, "-c", UNAVAILABLE], capture_output=True, text=True, check=True)
    assert "sudo" in answer.stdout


def test_close_is_final(engine: CoreEngine) -> None:
    """Closing twice is one close, and nothing is left attached."""
    engine.capture_words(enabled=True)
    engine.close()
    engine.close()
    assert engine.drain() == ()


def test_kernel_log_is_followed_and_read() -> None:
    """A line is seen by the follower once, and by a reader of the past."""
    log = KernelLog()
    token = f"agentscope test {time.time_ns()}"
    Path("/dev/kmsg").write_text(f"<5>{token}\n")
    select.select([log.fileno()], [], [], 2)
    lines = [event for event in log.drain() if isinstance(event, KernelLine) and event.text == token]
    assert len(lines) == 1
    assert lines[0].priority == 5
    assert abs(lines[0].at_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 5 * 10**9
    assert not [event for event in log.drain() if isinstance(event, KernelLine) and event.text == token]
    assert [line.seq for line in read_past() if line.text == token] == [lines[0].seq]
    log.close()
    log.close()


def test_the_ordered_ring_reads_the_same() -> None:
    """The reader for processors that reorder loads gives the very records, in order, that the mapped one gives here."""
    from agentscope.sources.libbpf import the_library
    from agentscope.sources.ring import OrderedRing

    engine = CoreEngine()
    ring = OrderedRing(the_library(), engine._ring.fileno())
    try:
        children = [subprocess.Popen(["sh", "-c", "read _; exit 7"], stdin=subprocess.PIPE) for _ in range(50)]
        for child in children:
            engine.watch(child.pid)
        for child in children:
            child.communicate(b"\n")
        events = [event for record in ring.drain() if (event := engine._decode(record)) is not None]
        ends = [event for event in events if isinstance(event, ProcessExit)]
        assert [event.pid for event in ends] == [child.pid for child in children]
        assert {event.status for event in ends} == {7 << 8}
        assert list(ring.drain()) == []
        assert engine.drain() == []
    finally:
        ring.close()
        engine.close()
