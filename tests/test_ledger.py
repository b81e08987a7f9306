"""The ledger as its callers know it: a line in, the same line out, nothing lost that could be kept, and every loss said."""

import asyncio
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jsonschema
import pytest

from agentscope import record
from agentscope.config import read_config
from agentscope.errors import BadInput, CannotWrite
from agentscope.ledger import Ledger, Settings, anchors, book
from agentscope.ledger.beginning import begin_beside
from agentscope.ledger.chain import origin, read_link
from agentscope.ledger.keys import public_key
from agentscope.ledger.places import APPEND_LOCK, FOLDER
from agentscope.ledger.verifying import verify
from agentscope.model import IncidentOpened, Lost
from tests import samples
from tests.commandline import agentscope
from tests.ledger_builders import anchored, bare, is_broken, is_whole, kept, lines, link_at, recorder, records, segment

SCHEMA = Path(record.__file__).parent / "stream.schema.json"
BEYOND_JSON = (1 << 63) + 1


def night_lines() -> list[bytes]:
    """Every kind of event, the longest and most hostile among them."""
    encoder = recorder()
    return [line for event in samples.night() if (line := encoder.encode(event))]


# --- one format ---------------------------------------------------------------------------------------------------------------


def test_a_record_is_the_line_of_the_stream(tmp_path):
    """What is read back is what was appended, byte for byte, big integers included, and every record keeps the published schema."""
    encoder = recorder()
    given = [*night_lines(), encoder.encode(Lost(at_ns=BEYOND_JSON, source="x", count=1))]
    ledger = Ledger(tmp_path, anchored(tmp_path))
    for line in given:
        ledger.append(line)
    ledger.close()
    assert [bare(line) for line in records(tmp_path)] == given
    assert [record.encode_again(envelope) for envelope in ledger.read()] == given
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for line in records(tmp_path)[-40:]:
        validator.validate(json.loads(line))


def test_a_record_can_be_checked_with_the_tools_of_any_machine(tmp_path):
    """The hash of a record is that of its line without `ledgerhash`: sed and sha256sum are enough to check the chain."""
    kept(tmp_path / "state", 7)
    script = """sed -n 7p "$1" | sed 's/,"ledgerhash":"[0-9a-f]*"}$/}/' | tr -d '\\n' | sha256sum"""
    told = subprocess.run(
        ["sh", "-c", script, "sh", str(segment(tmp_path / "state"))], capture_output=True, check=True, text=True
    )
    seventh, sixth = link_at(tmp_path / "state", 7), link_at(tmp_path / "state", 6)
    assert told.stdout.split()[0] == seventh.digest
    assert seventh.previous == sixth.digest


def test_a_segment_can_be_replayed(tmp_path):
    """`replay` reads a file of the ledger like any other recording."""
    ledger = Ledger(tmp_path)
    for line in night_lines():
        ledger.append(line)
    ledger.close()
    told = agentscope("replay", "--json", str(segment(tmp_path)))
    assert told.status == 0, told.said
    assert b"agentscope.incident.opened" in told.out


@pytest.mark.parametrize("line", [b"", b"x\n", b"{}", b'{"a":1}\n{"b":1}\n', b'["a"]\n'])
def test_only_a_line_of_the_stream_can_be_a_record(tmp_path, line):
    """Two lines, half a line, or a record that is one already are refused before anything is written."""
    ledger = Ledger(tmp_path)
    with pytest.raises(ValueError, match="one line of the stream"):
        ledger.append(line)
    ledger.append(lines(1)[0])
    with pytest.raises(ValueError, match="one line of the stream"):
        ledger.append(records(tmp_path)[0])
    ledger.close()
    assert is_whole(tmp_path).records == 1


def test_records_from_before_the_chain_are_still_read(tmp_path):
    """Files of an earlier version are read, before the chain, and are named as not covered by it."""
    (tmp_path / FOLDER).mkdir()
    first, *rest = night_lines()
    (tmp_path / FOLDER / "incidents.ndjson").write_bytes(first)
    ledger = Ledger(tmp_path, anchored(tmp_path))
    for line in rest:
        ledger.append(line)
    ledger.close()
    assert [record.encode_again(envelope) for envelope in ledger.read()] == [first, *rest]
    assert is_whole(tmp_path).older == ("incidents.ndjson",)


