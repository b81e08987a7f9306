"""The kernel log as a source: /dev/kmsg, one record a read (Documentation/ABI/testing/dev-kmsg)."""

import errno
import os
import time
from collections.abc import Sequence

from agentscope.errors import EngineUnavailable, NotPermitted
from agentscope.model import AnyEvent, KernelLine, Lost

PATH = "/dev/kmsg"
_DEVICE = os.makedev(1, 11)  # Documentation/admin-guide/devices.txt
_MOST_AT_ONCE = 2000  # somebody may write to the log faster than we read it
_LONGEST = 8192  # PRINTK_MESSAGE_MAX is 2048, before escaping


class KernelLog:
    """Follows the log from the moment of opening. Continuation lines (device tags) are left out."""

    def __init__(self) -> None:
        self._descriptor: int | None = open_log()
        os.lseek(self._descriptor, 0, os.SEEK_END)
        self._expected: int | None = None

    def fileno(self) -> int:
        """Polls readable when there are new records."""
        if self._descriptor is None:
            raise ValueError("the kernel log is closed")
        return self._descriptor

    def drain(self) -> Sequence[AnyEvent]:
        """All records since the last call; how many were overwritten before they were read is a `Lost`."""
        events: list[AnyEvent] = []
        if self._descriptor is None:
            return events
        offset_ns = boottime_offset_ns()
        for line in read_records(self._descriptor, offset_ns, most=_MOST_AT_ONCE):
            if self._expected is not None and line.seq > self._expected:
                missed = line.seq - self._expected
                events.append(Lost(at_ns=line.at_ns, source="kmsg", count=missed, says="overwritten before they were read"))
            self._expected = line.seq + 1
            events.append(line)
        return events

    def close(self) -> None:
        """Close the device; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_past() -> Sequence[KernelLine]:
    """All records that the kernel still has, oldest first, without following."""
    descriptor = open_log()
    try:
        return list(read_records(descriptor, boottime_offset_ns()))
    finally:
        os.close(descriptor)


def open_log() -> int:
    """The device, non-blocking, at its oldest record."""
    try:
        descriptor = os.open(PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise NotPermitted("the kernel log cannot be read", "it takes root or CAP_SYSLOG", "sudo agentscope …") from error
    except OSError as error:
        raise EngineUnavailable("the kernel log cannot be read", f"{PATH}: {os.strerror(error.errno or 0)}") from error
    if os.fstat(descriptor).st_rdev != _DEVICE:
        # containers put /dev/null or a console there
        os.close(descriptor)
        raise EngineUnavailable("the kernel log cannot be read", f"{PATH} is something else here")
    return descriptor


def read_records(descriptor: int, offset_ns: int, most: int | None = None) -> Sequence[KernelLine]:
    """What can be read now without waiting, at most so many."""
    lines: list[KernelLine] = []
    while most is None or len(lines) < most:
        try:
            record = os.read(descriptor, _LONGEST)
        except BlockingIOError:
            return lines
        except OSError as error:
            if error.errno == errno.EPIPE:  # overwritten while we were away: the next read continues with what is left
                continue
            if error.errno == errno.EINVAL:  # longer than the buffer: the read pointer has moved on
                continue
            return lines
        if not record:
            return lines
        line = parse_record(record, offset_ns)
        if line is not None:
            lines.append(line)
    return lines


def parse_record(record: bytes, offset_ns: int) -> KernelLine | None:
    """`priority,sequence,microseconds,flags;text`, then continuation lines that begin with a space."""
    head, separator, text = record.partition(b";")
    fields = head.split(b",")
    if not separator or len(fields) < 3:
        return None
    try:
        priority, sequence, at_us = int(fields[0]), int(fields[1]), int(fields[2])
    except ValueError:
        return None
    return KernelLine(
        at_ns=at_us * 1000 + offset_ns,
        seq=sequence,
        priority=priority & 7,
        text=text.partition(b"\n")[0].decode("utf-8", "backslashreplace"),
    )


def boottime_offset_ns() -> int:
    """CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the log is stamped with the scheduler's clock, which stands still in suspend."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
