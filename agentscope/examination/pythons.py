"""The Python stacks of another process, taken while it runs on.

py-spy reads them (every CPython from 2.7 on), as a process of the target's own user, in an empty environment: it can do no more
to the target than its user could, and never runs anything of it. It reads without a pause; a process that works hard changes
under its eyes, and then it finds nothing that makes sense and is asked again. Where that fails, or where the kernel does not let
one process of that user look into another (Yama, a program that changed its user, or that has capabilities), the memory is read
here, of CPython 3.11 to 3.13. Only then, and last, py-spy may stop the process for the moment that it reads.
"""

import shutil
import sys
import time
from pathlib import Path

import msgspec

from agentscope.examination import PythonStacks, PythonThread
from agentscope.examination.memory import Memory
from agentscope.examination.proc import link_of, plain, read_proc, status_field
from agentscope.examination.python_frames import Frame, Frames, Tids
from agentscope.examination.python_objects import objects_of, version_of
from agentscope.examination.spawned import Ended, run_as
from agentscope.machines import X86_64, this_machine
from agentscope.model import MissingEvidence, PythonFrame

TRIES = 3
MOST_THREADS = 4096
MOST_FRAMES = 512
OUTPUT_LIMIT = 16 << 20
_RESERVE_S = 0.5  # of the time is kept for what is tried last
_MAPS_LIMIT = 1 << 20
_TID_IN_PTHREAD = (this_machine() or X86_64).tid_in_pthread


class _SpyFrame(msgspec.Struct):
    """A frame as py-spy writes it."""

    name: str
    filename: str
    line: int = 0


class _SpyThread(msgspec.Struct):
    """A thread as py-spy writes it: `thread_id` is the pthread_t, `os_thread_id` the tid as the target's namespace counts."""

    thread_id: int
    frames: list[_SpyFrame]
    thread_name: str | None = None
    os_thread_id: int | None = None
    active: bool = False
    owns_gil: bool = False


def take_stacks(pid: int, timeout_s: float = 3.0) -> PythonStacks | MissingEvidence | None:
    """The Python threads of a process; None if it runs no Python. Takes at most about `timeout_s`."""
    started = time.monotonic()
    named = _python_name(pid)
    if named is None:
        return None
    taken = _threads(pid, started + timeout_s)
    if isinstance(taken, MissingEvidence):
        return taken
    return PythonStacks(
        pid=pid,
        version=version_of(pid) or named,
        threads=taken,
        took_ms=round((time.monotonic() - started) * 1e3, 1),
    )


def sample_lines(pid: int, count: int, interval_s: float) -> tuple[str, ...]:
    """Where the busy Python thread of a process is, `count` times: "function (file:line)"; shorter where it could not be told."""
    if _python_name(pid) is None:
        return ()
    lines = []
    for number in range(count):
        if number:
            time.sleep(interval_s)
        frame = _busy_frame(pid)
        if frame is not None:
            lines.append(f"{frame.function} ({frame.file}:{frame.line or frame.first_line})")
    return tuple(lines)


def _threads(pid: int, until: float) -> tuple[PythonThread, ...] | MissingEvidence:
    spy = _spy_path()
    for _ in range(TRIES):
        if spy is not None and time.monotonic() < until - _RESERVE_S:
            threads = _spied(pid, spy, until - _RESERVE_S, "--nonblocking")
            if isinstance(threads, tuple):
                return threads
    own = _read_here(pid)
    if own:
        return own
    if spy is None:
        return MissingEvidence(kind="python-threads", because="py-spy is not installed beside agentscope")
    return _spied(pid, spy, until)


def _python_name(pid: int) -> str | None:
    """The version that the names of its program or library tell, "3.8" or "?"; None if it is no Python."""
    exe = (link_of(f"/proc/{pid}/exe") or "").removesuffix(" (deleted)").rpartition("/")[2]
    if exe.startswith("python"):
        return exe.removeprefix("python") or "?"
    for line in (read_proc(f"/proc/{pid}/maps", _MAPS_LIMIT) or b"").splitlines():
        name = line.rpartition(b"/")[2]
        if name.startswith(b"libpython") and b".so" in name:
            return plain(name.removeprefix(b"libpython").partition(b".so")[0], 16) or "?"
    return None


# --- py-spy ---------------------------------------------------------------------------------------------------------------


