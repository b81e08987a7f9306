"""What was learnt of files that have not changed: kept under their identity, the least recently used forgotten first."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from os import stat_result
from threading import Lock
from typing import Generic, TypeVar

_TICK_NS = 50_000_000  # file times advance with the timer tick, at most 10 ms; some network file systems are coarser
Known = TypeVar("Known")


def identity_of(status: stat_result) -> tuple[int, int, int, int, int]:
    """What changes whenever the content of a file does: ctime too, because mtime can be set back (utimensat(2))."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def settled(ctime_ns: int) -> bool:
    """Whether a file has stayed as it is for longer than a clock tick of its file system: a change within one leaves no trace."""
    return time.time_ns() - ctime_ns > _TICK_NS


class Remembered(Generic[Known]):
    """A bounded store that threads may share."""

    def __init__(self, limit: int) -> None:
        self._kept: OrderedDict[Hashable, Known] = OrderedDict()
        self._limit = limit
        self._lock = Lock()

    def get(self, key: Hashable) -> Known | None:
        """What is known under this key."""
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
            return known

    def put(self, key: Hashable, known: Known) -> Known:
        """Keep it, and give it back."""
        with self._lock:
            self._kept[key] = known
            self._kept.move_to_end(key)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return known

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
