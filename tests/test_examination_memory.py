"""Reading arguments in memory: numbers, strings, time-outs, locks. The memory is our own, so that no root is needed."""

import ctypes
import mmap
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscope.examination import Call
from agentscope.examination.calls import CallReader
from agentscope.examination.futexes import futex_call, futex_waitv_call, mutex_at
from agentscope.examination.memory import READ_LIMIT, Memory
from agentscope.examination.timeouts import UNREAD, milliseconds, signed, timespec, timeval, until
from agentscope.model import LastSyscall
from agentscope.symbols.syscalls import syscall_number

WORDS = st.integers(min_value=0, max_value=2**64 - 1)
KEPT = []  # buffers whose addresses are given away


@pytest.fixture
def memory():
    """Our own memory, as another process's would be read."""
    with Memory(os.getpid()) as ours:
        yield ours


def placed(raw):
    """The address of a copy of these bytes."""
    buffer = ctypes.create_string_buffer(raw, len(raw))
    KEPT.append(buffer)
    return ctypes.addressof(buffer)


def spec(seconds):
    """The address of a struct timespec."""
    return placed(struct.pack("<qq", int(seconds), int(seconds % 1 * 1e9)))


def call(name, *args):
    """A call of ours with these arguments, as it is read."""
    with CallReader(os.getpid()) as reader:
        return reader.read(os.getpid(), LastSyscall(number=syscall_number(name, "x86_64"), args=(*args, 0, 0, 0, 0, 0, 0)[:6]))


def test_bytes_numbers_and_strings(memory):
    """What is there is read as it is, over the border of pages too."""
    address = placed(b"abc\0" + struct.pack("<i", -5) + bytes(range(1, 256)) * 50 + b"\0")
    assert memory.read(address, 3) == b"abc"
    assert memory.number(address + 4, "<i") == -5
    assert memory.string(address) == b"abc"
    assert memory.string(address + 8, 10000) is None  # 12750 bytes without an end
    assert memory.string(address + 8, 20000) == bytes(range(1, 256)) * 50


def test_what_is_not_there_is_not_read(memory):
    """Address nought, the kernel's half, more than the limit and a page that nobody touched are None."""
    untouched = mmap.mmap(-1, 1 << 20)
    start = ctypes.addressof(ctypes.c_char.from_buffer(untouched))
    assert [memory.read(address, 8) for address in (0, -8, 1 << 63, (1 << 64) - 8, start)] == [None] * 5
    assert memory.read(start, 0) is None
    assert memory.string(start) is None
    untouched[:4] = b"here"
    assert memory.read(start, 4) == b"here"
    assert memory.read(start, READ_LIMIT + 1) is None
    assert memory.read(start, 4097) is None  # the second page is not there


def test_a_page_of_a_file_that_is_not_loaded_is_not_fetched(memory, tmp_path):
    """A mapped file is read only where its page is in already: fetching it could wait for a dead server."""
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    with (tmp_path / "file").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert memory.read(start + 8192, 8) is None
        assert mapped[8192] == 0
        assert memory.read(start + 8192, 8) == bytes(8)


def test_no_process_no_memory():
    """Of a process that is not there nothing is read, and nothing fails; nor after closing."""
    with Memory(2**22 + 1) as none:
        assert none.read(4096, 8) is None
        assert none.string(4096) is None
    closed = Memory(os.getpid())
    closed.close()
    assert closed.read(placed(b"x"), 1) is None


def test_time_outs_that_are_relative(memory):
    """A time-out is in seconds; none, or a negative one of poll, is None; one that cannot be read is not without end."""
    assert (milliseconds(600000), milliseconds(0xFFFFFFFF), milliseconds(2**64 - 1)) == (600.0, None, None)
    assert (timespec(memory, spec(2.5)), timespec(memory, 0), timespec(memory, 8)) == (2.5, None, UNREAD)
    assert timeval(memory, placed(struct.pack("<qq", 1, 250000))) == 1.25
    assert timespec(memory, placed(struct.pack("<qq", -7, 0))) == UNREAD


