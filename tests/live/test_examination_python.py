"""Stacks, locks and tasks of really running Python processes, read from outside."""

import os
import shutil
import signal
import struct
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from blocked import blocked_in, calls_of, children_of, settled, started

from agentscope.examination import LockWait, PythonStacks, PythonTask, pythons
from agentscope.examination.proc import tids_of
from agentscope.examination.python_locks import read_lock_waits
from agentscope.examination.python_tasks import read_tasks
from agentscope.examination.pythons import sample_lines, take_stacks
from agentscope.model import MissingEvidence

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

FUTEXES = frozenset({"futex", "futex_wait", "futex_waitv"})
NOBODY = 65534
DUMPS = int(os.environ.get("AGENTSCOPE_DUMPS", "200"))  # 1000 take two minutes
READABLE = [
    "/usr/bin/python3.11",
    *(f"/root/.pyenv/versions/{version}/bin/python3" for version in ("3.11.7", "3.12.1", "3.13.0")),
]
OLDER = [f"/root/.pyenv/versions/{version}/bin/python3" for version in ("3.8.18", "3.9.18", "3.10.13")]


def there(interpreters: list[str]) -> list[object]:
    """The interpreters as parameters; those that this machine has not are skipped."""
    return [
        pytest.param(
            each,
            id=each.split("/")[-3 if "pyenv" in each else -1],
            marks=pytest.mark.skipif(not Path(each).exists(), reason="not here"),
        )
        for each in interpreters
    ]


readable = pytest.mark.parametrize("interpreter", there(READABLE))
every = pytest.mark.parametrize("interpreter", there(READABLE + OLDER))


@contextmanager
def program(interpreter: str, code: str, folder: Path, **options) -> Iterator[subprocess.Popen]:
    """A file agent.py run by an interpreter; it ends itself after 50 s."""
    file = folder / "agent.py"
    file.write_text("import signal; signal.alarm(50)\n" + textwrap.dedent(code).lstrip("\n"))
    with started([interpreter, "-u", str(file)], cwd=folder, stderr=subprocess.DEVNULL, **options) as process:
        yield process


def line_of(folder: Path, mark: str) -> int:
    """The number of the line of agent.py that ends in this comment."""
    lines = (folder / "agent.py").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))
    return number


def waits_of(pid: int, count: int) -> list[LockWait]:
    """The lock waits of a process, once there are as many as expected."""
    deadline = time.monotonic() + 10
    waits: tuple[LockWait, ...] = ()
    while time.monotonic() < deadline:
        waiting = {tid: call.futex for tid, call in calls_of(pid).items() if call.name in FUTEXES and call.futex}
        waits = read_lock_waits(pid, waiting).waits
        if len(waits) >= count and len(waiting) >= count:
            time.sleep(0.2)
            if read_lock_waits(pid, waiting).waits == waits:
                return sorted(waits, key=lambda wait: wait.tid)
        time.sleep(0.05)
    pytest.fail(f"no {count} waits: {waits} of {calls_of(pid)} {waiting}")


TWO_LOCKS = """
    import threading, time
    a, b = threading.Lock(), threading.Lock()
    def first():
        with a:  # first holds
            time.sleep(0.3)
            try:
                with b:  # first waits
                    pass
            finally:
                pass
    def second():
        for _ in range(3):
            with b:  # second holds
                time.sleep(0.3)
                with a:  # second waits
                    pass
    threading.Thread(target=first, daemon=True).start()
    threading.Thread(target=second, daemon=True).start()
    time.sleep(60)
"""


@readable
def test_two_locks_taken_in_opposite_order(interpreter, tmp_path):
    """Each of two threads waits for the lock that the other has, at the line of the with statement on both sides."""
    with program(interpreter, TWO_LOCKS, tmp_path) as victim:
        one, two = waits_of(victim.pid, 2)
        assert (one.holder_tid, two.holder_tid) == (two.tid, one.tid)
        assert {one.kind, two.kind} == {"Lock"}
        sides = {(wait.waits_at.function, wait.waits_at.line, wait.held_at.function, wait.held_at.line) for wait in (one, two)}
        lines = {mark: line_of(tmp_path, mark) for mark in ("first holds", "first waits", "second holds", "second waits")}
        assert sides == {
            ("first", lines["first waits"], "second", lines["second holds"]),
            ("second", lines["second waits"], "first", lines["first holds"]),
        }
        assert one.waits_at.file == str(tmp_path / "agent.py")


