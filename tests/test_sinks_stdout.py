"""The stream writer: fast for a good reader, and never in the way for a slow, absent or full one."""

import asyncio
import contextlib
import errno
import json
import os
import statistics
import time

import pytest

from agentscope.errors import CannotWrite, ExitStatus
from agentscope.model import AgentSeen, KernelLine
from agentscope.record import Recorder, decode
from agentscope.sinks.stdout import NdjsonWriter
from tests import samples


def recorder() -> Recorder:
    """One whose lines can be decoded."""
    return Recorder("3d3393b2-0000-4000-8000-000000000000", samples.BOOT_WALL_NS, host="h")


@contextlib.contextmanager
def pipe():
    """A pipe whose ends may be closed in the test."""
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


async def read_all(fd: int) -> bytes:
    """Everything until the writer closes."""
    loop = asyncio.get_running_loop()

    def read() -> bytes:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)

    return await loop.run_in_executor(None, read)


SEEN = AgentSeen(at_ns=1, agent=samples.CODER, because="signature")
BIG = AgentSeen(at_ns=1, agent=samples.CODER, because="x" * 2000)


async def test_lines_arrive_whole_and_in_order():
    """A good reader gets every line, in order, each a valid record."""
    with pipe() as (reader, writer):
        reading = asyncio.create_task(read_all(reader))
        out = NdjsonWriter(recorder(), writer)
        for _ in range(2000):
            out.write(SEEN)
            if out.waiting_bytes > 4 << 20:
                await asyncio.sleep(0.01)
        assert await out.flush(10)
        out.close()
        os.close(writer)
        lines = (await reading).splitlines()
        assert [int(decode(line).sequence) for line in lines] == list(range(1, 2001))


async def test_a_line_is_out_before_the_call_returns():
    """With room in the pipe a line is written in the caller's own thread: no thread, well under a millisecond."""
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer)
        took = []
        for _ in range(50):
            started = time.perf_counter()
            out.write(SEEN)
            took.append(time.perf_counter() - started)
            assert os.read(reader, 1 << 16).endswith(b"\n")
        if not out.at_once:
            pytest.skip("this kernel has no RWF_NOWAIT for pipes")
        assert out.thread is None
        assert statistics.median(took) < 0.001
        out.close()


async def test_a_slow_reader_never_blocks():
    """While nobody reads, writing stays quick, the queue stays bounded, and the loss is told as soon as there is room."""
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer, queue_bytes=200_000)
        slowest = 0.0
        for _ in range(2000):
            started = time.perf_counter()
            out.write(BIG)
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 0.25
        assert out.waiting_bytes <= 200_000
        assert out.dropped > 1000
        reading = asyncio.create_task(read_all(reader))
        assert await out.flush(10)
        out.write(SEEN)
        assert await out.flush(10)
        out.close()
        os.close(writer)
        records = [decode(line) for line in (await reading).splitlines()]
        lost = [record for record in records if record.type == "agentscope.lost"]
        assert sum(record.data.count for record in lost) == out.lost_count
        assert len(records) - len(lost) + out.lost_count == 2001
        sequences = [int(record.sequence) for record in records]
        assert sequences == sorted(sequences)
        assert max(sequences) > len(sequences), "the gap of dropped lines is seen in the sequence"


async def test_incidents_outlive_pulses():
    """When the queue is half full pulses are dropped, an incident still gets in."""
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer, queue_bytes=100_000)
        while not out.dropped:
            out.write(samples.pulse(samples.CODER, 1, 1, "x" * 3000))
        pulses_lost = out.dropped
        out.write(samples.killed_by_bash())
        assert out.dropped <= pulses_lost
        reading = asyncio.create_task(read_all(reader))
        assert await out.flush(10)
        out.close()
        os.close(writer)
        assert b"agentscope.incident.opened" in await reading


async def test_the_reader_leaves():
    """A closed pipe ends `closed` without an error, even when nothing is being written."""
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer)
        out.write(SEEN)
        assert not out.closed.done()
        os.close(reader)
        await asyncio.wait_for(out.closed, 5)
        out.write(SEEN)
        out.close()


async def test_the_reader_leaves_while_we_wait_for_it():
    """The writing thread, stuck in a full pipe, ends with the reader."""
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer, queue_bytes=1 << 20)
        for _ in range(200):
            out.write(BIG)
        os.close(reader)
        await asyncio.wait_for(out.closed, 5)
        assert out.thread is not None
        out.thread.join(5)
        assert not out.thread.is_alive()
        out.close()


async def test_a_full_disk_is_told():
    """No space ends `closed` with an error that says what, why and what to do, and the exit status for it."""
    full = os.open("/dev/full", os.O_WRONLY)
    out = NdjsonWriter(recorder(), full)
    out.write(SEEN)
    with pytest.raises(CannotWrite) as caught:
        await asyncio.wait_for(out.closed, 5)
    assert "No space left on device" in str(caught.value)
    assert caught.value.status is ExitStatus.CANNOT_WRITE
    out.close()
    os.close(full)


async def test_flush_has_an_end():
    """A reader that never reads does not keep the program from ending."""
    with pipe() as (_, writer):
        out = NdjsonWriter(recorder(), writer)
        for _ in range(200):
            out.write(BIG)
        started = time.monotonic()
        assert not await out.flush(0.2)
        assert time.monotonic() - started < 2
        out.close()


async def test_the_descriptor_is_left_as_it_was(tmp_path):
    """The open file is shared with the shell: its flags are not touched, and a regular file gets everything too."""
    with pipe() as (_, writer):
        out = NdjsonWriter(recorder(), writer)
        for _ in range(100):
            out.write(BIG)
        assert os.get_blocking(writer)
        out.close()
    target = tmp_path / "out.ndjson"
    with target.open("wb") as file:
        out = NdjsonWriter(recorder(), file.fileno())
        for _ in range(300):
            out.write(SEEN)
        assert await out.flush(5)
        out.close()
    assert len(target.read_bytes().splitlines()) == 300
    assert json.loads(target.read_bytes().splitlines()[0])["sequence"] == "000000000001"


async def test_without_nowait(monkeypatch):
    """Where the kernel cannot promise not to wait, everything goes through the thread, in order."""

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "pwritev", refuse)
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer)
        for _ in range(10):
            out.write(SEEN)
        assert await out.flush(5)
        assert out.thread is not None
        assert [int(decode(line).sequence) for line in os.read(reader, 1 << 16).splitlines()] == list(range(1, 11))
        out.close()


async def test_kernel_lines_stay_inside():
    """What is never on the public stream is not written."""
    with pipe() as (reader, writer):
        out = NdjsonWriter(recorder(), writer)
        out.write(KernelLine(at_ns=1, seq=1, priority=3, text="x"))
        out.write(SEEN)
        assert len(os.read(reader, 1 << 16).splitlines()) == 1
        out.close()


async def test_a_descriptor_that_somebody_made_nonblocking():
    """A pipe that is O_NONBLOCK by another program's doing loses nothing."""
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        out = NdjsonWriter(recorder(), writer)
        for _ in range(200):
            out.write(BIG)
        reading = asyncio.create_task(read_all(reader))
        assert await out.flush(10)
        out.close()
        os.close(writer)
        assert len((await reading).splitlines()) == 200