def test_time_outs_that_are_absolute(memory):
    """An absolute time-out counts from when the call began; one in the past, or of a clock that is not ours, is as good as over."""
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for clock in (0, 1, 7):
        end = spec(time.clock_gettime(clock) + 30)
        assert until(memory, end, clock, None) == pytest.approx(30, abs=0.5)
        assert until(memory, end, clock, now_ns - 10_000_000_000) == pytest.approx(40, abs=0.5)
    assert until(memory, spec(1), 1, now_ns) == UNREAD
    assert until(memory, spec(1), 2, now_ns) == UNREAD
    assert until(memory, 0, 1, now_ns) is None


def mutex(lock=2, count=0, owner=77, users=1, kind=0, link=0):
    """The address of a mutex of glibc as a waiter finds it."""
    return placed(struct.pack("<IIiIiIQQ", lock, count, owner, users, kind, 0, link, link))


@pytest.mark.parametrize(
    ("fields", "expected", "owner"),
    [
        ({}, 2, 77),
        ({"lock": 1}, 2, 77),
        ({"kind": 1, "count": 3}, 2, 77),  # recursive
        ({"kind": 16, "lock": 0x80000000 | 77, "link": 4096}, 0x80000000 | 77, 77),  # robust
        ({}, 0, None),  # a semaphore or a condition waits for other values
        ({"lock": 0}, 2, None),  # just given back
        ({"lock": 5}, 2, None),
        ({"owner": 0}, 2, None),
        ({"owner": -1}, 2, None),
        ({"users": 0}, 2, None),
        ({"users": 0x7F12, "owner": 4077}, 2, None),  # the lock of a stream: a pointer to its owner
        ({"users": 0x5500}, 2, None),
        ({"owner": 1 << 22}, 2, None),  # more than there are tids
        ({"link": 4096}, 2, None),  # in a list of robust mutexes, but not robust
        ({"kind": 0x7F31}, 2, None),
        ({"kind": 16, "lock": 0x80000000 | 78}, 0x80000000 | 78, None),  # another's tid than its owner
    ],
)
def test_a_mutex_is_believed_as_a_whole_only(memory, fields, expected, owner):
    """A mutex has an owner only if value, kind, owner and users all fit."""
    found = mutex_at(memory, mutex(**fields), expected)
    assert (found.owner if found else None) == owner


def test_the_owner_must_be_a_thread_of_the_process(memory):
    """An owner is told by our number, or not at all where it is no thread of the process."""
    address = mutex()
    assert futex_call(memory, (address, 128, 2, 0, 0, 0), {77: 4077}.get, None) == Call(
        name="futex", futex=address, futex_owner=4077
    )
    assert futex_call(memory, (address, 128, 2, 0, 0, 0), {78: 4077}.get, None).futex_owner is None


def test_futexes_by_operation(memory):
    """WAIT has a relative time-out, the others an absolute one on the clock of the call; PI futexes name their owner."""
    word, soon = placed(struct.pack("<I", 0x80000000 | 77)), spec(time.clock_gettime(time.CLOCK_MONOTONIC) + 9)
    owners = {77: 4077}.get
    assert futex_call(memory, (word, 0, 5, spec(9), 0, 0), owners, None).timeout_s == 9
    assert futex_call(memory, (word, 9 | 128, 5, soon, 0, 0), owners, None).timeout_s == pytest.approx(9, abs=0.2)
    assert futex_call(memory, (word, 9 | 256, 5, spec(time.time() + 8), 0, 0), owners, None).timeout_s == pytest.approx(
        8, abs=0.2
    )
    assert futex_call(memory, (word, 6 | 128, 0, spec(time.time() + 7), 0, 0), owners, None) == Call(
        name="futex", futex=word, futex_owner=4077, timeout_s=pytest.approx(7, abs=0.2)
    )
    assert futex_call(memory, (word, 13 | 128, 0, soon, 0, 0), owners, None).timeout_s == pytest.approx(9, abs=0.2)
    assert futex_call(memory, (word, 9 | 128, 2, 0, 0, 0), owners, None) == Call(name="futex", futex=word)
    assert futex_call(memory, (word, 1, 1, 5, 0, 0), owners, None).timeout_s == UNREAD  # FUTEX_WAKE does not wait
    waiters = placed(struct.pack("<QQII", 5, word, 2, 0))
    assert futex_waitv_call(memory, (waiters, 1, 0, soon, 1, 0), None) == Call(
        name="futex_waitv", futex=word, timeout_s=pytest.approx(9, abs=0.2)
    )


