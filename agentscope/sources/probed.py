"""What engines with probes have in common: the maps that their probes share with us, however those came into the kernel."""

import os
import select
import struct
import time
from collections.abc import Iterable, Mapping, Sequence

from agentscope.model import AnyEvent, EngineName, Lost
from agentscope.sources import wire
from agentscope.sources.decode import Decoder
from agentscope.sources.libbpf import SharedPage, Table, the_library
from agentscope.sources.ring import ring_of

RING_BYTES = 4 << 20
SHARED_MAPS = ("ring", "watched", "control", "tails")
WORDS = {"on_write": ("syscalls", "sys_enter_write"), "on_writev": ("syscalls", "sys_enter_writev")}
NO_WORDS = "last words that go to a terminal or a pipe cannot be had: this kernel has no tracepoints on system calls"


class Probed:
    """The part of `Engine` that goes through the maps: events, who is watched, last words."""

    name: EngineName

    def _open_maps(self, descriptors: Mapping[str, int]) -> None:
        """Use the maps of these names (SHARED_MAPS); BpfError or OSError where the kernel does not let us."""
        library = the_library()
        self._watched = Table(library, descriptors["watched"], 4, wire.WATCH.size)
        self._tails = Table(library, descriptors["tails"], 4, wire.TAIL.size)
        self._ring = ring_of(descriptors["ring"], RING_BYTES)
        self._control = SharedPage(descriptors["control"], wire.CONTROL.size)
        self._decode = Decoder(self.name).decode
        self._lost_before = bytes(16)
        self._closed = False

    def _close_maps(self) -> None:
        self._ring.close()
        self._control.close()

    def _is_watched(self, pid: int) -> bool:
        return self._watched.get(struct.pack("<I", pid)) is not None

    def fileno(self) -> int:
        """Polls readable when `drain` has something."""
        return self._ring.fileno()

    def drain(self) -> Sequence[AnyEvent]:
        """Every event that is waiting, oldest first; a loss that happened meanwhile is the last of them."""
        if self._closed:
            return ()
        decode = self._decode
        events: list[AnyEvent] = [event for record in self._ring.drain() if (event := decode(record)) is not None]
        if self._control.bytes[:16] != self._lost_before:
            events.extend(self._losses())
        return events

    def may_watch(self, uid: int) -> bool:
        """Whose probes are loaded sees everybody."""
        del uid
        return True

    def watch(self, pid: int) -> None:
        """Report this process and its future descendants; a pid that is already gone is ignored."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        try:
            key = struct.pack("<I", pid)
            if self._watched.get(key) is None:
                self._watched.put(key, bytes(wire.WATCH.size))
            # if it died before the entry was there, nobody in the kernel will take the entry away
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if poll.poll(0):
                self._watched.drop(key)
        finally:
            os.close(descriptor)

    def unwatch(self, pid: int, at_ns: int) -> None:
        """Stop reporting this process, unless it became another program after `at_ns`: that one is yet to be judged."""
        key = struct.pack("<I", pid)
        value = self._watched.get(key)
        if value is not None and wire.WATCH.unpack_from(value)[0] > at_ns:
            return
        self._watched.drop(key)

    def watch_discovered(self, enabled: bool) -> None:
        """Report and watch every process of the host from its next exec on, or stop doing so."""
        self._control.bytes[16:20] = struct.pack("<I", enabled)

    def take_words(self, pid: int) -> tuple[bytes, int] | None:
        """The last bytes that `pid` wrote to descriptors 1 and 2, with the time of the last write, and forget them."""
        key = struct.pack("<I", pid)
        value = self._tails.get(key)
        if value is None:
            return None
        self._tails.drop(key)
        return wire.tail_text(value)

    def wrote_ns(self, pid: int) -> int | None:
        """When `pid` last wrote to descriptors 1 or 2, where the write probe saw it; else None."""
        value = self._tails.get(struct.pack("<I", pid))
        tail = wire.tail_text(value) if value is not None else None
        return tail[1] if tail is not None else None

    def _losses(self) -> Iterable[Lost]:
        before = struct.unpack("<QQ", self._lost_before)
        self._lost_before = bytes(self._control.bytes[:16])
        now = struct.unpack("<QQ", self._lost_before)
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        says = "records did not fit the ring buffer", "processes could not be watched: the table is full"
        for count, sentence in zip((new - old for new, old in zip(now, before, strict=True)), says, strict=True):
            if count:
                yield Lost(at_ns=at_ns, source=self.name, count=count, says=sentence)
