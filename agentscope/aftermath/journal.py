"""Reading the journal as `journalctl -o json` exports it: how units ended, who was asked to stop them, cores, last lines.

A program may write any field that does not begin with an underscore, so whoever speaks for the manager is known by what journald
itself notes of the sender (systemd.journal-fields(7), "trusted fields"). Message ids: systemd/sd-messages.h.
"""

import json
import re
from collections.abc import Iterator, Sequence

from agentscope.aftermath import CORE_DUMP, JOURNAL, Account, Boot, Entry
from agentscope.evidence import Sent, Words
from agentscope.model import KernelLine
from agentscope.symbols.signals import signal_number

STARTED = "39f53479d3a045ac8e11786248231fbf"
STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
PROCESS_EXIT = "98e322203f7a4ed290d09fe03c09fe15"
SUCCESS = "7ad2d189f7e94e70a38c781354912448"
OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
CORE = "fc2e22bc6ee647b6b90729ab34a250b1"
DAEMON_UNITS = {"systemd-oomd.service": "systemd-oomd", "earlyoom.service": "earlyoom", "nohang.service": "nohang"}
LINE_CHARACTERS = 4096
WORD_LINES = 400
BEFORE_NS = 120_000_000_000  # how long before the end a request to stop may stand: TimeoutStopSec= is 90 s by default
AFTER_NS = 2_000_000_000  # between an end and the entry that tells of it
_KILLING = re.compile(r"(?:Killing process (\d{1,10}) \(|Sent signal (SIG\w{2,8}) to main process (\d{1,10}) \()(?:.{0,80}with signal (SIG\w{2,8}))?")  # fmt: skip
_ABORTS = re.compile(r"^\s{0,20}#[0-9] .{0,60}\b(?:abort|raise|__assert_fail|__libc_message|__fortify_fail)\b", re.MULTILINE)


def read_entries(exported: bytes, boot: Boot) -> tuple[Entry, ...]:
    """The entries of an export, oldest first; a line that is none is left out."""
    found = []
    for line in exported.splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            entry = entry_of({str(name): text_of(value) for name, value in fields.items()}, boot)
            if entry is not None:
                found.append(entry)
    return tuple(sorted(found, key=lambda entry: entry.at_ns))


def text_of(value: object) -> str:
    """A field: text, or a list of bytes where it is no text, or several such of which the first counts."""
    if isinstance(value, list):
        if value and all(isinstance(each, int) and 0 <= each < 256 for each in value):
            return bytes(value[:LINE_CHARACTERS]).decode("utf-8", "replace")
        return text_of(value[0]) if value and not isinstance(value[0], list) else ""
    return str(value)[: 16 * LINE_CHARACTERS] if value is not None else ""


def entry_of(fields: dict[str, str], boot: Boot) -> Entry | None:
    """One entry; of this boot by the clock that nobody sets, of an earlier one by the wall clock."""
    own = fields.get("_BOOT_ID", "").replace("-", "") == boot.id.replace("-", "")
    monotonic = fields.get("_SOURCE_MONOTONIC_TIMESTAMP") or fields.get("__MONOTONIC_TIMESTAMP", "")
    wall = fields.get("__REALTIME_TIMESTAMP", "")
    if own and monotonic.isdigit() and len(monotonic) < 19:
        at_ns = int(monotonic) * 1000 + boot.offset_ns
    elif wall.isdigit() and len(wall) < 19:
        at_ns = int(wall) * 1000 - boot.wall_ns
    else:
        return None
    return Entry(at_ns=at_ns, message=fields.pop("MESSAGE", ""), fields=fields)


def by_manager(entry: Entry) -> bool:
    """Whether systemd itself wrote it: PID 1, or the manager of a user's session."""
    if entry.get("_TRANSPORT") == "kernel":
        return False
    user = entry.get("_SYSTEMD_USER_UNIT") == "init.scope" and entry.get("_COMM") == "systemd"
    return (entry.get("_PID") == "1" and entry.get("_UID") in {"", "0"}) or user


def unit_of(entry: Entry) -> str:
    """The unit that an entry of the manager is about."""
    return entry.get("UNIT") or entry.get("USER_UNIT")


