"""Reading Python's memory from outside: the tables of its code, and memory that makes no sense."""

import dis
import os
import queue
import random
import struct
import sys
import threading
import time
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.examination import LockWait, PythonStacks, pythons
from agentscope.examination import deepen as deepening
from agentscope.examination.memory import Memory
from agentscope.examination.python_frames import Frames, covers, entered_at
from agentscope.examination.python_locks import LockReading, _Reading, read_lock_waits
from agentscope.examination.python_objects import _SHAPES, Objects, objects_of, version_of
from agentscope.examination.python_tasks import read_tasks, suspended_tasks
from agentscope.examination.pythons import sample_lines, take_stacks
from agentscope.examination.spawned import run_as
from agentscope.model import MissingEvidence
from agentscope.symbols.cpython import RuntimeFinder
from tests.hang_builders import process, seen, thread


def all_codes(code: CodeType) -> list[CodeType]:
    """A code object and all inside it."""
    return [code, *(inner for constant in code.co_consts if isinstance(constant, CodeType) for inner in all_codes(constant))]


@pytest.mark.parametrize("module", [os.__file__, threading.__file__, queue.__file__, dis.__file__])
def test_exception_tables_are_those_of_the_interpreter(module: str) -> None:
    """Every entry of the exception tables of real modules is what the interpreter's own decoder says."""
    seen = 0
    for code in all_codes(compile(Path(module).read_text(), module, "exec")):
        told = [(each.start, each.end, each.target, each.depth) for each in dis._parse_exception_table(code)]
        assert [tuple(each) for each in covers(code.co_exceptiontable)] == told
        seen += len(told)
    assert seen > 10


NESTED = """
def f(a, b, c):
    with a:
        try:
            with b as x, c:
                here(1)
            here(2)
        except E:
            here(3)
            with b:
                here(4)
        finally:
            here(5)
    for i in g():
        with c:
            here(6)
            continue
        here(7)
"""
KEPT = {1: [3, 5, 5], 2: [3], 3: [3], 4: [3, 10], 5: [3], 6: [15], 7: []}


@pytest.mark.parametrize("mark", KEPT)
def test_each_with_that_is_open_is_found_by_its_line(mark: int) -> None:
    """Of every with that is open at a call the instruction that entered it is found, in whatever try it stands."""
    (code,) = all_codes(compile(NESTED, "nested.py", "exec"))[1:]
    lines = dict(dis.findlinestarts(code))

    def line_of(offset: int) -> int:
        return max((at, line) for at, line in lines.items() if at <= offset)[1]

    calls = [
        each.offset for each in dis.get_instructions(code) if each.opname == "CALL" and line_of(each.offset) in range(1, 20)
    ]
    wanted = next(number for number, text in enumerate(NESTED.splitlines(), 1) if f"here({mark})" in text)
    found = []
    for call in (each for each in calls if line_of(each) == wanted):
        depth = next((cover.depth for cover in covers(code.co_exceptiontable) if cover.start <= call < cover.end), 0)
        entered = [entered_at(code.co_exceptiontable, call, slot) for slot in range(depth)]
        opnames = {each.offset: each.opname for each in dis.get_instructions(code)}
        found.append([line_of(each) for each in entered if each is not None and opnames[each] == "BEFORE_WITH"])
    assert found
    assert all(each == KEPT[mark] for each in found)


@given(st.binary(max_size=300), st.integers(-10, 1000), st.integers(0, 20))
def test_a_garbage_exception_table_is_no_error(table: bytes, offset: int, slot: int) -> None:
    """Whatever stands in that memory, the answer is a position or none."""
    entered = entered_at(table, offset, slot)
    assert entered is None or isinstance(entered, int)


class Soup(Memory):
    """Memory without end in which every word is a small number or leads to somewhere else in it."""

    def __init__(self, seed: int) -> None:
        super().__init__(os.getpid())
        self.seed = seed

    def read(self, address: int, size: int) -> bytes | None:
        """Words that depend on the address alone, as in a process that stands still."""
        if not 0 < address < 1 << 47 or size > 1 << 16:
            return None
        words = [random.Random(self.seed ^ at) for at in range(address & ~7, address + size, 8)]
        drawn = b"".join(
            struct.pack("<Q", each.choice((each.getrandbits(3), each.getrandbits(40), each.getrandbits(64)))) for each in words
        )
        return drawn[address & 7 :][:size]

    def string(self, address: int, limit: int = 4096) -> bytes | None:
        """Names of types, so that what is read looks like Python's objects."""
        names = (
            b"code",
            b"dict",
            b"set",
            b"_asyncio.Task",
            b"coroutine",
            b"_thread.lock",
            b"method",
            b"type",
            b"module",
            b"int",
        )
        return random.Random(self.seed ^ address).choice(names)


