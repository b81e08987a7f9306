"""Small programs that block in one known way, for the readers of living processes; each ends itself after 50 s."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentscope.examination import Call
from agentscope.examination.calls import CallReader
from agentscope.examination.threads import sample

_BOUND = "import signal; signal.alarm(50)\n"


@contextmanager
def python(code: str, *, pass_fds: tuple[int, ...] = (), **options) -> Iterator[subprocess.Popen]:
    """A Python program, running; killed at the end."""
    with started([sys.executable, "-c", _BOUND + code], pass_fds=pass_fds, **options) as process:
        yield process


@contextmanager
def c_program(source: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A C program, compiled in `folder` and running. It calls alarm(2) itself."""
    binary = folder / "victim"
    binary.with_suffix(".c").write_text(source)
    subprocess.run(["gcc", "-O1", "-pthread", "-o", binary, binary.with_suffix(".c")], check=True, timeout=60)
    with started([str(binary), *arguments]) as process:
        yield process


@contextmanager
def started(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """A program, running; killed by its pid at the end."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | options
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(timeout=20)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def calls_of(pid: int) -> dict[int, Call]:
    """The calls that the threads of a process are blocked in, by tid."""
    with CallReader(pid) as reader:
        return {
            thread.tid: reader.read(thread.tid, thread.syscall)
            for process in sample([pid])
            for thread in process.threads
            if thread.syscall is not None
        }


def blocked_in(pid: int, *names: str, count: int = 1, seconds: float = 10.0) -> list[Call]:
    """The calls with one of these names as soon as `count` threads are blocked in them, and stay so for 50 ms."""
    until = time.monotonic() + seconds
    before: list[Call] = []
    while time.monotonic() < until:
        found = [call for call in calls_of(pid).values() if call.name in names]
        if len(found) >= count and [call.name for call in found] == [call.name for call in before]:
            return found
        before = found
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is in {calls_of(pid)}, not in {names}")


def wait_for(path: Path, seconds: float = 10.0) -> str:
    """The text of a file that a victim writes, as soon as it is there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text().strip()
        time.sleep(0.02)
    raise AssertionError(f"nothing was written to {path}")


def settled(question, seconds: float = 10.0):
    """The first true answer to a question that is asked again and again."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < until, f"never became true: {question}"
        time.sleep(0.02)
    return answer


def children_of(pid: int) -> list[int]:
    """The children of a process of one thread."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
