"""Everything that can be done to a ledger's files is found: without the key by the chain and its head, with the key by the anchors."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentscope.ledger import Ledger, Settings
from agentscope.ledger.chain import chained, read_link
from agentscope.ledger.places import FOLDER, HEAD, TOMBSTONE
from agentscope.ledger.verifying import verify
from tests.ledger_builders import (
    anchored,
    bare,
    copied,
    forge,
    is_broken,
    is_whole,
    kept,
    lines,
    link_at,
    records,
    segment,
    sign,
)

RECORDS = 12


def edit(given: list[bytes]) -> list[bytes]:
    """One word of the fifth record is another."""
    return [*given[:4], given[4].replace(b"something", b"anything"), *given[5:]]


def reorder(given: list[bytes]) -> list[bytes]:
    """Two records change places."""
    return [*given[:4], given[5], given[4], *given[6:]]


def insert(given: list[bytes]) -> list[bytes]:
    """A line that was never told."""
    return [*given[:4], lines(1, "never told")[0], *given[4:]]


def repeat(given: list[bytes]) -> list[bytes]:
    """A record stands twice."""
    return [*given[:5], *given[4:]]


def remove(given: list[bytes]) -> list[bytes]:
    """A record inside is taken out."""
    return [*given[:4], *given[5:]]


def behead(given: list[bytes]) -> list[bytes]:
    """The first records are taken away."""
    return given[3:]


def cut(given: list[bytes]) -> list[bytes]:
    """The last records are taken away."""
    return given[:-3]


def empty(_: list[bytes]) -> list[bytes]:
    """Nothing is left in the file."""
    return []


def join(given: list[bytes]) -> list[bytes]:
    """A newline between two records is gone."""
    return [*given[:4], given[4].rstrip(b"\n"), *given[5:]]


MUTATIONS = (edit, reorder, insert, repeat, remove, behead, cut, empty)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A ledger of a dozen records in one file, its last record signed and anchored."""
    place = tmp_path_factory.mktemp("original")
    kept(place / "state", RECORDS)
    return place / "state"


@pytest.fixture
def state(original, tmp_path):
    """A copy of it whose anchors are those of the original: the second place is out of reach."""
    return copied(original, tmp_path / "state")


def the_anchors(original: Path) -> Path:
    """The file of the second place."""
    return original.parent / "anchors"


@pytest.mark.parametrize("mutation", [*MUTATIONS, join])
def test_without_the_key_every_change_is_found(mutation, state):
    """Whoever cannot sign cannot change, move, insert, repeat or remove a record, at the end neither, unnoticed."""
    changed = mutation(records(state))
    segment(state).write_bytes(b"".join(changed))
    found = is_broken(state)
    assert all(problem.what for problem in found.problems)
    assert found.problem_count == len(found.problems)


@pytest.mark.parametrize(
    ("mutation", "line", "seq", "words"),
    [
        (edit, 5, 5, "record 5 was changed"),
        (reorder, 5, 6, "record 5 is missing before this one"),
        (insert, 5, None, "this line is no record of the chain"),
        (repeat, 6, 5, "record 5 comes again"),
        (remove, 5, 6, "record 5 is missing before this one"),
        (behead, None, 1, "records 1 to 3 are missing, and no retention removed them"),
        (cut, None, 10, "records 10 to 12 are missing at the end: the head, signed at"),
        (empty, None, 1, "records 1 to 12 are missing at the end: the head, signed at"),
    ],
)
def test_the_first_bad_record_is_named(state, mutation, line, seq, words):
    """The first problem says which file, which line, which record, and what is wrong with it."""
    segment(state).write_bytes(b"".join(mutation(records(state))))
    first = is_broken(state).problems[0]
    assert (first.line, first.seq) == (line, seq)
    assert words in first.what
    if line is not None:
        assert first.file == segment(state).name


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_with_the_key_every_change_is_found_at_the_anchor(mutation, state, original):
    """Root can write the whole chain anew and sign it: it is whole by itself, and contradicts what was anchored."""
    forge(state, mutation([bare(line) for line in records(state)]))
    is_whole(state)
    found = verify(state, None, the_anchors(original))
    assert not found.whole
    assert any("anchored at" in problem.what for problem in found.problems)


