"""Rows of the task iterators become processes; what has not changed is the very same object."""

import pytest

from agentscope.sources import wire
from agentscope.sources.sampling import Samples, registers_of, state_letter

S = 10**9
ABSENT = (wire.ABSENT,) * 3


def head(now_ns: int = 100 * S, asleep_ns: int = 0, arrival_ago_ns: int = 1000) -> bytes:
    """The head of a pass, by a reader whose sched_clock is CLOCK_MONOTONIC."""
    return wire.PULSE_HEAD.packed.pack(now_ns, now_ns + asleep_ns, now_ns - arrival_ago_ns)


def row(
    tid: int,
    pid: int = 10,
    *,
    pages: tuple[int, int, int] | None = None,
    switches: int = 1,
    state: int = 1,
    arrival_ns: int = S,
) -> bytes:
    """One thread, by default asleep in recvfrom; the pages are in the leader's row."""
    pages = pages or ((3, 4, 5) if tid == pid else ABSENT)
    call = (7, 2, 3, 4, 5, 6, 45)
    return wire.PULSE_ROW.packed.pack(
        *pages, pid, tid, 50, arrival_ns, 11, 12, 13, switches, 0, 100, 200, 0x4000, *call, state, b"x"
    )


def test_rows_become_processes() -> None:
    """Every member of a row lands where it belongs, threads of a process together, memory from the row that has it."""
    first, second = Samples().fold((head() + row(10) + row(20, 20, pages=(1, 1, 1)) + row(11),))
    assert (first.pid, first.start_ns, [thread.tid for thread in first.threads]) == (10, 50, [10, 11])
    assert (first.anon_bytes, first.rss_bytes) == (3 * wire.PAGE_BYTES, 12 * wire.PAGE_BYTES)
    assert (second.pid, second.rss_bytes) == (20, 3 * wire.PAGE_BYTES)
    thread = first.threads[1]
    assert thread.syscall is not None
    assert (thread.syscall.number, thread.syscall.args) == (45, (7, 2, 3, 4, 5, 6))
    assert (thread.comm, thread.state, thread.user_ns, thread.system_ns, thread.delayed_ns) == ("x", "S", 11, 12, 13)
    assert (thread.read_bytes, thread.written_bytes, thread.ip) == (100, 200, 0x4000)
    assert thread.last_ran_ns == S + 1000


def test_what_rests_is_the_same_object() -> None:
    """Of two samples with nothing between them everything is identical; one thread that ran is new, and so is its process only."""
    samples = Samples()
    before = samples.fold((head() + row(10) + row(11) + row(20, 20),))
    assert samples.fold((head(101 * S, arrival_ago_ns=9000) + row(10) + row(11) + row(20, 20),)) is before
    after = samples.fold((head(102 * S) + row(10) + row(11, switches=2) + row(20, 20),))
    assert after[1] is before[1]
    assert after[0] is not before[0]
    assert after[0].threads[0] is before[0].threads[0]
    assert after[0].threads[1].voluntary_switches == 2


def test_threads_that_come_and_go_leave_the_others_alone() -> None:
    """A birth in front and a death behind: who was there before and rests is the same object, wherever its row stands now."""
    samples = Samples()
    before = {sample.pid: sample for sample in samples.fold((head() + row(10) + row(20, 20) + row(30, 30),))}
    after = {sample.pid: sample for sample in samples.fold((head() + row(5, 5) + row(10) + row(20, 20),))}
    assert sorted(after) == [5, 10, 20]
    assert after[10] is before[10]
    assert after[20] is before[20]
    (swapped, _) = samples.fold((head() + row(20, 20) + row(10),))
    assert swapped is before[20]
    assert samples.fold((head(),)) == []
    (again,) = samples.fold((head() + row(10),))
    assert again == before[10]


def test_memory_that_grew_makes_a_process_new_but_not_its_threads() -> None:
    """Pages belong to the process: a thread that rests stays the same object while another allocates."""
    samples = Samples()
    (before,) = samples.fold((head() + row(10) + row(11),))
    (after,) = samples.fold((head() + row(10, pages=(9, 4, 5)) + row(11),))
    assert after is not before
    assert after.anon_bytes == 9 * wire.PAGE_BYTES
    assert all(new is old for new, old in zip(after.threads, before.threads, strict=True))


def test_a_leader_that_ended_does_not_hide_the_memory() -> None:
    """Where the leader has no address space any more, that of another thread counts; where nobody has one, it is unknown."""
    (sample,) = Samples().fold((head() + row(10, pages=ABSENT) + row(11, pages=(3, 4, 5)),))
    assert sample.rss_bytes == 12 * wire.PAGE_BYTES
    (sample,) = Samples().fold((head() + row(10, pages=ABSENT),))
    assert (sample.anon_bytes, sample.rss_bytes) == (None, None)


def test_running_threads_wait_for_nothing() -> None:
    """A thread that runs or wants to has no call, no instruction pointer and no time since when."""
    (sample,) = Samples().fold((head() + row(10, state=0) + row(11, arrival_ns=0),))
    running, unknown = sample.threads
    assert (running.state, running.syscall, running.last_ran_ns, running.ip) == ("R", None, None, None)
    assert unknown.last_ran_ns is None
    assert unknown.syscall is not None


def test_a_suspended_machine_blames_no_thread() -> None:
    """After a suspend of an hour, a thread that waited a second before it has waited a second, not an hour."""
    samples = Samples()
    (before,) = samples.fold((head(2 * S, arrival_ago_ns=0) + row(10),))
    assert before.threads[0].last_ran_ns == S
    (after,) = samples.fold((head(3 * S, asleep_ns=3600 * S, arrival_ago_ns=0) + row(10),))
    assert after.threads[0].last_ran_ns == 3601 * S


def test_a_pass_may_be_cut_or_empty() -> None:
    """Less than a row, less than a head, nothing at all: no error, and what is whole is there."""
    samples = Samples()
    assert samples.fold((b"",)) == []
    assert samples.fold(()) == []
    assert samples.fold((head()[:5], head())) == []
    assert [sample.pid for sample in samples.fold((head() + row(10)[:-1], head() + row(20, 20) + b"xyz"))] == [20]


def test_registers_are_by_dwarf_number() -> None:
    """Threads of the process asked for, with all 17 registers; others and a cut row are left out."""
    rows = b"".join(wire.REGISTERS_ROW.packed.pack(pid, tid, *range(100, 117)) for pid, tid in ((10, 10), (10, 11), (20, 20)))
    found = registers_of(rows + b"cut", 10)
    assert sorted(found) == [10, 11]
    assert found[11] == dict(enumerate(range(100, 117)))


@pytest.mark.parametrize(
    ("state", "letter"), [(0, "R"), (1, "S"), (2, "D"), (4, "T"), (8, "t"), (16, "X"), (32, "Z"), (0x402, "I"), (0x2001, "S")]
)
def test_states_are_those_of_proc(state: int, letter: str) -> None:
    """The letters are those of /proc/PID/stat."""
    assert state_letter(state) == letter
