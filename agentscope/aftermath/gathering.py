"""Reading what is left on this machine: kernel log, journal, the unit's state, counters of its cgroup, container runtimes.

Every source that cannot be had is named with the reason; none is waited for long.
"""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from agentscope.aftermath import JOURNAL, UNIT_STATE, Boot, ContainerEnd, Entry, Traces, UnitState, Wanted
from agentscope.aftermath.asking import Unanswered, answer
from agentscope.aftermath.journal import DAEMON_UNITS, by_manager, kernel_lines, read_entries
from agentscope.aftermath.unit_state import SHOWN, read_unit
from agentscope.agents import container_of, sees_kernel_numbers, unit_of
from agentscope.errors import AgentscopeError
from agentscope.evidence import KERNEL_LOG, RUNTIME
from agentscope.lastseen import memory_cgroups
from agentscope.model import KernelLine, MissingEvidence

LINES = 4000  # of the journal, for each question: newest first


def this_boot() -> Boot:
    """The clocks of this boot, and whether the kernel's process numbers are ours."""
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Boot(
        id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        wall_ns=time.time_ns() - boottime,
        offset_ns=boottime - time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        own_pids=sees_kernel_numbers(),
    )


class Sources(Protocol):
    """Where pieces of the past can be read; every one raises Unanswered, with the reason, where it cannot be had."""

    boot: Boot
    root: str | None

    def ring(self) -> tuple[KernelLine, ...]:
        """What the kernel's own buffer still holds, oldest first."""

    def journal(self, count: int, *matches: str) -> bytes:
        """The last entries that match any of these, as `journalctl -o json` exports them."""

    def show(self, unit: str) -> str:
        """What `systemctl show` says of a unit."""

    def containers(self, name: str) -> tuple[tuple[ContainerEnd, ...], tuple[str, ...]]:
        """The containers of this name or id that ended, and which runtimes would not tell."""


class ThisMachine:
    """The sources of the machine that we are on."""

    def __init__(self) -> None:
        self.boot = this_boot()
        self.root: str | None = None

    def ring(self) -> tuple[KernelLine, ...]:
        """From /dev/kmsg."""
        from agentscope.sources.kmsg import read_past

        try:
            return tuple(read_past())
        except (AgentscopeError, OSError) as error:
            raise Unanswered(str(error)) from None

    def journal(self, count: int, *matches: str) -> bytes:
        """From journald's files."""
        return answer("journalctl", "--quiet", "--no-pager", "--output=json", f"--lines={count}", *matches)

    def show(self, unit: str) -> str:
        """From the system's manager."""
        if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
            raise Unanswered("no systemd runs here")
        return answer("systemctl", "show", f"--property={','.join(SHOWN)}", "--", unit).decode("utf-8", "replace")

    def containers(self, name: str) -> tuple[tuple[ContainerEnd, ...], tuple[str, ...]]:
        """From docker and podman."""
        from agentscope.aftermath.runtimes import containers_named

        return containers_named(name, self.boot)


def gather(wanted: Wanted, sources: Sources) -> Traces:
    """Everything that is still told of it."""
    boot = sources.boot
    read: list[str] = []
    unread: list[MissingEvidence] = []
    kernel: tuple[KernelLine, ...] | None = None
    entries: tuple[Entry, ...] | None = None
    unit: UnitState | None = None
    try:
        kernel = sources.ring()
        read.append(KERNEL_LOG)
    except Unanswered as why:
        unread.append(MissingEvidence(kind=KERNEL_LOG, because=str(why)))
    kernel_from = None if not kernel else 0 if kernel[0].seq == 0 else kernel[0].at_ns
    try:
        entries = journal_of(wanted, sources, kernel or ())
        read.append(JOURNAL)
    except Unanswered as why:
        unread.append(MissingEvidence(kind=JOURNAL, because=str(why)))
    kept = kernel_lines(entries or ())
    if kept and (kernel is None or kernel_from is None or kept[0].at_ns < kernel_from):
        # the ring holds the newest, the journal what went out of it
        kernel = (*(line for line in kept if not kernel or line.at_ns < kernel[0].at_ns), *(kernel or ()))
        kernel_from = kept[0].at_ns
        read = [KERNEL_LOG, *(each for each in read if each != KERNEL_LOG)]
        unread = [each for each in unread if each.kind != KERNEL_LOG]
    try:
        unit = unit_state(wanted, entries or (), sources, kernel or ())
        read += [UNIT_STATE] if unit else []
    except Unanswered as why:
        unread.append(MissingEvidence(kind=UNIT_STATE, because=str(why)))
    traces = Traces(
        boot=boot, root=sources.root, kernel=kernel, kernel_from_ns=kernel_from, entries=entries, unit=unit, read=tuple(read), unread=tuple(unread),
        journal_from_ns=entries[0].at_ns if entries else None,
        counters=memory_cgroups((unit.cgroup if unit else "") or killed_in(wanted, kernel or ())),
    )  # fmt: skip
    return with_containers(wanted, traces, sources)