def kernel_lines(entries: Sequence[Entry]) -> tuple[KernelLine, ...]:
    """The kernel's lines that the journal has kept."""
    return tuple(
        KernelLine(at_ns=entry.at_ns, seq=number, priority=entry.number("PRIORITY") or 6, text=entry.message)
        for number, entry in enumerate(entries)
        if entry.get("_TRANSPORT") == "kernel"
    )


def unit_ends(entries: Sequence[Entry]) -> Iterator[Account]:
    """How main processes of units ended: of a failure the manager writes down the status, of a success only that it was one."""
    for entry in entries:
        if by_manager(entry) and entry.get("MESSAGE_ID") == SUCCESS:
            yield Account(source=JOURNAL, at_ns=entry.at_ns, unit=unit_of(entry), invocation=entry.get("INVOCATION_ID"))
        if not by_manager(entry) or entry.get("MESSAGE_ID") != PROCESS_EXIT:
            continue
        how, number = entry.get("EXIT_CODE"), entry.number("EXIT_STATUS")
        if number is None or entry.get("COMMAND") != "ExecStart":
            continue
        unit, invocation = unit_of(entry), entry.get("INVOCATION_ID")
        seen = own_lines(entries, unit, invocation)
        begun = next(
            (each.at_ns for each in entries if is_about(each, unit, invocation) and each.get("MESSAGE_ID") == STARTED), None
        )
        yield described(
            Account(
                source=JOURNAL, at_ns=entry.at_ns, unit=unit, invocation=invocation, start_ns=begun,
                code=number if how == "exited" else None, signal=None if how == "exited" else number, core=how == "dumped",
            ),
            seen,
        )  # fmt: skip


def is_about(entry: Entry, unit: str, invocation: str) -> bool:
    """Whether the manager wrote it about this run of this unit."""
    return by_manager(entry) and unit_of(entry) == unit and entry.get("INVOCATION_ID") == invocation


def own_lines(entries: Sequence[Entry], unit: str, invocation: str) -> list[Entry]:
    """What processes of one run of a unit wrote."""
    return [
        entry
        for entry in entries
        if unit
        and unit in {entry.get("_SYSTEMD_UNIT"), entry.get("_SYSTEMD_USER_UNIT")}
        and not by_manager(entry)
        and entry.get("_SYSTEMD_INVOCATION_ID") == invocation
    ]


def described(account: Account, seen: Sequence[Entry]) -> Account:
    """An account with what journald noted of the process that wrote first: the number is that of the run's main process, as a rule."""
    first = next((entry for entry in seen if entry.number("_PID") is not None), None)
    if first is None:
        return account
    import msgspec

    return msgspec.structs.replace(
        account,
        pid=first.number("_PID"),
        comm=first.get("_COMM"),
        exe=first.get("_EXE") or None,
        argv=tuple(first.get("_CMDLINE").split()[:64]),
        uid=first.number("_UID"),
        cgroup=first.get("_SYSTEMD_CGROUP"),
    )


def cores(entries: Sequence[Entry]) -> Iterator[Account]:
    """Core dumps, which `coredumpctl` reads from the same entries (systemd-coredump(8))."""
    for entry in entries:
        pid, number = entry.number("COREDUMP_PID"), entry.number("COREDUMP_SIGNAL")
        trusted = entry.get("_SYSTEMD_UNIT").startswith("systemd-coredump") or entry.get("_EXE").endswith("/systemd-coredump")
        if entry.get("MESSAGE_ID") != CORE or not trusted or pid is None or not number:
            continue
        cgroup = entry.get("COREDUMP_CGROUP")
        yield Account(
            source=CORE_DUMP, at_ns=entry.at_ns, pid=pid, signal=number, core=True, unit=entry.get("COREDUMP_UNIT"), cgroup=cgroup,
            comm=entry.get("COREDUMP_COMM"), exe=entry.get("COREDUMP_EXE") or None, argv=tuple(entry.get("COREDUMP_CMDLINE").split()[:64]),
            uid=entry.number("COREDUMP_UID"),
        )  # fmt: skip


def core_of(entries: Sequence[Entry], end: Account) -> Entry | None:
    """The entry of the core dump of this end."""
    return next(
        (e for e in entries if e.get("MESSAGE_ID") == CORE and e.number("COREDUMP_PID") == end.pid and near(e, end)), None
    )


