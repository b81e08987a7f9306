"""System call numbers to names, for x86-64 and aarch64 (the table and its source: `syscalls.tbl`)."""

import platform
from functools import cache
from pathlib import Path

_COLUMNS = {"x86_64": 1, "aarch64": 2}


@cache
def _names(machine: str) -> dict[int, str]:
    column = _COLUMNS.get(machine)
    if column is None:
        return {}
    lines = Path(__file__).with_name("syscalls.tbl").read_text(encoding="ascii").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {int(row[0]): row[column] for row in rows if row[column] != "-"}


def syscall_name(number: int, machine: str | None = None) -> str | None:
    """Name of a system call, "recvfrom", by its number on `machine` (None: this one); None where there is no such call."""
    return _names(machine or platform.machine()).get(number)


def syscall_number(name: str, machine: str | None = None) -> int | None:
    """Number of a system call on `machine` (None: this one); None where it has no such call."""
    return next((number for number, known in _names(machine or platform.machine()).items() if known == name), None)
