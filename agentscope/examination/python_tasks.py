"""The asyncio tasks of another process and what each awaits, read from its memory. CPython 3.11 to 3.13.

Tasks stand in the WeakSet `asyncio.tasks._all_tasks` (3.11) or `_scheduled_tasks` (3.12, 3.13). A task of the C implementation
(Modules/_asynciomodule.c, TaskObj) points at its coroutine; a suspended coroutine has what it awaits on top of its value stack
(Objects/genobject.c, _PyGen_yf). Python 3.14 keeps tasks in lists of its threads, so they are not read here; nor are tasks of
asyncio's Python implementation, which only runs where the C one is missing.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

from agentscope.examination import PythonTask
from agentscope.examination.memory import Memory
from agentscope.examination.proc import plain
from agentscope.examination.python_frames import Frame, Frames
from agentscope.examination.python_objects import Objects, objects_of
from agentscope.model import MissingEvidence

MOST_TASKS = 10_000
MOST_REPORTED = 200
DEEPEST_CHAIN = 50
LONGEST_S = 0.2
_MOST_SLOTS = 1 << 17  # of the table of a set that holds 10,000
_SLOT = 16
_SLOTS_A_READ = 2048
_PENDING = 0
_REFERENT = 16  # PyWeakReference.wr_object; FutureIter.future; ags_gen; cw_coroutine
_GENERATORS = frozenset({"coroutine", "generator", "async_generator"})
_WRAPPERS = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"})
_CLASSES = frozenset(
    {
        "Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Queue", "PriorityQueue", "LifoQueue",
        "StreamReader", "TaskGroup", "Process",
    }
)  # fmt: skip


class Suspended(NamedTuple):
    """A task that has not finished: `frames` outermost coroutine first, `end` the type of what the innermost awaits."""

    address: int
    frames: tuple[Frame, ...]
    end: str | None


def read_tasks(pid: int) -> tuple[PythonTask, ...] | MissingEvidence:
    """The unfinished tasks of a process, at most 200; empty if it has none or does not use asyncio."""
    with Memory(pid) as memory:
        objects = objects_of(memory)
        if objects is None:
            because = "the asyncio tasks are read of CPython 3.11 to 3.13 only, and this is none or could not be read"
            return MissingEvidence(kind="asyncio-tasks", because=because)
        frames = Frames(objects)
        return tuple(
            PythonTask(
                name=_name(objects, task.address),
                chain=tuple(frame.shown() for frame in task.frames),
                awaits=_awaits(task),
            )
            for task in suspended_tasks(frames)
        )


def suspended_tasks(frames: Frames) -> Iterator[Suspended]:
    """Every unfinished task with the frames of its coroutines, within the bounds above."""
    until = time.monotonic() + LONGEST_S
    objects = frames.objects
    reported = 0
    for task in _registered(objects):
        if reported >= MOST_REPORTED or time.monotonic() > until:
            return
        if objects.signed(task + objects.shape.future_state, 4) == _PENDING and objects.is_a(task, "_asyncio.Task"):
            reported += 1
            chain, end = _chain(frames, objects.pointer(task + objects.shape.task_coroutine))
            yield Suspended(task, tuple(chain), end)


def awaited(frames: Frames, coroutine: int) -> int:
    """What a suspended coroutine or generator has on top of its stack; 0 if it runs, has ended or cannot be read."""
    objects, shape = frames.objects, frames.objects.shape
    if objects.signed(coroutine + shape.generator_state, 1) not in shape.suspended:
        return 0
    frame = frames.frame_at(coroutine + shape.generator_frame)
    depth = objects.signed(coroutine + shape.generator_frame + shape.frame_stacktop, 4)
    if frame is None or depth is None or depth <= frame.code.locals_count:
        return 0
    return next(iter(frames.slots(frame, depth - 1, 1)), 0)


def _registered(objects: Objects) -> Iterator[int]:
    """The addresses of all tasks that were made and not collected yet, finished ones too."""
    known = objects.module("asyncio.tasks")
    every = objects.lookup(known, "_scheduled_tasks" if objects.version >= (3, 12) else "_all_tasks")
    table = objects.attribute(every, "data") if every else 0
    if objects.type_name(table) != "set":
        return
    slots = min(objects.pointer(table + 32) + 1, _MOST_SLOTS)  # PySetObject.mask
    at, found = objects.pointer(table + 40), 0
    for first in range(0, slots, _SLOTS_A_READ):
        raw = objects.memory.read(at + first * _SLOT, min(_SLOTS_A_READ, slots - first) * _SLOT)
        for key_at in range(0, len(raw or b""), _SLOT):
            reference = int.from_bytes((raw or b"")[key_at : key_at + 8], "little")
            task = objects.pointer(reference + _REFERENT) if reference else 0
            if task:
                found += 1
                yield task
            if found >= MOST_TASKS:
                return


def _chain(frames: Frames, coroutine: int) -> tuple[list[Frame], str | None]:
    """The frames from a coroutine to the innermost that it awaits, and the type of what that one waits for."""
    objects = frames.objects
    chain: list[Frame] = []
    at = coroutine
    for _ in range(DEEPEST_CHAIN):
        kind = objects.type_name(at)
        if kind in _GENERATORS:
            frame = frames.frame_at(at + objects.shape.generator_frame)
            if frame is None:
                return chain, None
            chain.append(frame)
            at = awaited(frames, at)
        elif kind in _WRAPPERS:
            at = objects.pointer(at + _REFERENT)
        elif kind == "_asyncio.FutureIter":
            return chain, objects.type_name(objects.pointer(at + _REFERENT))
        else:
            return chain, kind
    return chain, None


def _awaits(task: Suspended) -> str | None:
    """What the innermost coroutine waits for, in one word: the class of asyncio whose method it is, its function, or a type."""
    if task.end is None:
        return None
    innermost = task.frames[-1] if task.frames else None
    if innermost is not None and "/asyncio/" in innermost.code.file:
        owner, _, function = innermost.code.name.rpartition(".")
        owner = owner.rpartition(".")[2]
        return owner if owner in _CLASSES else function
    return {"_GatheringFuture": "gather"}.get(task.end) or plain(task.end.rpartition(".")[2], 64)


def _name(objects: Objects, task: int) -> str:
    """The name of a task; since 3.12 one that was not given is kept as its number only."""
    at = objects.pointer(task + objects.shape.task_coroutine + 8)
    number = objects.number(at)
    if number is not None:
        return f"Task-{number}"
    return plain(objects.text(at, 128) or "?", 128)
