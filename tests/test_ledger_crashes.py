"""Whatever instant a writer is killed in, the ledger is whole, has what was confirmed, and goes on."""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from agentscope.ledger import Ledger, Settings, verifying, walking
from agentscope.ledger.places import FOLDER, segment_name, segments_in
from agentscope.model import Lost
from tests.ledger_builders import anchored, copied, is_whole, kept, lines, records, segment


def test_a_crash_at_every_byte_of_a_write(tmp_path):
    """Cut after any byte of its last line, the ledger keeps all before it, sets the piece aside by name, and goes on."""
    settings = kept(tmp_path / "base", 2, Settings(anchor="none"))
    head = (tmp_path / "base" / FOLDER / "head.json").read_bytes()
    kept(tmp_path / "base", 1, settings)
    (tmp_path / "base" / FOLDER / "head.json").write_bytes(head)  # it is signed after the write
    whole = segment(tmp_path / "base").read_bytes()
    before = b"".join(records(tmp_path / "base")[:2])
    state = tmp_path / "state"
    (line,) = lines(1)
    for length in range(len(before), len(whole)):
        copied(tmp_path / "base", state)
        segment(state).write_bytes(whole[:length])
        is_whole(state)
        ledger = Ledger(state, settings)
        if length % 50:
            ledger.appender.write(line, 1)  # without the thread that syncs and signs
            ledger.appender.close()
        else:
            ledger.append(line)
            ledger.close()
        torn = [path for path in (state / FOLDER).iterdir() if path.name.startswith("torn-")]
        content = segment(state).read_bytes()
        assert content.startswith(before)
        assert [path.read_bytes() for path in torn] == ([whole[len(before) : length]] if length > len(before) else [])
        assert content.count(b"\n") == 3 + len(torn)
        assert all(path.name.encode() in content for path in torn)
        is_whole(state)


@pytest.mark.parametrize("scenario", ["beginning", "rotation", "retention"])
def test_a_crash_at_every_step(tmp_path, scenario):
    """Killed at any call that changes the disk (the first key, a write, a sync, a rename, a removal), nothing is missed afterwards."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.ledger_crasher", str(tmp_path), scenario],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    assert int(told.stdout) > 30


def test_a_ledger_that_is_written_can_be_verified(tmp_path):
    """While a writer appends, rotates, removes, signs and anchors as fast as it can, every verification finds the ledger whole."""
    state = tmp_path / "state"
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            WRITER.replace("segment_bytes=100_000", "segment_bytes=20_000, keep_bytes=100_000"),
            str(state),
            "x",
        ],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    reader = threading.Thread(target=writer.stdout.read, daemon=True)
    writer.stdout.readline()
    reader.start()
    settings, ends = anchored(tmp_path), time.monotonic() + 4
    try:
        seen = {is_whole(state, settings).last for _ in iter(lambda: time.monotonic() < ends, False)}
    finally:
        writer.kill()
        writer.wait()
    assert len(seen) > 5
    assert is_whole(state, settings).retired


def test_a_file_that_retention_removes_under_a_verification(tmp_path, monkeypatch):
    """Removed between two steps of a pass, and of the next ones as well, it is no theft; taken away without retention, it is."""
    state, settings = tmp_path / "state", Settings(anchor="none", segment_bytes=2_000, keep_bytes=6_000)
    kept(state, 40, settings)
    assert is_whole(state, settings).retired
    passes = []
    gathered = verifying.gathered

    def with_retention(*asked):
        passes.append(len(passes))
        if len(passes) <= 5:
            kept(state, 40, settings)
        return gathered(*asked)

    monkeypatch.setattr(verifying, "gathered", with_retention)
    assert is_whole(state, settings).retired
    assert len(passes) == 6
    monkeypatch.setattr(verifying, "gathered", gathered)
    kept(state, 10, settings)
    (state / FOLDER / segment_name(segments_in(state / FOLDER)[0])).unlink()
    assert not verifying.verify(state, settings).whole


def test_files_that_go_after_their_tombstone_was_signed(tmp_path, monkeypatch):
    """Retention has signed and goes on to remove, the first file while it is read and the second before: that is no theft."""
    state, settings = tmp_path / "state", Settings(anchor="none", segment_bytes=2_000, keep_bytes=1_000_000)
    for _ in range(6):  # a segment each
        kept(state, 10, settings)
    folder, opened = state / FOLDER, walking.open_to_read
    copied(state, tmp_path / "before")
    kept(state, 1, Settings(anchor="none", segment_bytes=2_000, keep_bytes=6_000))
    going = sorted(set(segments_in(tmp_path / "before" / FOLDER)) - set(segments_in(folder)))
    assert len(going) > 2
    for number in going:  # as retention leaves it between the tombstone and the removal
        shutil.copy(tmp_path / "before" / FOLDER / segment_name(number), folder)
    assert is_whole(state, settings).retired

    def removing(name, within):
        descriptor = opened(name, within)
        for number in going:
            (folder / segment_name(number)).unlink(missing_ok=True)
        return descriptor

    monkeypatch.setattr(walking, "open_to_read", removing)
    assert is_whole(state, settings).retired


WRITER = """
import sys
from pathlib import Path
from agentscope.ledger import Ledger, Settings
from tests.ledger_builders import anchored, lines
state, name = Path(sys.argv[1]), sys.argv[2]
ledger = Ledger(state, anchored(state.parent, segment_bytes=100_000, every=50))
for number, line in enumerate(lines(100_000, name)):
    ledger.append(line, durable=number % 10 == 0)
    sys.stdout.write(f"{number + 1}\\n")
    sys.stdout.flush()
"""


def test_writers_that_are_killed_again_and_again(tmp_path):
    """Kill -9 at random instants, two writers at a time: the chain is whole, and every append that returned is there."""
    state = tmp_path / "state"
    chance = random.Random(5)
    returned: dict[str, int] = {}
    for round_ in range(6):
        writers = {}
        for number in range(2):
            name = f"writer-{round_}-{number}"
            writers[name] = subprocess.Popen([sys.executable, "-c", WRITER, str(state), name], stdout=subprocess.PIPE)
        first = [writer.stdout.readline() for writer in writers.values() if writer.stdout]
        time.sleep(chance.uniform(0, 0.2))
        for name, writer in writers.items():
            writer.send_signal(signal.SIGKILL)
            out, _ = writer.communicate()
            said = (first.pop(0) + out).split(b"\n")[:-1]
            returned[name] = int(said[-1])
        is_whole(state)
    kept(state, 1, anchored(tmp_path))
    found = is_whole(state, anchored(tmp_path))
    assert found.unsigned == ()
    there: dict[str, list[int]] = {}
    for envelope in Ledger(state).read():
        assert isinstance(envelope.data, Lost)
        there.setdefault(envelope.data.says, []).append(envelope.data.count)
    for name, count in returned.items():
        assert there[name] == list(range(1, len(there[name]) + 1))
        assert count <= len(there[name]) <= count + 1
