"""Reading the BPF ring buffer, in which the probes leave their records.

Its layout (Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c): one page with the consumer's position, one with the producer's,
then the records twice in a row, so that a record that runs over the end can be read in one piece.
"""

import ctypes
import errno
import mmap
import struct
from collections.abc import Iterator
from typing import Protocol

from agentscope.machines import X86_64, this_machine
from agentscope.sources.libbpf import Library, the_library


class RecordRing(Protocol):
    """A ring buffer as its reader sees it."""

    def fileno(self) -> int:
        """Polls readable while records wait."""
        ...

    def drain(self) -> Iterator[bytes]:
        """Every complete record, oldest first."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


def ring_of(descriptor: int, size_bytes: int) -> RecordRing:
    """The reader of a ring buffer that is right on this processor, the cheapest where there are two.

    Raises:
        BpfError: the kernel does not let it be mapped.
    """
    return Ring(descriptor, size_bytes) if this_machine() == X86_64 else OrderedRing(the_library(), descriptor)


_BUSY = 1 << 31  # include/uapi/linux/bpf.h, BPF_RINGBUF_BUSY_BIT
_DISCARD = 1 << 30
_HEADER_BYTES = 8
_RECORD_HEADER = struct.Struct("<II")


class Ring:
    """Reader of a BPF ring buffer through its mapped pages: no call into C for an event.

    The order of the loads is right on x86 only, where loads are not reordered with loads: elsewhere `OrderedRing` reads.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._size = size_bytes
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(descriptor, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumed = memoryview(self._consumer)[:8].cast("Q")
        self._records = memoryview(self._producer)
        self._produced = self._records[:8].cast("Q")

    def fileno(self) -> int:
        """The map's own descriptor: it polls readable while records wait."""
        return self._descriptor

    def drain(self) -> Iterator[bytes]:
        """Every complete record, oldest first; its room is given back when the batch it came in has been used up."""
        while True:
            begin = self._consumed[0]
            pending = self._produced[0] - begin
            if not pending:
                return
            offset = mmap.PAGESIZE + (begin & (self._size - 1))
            batch = bytes(self._records[offset : offset + pending])
            at = 0
            while at < pending:
                length, _ = _RECORD_HEADER.unpack_from(batch, at)
                if length & _BUSY:
                    break
                size = length & ~_DISCARD
                if not length & _DISCARD:
                    yield batch[at + _HEADER_BYTES : at + _HEADER_BYTES + size]
                at += (size + _HEADER_BYTES + 7) & ~7
            self._consumed[0] = begin + at
            if at < pending:
                return

    def close(self) -> None:
        """Unmap; the descriptor belongs to the object."""
        self._consumed.release()
        self._produced.release()
        self._records.release()
        self._consumer.close()
        self._producer.close()


_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t)
_BATCH = 4096


class OrderedRing:
    """Reader of a BPF ring buffer through libbpf, whose loads have the barriers that processors other than x86 need."""

    def __init__(self, library: Library, descriptor: int) -> None:
        self._calls = library.calls
        self._descriptor = descriptor
        self._records: list[bytes] = []
        self._keep = _SAMPLE(self._kept)  # libbpf keeps the pointer
        self._handle = self._calls.ring_buffer__new(descriptor, ctypes.cast(self._keep, ctypes.c_void_p), None, None)
        if not self._handle:
            raise library.last_error("read the ring")

    def fileno(self) -> int:
        """The map's own descriptor: it polls readable while records wait."""
        return self._descriptor

    def drain(self) -> Iterator[bytes]:
        """Every complete record, oldest first; libbpf gives its room back when it has been copied."""
        while self._handle:
            self._calls.ring_buffer__consume(self._handle)
            records, self._records = self._records, []
            yield from records
            if len(records) < _BATCH:
                return

    def close(self) -> None:
        """Unmap; the descriptor belongs to the object."""
        if self._handle:
            self._calls.ring_buffer__free(self._handle)
            self._handle = None

    def _kept(self, _context: int | None, at: "ctypes._Pointer[ctypes.c_char]", size: int) -> int:
        """Copy one record. A full batch is an interruption: libbpf counts this record as read and comes back."""
        self._records.append(ctypes.string_at(at, size))
        return -errno.EAGAIN if len(self._records) == _BATCH else 0