@readable
@pytest.mark.parametrize("taken", ["with lock:", "lock.acquire()\n        if True:"])
def test_an_rlock_names_its_owner(interpreter, taken, tmp_path):
    """Who has an RLock stands in it, whether it was taken by with or by acquire()."""
    code = f"""
    import threading, time
    lock = threading.RLock()
    def keep():
        {taken}
            time.sleep(60)  # keeps
    def want():
        with lock:  # wants
            pass
    keeper = threading.Thread(target=keep, daemon=True); keeper.start()
    time.sleep(0.2)
    threading.Thread(target=want, daemon=True).start()
    print(keeper.native_id)
    time.sleep(60)
    """
    with program(interpreter, code, tmp_path) as victim:
        (wait,) = waits_of(victim.pid, 1)
        assert (wait.kind, wait.waits_at.line) == ("RLock", line_of(tmp_path, "wants"))
        assert wait.holder_tid not in {None, wait.tid, victim.pid}
        # where it was taken is told by a with only
        assert (wait.held_at and wait.held_at.line) == (line_of(tmp_path, "keeps") - 1 if taken == "with lock:" else None)


@readable
def test_a_thread_that_wants_its_own_lock(interpreter, tmp_path):
    """A thread that takes a Lock twice by with waits for itself."""
    code = """
    import threading
    lock = threading.Lock()
    def inner():
        with lock:  # waits
            pass
    def outer():
        with lock:  # holds
            inner()
    outer()
    """
    with program(interpreter, code, tmp_path) as victim:
        (wait,) = waits_of(victim.pid, 1)
        assert (wait.tid, wait.holder_tid) == (victim.pid, victim.pid)
        assert (wait.waits_at.line, wait.held_at.line) == (line_of(tmp_path, "waits"), line_of(tmp_path, "holds"))


@readable
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("with condition: condition.wait()", "threading.Condition"),
        ("threading.Event().wait()", "Event.wait"),
        ("queue.Queue().get()", "Queue.get"),
        ("threading.Semaphore(0).acquire()", "Semaphore.acquire"),
        ("concurrent.futures.Future().result()", "Future.result"),
    ],
)
def test_a_waiter_of_a_condition_is_held_by_nobody(interpreter, call, named, tmp_path):
    """A thread that waits to be notified waits for a lock that nobody has, and it has let go the Condition's own."""
    code = f"""
    import threading, queue, concurrent.futures
    condition = threading.Condition(threading.Lock())
    def wait():
        {call}
    wait()
    """
    with program(interpreter, code, tmp_path) as victim:
        (wait,) = waits_of(victim.pid, 1)
        assert (wait.kind, wait.holder_tid, wait.held_at) == ("Lock", None, None)
        assert "threading.Condition" in wait.proof
        assert named in wait.proof


@readable
def test_a_condition_that_is_waited_for_is_not_held_by_the_waiter(interpreter, tmp_path):
    """Of two threads inside `with condition:` the one in wait() has let go: the other one is the holder."""
    code = """
    import threading, time
    lock = threading.Lock()
    condition = threading.Condition(lock)
    def waiter():
        with condition:
            condition.wait()
    def keeper():
        with condition:  # holds
            time.sleep(60)
    def wanter():
        with lock:  # wants
            pass
    for each in (waiter, keeper, wanter):
        threading.Thread(target=each, daemon=True).start()
        time.sleep(0.2)
    time.sleep(60)
    """
    with program(interpreter, code, tmp_path) as victim:
        waits = waits_of(victim.pid, 2)
        (wanted,) = (wait for wait in waits if wait.waits_at.function == "wanter")
        assert (wanted.held_at.function, wanted.held_at.line) == ("keeper", line_of(tmp_path, "holds"))
        (waited,) = (wait for wait in waits if wait.waits_at.function == "waiter")
        assert waited.holder_tid is None


@readable
def test_a_lock_kept_by_a_context_manager_of_generator(interpreter, tmp_path):
    """A lock that a @contextmanager function keeps is kept by whoever is inside its with."""
    code = """
    import contextlib, threading, time
    lock = threading.Lock()
    @contextlib.contextmanager
    def guarded():
        with lock:
            yield
    def keeper():
        with guarded():  # holds
            time.sleep(60)
    threading.Thread(target=keeper, daemon=True).start()
    time.sleep(0.3)
    with guarded():
        pass
    """
    with program(interpreter, code, tmp_path) as victim:
        (wait,) = waits_of(victim.pid, 1)
        assert (wait.held_at.function, wait.held_at.line) == ("keeper", line_of(tmp_path, "holds"))