def journal_of(wanted: Wanted, sources: Sources, kernel: Sequence[KernelLine]) -> tuple[Entry, ...]:
    """What the journal has of it, then of its unit, and beside it the kernel's lines and the daemons that free memory.

    Raises:
        Unanswered: there is no journal, or it is closed to us.
    """
    boot = sources.boot
    daemons = tuple(f"_SYSTEMD_UNIT={unit}" for unit in DAEMON_UNITS)
    around = read_entries(sources.journal(LINES, *any_of("_TRANSPORT=kernel", *daemons)), boot)
    if wanted.pid is not None:
        names: tuple[str, ...] = (f"_PID={wanted.pid}", f"COREDUMP_PID={wanted.pid}")
    else:
        names = (
            f"_COMM={wanted.comm}",
            f"COREDUMP_COMM={wanted.comm}",
            f"SYSLOG_IDENTIFIER={wanted.who}",
            *of_unit(wanted.unit),
        )
    own = read_entries(sources.journal(LINES, *any_of(*names)), boot)
    unit = unit_in(own) or service_of(killed_in(wanted, kernel))
    more = read_entries(sources.journal(LINES, *any_of(*of_unit(unit))), boot) if unit and unit != wanted.unit else ()
    found = {(e.get("__CURSOR") or f"{e.at_ns} {e.message}"): e for e in (*around, *own, *more)}
    if not found:
        oldest = sources.journal(1)
        if not oldest.strip():
            raise Unanswered("it holds nothing" if os.geteuid() == 0 else "it holds nothing, or is closed to this user")
        return read_entries(oldest, boot)
    return tuple(sorted(found.values(), key=lambda entry: entry.at_ns))


def service_of(cgroup: str) -> str:
    """The service that a cgroup is of; empty where it is of none."""
    unit = unit_of(cgroup) or ""
    return unit if unit.endswith(".service") else ""


def unit_in(entries: Iterable[Entry]) -> str:
    """The service that the newest of these entries is of; empty where none is."""
    named = (
        entry.get("COREDUMP_UNIT") or entry.get("_SYSTEMD_UNIT") for entry in reversed(list(entries)) if not by_manager(entry)
    )
    return next((unit for unit in named if unit.endswith(".service") and not unit.startswith("systemd-coredump")), "")


def of_unit(unit: str) -> tuple[str, ...]:
    """What matches everything about a unit: what it wrote, what its manager wrote of it, its cores."""
    return (f"_SYSTEMD_UNIT={unit}", f"UNIT={unit}", f"USER_UNIT={unit}", f"_SYSTEMD_USER_UNIT={unit}", f"COREDUMP_UNIT={unit}")


def any_of(*matches: str) -> list[str]:
    """Matches of which any is enough."""
    return [word for match in matches for word in ("+", match)][1:]


def unit_state(wanted: Wanted, entries: Sequence[Entry], sources: Sources, kernel: Sequence[KernelLine]) -> UnitState | None:
    """What systemd says of the unit that is meant, by name or as the journal has it of a pid.

    Raises:
        Unanswered: there is no systemd that answers.
    """
    name = wanted.unit
    if wanted.pid is not None:
        name = unit_in(entry for entry in entries if wanted.pid in {entry.number("_PID"), entry.number("COREDUMP_PID")})
        name = name or service_of(killed_in(wanted, kernel))
    return read_unit(sources.show(name), sources.boot) if name and not name.startswith("-") else None


def with_containers(wanted: Wanted, traces: Traces, sources: Sources) -> Traces:
    """The same, with what container runtimes tell of a container of this name or id, or of the one that the kernel's report names."""
    name = wanted.who if wanted.pid is None else container_of(killed_in(wanted, traces.kernel or ()))
    if name is None or traces.unit is not None:
        return traces
    found, refused = sources.containers(name)
    read = (*traces.read, RUNTIME) if found else traces.read
    unread = (*traces.unread, *(MissingEvidence(kind=RUNTIME, because=why) for why in refused))
    return msgspec.structs.replace(traces, containers=found, read=read, unread=unread)


def killed_in(wanted: Wanted, lines: Iterable[KernelLine]) -> str:
    """The cgroup in which the OOM killer last found whoever is meant, by the kernel log; empty where it does not name him."""
    named = f",task={wanted.comm}," if wanted.pid is None else f",pid={wanted.pid},"
    said = next((line.text for line in reversed(list(lines)) if named in line.text and "task_memcg=" in line.text), "")
    return said.partition("task_memcg=")[2].partition(",task=")[0].partition(",pid=")[0]
