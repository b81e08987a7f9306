"""Stacks, locks and tasks of really running Python processes, read from outside."""

import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blocked import calls_of, settled, started

from agentscope.examination import LockWait
from agentscope.examination.deepen import FUTEXES
from agentscope.examination.python_locks import read_lock_waits

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

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


@contextmanager
def program(interpreter: str, code: str, folder: Path) -> Iterator[subprocess.Popen]:
    """A file agent.py run by an interpreter; it ends itself after 50 s."""
    file = folder / "agent.py"
    file.write_text("import signal; signal.alarm(50)\n" + textwrap.dedent(code).lstrip("\n"))
    with started([interpreter, "-u", str(file)], cwd=folder, stderr=subprocess.DEVNULL) as process:
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
        waits = read_lock_waits(pid, waiting)
        if len(waits) >= count and len(waiting) >= count:
            time.sleep(0.2)
            if read_lock_waits(pid, waiting) == waits:
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
        assert read_lock_waits(victim.pid, {victim.pid: 0}) == ()
