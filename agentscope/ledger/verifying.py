"""`agentscope ledger verify`: whether anything is missing or changed, and up to where that is proven by what.

Reads, and changes nothing. The head and the anchors are read before the records: a writer that is at work meanwhile only adds.
"""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from agentscope.errors import BadInput, NotPermitted
from agentscope.ledger import anchors, keys, seals
from agentscope.ledger.chain import origin
from agentscope.ledger.places import FOLDER, HEAD, TOMBSTONE, host, older_in, read_small, segments_in
from agentscope.ledger.seals import Head, Tombstone
from agentscope.ledger.settings import Settings
from agentscope.ledger.walking import Noted, Problem, Run, Walk
from agentscope.model import Value

ANCHORS_NAMED = 10
ATTEMPTS = 20
PROVES = (
    "Tamper-evident up to the last anchor: what is anchored cannot be changed or removed without this command saying so, as long as the"
    " anchors are out of reach. What is only signed is proof against everybody who cannot read the signing key, which root on this"
    " machine can; what is neither is proof against accidents only. A chain never proves that something was recorded in the first place."
)


class Verified(Value, frozen=True):
    """What was found. Ranges are of record numbers, both ends included; `problems` are in the order of the files.

    `anchored`: an anchor confirms them; `signed`: only the head does; `unsigned`: they came after the head, or a break parts them
    from it. `retired` is the last number that retention removed.
    """

    whole: bool
    folder: str
    records: int
    segments: int
    first: int | None
    last: int | None
    chain: str | None
    problems: tuple[Problem, ...]
    problem_count: int
    anchored: tuple[Run, ...]
    signed: tuple[Run, ...]
    unsigned: tuple[Run, ...]
    anchor: str | None
    anchors: int
    last_anchor: str | None
    notes: tuple[str, ...]
    noted: tuple[Noted, ...]
    older: tuple[str, ...]
    retired: int | None
    proves: str = PROVES


def verify(state: Path, settings: Settings | None = None, statements: Path | None = None) -> Verified:
    """Check the ledger of this state directory against its head and its anchors.

    The anchors are those in the place that `settings` name, those in the place that the head names, and those in a file of
    `statements`: heads as they were anchored, one a line.

    Raises:
        NotPermitted: it belongs to somebody else. BadInput: `statements` cannot be read.
    """
    folder = state / FOLDER
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise NotPermitted(f"cannot read {folder}", "only its owner may", "sudo agentscope ledger verify")
    for _ in range(ATTEMPTS):
        before = removed_from(folder)
        found = checked(state, settings, statements)
        if found.whole or removed_from(folder) == before:
            break
    return found


def removed_from(folder: Path) -> tuple[bytes | None, list[int]]:
    """How far files were removed: the tombstone, genuine or not, and the oldest file that is there.

    Retention signs the one before it takes away the other. Where either is another after a pass, files went between two of its steps.
    """
    stone, oldest = None, []
    with suppress(OSError):
        stone = read_small(TOMBSTONE, folder)
    with suppress(OSError):
        oldest = segments_in(folder)[:1]
    return stone, oldest


def checked(state: Path, settings: Settings | None, statements: Path | None) -> Verified:
    """One pass; see `verify`."""
    folder, present = state / FOLDER, (state / FOLDER).is_dir()
    check = Check(state)
    told, notes = gathered(state, check.head, settings, statements)
    numbers = segments_in(folder) if present else []
    walk = check.walk = Walk(check.points(told))
    walk.walk(folder, numbers)
    check.begins()
    check.against_head(numbers)
    good = check.against_anchors(told)
    anchored, signed, unsigned = ranges(walk, good, check.head)
    problems, head = (*walk.problems, *check.problems), check.head
    return Verified(
        whole=not problems, folder=str(folder), records=walk.records, segments=len(numbers), chain=check.chain,
        first=walk.first.seq if walk.first else None, last=walk.last.seq if walk.last else None,
        problems=problems, problem_count=walk.problem_count + len(check.problems),
        anchored=anchored, signed=signed, unsigned=unsigned,
        anchor=head.anchor if head else None, anchors=len(good), last_anchor=max((each.time for each in good), default=None),
        notes=(*notes, *(f"a line is not finished yet, or torn by a crash: {torn}" for torn in walk.torn)),
        noted=tuple(walk.noted), older=tuple(older_in(folder)) if present else (), retired=check.stone.seq if check.stone else None,
    )  # fmt: skip


