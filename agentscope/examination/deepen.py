"""The deeper examination of a suspect: stacks, who holds which lock, where a busy thread spends its time. Blocking, and bounded.

Nothing is stopped, run or changed in the target: its memory and /proc are read from outside, before anybody thinks of a restart.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from agentscope.examination import (
    Examination,
    LockWait,
    NativeThread,
    ProcessLook,
    PythonStacks,
    SampledPlace,
    StackSamples,
)
from agentscope.examination.holders import with_ended_children, with_holders_watched
from agentscope.examination.proc import read_proc
from agentscope.machines import X86_64, this_machine
from agentscope.model import MissingEvidence

if TYPE_CHECKING:
    from agentscope.examination.python_locks import LockReading

Registers = Callable[[int], Mapping[int, Mapping[int, int]]]
UNWOUND = 16  # threads of a process
PROCESSES = 8  # of one agent that are examined; the innermost first
STACKS_S = 2.0
SAMPLES = 200
LEAST_COMPARED = 20
BUSY = 0.8
PC = (this_machine() or X86_64).program_counter  # the last of the registers
FUTEXES = frozenset({"futex", "futex_wait", "futex_waitv"})


def deepen(seen: Examination, before: Examination | None = None) -> Examination:
    """The look with Python stacks, locks and holders added; what could not be taken is among `missing`.

    `before` is an examination since which no thread of these processes has run: its stacks and locks are still true, if it had
    the time to read all of them.
    """
    seen = with_ended_children(with_holders_watched(seen))
    if before is not None and not before.hurried:
        missing = tuple(dict.fromkeys((*seen.missing, *before.missing)))
        return msgspec.structs.replace(
            seen, python=before.python, lock_waits=before.lock_waits, native=before.native, missing=missing
        )
    python: list[PythonStacks] = []
    locks: list[LockWait] = []
    unread = list(seen.missing)
    hurried = False
    for process in [each for each in seen.processes if not each.ended][:PROCESSES]:
        began = time.monotonic()
        stacks = python_of(process)
        if isinstance(stacks, MissingEvidence):
            unread.append(stacks)
            hurried |= time.monotonic() - began > STACKS_S / 2
        elif stacks is not None:
            python.append(stacks)
            found = python_locks_of(process)
            locks += found.waits
            if not found.whole:
                hurried = True
                unread.append(
                    MissingEvidence(kind="lock-waits", because=f"reading the locks of process {process.pid} took too long")
                )
        locks += native_locks_of(process)
    return msgspec.structs.replace(seen, python=tuple(python), lock_waits=tuple(locks), missing=tuple(unread), hurried=hurried)


def with_native(seen: Examination, registers: Registers) -> Examination:
    """The examination with native stacks. They name places and decide nothing, so only a suspect is worth their price."""
    python = {stacks.pid for stacks in seen.python}
    living = [process for process in seen.processes if not process.ended][:PROCESSES]
    native = [each for process in living for each in native_of(process, registers, python=process.pid in python)]
    return msgspec.structs.replace(seen, native=tuple(native))


def python_of(process: ProcessLook) -> PythonStacks | MissingEvidence | None:
    """The Python threads of a process and its asyncio tasks; None if it is no Python."""
    from agentscope.examination.python_tasks import read_tasks
    from agentscope.examination.pythons import take_stacks

    if process.tracer is not None:
        return MissingEvidence(kind="python-threads", because=f"a debugger ({process.tracer.comm}) is attached to it")
    stacks = take_stacks(process.pid, STACKS_S)
    if not isinstance(stacks, PythonStacks):
        return stacks
    tasks = read_tasks(process.pid)
    return stacks if isinstance(tasks, MissingEvidence) else msgspec.structs.replace(stacks, tasks=tasks)


def waiting_at(process: ProcessLook) -> dict[int, int]:
    """The threads of a process that wait at a futex, with its address."""
    return {
        thread.tid: thread.call.futex
        for thread in process.threads
        if thread.call is not None and thread.call.name in FUTEXES and thread.call.futex is not None
    }


def python_locks_of(process: ProcessLook) -> "LockReading":
    """Who holds the Python locks that threads of this process wait for."""
    from agentscope.examination.python_locks import LockReading, read_lock_waits

    waiting = waiting_at(process)
    return read_lock_waits(process.pid, waiting) if waiting else LockReading()


def native_locks_of(process: ProcessLook) -> tuple[LockWait, ...]:
    """The mutexes of glibc that threads wait for: the owner stands in the mutex itself, even if it has ended."""
    from agentscope.examination.calls import abandoned_by

    found = []
    for thread in process.threads:
        address = thread.call.futex if thread.call is not None else None
        if thread.call is None or address is None:
            continue
        owner, proof = thread.call.futex_owner, "the owner that stands in the mutex"
        if owner is None:
            owner, proof = abandoned_by(process.pid, address), "the owner that stands in the mutex, a thread that has ended"
        if owner is not None:
            found.append(
                LockWait(pid=process.pid, tid=thread.tid, address=address, kind="mutex", holder_tid=owner, proof=proof)
            )
    return tuple(found)


def native_of(process: ProcessLook, registers: Registers, *, python: bool) -> tuple[NativeThread, ...]:
    """The native stacks of the blocked threads of a process. Of a Python only those at a mutex: its own frames say more, sooner."""
    from agentscope.examination.natives import unwind_threads

    blocked = [thread for thread in process.threads if thread.call is not None]
    blocked = [each for each in blocked if not python or (each.call is not None and each.call.futex_owner is not None)]
    blocked.sort(key=lambda each: (each.call is None or each.call.futex_owner is None, each.tid))
    wanted = {thread.tid for thread in blocked[:UNWOUND]}
    found = registers(process.pid) if wanted else {}
    chosen = {tid: values for tid, values in found.items() if tid in wanted}
    return unwind_threads(process.pid, chosen) if chosen else ()


def sample_stacks(all_seen: Sequence[Examination], registers: Registers, seconds: float) -> list[StackSamples]:
    """Where the busy threads of these agents are found on the CPU, some two hundred times within `seconds`."""
    busy = {
        (process.pid, thread.tid)
        for seen in all_seen
        for process in seen.processes
        for thread in process.threads
        if (thread.busy_share or 0.0) >= BUSY
    }
    found: dict[tuple[int, int], list[tuple[int, ...]]] = {key: [] for key in busy}
    ran_ns: dict[tuple[int, int], int] = {}
    pids = sorted({pid for pid, _ in busy})
    until = time.monotonic() + seconds
    while busy and time.monotonic() < until:
        for pid in pids:
            for tid, values in registers(pid).items():
                # one that had no CPU since the last sample still has the registers of that one: it says nothing new
                if (pid, tid) in found and PC in values and has_run(pid, tid, ran_ns):
                    found[pid, tid].append(tuple(values.get(number, 0) for number in range(PC + 1)))
        time.sleep(seconds / SAMPLES)
    return [summed(pid, tid, sampled) for (pid, tid), sampled in found.items() if sampled]


def has_run(pid: int, tid: int, ran_ns: dict[tuple[int, int], int]) -> bool:
    """Whether a thread was on a CPU since this was asked before (Documentation/scheduler/sched-stats.rst, first field)."""
    text = (read_proc(f"/proc/{pid}/task/{tid}/schedstat") or b"").split()
    now_ns = int(text[0]) if text and text[0].isdigit() else 0
    before_ns = ran_ns.get((pid, tid))
    ran_ns[pid, tid] = now_ns
    return before_ns is None or now_ns != before_ns


def summed(pid: int, tid: int, sampled: Sequence[tuple[int, ...]]) -> StackSamples:
    """Sampled registers as places in the code, most frequent first."""
    from agentscope.examination.natives import place_names
    from agentscope.examination.pythons import sample_lines

    addresses = [values[PC] for values in sampled]
    names = place_names(pid, sorted(set(addresses)))
    counted = Counter(names.get(address, hex(address)) for address in addresses)
    modules = {name.rpartition("(")[2] for name in counted}
    return StackSamples(
        pid=pid,
        tid=tid,
        samples=len(sampled),
        places=tuple(SampledPlace(place=place, count=count) for place, count in counted.most_common(16)),
        span_bytes=max(addresses) - min(addresses) if len(modules) == 1 else None,
        repeated_share=repeated(sampled),
        python_lines=sample_lines(pid, 5, 0.05),
    )


def repeated(sampled: Sequence[tuple[int, ...]]) -> float | None:
    """Of the samples at an instruction that had been met before, the share with the same registers as the last time."""
    last: dict[int, tuple[int, ...]] = {}
    compared = same = 0
    for values in sampled:
        before = last.get(values[PC])
        if before is not None:
            compared += 1
            same += before == values
        last[values[PC]] = values
    return same / compared if compared >= LEAST_COMPARED else None