@readable
def test_a_lock_taken_by_acquire_has_no_known_holder(interpreter, tmp_path):
    """What acquire() leaves no trace of is not guessed, and what lies on a stack from before is not believed."""
    code = """
    import threading, time
    lock, other = threading.Lock(), threading.Lock()
    def keeper():
        with lock:
            pass
        lock.acquire()
        time.sleep(60)
    threading.Thread(target=keeper, daemon=True).start()
    time.sleep(0.3)
    lock.acquire()
    """
    with program(interpreter, code, tmp_path) as victim:
        (wait,) = waits_of(victim.pid, 1)
        assert (wait.kind, wait.holder_tid, wait.held_at) == ("Lock", None, None)
        assert "acquire()" in wait.proof


@readable
def test_a_lock_kept_by_a_suspended_task(interpreter, tmp_path):
    """A task that awaits inside `with lock:` keeps it, so its loop's thread waits for itself when another task wants it."""
    code = """
    import asyncio, threading
    lock = threading.Lock()
    async def keeper():
        with lock:  # holds
            await asyncio.Event().wait()
    async def wanter():
        with lock:  # waits
            pass
    async def main():
        await asyncio.gather(keeper(), wanter())
    asyncio.run(main())
    """
    with program(interpreter, code, tmp_path) as victim:
        (wait,) = waits_of(victim.pid, 1)
        assert (wait.tid, wait.holder_tid) == (victim.pid, victim.pid)
        assert (wait.waits_at.line, wait.held_at.line) == (line_of(tmp_path, "waits"), line_of(tmp_path, "holds"))


@readable
def test_a_thread_that_is_joined_is_whom_the_other_waits_for(interpreter, tmp_path):
    """Thread.join waits for that thread: with a lock that the joining one keeps, the two wait for each other."""
    code = """
    import threading, time
    lock = threading.Lock()
    def worker():
        time.sleep(0.2)
        with lock:  # worker waits
            pass
    thread = threading.Thread(target=worker)
    with lock:  # main holds
        thread.start()
        thread.join()  # main waits
    """
    with program(interpreter, code, tmp_path) as victim:
        main, worker = waits_of(victim.pid, 2)
        assert (main.tid, main.holder_tid, worker.holder_tid) == (victim.pid, worker.tid, victim.pid)
        assert (main.waits_at.line, worker.waits_at.line) == (
            line_of(tmp_path, "main waits"),
            line_of(tmp_path, "worker waits"),
        )
        assert worker.held_at.line == line_of(tmp_path, "main holds")


@readable
def test_a_forked_child_that_inherited_a_taken_lock(interpreter, tmp_path):
    """In a child forked while another thread had a lock nobody has it; of an RLock it says that the owner has ended."""
    code = """
    import os, threading, time
    lock = threading.RLock()
    def keeper():
        with lock:
            time.sleep(60)
    threading.Thread(target=keeper, daemon=True).start()
    time.sleep(0.3)
    if os.fork() == 0:
        import signal; signal.alarm(40)
        with lock:
            pass
    time.sleep(60)
    """
    with program(interpreter, code, tmp_path) as victim:
        settled(lambda: Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split() or None)
        child = int(Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split()[0])
        try:
            (wait,) = waits_of(child, 1)
            assert (wait.kind, wait.tid, wait.holder_tid) == ("RLock", child, None)
            assert "ended" in wait.proof
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("interpreter", there(OLDER))
def test_versions_that_cannot_be_read(interpreter, tmp_path):
    """Of an older Python no lock is told."""
    with program(interpreter, "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()", tmp_path) as victim:
        settled(lambda: next((tid for tid, call in calls_of(victim.pid).items() if call.name in FUTEXES), None))
        assert read_lock_waits(victim.pid, {victim.pid: 0}).waits == ()


# --- stacks ---------------------------------------------------------------------------------------------------------------

TWO_THREADS = """
    import threading, time
    def sleeper():
        time.sleep(49)  # sleeps
    threading.Thread(target=sleeper, name="sleeper", daemon=True).start()
    threading.Event().wait()  # waits
"""