@pytest.mark.parametrize("version", _SHAPES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_memory_that_makes_no_sense_is_no_error(version: tuple[int, int], seed: int) -> None:
    """A process that lays out its memory to confuse us gets an answer within the bounds, and no error."""
    place = RuntimeFinder().find(os.getpid())
    assert place is not None
    runtime = place.runtime.__class__(0, (*version, 0), place.runtime.layout, 0, {})
    objects = Objects(Soup(seed), place._replace(runtime=runtime, address=1 << 20), _SHAPES[version])
    frames = Frames(objects)
    started = time.monotonic()
    for state in range(1, 20):
        frames.frames(state << 12)
    list(suspended_tasks(frames))
    frames.code(1 << 30)
    objects.attribute(1 << 31, "_lock")
    assert time.monotonic() - started < 20
    assert isinstance(list(_Reading(os.getpid(), objects).waits({os.getpid(): 8})), list)


def test_our_own_frames_are_read_right() -> None:
    """Of a thread of this very process the reader sees the frames, lines and name that the interpreter itself tells."""
    if sys.version_info[:2] not in _SHAPES:
        pytest.skip("this Python is not one that is read")
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="waits\x1b[31m")
    thread.start()
    try:
        with Memory(os.getpid()) as memory:
            objects = objects_of(memory)
            assert objects is not None
            frames = Frames(objects)
            states = {each.tid: each for each in frames.threads()}
            other = [frame.shown() for frame in states[thread.native_id].frames]
            assert [frame.function for frame in other[:2]] == ["Condition.wait", "Event.wait"]
            assert (other[0].file, other[0].line) == (threading.__file__, sys._current_frames()[thread.ident].f_lineno)
            assert frames.thread_names()[thread.ident] == "waits"
    finally:
        done.set()
        thread.join()


def test_a_reading_of_locks_that_was_cut_short_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said that there was no time, and the next look reads them again, though no thread has run; one that was whole is kept."""
    pid = 100
    taken = PythonStacks(pid=pid, version="3.11", threads=(), took_ms=1.0)
    wait = LockWait(pid=pid, tid=pid, address=8, kind="Lock", holder_tid=pid, proof="a test")
    readings = [LockReading((), whole=False), LockReading((wait,))]
    monkeypatch.setattr(deepening, "python_of", lambda _: taken)
    monkeypatch.setattr(deepening, "python_locks_of", lambda _: readings.pop(0))
    look = seen(process(thread()))
    first = deepening.deepen(look)
    assert first.hurried
    assert [each.kind for each in first.missing] == ["lock-waits"]
    second = deepening.deepen(look, first)
    assert (second.hurried, second.lock_waits, second.missing) == (False, (wait,), ())
    assert deepening.deepen(look, second).lock_waits == (wait,)


def test_locks_are_read_for_a_bounded_time() -> None:
    """Without any time left nothing is read, and the reading says that it is not whole."""
    if sys.version_info[:2] not in _SHAPES:
        pytest.skip("this Python is not one that is read")
    assert not read_lock_waits(os.getpid(), {threading.get_native_id(): 8}, longest_s=-1.0).whole
    assert read_lock_waits(os.getpid(), {threading.get_native_id(): 8}).whole


def test_what_is_no_python_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without Python, or one that is gone, is None; py-spy is not started for it."""
    monkeypatch.setattr(pythons, "run_as", lambda *_, **__: pytest.fail("was started"))
    assert take_stacks(1 << 22) is None
    assert sample_lines(1 << 22, 3, 1.0) == ()
    assert version_of(1 << 22) is None
    assert read_lock_waits(1 << 22, {1: 1}).waits == ()
    assert isinstance(read_tasks(1 << 22), MissingEvidence)


def test_a_program_that_does_not_end_is_killed() -> None:
    """At its time-out a program of ours is ended, and says that it was; so is one that writes without end."""
    started = time.monotonic()
    ended = run_as("/bin/sleep", ["30"], (os.getuid(), os.getgid()), until_s=started + 0.2, limit_bytes=100)
    assert (ended.status, ended.timed_out) == (None, True)
    ended = run_as("/usr/bin/yes", [], (os.getuid(), os.getgid()), until_s=started + 10, limit_bytes=1 << 20)
    assert ended.status is None
    assert time.monotonic() - started < 5
    assert run_as("/nowhere", [], (0, 0), until_s=started + 1, limit_bytes=1).status is None


def test_a_program_of_ours_gets_nothing_of_ours() -> None:
    """It has an environment of its own, stands in the root folder and its error text is kept to its bound."""
    asked = "import os, sys; print(sorted(os.environ), os.getcwd()); sys.stderr.write('x' * 9)"
    ended = run_as(
        sys.executable, ["-c", asked], (os.getuid(), os.getgid()), until_s=time.monotonic() + 10, limit_bytes=1 << 16
    )
    assert (ended.status, ended.errors) == (0, b"x" * 9)
    assert b"['LANG', 'LC_CTYPE', 'RUST_BACKTRACE'] /" in ended.output or b"['LANG', 'RUST_BACKTRACE'] /" in ended.output
