"""The journal, in journald's own format: `journal:`. Each field of an event is one of `journalctl --output=verbose`.

`journalctl MESSAGE_ID=…` finds all events of one type: each type has an id, which stays what it is for ever (`message_id`). So does
`journalctl AGENTSCOPE_TYPE=agentscope.incident.opened`. The whole line of the stream is in AGENTSCOPE_EVENT.
"""

import errno
import os
import socket
import struct
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from agentscope.errors import BadInput, UsageError
from agentscope.record import Line
from agentscope.sinks import Around, Chosen, Options
from agentscope.sinks._outlet import NotTaken, Outlet
from agentscope.sinks._words import facts_of, said_of, shown

SCHEMES = ("journal",)
EXAMPLE = "journal:"
USUAL = ("ready", "agent", "incident", "remedy", "pressure", "lost")
SOCKET = Path("/run/systemd/journal/socket")
NAMESPACE = uuid.UUID("6f3c2f4e-6d6b-4a57-9a53-0d7f4d4f8a11")  # of our message ids: one a type, by its name
SEND_S = 2.0


def checked(wrong: str, to: str, options: Options) -> None:  # noqa: ARG001 - it has none
    """It has no address.

    Raises:
        BadInput: there is one.
    """
    if to not in {"journal", "journal:"}:
        raise BadInput(wrong, f"{to!r}: the journal of this machine has no address", EXAMPLE)


def opened(chosen: Chosen, around: Around) -> Outlet:
    """The journal.

    Raises:
        UsageError: there is none on this machine.
    """
    if not SOCKET.exists():
        raise UsageError("cannot write the stream to the journal", f"there is no {SOCKET}", "systemctl status systemd-journald")
    return Outlet(chosen, around, Journal(), "the journal")


def message_id(kind: str) -> str:
    """The MESSAGE_ID of a type of event, 32 hexadecimal digits (systemd.journal-fields(7))."""
    return uuid.uuid5(NAMESPACE, kind).hex


class Journal:
    """The socket of journald. Lives in the thread of its outlet."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None

    def put(self, lines: Sequence[Line]) -> None:
        """One datagram an event.

        Raises:
            NotTaken: journald is away, or does not read.
        """
        for taken, line in enumerate(lines):
            try:
                self.send(b"".join(fields_of(line)))
            except OSError as error:
                self.close()
                why = "it does not read" if isinstance(error, TimeoutError) else error.strerror or str(error)
                raise NotTaken(why, taken) from None

    def send(self, content: bytes) -> None:
        """One entry; one that is too large for a datagram goes in a sealed file in memory (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
        if self.socket is None:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self.socket.settimeout(SEND_S)
            self.socket.connect(str(SOCKET))
        try:
            self.socket.send(content)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            from agentscope.commands import file_of

            large = file_of(content)
            try:
                socket.send_fds(self.socket, [b""], [large])
            finally:
                os.close(large)

    def close(self) -> None:
        """Let go of the socket."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def fields_of(line: Line) -> Iterable[bytes]:
    """An event as fields of an entry. Names of other fields than MESSAGE begin with AGENTSCOPE_."""
    event = line.event
    kind = str(type(event).__struct_config__.tag)
    said, priority = said_of(event)
    yield field("MESSAGE", said)
    yield field("MESSAGE_ID", message_id(kind))
    yield field("PRIORITY", str(priority))
    yield field("SYSLOG_IDENTIFIER", "agentscope")
    yield field("AGENTSCOPE_TYPE", kind)
    for name, value in facts_of(event).items():
        if value is not None and value != "":
            yield field(f"AGENTSCOPE_{name}", str(value))
    yield whole(b"AGENTSCOPE_EVENT", line.encoded.rstrip(b"\n"))


def field(name: str, value: str) -> bytes:
    """One field of text that a process may have chosen: without secrets, bounded."""
    return whole(name.encode(), shown(value).encode("utf-8", "replace"))


def whole(name: bytes, raw: bytes) -> bytes:
    """One field: with "=" where it is one line, else with its length (64 bits, little endian) before it."""
    if b"\n" not in raw:
        return name + b"=" + raw + b"\n"
    return name + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
