"""What it costs processes that nobody watches."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tests.bench.measure import Row, Watch, paired
from tests.bench.observers import agentscope, bpftrace
from tests.bench.stage import Stage

PAIRS = 15
BUDGET = 1.05


@contextmanager
def sleeper(stderr: int) -> Iterator[int]:
    """A process to watch that does nothing."""
    process = subprocess.Popen(["sleep", "1000"], stderr=stderr)
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def rows(stage: Stage) -> Iterator[Row]:
    """The cheapest system call, and the start of a program, with each way of watching somebody else."""
    works = {
        "getppid loop": (stage.work(stage.program("getppid"), "1000000", reports=True), "ns a call"),
        "spawn of /bin/true": (stage.work(stage.program("spawn"), "600", reports=True), "us each"),
    }
    with (
        sleeper(subprocess.DEVNULL) as quiet,
        (stage.folder / "sleeper.log").open("wb") as log,
        sleeper(log.fileno()) as logging,
        sleeper(subprocess.PIPE) as piping,
    ):
        ways: dict[str, Watch] = {
            "--pid": lambda _: agentscope(stage.folder, "--pid", str(logging), silent=True),
            "--name, nothing matches": lambda _: agentscope(stage.folder, "--name", "^no-such-agent$", silent=True),
            "--pid, its stderr a pipe (write probe)": lambda _: agentscope(stage.folder, "--pid", str(piping), silent=True),
        }
        for what, (work, unit) in works.items():
            beside = {}
            if "bpftrace" not in stage.absent:
                beside["bpftrace"] = str(paired(work, lambda _: bpftrace(silent=True), pairs=stage.times(5), unit=unit))
            for way, watch in ways.items():
                ratio = paired(work, watch, pairs=stage.times(PAIRS), unit=unit)
                yield Row(
                    f"{what}, {way}", str(ratio), f"{BUDGET}x", ratio.within(BUDGET), beside, f"{ratio.bare:.0f} {unit} bare"
                )
                beside = {}
        noise = paired(works["spawn of /bin/true"][0], lambda _: nullcontext(), pairs=stage.times(PAIRS), unit="")
        yield Row("  the same with nothing attached in both turns", str(noise), note="the noise of this machine")
    del quiet
