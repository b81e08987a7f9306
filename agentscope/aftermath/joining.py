"""Which end is meant, and which pieces belong to it. Pure.

Pieces are joined by process number where both sources count in one pid namespace, else by cgroup; and by time, since numbers come
again. What cannot be joined for certain is left out: a wrong join would make a wrong cause.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from agentscope.aftermath import CORE_DUMP, Account, ContainerEnd, Traces, Wanted, journal
from agentscope.aftermath.unit_state import account_of
from agentscope.evidence import KERNEL_LOG, RUNTIME
from agentscope.evidence.actor import SIGKILL
from agentscope.model import KernelLine, Value
from agentscope.readers.kernel_fault import read_fault_lines
from agentscope.readers.kernel_oom import OomReport, read_oom_reports
from agentscope.symbols.signals import signal_number

SAME_END_NS = (
    5_000_000_000  # two accounts of one end: the exit, the entry that tells of it, the core that took a while to write
)
CORE_WRITES_NS = 120_000_000_000
BY_CGROUP_NS = 3_000_000_000  # from the kernel's kill to the exit that its manager saw
AT_ONCE_NS = 500_000_000
REPORT_LINES = 250  # one OOM report with a table of many tasks
KILLS_READ = 64
ENDS_LISTED = 3
_KILLED = re.compile(r"Killed process \d")
_FAULT = re.compile(r"segfault at|traps: |unhandled (?:signal|page|exception)|general protection|trap .{1,40} ip:")


class Kill(Value, frozen=True):
    """One kill of the kernel's OOM killer: when, whom, in which cgroup."""

    at_ns: int
    report: OomReport


class Joined(Value, frozen=True):
    """One end with what belongs to it. `pid` is its number as the kernel log has it, None where nobody tells."""

    end: Account
    accounts: tuple[Account, ...]
    kill: Kill | None = None
    pid: int | None = None
    by: str = "its process number"
    comparable: bool = True
    container: ContainerEnd | None = None


def kills_of(lines: Sequence[KernelLine]) -> tuple[Kill, ...]:
    """The last kills that the kernel log tells of, oldest first."""
    places = [number for number, line in enumerate(lines) if _KILLED.search(line.text)][-KILLS_READ:]
    found = []
    for number in places:
        reports = read_oom_reports([line.text for line in lines[max(0, number - REPORT_LINES) : number + 1]])
        if reports and reports[-1].pid is not None:
            found.append(Kill(at_ns=lines[number].at_ns, report=reports[-1]))
    return tuple(found)


def accounts_of(traces: Traces, wanted: Wanted, kills: Sequence[Kill]) -> Iterator[Account]:
    """Every end that some source tells of."""
    entries = traces.entries or ()
    if traces.unit is not None and (account := account_of(traces.unit)) is not None:
        yield account
    for account in (*journal.unit_ends(entries), *journal.cores(entries)):
        same_run = traces.unit is not None and account.invocation and account.invocation == traces.unit.invocation
        yield msgspec.structs.replace(account, pid=traces.unit.pid) if same_run and traces.unit else account
    for container in traces.containers:
        if container.end_ns is not None and container.status is not None:
            yield of_container(container)
    if wanted.pid is not None and not traces.boot.own_pids:
        return  # the kernel counts in another namespace: its numbers are others
    for kill in kills:
        yield Account(
            source=KERNEL_LOG, at_ns=kill.at_ns, pid=kill.report.pid, signal=SIGKILL, comm=kill.report.comm or "", uid=kill.report.uid,
            cgroup=kill.report.task_memcg or "",
        )  # fmt: skip
    for line in traces.kernel or ():
        if _FAULT.search(line.text):
            for fault in read_fault_lines([line.text]):
                if fault.pid is not None and (signal := fault_signal(fault.cause, fault.signal)) is not None:
                    yield Account(source=KERNEL_LOG, at_ns=line.at_ns, pid=fault.pid, signal=signal, comm=fault.comm or "")


def fault_signal(cause: str | None, signal: str | None) -> int | None:
    """The signal that ends a program at such a fault."""
    if signal:
        return signal_number(signal if signal.startswith("SIG") else f"SIG{signal}")
    names = {
        "crash/segfault": "SIGSEGV",
        "crash/bus": "SIGBUS",
        "crash/fpe": "SIGFPE",
        "crash/illegal-instruction": "SIGILL",
        "crash/stack-overflow": "SIGSEGV",
    }
    return signal_number(names[cause]) if cause in names else None


def of_container(container: ContainerEnd) -> Account:
    """The end of a container's first process: above 128 runtimes report the signal that ended it, or so it exited itself."""
    status = container.status or 0
    signal = status - 128 if 128 < status <= 128 + 64 else None
    return Account(
        source=RUNTIME, at_ns=container.end_ns or 0, pid=container.pid or None, start_ns=container.start_ns, signal=signal,
        code=None if signal else status, container=container.id, comm="", argv=container.argv,
    )  # fmt: skip


