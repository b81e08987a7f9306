"""Messages of the kernel about processes, as bytes: each is read for what it says, and no bytes at all do harm."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from agentscope.sources import taskstats
from agentscope.sources.proc_connector import Dumped, Ended, Execed, Forked, Renamed, parse

OFFSET_NS = 7


def message(what: int, detail: bytes, *, index: int = 1) -> bytes:
    """A datagram as the kernel sends it: nlmsghdr, cn_msg, proc_event."""
    event = struct.pack("=IIQ", what, 0, 1000) + detail.ljust(24, b"\0")
    connector = struct.pack("=IIIIHH", index, 1, 0, 0, len(event), 0)
    return struct.pack("=IHHII", 16 + len(connector) + len(event), 3, 0, 0, 0) + connector + event


def test_each_kind_of_message_is_read():
    """A fork, an exec, a name, a core dump and an end are told with the numbers that the kernel gives, on the clock of events."""
    assert parse(message(1, struct.pack("=IIII", 10, 11, 12, 13)), OFFSET_NS) == Forked(1007, 11, 12, 13)
    assert parse(message(2, struct.pack("=II", 12, 13)), OFFSET_NS) == Execed(1007, 13)
    assert parse(message(0x200, struct.pack("=II16s", 12, 13, b"agent")), OFFSET_NS) == Renamed(1007, 12, 13, "agent")
    assert parse(message(0x40000000, struct.pack("=II", 12, 13)), OFFSET_NS) == Dumped(1007, 12, 13)
    assert parse(message(0x80000000, struct.pack("=IIIIII", 12, 13, 139, 17, 10, 11)), OFFSET_NS) == Ended(
        1007, 12, 13, 139, 11
    )


def test_an_end_before_kernels_told_the_parent():
    """A shorter message of an end has no parent."""
    assert parse(message(0x80000000, struct.pack("=IIII", 12, 13, 256, 17))[:68], OFFSET_NS) == Ended(1007, 12, 13, 256, None)


def test_a_name_that_is_no_text():
    """Bytes that are no UTF-8 in a name that a process gave itself are replaced, never an error."""
    found = parse(message(0x200, struct.pack("=II16s", 1, 1, b"\xff\x1b[2J\xfe" + b"x" * 12)), OFFSET_NS)
    assert isinstance(found, Renamed)
    assert found.comm.startswith("\ufffd")


def test_what_was_not_asked_for_is_left_out():
    """Other connectors and other kinds of events are no messages."""
    assert parse(message(2, struct.pack("=II", 12, 13), index=9), OFFSET_NS) is None
    assert parse(message(4, struct.pack("=IIII", 12, 13, 0, 0)), OFFSET_NS) is None


@given(st.binary(max_size=96), st.integers(0, 96))
def test_no_bytes_do_harm(noise, cut):
    """Whatever arrives, whole or cut short, is a message or none."""
    parse(noise, OFFSET_NS)
    whole = message(0x80000000, noise[:24])
    parse(whole[:cut], OFFSET_NS)


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def stats(user_us: int, system_us: int, rss_kb: int, version: int = 16) -> bytes:
    """A struct taskstats with these numbers where every version but 15 has them."""
    raw = bytearray(344)
    struct.pack_into("=H", raw, 0, version)
    struct.pack_into("=QQ", raw, 152, user_us, system_us)
    struct.pack_into("=Q", raw, 200, rss_kb)
    return bytes(raw)


def of(kind: int, named: int, pid: int, body: bytes) -> bytes:
    """The part of a message about one thread (4) or process (5)."""
    return attribute(kind, attribute(named, struct.pack("=I", pid)) + attribute(3, body))


def test_what_a_process_had_used():
    """CPU time is that of all its threads, memory that of the whole; the numbers come with the last thread."""
    alone = bytes(20) + of(4, 1, 77, stats(5, 6, 100))
    assert taskstats.parse(alone) == (77, taskstats.Usage(5000, 6000, 102400))
    last = bytes(20) + of(4, 1, 78, stats(1, 1, 100)) + of(5, 2, 77, stats(50, 60, 0))
    assert taskstats.parse(last) == (77, taskstats.Usage(50000, 60000, 102400))


def test_a_layout_that_is_another_one():
    """Version 15 has its fields elsewhere, so nothing is read from it; nor from a struct that ends early."""
    assert taskstats.parse(bytes(20) + of(4, 1, 77, stats(5, 6, 100, version=15))) is None
    assert taskstats.parse(bytes(20) + of(4, 1, 77, stats(5, 6, 100)[:180])) is None


@given(st.binary(max_size=900), st.integers(0, 700))
def test_no_statistics_do_harm(noise, cut):
    """Whatever arrives, whole or cut short, is read or not."""
    taskstats.parse(bytes(20) + noise)
    taskstats.parse((bytes(20) + of(4, 1, 77, noise) + of(5, 2, 77, stats(1, 2, 3)))[:cut])
