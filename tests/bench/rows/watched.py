"""What it costs the processes that are watched."""

from collections.abc import Iterator

from tests.bench.measure import Row, paired
from tests.bench.observers import agentscope, bpftrace, strace
from tests.bench.stage import PYTHON, Stage

PAIRS = 9
BUDGET = 1.05
FUNCTIONS = 400


def rows(stage: Stage) -> Iterator[Row]:
    """A Python socket loop and the compile of a C file, with standard error a file and a pipe."""
    source = stage.folder / "work.c"
    source.write_text(
        "".join(
            f"int f{n}(int a, int b) {{ int s = {n}; for (int i = a; i < b; i++) s += i * s ^ (a >> (i & 7)); return s; }}\n"
            for n in range(FUNCTIONS)
        )
    )
    works = {
        "Python socket loop": ((PYTHON, stage.program("sockets.py"), "150000"), True, "ns a call"),
        "compile of a C file": (("gcc", "-O2", "-c", str(source), "-o", str(stage.folder / "work.o")), False, "s"),
    }
    for what, (argv, reports, unit) in works.items():
        work = stage.work(*argv, reports=reports)
        beside = {}
        if "bpftrace" not in stage.absent:
            beside["bpftrace"] = str(paired(work, lambda _: bpftrace(silent=True), pairs=stage.times(5), unit=unit))
        if "strace" not in stage.absent:
            beside["strace -f"] = str(paired(work, lambda pid: strace(pid, "-o", "/dev/null", silent=True), pairs=3, unit=unit))
        for kind in ("file", "pipe"):
            held = stage.work(*argv, reports=reports, stderr_is=kind)
            ratio = paired(
                held, lambda pid: agentscope(stage.folder, "--pid", str(pid), silent=True), pairs=stage.times(PAIRS), unit=unit
            )
            yield Row(
                f"{what}, stderr a {kind}",
                str(ratio),
                f"{BUDGET}x",
                ratio.within(BUDGET),
                beside,
                f"{ratio.bare:.3g} {unit} bare",
            )
            beside = {}
