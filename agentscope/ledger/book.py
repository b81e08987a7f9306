"""The ledger as the rest of agentscope knows it: append a line, read lines back."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from agentscope.errors import BadInput, CannotWrite
from agentscope.ledger.anchors import place_of
from agentscope.ledger.appending import Appender
from agentscope.ledger.places import FOLDER, older_in, open_to_read, segment_name, segments_in
from agentscope.ledger.settings import Settings
from agentscope.ledger.upkeep import Upkeep
from agentscope.model import IncidentOpened
from agentscope.record import Envelope, read_lines

LOCK_S = 1.0  # how long an append from the event loop may wait for others, who hold the lock for 0.1 ms, or once make a key
DURABLE_S = 10.0
CLOSE_S = 3.0


class Ledger:
    """Appends lines and reads them back. Opening is lazy, so that reading commands never create a folder."""

    def __init__(self, state: Path, settings: Settings | None = None) -> None:
        self.folder = state / FOLDER
        kept = settings or Settings()
        self.appender = Appender(state, place_of(kept))
        self.upkeep = Upkeep(self.appender, kept)
        self.at_exit = False

    def append(self, line: bytes, *, durable: bool = False) -> None:
        """Append one line of the stream, whole or not at all. It outlives us from now on, and a power cut from a moment later on.

        `durable` waits for that moment (up to 10 s: never in the event loop, see `append_durably`); it is for what has to be known
        after any crash before the next step is taken, an intent above all. What cannot be written is counted, and the count
        becomes a record when there is room again.

        Raises:
            CannotWrite: the disk is full, or the folder refuses; nothing of the line is left behind. With `durable` also: the disk
                did not confirm it. ValueError: it is no line of the stream.
        """
        try:
            self.appender.write(line, DURABLE_S if durable else LOCK_S)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            self.appender.losses.add(why)
            raise CannotWrite(f"cannot record in {self.folder}", why, f"df -h {self.folder}") from None
        except CannotWrite as error:
            self.appender.losses.add(error.why or error.what)
            raise
        self.close_at_exit()
        ticket = self.upkeep.appended()
        if durable:
            self.upkeep.wait(ticket, DURABLE_S)

    def prepare(self) -> None:
        """Do beside the loop what the first append would do: make the keys, look where the chain ends, sign and anchor up to there.

        Returns at once. For whoever is going to write: it creates the folder. What fails is told by the first append.
        """
        self.close_at_exit()
        self.upkeep.prepare()

    async def append_durably(self, line: bytes) -> None:
        """Append one line and have the disk confirm it, beside the event loop: for an intent, before the act.

        Raises:
            CannotWrite, ValueError: as for `append`.
        """
        import asyncio

        await asyncio.to_thread(self.append, line, durable=True)

    def close(self, within_s: float = CLOSE_S) -> None:
        """Sync, sign and anchor what was appended, but wait no longer than this. A ledger that is closed may be appended to again."""
        if self.at_exit:
            self.at_exit = False
            atexit.unregister(self.close)
            if self.upkeep.close(within_s):
                self.appender.close()

    def close_at_exit(self) -> None:
        """Whoever writes closes, by himself or at the end."""
        if not self.at_exit:
            self.at_exit = True
            atexit.register(self.close)

    def files(self) -> list[str]:
        """The names of the files that hold records, oldest first: those from before the chain, then the segments."""
        if not self.folder.is_dir():
            return []
        return [*older_in(self.folder), *map(segment_name, segments_in(self.folder))]

    def read(self, since_ns: int | None = None) -> Iterator[Envelope]:
        """Every line that can be read, oldest first; what cannot is passed over here and named by `replay` and `ledger verify`.

        With `since_ns` (wall clock, nanoseconds since 1970) files that were last written before that are passed over whole.
        """
        for name in self.files():
            yield from self.read_file(name, since_ns)

    def read_file(self, name: str, since_ns: int | None = None) -> Iterator[Envelope]:
        """The lines of one file."""
        with suppress(FileNotFoundError), os.fdopen(open_to_read(name, self.folder), "rb") as lines:
            if since_ns is not None and os.fstat(lines.fileno()).st_mtime_ns < since_ns:
                return
            for _, line in read_lines(lines):
                if not isinstance(line, BadInput):
                    yield line

    def incident_of(self, pid: int) -> IncidentOpened | None:
        """The last incident of this pid, as agent or as the process that ended; else of one that had it inside its own pid namespace."""
        return self._last(lambda event: pid in {event.process.pid, event.agent.pid}) or self._last(
            lambda event: any(each.kind == "enclosure" and each.data.get("pid_inside") == pid for each in event.evidence)
        )

    def _last(self, fits: Callable[[IncidentOpened], bool]) -> IncidentOpened | None:
        """The last incident that fits."""
        for name in reversed(self.files()):
            found = None
            for envelope in self.read_file(name):
                event = envelope.data
                if isinstance(event, IncidentOpened) and fits(event):
                    found = event
            if found is not None:
                return found
        return None