def is_meant(account: Account, wanted: Wanted) -> bool:
    """Whether this is the end that was asked for."""
    if wanted.pid is not None:
        return account.pid == wanted.pid
    names = {
        account.unit,
        (account.exe or "").rpartition("/")[2],
        *(word.rpartition("/")[2] for word in account.argv[:3]),
    }
    named = bool({wanted.who, wanted.unit} & (names - {""})) or account.comm == wanted.comm
    return named or bool(account.container)


def join(traces: Traces, wanted: Wanted) -> Joined | None:
    """The last end of whoever is meant, with every piece that belongs to it; None where nothing tells of one."""
    kills = kills_of(traces.kernel or ())
    accounts = list(accounts_of(traces, wanted, kills))
    meant = sorted((each for each in accounts if is_meant(each, wanted)), key=lambda each: each.at_ns)
    if not meant:
        return None
    last = meant[-1]
    same = [each for each in accounts if is_same(each, last, own_pids=traces.boot.own_pids)]
    end = merged(same)
    container = next((each for each in traces.containers if each.id == end.container), None) if end.container else None
    sure = any(each.pid == end.pid and each.source in {KERNEL_LOG, CORE_DUMP} for each in same)
    sure = sure or (traces.unit is not None and traces.unit.pid == end.pid and traces.unit.invocation == end.invocation)
    kill, by = kill_of(end, kills, traces, sure=sure)
    comparable = traces.boot.own_pids or kill is not None or bool(end.unit or end.container)
    pid = kill.report.pid if kill is not None else end.pid
    if kill is not None and not any(each.source == KERNEL_LOG for each in same):
        same.append(Account(source=KERNEL_LOG, at_ns=kill.at_ns, pid=kill.report.pid, signal=SIGKILL))
    return Joined(end=end, accounts=tuple(same), kill=kill, pid=pid, by=by, comparable=comparable, container=container)


def told_last(traces: Traces, wanted: Wanted) -> list[Account]:
    """The last ends of programs with a number that is theirs here, the newest first, before all those in a cgroup of this name."""
    everybody = accounts_of(traces, Wanted(who=""), kills_of(traces.kernel or ()))
    found: dict[int, Account] = {}
    for each in sorted(everybody, key=lambda each: (wanted.who not in each.cgroup.split("/"), -each.at_ns)):
        if each.pid is not None and each.comm and (traces.boot.own_pids or each.source != KERNEL_LOG):
            found.setdefault(each.pid, each)
    return list(found.values())[:ENDS_LISTED]


def is_same(each: Account, last: Account, *, own_pids: bool) -> bool:
    """Whether two accounts are of one end: of one process and one time, or of one run of a unit."""
    if each is last:
        return True
    slack = CORE_WRITES_NS if CORE_DUMP in {each.source, last.source} else SAME_END_NS
    if abs(each.at_ns - last.at_ns) > slack:
        return False
    if each.invocation and last.invocation:
        return each.invocation == last.invocation
    if KERNEL_LOG in {each.source, last.source} and each.source != last.source and not own_pids:
        return False
    if each.pid is not None and last.pid is not None:
        return each.pid == last.pid
    return bool(each.unit) and each.unit == last.unit and each.container == last.container


def merged(same: Sequence[Account]) -> Account:
    """One account of all: whoever waited for the process knows best how it ended, the kernel log when nobody else does."""
    rank = {KERNEL_LOG: 2, CORE_DUMP: 1}
    ordered = sorted(same, key=lambda each: (not says_how(each), rank.get(each.source, 0), each.at_ns))
    found = ordered[0]
    for other in ordered[1:]:
        new = {
            name: getattr(other, name)
            for name in ("pid", "start_ns", "unit", "invocation", "container", "cgroup", "comm", "exe", "argv", "uid")
            if getattr(found, name) in {None, "", ()} and getattr(other, name) not in {None, "", ()}
        }
        found = msgspec.structs.replace(found, **new, core=found.core or other.core)
    return found


def says_how(account: Account) -> bool:
    """Whether it tells a status or a signal."""
    return account.code is not None or account.signal is not None


def kill_of(end: Account, kills: Sequence[Kill], traces: Traces, *, sure: bool) -> tuple[Kill | None, str]:
    """The OOM killer's kill of this process: by its number, else of a process in its very cgroup just before it ended by SIGKILL."""
    if end.signal != SIGKILL:
        return None, "its process number"
    before = [kill for kill in reversed(kills) if -SAME_END_NS <= end.at_ns - kill.at_ns <= SAME_END_NS]
    if traces.boot.own_pids and end.pid is not None:
        exact = next((kill for kill in before if kill.report.pid == end.pid), None)
        if exact is not None:
            return exact, "its process number"
        if sure:
            return None, "its process number"
    place = end.unit or end.container
    for kill in before:
        box = kill.report.task_memcg or ""
        inside = any(place and (part == end.unit or (end.container and end.container in part)) for part in box.split("/"))
        # an earlier run in the same cgroup may have been killed a moment before: it is this one's only since it began
        since_ns = end.at_ns - AT_ONCE_NS if end.start_ns is None else max(end.start_ns, end.at_ns - BY_CGROUP_NS)
        if inside and since_ns <= kill.at_ns <= end.at_ns + AT_ONCE_NS:
            return kill, "its cgroup and the time"
    return None, "its unit and the time" if end.unit else "its container" if end.container else "its process number"