def stacks_of(pid: int, function: str) -> PythonStacks:
    """The stacks of a process, once a thread is in this function, calls nothing of Python, and no thread is being started."""

    def asked() -> PythonStacks | None:
        stacks = take_stacks(pid)
        assert stacks is None or isinstance(stacks, PythonStacks), stacks
        there = stacks is not None and any(
            thread.frames and thread.frames[0].function.endswith(function) for thread in stacks.threads
        )
        begun = there and not any(frame.function.endswith("start") for thread in stacks.threads for frame in thread.frames)
        return stacks if begun else None

    return settled(asked)


@every
def test_the_threads_of_every_version(interpreter, tmp_path):
    """Every thread has the kernel's number, its name, and its frames innermost first, each at the line where it is."""
    with program(interpreter, TWO_THREADS, tmp_path) as victim:
        stacks = stacks_of(victim.pid, "sleeper")
        threads = {thread.tid: thread for thread in stacks.threads}
        assert set(threads) == set(tids_of(victim.pid))
        main = threads.pop(victim.pid)
        (other,) = threads.values()
        file = str(tmp_path / "agent.py")
        assert (other.name, other.frames[0].file, other.frames[0].line) == ("sleeper", file, line_of(tmp_path, "sleeps"))
        assert (main.frames[-1].function, main.frames[-1].line) == ("<module>", line_of(tmp_path, "waits"))
        assert main.frames[0].function.endswith("wait")
        assert not any(thread.active or thread.owns_gil for thread in (main, other))
        assert (
            interpreter.split("/")[-3 if "pyenv" in interpreter else -1].removeprefix("python").startswith(stacks.version[:4])
        )


@every
def test_both_ways_of_reading_tell_the_same(interpreter, tmp_path, monkeypatch):
    """What is read here, where py-spy may not, is what py-spy reads; an older Python is missing then, with the reason."""
    with program(interpreter, TWO_THREADS, tmp_path) as victim:
        spied = stacks_of(victim.pid, "sleeper")
        monkeypatch.setattr(pythons, "_spy_path", lambda: None)
        own = take_stacks(victim.pid)
        if interpreter in OLDER:
            assert isinstance(own, MissingEvidence)
            assert "py-spy is not installed" in own.because
            return
        assert shape_of(own) == shape_of(spied)


def shape_of(stacks: PythonStacks) -> list[object]:
    """What both ways of reading tell; py-spy does not tell where a function begins."""
    return [
        (each.tid, each.name, each.owns_gil, [(frame.function, frame.file, frame.line) for frame in each.frames])
        for each in stacks.threads
    ]


def owned(folder: Path) -> None:
    """Lets another user into a folder of the tests."""
    for each in (folder, *folder.parents):
        if each.name.startswith("pytest-"):
            each.chmod(0o755)
    folder.chmod(0o755)


def test_py_spy_runs_as_the_target_s_user(tmp_path, monkeypatch):
    """A process of another user is read as that user, who need not be able to reach our installation."""
    asked = []

    def observed(program, arguments, user, **bounds):
        asked.append(user)
        return run_as(program, arguments, user, **bounds)

    run_as = pythons.run_as
    monkeypatch.setattr(pythons, "run_as", observed)
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    spy = shutil.copy(pythons._spy_path(), hidden / "py-spy")
    monkeypatch.setattr(pythons, "_spy_path", lambda: str(spy))
    owned(tmp_path)
    with program(READABLE[0], TWO_THREADS, tmp_path, user=NOBODY, group=NOBODY, extra_groups=[]) as victim:
        stacks = stacks_of(victim.pid, "sleeper")
        assert len(stacks.threads) == 2
        assert set(asked) == {(NOBODY, NOBODY)}
        asked.clear()
        monkeypatch.setattr(pythons, "_read_here", lambda pid: ())
        assert isinstance(take_stacks(victim.pid), PythonStacks)


UNDUMPABLE = "import ctypes; ctypes.CDLL(None).prctl(4, 0)\n"


