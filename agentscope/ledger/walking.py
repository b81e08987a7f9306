"""The chain as the files have it: every record is hashed again, and what does not follow is named. No key and no anchor is needed."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from agentscope.ledger.appending import BROKEN
from agentscope.ledger.chain import Link, read_checked
from agentscope.ledger.places import open_to_read, segment_name
from agentscope.ledger.retention import RETENTION
from agentscope.model import Value

PROBLEMS_LIMIT = 100
LEDGERS_OWN = b'"id":"ledger-'


class Problem(Value, frozen=True):
    """Something missing or changed. `file` and `line` say where it was noticed; `seq` is the record's number where it has one."""

    what: str
    file: str | None = None
    line: int | None = None
    seq: int | None = None


class Noted(Value, frozen=True):
    """What the ledger recorded about itself: a torn line, records that had no room, what retention removed."""

    seq: int
    source: str
    says: str


class Run(Value, frozen=True):
    """Records from `first` to `last` each of which follows the one before and has the hash that it says."""

    first: int
    last: int


class Walk:
    """One pass over the segments. `wanted` are the numbers whose hashes are kept for a comparison with the head and the anchors."""

    def __init__(self, wanted: set[int]) -> None:
        self.wanted = wanted
        self.hashes: dict[int, str] = {}
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.noted: list[Noted] = []
        self.runs: list[Run] = []
        self.torn: list[str] = []
        self.records = 0
        self.first: Link | None = None
        self.last: Link | None = None
        self.last_file = ""
        self.started: int | None = None  # where the present run began
        self.in_segment = 0

    def walk(self, folder: Path, numbers: list[int]) -> None:
        """All segments, in order."""
        for place, number in enumerate(numbers):
            name = segment_name(number)
            if place and number != numbers[place - 1] + 1:
                self.problem(f"the file {segment_name(number - 1)} is missing", name, None, None)
            self.in_segment = 0
            with suppress(FileNotFoundError), os.fdopen(open_to_read(name, folder), "rb", buffering=1 << 20) as lines:
                self.segment(lines, name, is_last=number == numbers[-1])
        self.end_run()

    def segment(self, lines: Iterator[bytes], name: str, *, is_last: bool) -> None:
        """One file."""
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                if is_last:
                    self.torn.append(f"{name}, line {number}: {len(line)} bytes")
                else:
                    self.problem("a line is torn in a file that was finished", name, number, None)
                return
            found = read_checked(line)
            if found is None:
                self.problem("this line is no record of the chain", name, number, None)
                continue
            self.record(found[0], found[1], name, number)
            if LEDGERS_OWN in line[:64]:
                self.own(line, found[0].seq, name, number)

    def record(self, link: Link, digest: str, name: str, number: int) -> None:
        """One record: its own hash, its place, and what it follows."""
        self.records += 1
        self.in_segment += 1
        last, self.last_file = self.last, name
        if last is not None and link.seq <= last.seq:
            what = "comes again, or out of order: a second writer, or an old line put back"
            self.problem(f"record {link.seq} {what}", name, number, link.seq)
            self.in_segment -= 1
            return
        follows = self.follows(link, last, name, number)
        if digest != link.digest:
            self.problem(
                f"record {link.seq} was changed: its bytes do not have the hash that it carries", name, number, link.seq
            )
        if not follows or digest != link.digest:
            self.end_run()
        if digest == link.digest and self.started is None:
            self.started = link.seq
        if link.seq in self.wanted:
            self.hashes[link.seq] = digest
        if self.first is None:
            self.first = link
        self.last = link

    def follows(self, link: Link, last: Link | None, name: str, number: int) -> bool:
        """Whether this record is the next of the same chain; else it says why not."""
        if last is None:
            self.in_segment = link.within
            return True
        if link.chain != last.chain:
            self.problem(f"record {link.seq} is of another chain, {link.chain}", name, number, link.seq)
        elif link.seq != last.seq + 1:
            gone = f"record {last.seq + 1} is" if link.seq == last.seq + 2 else f"records {last.seq + 1} to {link.seq - 1} are"
            self.problem(f"{gone} missing before this one", name, number, link.seq)
            self.in_segment = link.within
        elif link.previous != last.digest:
            self.problem(f"record {link.seq} does not follow the one before it", name, number, link.seq)
        elif link.within != self.in_segment:
            what = f"says that it is number {link.within} of its file, and is number {self.in_segment}"
            self.problem(f"record {link.seq} {what}", name, number, link.seq)
            self.in_segment = link.within
        else:
            return self.started is not None
        return False

    def end_run(self) -> None:
        """What comes next does not follow what was."""
        if self.started is not None and self.last is not None:
            self.runs.append(Run(first=self.started, last=self.last.seq))
        self.started = None

    def own(self, line: bytes, seq: int, name: str, number: int) -> None:
        """A record of the ledger about itself."""
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            told = msgspec.json.decode(line, type=_Own)
            self.noted.append(Noted(seq=seq, source=told.data.source, says=told.data.says))
            if told.data.source == BROKEN:
                self.problem(f"agentscope itself found, as it went on: {told.data.says}", name, number, seq)

    def problem(self, what: str, file: str | None, line: int | None, seq: int | None) -> None:
        """Name it; beyond a hundred they are only counted."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_LIMIT:
            self.problems.append(Problem(what=what, file=file, line=line, seq=seq))

    def retired(self, digest: str) -> bool:
        """Whether the chain has the record of this removal."""
        return any(noted.source == RETENTION and digest in noted.says for noted in self.noted)


class _Loss(msgspec.Struct):
    source: str
    says: str = ""


class _Own(msgspec.Struct):
    data: _Loss
