"""A fleet: twenty hosts publish to a real nats-server that is killed in the middle, and nothing is lost and nothing doubled."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agentscope.errors import UsageError
from agentscope.record import Recorder, decode
from agentscope.sinks import Around, chosen_of
from agentscope.sinks._outlet import NotTaken
from agentscope.sinks._spool import Spool
from agentscope.sinks._tee import Tee, open_tee
from tests import samples
from tests.sink_builders import Said, lost, nats_server, until

nats = pytest.importorskip("nats")
HOSTS = 20
EVENTS = 10_000


class Server:
    """A nats-server with JetStream in a folder; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.program = nats_server()
        self.folder = folder
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [self.program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "js")]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        pytest.fail("nats-server does not answer")

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    """A nats-server that is not started yet."""
    made = Server(tmp_path)
    yield made
    made.kill()


def host(folder: Path, server: Server, number: int, **options: object) -> tuple[Tee, Said]:
    """One simulated host: its own name, state directory and sink."""
    said = Said()
    recorder = Recorder(f"{number:08x}-0000-4000-8000-000000000000", samples.BOOT_WALL_NS, host=f"host-{number}", run="1")
    chosen = chosen_of("x", "fleet", {"to": server.url, "only": [], **options})
    return open_tee((chosen,), Around(recorder, folder / f"state-{number}", said)), said


def all_sent(tee: Tee) -> bool:
    """Whether nothing waits any more, in memory or on disk."""
    return not tee.branches[0].sink.waiting.bytes and tee.branches[0].sink.spool.is_empty


async def stored(server: Server) -> list[bytes]:
    """Every message of the stream, read with a client of its own."""
    connection = await nats.connect(server.url)
    try:
        stream = connection.jetstream()
        count = (await stream.stream_info("AGENTSCOPE")).state.messages
        if not count:
            return []
        subscription = await stream.subscribe("agentscope.>", ordered_consumer=True)
        return [(await subscription.next_msg(timeout=20)).data for _ in range(count)]
    finally:
        await connection.close()


async def test_a_server_that_is_killed_in_a_burst_of_twenty_hosts(tmp_path, server):
    """Of 10,000 events none is lost and none doubled, though the server is killed twice and away for a while each time."""
    server.start()
    hosts = [host(tmp_path, server, number) for number in range(HOSTS)]
    slowest = 0.0
    for number in range(EVENTS // HOSTS):
        for tee, _ in hosts:
            started = time.perf_counter()
            tee.write(lost(number))
            slowest = max(slowest, time.perf_counter() - started)
        if number in {150, 350}:
            server.kill()
        elif number in {200, 400}:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.005)
    assert slowest < 3  # whoever waited would wait for ever
    assert await until(lambda: all(all_sent(tee) for tee, _ in hosts), 60)
    messages = [json.loads(message) for message in await stored(server)]
    ids = Counter((message["source"], message["id"]) for message in messages)
    assert len(messages) == EVENTS
    assert set(ids.values()) == {1}
    assert len({source for source, _ in ids}) == HOSTS
    assert sum(tee.branches[0].sink.lost_count for tee, _ in hosts) == 0
    assert any("does not take the stream" in each for _, said in hosts for each in said)
    for tee, _ in hosts:
        tee.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.sink_builders import lost
from tests.test_fleet import Server, host

async def main():
    server = Server(Path(sys.argv[1]))
    server.port = int(sys.argv[2]); server.url = f"nats://127.0.0.1:{server.port}"
    tee, _ = host(Path(sys.argv[1]), server, 7)
    for number in range(int(sys.argv[3])):
        tee.write(lost(number))
    await tee.branches[0].sink.drained.wait()
    print("spooled", flush=True)
    await asyncio.sleep(30)

