"""Who holds which Python lock, read from the memory of another process while it runs on. CPython 3.11 to 3.13.

A lock of `threading` is a semaphore of the C library (Python/thread_pthread.h, USE_SEMAPHORES): `lock_lock` of its object points
at a sem_t, whose first word is the address that a waiting thread waits at; it is 0 while somebody has the lock. So the address
that a thread waits at leads to the lock object in its own frame, and the holder is found by what Python itself keeps:

- an RLock has the thread that owns it in the object (Modules/_threadmodule.c, rlock_owner);
- a frame that is inside `with lock:` keeps the lock's `__exit__` on its value stack until the body is left;
- `Thread.join` waits for the thread whose object is its `self`.

A Lock that was taken by acquire() without `with` tells nobody who took it: then there is no holder here. The inner lock of a
waiter of a Condition (so of Event, Queue, Semaphore too) is held by nobody: whoever notifies lets it go.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from agentscope.examination import LockWait
from agentscope.examination.frames import is_own
from agentscope.examination.memory import Memory
from agentscope.examination.python_frames import Frame, Frames, PythonState, entered_at
from agentscope.examination.python_objects import Objects, objects_of
from agentscope.examination.python_tasks import suspended_tasks
from agentscope.model import PythonFrame

LONGEST_S = 2.0
_THREADING = "/threading.py"
_SELF = 24  # PyCFunctionObject.m_self, PyMethodObject.im_self
_KINDS: dict[str, Literal["Lock", "RLock"]] = {"_thread.lock": "Lock", "_thread.RLock": "RLock"}
_METHOD = "builtin_function_or_method"
_NEAR = 3  # frames from the innermost in which the lock waited for is looked for
_DEEPEST = 4
_BUILT_ON_LOCKS = ("/threading.py", "/queue.py", "/concurrent/futures/_base.py")


class LockReading(NamedTuple):
    """Who waits for which lock; not `whole` where there was no time to read all of it, so that a holder may be missing."""

    waits: tuple[LockWait, ...] = ()
    whole: bool = True


class _Lock(NamedTuple):
    """A lock object. `owner` is the ident of the thread that has it, of an RLock that somebody has."""

    address: int
    kind: Literal["Lock", "RLock"]
    futex: int
    owner: int


class _Held(NamedTuple):
    """A thread that keeps a lock by a `with`, and where."""

    tid: int
    at: PythonFrame
    how: str


class _Answer(NamedTuple):
    """Who holds a lock, and the line where it was taken, if that is known."""

    tid: int | None
    proof: str
    at: PythonFrame | None = None


def read_lock_waits(pid: int, waiting: Mapping[int, int], longest_s: float = LONGEST_S) -> LockReading:
    """The Python locks that threads wait for and who holds them; `waiting` has the address that each of these waits at.

    Threads that wait at anything else than a Python lock are left out; all of them where this version cannot be read.
    It takes about `longest_s` at most.
    """
    with Memory(pid) as memory:
        objects = objects_of(memory)
        if objects is None:
            return LockReading()
        reading = _Reading(pid, objects, longest_s)
        waits = tuple(reading.waits(waiting))
        return LockReading(waits, whole=not reading.cut_short)


class _Reading:
    """One look at the locks of one process."""

    def __init__(self, pid: int, objects: Objects, longest_s: float = LONGEST_S) -> None:
        self.cut_short = False
        self._pid = pid
        self._until = time.monotonic() + longest_s
        self._objects = objects
        self._frames = Frames(objects)
        self._threads = {thread.tid: thread for thread in self._frames.threads()}
        self._locks: dict[int, _Lock] = {}
        self._held: dict[int, list[_Held]] | None = None

    def waits(self, waiting: Mapping[int, int]) -> Iterator[LockWait]:
        for tid, address in waiting.items():
            thread = self._threads.get(tid)
            if self._is_late():
                return
            if thread is None or not thread.frames:
                continue
            lock = self._lock_waited_for(thread, address)
            answer = self._joined(thread) if lock is None or _joins(thread) else self._holder(thread, lock)
            if answer is not None:
                yield LockWait(
                    pid=self._pid,
                    tid=tid,
                    address=address,
                    kind="futex" if lock is None else lock.kind,
                    holder_tid=answer.tid,
                    proof=answer.proof,
                    waits_at=_own(thread.frames).shown(),
                    held_at=answer.at,
                )

    def _is_late(self) -> bool:
        self.cut_short |= time.monotonic() > self._until
        return self.cut_short

    def _lock_waited_for(self, thread: PythonState, address: int) -> _Lock | None:
        """The lock of this semaphore, in the thread's own frames: whoever waits for a lock has it, or a method of it, among its values."""
        if address in self._locks:
            return self._locks[address]
        for frame in thread.frames[:_NEAR]:
            for thing in self._frames.slots(frame, 0, frame.code.locals_count + frame.code.stack_size):
                bound = self._objects.pointer(thing + _SELF) if self._objects.type_name(thing) == _METHOD else 0
                for candidate in filter(None, (thing, bound)):
                    lock = self._lock_at(candidate) if self._objects.pointer(candidate + 16) == address else None
                    if lock is not None:
                        self._locks[address] = lock
                        return lock
        return None

    def _lock_at(self, thing: int) -> _Lock | None:
        kind = _KINDS.get(self._objects.type_name(thing) or "")
        raw = self._objects.memory.read(thing + 16, 24) if kind else None
        if kind is None or raw is None:
            return None
        futex, owner, count = (int.from_bytes(raw[at : at + 8], "little") for at in (0, 8, 16))
        return _Lock(thing, kind, futex, owner if kind == "RLock" and count else 0)

    def _holder(self, thread: PythonState, lock: _Lock) -> _Answer | None:
        innermost = thread.frames[0]
        if innermost.is_in("Condition.wait", _THREADING) and self._lock_of(self._self_of(innermost)) != lock.address:
            return _Answer(None, f"a waiter of threading.Condition{_on_behalf_of(thread.frames)}")
        word = self._objects.signed(lock.futex, 4)
        if word is None or word > 0:
            return _Answer(None, "nobody has it any more")
        if self._held is None:
            self._held = self._all_held()
        held = self._held.get(lock.address, [])
        if lock.kind == "RLock":
            return self._owner(lock, held)
        if len(held) == 1:
            return _Answer(held[0].tid, held[0].how, held[0].at)
        if held:
            return _Answer(None, f"{len(held)} threads are inside a with of it")
        if self.cut_short:
            return _Answer(None, "there was no time to read what each thread holds")
        return _Answer(None, "it was taken by acquire(), which leaves no trace of the holder")

    def _owner(self, lock: _Lock, held: list[_Held]) -> _Answer:
        owner = next((each for each in self._threads.values() if each.ident == lock.owner), None)
        if owner is None:
            return _Answer(None, "the thread that it names as its owner has ended" if lock.owner else "nobody has it any more")
        at = next((each.at for each in held if each.tid == owner.tid), None)
        return _Answer(owner.tid, "the owner that stands in the RLock", at)

    def _joined(self, thread: PythonState) -> _Answer | None:
        """Whom a thread waits for that is inside Thread.join."""
        if not _joins(thread):
            return None
        number = self._objects.number(self._objects.attribute(self._self_of(thread.frames[0]), "_native_id"))
        other = self._threads.get(self._frames.tids.ours(number)) if number else None
        if other is None:
            return _Answer(None, "Thread.join of a thread that is not there")
        return _Answer(other.tid, "Thread.join of that thread")

    def _all_held(self) -> dict[int, list[_Held]]:
        """Every lock that a thread, or a suspended task of its event loop, keeps by a `with`."""
        found: dict[int, list[_Held]] = {}
        for thread in self._threads.values():
            if self._is_late():
                break
            released = {
                self._lock_of(self._self_of(each)) for each in thread.frames if each.is_in("Condition.wait", _THREADING)
            }
            for place, frame in enumerate(thread.frames):
                for lock, line in self._kept_by(frame):
                    if lock not in released:
                        own = frame if is_own(frame.shown()) else _own(thread.frames[place:])
                        at = own.shown(line if own is frame else None)
                        found.setdefault(lock, []).append(_Held(thread.tid, at, "it is inside a with of the lock"))
        for task in suspended_tasks(self._frames):
            kept = [(lock, frame.shown(line)) for frame in task.frames for lock, line in self._kept_by(frame)]
            loop = self._loop_thread(task.address) if kept else None
            for lock, at in kept:
                if loop is not None:
                    found.setdefault(lock, []).append(
                        _Held(loop, at, "a suspended task of its event loop is inside a with of the lock")
                    )
        return found

    def _loop_thread(self, task: int) -> int | None:
        """The thread that runs the event loop of a task (BaseEventLoop._thread_id)."""
        ident = self._objects.number(self._objects.attribute(self._objects.pointer(task + 16), "_thread_id"))
        return next((each.tid for each in self._threads.values() if each.ident == ident), None)

    def _kept_by(self, frame: Frame, deep: int = 0) -> Iterator[tuple[int, int | None]]:
        """The locks that a frame keeps by a `with`, and the line of each."""
        for slot, thing in enumerate(self._frames.live_slots(frame)):
            lock = self._behind(thing, deep) if thing else 0
            if lock:
                entered = entered_at(frame.code.exceptions, frame.offset, slot)
                yield lock, None if entered is None else frame._replace(offset=entered).shown().line

    def _behind(self, thing: int, deep: int) -> int:
        """The lock that a bound `__exit__` lets go: its own, that of a Condition, or one that a @contextmanager keeps."""
        kind = self._objects.type_name(thing)
        if kind not in {_METHOD, "method"}:
            return 0
        target = self._objects.pointer(thing + _SELF)
        if kind == _METHOD:
            name = self._objects.c_string(self._objects.pointer(self._objects.pointer(thing + 16)))
            return target if name == b"__exit__" and self._lock_at(target) else 0
        lock = self._lock_of(target)
        if lock or deep >= _DEEPEST:
            return lock
        if not self._objects.is_a(target, "_GeneratorContextManager"):
            return 0
        generator = self._objects.attribute(target, "gen")
        inner = self._frames.frame_at(generator + self._objects.shape.generator_frame) if generator else None
        return next((each for each, _ in self._kept_by(inner, deep + 1)), 0) if inner else 0

    def _lock_of(self, condition: int) -> int:
        """The lock of a threading.Condition."""
        if not condition or not self._objects.is_a(condition, "Condition"):
            return 0
        lock = self._objects.attribute(condition, "_lock")
        return lock if lock and self._lock_at(lock) else 0

    def _self_of(self, frame: Frame) -> int:
        return next(iter(self._frames.slots(frame, 0, 1)), 0)


def _joins(thread: PythonState) -> bool:
    """Whether a thread waits inside Thread.join: for a lock until 3.12, by a call of C since 3.13."""
    innermost = thread.frames[0]
    return any(innermost.is_in(name, _THREADING) for name in ("Thread._wait_for_tstate_lock", "Thread.join"))


def _own(frames: tuple[Frame, ...]) -> Frame:
    """The innermost frame of the program's own code; the innermost at all where there is none."""
    return next((each for each in frames if is_own(each.shown())), frames[0])


def _on_behalf_of(frames: tuple[Frame, ...]) -> str:
    """What of the library waits by a Condition: " (Queue.get)"."""
    name = ""
    for frame in frames[1:]:
        if not frame.code.file.endswith(_BUILT_ON_LOCKS):
            break
        if frame.code.name != "Condition.wait_for":
            name = frame.code.name
    return f" ({name})" if name else ""