def test_an_incident_is_found_by_its_process(tmp_path):
    """The last incident of a pid is found in whatever file it stands, and None where there is none."""
    ledger = Ledger(tmp_path, anchored(tmp_path, segment_bytes=4096))
    encoder = recorder()
    opened = samples.oom_cgroup()
    ledger.append(encoder.encode(opened))
    ledger.close()
    for line in lines(5):
        ledger.append(line)
    ledger.close()
    assert len(ledger.files()) >= 2
    found = ledger.incident_of(opened.agent.pid)
    assert found is not None
    assert found.incident == opened.incident
    assert ledger.incident_of(1) is None
    assert not Ledger(tmp_path / "nowhere").files()
    assert not (tmp_path / "nowhere").exists()


def test_old_files_are_passed_over(tmp_path):
    """Reading since a moment opens no file that was last written before it."""
    kept(tmp_path / "state", 3)
    os.utime(segment(tmp_path / "state"), (1, 1))
    ledger = Ledger(tmp_path / "state")
    assert len(list(ledger.read())) == 3
    assert list(ledger.read(since_ns=time.time_ns())) == []


# --- who may read it --------------------------------------------------------------------------------------------------------


def test_everything_is_closed_to_others(tmp_path):
    """Under any umask the folder is 0700 and every file 0600, the key above all; a folder that was opened is closed again."""
    before = os.umask(0)
    try:
        (tmp_path / FOLDER).mkdir(mode=0o777)
        kept(tmp_path, 3, anchored(tmp_path, segment_bytes=1))
        segment(tmp_path).open("ab").write(b"torn")
        kept(tmp_path, 3, anchored(tmp_path, segment_bytes=1))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    files = [path for path in (*(tmp_path / FOLDER).iterdir(), *tmp_path.iterdir()) if path.is_file()]
    assert {"ledger.key", "ledger.pub", "head.json", "anchors"} <= {path.name for path in files}
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o600"}


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    """Neither the folder nor a segment may be a symbolic link: somebody else would choose what root writes to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FOLDER).symlink_to(elsewhere)
    with pytest.raises(CannotWrite):
        Ledger(tmp_path / "a").append(lines(1)[0])
    assert list(elsewhere.iterdir()) == []
    kept(tmp_path / "b", 1)
    segment(tmp_path / "b").rename(elsewhere / "segment")
    segment(tmp_path / "b").symlink_to(elsewhere / "segment")
    before = (elsewhere / "segment").read_bytes()
    with pytest.raises(CannotWrite):
        Ledger(tmp_path / "b").append(lines(1)[0])
    assert (elsewhere / "segment").read_bytes() == before


def test_a_key_that_is_lost_is_not_replaced(tmp_path):
    """Without its private key the chain goes on unsigned and says so; another key would look like somebody else's chain."""
    state = tmp_path / "state"
    settings = kept(state, 3)
    key = (state / "ledger.key").read_bytes()
    (state / "ledger.key").unlink()
    kept(state, 2, settings)
    kept(state, 1, settings)
    found = is_whole(state, settings)
    assert [(run.first, run.last) for run in found.anchored] == [(1, 3)]
    assert found.unsigned[0].first == 4
    assert any("ledger.key is missing" in noted.says for noted in found.noted)
    (state / "ledger.key").write_bytes(key)
    kept(state, 1, settings)
    assert is_whole(state, settings).unsigned == ()


# --- several writers --------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from agentscope.ledger import Ledger
from tests.ledger_builders import anchored, lines
state, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ledger = Ledger(state, anchored(state.parent, segment_bytes=30_000))
for line in lines(count, name):
    ledger.append(line)