class Check:
    """One ledger against what is signed and what is anchored; `problems` are what the walk itself cannot see."""

    def __init__(self, state: Path) -> None:
        self.folder = state / FOLDER
        self.problems: list[Problem] = []
        self.public = keys.public_key(state)
        self.head = self.seal_of(HEAD, Head)
        self.stone = self.seal_of(TOMBSTONE, Tombstone)
        self.walk = Walk(set())

    @property
    def chain(self) -> str | None:
        """The chain that is here."""
        return self.walk.last.chain if self.walk.last is not None else self.head.chain if self.head is not None else None

    @property
    def last(self) -> int:
        """The number of the last record that is here; 0 where there is none."""
        return self.walk.last.seq if self.walk.last is not None else 0

    @property
    def retired(self) -> int:
        """The last number that retention removed; 0 where it did not."""
        return self.stone.seq if self.stone is not None and self.stone.chain == self.chain else 0

    def problem(self, what: str, file: str | None = None, seq: int | None = None) -> None:
        """Name one."""
        self.problems.append(Problem(what=what, file=file, seq=seq))

    def seal_of(self, name: str, kind: type[seals.Seal]) -> seals.Seal | None:
        """The head or the tombstone, if it is genuine; else a problem says why not."""
        try:
            found = seals.read_seal(name, kind, self.folder)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.problem(f"{name} cannot be read: {error}", name)
            return None
        if found is None:
            return None
        if self.public is None:
            self.problem("the public key is missing or damaged, so signatures prove nothing", keys.PUBLIC)
            return found
        if not seals.is_genuine(found, self.public):
            self.problem(f"the signature of {name} is wrong, or made by another key", name)
            return None
        return found

    def points(self, told: list[tuple[str, Head]]) -> set[int]:
        """The numbers of the records that something else names."""
        named = {each.seq for _, each in told}
        return named | ({self.head.seq} if self.head else set()) | ({self.stone.seq} if self.stone else set())

    def begins(self) -> None:
        """The first record that is here is the first that there was, or retention removed what was before it."""
        first, gone = self.walk.first, self.retired
        if first is None:
            return
        if first.seq == 1:
            if self.public is not None and first.previous != origin(first.chain, self.public).digest:
                self.problem("the chain began under another signing key", keys.PUBLIC, 1)
            return
        if first.seq > gone + 1:
            self.problem(f"records {gone + 1} to {first.seq - 1} are missing, and no retention removed them", seq=gone + 1)
        if self.stone is None or not gone:
            return
        removed = first.previous if first.seq == gone + 1 else self.walk.hashes.get(gone, self.stone.hash)
        if removed != self.stone.hash:
            self.problem(f"record {gone} is not the one that the tombstone names", TOMBSTONE, gone)
        if not self.walk.retired(self.stone.hash):
            self.problem("the chain has no record of what the tombstone says was removed", TOMBSTONE, gone)

    def against_head(self, numbers: list[int]) -> None:
        """The chain goes at least as far as its head, by the same record."""
        head, hashes = self.head, self.walk.hashes
        if head is None:
            if numbers and not any(problem.file == HEAD for problem in self.problems):
                self.problem("the signed head is missing", HEAD)
        elif self.walk.last is not None and self.chain != head.chain:
            self.problem("the head is that of another chain", HEAD)
        elif head.seq > self.last:
            since = max(self.last, self.retired) + 1
            what = f"records {since} to {head.seq} are missing at the end: the head, signed at {head.time}, names them"
            self.problem(what, self.walk.last_file or None, since)
        elif hashes.get(head.seq, head.hash) != head.hash:
            self.problem(f"record {head.seq} is not the one that was signed at {head.time}", HEAD, head.seq)

    def against_anchors(self, told: list[tuple[str, Head]]) -> list[Head]:
        """The anchors that the records bear out. Of those that they do not, the earliest are named, and the one that goes furthest."""
        good: list[Head] = []
        bad: list[tuple[int, str]] = []
        beyond = [(where, each) for where, each in told if each.chain == self.chain and each.seq > self.last]
        for where, each in told:
            if each.chain != self.chain:
                continue
            if self.public is not None and not seals.is_genuine(each, self.public):
                bad.append((each.seq, f"{where}: this anchor is signed by another key, or was changed"))
            elif self.walk.hashes.get(each.seq, each.hash) != each.hash:
                bad.append((each.seq, f"record {each.seq} is not the one that was anchored at {each.time} ({where})"))
            elif each.seq in self.walk.hashes:
                good.append(each)
        for seq, what in sorted(bad)[:ANCHORS_NAMED]:
            self.problem(what, seq=seq)
        if beyond:
            where, each = max(beyond, key=lambda one: one[1].seq)
            what = f"records {self.last + 1} to {each.seq} are missing at the end: they were anchored at {each.time} ({where})"
            self.problem(what, self.walk.last_file or None, self.last + 1)
        self.whole_chains(told)
        return good

    def whole_chains(self, told: list[tuple[str, Head]]) -> None:
        """Chains that were anchored from this folder, and of which nothing is left in it."""
        gone: dict[str, tuple[str, Head]] = {}
        for where, each in told:
            if each.chain != self.chain and each.seq > (gone[each.chain][1].seq if each.chain in gone else 0):
                gone[each.chain] = (where, each)
        for where, each in gone.values():
            self.problem(f"a whole chain is missing: {each.chain}, which had {each.seq} records at {each.time} ({where})")


