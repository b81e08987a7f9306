"""Standard output, or any descriptor, whose reader may be slow, full or gone: one line an event. It never blocks its caller.

How a line gets out. O_NONBLOCK is a property of the open file that the shell shares with us, so it is never set. Instead each line
is first tried with pwritev2(2) and RWF_NOWAIT, which makes that one call non-blocking: a pipe or socket with room takes the line at
once, in the caller's own thread. What the kernel would make us wait for (EAGAIN), or a file that cannot promise not to wait
(EOPNOTSUPP: terminals, most disks, pipes before Linux 6.4), goes to one thread, which may block as long as it likes.

Between them is a queue bounded in bytes. When it is full, lines are dropped and counted, pulses first, and as soon as there is room
a `Lost` line tells how many. It has the sequence number of the last of them, so that a reader sees the gap too.
"""

import asyncio
import contextlib
import errno
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from agentscope.errors import BadInput, CannotWrite
from agentscope.model import AnyEvent, Lost, Pulse
from agentscope.record import Line, Recorder
from agentscope.sinks import Around, Chosen, Options

SCHEMES = ("-",)
EXAMPLE = "- (standard output)"
USUAL = ()
QUEUE_BYTES = 8 << 20
CHUNK_BYTES = 64 << 10
SOURCE = "ndjson"
WOULD_WAIT = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM})


def checked(wrong: str, to: str, options: Options) -> None:  # noqa: ARG001 - it has none
    """There is nothing that could be wrong.

    Raises:
        BadInput: something stands behind the "-".
    """
    if to != "-":
        raise BadInput(wrong, f"{to!r} begins as standard output does, and goes on", EXAMPLE)


def opened(chosen: Chosen, around: Around) -> "NdjsonWriter":  # noqa: ARG001 - there is only one
    """The writer of standard output."""
    return NdjsonWriter(around.recorder, sys.stdout.fileno())