def test_a_process_that_its_own_user_may_not_look_into(tmp_path, monkeypatch):
    """A process that is not dumpable refuses py-spy as its user; it is read here, or missing with what py-spy said."""
    owned(tmp_path)
    code = UNDUMPABLE + textwrap.dedent(TWO_THREADS)
    with program(READABLE[0], code, tmp_path, user=NOBODY, group=NOBODY, extra_groups=[]) as victim:
        stacks = stacks_of(victim.pid, "sleeper")
        assert len(stacks.threads) == 2
        monkeypatch.setattr(pythons, "_read_here", lambda pid: ())
        missing = take_stacks(victim.pid)
        assert isinstance(missing, MissingEvidence)
        assert missing.kind == "python-threads"
        assert f"user {NOBODY}" in missing.because


@readable
def test_a_process_of_a_pid_namespace_has_our_numbers(interpreter, tmp_path):
    """A process that counts its threads otherwise, in a pid namespace of its own, is told by the numbers that we see."""
    (tmp_path / "agent.py").write_text("import signal; signal.alarm(50)\n" + textwrap.dedent(TWO_LOCKS).lstrip("\n"))
    command = ["unshare", "--pid", "--fork", "--kill-child", interpreter, str(tmp_path / "agent.py")]
    with started(command, stderr=subprocess.DEVNULL) as wrapper:
        (pid,) = settled(lambda: children_of(wrapper.pid))
        one, two = waits_of(pid, 2)
        assert (one.holder_tid, two.holder_tid) == (two.tid, one.tid)
        tids = set(tids_of(pid))
        assert {one.tid, two.tid} < tids
        assert {each.tid for each in stacks_of(pid, "first").threads} == tids


@readable
def test_hostile_names_are_cleaned(interpreter, tmp_path, monkeypatch):
    """Control sequences in names of files, functions, threads and tasks do not get through, whoever reads them."""
    code = """
    import asyncio, threading, time
    code = compile("def run():\\n threading.Event().wait()", "/x/\\x1b[31mred\\r\\n.py", "exec")
    exec(code)
    run.__code__ = run.__code__.replace(co_qualname="\\x1b]0;title\\x07run", co_name="run")
    threading.Thread(target=run, name="\\x1b[2Jthread", daemon=True).start()
    async def main():
        await asyncio.Event().wait()
    async def first():
        asyncio.current_task().set_name("\\x9b31mtask")
        await main()
    asyncio.run(first())
    """
    with program(interpreter, code, tmp_path) as victim:
        settled(lambda: len(tids_of(victim.pid)) > 1)
        spied = stacks_of(victim.pid, "wait")
        monkeypatch.setattr(pythons, "_spy_path", lambda: None)
        texts = repr((spied, take_stacks(victim.pid), settled(lambda: read_tasks(victim.pid))))
        assert "red" in texts
        assert "thread" in texts
        assert not any(mark in texts for mark in ("x1b", "x07", "x9b", "\\\\r", "\\\\n"))


@readable
def test_the_line_of_a_spin(interpreter, tmp_path):
    """Of a process that spins each sample tells the line that it spins in."""
    code = """
    import threading, time
    threading.Thread(target=time.sleep, args=(49,), daemon=True).start()
    def spin():
        while True: pass  # spins
    spin()
    """
    with program(interpreter, code, tmp_path) as victim:
        expected = f"spin ({tmp_path}/agent.py:{line_of(tmp_path, 'spins')})"
        settled(lambda: sample_lines(victim.pid, 1, 0) == (expected,))
        assert sample_lines(victim.pid, 5, 0.02) == (expected,) * 5


# --- tasks ----------------------------------------------------------------------------------------------------------------

TASKS = """
    import asyncio
    class Custom:
        def __await__(self):
            return (yield from asyncio.get_running_loop().create_future())
    async def events():
        await asyncio.Event().wait()  # Event
        yield
    async def event(): await middle()
    async def middle():
        async for _ in events():
            pass
    async def lock():
        held = asyncio.Lock()
        async with held:
            async with held:  # Lock
                pass
    async def queue(): await asyncio.Queue().get()  # Queue
    async def sleep(): await asyncio.sleep(1000)  # sleep
    async def future(): await Custom()
    async def gather(): await asyncio.gather(asyncio.Event().wait(), asyncio.sleep(1000))
    async def finished(): pass
    async def serve_forever():
        server = await asyncio.start_server(print, "127.0.0.1", 0)
        async with server:
            await server.serve_forever()
    async def main():
        tasks = [asyncio.create_task(each(), name=each.__name__)
                 for each in (event, lock, queue, sleep, future, gather, finished, serve_forever)]
        await asyncio.sleep(0.1)
        await asyncio.wait(tasks)
    asyncio.run(main())
"""


