"""What is signed: the head, which says how far the chain goes, and the tombstone, which says what retention removed.

Both are canonical JSON (RFC 8785) with the signature as one more member, so that they survive being passed on, indented or sorted
by whoever keeps them: their numbers are small, and they hold nothing that another process wrote. The head is also the statement
that is anchored.
"""

import datetime as dt
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from agentscope.ledger import keys
from agentscope.ledger.chain import Link
from agentscope.ledger.places import FOLDER, HEAD, host, read_small
from agentscope.model import Value


class Head(Value, frozen=True, tag="agentscope.ledger.head", tag_field="type"):
    """The chain as it was at `time`: its last record and that record's place. `key` is the public key in hex.

    `host` and `folder` say which ledger it is: they find the anchors of one that is gone altogether.
    """

    chain: str
    seq: int
    count: int
    segment: int
    hash: str
    time: str
    host: str
    folder: str
    anchor: str
    key: str
    signature: str = ""


class Tombstone(Value, frozen=True, tag="agentscope.ledger.tombstone", tag_field="type"):
    """What retention removed: every record up to `seq`, whose hash was `hash`; the segments up to number `segment`."""

    chain: str
    seq: int
    segment: int
    hash: str
    time: str
    key: str
    signature: str = ""


Seal = TypeVar("Seal", Head, Tombstone)


def head_of(state: Path, link: Link, segment: int, anchor: str, public: bytes) -> Head:
    """The head for this last record, not signed yet."""
    return Head(
        chain=link.chain, seq=link.seq, count=link.within, segment=segment, hash=link.digest, time=now(), host=host(),
        folder=folder_words(state), anchor=anchor, key=public.hex(),
    )  # fmt: skip


def folder_words(state: Path) -> str:
    """The folder as a head names it."""
    return os.fsencode((state / FOLDER).absolute()).decode("utf-8", "replace")


def now() -> str:
    """RFC 3339 in UTC, whole seconds."""
    return dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def body_of(seal: Head | Tombstone) -> bytes:
    """What is signed: everything but the signature, in canonical form."""
    import rfc8785

    fields = msgspec.to_builtins(seal)
    del fields["signature"]
    return rfc8785.dumps(fields)


def sealed(seal: Seal, state: Path) -> Seal:
    """The same with its signature.

    Raises:
        CannotWrite: the key is missing or is none.
    """
    signature = keys.load(state).sign(body_of(seal))
    return msgspec.structs.replace(seal, signature=signature.hex())


def line_of(seal: Head | Tombstone) -> bytes:
    """One line, canonical."""
    import rfc8785

    return rfc8785.dumps(msgspec.to_builtins(seal)) + b"\n"


def is_genuine(seal: Head | Tombstone, public: bytes) -> bool:
    """Whether this key signed it, and it says so itself."""
    try:
        signature = bytes.fromhex(seal.signature)
    except ValueError:
        return False
    return seal.key == public.hex() and keys.is_signed(public, body_of(seal), signature)


def read_seal(name: str, kind: type[Seal], folder: int | Path) -> Seal | None:
    """The one that is kept; None where there is none.

    Raises:
        msgspec.DecodeError: it is damaged. OSError: it cannot be read.
    """
    found = read_small(name, folder)
    return None if found is None else msgspec.json.decode(found, type=kind)


def kept_head(folder: int | Path) -> Head | None:
    """The head that is kept, its signature unchecked; None where there is none that can be read."""
    try:
        return read_seal(HEAD, Head, folder)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