ledger.close(20)
"""


def test_writers_share_one_chain(tmp_path):
    """Four processes and two threads append at once, through rotations: one chain, every record once, each writer's in its order."""
    state = tmp_path / "state"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(state), f"process-{number}", "150"]) for number in range(4)]
    ledger = Ledger(state, anchored(tmp_path, segment_bytes=30_000))
    threads = [
        threading.Thread(target=lambda name=f"thread-{n}": [ledger.append(line) for line in lines(150, name)]) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    ledger.close(20)
    found = is_whole(state)
    assert found.segments > 1  # how often depends on the batches: a writer that waited long appends all it has at once
    assert found.unsigned == ()
    by_name: dict[str, list[int]] = {}
    for envelope in Ledger(state).read():
        assert isinstance(envelope.data, Lost)
        by_name.setdefault(envelope.data.says, []).append(envelope.data.count)
    assert by_name == {name: list(range(1, 151)) for name in by_name}
    assert len(by_name) == 6


HOLDER = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(30)"


def test_a_lock_that_is_kept_costs_a_sentence(tmp_path):
    """A writer that stands still with the lock (stopped, say) holds nobody for long: a sentence, a count, and a record later."""
    state = tmp_path / "state"
    settings = kept(state, 1)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(state / FOLDER / APPEND_LOCK)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    ledger = Ledger(state, settings)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(CannotWrite, match="another agentscope has held its lock"):
            ledger.append(lines(1)[0])
    assert time.monotonic() - began < 4 * book.LOCK_S + 1
    holder.kill()
    holder.communicate()
    ledger.append(lines(1, "after")[0])
    ledger.close()
    told = [envelope.data for envelope in ledger.read()]
    assert [(loss.source, loss.count) for loss in told[1:]] == [("ledger", 2), ("test", 1)]
    assert "another agentscope" in told[1].says
    is_whole(state, settings)


# --- syncing ------------------------------------------------------------------------------------------------------------------


def test_an_append_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    """A sync that takes a second holds up no append; an intent waits for it, beside the event loop, which goes on."""
    synced = threading.Event()
    real = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.5)
        real(descriptor)
        synced.set()

    kept(tmp_path / "state", 1)
    monkeypatch.setattr(os, "fsync", slow)
    ledger = Ledger(tmp_path / "state")
    began = time.monotonic()
    for line in lines(50):
        ledger.append(line)
    assert time.monotonic() - began < 0.4
    ticks = []

    async def both() -> None:
        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        synced.clear()
        await ledger.append_durably(lines(1)[0])
        assert synced.is_set()
        ticking.cancel()

    asyncio.run(both())
    assert len(ticks) > 20
    ledger.close(20)


def test_a_disk_that_does_not_confirm_is_said(tmp_path, monkeypatch):
    """Where fsync(2) fails an intent is told so at once; what was not confirmed becomes a record."""
    settings = kept(tmp_path / "state", 1)
    real, failing = os.fsync, threading.Event()

    def fsync(descriptor: int) -> None:
        if failing.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = Ledger(tmp_path / "state", settings)
    ledger.append(lines(1)[0])
    failing.set()
    with pytest.raises(CannotWrite, match="did not confirm: Input/output error"):
        ledger.append(lines(1)[0], durable=True)
    failing.clear()
    ledger.append(lines(1)[0], durable=True)
    ledger.close()
    assert any("did not confirm" in noted.says for noted in is_whole(tmp_path / "state", settings).noted)


def test_a_disk_that_never_answers_ends_the_waiting(tmp_path, monkeypatch):
    """A hanging disk costs an intent its bounded wait, and closing too, and nothing else."""
    release = threading.Event()
    kept(tmp_path / "state", 1)
    ledger = Ledger(tmp_path / "state")
    ledger.append(lines(1)[0], durable=True)
    monkeypatch.setattr(os, "fsync", lambda _: release.wait(20))
    monkeypatch.setattr(book, "DURABLE_S", 0.3)
    with pytest.raises(CannotWrite, match=r"has not confirmed it for 0\.3 s"):
        ledger.append(lines(1)[0], durable=True)
    began = time.monotonic()
    ledger.close(0.3)
    assert time.monotonic() - began < 2
    release.set()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from agentscope.errors import CannotWrite