def _spy_path() -> str | None:
    """The py-spy of our own installation."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.is_file() else shutil.which("py-spy")


def _spied(pid: int, spy: str, until: float, *options: str) -> tuple[PythonThread, ...] | MissingEvidence:
    """The threads as py-spy sees them, or what it says instead."""
    user = _user_of(pid)
    if user is None:
        return MissingEvidence(kind="python-threads", because="the process has ended")
    arguments = ["dump", "--pid", str(pid), "--json", "--full-filenames", *options]
    ended = run_as(spy, arguments, user, until_s=until, limit_bytes=OUTPUT_LIMIT)
    if ended.status == 0:
        try:
            return _as_threads(pid, msgspec.json.decode(ended.output, type=list[_SpyThread]))
        except msgspec.DecodeError:
            return MissingEvidence(kind="python-threads", because="what py-spy wrote could not be understood")
    return MissingEvidence(kind="python-threads", because=_complaint(ended, user))


def _complaint(ended: Ended, user: tuple[int, int]) -> str:
    if ended.status is None:
        return "py-spy did not come to an end in time" if ended.timed_out else "py-spy could not be run"
    first = next((line for line in ended.errors.decode("utf-8", "replace").splitlines() if line.strip()), "")
    return f"py-spy, run as user {user[0]}, could not read it: {plain(first, 200) or f'status {ended.status}'}"


def _user_of(pid: int) -> tuple[int, int] | None:
    """Real uid and gid of a process."""
    status = read_proc(f"/proc/{pid}/status")
    numbers = [status_field(status, name) for name in (b"Uid", b"Gid")] if status else []
    try:
        uid, gid = (int((each or b"").split()[0]) for each in numbers)
    except (ValueError, IndexError):
        return None
    return uid, gid


def _as_threads(pid: int, spied: list[_SpyThread]) -> tuple[PythonThread, ...]:
    tids = Tids(pid)
    threads = []
    with Memory(pid) as memory:
        for each in spied[:MOST_THREADS]:
            tid = each.os_thread_id or memory.number(each.thread_id + _TID_IN_PTHREAD, "<i") or 0
            tid = tids.ours(tid)
            if tid not in tids.all:
                if len(spied) > 1:
                    continue  # it has ended meanwhile
                tid = pid
            active = each.active if each.os_thread_id else _runs(pid, tid)
            threads.append(
                PythonThread(
                    tid=tid,
                    name=plain(each.thread_name, 128) if each.thread_name else None,
                    frames=tuple(map(_as_frame, each.frames[:MOST_FRAMES])),
                    owns_gil=each.owns_gil,
                    active=active,
                )
            )
    return tuple(threads)


def _as_frame(frame: _SpyFrame) -> PythonFrame:
    """A frame as a value; py-spy does not tell where the function begins."""
    line = frame.line if frame.line > 0 else None
    return PythonFrame(function=plain(frame.name), file=plain(frame.filename, 1024), first_line=line or 0, line=line)


def _runs(pid: int, tid: int) -> bool:
    """Whether a thread is on a CPU or waits for one."""
    stat = read_proc(f"/proc/{pid}/task/{tid}/stat", 512) or b""
    return stat[stat.rfind(b")") + 2 :][:1] == b"R"


# --- our own reading ------------------------------------------------------------------------------------------------------


def _read_here(pid: int) -> tuple[PythonThread, ...]:
    """The threads as the memory tells; none where this version cannot be read."""
    with Memory(pid) as memory:
        objects = objects_of(memory)
        if objects is None:
            return ()
        frames = Frames(objects)
        holder = frames.gil_holder()
        names = frames.thread_names()
        return tuple(
            PythonThread(
                tid=each.tid,
                name=names.get(each.ident),
                frames=tuple(map(Frame.shown, each.frames)),
                owns_gil=each.state == holder,
                active=_runs(pid, each.tid),
            )
            for each in frames.threads()
            if each.tid in frames.tids.all
        )


def _busy_frame(pid: int) -> PythonFrame | None:
    """The innermost frame of the thread that has the GIL, else of one that runs without it."""
    with Memory(pid) as memory:
        objects = objects_of(memory)
        if objects is not None:
            frames = Frames(objects)
            holder = frames.gil_holder()
            chain = frames.frames(holder) if holder else ()
            if chain:
                return chain[0].shown()
    threads = _threads(pid, time.monotonic() + 1.0)
    busy = sorted((each for each in threads if each.frames), key=_idleness) if isinstance(threads, tuple) else []
    return busy[0].frames[0] if busy and _idleness(busy[0]) < 2 else None


def _idleness(thread: PythonThread) -> int:
    return 0 if thread.owns_gil else 1 if thread.active else 2
