"""One stream to several sinks: an event becomes a line once, and each gets the same. What one of them loses, all are told."""

import asyncio
import time
from collections.abc import Callable, Sequence

from agentscope.errors import UsageError
from agentscope.model import AnyEvent, Lost
from agentscope.record import Recorder
from agentscope.sinks import Around, Chosen, Sink, open_sink
from agentscope.sinks.stdout import NdjsonWriter

TELL_EVERY_S = 10.0


class Branch:
    """One sink with what it wants, and what of its losses was told to the others."""

    def __init__(self, chosen: Chosen, sink: Sink) -> None:
        self.chosen = chosen
        self.sink = sink
        self.told = 0
        self.told_at = -TELL_EVERY_S


class Tee:
    """Writes events to every sink; never waits, never raises."""

    def __init__(self, recorder: Recorder, branches: Sequence[Branch]) -> None:
        self.recorder = recorder
        self.branches = list(branches)
        self.wanted: dict[type, list[Sink]] = {}

    def write(self, event: AnyEvent) -> None:
        """One event, to whoever wants it."""
        line = self.recorder.line(event)
        if line is None:
            return
        for sink in self.sinks_for(event):
            sink.take(line)
        self.tell_losses()

    def sinks_for(self, event: AnyEvent) -> list[Sink]:
        """Who wants events of this type."""
        kind = type(event)
        if kind not in self.wanted:
            tag = str(kind.__struct_config__.tag)
            self.wanted[kind] = [branch.sink for branch in self.branches if branch.chosen.wants(tag)]
        return self.wanted[kind]

    def tell_losses(self, *, now: bool = False) -> None:
        """Tell everybody of lines that a sink has lost: at once, and then every ten seconds while it goes on."""
        if len(self.branches) == 1:  # its own reader is told in the place of what it has not got, and there is nobody else
            return
        clock_s = time.monotonic()
        for branch in self.branches:
            lost = branch.sink.lost_count - branch.told
            if lost and (now or clock_s - branch.told_at >= TELL_EVERY_S):
                branch.told, branch.told_at = branch.sink.lost_count, clock_s
                why = f": {branch.sink.why}" if branch.sink.why else ""
                says = f"the sink {branch.chosen.name} has not got them{why}"
                at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                line = self.recorder.line(Lost(at_ns=at_ns, source=f"sink {branch.chosen.name}", count=lost, says=says))
                assert line is not None
                for sink in self.sinks_for(line.event):
                    sink.take(line)

    def closed(self) -> "asyncio.Future[None] | None":
        """What ends when the reader of standard output has gone, or it cannot be written; None where nothing goes there."""
        return next((branch.sink.closed for branch in self.branches if isinstance(branch.sink, NdjsonWriter)), None)

    async def flush(self, timeout_s: float) -> list[str]:
        """Wait until every sink has sent everything, or the time is over; the names of those that have not."""
        self.tell_losses(now=True)
        done = await asyncio.gather(*(branch.sink.flush(timeout_s) for branch in self.branches))
        return [branch.chosen.name for branch, sent in zip(self.branches, done, strict=True) if not sent]

    def close(self) -> None:
        """Close every sink."""
        for branch in self.branches:
            branch.sink.close()


def open_what_can(wanted: Sequence[Chosen], around: Around, refused: Callable[[str], None]) -> Tee:
    """The sinks that can be opened: of the others the owner is told, and it goes on without them. Standard output is another's here."""
    branches: list[Branch] = []
    for chosen in wanted:
        if chosen.scheme == "-":
            continue
        try:
            branches.append(Branch(chosen, open_sink(chosen, around)))
        except UsageError as error:
            refused(f"without the sink {chosen.name}: {error}")
    return Tee(around.recorder, branches)


def open_tee(wanted: Sequence[Chosen], around: Around) -> Tee:
    """All sinks, opened.

    Raises:
        UsageError: one of them cannot work; those before it are closed again.
    """
    branches: list[Branch] = []
    try:
        for chosen in wanted:
            branches.append(Branch(chosen, open_sink(chosen, around)))  # noqa: PERF401 - what is open when one fails is closed
    except BaseException:
        for branch in branches:
            branch.sink.close()
        raise
    return Tee(around.recorder, branches)