@pytest.mark.parametrize("mutation", [edit, insert, remove, cut])
def test_what_came_after_the_last_anchor_can_be_forged(mutation, tmp_path):
    """What the docstring admits: who has the key can change what is not anchored yet, and the ranges say that it is not."""
    state = tmp_path / "state"
    kept(state, RECORDS, Settings(anchor="none"))
    forge(state, mutation([bare(line) for line in records(state)]))
    found = is_whole(state)
    assert found.anchored == ()
    assert found.signed


def test_a_tail_that_is_cut_stays_missed(state, original):
    """A writer that goes on after its end was cut does not hide the gap, though it signs and anchors anew."""
    segment(state).write_bytes(b"".join(records(state)[:-2]))
    settings = kept(state, 3, anchored(state.parent))
    found = is_broken(state, settings, "records 11 to 12 are missing before this one", "agentscope itself found")
    assert found.last == 16
    assert [(run.first, run.last) for run in found.anchored] == [(13, 16)]
    assert [(run.first, run.last) for run in found.unsigned] == [(1, 10)]
    is_broken(state, None, "records 11 to 12")


def test_a_tail_that_is_cut_and_replaced_stays_missed(state):
    """Records put in place of the last ones, well chained, are noticed by the next writer and stay noticed."""
    given = records(state)[:-2]
    before, forged = read_link(given[-1]), []
    for line in lines(5, "forged"):
        record, before = chained(line, before)
        forged.append(record)
    segment(state).write_bytes(b"".join([*given, *forged]))
    is_broken(state, None, "record 12 is not the one that was signed")
    kept(state, 3)
    is_broken(state, None, "record 12 is not the one that was signed")


@pytest.mark.parametrize("how", ["cut", "replaced", "removed"])
def test_a_running_writer_remembers(tmp_path, how):
    """What is cut, replaced or removed under a running writer leaves a gap, however soon it is done and whatever the head says."""
    state = tmp_path / "state"
    settings = kept(state, 3)
    ledger = Ledger(state, settings)
    for line in lines(3):
        ledger.append(line, durable=True)
    if how == "cut":
        segment(state).write_bytes(b"".join(records(state)[:-2]))
        sign(state, link_at(state, 4))
    elif how == "replaced":
        forge(state, [bare(line) for line in records(state)[:-1]] + lines(1, "forged"))
    else:
        segment(state).unlink()
        (state / FOLDER / HEAD).write_bytes((state / FOLDER / HEAD).read_bytes())
    ledger.append(lines(1)[0])
    ledger.close()
    found = is_broken(state, settings, "agentscope itself found")
    assert found.last is not None
    assert found.last >= 8


def test_a_second_writer_that_ignores_the_lock_is_found(state):
    """Two records that follow the same one are a fork: the second is named."""
    last = link_at(state, RECORDS)
    with segment(state).open("ab") as file:
        for says in ("one", "other"):
            file.write(chained(lines(1, says)[0], last)[0])
    found = is_broken(state, None, "record 13 comes again, or out of order: a second writer")
    assert (found.problems[0].line, found.problems[0].seq) == (14, 13)


def test_a_whole_file_that_is_gone_is_found(tmp_path):
    """A segment at the beginning, inside or at the end that is deleted is named by the records that it had."""
    state = tmp_path / "state"
    settings = anchored(tmp_path, segment_bytes=1500)
    for _ in range(5):
        kept(state, 4, settings)
    numbers = sorted(int(path.stem[-8:]) for path in (state / FOLDER).glob("chain-*"))
    assert len(numbers) >= 5
    for number in numbers:
        copy = copied(state, tmp_path / "copy")
        if segment(copy, number).stat().st_size == 0:
            continue
        segment(copy, number).unlink()
        is_broken(copy, settings, "missing")
    (state / FOLDER / HEAD).unlink()
    is_broken(state, settings, "the signed head is missing")


def test_a_whole_ledger_that_is_gone_is_found(state, original, tmp_path):
    """Deleted with its head, or begun anew in its place, it is missed by who has the anchors; the folder's name finds them."""
    anchors = anchored(original.parent)
    shutil.rmtree(original / FOLDER)
    try:
        is_broken(original, anchors, "a whole chain is missing", "12 records")
        kept(original, 2, anchored(tmp_path))
        is_broken(original, anchors, "a whole chain is missing", "12 records")
    finally:
        copied(state, original)