def tasks_of(pid: int, count: int) -> dict[str, PythonTask]:
    """The tasks of a process by name, once there are as many as expected and all of them wait."""

    def asked() -> dict[str, PythonTask] | None:
        tasks = read_tasks(pid)
        named = {each.name: each for each in tasks} if isinstance(tasks, tuple) else {}
        return named if len(named) >= count and all(each.awaits for each in named.values()) else None

    return settled(asked)


@readable
def test_what_each_task_awaits(interpreter, tmp_path):
    """Every unfinished task has its coroutines, outermost first, with file and line, and what the innermost waits for."""
    with program(interpreter, TASKS, tmp_path) as victim:
        settled(lambda: "Task-1" in tasks_of(victim.pid, 8) and tasks_of(victim.pid, 8)["Task-1"].awaits == "_wait")
        tasks = tasks_of(victim.pid, 10)
        awaits = {name: task.awaits for name, task in tasks.items() if not name.startswith("Task-")}
        assert awaits == {
            "event": "Event",
            "lock": "Lock",
            "queue": "Queue",
            "sleep": "sleep",
            "future": "Future",
            "gather": "gather",
            "serve_forever": "serve_forever",
        }
        chain = tasks["event"].chain
        assert [frame.function for frame in chain] == ["event", "middle", "events", "Event.wait"]
        assert (chain[2].file, chain[2].line) == (str(tmp_path / "agent.py"), line_of(tmp_path, "Event"))
        for name in ("lock", "queue", "sleep"):
            own = [frame for frame in tasks[name].chain if frame.file == str(tmp_path / "agent.py")]
            assert own[-1].line == line_of(tmp_path, name.title() if name != "sleep" else "sleep")
        assert [frame.function for frame in tasks["future"].chain] == ["future", "Custom.__await__"]


@readable
def test_many_tasks_are_bounded(interpreter, tmp_path):
    """Of 20,000 tasks 200 at most are told, in half a second at most; a program without asyncio has none."""
    code = """
    import asyncio
    async def main():
        event = asyncio.Event()
        await asyncio.gather(*(event.wait() for _ in range(20000)))
    asyncio.run(main())
    """
    with program(interpreter, code, tmp_path) as victim:
        settled(lambda: isinstance(tasks := read_tasks(victim.pid), tuple) and tasks)
        settled(lambda: blocked_in(victim.pid, "epoll_wait"))
        began = time.monotonic()
        tasks = read_tasks(victim.pid)
        assert time.monotonic() - began < 0.5
        assert 20 < len(tasks) <= 200
    with program(interpreter, "import threading\nthreading.Event().wait()", tmp_path) as victim:
        stacks_of(victim.pid, "wait")
        assert read_tasks(victim.pid) == ()


# --- it survives, and hardly notices --------------------------------------------------------------------------------------

BUSY = """
    import mmap, os, struct, sys, threading, time
    file = open(sys.argv[1], "r+b")
    shared = mmap.mmap(file.fileno(), 32)
    def even(n): return odd(n - 1) if n else sum(i * i for i in range(40))
    def odd(n): return even(n - 1) if n else [i for i in range(20)]
    def work():
        while True:
            even(12)
            odd(9)
    def delayed():  # how long both threads have waited for a CPU, in ns
        return sum(int(os.pread(each, 64, 0).split()[1]) for each in schedules)
    def stamp():
        period, largest, stopped, stamps, last, waited = 0, 0, 0, 0, time.monotonic_ns(), delayed()
        while True:
            asked = shared[0]
            if asked != period:
                period, largest, stopped, stamps = asked, 0, 0, 0
            now, waited_now = time.monotonic_ns(), delayed()
            largest = max(largest, now - last)
            stopped = max(stopped, now - last - (waited_now - waited))
            last, waited = now, waited_now
            stamps += 1
            struct.pack_into("<QQQ", shared, 8, largest, stopped, stamps)
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    tids = (os.getpid(), worker.native_id)
    schedules = [os.open(f"/proc/self/task/{tid}/schedstat", os.O_RDONLY) for tid in tids]
    stamp()
"""


class Pause(NamedTuple):
    """The largest gap between two stamps of a victim, and the largest without what its threads waited for a CPU."""

    gap_ms: float
    stopped_ms: float
    stamps: int


