"""Prints the table. Rows that take long can be left out: `python -m tests.bench storm latency`."""

import argparse
import importlib
import os
import pkgutil
import platform
import sys
import time
from pathlib import Path

from tests.bench import rows as every_row
from tests.bench.measure import Row
from tests.bench.observers import AGENTSCOPE, NotReady, absent
from tests.bench.stage import Stage

TRACEFS = Path("/sys/kernel/tracing")


def main() -> int:
    """Measure and print; a missed budget is a word in the table and no exit status."""
    subjects = sorted(found.name for found in pkgutil.iter_modules(every_row.__path__))
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"what to measure: {', '.join(subjects)} [all]")
    parser.add_argument("--quick", action="store_true", help="a fifth of the runs, to try the bench itself")
    chosen = parser.parse_args()
    if unknown := set(chosen.subjects) - set(subjects):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(subjects)}")
    if os.geteuid() != 0:
        parser.error("needs root: it attaches probes")
    if not AGENTSCOPE.exists():
        parser.error(f"agentscope is not installed at {AGENTSCOPE}: make setup")
    if not (TRACEFS / "events").exists():
        # in a mount namespace of our own, so that nothing stays behind
        mounted = 'mount -t tracefs none "$0" && exec "$@"'
        os.execvp(
            "unshare",
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                mounted,
                str(TRACEFS),
                sys.executable,
                "-m",
                "tests.bench",
                *sys.argv[1:],
            ],
        )
    stage = Stage(quick=chosen.quick, absent=absent())
    print(machine(), *(f"{tool}: {why}" for tool, why in stage.absent.items()), sep="\n")
    try:
        for subject in chosen.subjects or subjects:
            module = importlib.import_module(f"{every_row.__name__}.{subject}")
            print(f"\n{(module.__doc__ or '').strip()}  [{subject}]", flush=True)
            try:
                for row in module.rows(stage):
                    print(shown(row), flush=True)
            except NotReady as error:
                print(f"  the rest is not measured: {error}")
    finally:
        stage.close()
    return 0


def machine() -> str:
    """Where this was measured: figures mean nothing without it."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    load = os.getloadavg()[0]
    return f"{time.strftime('%F')} Linux {platform.release()}, {os.cpu_count()} x {cpu}, {memory_kib >> 20} GiB; load before {load:.1f}; Python {platform.python_version()}"


def shown(row: Row) -> str:
    """One line of the table, and its notes."""
    verdict = {None: "unclear" if row.budget else "", True: "held", False: "MISSED"}[row.held]
    beside = "; ".join(f"{name} {figure}" for name, figure in row.beside.items())
    first = f"  {row.what:<58} {row.ours:<28} {row.budget:<11} {verdict:<7}".rstrip()
    return "\n".join([first, *(f"      {text}" for text in (f"beside: {beside}" if beside else "", row.note) if text)])


if __name__ == "__main__":
    sys.exit(main())
