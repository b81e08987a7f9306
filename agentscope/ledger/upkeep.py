"""What is done beside the loop after an append: sync, sign the head, begin a new segment, let the oldest go, anchor.

Writing a record takes some 0.1 ms; a sync takes from half a millisecond to as long as the disk pleases. So `append` writes and
returns, and one thread syncs what has come since: a storm of deaths shares its syncs. What that means: a record is safe from
agentscope's own death, however violent, when `append` returns (the kernel has it), and safe from a power cut a moment later. An
intent to act has to be safe from both before the act, and asks for that (`durable`).

Nothing here can stop an append; what goes wrong becomes a record.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from agentscope.errors import CannotWrite
from agentscope.ledger import anchors, keys, seals
from agentscope.ledger.appending import LEDGER, Appender, End
from agentscope.ledger.beginning import begin_beside
from agentscope.ledger.places import HEAD, replace
from agentscope.ledger.retention import LOCK_S, retire, rotate
from agentscope.ledger.seals import Head
from agentscope.ledger.settings import Settings

HEAD_S = (
    0.25  # from a sync to its head: one head for all that comes meanwhile, and an intent that comes then does not wait for it
)
RETRY_S = 30.0


class Upkeep:
    """One thread, which starts with the first record and sleeps while there is nothing to do."""

    def __init__(self, appender: Appender, settings: Settings) -> None:
        self.appender = appender
        self.settings = settings
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.closing = self.nudged = False
        self.written = self.synced = 0  # appends of this process, counted
        self.failed_upto, self.failure = 0, ""
        self.head: Head | None = None
        self.end: End | None = None  # what is to be signed next, and
        self.end_since = 0.0
        self.anchored_seq = 0
        self.unanchored_since = 0.0
        self.sending: threading.Thread | None = None
        self.retry_at = 0.0
        self.faults: dict[str, tuple[str, float]] = {}  # by step: what was wrong, and when it is tried again

    def appended(self) -> int:
        """A record was written: to be synced. Returns its ticket for `wait`."""
        with self.changed:
            self.written += 1
            self.begin()
            self.changed.notify_all()
            return self.written

    def prepare(self) -> None:
        """Look where the chain ends before there is anything to append."""
        with self.changed:
            self.begin()

    def begin(self) -> None:
        """Start the thread where there is none."""
        if self.thread is None or not self.thread.is_alive():
            self.closing = False
            self.thread = threading.Thread(target=self.run, name="ledger", daemon=True)
            self.thread.start()

    def wait(self, ticket: int, within_s: float) -> None:
        """Until this record is on disk.

        Raises:
            CannotWrite: the disk failed, or did not answer in time.
        """
        with self.changed:
            done = self.changed.wait_for(lambda: self.synced >= ticket, within_s)
            if done and ticket > self.failed_upto:
                return
        why = self.failure if done else f"the disk has not confirmed it for {within_s:g} s"
        raise CannotWrite(f"cannot record in {self.appender.path}", why, f"df -h {self.appender.path}")

    def close(self, within_s: float) -> bool:
        """Finish, but wait no longer than this; whether it did."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        if self.thread is not None:
            self.thread.join(within_s)
            return not self.thread.is_alive()
        return True

    # --- the thread -----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until closed, and then once more."""
        self.attempt("beginning", self.look)
        self.attempt("retention", lambda: retire(self.appender, self.settings))
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.written > self.synced or self.closing or self.nudged, self.rest_s())
                self.nudged = False
                closing, ticket = self.closing, self.written
            self.round(ticket, closing=closing)
            if closing and self.written == ticket:
                return

    def round(self, ticket: int, *, closing: bool) -> None:
        """Everything that is due once all up to this ticket is on disk."""
        self.sync(ticket)
        self.attempt("head", lambda: self.keep_head(at_once=closing), now=closing)
        self.attempt("rotation", lambda: rotate(self.appender, self.settings))
        self.attempt("anchor", lambda: self.anchor(at_once=closing))
        self.attempt("telling", self.tell)
        if closing:  # for what was told just now
            self.attempt("head", lambda: self.keep_head(at_once=True), now=True)

    def rest_s(self) -> float | None:
        """How long there is nothing to do, if nothing is written."""
        waits = []
        if self.end is not None:
            failed = self.faults.get("head")
            waits.append((self.end_since + HEAD_S if failed is None else failed[1]) - time.monotonic())
        if self.head is not None and self.head.seq > self.anchored_seq and self.head.anchor != "none":
            waits.append(max(self.unanchored_since + self.settings.within_s, self.retry_at) - time.monotonic())
        if self.appender.losses.pending:
            waits.append(RETRY_S)
        return max(0.01, min(waits)) if waits else None

    def attempt(self, name: str, step: Callable[[], None], *, now: bool = False) -> None:
        """One step; what fails is said once, until it works again, and is not tried again at once."""
        failed = self.faults.get(name)
        if failed is not None and time.monotonic() < failed[1] and not now:
            return
        try:
            step()
        except (OSError, CannotWrite, ValueError) as error:
            why = (
                str(error) if isinstance(error, CannotWrite) else f"{name} failed: {getattr(error, 'strerror', None) or error}"
            )
            if failed is None or failed[0] != why:
                self.appender.losses.note(LEDGER, 1, why)
            self.faults[name] = (why, time.monotonic() + RETRY_S)
        else:
            self.faults.pop(name, None)

    def look(self) -> None:
        """Find the chain's end, or begin it; what a writer before us left unsigned is signed."""
        begin_beside(self.appender.state, self.appender.anchor)
        with self.appender.held(LOCK_S):
            pass
        self.confirmed()

    def tell(self) -> None:
        """Put what is to be told on record without waiting for the next event; where there is no room, later."""
        if self.appender.losses.pending:
            with suppress(OSError, CannotWrite):
                self.appender.write(None, LOCK_S)
                self.confirmed()

    def confirmed(self) -> None:
        """Sync; the chain's end as it is now is to be signed."""
        end = self.appender.synced()
        if end is not None:
            self.end_since = self.end_since if self.end is not None else time.monotonic()
            self.end = end

    def sync(self, ticket: int) -> None:
        """Have the disk confirm everything that was written up to now."""
        if ticket <= self.synced:
            return
        why = ""
        try:
            self.confirmed()
        except OSError as error:  # fsync(2): what failed once is not tried again by the kernel, so it counts as lost
            why = f"the disk did not confirm: {error.strerror or error}"
            self.appender.losses.note(LEDGER, 1, why)
        with self.changed:
            if why:
                self.failed_upto, self.failure = ticket, why
            self.synced = ticket
            self.changed.notify_all()

    def keep_head(self, *, at_once: bool) -> None:
        """Sign the chain's end, which is on disk by now. A head never goes back, whoever of several writers is late."""
        end, state = self.end, self.appender.state
        if end is None or (not at_once and time.monotonic() - self.end_since < HEAD_S):
            return
        with self.appender.signing(end, LOCK_S) as folder:
            kept = None if folder is None else seals.kept_head(folder)
            if folder is not None and (kept is None or kept.chain != end.link.chain or kept.seq < end.link.seq):
                public = keys.public_key(state)
                if public is None:
                    raise CannotWrite("cannot sign the ledger: its public key is missing", str(state / keys.PUBLIC))
                kept = seals.sealed(seals.head_of(state, end.link, end.number, self.appender.anchor, public), state)
                replace(HEAD, seals.line_of(kept), folder)
        self.end = None
        if kept is None:
            return
        if self.head is not None and self.head.chain != kept.chain:
            self.anchored_seq = 0
        if self.head is None or self.head.seq <= self.anchored_seq:
            self.unanchored_since = time.monotonic()
        self.head = kept

    # --- the second place -------------------------------------------------------------------------------------------------------

    def anchor(self, *, at_once: bool) -> None:
        """Put the head into the second place when enough records or time have passed; in a thread of its own, which may hang."""
        head, now = self.head, time.monotonic()
        if head is None or head.anchor == "none" or head.seq <= self.anchored_seq:
            return
        due = head.seq - self.anchored_seq >= self.settings.every or now - self.unanchored_since >= self.settings.within_s
        if not (at_once or (due and now >= self.retry_at)):
            return
        if at_once and self.sending is not None:
            self.sending.join(anchors.SEND_S)
        if self.sending is None or not self.sending.is_alive():
            self.sending = threading.Thread(target=self.send, args=(head,), name="anchor", daemon=True)
            self.sending.start()
        if at_once:
            self.sending.join(anchors.SEND_S)

    def send(self, head: Head) -> None:
        """In the anchor's thread."""
        try:
            anchors.send(self.settings, seals.line_of(head))
            self.anchored_seq = max(self.anchored_seq, head.seq)
            self.unanchored_since = time.monotonic()
        except CannotWrite as error:
            if not self.retry_at:
                self.appender.losses.note("ledger-anchor", 1, str(error))
            self.retry_at = time.monotonic() + max(RETRY_S, self.settings.within_s)
        else:
            self.retry_at = 0.0
        with self.changed:
            self.nudged = True
            self.changed.notify_all()