class NdjsonWriter:
    """Writes events to `fd`. `closed` ends when nothing more can be written: quietly when the reader left, with `CannotWrite` else.

    Make it, and call it, in one running event loop.
    """

    why = ""  # what does not work ends `closed`

    def __init__(self, recorder: Recorder, fd: int, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self.recorder = recorder
        self.fd = fd
        self.queue_bytes = queue_bytes
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.batch: list[tuple[bytes, int, int]] = []  # of this turn of the loop: line, the limit that holds for it, its number
        self.batch_bytes = 0
        self.lines: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.dropped = 0
        self.dropped_last = 0  # its number
        self.lost_count = 0
        self.at_once = True
        self.stopping = False
        self.lock = threading.Lock()
        self.ready = threading.Condition(self.lock)
        self.thread: threading.Thread | None = None
        self.drained: asyncio.Event = asyncio.Event()
        self.drained.set()
        self.hangups = self.watch_reader()

    def write(self, event: AnyEvent) -> None:
        """Put one event on its way; a no-op once `closed`."""
        if not self.closed.done() and (line := self.recorder.line(event)) is not None:
            self.take(line)

    def take(self, line: Line) -> None:
        """The same with an event that is a line already."""
        if self.closed.done():
            return
        if self.dropped and not self.tell_loss():
            self.drop(line.number)
            return
        # a pulse comes again in a second, an incident does not
        is_pulse = isinstance(line.event, Pulse)
        self.put(line, self.queue_bytes // 2 if is_pulse else self.queue_bytes, may_wait=is_pulse)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything is written or the time is over; False if something was left."""
        self.send()
        if self.dropped:
            self.tell_loss()
        waiter = asyncio.ensure_future(self.drained.wait())
        either: set[asyncio.Future[Any]] = {waiter, self.closed}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        return self.drained.is_set() and not self.dropped

    def close(self) -> None:
        """Stop the thread and forget what is queued; the descriptor stays the caller's. Safe to call twice."""
        with self.lock:
            self.stopping = True
            self.ready.notify()
        if self.hangups is not None:
            self.loop.remove_reader(self.hangups.fileno())
            self.hangups.close()
            self.hangups = None
        if not self.closed.done():
            self.closed.set_result(None)

    # --- on the loop's thread ------------------------------------------------------------------------------------------

    def put(self, line: Line, limit_bytes: int, *, may_wait: bool = False) -> None:
        """Send the line, or let it wait for the end of this turn of the loop: a hundred pulses are one write."""
        if may_wait and not self.batch:
            self.loop.call_soon(self.send)
        self.batch.append((line.encoded, limit_bytes, line.number))
        self.batch_bytes += len(line.encoded)
        if not may_wait or self.batch_bytes >= CHUNK_BYTES:
            self.send()

    def send(self) -> None:
        """Write the lines of this turn, queue what would have to wait, drop what finds no room."""
        batch, self.batch, self.batch_bytes = self.batch, [], 0
        if not batch or self.closed.done():
            return
        if self.at_once and not self.waiting_bytes:
            left = self.write_at_once(b"".join(line for line, _, _ in batch))
            # a line that is half out must be finished, whatever the limit says; so is what little came with it
            batch = [(left, len(left), batch[-1][2])] if left else []
        with self.lock:
            for line, limit_bytes, number in batch:
                if self.waiting_bytes + len(line) > limit_bytes:
                    self.drop(number)
                    continue
                self.lines.append(line)
                self.waiting_bytes += len(line)
                self.drained.clear()
            self.ready.notify()
            waiting = bool(self.lines)
        if waiting and self.thread is None:
            # a daemon: a reader that never reads must not keep the program from ending
            self.thread = threading.Thread(target=self.run, name="agentscope-ndjson", daemon=True)
            self.thread.start()

    def write_at_once(self, line: bytes) -> bytes:
        """What of the line could not be written without waiting."""
        try:
            return line[os.pwritev(self.fd, [line], -1, os.RWF_NOWAIT) :]
        except OSError as error:
            if error.errno not in WOULD_WAIT:
                self.fail(error)
                return b""
            self.at_once = error.errno == errno.EAGAIN
            return line

    def drop(self, number: int) -> None:
        """Count a line that found no room."""
        self.dropped += 1
        self.dropped_last = number
        self.lost_count += 1

    def tell_loss(self) -> bool:
        """Say how many lines were dropped, once there is room for the saying and for more."""
        if self.waiting_bytes > self.queue_bytes // 2:
            return False
        lost = Lost(
            at_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            source=SOURCE,
            count=self.dropped,
            says="the reader of this stream was too slow",
        )
        self.dropped = 0
        line = self.recorder.instead(self.dropped_last, lost)
        self.put(line, self.queue_bytes + len(line.encoded))
        return True

    def emptied(self) -> None:
        """The thread has written everything that was queued."""
        if self.waiting_bytes:
            return
        if self.dropped and not self.closed.done():
            self.tell_loss()
        if not self.waiting_bytes:
            self.drained.set()

    def fail(self, error: OSError) -> None:
        """Nothing more can be written."""
        with self.lock:
            self.stopping = True
            self.lines.clear()
            self.ready.notify()
        if self.closed.done():
            return
        if error.errno in {errno.EPIPE, errno.ECONNRESET}:
            self.closed.set_result(None)
            return
        self.closed.set_exception(
            CannotWrite(
                "cannot write the event stream",
                f"{os.strerror(error.errno or 0)} ({errno.errorcode.get(error.errno or 0, '?')})",
                "free space where standard output goes, or send it elsewhere" if error.errno == errno.ENOSPC else "",
            )
        )
        # whoever awaits it still gets it; nobody awaiting it is no reason for a traceback at exit
        self.closed.exception()

    def watch_reader(self) -> select.epoll | None:
        """End `closed` when the reader goes away, even if nothing is being written: `events | head -1` on a quiet machine."""
        poll = select.epoll()
        try:
            poll.register(self.fd, 0)  # errors and hang-ups are always reported, epoll_ctl(2)
        except OSError:  # regular files cannot be polled, and have no reader to lose
            poll.close()
            return None
        self.loop.add_reader(poll.fileno(), self.hung_up)
        return poll

    def hung_up(self) -> None:
        """The other end of the pipe or terminal is gone."""
        if self.hangups is not None:
            self.loop.remove_reader(self.hangups.fileno())
        self.fail(OSError(errno.EPIPE, os.strerror(errno.EPIPE)))

    # --- on the writing thread -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Write what is queued, in order, waiting as long as the reader makes us."""
        while True:
            with self.lock:
                while not self.lines and not self.stopping:
                    self.ready.wait()
                if self.stopping:
                    return
                chunk = self.next_chunk()
            try:
                self.write_all(chunk)
            except OSError as error:
                self.tell_loop(self.fail, error)
                return
            with self.lock:
                self.waiting_bytes -= len(chunk)
                empty = not self.waiting_bytes
            if empty:
                self.tell_loop(self.emptied)

    def next_chunk(self) -> bytes:
        """The next lines as one write: at least one, and not so many that a reader waits for the first."""
        taken = [self.lines.popleft()]
        length = len(taken[0])
        while self.lines and length + len(self.lines[0]) <= CHUNK_BYTES:
            taken.append(self.lines.popleft())
            length += len(taken[-1])
        return b"".join(taken)

    def write_all(self, chunk: bytes) -> None:
        """A blocking write of everything; an O_NONBLOCK that somebody else set is waited out."""
        left = memoryview(chunk)
        while left and not self.stopping:
            try:
                left = left[os.write(self.fd, left) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll(200)

    def tell_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """Have the loop's thread call this; the loop may be gone when the program is ending."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(call, *arguments)