def near(entry: Entry, end: Account) -> bool:
    """Whether an entry is of the last minutes before an end, or tells of it just after."""
    begin = end.at_ns - BEFORE_NS if end.start_ns is None else max(end.start_ns - AFTER_NS, end.at_ns - BEFORE_NS)
    return begin <= entry.at_ns <= end.at_ns + AFTER_NS


def stop_asked(entries: Sequence[Entry], end: Account) -> str | None:
    """Who was asked to stop it before it ended, or None."""
    for entry in entries:
        if is_about(entry, end.unit, end.invocation) and entry.get("MESSAGE_ID") == STOPPING and near(entry, end) and entry.at_ns <= end.at_ns:  # fmt: skip
            return f"systemd was asked to stop {end.unit}"
    return None


def sent(entries: Sequence[Entry], end: Account) -> Sent | None:
    """The signal that ended it, where somebody wrote down that he sent it: systemd, or a daemon that frees memory."""
    for entry in reversed(entries):
        if not near(entry, end):
            continue
        if is_about(entry, end.unit, end.invocation) and (found := _KILLING.search(entry.message)):
            pid, name = int(found[1] or found[3]), found[2] or found[4] or ""
            if signal_number(name) == end.signal and end.pid in {None, pid}:
                watchdog = any(
                    is_about(e, end.unit, end.invocation) and "atchdog timeout" in e.message and near(e, end) for e in entries
                )
                why = (
                    ", on request of a client (systemctl kill)"
                    if found[2]
                    else ", its watchdog having run out"
                    if watchdog
                    else ""
                )
                return Sent(signal=end.signal or 0, program="systemd", says=f"from systemd{why}", at_ns=entry.at_ns, source=f"journal of {end.unit}")  # fmt: skip
        daemon = DAEMON_UNITS.get(entry.get("_SYSTEMD_UNIT"))
        if daemon is not None and (by_daemon := of_daemon(entry, daemon, end)) is not None:
            return by_daemon
    core = core_of(entries, end)
    if core is not None and end.signal == signal_number("SIGABRT") and _ABORTS.search(core.message):
        return Sent(
            signal=end.signal or 0, program=end.comm, says="from the process itself, through abort()", at_ns=core.at_ns,
            source="stack in the journal's record of its core dump", itself=True,
        )  # fmt: skip
    return None


def of_daemon(entry: Entry, daemon: str, end: Account) -> Sent | None:
    """The same of a daemon that ends processes to free memory, if it was this one."""
    from agentscope import readers

    for reading in readers.read(entry.message, kind="systemd"):
        if reading.suggests != "oom/userspace-killer":
            continue
        where = str(reading.facts.get("memcg") or reading.facts.get("unit") or "")
        if (reading.pid is not None and reading.pid == end.pid) or (end.unit and end.unit in where.split("/")):
            return Sent(signal=end.signal or 0, program=daemon, says=f"from {daemon}: {entry.message[:200]}", at_ns=entry.at_ns, source=f"journal of {daemon}")  # fmt: skip
    return None


def counted_oom(entries: Sequence[Entry], end: Account) -> str | None:
    """Who counted an OOM kill of some process of its unit: systemd, which reads memory.events (cgroup v2)."""
    told = (e for e in entries if is_about(e, end.unit, end.invocation) and near(e, end))
    oom = any(e.get("MESSAGE_ID") == OUT_OF_MEMORY or e.get("UNIT_RESULT") == "oom-kill" for e in told)
    return "systemd" if oom and end.unit else None


def words(entries: Sequence[Entry], end: Account) -> Words | None:
    """The last lines that it wrote into the journal."""
    lines = own_lines(entries, end.unit, end.invocation) if end.invocation else [e for e in entries if not by_manager(e)]
    own = [e for e in lines if e.at_ns <= end.at_ns + AFTER_NS and (end.pid is None or e.number("_PID") == end.pid) and e.get("MESSAGE_ID") != CORE]  # fmt: skip
    own = [e for e in own if end.start_ns is None or e.at_ns >= end.start_ns - AFTER_NS]
    if not own:
        return None
    text = "\n".join(entry.message for entry in own[-WORD_LINES:]) + "\n"
    return Words(
        text=text.encode(), source=f"journal{f' of {end.unit}' if end.unit else ''}", written_ns=min(own[-1].at_ns, end.at_ns)
    )