from agentscope.ledger import Ledger
from tests.ledger_builders import anchored, lines, segment
state = Path(sys.argv[1])
ledger = Ledger(state, anchored(state.parent))
ledger.append(lines(1)[0], durable=True)
room = segment(state).stat().st_size + 200
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
for line in lines(3):
    try:
        ledger.append(line)
    except CannotWrite as error:
        print(error.why)
    assert segment(state).stat().st_size == room - 200
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
ledger.append(lines(1, "room again")[0])
ledger.close()
"""


def test_a_write_that_ends_in_the_middle_leaves_nothing(tmp_path):
    """Where only a part of a line fits, nothing of it stays; the loss is a record as soon as there is room."""
    state = tmp_path / "state"
    told = subprocess.run([sys.executable, "-c", LIMITED, str(state)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "File too large\n" * 3), told.stderr
    said = [(envelope.data.source, envelope.data.count, envelope.data.says) for envelope in Ledger(state).read()]
    assert [each[:2] for each in said] == [("test", 1), ("ledger", 3), ("test", 1)]
    assert "3 records from" in said[1][2]
    assert "File too large" in said[1][2]
    is_whole(state)


def test_preparing_does_what_a_first_append_would(tmp_path):
    """A writer that prepares has the key, the folder and the head before there is a record, and signs and anchors what a crash left."""
    state = tmp_path / "state"
    ledger = Ledger(state, anchored(tmp_path))
    ledger.prepare()
    assert wait_for((state / FOLDER / "append.lock").exists)
    ledger.close()
    assert is_whole(state).records == 0
    settings = kept(state, 3)
    head = (state / FOLDER / "head.json").read_bytes()
    kept(state, 2, Settings(anchor="none"))
    (state / FOLDER / "head.json").write_bytes(head)
    with segment(state).open("ab") as file:
        file.write(b"torn")
    again = Ledger(state, settings)
    again.prepare()
    assert wait_for(lambda: [run.last for run in verify(state, settings).anchored] == [6])
    again.close()
    assert "a crash tore a line" in is_whole(state, settings).noted[0].says


PREPARES = """
import sys, time
from pathlib import Path
from agentscope.ledger import Ledger
state = Path(sys.argv[1])
ledger = Ledger(state)
ledger.prepare()
ends = time.monotonic() + 20
while ledger.upkeep.head is None and time.monotonic() < ends:
    time.sleep(0.01)
