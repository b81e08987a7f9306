"""What the `[ledger]` table of the config decides: how large, how long, and where the head is anchored."""

import re
from typing import Any, Literal

import msgspec

from agentscope.durations import seconds_of
from agentscope.errors import BadInput
from agentscope.model import Value

SIZE = re.compile(r"([0-9]{1,9}) ?([KMGT])")
BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
ANCHOR_HINT = (
    'anchor = "journal", "none", "file:/mnt/other/agentscope.heads" or { exec = ["/usr/local/bin/send-head"], user = "backup" }'
)
TABLE_HINT = '[ledger] with anchor = "journal", every = 100, within = "60s", segment = "16M", keep = "1G", keep_for = "90d"'

Place = Literal["journal", "file", "exec", "none"]


class Settings(Value, frozen=True):
    """How a ledger is kept. Without a config the head goes to the journal where there is one, and nowhere else.

    `anchor` None is that default; `path` is the file of "file", `command` and `user` are those of "exec". A command that root
    has run does not run as root: it is `user`, else whoever owns the config (`owner_uid`), else nobody.
    """

    anchor: Place | None = None
    path: str = ""
    command: tuple[str, ...] = ()
    user: str | None = None
    every: int = 100  # records between two anchors, and
    within_s: float = 60.0  # how long a record may be without one
    segment_bytes: int = 16 << 20
    keep_bytes: int = 1 << 30  # the oldest segments go when all are more than this
    keep_s: float | None = None  # or when their last record is older than this
    owner_uid: int = 0


class _ExecTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`anchor` written as a command."""

    command: tuple[str, ...] = msgspec.field(name="exec")
    user: str | None = None


class _LedgerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table as it is written."""

    anchor: str | _ExecTable | None = None
    every: int = 100
    within: str = "60s"
    segment: str = "16M"
    keep: str = "1G"
    keep_for: str | None = None


def read_settings(wrong: str, table: dict[str, Any], owner_uid: int) -> Settings:
    """The `[ledger]` table, checked. `wrong` begins the sentence of what is not right.

    Raises:
        BadInput: a field is of the wrong kind or out of bounds; it says which and what to type.
    """
    try:
        given = msgspec.convert(table, _LedgerTable)
    except msgspec.ValidationError as error:
        raise BadInput(wrong, str(error), TABLE_HINT) from None
    if not 1 <= given.every <= 1_000_000:
        raise BadInput(f"{wrong}: every", f"{given.every} is not from 1 to 1000000 records", TABLE_HINT)
    segment_bytes = bytes_of(f"{wrong}: segment", given.segment, 64 << 10, 1 << 30)
    return msgspec.structs.replace(
        anchor_of(f"{wrong}: anchor", given.anchor),
        every=given.every,
        within_s=seconds_of(f"{wrong}: within", given.within, 1, 86400),
        segment_bytes=segment_bytes,
        keep_bytes=bytes_of(f"{wrong}: keep", given.keep, 2 * segment_bytes, 1 << 50),
        keep_s=None if given.keep_for is None else seconds_of(f"{wrong}: keep_for", given.keep_for, 3600, 3650 * 86400),
        owner_uid=owner_uid,
    )


def anchor_of(wrong: str, given: str | _ExecTable | None) -> Settings:
    """Where the head goes.

    Raises:
        BadInput: there is no such place.
    """
    if isinstance(given, _ExecTable):
        if not given.command or not given.command[0].startswith("/") or any("\0" in word for word in given.command):
            raise BadInput(wrong, "it begins with a program by its path from / on; each word is its own", ANCHOR_HINT)
        return Settings(anchor="exec", command=given.command, user=given.user)
    if given is None:
        return Settings()
    if given.startswith("file:"):
        path = given.removeprefix("file:")
        if not path.startswith("/") or "\0" in path:
            raise BadInput(wrong, f"{given!r}: a file has a path from / on", ANCHOR_HINT)
        return Settings(anchor="file", path=path)
    if given in {"journal", "none"}:
        return Settings(anchor="journal" if given == "journal" else "none")
    raise BadInput(wrong, f"{given!r} is no place that is known", ANCHOR_HINT)


def bytes_of(wrong: str, text: str, least: int, most: int) -> int:
    """A size such as "16M" or "1G", in bytes.

    Raises:
        BadInput: it is none, or out of bounds.
    """
    found = SIZE.fullmatch(text)
    if found is None:
        raise BadInput(wrong, f"{text!r} is no size", '"512K", "16M" or "1G"')
    size = int(found[1]) * BYTES[found[2]]
    if not least <= size <= most:
        raise BadInput(wrong, f"{text!r} is not from {least:,} to {most:,} bytes", TABLE_HINT)
    return size