class Watch:
    """The victim's own view of its pauses: it stamps the time in a tight loop and keeps its largest gap, in shared memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(bytes(32))

    def begin(self) -> None:
        """Let the victim begin anew."""
        before = self.read().stamps
        with self.file.open("r+b") as file:
            file.write(bytes([self.file.read_bytes()[0] + 1]))
        settled(lambda: self.read().stamps > 0 and (self.read().stamps < before or before == 0))

    def read(self) -> Pause:
        """The largest pause since then; read again where the victim was just writing it, since packing clears the place first."""
        for _ in range(100):
            gap, stopped, stamps = struct.unpack_from("<QQQ", self.file.read_bytes(), 8)
            if stamps:
                break
        return Pause(gap / 1e6, stopped / 1e6, stamps)


def is_whole(stacks: PythonStacks) -> bool:
    """Whether both threads have their frames."""
    return len(stacks.threads) == 2 and all(thread.frames for thread in stacks.threads)


@readable
def test_a_thread_that_runs_is_read_here_again_until_it_stands(interpreter, tmp_path, monkeypatch):
    """Without py-spy too both threads of a process that works hard have their frames: the one that ran waits for the GIL a moment later."""
    monkeypatch.setattr(pythons, "_spy_path", lambda: None)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        watch = Watch(Path(memory, "stamps"))
        (tmp_path / "agent.py").write_text("import signal; signal.alarm(50)\n" + textwrap.dedent(BUSY).lstrip("\n"))
        with started([interpreter, "-u", str(tmp_path / "agent.py"), str(watch.file)]) as victim:
            watch.begin()
            whole = sum(is_whole(take_stacks(victim.pid)) for _ in range(100))
    assert whole >= 95


@pytest.mark.parametrize("interpreter", there(READABLE + OLDER if DUMPS > 200 else READABLE[:1]))
def test_a_busy_process_survives_and_hardly_pauses(interpreter, tmp_path, monkeypatch, capsys):
    """A process that works hard is dumped again and again: it lives on, and never stands still for 100 ms because of it."""
    stopped = []
    spied = pythons._spied

    def observed(pid, spy, until, *options):
        threads = spied(pid, spy, until, *options)
        stopped.append((options, isinstance(threads, tuple)))
        return threads

    monkeypatch.setattr(pythons, "_spied", observed)
    # in memory, so that no disk holds the victim up
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        watch = Watch(Path(memory, "stamps"))
        (tmp_path / "agent.py").write_text(
            f"import signal; signal.alarm({50 + DUMPS // 2})\n" + textwrap.dedent(BUSY).lstrip("\n")
        )
        with started([interpreter, "-u", str(tmp_path / "agent.py"), str(watch.file)]) as victim:
            watch.begin()
            began = time.monotonic()
            taken = []
            for _ in range(DUMPS):
                stacks = take_stacks(victim.pid)
                assert isinstance(stacks, PythonStacks), stacks
                assert victim.poll() is None
                taken.append(stacks)
            seconds = time.monotonic() - began
            dumped = watch.read()
            watch.begin()
            time.sleep(seconds)
            alone = watch.read()
            assert victim.poll() is None
    whole = sum(map(is_whole, taken))
    told = sum(nonblocking == ("--nonblocking",) and got for nonblocking, got in stopped)
    blocking = sum(options == () for options, _ in stopped)
    with capsys.disabled():
        print(
            f"\n{interpreter}: {DUMPS} stacks in {seconds:.1f} s, {told} by py-spy, {DUMPS - told - blocking} read here, "
            f"{blocking} with a pause; both threads whole in {whole}\n"
            f"  largest gap {dumped.gap_ms:.1f} ms, {dumped.stopped_ms:.1f} ms without waiting for a CPU ({dumped.stamps} stamps); "
            f"when left alone {alone.gap_ms:.1f} ms, {alone.stopped_ms:.1f} ms ({alone.stamps} stamps)"
        )
    assert dumped.stamps > DUMPS
    assert alone.stamps
    assert blocking == 0 or interpreter in OLDER
    assert whole >= DUMPS * 0.95
    # a virtual machine can be held up as a whole: then it is held up as long when it is left alone
    assert dumped.stopped_ms < max(100, 2 * alone.gap_ms)