print((state / "ledger/head.json").exists(), "cryptography" in sys.modules)
ledger.append(Path(sys.argv[2]).read_bytes(), durable=True)
ledger.close()
print("cryptography" in sys.modules)
"""


def test_whoever_has_nothing_to_record_does_not_load_what_signs(tmp_path):
    """A new chain is begun in a process that ends: nine megabytes less for a watcher whose agents are well. The first record is signed."""
    state, line = tmp_path / "state", tmp_path / "line"
    line.write_bytes(lines(1)[0])
    told = subprocess.run([sys.executable, "-c", PREPARES, state, line], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "True False\nTrue\n"), told.stderr
    assert [run.last for run in is_whole(state).signed] == [1]


def test_a_head_that_was_taken_away_is_not_put_back_in_silence(tmp_path):
    """Records without a head are never begun beside: the chain says that the head was missing."""
    state = tmp_path / "state"
    kept(state, 2)
    (state / FOLDER / "head.json").unlink()
    begin_beside(state, "none")
    assert not (state / FOLDER / "head.json").exists()
    again = Ledger(state)
    again.prepare()
    assert wait_for(lambda: len(records(state)) == 3)
    again.close()
    assert "the signed head is missing" in [*again.read()][-1].data.says


def test_preparing_where_nothing_can_be_written_is_no_error(tmp_path):
    """Where the ledger cannot be, preparing is silent, and the first append says why."""
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file")
    ledger.prepare()
    with pytest.raises(CannotWrite, match="Not a directory"):
        ledger.append(lines(1)[0])
    ledger.close()


# --- rotation and retention ---------------------------------------------------------------------------------------------------


def test_the_chain_goes_through_rotation_and_retention(tmp_path):
    """Full segments are left, the oldest removed; the chain is whole before, between and after, and says what went."""
    state = tmp_path / "state"
    settings = anchored(tmp_path, segment_bytes=4000, keep_bytes=20_000)
    for round_ in range(12):
        kept(state, 8, settings)
        found = is_whole(state, settings)
        assert found.last >= 8 * (round_ + 1)
    assert found.retired
    assert found.first == found.retired + 1
    assert sum(path.stat().st_size for path in (state / FOLDER).glob("chain-*")) < 30_000
    assert any(f"up to {found.retired} " in noted.says for noted in found.noted)
    first = records(state)[0]
    assert read_link(first).within == 1


def test_records_go_when_they_are_too_old(tmp_path):
    """With a time to keep, a segment goes when its last record is older than that; a small one is left in time for it."""
    state = tmp_path / "state"
    kept(state, 3, anchored(tmp_path))  # these say that they are from 2001
    settings = anchored(tmp_path, keep_s=3600.0)
    kept(state, 1, settings)
    assert len(list((state / FOLDER).glob("chain-*"))) == 2
    os.utime(segment(state, 1), (time.time() - 7200, time.time() - 7200))
    kept(state, 1, settings)
    found = is_whole(state, settings)
    assert found.retired == 4
    assert not segment(state, 1).exists()


# --- the second place -----------------------------------------------------------------------------------------------------------


def test_heads_are_anchored_every_so_often(tmp_path):
    """An anchor is made when enough records have come, or enough time has passed, and when the ledger is closed."""
    state = tmp_path / "state"
    ledger = Ledger(state, anchored(tmp_path, every=1000, within_s=0.4))
    for line in lines(3):
        ledger.append(line)
    assert wait_for((tmp_path / "anchors").exists)
    assert [head.seq for _, head in anchors.from_file(tmp_path / "anchors")] == [3]
    ledger.append(lines(1)[0])
    ledger.close()
    assert [head.seq for _, head in anchors.from_file(tmp_path / "anchors")] == [3, 4]
    assert [(run.first, run.last) for run in verify(state).anchored] == [(1, 4)]


def wait_for(done, within_s: float = 10.0) -> bool:
    """Whether it becomes so in time."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_what_came_after_the_last_anchor_is_named(tmp_path):
    """The ranges say what is anchored, what is only signed, and what is neither."""
    state = tmp_path / "state"
    settings = kept(state, 5)
    kept(state, 3, Settings(anchor="none"))
    ledger = Ledger(state, Settings(anchor="none"))
    head = (state / FOLDER / "head.json").read_bytes()
    for line in lines(2):
        ledger.append(line)
    ledger.close()
    (state / FOLDER / "head.json").write_bytes(head)
    found = is_whole(state, settings)
    ranges = [[(run.first, run.last) for run in runs] for runs in (found.anchored, found.signed, found.unsigned)]
    assert ranges == [[(1, 5)], [(6, 8)], [(9, 10)]]


