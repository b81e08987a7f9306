"""Rotation and retention: a new segment where one is full, and the oldest go that are too much. The chain outlives both.

A new segment's first record follows the last of the one before. What retention removes it first puts on record, in the chain
itself; then it signs a tombstone, and only then the files go, oldest first. A crash between any two of these leaves files that the
next round removes, and nothing that looks like a theft; a file that goes without these is one.
"""

import os
import re
import time
from contextlib import suppress
from datetime import datetime

from agentscope.ledger import keys, seals
from agentscope.ledger.appending import Appender, now_ns
from agentscope.ledger.places import TOMBSTONE, replace, segment_name, segments_in
from agentscope.ledger.seals import Tombstone
from agentscope.ledger.settings import Settings
from agentscope.ledger.tail import last_link
from agentscope.model import Lost

RETENTION = "ledger-retention"  # the source of the loss that puts it on record
LOCK_S = 5.0
ATTEMPTS = 3
KEPT_PARTS = 8  # a segment spans at most this part of the time that records are kept, so that they go when they are due
FIRST_TIME = re.compile(rb'"time":"([^"]{10,40})"')


def rotate(appender: Appender, settings: Settings) -> None:
    """Begin a new segment where the old one is large or old enough, and let the oldest go.

    Raises:
        OSError, CannotWrite: there is no room for it; the old one is written on.
    """
    for attempt in range(ATTEMPTS):
        with appender.mutex:
            tail = appender.tail
            if tail is None or not is_full(tail.descriptor, tail.size, settings):
                return
            held = os.dup(tail.descriptor)
        try:
            os.fsync(held)  # without the lock, so that nobody waits for it; what came meanwhile means another round
        finally:
            os.close(held)
        if appender.begin_segment(LOCK_S, tail.size, now=attempt == ATTEMPTS - 1):
            retire(appender, settings)
            return


def is_full(descriptor: int, size: int, settings: Settings) -> bool:
    """Whether a segment has its size, or its part of the time that records are kept."""
    if size >= settings.segment_bytes:
        return True
    if settings.keep_s is None or not size:
        return False
    found = FIRST_TIME.search(os.pread(descriptor, 1024, 0))
    with suppress(ValueError):
        began = datetime.fromisoformat((found[1] if found else b"").decode("ascii", "replace"))
        return time.time() - began.timestamp() > settings.keep_s / KEPT_PARTS
    return False


def retire(appender: Appender, settings: Settings) -> None:
    """Remove the oldest segments while all are more, or older, than is kept; never the one that is written.

    Raises:
        OSError, CannotWrite: it cannot be put on record, and so nothing is removed.
    """
    end = appender.synced()
    if end is None:
        return
    with appender.signing(end, LOCK_S) as folder:
        going = [] if folder is None else too_much(folder, settings)
        if folder is None or not going:
            return
        _, link = last_link(folder, going)
        public = keys.public_key(appender.state)
        if link is None or public is None:
            return
        says = (
            f"retention removed the records up to {link.seq} (segments up to {going[-1]}), the last with the hash {link.digest}"
        )
        appender.write(Lost(at_ns=now_ns(), source=RETENTION, count=link.seq, says=says), LOCK_S)
        appender.synced()
        stone = Tombstone(
            chain=link.chain, seq=link.seq, segment=going[-1], hash=link.digest, time=seals.now(), key=public.hex()
        )  # fmt: skip
        replace(TOMBSTONE, seals.line_of(seals.sealed(stone, appender.state)), folder)
        os.fsync(folder)
        for number in going:
            os.unlink(segment_name(number), dir_fd=folder)
        os.fsync(folder)


def too_much(folder: int, settings: Settings) -> list[int]:
    """The segments that have to go, oldest first."""
    numbers = segments_in(folder)
    facts = {number: os.stat(segment_name(number), dir_fd=folder, follow_symlinks=False) for number in numbers}
    total = sum(each.st_size for each in facts.values())
    going = []
    for number in numbers[:-1]:
        is_old = settings.keep_s is not None and time.time() - facts[number].st_mtime > settings.keep_s
        if total <= settings.keep_bytes and not is_old:
            break
        going.append(number)
        total -= facts[number].st_size
    return going
