"""Records of /dev/kmsg, as bytes: what the kernel wrote is read, and what anybody made it write does no harm."""

from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscope.live import Live
from agentscope.model import AnyEvent, KernelLine, ProcessExit
from agentscope.readers.kernel_fault import read_fault_lines
from agentscope.readers.kernel_oom import read_oom_reports
from agentscope.sources.kmsg import parse_record


def test_a_record_is_read():
    """Priority, number and time stand in front of the text; the tags of devices below it are left out."""
    line = parse_record(b"6,1234,5000,-;agent[77]: segfault at 0 ip 0 sp 0 error 4\n SUBSYSTEM=x\n", 3)
    assert line is not None
    assert (line.priority, line.seq, line.at_ns) == (6, 1234, 5_000_003)
    assert line.text == "agent[77]: segfault at 0 ip 0 sp 0 error 4"


@pytest.mark.parametrize("record", [b"", b";", b"6,1", b"6,1;text", b"a,b,c;text", b"6,1,99999", b"\xff,1,2,-;x"])
def test_what_is_no_record(record):
    """Whatever lacks its numbers is nothing, and no error."""
    assert parse_record(record, 0) is None


def test_a_name_in_a_record_that_is_no_text():
    """Bytes that a process put into its name are shown escaped; the facility in the priority does not count."""
    line = parse_record(b"30,1,2,-;\xfe\xff\x1b[2J[9]: segfault at 0 ip 0 sp 0 error 4", 0)
    assert line is not None
    assert line.priority == 6
    assert line.text.startswith("\\xfe\\xff")


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(noise):
    """Whatever stands in the log, it is read as far as the readers of kernel lines, or it is nothing."""
    for record in (
        noise,
        b"6,1,2,-;" + noise,
        b"6,1,2,-;Out of memory: Killed process " + noise,
        b"6,1,2,-;a[1]: segfault at " + noise,
    ):
        line = parse_record(record, 0)
        if line is not None:
            read_fault_lines([line.text])
            read_oom_reports([line.text])


def test_the_log_is_read_after_the_events():
    """What the kernel writes while events are taken, before the last of them, is kept before any is judged."""
    written: list[KernelLine] = []
    kept: list[AnyEvent] = []

    def events() -> list[AnyEvent]:
        written.append(KernelLine(at_ns=1, seq=1, priority=6, text="agent[9]: segfault at 0"))
        return [ProcessExit(at_ns=2, pid=9, start_ns=1, ppid=1, comm="agent", status=11, uid=0)]

    live = object.__new__(Live)
    vars(live).update(
        backlog=deque(),
        folding=True,
        engine=SimpleNamespace(drain=events),
        kernel_log=SimpleNamespace(drain=lambda: list(written)),
        pipeline=SimpleNamespace(remember=kept.append),
    )
    live.drain()
    assert kept == written
    assert [event.at_ns for event in live.backlog] == [2]
