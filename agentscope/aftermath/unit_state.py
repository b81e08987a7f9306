"""What systemd still knows of the last run of a unit: `systemctl show` (org.freedesktop.systemd1(5))."""

from agentscope.aftermath import UNIT_STATE, Account, Boot, UnitState

SHOWN = (
    "Id", "LoadState", "InvocationID", "Result", "ExecMainPID", "ExecMainCode", "ExecMainStatus", "ExecMainStartTimestampMonotonic",
    "ExecMainExitTimestampMonotonic", "ControlGroup", "LimitCPU",
)  # fmt: skip
EXITED, KILLED, DUMPED = 1, 2, 3  # CLD_EXITED, CLD_KILLED, CLD_DUMPED: include/uapi/asm-generic/siginfo.h


def read_unit(shown: str, boot: Boot) -> UnitState | None:
    """The answer of `systemctl show`; None where there is no such unit or it never ran."""
    found: dict[str, str] = {}
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        found[name] = value
    if not found.get("Id") or found.get("LoadState") == "not-found":
        return None
    number = {name: int(value) for name, value in found.items() if value.isascii() and value.isdigit() and len(value) < 19}
    code, status = number.get("ExecMainCode", 0), number.get("ExecMainStatus", 0)
    start, end = number.get("ExecMainStartTimestampMonotonic", 0), number.get("ExecMainExitTimestampMonotonic", 0)
    ended = end > 0 and end >= start and code in {EXITED, KILLED, DUMPED}
    return UnitState(
        unit=found["Id"],
        invocation=found.get("InvocationID", ""),
        pid=number.get("ExecMainPID") or None,
        code=status if ended and code == EXITED else None,
        signal=status if ended and code != EXITED else None,
        core=ended and code == DUMPED,
        start_ns=start * 1000 + boot.offset_ns if start else None,
        end_ns=end * 1000 + boot.offset_ns if ended else None,
        result=found.get("Result", ""),
        cgroup=found.get("ControlGroup", ""),
        cpu_limited=found.get("LimitCPU", "infinity") != "infinity",
    )


def account_of(unit: UnitState) -> Account | None:
    """The end that it tells of, if its last run has ended."""
    if unit.end_ns is None:
        return None
    return Account(
        source=UNIT_STATE, at_ns=unit.end_ns, pid=unit.pid, start_ns=unit.start_ns, code=unit.code, signal=unit.signal, core=unit.core,
        unit=unit.unit, invocation=unit.invocation, cgroup=unit.cgroup,
    )  # fmt: skip
