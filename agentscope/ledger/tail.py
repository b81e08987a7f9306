"""Where the chain ends on disk: what the next record follows, after a clean end, a crash, or somebody's knife.

A writer never takes the end of the file for the end of the chain alone. The signed head says how far the chain once went, and a
running writer knows it too: where the file ends sooner, the chain goes on from what was known, so that the gap stays to be seen.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agentscope.ledger import keys, seals
from agentscope.ledger.chain import Link, origin, read_link
from agentscope.ledger.places import HEAD, open_to_append, open_to_read, replace, segment_name, segments_in
from agentscope.ledger.seals import Head, kept_head

BLOCK_BYTES = 1 << 16
BLOCK_LARGEST = 8 << 20
LOOK_BACK = 10_000  # lines between the end and the record that the head names: as many as came since the last head


class Tail(NamedTuple):
    """The segment that is written now, and the record that the next one follows; its `count` is that of this segment."""

    number: int
    descriptor: int
    size: int
    link: Link


class Note(NamedTuple):
    """Something that was found wrong, about so many `records`. `broken`: the chain was tampered with, and not just interrupted."""

    says: str
    records: int
    broken: bool


def survey(state: Path, folder: int, anchor: str) -> tuple[Tail, list[Note]]:
    """Look at what is there, begin a chain where there is none, set a torn line aside. Called under the append lock.

    Raises:
        OSError: it cannot be read or written. CannotWrite: the key is missing, or is none.
    """
    notes: list[Note] = []
    numbers = segments_in(folder)
    within, link = last_link(folder, numbers)
    head = kept_head(folder)
    if head is None:
        if numbers:
            notes.append(Note("the signed head is missing or damaged; it is written anew", 1, True))
        head = begin(state, folder, link, anchor, number=max(numbers, default=1))
    number = numbers[-1] if numbers else head.segment + (head.seq > 0)
    descriptor = open_to_append(segment_name(number), folder, new=not numbers)
    size, torn = whole_end(descriptor)
    if torn:
        notes.append(set_aside(folder, number, descriptor, size, torn))
    signed = Link(head.chain, head.seq, head.count, "", head.hash)
    if link is None:
        within, link = head.segment, signed
        if head.seq:
            notes.append(Note(f"records up to {head.seq} are gone: the head names them, and no file has them", head.seq, True))
    elif link.chain != head.chain:
        notes.append(Note("the head is that of another chain", 1, True))
    else:
        # the head is signed after its records are on disk, so no crash can make it say more than there is
        link, found = at_least(link, signed, descriptor)
        within = head.segment if link is signed else within
        notes += found
    return Tail(number, descriptor, size, link if within == number else link._replace(within=0)), notes


def begin(state: Path, folder: int, link: Link | None, anchor: str, number: int) -> Head:
    """Make the keys and the first head: before the first record, so that records without a head are never a crash's doing."""
    public = keys.make_keys(state)
    start = link or origin(os.urandom(8).hex(), public)
    head = seals.sealed(seals.head_of(state, start, number, anchor, public), state)
    replace(HEAD, seals.line_of(head), folder, suffix="first")
    os.fsync(folder)
    return head


def at_least(link: Link, known: Link, descriptor: int | None) -> tuple[Link, list[Note]]:
    """The later of the chain's end as the files have it and as it was known, and what is wrong where they do not agree."""
    if known.seq > link.seq:
        says = f"records {link.seq + 1} to {known.seq} are gone: they were written, and no file has them"
        return known, [Note(says, known.seq - link.seq, True)]
    if known.seq == link.seq:
        if known.digest == link.digest:
            return link, []
        return known, [Note(f"record {link.seq} is not the one that was written", 1, True)]
    if descriptor is not None and known.seq and (found := find(descriptor, known.seq)) and found.digest != known.digest:
        return link, [Note(f"record {known.seq} is not the one that was signed", 1, True)]
    return link, []


def find(descriptor: int, seq: int) -> Link | None:
    """The record with this number, if it is among the last of this segment."""
    for looked, line in enumerate(last_lines(descriptor)):
        link = read_link(line)
        if (link is not None and link.seq <= seq) or looked >= LOOK_BACK:
            return link if link is not None and link.seq == seq else None
    return None


def last_link(folder: int | Path, numbers: list[int]) -> tuple[int, Link | None]:
    """The last record that any segment has, as it says itself, and the number of that segment."""
    for number in reversed(numbers):
        with suppress(FileNotFoundError):
            opened = open_to_read(segment_name(number), folder)
            try:
                link = next((link for line in last_lines(opened) if (link := read_link(line))), None)
            finally:
                os.close(opened)
            if link is not None:
                return number, link
    return 0, None


def last_lines(descriptor: int) -> Iterator[bytes]:
    """The whole lines of a file, last first; a piece at the end without its newline is passed over."""
    position, _ = whole_end(descriptor)
    kept, step = b"", BLOCK_BYTES
    while position > 0:
        step = min(step, position)
        position -= step
        first, *rest = (os.pread(descriptor, step, position) + kept).split(b"\n")
        for line in reversed(rest[:-1]):  # what is behind the last newline is empty
            yield line + b"\n"
        kept = first + b"\n"
        step = min(step * 2, BLOCK_LARGEST)
    if kept:
        yield kept


def whole_end(descriptor: int) -> tuple[int, int]:
    """How many bytes are whole lines, and how many behind them are not."""
    size = position = os.fstat(descriptor).st_size
    while position > 0:
        step = min(BLOCK_BYTES, position)
        at = os.pread(descriptor, step, position - step).rfind(b"\n")
        position -= step
        if at >= 0:
            return position + at + 1, size - (position + at + 1)
    return 0, size


def set_aside(folder: int, number: int, descriptor: int, at: int, length: int) -> Note:
    """Move what a crash left of a line to a file of its own; the copy is durable before the original goes.

    Raises:
        OSError: there is no room for it; then it stays where it is.
    """
    hashed = hashlib.sha256()
    for offset in range(at, at + length, BLOCK_BYTES):
        hashed.update(os.pread(descriptor, min(BLOCK_BYTES, at + length - offset), offset))
    name = (
        f"torn-{number:08}-{at}-{hashed.hexdigest()[:16]}"  # the same piece, met again after another crash, has the same name
    )
    opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        for offset in range(at, at + length, BLOCK_BYTES):
            piece = os.pread(descriptor, min(BLOCK_BYTES, at + length - offset), offset)
            while piece:
                piece = piece[os.write(opened, piece) :]
        os.fsync(opened)
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(opened)
    os.fsync(folder)
    os.ftruncate(descriptor, at)
    return Note(f"a crash tore a line: its {length} bytes are kept in {name} (SHA-256 {hashed.hexdigest()})", 1, False)
