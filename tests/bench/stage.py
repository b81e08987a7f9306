"""What is measured: programs that work and programs that die, held at a gate until an observer is attached."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from tests.bench.measure import Watch, Work

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = str(Path(sys.executable).resolve())


class Stage:
    """A folder with the compiled programs; `quick` runs are for trying the bench itself."""

    def __init__(self, *, quick: bool, absent: dict[str, str]) -> None:
        self.quick = quick
        self.absent = absent
        self.scratch = tempfile.TemporaryDirectory(prefix="agentscope-bench-")
        self.folder = Path(self.scratch.name)
        for source in PROGRAMS.glob("*.c"):
            program = self.folder / f"asb-{source.stem}"
            subprocess.run(["gcc", "-O2", "-pthread", "-o", str(program), str(source)], check=True)
        self.gate = str(self.folder / "asb-gate")

    def program(self, name: str) -> str:
        """A compiled program, or a script."""
        return str(PROGRAMS / name if name.endswith(".py") else self.folder / f"asb-{name}")

    def times(self, usual: int) -> int:
        """How often to repeat something."""
        return max(3, usual // 5) if self.quick else usual

    def work(self, *argv: str, reports: bool, stderr_is: str = "file") -> Work:
        """Work that is held at the gate: it reports its own figure on standard output, or is timed from outside, in seconds."""

        def run(watch: Watch | None) -> float:
            log = os.open(self.folder / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            read, write = os.pipe()
            process = subprocess.Popen(
                [self.gate, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=write if stderr_is == "pipe" else log,
                cwd=self.folder,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            with watch(process.pid) if watch else nullcontext():
                began = time.perf_counter()
                process.stdin.write(b"\n")
                process.stdin.flush()
                said = process.stdout.read()
                status = process.wait()
                spent = time.perf_counter() - began
            for descriptor in (log, read, write):
                os.close(descriptor)
            process.stdin.close()
            process.stdout.close()
            if status != 0:
                raise RuntimeError(f"{argv} ended with {status}")
            return float(said) if reports else spent

        return run

    def close(self) -> None:
        """Remove the folder."""
        self.scratch.cleanup()


def wait_until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it became true in time."""
    ends = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