def test_an_old_copy_put_back_is_found(tmp_path):
    """The whole state directory of yesterday, in itself without fault, contradicts the anchors of today."""
    state = tmp_path / "state"
    settings = kept(state, 5)
    yesterday = copied(state, tmp_path / "yesterday")
    kept(state, 4, settings)
    is_whole(state, settings)
    copied(yesterday, state)
    is_broken(state, settings, "records 6 to 9 are missing at the end: they were anchored at")
    kept(state, 6, settings, "told today")
    is_broken(state, settings, "record 9 is not the one that was anchored")


def test_another_key_is_found(state, original, tmp_path):
    """A ledger that is signed anew with another key is not taken for this one, whatever else is consistent in it."""
    kept(tmp_path / "other", 1, anchored(tmp_path / "other"))
    for name in ("ledger.key", "ledger.pub"):
        shutil.copy(tmp_path / "other" / name, state / name)
    is_broken(state, None, "signature of head.json is wrong", "under another signing key")
    sign(state, link_at(state, RECORDS))
    is_broken(state, None, "under another signing key")
    forge(state, [bare(line) for line in records(state)])
    is_whole(state)
    found = verify(state, None, the_anchors(original))
    assert any("signed by another key" in problem.what for problem in found.problems)
    (state / "ledger.pub").unlink()
    is_broken(state, None, "public key is missing")


def test_retention_cannot_be_pretended(tmp_path):
    """Old segments may go with a signed tombstone and a record of it; a tombstone alone, another's or a changed one is no excuse."""
    state = tmp_path / "state"
    settings = anchored(tmp_path, segment_bytes=2500, keep_bytes=9000)
    for _ in range(6):
        kept(state, 4, settings)
    found = is_whole(state, settings)
    assert found.retired
    stone = state / FOLDER / TOMBSTONE
    content = stone.read_bytes()
    stone.unlink()
    is_broken(state, settings, f"records 1 to {found.retired} are missing, and no retention removed them")
    stone.write_bytes(content.replace(b'"seq":', b'"seq":1'))
    is_broken(state, settings, "signature of tombstone.json is wrong")
    stone.write_bytes(content)
    is_whole(state, settings)
    oldest = min((state / FOLDER).glob("chain-*"))
    oldest.unlink()
    is_broken(state, settings, "are missing, and no retention removed them")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), how=st.sampled_from(["replace", "insert", "remove"]))
def test_no_byte_can_be_changed(state, place, byte, how):
    """Any byte of the records replaced, inserted or removed is found, wherever it is."""
    content = segment(state).read_bytes()
    at = int(place * len(content))
    new = {
        "replace": content[:at] + bytes([byte]) + content[at + 1 :],
        "insert": content[:at] + bytes([byte]) + content[at:],
        "remove": content[:at] + content[at + 1 :],
    }[how]
    if new == content:
        return
    segment(state).write_bytes(new)
    try:
        is_broken(state)
    finally:
        segment(state).write_bytes(content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, RECORDS - 1), max_size=RECORDS + 3))
def test_no_other_order_is_whole(state, original, order):
    """Of all ways to put the records together again, only the one as it was is whole; forged with the key, only that one is anchored."""
    given = records(state)
    chosen = [given[index] for index in order]
    segment(state).write_bytes(b"".join(chosen))
    try:
        assert verify(state).whole == (order == list(range(RECORDS)))
        if chosen:
            forge(state, [bare(line) for line in chosen])
            assert verify(state, None, the_anchors(original)).whole == (order[:RECORDS] == list(range(RECORDS)))
    finally:
        copied(original, state)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([HEAD, "../ledger.pub"]), place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_no_byte_of_the_seal_can_be_changed(state, name, place, byte):
    """A changed head or key is found, or says the same as before."""
    path = state / FOLDER / name
    content = path.read_bytes()
    at = int(place * len(content))
    path.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
    try:
        found = verify(state)
        assert not found.whole or (found.last, found.anchored) == (RECORDS, verify_of(path, content, state).anchored)
    finally:
        path.write_bytes(content)


def verify_of(path: Path, content: bytes, state: Path):
    """What is found with this content."""
    path.write_bytes(content)
    return verify(state)
