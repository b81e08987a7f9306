"""The record on disk: every line of an incident, appended to `STATE/ledger/*.ndjson`, readable by its owner only.

A later version chains and signs the lines; the format of a line is already that of the stream.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from agentscope.errors import BadInput, CannotWrite
from agentscope.model import IncidentOpened
from agentscope.record import Envelope, read_lines

DEFAULT_STATE_DIR = Path("/var/lib/agentscope")


def state_dir(given: str | None = None) -> Path:
    """Where the record lives: as given, `AGENTSCOPE_STATE_DIR`, /var/lib/agentscope for root, else below the user's own state."""
    named = given or os.environ.get("AGENTSCOPE_STATE_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return DEFAULT_STATE_DIR
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "agentscope"


class Ledger:
    """Appends lines and reads them back. Opening is lazy, so that reading commands never create a folder."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "ledger"
        self.descriptor: int | None = None

    def append(self, line: bytes) -> None:
        """Append one line, whole or not at all.

        Raises:
            CannotWrite: the disk is full, or the folder refuses; nothing of the line is left behind.
        """
        try:
            if self.descriptor is None:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                name = self.folder / "incidents.ndjson"
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self.descriptor = os.open(name, flags, 0o600)
            before = os.fstat(self.descriptor).st_size
            written = os.write(self.descriptor, line)
            if written != len(line):
                os.ftruncate(self.descriptor, before)
                raise CannotWrite(f"cannot record in {self.folder}", "the disk is full", f"df -h {self.folder}")
        except OSError as error:
            raise CannotWrite(
                f"cannot record in {self.folder}", os.strerror(error.errno or 0), f"df -h {self.folder}"
            ) from None

    def read(self) -> Iterator[Envelope]:
        """Every line that can be read, oldest first; what cannot is passed over here and named by `replay`."""
        if not self.folder.is_dir():
            return
        for name in sorted(self.folder.glob("*.ndjson")):
            with name.open("rb") as lines:
                for _, line in read_lines(lines):
                    if not isinstance(line, BadInput):
                        yield line

    def incident_of(self, pid: int) -> IncidentOpened | None:
        """The last incident of this pid, as agent or as the process that ended."""
        found = None
        for envelope in self.read():
            event = envelope.data
            if isinstance(event, IncidentOpened) and pid in {event.process.pid, event.agent.pid}:
                found = event
        return found