@pytest.fixture
def open_place():
    """A folder that every user can reach."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_a_command_can_be_the_second_place(open_place):
    """The head is handed to a command, without root's rights; what it kept is what `verify --anchors` compares with."""
    state, sent, script = open_place / "state", open_place / "sent", open_place / "send"
    sent.touch()
    if os.geteuid() == 0:
        os.chown(sent, 65534, 65534)
    script.write_text(f'#!/bin/sh\necho "$AGENTSCOPE_LEDGER_HEAD" >> {sent}; id -u >> {sent}\n')
    script.chmod(0o755)
    settings = Settings(anchor="exec", command=(str(script),), every=1)
    kept(state, 4, settings)
    assert sent.read_text().splitlines()[-1] == str(65534 if os.geteuid() == 0 else os.geteuid())
    found = verify(state, settings)
    assert found.whole
    assert found.anchored == ()
    assert "--anchors FILE" in found.notes[0]
    if os.geteuid() == 0:
        with pytest.raises(BadInput, match="others can write it"):
            verify(state, settings, sent)
        os.chown(sent, 0, 0)
    found = verify(state, settings, sent)
    assert found.whole
    assert [(run.first, run.last) for run in found.anchored] == [(1, 4)]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Settings(anchor="exec", command=("/bin/false",), every=1), "/bin/false ended with 1"),
        (Settings(anchor="file", path="/nowhere/anchors", every=1), "No such file or directory"),
        (Settings(anchor="exec", command=("/nowhere/send",), every=1), "No such file or directory"),
        (Settings(anchor="exec", command=("/bin/true",), user="nobody-of-this-name", every=1), "there is no user"),
    ],
    ids=["fails", "no folder", "no command", "no user"],
)
def test_an_anchor_that_fails_is_a_record(tmp_path, settings, why):
    """What cannot be anchored is said once in the ledger itself, and appending goes on."""
    if settings.user is not None and os.geteuid() != 0:
        pytest.skip("only root chooses a user")
    state = tmp_path / "state"
    ledger = Ledger(state, settings)
    ledger.append(lines(1)[0])
    assert wait_for(lambda: len(list(ledger.read())) >= 2)
    ledger.append(lines(1)[0])
    ledger.close()
    noted = [each.says for each in is_whole(state).noted if each.source == "ledger-anchor"]
    assert len(noted) == 1
    assert why in noted[0]


def test_a_torn_anchor_spoils_no_other(tmp_path):
    """A crash in the middle of an anchor costs that one: the next begins a line of its own."""
    state = tmp_path / "state"
    settings = kept(state, 3)
    with (tmp_path / "anchors").open("ab") as file:
        file.write(b'{"anchor":"fi')
    kept(state, 1, settings)
    found = is_whole(state, settings)
    assert (found.anchors, found.anchored[0].last) == (2, 4)


# --- the config -----------------------------------------------------------------------------------------------------------------


def test_the_ledger_has_a_table_of_its_own(tmp_path):
    """Every field of [ledger] arrives; without the table the defaults stand."""
    config = tmp_path / "agentscope.toml"
    config.write_text(
        '[ledger]\nanchor = { exec = ["/usr/local/bin/send"], user = "backup" }\nevery = 7\nwithin = "5m"\nsegment = "1M"\n'
        'keep = "2G"\nkeep_for = "90d"\n'
    )
    assert read_config(str(config)).ledger == Settings(
        anchor="exec", command=("/usr/local/bin/send",), user="backup", every=7, within_s=300, segment_bytes=1 << 20,
        keep_bytes=2 << 30, keep_s=90 * 86400, owner_uid=os.geteuid(),
    )  # fmt: skip
    config.write_text('[ledger]\nanchor = "file:/mnt/heads"\n')
    assert read_config(str(config)).ledger == Settings(anchor="file", path="/mnt/heads", owner_uid=os.geteuid())
    config.write_text("")
    assert read_config(str(config)).ledger == Settings(owner_uid=os.geteuid())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('anchor = "somewhere"', "'somewhere' is no place that is known"),
        ('anchor = "file:relative"', "a file has a path from / on"),
        ('anchor = { exec = ["send"] }', "begins with a program by its path"),
        ("anchor = { exec = [] }", "begins with a program by its path"),
        ("every = 0", "0 is not from 1"),
        ('within = "soon"', "'soon' is no duration"),
        ('segment = "16"', "'16' is no size"),
        ('segment = "1K"', "'1K' is not from"),
        ('keep = "1M"', "'1M' is not from"),
        ('keep_for = "1s"', "'1s' is not from"),
        ("everry = 3", "unknown field"),
    ],
)
def test_a_wrong_table_is_a_sentence(tmp_path, table, words):
    """What is wrong in [ledger] is named, with what to type."""
    config = tmp_path / "agentscope.toml"
    config.write_text(f"[ledger]\n{table}\n")
    with pytest.raises(BadInput) as raised:
        read_config(str(config))
    assert words in str(raised.value)
    assert "ledger" in raised.value.what
    assert raised.value.try_this


