"""Lines that wait for a slow reader, bounded in bytes. When it is full, lines are dropped and counted, pulses first."""

import time
from collections import deque

from agentscope.model import Lost, Pulse
from agentscope.record import Line, Recorder

QUEUE_BYTES = 8 << 20
CHUNK_BYTES = 64 << 10


class Waiting:
    """The queue of one reader; whoever has it calls it under one lock.

    What was dropped is told to the reader itself as soon as there is room: one `Lost` line, which has the number of the last of them.
    """

    def __init__(self, recorder: Recorder, source: str, says: str, limit_bytes: int = QUEUE_BYTES) -> None:
        self.recorder = recorder
        self.source = source
        self.says = says
        self.limit_bytes = limit_bytes
        self.lines: deque[Line] = deque()
        self.bytes = 0  # of `lines`, and of what was taken from them and is not done
        self.dropped = 0
        self.dropped_last = 0
        self.lost_count = 0

    def put(self, line: Line) -> None:
        """Let it wait, or drop it."""
        if self.dropped and not self.tell_loss():
            self.drop(line)
            return
        # a pulse comes again in a second, an incident does not
        limit_bytes = self.limit_bytes // 2 if isinstance(line.event, Pulse) else self.limit_bytes
        if self.bytes + len(line.encoded) > limit_bytes:
            self.drop(line)
            return
        self.append(line)

    def append(self, line: Line) -> None:
        """Let it wait, whatever the limit says."""
        self.lines.append(line)
        self.bytes += len(line.encoded)

    def drop(self, line: Line) -> None:
        """Count a line that will not arrive; one that would have told of a loss leaves that to be told again."""
        self.dropped += line.instead_of or 1
        self.dropped_last = max(self.dropped_last, line.number)
        self.lost_count += 0 if line.instead_of else 1

    def tell_loss(self) -> bool:
        """Let the saying of the loss wait in its place, once there is room for it and for more; whether there was."""
        if not self.dropped:
            return True
        if self.bytes > self.limit_bytes // 2:
            return False
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        lost = Lost(at_ns=at_ns, source=self.source, count=self.dropped, says=self.says)
        self.dropped = 0
        self.append(self.recorder.instead(self.dropped_last, lost))
        return True

    def take(self, limit_bytes: int = CHUNK_BYTES) -> list[Line]:
        """The next lines, at least one where there is one, and not so many that a reader waits for the first."""
        taken: list[Line] = []
        length = 0
        while self.lines and (not taken or length + len(self.lines[0].encoded) <= limit_bytes):
            taken.append(self.lines.popleft())
            length += len(taken[-1].encoded)
        return taken

    def done(self, lines: list[Line]) -> None:
        """These are sent, or dropped."""
        self.bytes -= sum(len(line.encoded) for line in lines)