def gathered(
    state: Path, head: Head | None, settings: Settings | None, statements: Path | None
) -> tuple[list[tuple[str, Head]], list[str]]:
    """Every anchored head of this ledger, from every place that is known, and what could not be asked."""
    notes: list[str] = []
    places = {anchors.place_of(settings)} if settings is not None else set()
    places |= {head.anchor} if head is not None else {anchors.place_of(Settings())}
    told: list[tuple[str, Head]] = [] if statements is None else anchors.from_file(statements)
    for place in sorted(places):
        try:
            if place == "journal":
                told += anchors.from_journal()
            elif place.startswith("file:"):
                told += anchors.from_file(Path(place.removeprefix("file:")))
            elif place == "exec" and statements is None:
                notes.append("the anchors went to a command: give what it kept with --anchors FILE")
        except BadInput as error:
            notes.append(str(error))
    words, here = seals.folder_words(state), host()
    chain = head.chain if head is not None else None
    return [(where, each) for where, each in told if each.chain == chain or (each.folder, each.host) == (words, here)], notes


def ranges(walk: Walk, good: list[Head], head: Head | None) -> tuple[tuple[Run, ...], tuple[Run, ...], tuple[Run, ...]]:
    """What is anchored, what is only signed, and what is neither: a seal confirms its record, and all before it up to a break."""
    sealed_at = head.seq if head is not None and walk.hashes.get(head.seq) == head.hash else 0
    points = sorted(each.seq for each in good)
    anchored: list[Run] = []
    signed: list[Run] = []
    unsigned: list[Run] = []
    for run in walk.runs:
        upto = max((seq for seq in points if run.first <= seq <= run.last), default=run.first - 1)
        then = max(upto, sealed_at) if run.first <= sealed_at <= run.last else upto
        for into, first, last in ((anchored, run.first, upto), (signed, upto + 1, then), (unsigned, then + 1, run.last)):
            if first <= last:
                into.append(Run(first=first, last=last))
    return tuple(anchored), tuple(signed), tuple(unsigned)
