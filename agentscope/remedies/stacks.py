"""Keeps the stacks of an agent that hangs, before anything is stopped: `STATE/stacks/INCIDENT.txt`, for its owner only.

Names of functions, files and lines, and where threads wait in the kernel; never a value of a variable. Nothing is stopped, run or
changed in the agent. Of one that has ended there is nothing left to take.
"""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from agentscope.agents import children_by_parent, descendants_of, same_identity, start_ns_of
from agentscope.examination import PythonStacks
from agentscope.examination.proc import plain, read_proc, read_stat, tids_of
from agentscope.model import MissingEvidence, PythonFrame
from agentscope.record import redact
from agentscope.remedies import Done, Order

PROCESSES = 8
THREADS = 64
STACKS_S = 3.0
LONGEST_S = 10.0
FILE_LIMIT_BYTES = 256 << 10
KEPT = 50
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def intent(order: Order) -> str:
    """Whose stacks would be kept."""
    return f"keep the stacks of {order.agent.name} (pid {order.agent.pid}) and what it started"


async def act(order: Order) -> Done:
    """Take them, and keep them."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(take, order), LONGEST_S + PROCESSES * STACKS_S)
    except TimeoutError:
        return Done(outcome="failed", says="the stacks could not be taken in time")


def take(order: Order) -> Done:
    """Take and keep them; blocks."""
    agent = order.agent
    start_ns = start_ns_of(agent.pid)
    if start_ns is None or not same_identity(start_ns, agent.start_ns):
        return Done(outcome="refused", says=f"pid {agent.pid} has ended, with its stacks")
    pids = [agent.pid, *(process.pid for process in descendants_of(agent.pid, children_by_parent()))][:PROCESSES]
    until = time.monotonic() + LONGEST_S
    lines = [f"{order.incident.incident}: {order.incident.headline}"]
    for pid in pids:
        if time.monotonic() > until:
            lines.append(f"pid {pid}: there was no time left for it")
            continue
        lines += told_of(pid)
    text = redact("\n".join(plain(line, 1000) for line in lines) + "\n").encode("utf-8", "replace")
    try:
        path = keep(order.state / "stacks", order.incident.incident, text)
    except OSError as error:
        return Done(outcome="failed", says=f"the stacks could not be kept: {error.strerror or error}")
    first = next((line.strip() for line in lines[1:] if line.startswith("    ")), "")
    where = f"; it is at {first}" if first else ""
    return Done(
        outcome="done",
        says=redact(plain(f"the stacks of {len(pids)} process{'es' * (len(pids) != 1)} are in {path}{where}", 2000)),
    )


def told_of(pid: int) -> Iterator[str]:
    """The threads of one process: where they are in Python, in native code and in the kernel."""
    from agentscope.examination.natives import unwind_threads
    from agentscope.examination.python_tasks import read_tasks
    from agentscope.examination.pythons import take_stacks

    command = (read_proc(f"/proc/{pid}/cmdline") or b"").replace(b"\0", b" ")
    yield ""
    yield f"pid {pid}: {plain(command, 300)}"
    python = take_stacks(pid, STACKS_S)
    if isinstance(python, MissingEvidence):
        yield f"  Python stacks: {python.because}"
    if isinstance(python, PythonStacks):
        for thread in python.threads[:THREADS]:
            marks = f"{' holds the GIL' if thread.owns_gil else ''}{'' if thread.active else ' waits'}"
            yield f"  Python thread {thread.tid} {thread.name or ''}{marks}"
            yield from (f"    {shown(frame)}" for frame in thread.frames)
        tasks = read_tasks(pid)
        for task in () if isinstance(tasks, MissingEvidence) else tasks[:THREADS]:
            yield f"  asyncio task {task.name}{f' awaits {task.awaits}' if task.awaits else ''}"
            yield from (f"    {shown(frame)}" for frame in task.chain)
    for native in unwind_threads(pid, {})[:THREADS]:
        yield f"  native thread {native.tid}"
        yield from (f"    {frame}" for frame in native.frames)
        if native.ended:
            yield f"    ({native.ended})"
    for tid in tids_of(pid, THREADS):
        yield from kernel_told(pid, tid)


def shown(frame: PythonFrame) -> str:
    """A frame as a person reads it."""
    return f"{frame.function} ({frame.file}:{frame.line or frame.first_line})"


def kernel_told(pid: int, tid: int) -> Iterator[str]:
    """The state of a thread and where it waits in the kernel (proc_pid_stack(5), proc_pid_wchan(5))."""
    state = read_stat(pid, tid)
    if state is None:
        return
    where = plain((read_proc(f"/proc/{pid}/task/{tid}/wchan") or b"").strip(b"0\n"), 100)
    yield f"  kernel, thread {tid}: state {state.state}{f', in {where}' if where else ''}"
    for line in (read_proc(f"/proc/{pid}/task/{tid}/stack", 16 << 10) or b"").splitlines()[:32]:
        yield f"    {plain(line.rpartition(b'] ')[2] or line, 200)}"


def keep(folder: Path, incident: str, text: bytes) -> Path:
    """Write the file, 0600, and forget the oldest of many.

    Raises:
        OSError: the disk is full, or the state directory refuses.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{_UNSAFE.sub('-', incident)[:100].strip('.-') or 'incident'}.txt"
    path.unlink(missing_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "wb") as file:
        cut = text[:FILE_LIMIT_BYTES]
        file.write(cut if len(cut) == len(text) else cut + b"\n(more was there)\n")
    old = sorted(folder.glob("*.txt"), key=lambda each: each.stat().st_mtime_ns)
    for each in old[:-KEPT]:
        each.unlink(missing_ok=True)
    return path