# --- the commands -------------------------------------------------------------------------------------------------------------


def test_verify_says_where_and_what(tmp_path):
    """`ledger verify` exits 0 on a whole ledger and 10 on a broken one, naming file, line and record; so does its JSON."""
    state = tmp_path / "state"
    kept(state, 5)
    told = agentscope("ledger", "verify", "--state-dir", str(state))
    assert told.status == 0, told.said
    assert b"whole: records 1 to 5" in b" ".join(told.out.split())
    assert b"Tamper-evident up to the last anchor" in b" ".join(told.out.split())
    third = segment(state).read_bytes().splitlines(keepends=True)
    third[2] = third[2].replace(b"something", b"otherthing")
    segment(state).write_bytes(b"".join(third))
    told = agentscope("ledger", "verify", "--state-dir", str(state))
    assert told.status == 10
    words = " ".join(told.out.decode().split())
    assert "NOT whole. First: chain-00000001.ndjson, line 3: record 3 was changed" in words
    told = agentscope("ledger", "verify", "--json", "--state-dir", str(state))
    assert told.status == 10
    found = json.loads(told.out)
    assert found["problems"] == [
        {"what": found["problems"][0]["what"], "file": "chain-00000001.ndjson", "line": 3, "seq": 3},
    ]
    assert found["anchored"] == [{"first": 4, "last": 5}]
    assert found["unsigned"] == [{"first": 1, "last": 2}]


def test_verify_of_nothing_creates_nothing(tmp_path):
    """Where no ledger is, `verify` says so, exits 0 and leaves no trace."""
    told = agentscope("ledger", "verify", "--state-dir", str(tmp_path / "none"))
    assert told.status == 0, told.said
    assert b"is empty" in told.out
    assert not (tmp_path / "none").exists()


def test_incidents_and_show_read_the_ledger(tmp_path):
    """`incidents` lists what is on record and `show` tells one; as JSON both print the records as the stream had them."""
    ledger = Ledger(tmp_path)
    encoder = recorder()
    opened = [event for event in samples.night() if isinstance(event, IncidentOpened)][:3]
    for event in opened:
        ledger.append(encoder.encode(event))
    ledger.close()
    given = [bare(line) for line in records(tmp_path)]
    listed = agentscope("incidents", "--state-dir", str(tmp_path))
    assert listed.status == 0, listed.said
    for event in opened:
        assert f"agentscope show {event.incident}".encode() in listed.out
    assert agentscope("incidents", "--json", "--state-dir", str(tmp_path)).out == b"".join(given)
    assert agentscope("incidents", "--since", "24h", "--state-dir", str(tmp_path)).out == b"No incident in this time.\n"
    shown = agentscope("show", opened[0].incident, "--state-dir", str(tmp_path))
    assert shown.status == 0, shown.said
    assert b"Nothing was done about it." in shown.out
    assert agentscope("show", opened[1].incident, "--json", "--state-dir", str(tmp_path)).out == given[1]
    agentscope("show", "nonsense", "--state-dir", str(tmp_path)).is_sentence(64, "there is no incident 'nonsense'", "Try: ")
    agentscope("incidents", "--since", "soon", "--state-dir", str(tmp_path)).is_sentence(64, "--since 'soon'", "--since 24h")


def test_a_ledger_that_is_moved_away_is_begun_anew(tmp_path):
    """A running writer whose folder was taken away begins another chain, and says that the old one went."""
    state = tmp_path / "state"
    ledger = Ledger(state, anchored(tmp_path))
    ledger.append(lines(1)[0])
    assert wait_for((tmp_path / "anchors").exists)
    shutil.move(state / FOLDER, tmp_path / "taken")
    ledger.append(lines(1)[0])
    ledger.close()
    first = read_link(records(state)[0])
    assert first.seq == 1
    assert first.previous == origin(first.chain, public_key(state)).digest
    found = is_broken(state, None, "a whole chain is missing")
    assert "moved away while it was written" in found.noted[0].says
