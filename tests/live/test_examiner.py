"""The examination probes against real processes: registers, samples of some processes, and what they call for a while."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope.examination import SyscallProfile
from agentscope.model import Lost, MissingEvidence
from agentscope.sources.ahead import SWITCH_S, ahead_of
from agentscope.sources.ebpf import CORE, CoreEngine
from agentscope.sources.examiner import EXAMINE, Examiner
from agentscope.sources.libbpf import BpfError, ProbeObject
from agentscope.sources.profile import PROBE

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

PYTHON = "/usr/bin/python3"
RIP, RSP = 16, 7
LONGEST_S = 60


@pytest.fixture
def examiner() -> Iterator[Examiner]:
    """An examiner of its own for each test."""
    if not EXAMINE.exists():
        pytest.skip("the probes are not built: make probes")
    examiner = Examiner()
    yield examiner
    examiner.close()


@pytest.fixture
def engine() -> Iterator[CoreEngine]:
    """A whole engine, which loads its examiner when asked."""
    if not CORE.exists():
        pytest.skip("the probes are not built: make probes")
    engine = CoreEngine()
    yield engine
    engine.close()


@contextlib.contextmanager
def running(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that says a line once it is where it should be, and ends itself after a minute at the latest."""
    bounded = f"import signal; signal.alarm({LONGEST_S})\n{code}"
    process = subprocess.Popen([PYTHON, "-c", bounded, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def closed_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


class Answering:
    """A server on loopback that gives every request the same answer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listening.accept()
                with peer, contextlib.suppress(OSError):
                    peer.settimeout(5)
                    peer.recv(4096)
                    peer.sendall(self.answer)

    def close(self) -> None:
        """No more answers."""
        self.listening.close()


@pytest.fixture
def too_many() -> Iterator[Answering]:
    """A server that answers 429 for ever."""
    server = Answering(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    yield server
    server.close()


def profiled(examiner: Examiner, pid: int, seconds: float = 0.5) -> SyscallProfile:
    """A profile, which must be had here."""
    profile = examiner.profile([pid], seconds)
    assert isinstance(profile, SyscallProfile)
    assert seconds <= profile.seconds < seconds + 2
    return profile


def calls_of(profile: SyscallProfile) -> dict[tuple[str, str | None], int]:
    """Counts by name and error."""
    return {(call.name, call.error): call.count for call in profile.calls}


def wait_for_call(pid: int, call: str) -> None:
    """Until the main thread sits in this system call, "0 0x0 " for a read of descriptor 0."""
    deadline = time.monotonic() + LONGEST_S
    while not Path(f"/proc/{pid}/syscall").read_text().startswith(call):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def mapping_at(pid: int, address: int) -> str:
    """The line of /proc/PID/maps that an address is in."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(value, 16) for value in line.split()[0].split("-"))
        if start <= address < end:
            return line
    return ""


# --- threads ----------------------------------------------------------------------------------------------------------------

THREE = """
import os, socket, threading
a, b = socket.socketpair()
threading.Thread(target=a.recv, args=(1,), daemon=True).start()
def compute():
    while 1: sum(range(100))
threading.Thread(target=compute, daemon=True).start()
print(flush=True)
os.read(0, 1)
"""


def test_registers_of_a_blocked_thread_are_where_it_is(examiner: Examiner) -> None:
    """A thread in recv: its instruction pointer is behind a syscall instruction of libc, its stack pointer in a stack."""
    with running(THREE) as process:
        wait_for_call(process.pid, "0 0x0 ")
        found = examiner.registers(process.pid)
        (sample,) = examiner.sample([process.pid])
        assert sorted(found) == sorted(int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir())
        waiting = next(thread for thread in sample.threads if thread.syscall is not None and thread.syscall.number == 45)
        registers = found[waiting.tid]
        assert registers[RIP] == waiting.ip
        assert "libc" in mapping_at(process.pid, registers[RIP])
        with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(registers[RIP] - 2)
            assert memory.read(2) == b"\x0f\x05"  # syscall
        # what /proc tells of a blocked thread: number, six arguments, stack pointer, instruction pointer
        told = Path(f"/proc/{process.pid}/task/{waiting.tid}/syscall").read_text().split()
        assert [registers[RSP], registers[RIP]] == [int(value, 16) for value in told[-2:]]
        assert [registers[number] for number in (5, 4, 1, 10, 8, 9)] == [int(value, 16) for value in told[1:7]]
        assert "[stack]" in mapping_at(process.pid, found[process.pid][RSP])


def test_registers_of_a_busy_thread_sample_where_it_is(examiner: Examiner) -> None:
    """Asked again and again, the instruction pointer of a thread that computes moves, and stays in its interpreter."""
    with running(THREE) as process:
        wait_for_call(process.pid, "0 0x0 ")
        blocked = {thread.tid for thread in examiner.sample([process.pid])[0].threads if thread.state != "R"}
        seen: list[int] = []
        for _ in range(60):
            seen += [values[RIP] for tid, values in examiner.registers(process.pid).items() if tid not in blocked]
            time.sleep(0.01)
        assert len(set(seen)) > 3
        inside = [address for address in seen if "python" in mapping_at(process.pid, address)]
        assert len(inside) > len(seen) / 2


def test_a_thread_that_rests_is_the_same_object(examiner: Examiner) -> None:
    """Two samples of a busy process: its blocked threads are identical, the busy one is not, and only it has no call."""
    with running(THREE) as process:
        wait_for_call(process.pid, "0 0x0 ")
        first = {thread.tid: thread for thread in examiner.sample([process.pid])[0].threads}
        time.sleep(0.2)
        second = {thread.tid: thread for thread in examiner.sample([process.pid])[0].threads}
        same = [tid for tid in first if second[tid] is first[tid]]
        assert len(same) == 2
        assert all(first[tid].syscall is not None for tid in same)
        (busy,) = first.keys() - set(same)
        assert second[busy].user_ns > first[busy].user_ns


def test_only_whom_one_asks_about(examiner: Examiner) -> None:
    """A sample has the processes asked for, also those of others; one that is gone is left out, and has no registers."""
    parent = subprocess.Popen(["/bin/sh", "-c", "/bin/sleep 60 & echo $!; exec /bin/sleep 60"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    other = int(parent.stdout.readline())
    child = subprocess.Popen(["/bin/sleep", "60"])
    pids = [os.getpid(), other, child.pid]
    assert sorted(sample.pid for sample in examiner.sample(pids)) == sorted(pids)
    child.kill()
    child.wait()
    assert sorted(sample.pid for sample in examiner.sample(pids)) == sorted(pids[:2])
    assert examiner.registers(child.pid) == {}
    assert examiner.sample([]) == []
    os.kill(other, signal.SIGKILL)
    parent.kill()
    parent.wait()


def test_what_idles_is_the_same_process_for_the_engine_too(engine: CoreEngine) -> None:
    """The watched processes of which nothing happened are identical in two samples, and the whole sample is when none did."""
    sleepers = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(3)]
    try:
        time.sleep(0.3)
        for process in sleepers:
            engine.watch(process.pid)
        first = {sample.pid: sample for sample in engine.sample()}
        time.sleep(0.2)
        second = {sample.pid: sample for sample in engine.sample()}
        assert first.keys() == second.keys() == {process.pid for process in sleepers}
        assert all(second[pid] is first[pid] for pid in first)
        thread = first[sleepers[0].pid].threads[0]
        assert (thread.state, thread.syscall and thread.syscall.number) == ("S", 230)
        assert engine.registers(sleepers[0].pid)[sleepers[0].pid][RIP] == thread.ip
    finally:
        for process in sleepers:
            process.kill()
            process.wait()


def test_bytes_of_a_thread_are_counted(examiner: Examiner) -> None:
    """What goes through read and write is in the sample of the thread that did it."""
    with running("import os\nos.write(1, b'.\\n')\nos.read(0, 10)\nos.write(1, b'x' * 1000)\nos.read(0, 1)") as process:
        assert process.stdin is not None
        (before,) = examiner.sample([process.pid])
        process.stdin.write(b"0123456789")
        process.stdin.flush()
        assert process.stdout is not None
        assert process.stdout.read(1000)
        time.sleep(0.1)
        (after,) = examiner.sample([process.pid])
        assert (after.threads[0].read_bytes or 0) - (before.threads[0].read_bytes or 0) == 10
        assert (after.threads[0].written_bytes or 0) - (before.threads[0].written_bytes or 0) == 1000


def test_time_on_the_cpu_is_measured(examiner: Examiner) -> None:
    """A thread's time is what the scheduler measured, to the nanosecond, and not how many timer ticks met it."""
    with running(
        "import sys, time\nfor _ in range(300): time.sleep(0.001)\nprint(flush=True)\nsys.stdin.buffer.raw.read(1)"
    ) as victim:
        wait_for_call(victim.pid, "0 0x0 ")
        ((thread,),) = (sample.threads for sample in examiner.sample([victim.pid]))
        measured_ns = int(Path(f"/proc/{victim.pid}/schedstat").read_text().split()[0])
    assert thread.user_ns + thread.system_ns == measured_ns


def test_threads_that_come_and_go_do_no_harm(examiner: Examiner) -> None:
    """A process that starts and ends threads all the time can be sampled and its registers read; the main thread is always there."""
    code = "import threading\nprint(flush=True)\nwhile 1:\n t = threading.Thread(target=int); t.start(); t.join()"
    with running(code) as process:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            (sample,) = examiner.sample([process.pid])
            assert process.pid in {thread.tid for thread in sample.threads}
            assert process.pid in examiner.registers(process.pid)


# --- profiles ---------------------------------------------------------------------------------------------------------------

BLOCKING = """
import errno, socket, sys, time
print(flush=True)
while 1:
    with socket.socket() as s:
        s.connect_ex(("127.0.0.1", int(sys.argv[1])))
    time.sleep(0.01)
"""

WITH_TIMEOUT = BLOCKING.replace("s.connect_ex", "s.settimeout(5); s.connect_ex")

ASYNCIO = """
import asyncio, sys
async def main():
    print(flush=True)
    while 1:
        try:
            await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
        except OSError:
            pass
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


@pytest.mark.parametrize("code", [BLOCKING, WITH_TIMEOUT, ASYNCIO], ids=["blocking", "with a time-out", "asyncio"])
def test_refused_connects_are_counted(examiner: Examiner, closed_port: int, code: str) -> None:
    """A loop of connects to a closed port: each counts as refused under its address, also where the refusal comes later."""
    with running(code, str(closed_port)) as process:
        profile = profiled(examiner, process.pid)
        refused = {(each.address, each.error): each.count for each in profile.connects}
        assert refused.pop((f"127.0.0.1:{closed_port}", "ECONNREFUSED")) >= 10
        assert sum(refused.values()) <= 1  # one may be in progress
        counted = calls_of(profile)
        ending = "EINPROGRESS" if code != BLOCKING else "ECONNREFUSED"
        assert counted["connect", ending] >= 10
        assert profile.written_bytes == {process.pid: 0}
        assert profile.lost == 0


def test_kinds_of_addresses(examiner: Examiner, tmp_path: Path) -> None:
    """Unix paths, abstract names, IPv6; success is told; datagram sockets, which only name a peer, are not counted."""
    path = str(tmp_path / "missing.sock")
    with socket.socket(socket.AF_UNIX) as listening, running(
        f"""
import socket, time
def attempt(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as s:
        s.connect_ex(address)
print(flush=True)
while 1:
    attempt(socket.AF_UNIX, {path!r})
    attempt(socket.AF_UNIX, "\\0agentscope-none")
    attempt(socket.AF_UNIX, {str(tmp_path / "here")!r})
    attempt(socket.AF_INET6, ("::1", 1))
    attempt(socket.AF_INET, ("127.0.0.1", 9), socket.SOCK_DGRAM)
    time.sleep(.02)
"""
    ) as process:  # fmt: skip
        listening.bind(str(tmp_path / "here"))
        listening.listen(1)
        profile = profiled(examiner, process.pid)
        ends = {each.address: each.error for each in profile.connects if each.address != str(tmp_path / "here")}
        assert ends.pop("[::1]:1") in {"ECONNREFUSED", "EADDRNOTAVAIL", "ENETUNREACH"}
        assert ends == {path: "ENOENT", "@agentscope-none": "ECONNREFUSED"}
        assert None in {each.error for each in profile.connects if each.address == str(tmp_path / "here")}


REQUESTS = {
    "blocking": """
import http.client, sys, time
print(flush=True)
while 1:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
    connection.request("GET", "/")
    connection.getresponse().read()
    time.sleep(.01)
""",
    "asyncio": """
import asyncio, sys
async def main():
    print(flush=True)
    while 1:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        await reader.read()
        writer.close()
        await asyncio.sleep(.01)
asyncio.run(main())
""",
    "read": "RECEIVE = lambda s: os.read(s.fileno(), 4096)",
    "readv": "RECEIVE = lambda s: os.readv(s.fileno(), [bytearray(4096), bytearray(10)])",
    "recvmsg": "RECEIVE = lambda s: s.recvmsg(4096)",
    "recvmsg_into": "RECEIVE = lambda s: s.recvmsg_into([bytearray(64), bytearray(4096)])",
}
BY_HAND = """
import os, socket, sys, time
{receive}
print(flush=True)
while 1:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
        RECEIVE(s)
    time.sleep(.01)
"""


@pytest.mark.parametrize("way", REQUESTS)
def test_statuses_are_read(examiner: Examiner, too_many: Answering, way: str) -> None:
    """However a client reads, the status in its answers is counted, and nothing else is taken for one."""
    code = REQUESTS[way] if "print" in REQUESTS[way] else BY_HAND.format(receive=REQUESTS[way])
    with running(code, str(too_many.port)) as process:
        profile = profiled(examiner, process.pid)
        (status,) = profile.statuses
        assert (status.pid, status.status) == (process.pid, 429)
        assert status.count >= 5
        done = {(each.address, each.error): each.count for each in profile.connects}
        assert abs(done[f"127.0.0.1:{too_many.port}", None] - status.count) <= 1


def test_node_is_read_too(examiner: Examiner, too_many: Answering) -> None:
    """Node connects without blocking and reads with read(2): status and connects are counted."""
    node = next((path for path in ("/usr/bin/node", "/usr/local/bin/node", "/root/.nvm/node") if Path(path).exists()), None)
    if node is None:
        pytest.skip("no node on this machine")
    code = (
        "const http = require('http'); setTimeout(() => process.exit(), 60000);"
        "function go() { http.get({host: '127.0.0.1', port: +process.argv[1]}, r => { r.resume(); r.on('end', () => setTimeout(go, 10)); }); }"
        "go(); console.log('ready');"
    )
    process = subprocess.Popen([node, "-e", code, str(too_many.port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        profile = profiled(examiner, process.pid)
        assert {status.status for status in profile.statuses} == {429}
        assert {(each.address, each.error) for each in profile.connects} >= {(f"127.0.0.1:{too_many.port}", None)}
    finally:
        process.kill()
        process.communicate()


def test_output_and_calls_are_counted_exactly(examiner: Examiner) -> None:
    """Calls between beginning and end are counted one by one, bytes written to descriptors 1 and 2 summed, others' not."""
    code = """
import os, sys
print(flush=True)
os.read(0, 1)
for _ in range(1000): os.getppid()
os.write(2, b"x" * 100); os.writev(1, [b"y" * 10, b"z" * 5]); os.write(os.open("/dev/null", 1), b"n" * 50)
for _ in range(20):
    try: os.stat("/no/such")
    except OSError: pass
os.write(1, b"done\\n")
os.read(0, 1)
"""
    with running(code) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        examiner.begin_profile([process.pid])
        process.stdin.write(b"1")
        process.stdin.flush()
        assert process.stdout.readline() == b"y" * 10 + b"z" * 5 + b"done\n"
        time.sleep(0.1)
        profile = examiner.end_profile()
        assert isinstance(profile, SyscallProfile)
        counted = calls_of(profile)
        assert counted["getppid", None] == 1000
        assert counted["newfstatat", "ENOENT"] == 20
        assert counted["read", None] == 1  # it began before the profile did
        assert profile.written_bytes == {process.pid: 120}
        assert profile.calls[0].name == "getppid"


def test_interrupted_calls_are_eintr(examiner: Examiner) -> None:
    """The kernel's own codes for a call that a signal interrupted do not reach a reader."""
    code = "import signal, time\nsignal.signal(10, lambda *a: None)\nprint(flush=True)\nwhile 1: time.sleep(30)"
    with running(code) as process:
        examiner.begin_profile([process.pid])
        for _ in range(3):
            wait_for_call(process.pid, "230 ")
            os.kill(process.pid, signal.SIGUSR1)
            time.sleep(0.2)
        profile = examiner.end_profile()
        assert isinstance(profile, SyscallProfile)
        assert calls_of(profile)["clock_nanosleep", "EINTR"] == 3


def test_what_does_not_fit_is_counted_as_lost(engine: CoreEngine) -> None:
    """More addresses than the table takes: those within it are told, the rest is a loss in the profile and in the stream."""
    code = """
import itertools, socket
print(flush=True)
s = socket.socket(socket.AF_UNIX)
for n in itertools.count(): s.connect_ex("/tmp/agentscope-no-such/%d" % n)
"""
    with running(code) as process:
        engine.begin_profile([process.pid])
        time.sleep(0.5)
        profile = engine.end_profile()
        assert isinstance(profile, SyscallProfile)
        assert len(profile.connects) == 512
        assert profile.lost > 0
        (lost,) = (event for event in engine.drain() if isinstance(event, Lost))
        assert lost.count == profile.lost


def test_one_profile_replaces_another(examiner: Examiner) -> None:
    """A new beginning forgets what was counted; an end without a beginning says so; pids that are gone do no harm."""
    missing = examiner.end_profile()
    assert isinstance(missing, MissingEvidence)
    assert missing.kind == "syscall-profile"
    with running("import os\nprint(flush=True)\nwhile 1: os.getppid()") as process:
        examiner.begin_profile([process.pid])
        time.sleep(0.1)
        examiner.begin_profile([2**22 + 5])
        profile = examiner.end_profile()
        assert isinstance(profile, SyscallProfile)
        assert profile.calls == ()
        assert isinstance(examiner.end_profile(), MissingEvidence)


def attached_by(pid: int) -> list[str]:
    """The BPF links that a process has open, by its descriptors."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "bpf_link" in str(path.readlink()):
                found.append(Path(f"/proc/{pid}/fdinfo/{path.name}").read_text())
    return found


def test_nothing_stays_attached(examiner: Examiner) -> None:
    """Loaded, nothing is attached; during a profile one link is; afterwards, and after samples and registers, none."""
    ours = attached_by(os.getpid())
    examiner.begin_profile([os.getpid()])
    during = attached_by(os.getpid())
    assert len(during) == len(ours) + 1
    assert any(re.search(r"tp_name:\s+sys_exit", link) or "tracing" in link or "raw_tracepoint" in link for link in during)
    examiner.end_profile()
    examiner.sample([os.getpid()])
    examiner.registers(os.getpid())
    assert attached_by(os.getpid()) == ours
    examiner.begin_profile([os.getpid()])
    examiner.close()
    assert attached_by(os.getpid()) == ours
    examiner.close()


def test_threads_may_ask_while_the_engine_closes(engine: CoreEngine) -> None:
    """Registers asked for by another thread while the engine is closed, and after that, are there or empty: nothing breaks."""
    found: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            found.append(len(engine.registers(os.getpid())))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    time.sleep(0.3)
    engine.close()
    time.sleep(0.1)
    stop.set()
    for thread in asking:
        thread.join(10)
    assert found[0] > 0
    assert found[-1] == 0


def test_kernels_that_cannot_scope_an_iterator(examiner: Examiner) -> None:
    """Where an iterator cannot be bound to a process, one pass over all gives the same for those asked for."""
    with running(THREE) as process:
        scoped = {thread.tid for thread in examiner.sample([process.pid])[0].threads}
        examiner._scoping = False
        (sample,) = examiner.sample([process.pid])
        assert {thread.tid for thread in sample.threads} == scoped == set(examiner.registers(process.pid))


def test_kernels_without_the_tracepoint(engine: CoreEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the probe is refused, the profile is missing with the reason, and threads are still sampled."""
    load_only = ProbeObject.load_only

    def refusing(probes: ProbeObject, wanted: frozenset[str]) -> None:
        if PROBE in wanted:
            raise BpfError(errno.ESRCH, "load")
        load_only(probes, wanted)

    monkeypatch.setattr(ProbeObject, "load_only", refusing)
    engine.begin_profile([os.getpid()])
    missing = engine.end_profile()
    assert isinstance(missing, MissingEvidence)
    assert "tracepoint" in missing.because
    assert engine.registers(os.getpid())


def test_without_the_object_there_is_a_reason(engine: CoreEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the examination probes were not built, nothing is raised: no registers, and a profile that is missing."""
    monkeypatch.setattr("agentscope.sources.examiner.EXAMINE", tmp_path / "examine.bpf.o")
    assert engine.registers(os.getpid()) == {}
    engine.begin_profile([os.getpid()])
    missing = engine.end_profile()
    assert isinstance(missing, MissingEvidence)
    assert "not been built" in missing.because
    engine.close()
    assert isinstance(engine.end_profile(), MissingEvidence)


def test_probes_are_loaded_ahead_for_a_living_process_only():
    """A report on a living pid finds them loaded; for a name, a pid that is gone or a log nothing is loaded."""
    if not EXAMINE.exists():
        pytest.skip("the probes are not built: make probes")
    ahead = ahead_of(str(os.getpid()))
    with contextlib.closing(ahead.examiner()) as examiner:
        assert [sample.pid for sample in examiner.sample((os.getpid(),))] == [os.getpid()]
    gone = subprocess.Popen(["true"])
    gone.wait()
    before = sys.getswitchinterval()
    assert [ahead_of(who) for who in (None, "researcher", str(gone.pid), "-1")] == [None] * 4
    assert sys.getswitchinterval() == before > SWITCH_S