def test_arguments_of_rarer_calls():
    """Each form of arguments is read where it stands: sets of select, message queues, io_uring, two descriptors, paths."""
    sets = placed(struct.pack("<QQ", 1 << 3 | 1 << 63, 1 << 6))
    assert call("select", 71, sets, 0, sets, placed(struct.pack("<qq", 3, 500000))) == Call(
        name="select", descriptors=(3, 63, 70), timeout_s=3.5
    )
    assert call("select", 64, 0, 0, 0, 0) == Call(name="select")
    assert call("ppoll", placed(struct.pack("<ihhihh", 4, 1, 0, -1, 1, 0)), 2, 0) == Call(name="ppoll", descriptors=(4,))
    assert call("mq_timedreceive", 5, 0, 0, 0, spec(time.time() + 6)) == Call(
        name="mq_timedreceive", descriptors=(5,), timeout_s=pytest.approx(6, abs=0.2)
    )
    assert call("io_uring_enter", 8, 0, 1, 0, 0) == Call(name="io_uring_enter", descriptors=(8,))
    extended = placed(struct.pack("<QIIQ", 0, 8, 0, spec(4)))
    assert call("io_uring_enter", 8, 0, 1, 1 << 3, extended, 24) == Call(name="io_uring_enter", descriptors=(8,), timeout_s=4.0)
    assert call("io_uring_enter", 0, 0, 1, 1 << 3 | 1 << 4, extended, 24).descriptors == ()
    assert call("splice", 4, 0, 7).descriptors == (4, 7)
    assert call("sendfile", 4, 7).descriptors == (4, 7)
    assert call("semtimedop", 1, 0, 1, spec(11)).timeout_s == 11
    assert call("fsync", 9) == Call(name="fsync", descriptors=(9,))
    assert call("fcntl", 9, 7, 0).descriptors == (9,)
    assert call("open", placed(b"/a\x1b[0m\0")).path == "/a"
    assert call("openat2", 2**32 - 100, placed(b"b\0")).path == f"{os.getcwd()}/b"  # noqa: PTH109 - the very string
    assert call("unlink", 8).path is None
    assert call("getpid") == Call(name="getpid")


def test_a_number_that_is_no_call():
    """A number that no table knows is told as a number; fewer than six arguments are no failure."""
    with CallReader(os.getpid()) as reader:
        assert reader.read(os.getpid(), LastSyscall(number=9999, args=())) == Call(name="call 9999")


@given(number=st.integers(min_value=-1, max_value=470), args=st.tuples(*[WORDS] * 6))
def test_no_arguments_make_it_fail(number, args):
    """Whatever the registers hold, a call is read, within its bounds."""
    with CallReader(os.getpid()) as reader:
        found = reader.read(os.getpid(), LastSyscall(number=number, args=args), since_ns=args[0])
    assert len(found.descriptors) <= 4096
    assert found.timeout_s is None or found.timeout_s >= 0
    assert found.path is None or found.path.isprintable()


@given(WORDS)
def test_an_int_is_the_low_half(word):
    """Only the low 32 bits of a register make an int argument, with its sign."""
    assert signed(word) == struct.unpack("<i", struct.pack("<Q", word)[:4])[0]
