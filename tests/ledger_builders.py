"""Ledgers for tests: real files, a real key, an anchor in a file beside the state directory."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agentscope.ledger import Ledger, Settings, keys, seals
from agentscope.ledger.chain import Link, chained, origin, read_link
from agentscope.ledger.places import FOLDER, HEAD, segment_name, segments_in
from agentscope.ledger.verifying import Verified, verify
from agentscope.model import Lost
from agentscope.record import Recorder

BOOT = "b" * 36


def recorder() -> Recorder:
    """One whose lines can be decoded."""
    return Recorder(BOOT, 10**18, host="host")


def lines(count: int, says: str = "something happened") -> list[bytes]:
    """Short lines of the stream, each another."""
    encoder = recorder()
    found = [encoder.encode(Lost(at_ns=number, source="test", count=number + 1, says=says)) for number in range(count)]
    return [line for line in found if line is not None]


def anchored(place: Path, **fields: object) -> Settings:
    """Settings whose anchor is a file in `place`, written after each round of the upkeep."""
    return Settings(anchor="file", path=str(place / "anchors"), **({"every": 1} | fields))  # type: ignore[arg-type]


def kept(state: Path, count: int, settings: Settings | None = None, says: str = "something happened") -> Settings:
    """A ledger with so many records, closed: synced, signed, anchored."""
    settings = settings or anchored(state.parent)
    ledger = Ledger(state, settings)
    for line in lines(count, says):
        ledger.append(line)
    ledger.close(10)
    return settings


def segment(state: Path, number: int = 1) -> Path:
    """A segment's file."""
    return state / FOLDER / segment_name(number)


def records(state: Path) -> list[bytes]:
    """Every line of every segment."""
    return [
        line for number in segments_in(state / FOLDER) for line in segment(state, number).read_bytes().splitlines(keepends=True)
    ]


def link_at(state: Path, seq: int) -> Link:
    """The place of the record with this number."""
    return next(link for line in records(state) if (link := read_link(line)) and link.seq == seq)


def bare(line: bytes) -> bytes:
    """A record without what the ledger added: the line of the stream."""
    return line[: line.index(b',"ledgerchain"')] + b"}\n"


def forge(state: Path, content: Iterable[bytes]) -> None:
    """What root can do: the whole chain written anew from these lines, with the real key, and a head that names no anchor."""
    public = keys.public_key(state)
    assert public is not None
    head = msgspec.json.decode((state / FOLDER / HEAD).read_bytes(), type=seals.Head)
    link, written = origin(head.chain, public), []
    for line in content:
        record, link = chained(line, link)
        written.append(record)
    for number in segments_in(state / FOLDER):
        segment(state, number).unlink()
    segment(state).write_bytes(b"".join(written))
    sign(state, link, anchor="none")


def sign(state: Path, link: Link, number: int = 1, anchor: str | None = None) -> None:
    """A head for this end of the chain, with the real key."""
    public = keys.public_key(state)
    assert public is not None
    old = msgspec.json.decode((state / FOLDER / HEAD).read_bytes(), type=seals.Head)
    head = seals.sealed(seals.head_of(state, link, number, anchor or old.anchor, public), state)
    (state / FOLDER / HEAD).write_bytes(seals.line_of(head))


def copied(state: Path, target: Path) -> Path:
    """The same state directory somewhere else."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(state, target)
    return target


def is_whole(state: Path, settings: Settings | None = None) -> Verified:
    """Assert that nothing is missing or changed."""
    found = verify(state, settings)
    assert found.whole, found.problems
    return found


def is_broken(state: Path, settings: Settings | None = None, *words: str) -> Verified:
    """Assert that something is found, and that what is said has these words."""
    found = verify(state, settings)
    assert not found.whole
    said = " / ".join(problem.what for problem in found.problems)
    for word in words:
        assert word in said, said
    return found
