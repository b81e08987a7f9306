"""Programs that observe: agentscope, and the other tools on the same work. Each line of theirs is stamped as it arrives."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

AGENTSCOPE = Path(sys.executable).parent / "agentscope"
SEEN = """BEGIN { printf("ready\\n"); }
tracepoint:sched:sched_process_exit { printf("exit %d %d\\n", pid, ((struct task_struct *)curtask)->exit_code); }
tracepoint:signal:signal_generate { printf("signal %d %d %d\\n", args->pid, args->sig, pid); }"""


def now_ns() -> int:
    """CLOCK_BOOTTIME, the clock of the victims too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class NotReady(Exception):
    """An observer did not start, and what it said."""


class Observer:
    """A running observer, ready; `lines` are (when the line had arrived, line)."""

    def __init__(self, argv: Sequence[str], ready: bytes, *, stream: str = "stdout", silent: bool = False) -> None:
        self.began_ns = now_ns()
        other = {"stdout": "stderr", "stderr": "stdout"}[stream]
        self.other = tempfile.TemporaryFile()
        sinks = {stream: subprocess.PIPE, other: self.other}
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **sinks)  # type: ignore[call-overload] # two of three sinks
        self.silent = False
        self.lines: list[tuple[int, bytes]] = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, args=(getattr(self.process, stream),), daemon=True)
        self.reader.start()
        found = self.wait_for(lambda line: ready in line, 30)
        if found is None:
            self.process.kill()
            self.process.wait()
            self.other.seek(0)
            raise NotReady(
                f"{Path(argv[0]).name} did not get ready: {self.other.read()[-300:].decode(errors='replace').strip() or 'it said nothing'}"
            )
        self.ready_ns = found[0]
        self.silent = silent

    def _read(self, stream: object) -> None:
        rest = b""
        while chunk := os.read(stream.fileno(), 1 << 20):  # type: ignore[attr-defined] # a pipe of Popen
            at_ns = now_ns()
            *whole, rest = (rest + chunk).split(b"\n")
            if self.silent:
                continue  # whoever measures the cost to others must not spend time itself
            with self.changed:
                self.lines.extend((at_ns, line) for line in whole)
                self.changed.notify_all()

    def wait_for(self, wanted: Callable[[bytes], bool], timeout_s: float, since: int = 0) -> tuple[int, bytes] | None:
        """The first line from position `since` that is wanted, with its time."""
        position, found = since, None

        def look() -> bool:
            nonlocal position, found
            while found is None and position < len(self.lines):
                found = self.lines[position] if wanted(self.lines[position][1]) else None
                position += 1
            return found is not None

        with self.changed:
            self.changed.wait_for(look, timeout_s)
        return found

    def __enter__(self) -> Self:
        """Already running."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ask it to stop, and wait for that."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
        self.other.close()


def agentscope(folder: Path, *target: str, silent: bool = False) -> Observer:
    """`agentscope events` with these targets."""
    argv = [str(AGENTSCOPE), "events", "--state-dir", str(folder), *target]
    return Observer(argv, b"agentscope.ready", silent=silent)


def bpftrace(*, silent: bool = False) -> Observer:
    """The one-liner that a person would use: every exit and every signal of the host."""
    return Observer(["bpftrace", "-B", "line", "-e", SEEN], b"ready", silent=silent)


def strace(pid: int, *options: str, silent: bool = False) -> Observer:
    """`strace -f` on a running process."""
    return Observer(["strace", "-f", *options, "-p", str(pid)], b"attached", stream="stderr", silent=silent)


def absent() -> dict[str, str]:
    """Why a tool cannot be measured here, by name; those that can are not in it."""
    reasons = {name: "not installed" for name in ("bpftrace", "strace") if shutil.which(name) is None}
    exitsnoop = shutil.which("exitsnoop-bpfcc") or shutil.which("exitsnoop")
    if exitsnoop is None:
        reasons["exitsnoop"] = "not installed (bpfcc-tools)"
    else:
        tried = subprocess.run(["timeout", "-s", "INT", "20", exitsnoop, "--help"], capture_output=True, text=True, check=False)
        headers = Path(f"/lib/modules/{os.uname().release}/build").exists() or Path("/sys/kernel/kheaders.tar.xz").exists()
        if tried.returncode != 0:
            reasons["exitsnoop"] = "does not start: " + tried.stderr.strip().splitlines()[-1]
        elif not headers:
            reasons["exitsnoop"] = "compiles against kernel headers, and there are none for this kernel"
    return reasons