asyncio.run(main())
"""


async def test_what_waits_outlives_us(tmp_path, server):
    """Killed while the server is away, the next agentscope sends what is in the spool, each once."""
    words = [sys.executable, "-c", WRITER, str(tmp_path), str(server.port), "500"]
    writer = subprocess.Popen(words, stdout=subprocess.PIPE)  # noqa: ASYNC220 - starting it is quick
    assert writer.stdout is not None
    assert await asyncio.to_thread(writer.stdout.readline) == b"spooled\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    server.start()
    tee, _ = host(tmp_path, server, 7)
    assert await until(partial(all_sent, tee))
    found = [decode(message).sequence for message in await stored(server)]
    assert [int(number) for number in found] == list(range(1, 501))
    tee.close()


async def test_a_flush_without_a_server_ends_and_says_where_it_waits(tmp_path, server):
    """With no server nothing waits longer than asked, nothing is lost, and the owner is told where it is."""
    tee, said = host(tmp_path, server, 1)
    tee.write(lost(1))
    assert await tee.flush(0.3) == []
    assert "is sent at the next start" in said[-1]
    assert tee.branches[0].sink.lost_count == 0
    assert (tmp_path / "state-1" / "spool" / "fleet.ndjson").read_bytes().count(b"\n") == 1
    assert (tmp_path / "state-1" / "spool").stat().st_mode & 0o777 == 0o700
    tee.close()


async def test_a_line_that_is_too_long_for_the_server(tmp_path, server):
    """One that the server would never take is lost and counted, and those around it arrive."""
    server.start()
    tee, _ = host(tmp_path, server, 1)
    for event in (lost(1), samples.pulse(samples.CODER, 1, 1, "x" * 1_500_000), lost(2)):
        tee.write(event)
    assert await until(partial(all_sent, tee))
    assert [int(decode(message).sequence) for message in await stored(server)] == [1, 3]
    assert tee.branches[0].sink.lost_count == 1
    tee.close()


# --- the spool ---------------------------------------------------------------------------------------------------------------


def spool_in(folder: Path, limit_bytes: int = 1 << 20) -> Spool:
    """An open one."""
    made = Spool(folder, "x", limit_bytes)
    made.open()
    return made


def test_a_spool_goes_on_where_it_was(tmp_path):
    """What was forgotten is not read again, what was not is, and a torn last line is none."""
    spool = spool_in(tmp_path)
    spool.append([b"1\n", b"2\n", b"3\n"])
    spool.forget([b"1\n"])
    spool.close()
    with (tmp_path / "x.ndjson").open("ab") as file:
        file.write(b"torn")
    spool = spool_in(tmp_path)
    assert spool.read() == [b"2\n", b"3\n"]
    spool.append([b"4\n"])
    spool.forget(spool.read())
    assert spool.is_empty
    spool.close()
    assert (tmp_path / "x.ndjson").read_bytes() == b""


def test_a_spool_is_bounded(tmp_path):
    """It takes no more than its size, and a stream that never pauses does not let its file grow beyond that."""
    spool = spool_in(tmp_path, 10_000)
    line = b"x" * 99 + b"\n"
    for _ in range(100):
        spool.append([line])
    with pytest.raises(NotTaken, match="full"):
        spool.append([line])
    for _ in range(1000):
        spool.forget(spool.read()[:10])
        spool.append([line] * 10)
        assert (tmp_path / "x.ndjson").stat().st_size <= 20_000
    assert len(spool.read()) == 100
    spool.close()


def test_one_process_has_a_spool(tmp_path):
    """A second one is refused in a sentence."""
    spool = spool_in(tmp_path)
    with pytest.raises(UsageError, match="another agentscope has it"):
        spool_in(tmp_path)
    spool.close()


@pytest.mark.parametrize("offset", [b"", b"abc", b"99999999999999999999", b"-5", b"00000000000000000001"])
def test_an_offset_that_is_none(tmp_path, offset):
    """Where it is not known how far it was sent, everything is sent again: the ids tell."""
    spool = spool_in(tmp_path)
    spool.append([b"one\n", b"two\n"])
    spool.close()
    (tmp_path / "x.sent").write_bytes(offset)
    spool = spool_in(tmp_path)
    assert spool.read() == [b"one\n", b"two\n"]
    spool.close()


async def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    """Where nats-py is not installed, the sink is refused at the start with the line to type."""
    monkeypatch.setitem(sys.modules, "nats.js", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: (_ for _ in ()).throw(ValueError(name)))
    with pytest.raises(UsageError, match=r"pip install 'agentscope-linux\[fleet\]'"):
        open_tee((chosen_of("x", "fleet", {"to": "nats://127.0.0.1:4222"}),), Around(Recorder("b" * 36, 1), tmp_path, Said()))
