"""Appending under a lock: several processes share one chain, and two never follow the same record.

A daemon and an `agentscope run` beside it write to the same state directory. A chain each would leave as many little chains as
there were runs, any of which can be taken away whole without a trace in the others. So the lock (flock(2)) is not held for the life
of a writer but for one append, some 0.1 ms, in which the writer looks whether the chain went on without it. A writer that ignores
the lock is not prevented, but seen: its record has a number that is there already.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentscope.errors import CannotWrite
from agentscope.ledger.chain import Link, chained
from agentscope.ledger.places import (
    APPEND_LOCK,
    FOLDER,
    alone,
    locked,
    open_folder,
    open_to_append,
    segment_name,
    write_whole,
)
from agentscope.ledger.tail import Note, Tail, at_least, survey
from agentscope.model import Lost
from agentscope.record import Recorder

LEDGER = "ledger"
BROKEN = "ledger-broken"  # the source of a loss that no crash explains
NOTES_LIMIT = 32


class Losses:
    """What could not be recorded: counted until there is room again, then a record of its own."""

    def __init__(self) -> None:
        self.count = 0
        self.why = ""
        self.since = ""
        self.notes: list[Lost] = []

    def add(self, why: str) -> None:
        """One record more that has no place."""
        if not self.count:
            self.since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.count += 1
        self.why = why

    def note(self, source: str, count: int, says: str) -> None:
        """Something to be recorded beside the events; told once however often it is found."""
        if len(self.notes) < NOTES_LIMIT and all((kept.source, kept.says) != (source, says) for kept in self.notes):
            self.notes.append(Lost(at_ns=now_ns(), source=source, count=count, says=says))

    def told(self) -> tuple[list[Lost], int]:
        """All of it as events, and how many records they speak of that had no place."""
        count = self.count
        if not count:
            return list(self.notes), 0
        says = f"{count} records from {self.since} on could not be written: {self.why}"
        return [Lost(at_ns=now_ns(), source=LEDGER, count=count, says=says), *self.notes], count

    def forget(self, told: list[Lost], count: int) -> None:
        """They are on record."""
        self.notes = [note for note in self.notes if note not in told]
        self.count -= count

    @property
    def pending(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.count or self.notes)


class End(NamedTuple):
    """An end of the chain that is on disk: its last record, the segment, and the folder (its inode) where that is."""

    link: Link
    number: int
    folder: int


class Appender:
    """The writing end. Every method may be called from any thread; `mutex` is what they share, the lock file what processes share."""

    def __init__(self, state: Path, anchor: str) -> None:
        self.state = state
        self.path = state / FOLDER
        self.anchor = anchor
        self.mutex = threading.RLock()
        self.losses = Losses()
        self.folder: int | None = None
        self.lock = -1
        self.tail: Tail | None = None
        self.named: tuple[int, int] | None = None  # folder and segment whose names are on disk
        self.voice: Recorder | None = None

    def write(self, line: bytes | Lost | None, wait_s: float) -> Link:
        """Append a line, or a loss of our own, behind what has to be told first; without one, only that. The place of the last record.

        Raises:
            OSError: the disk is full, or the folder refuses; nothing is left behind. CannotWrite: the lock is held by others.
        """
        with self.held(wait_s) as tail:
            told, count = self.losses.told()
            records, link = [], tail.link
            for each in (*told, *(() if line is None else (line,))):
                record, link = chained(each if isinstance(each, bytes) else self.own_line(each, link), link)
                records.append(record)
            content = b"".join(records)
            try:
                write_whole(tail.descriptor, content)
            except OSError:
                os.ftruncate(tail.descriptor, tail.size)
                raise
            self.tail = tail._replace(size=tail.size + len(content), link=link)
            self.losses.forget(told, count)
            return link

    @contextmanager
    def held(self, wait_s: float) -> Iterator[Tail]:
        """Be the only one who writes, in this process and among all, at the chain's end as it is now."""
        if not self.mutex.acquire(timeout=wait_s):
            raise CannotWrite(
                f"cannot record in {self.path}", f"the disk has not answered for {wait_s:g} s", f"df -h {self.path}"
            )
        try:
            self.open()
            with locked(self.lock, wait_s, self.path):
                yield self.caught_up()
        finally:
            self.mutex.release()

    def open(self) -> None:
        """The folder and its lock, once, and again where somebody put another folder in its place."""
        if self.folder is not None:
            with suppress(OSError):
                if os.path.samestat(self.path.lstat(), os.fstat(self.folder)):
                    return
            if self.tail is not None:
                link = self.tail.link
                self.losses.note(
                    LEDGER, 1, f"the ledger was moved away while it was written; chain {link.chain} went to {link.seq}"
                )
            self.close()
        folder = open_folder(self.state)
        try:
            self.lock = os.open(APPEND_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError:
            os.close(folder)
            raise
        self.folder = folder

    def close(self) -> None:
        """Let go of every descriptor."""
        with self.mutex:
            opened = [self.folder, self.lock, self.tail.descriptor if self.tail else None]
            self.folder, self.lock, self.tail = None, -1, None
            for descriptor in opened:
                if descriptor is not None and descriptor >= 0:
                    os.close(descriptor)

    def caught_up(self) -> Tail:
        """The end of the chain: as we left it, or as others did, or as we know it though somebody cut it."""
        assert self.folder is not None
        known = self.tail
        if known is not None and self.is_current(known):
            return known
        tail, notes = survey(self.state, self.folder, self.anchor)
        if known is not None:
            os.close(known.descriptor)
            self.tail = None
            if known.link.chain == tail.link.chain:
                link, found = at_least(tail.link, known.link, None)
                notes += found
                kept = link.within if link is tail.link or known.number == tail.number else 0
                tail = tail._replace(link=link._replace(within=kept))
        self.tail = tail
        for note in notes:
            self.note(note)
        return tail

    def note(self, note: Note) -> None:
        """Keep what was found for the record."""
        self.losses.note(BROKEN if note.broken else LEDGER, note.records, note.says)

    def is_current(self, tail: Tail) -> bool:
        """Whether nobody else wrote, rotated, cut or removed this segment."""
        facts = os.fstat(tail.descriptor)
        if facts.st_size != tail.size or facts.st_nlink == 0:
            return False
        try:
            os.stat(segment_name(tail.number + 1), dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def synced(self) -> "End | None":
        """Have the disk confirm everything up to the chain's end as it is now; None where nothing was written.

        Nobody who appends waits for it. The name of a new segment is confirmed with it, once.

        Raises:
            OSError: the disk failed.
        """
        with self.mutex:
            tail, folder = self.tail, self.folder
            if tail is None or folder is None:
                return None
            file, place = os.dup(tail.descriptor), os.dup(folder)
        try:
            os.fsync(file)
            end = End(tail.link, tail.number, os.fstat(place).st_ino)
            if (end.folder, end.number) != self.named:
                os.fsync(place)
                self.named = (end.folder, end.number)
        finally:
            os.close(file)
            os.close(place)
        return end

    @contextmanager
    def signing(self, end: "End", wait_s: float) -> Iterator[int | None]:
        """The folder for whoever signs or removes, alone among all processes; None where it is not that of `end` any more.

        Raises:
            OSError, CannotWrite: the lock cannot be had.
        """
        with self.mutex:
            folder = None if self.folder is None else os.dup(self.folder)
        try:
            if folder is None or os.fstat(folder).st_ino != end.folder:
                yield None
                return
            with alone(folder, wait_s, self.path):
                yield folder
        finally:
            if folder is not None:
                os.close(folder)

    def own_line(self, event: Lost, before: Link) -> bytes:
        """A loss as a line of the stream; its id is that of its place, so that it never meets one of a pipeline's."""
        if self.voice is None:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
            self.voice = Recorder(boot, time.time_ns() - now_ns())
        encoded = self.voice.encode(event)
        assert encoded is not None
        fields = msgspec.json.decode(encoded)
        fields["id"] = f"ledger-{before.chain}-{before.seq + 1}"
        return msgspec.json.encode(fields) + b"\n"

    def begin_segment(self, wait_s: float, at_size: int, *, now: bool) -> bool:
        """Go on in a new file, if nothing was appended since the old one had this size; `now`: sync what was, and go on anyway.

        The old segment is whole on disk before there is a new one: so a power cut cannot take the end of one and leave the next.

        Raises:
            OSError, CannotWrite: as for `write`.
        """
        with self.held(wait_s) as tail:
            if tail.size != at_size:
                if not now:
                    return False
                os.fsync(tail.descriptor)
            assert self.folder is not None
            number = tail.number + 1
            descriptor = open_to_append(segment_name(number), self.folder, new=True)
            os.close(tail.descriptor)
            self.tail = Tail(number, descriptor, 0, tail.link._replace(within=0))
            return True


def now_ns() -> int:
    """CLOCK_BOOTTIME, the clock of every event."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
