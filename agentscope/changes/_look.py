"""One look at the logs of a place: every file is opened here, within one budget of bytes and of time."""

import errno
import os
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from io import BytesIO
from itertools import islice
from lzma import FORMAT_XZ, LZMADecompressor, LZMAError
from zoneinfo import ZoneInfo

from agentscope.changes import Place
from agentscope.symbols.rooted import directory, open_regular, state_of

FILE_LIMIT_BYTES = 32 << 20
LOOK_LIMIT_BYTES = 96 << 20
LOOK_LIMIT_S = 5.0
ROTATED_LIMIT = 40
ENTRIES_LIMIT = 10_000
SOURCE_LIMIT = 50_000  # changes that one source may tell of
SECOND_NS = 1_000_000_000
_ZONE_LIMIT_BYTES = 256 << 10
_LZMA_LIMIT_BYTES = 64 << 20  # memory of the decompressor; xz -9 takes 65 MiB, logrotate's default 9
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_NUMBERED = re.compile(r"^(?:\.(\d{1,6})|-(\d{8})(?:-\d{1,12})?)(?:\.(?:gz|xz))?$")


class Spent(Exception):
    """The look has read as much, or has taken as long, as it may."""


class Look:
    """What sources read through; it notes what was read and what could not be."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.sources: list[str] = []
        self.unread: list[str] = []
        self._left_bytes = LOOK_LIMIT_BYTES
        self._ends = time.monotonic() + LOOK_LIMIT_S
        self._left_changes = SOURCE_LIMIT
        self._zone: tzinfo | None = None

    @property
    def zone(self) -> tzinfo:
        """The time zone that programs in this root write their logs in."""
        if self._zone is None:
            self._zone = zone_of(self.place.root)
        return self._zone

    def within(self, wall_ns: int, precision_ns: int = 0) -> bool:
        """Whether a time lies in the window that is asked for."""
        return wall_ns + precision_ns >= self.place.since_ns and wall_ns <= self.place.until_ns

    def begin(self) -> None:
        """The next source begins: each may tell of as many changes as another."""
        self._left_changes = SOURCE_LIMIT

    def count(self) -> None:
        """One change was told; Spent where those are too many, or the time is over."""
        self._left_changes -= 1
        if self._left_changes <= 0:
            raise Spent
        self.check()

    def check(self) -> None:
        """Raise Spent where the time is over."""
        if time.monotonic() > self._ends:
            raise Spent

    def content(self, path: str, *, root: str | None = "", limit_bytes: int = FILE_LIMIT_BYTES) -> bytes | None:
        """The end of a file, at most `limit_bytes` of it; None where there is none or it cannot be read.

        `root` "" means the root of the place. What is compressed is read from its beginning.
        """
        self.check()
        where = self.place.root if root == "" else root
        try:
            descriptor = open_regular(path, root=where, limit_bytes=1 << 50, follow=True)
        except OSError as error:
            if error.errno not in _ABSENT:
                self.unread.append(f"{path}: {error.strerror or error}")
            return None
        try:
            raw = self._read(descriptor, path, limit_bytes)
        except (OSError, zlib.error, LZMAError, EOFError) as error:
            self.unread.append(f"{path}: {error}")
            return None
        finally:
            os.close(descriptor)
        self.sources.append(path)
        return raw

    def _read(self, descriptor: int, path: str, limit_bytes: int) -> bytes:
        limit_bytes = min(limit_bytes, self._left_bytes)
        if limit_bytes <= 0:
            raise Spent
        size = os.fstat(descriptor).st_size
        compressed = path.endswith((".gz", ".xz"))
        offset = 0 if compressed else max(0, size - limit_bytes)
        raw = _pread(descriptor, offset, limit_bytes)
        if compressed:
            raw = _unpacked(raw, path, limit_bytes)
        elif offset:
            raw = raw.partition(b"\n")[2]  # the first line is not whole
        self._left_bytes -= len(raw)
        return raw

    def rotated(self, path: str) -> Iterator[tuple[str, bytes]]:
        """A log and its older parts, newest first, as far as they reach into the window: (path, content)."""
        folder, _, name = path.rpartition("/")
        parts = [(0, name)]
        for entry in self.names(folder):
            numbered = _NUMBERED.match(entry[len(name) :]) if entry.startswith(name) else None
            if numbered:
                # logrotate counts up with age, or (dateext) writes the day
                parts.append((int(numbered[1]) if numbered[1] else 100_000_000 - int(numbered[2]), entry))
        for _, part in sorted(parts)[:ROTATED_LIMIT]:
            if self._older(f"{folder}/{part}"):
                continue
            raw = self.content(f"{folder}/{part}")
            if raw is not None:
                yield f"{folder}/{part}", raw

    def _older(self, path: str) -> bool:
        """Whether a file was last written before the window."""
        try:
            return state_of(path, root=self.place.root).st_mtime_ns < self.place.since_ns
        except OSError:
            return False

    def names(self, folder: str, *, root: str | None = "") -> list[str]:
        """What a folder holds, sorted; nothing where there is none."""
        self.check()
        where = self.place.root if root == "" else root
        with suppress(OSError), directory(folder, root=where) as opened, os.scandir(opened) as entries:
            return sorted(entry.name for entry in islice(entries, ENTRIES_LIMIT))
        return []

    def local_ns(self, text: str) -> tuple[int, int] | None:
        """(ns since 1970, precision) of a local time such as "2026-11-22 20:02:38"; None where it is none.

        In the hour that a clock set back goes through twice the precision says so.
        """
        try:
            moment = datetime.fromisoformat(text)
            return _both(moment if moment.tzinfo else moment.replace(tzinfo=self.zone))
        except (ValueError, OverflowError):
            return None


def _both(moment: datetime) -> tuple[int, int]:
    first, second = int(moment.timestamp()), int(moment.replace(fold=1).timestamp())
    return min(first, second) * SECOND_NS, (abs(second - first) + 1) * SECOND_NS


def zone_of(root: str | None) -> tzinfo:
    """The zone of /etc/localtime inside a root; UTC where there is none (localtime(5))."""
    with suppress(OSError, ValueError, EOFError, IndexError):
        descriptor = open_regular("/etc/localtime", root=root, limit_bytes=_ZONE_LIMIT_BYTES, follow=True)
        try:
            raw = os.read(descriptor, _ZONE_LIMIT_BYTES)
        finally:
            os.close(descriptor)
        return ZoneInfo.from_file(BytesIO(raw))
    return UTC


def _pread(descriptor: int, offset: int, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    while limit_bytes > 0 and (piece := os.pread(descriptor, min(limit_bytes, 1 << 20), offset)):
        pieces.append(piece)
        offset += len(piece)
        limit_bytes -= len(piece)
    return b"".join(pieces)


def _unpacked(raw: bytes, path: str, limit_bytes: int) -> bytes:
    """The first part of a compressed file: a bomb gives no more than the limit."""
    if path.endswith(".gz"):
        return zlib.decompressobj(wbits=31).decompress(raw, limit_bytes)
    return LZMADecompressor(format=FORMAT_XZ, memlimit=_LZMA_LIMIT_BYTES).decompress(raw, limit_bytes)
