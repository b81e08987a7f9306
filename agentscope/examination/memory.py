"""The memory of another process, read through /proc/PID/mem for what its system calls point at (proc_pid_mem(5)).

Only pages that are there are read. A page that is not would be brought in by our own page fault: of a file on a dead server,
or on a file system that the process itself serves, that fault would never end. What a blocked call points at was touched by the
call, so it is there; /proc/PID/pagemap tells (bit 63 present, bit 62 swapped out: Documentation/admin-guide/mm/pagemap.rst).
"""

import contextlib
import os
import struct
from types import TracebackType
from typing import Self

_PAGE = os.sysconf("SC_PAGE_SIZE")
_READABLE = 0b11 << 62
_TOP = 1 << 63  # addresses above belong to the kernel, and pread(2) takes none
READ_LIMIT = 1 << 16
STRING_LIMIT = 4096  # PATH_MAX


class Memory:
    """The address space that a process has now; opened at the first read, once. After an exec(2) it reads nothing any more."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._files: tuple[int, int] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process."""
        files, self._files, self._closed = self._files, None, True
        for opened in files or ():
            os.close(opened)

    def read(self, address: int, size: int) -> bytes | None:
        """The `size` bytes at an address, all of them; None where not all are there, or more than 64 KiB are asked for."""
        if size > READ_LIMIT:
            return None
        found = self._available(address, size)
        return found if found is not None and len(found) == size else None

    def string(self, address: int, limit: int = STRING_LIMIT) -> bytes | None:
        """The bytes up to a NUL, at most `limit`; None where they cannot be read or no NUL is among them."""
        text = b""
        while len(text) < limit:
            here = address + len(text)
            piece = self._available(here, min(limit - len(text), _PAGE - here % _PAGE))
            if not piece:
                return None
            text += piece
            if b"\0" in piece:
                return text[: text.index(b"\0")]
        return None

    def number(self, address: int, form: str) -> int | None:
        """One number in a form of struct(3) without padding: "<i", "<Q"."""
        raw = self.read(address, struct.calcsize(form))
        return None if raw is None else int(struct.unpack(form, raw)[0])

    def _available(self, address: int, size: int) -> bytes | None:
        if size <= 0 or address <= 0 or address + size > _TOP:
            return None
        if self._files is None:
            self._files = self._open()
        if self._files is None:
            return None
        memory, pagemap = self._files
        first, last = address // _PAGE, (address + size - 1) // _PAGE
        try:
            entries = os.pread(pagemap, 8 * (last - first + 1), 8 * first)
            if len(entries) != 8 * (last - first + 1):
                return None
            if not all(entry & _READABLE for (entry,) in struct.iter_unpack("<Q", entries)):
                return None
            return os.pread(memory, size, address)
        except (OSError, OverflowError):
            return None

    def _open(self) -> tuple[int, int] | None:
        if self._closed:
            return None
        with contextlib.suppress(OSError):
            memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return memory, os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                os.close(memory)
        self._closed = True  # it will not open the second time either
        return None
