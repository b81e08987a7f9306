"""Where the stream goes beside standard output: what is chosen, what arrives, and what slow and broken readers cost."""

import asyncio
import inspect
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agentscope.sinks
from agentscope.config import read_config
from agentscope.errors import BadInput, UsageError
from agentscope.model import AgentGone
from agentscope.sinks import Options, chosen_of, modules, schemes, typed_sinks
from agentscope.sinks._outlet import NotTaken, Outlet
from agentscope.sinks.journal import fields_of, message_id
from tests import samples
from tests.sink_builders import BIG, SEEN, accounted, around, hook, lines_of, lost, opened, until

# --- what is chosen ----------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_list():
    """Every file of the folder is a sink that keeps the form, and no two answer to the same scheme."""
    files = {path.stem for path in Path(agentscope.sinks.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert {module.__name__.rpartition(".")[2] for module in modules()} == files
    assert sum(len(module.SCHEMES) for module in modules()) == len(schemes())
    for module in modules():
        assert issubclass(module.Options, Options)
        assert module.EXAMPLE.partition(":")[0].partition(" ")[0] in module.SCHEMES
        assert list(inspect.signature(module.checked).parameters) == ["wrong", "to", "options"]
        assert list(inspect.signature(module.opened).parameters) == ["chosen", "around"]
        assert module.__doc__


def configured(folder: Path, text: str) -> tuple:
    """The sinks of a config with this text."""
    path = folder / "agentscope.toml"
    path.write_text(f'[agent.x]\nmatch = {{ name = "x" }}\n{text}')
    path.chmod(0o600)
    return read_config(str(path)).sinks


def test_tables_of_the_config(tmp_path):
    """Each `[sink.NAME]` is one sink, with the types that it wants and the options that it has."""
    first, second = configured(
        tmp_path,
        '[sink.siem]\nto = "https://siem.example.org/x"\nonly = ["incident", "agentscope.lost"]\nheaders = { Authorization = "Bearer x" }\n'
        '[sink.disk]\nto = "file:///var/log/agents.ndjson"\nsize = "1M"\nkeep = 2\n',
    )
    assert (first.name, first.only, first.options.headers) == ("siem", ("incident", "lost"), {"Authorization": "Bearer x"})
    assert (second.name, second.only, second.options.keep) == ("disk", (), 2)
    assert first.wants("agentscope.incident.opened")
    assert not first.wants("agentscope.incidental")
    assert not first.wants("agentscope.pulse")
    assert second.wants("agentscope.pulse")


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ("size = '1M'", "where to"),
        ("to = 'ftp://x/'", "begins with nothing that is known"),
        ("to = 'file:relative'", "a path from / on"),
        ("to = 'file:/x'\nsize = '1K'", "less than 64K"),
        ("to = 'file:/x'\nkeep = -1", "keep"),
        ("to = 'file:/x'\ncolour = 'red'", "a file sink has to, only, size, keep"),
        ("to = 'unix:rel'", "a path from / on"),
        (f"to = 'unix:/{'x' * 200}'", "107 bytes"),
        ("to = 'unix:/x'\nmode = '0999'", "mode"),
        ("to = 'unix:/x'\ngroup = 'no-such-group-here'", "no group"),
        ("to = 'journal:elsewhere'", "has no address"),
        ("to = 'https:///x'", "names no host"),
        ("to = 'http://h/'\nheaders = { 'a b' = 'c' }", "no header"),
        ("to = 'http://h/'\nheaders = { a = \"c\\nd\" }", "no header"),
        ("to = '-x'", "begins with nothing"),
        ("to = 'file:/x'\nonly = ['incidents']", "no type 'incidents'"),
        ("to = 'file:/x'\nonly = 'incident'", "list of types"),
        ("to = 3", "where to"),
    ],
)
def test_what_is_not_right_is_said(table, part, tmp_path):
    """A sink that cannot be is refused when the config is read, and the sentence says which sink and why."""
    with pytest.raises(BadInput) as raised:
        configured(tmp_path, f"[sink.mine]\n{table}\n")
    assert "sink mine" in str(raised.value) or "not right" in str(raised.value)
    assert part in str(raised.value)


def test_a_sink_that_is_typed_has_no_secret_in_its_name():
    """The address of a webhook is a secret; its name, which stands in the stream, is only its scheme."""
    found = typed_sinks(("https://h/secret", "-", "https://other/secret"))
    assert [each.name for each in found] == ["https", "stdout", "https-2"]


# --- one stream to all -------------------------------------------------------------------------------------------------------


async def test_each_sink_gets_the_same_lines(tmp_path):
    """A file, a socket and a webhook get the same bytes, with the same ids; each only the types that it wants."""
    with hook() as server:
        sinks = ({"to": f"file:{tmp_path}/f"}, {"to": f"unix:{tmp_path}/s"}, {"to": server.url, "only": ["agent", "incident"]})
        tee, _ = opened(tmp_path, *sinks)
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s")
        await until(lambda: tee.branches[1].sink.readers)
        for event in samples.night():
            tee.write(event)
        assert await tee.flush(20) == []
        tee.close()
        kept = (tmp_path / "f").read_bytes()
        assert await reader.read() == kept
        writer.close()
        lines = lines_of(kept)
        assert len(lines) == len(samples.night())
        assert len({line["id"] for line in lines}) == len(lines)
        wanted = [line for line in lines if line["type"].startswith(("agentscope.agent.", "agentscope.incident."))]
        assert [json.loads(content) for _, content in server.got] == wanted


async def test_slow_and_broken_readers_keep_nobody_waiting(tmp_path):
    """With a pipe, a socket and a webhook that nobody serves and a full device, writing stays quick, memory bounded, losses told to the rest."""
    with hook(*[None] * 50) as silent, hook(*[500] * 5000) as failing:
        tee, said = opened(
            tmp_path,
            {"to": f"file:{tmp_path}/good"},
            {"to": f"unix:{tmp_path}/s"},
            {"to": silent.url, "only": []},
            {"to": failing.url.replace("http", "http", 1), "only": []},
        )
        for branch, name in zip(tee.branches[2:], ("silent", "failing"), strict=True):
            branch.sink.waiting.limit_bytes = 100_000
            branch.chosen = chosen_of("x", name, {"to": silent.url, "only": []})
        never = socket.socket(socket.AF_UNIX)
        never.connect(f"{tmp_path}/s")
        assert await until(lambda: tee.branches[1].sink.readers)
        next(iter(tee.branches[1].sink.readers.values())).queue_bytes = 100_000
        slowest = 0.0
        for number in range(1000):
            started = time.perf_counter()
            tee.write(BIG)
            slowest = max(slowest, time.perf_counter() - started)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        assert slowest < 3  # whoever waited for one of these readers would wait for ever
        counts = [branch.sink.lost_count for branch in tee.branches]
        assert counts[0] == 0
        assert all(count > 800 for count in counts[1:]), counts
        assert await tee.branches[0].sink.flush(20)
        assert await until(lambda: any("500" in each for each in said))
        await tee.flush(0.2)
        assert await tee.branches[0].sink.flush(20)
        tee.close()
        lines = lines_of((tmp_path / "good").read_bytes())
        told = {}
        for line in lines:
            if line["type"] == "agentscope.lost":
                told[line["data"]["source"]] = told.get(line["data"]["source"], 0) + line["data"]["count"]
        assert set(told) == {"sink unix", "sink silent", "sink failing"}
        assert all(count > 800 for count in told.values()), told
        assert not any("secret" in each for each in said)
        never.close()


async def test_a_sink_that_cannot_be_opened_closes_the_others(tmp_path):
    """Where the second of two fails, the first lets go of its lock and its socket."""
    with pytest.raises(UsageError, match="mkdir -p"):
        opened(tmp_path, {"to": f"unix:{tmp_path}/s"}, {"to": f"file:{tmp_path}/nowhere/f"})
    assert not (tmp_path / "s").exists()


# --- a queue and a thread ----------------------------------------------------------------------------------------------------


class Shop:
    """A place that is shut until it is told otherwise, and refuses some for good."""

    def __init__(self, refuses=()):
        self.open = False
        self.got = []
        self.refuses = refuses
        self.closed = False

    def put(self, lines):
        """Take them, or not."""
        for taken, line in enumerate(lines):
            if not self.open:
                raise NotTaken("it is shut", taken)
            if line.number in self.refuses:
                raise NotTaken("not this one", taken, for_good=True)
            self.got.append(line)

    def close(self):
        """It is over."""
        self.closed = True


async def test_what_was_dropped_is_told_in_its_place(tmp_path):
    """Every number either arrives or is counted by the line that came in its place, in order, and nothing comes twice."""
    shop = Shop()
    given = around(tmp_path)
    outlet = Outlet(chosen_of("x", "shop", {"to": "journal:"}), given, shop, "the shop", queue_bytes=20_000)
    for number in range(500):
        outlet.take(given.recorder.line(lost(number)))
    assert outlet.lost_count > 300
    assert await until(lambda: given.say)
    shop.open = True
    assert await outlet.flush(20)
    outlet.take(given.recorder.line(SEEN))
    assert await outlet.flush(20)
    assert await until(lambda: len(given.say) == 2)
    lines = lines_of(b"".join(line.encoded for line in shop.got))
    came, told = accounted(lines, "sink shop")
    assert came + told == 501
    assert told == outlet.lost_count
    numbers = [line.number for line in shop.got]
    assert numbers == sorted(set(numbers))
    missing = next(line for line in lines if line["id"].endswith("-lost"))
    before = numbers[lines.index(missing) - 1]
    assert int(missing["sequence"]) == before + missing["data"]["count"]
    assert given.say[0].startswith("the shop does not take the stream: it is shut")
    assert given.say[-1] == "the shop takes the stream"
    outlet.close()
    assert await until(lambda: shop.closed)


async def test_one_line_that_is_refused_costs_only_itself(tmp_path):
    """A line that will never be taken is counted, and those around it arrive."""
    shop = Shop(refuses={3})
    shop.open = True
    given = around(tmp_path)
    outlet = Outlet(chosen_of("x", "shop", {"to": "journal:"}), given, shop, "the shop")
    for number in range(6):
        outlet.take(given.recorder.line(lost(number)))
    assert await outlet.flush(20)
    assert [line.number for line in shop.got if not line.encoded.count(b"-lost")] == [1, 2, 4, 5, 6]
    assert outlet.lost_count == 1
    outlet.close()


async def test_who_refuses_everything_is_not_asked_for_ever(tmp_path):
    """Where the saying of a loss is refused as well it is not tried again by itself, and no count is lost."""
    given = around(tmp_path)
    shop = Shop(refuses=set(range(1, 100)))
    shop.open = True
    outlet = Outlet(chosen_of("x", "shop", {"to": "journal:"}), given, shop, "the shop")
    for number in range(20):
        outlet.take(given.recorder.line(lost(number)))
    assert await outlet.flush(20)
    assert (outlet.lost_count, outlet.waiting.dropped) == (20, 20)
    shop.refuses = set()
    outlet.take(given.recorder.line(SEEN))
    assert await outlet.flush(20)
    assert [line.instead_of for line in shop.got] == [20, 0]
    outlet.close()


# --- a file ------------------------------------------------------------------------------------------------------------------


async def test_a_file_is_rotated(tmp_path):
    """It never grows past its size, as many full ones are kept as were asked for, and no line is torn, lost or doubled among them."""
    tee, _ = opened(tmp_path, {"to": f"file:{tmp_path}/f", "size": "64K", "keep": 100})
    for number in range(1500):
        tee.write(lost(number))
    assert await tee.flush(20) == []
    tee.close()
    files = sorted(tmp_path.glob("f*"), key=lambda path: -int(path.suffix[1:] or 0))
    assert len(files) > 5
    assert all(path.stat().st_size <= 64 << 10 for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    numbers = [int(line["sequence"]) for path in files for line in lines_of(path.read_bytes())]
    assert numbers == list(range(1, 1501))


async def test_old_files_go(tmp_path):
    """Only `keep` full files stay; with none, the file begins anew."""
    for name, keep in (("a", 2), ("b", 0)):
        tee, _ = opened(tmp_path, {"to": f"file:{tmp_path}/{name}", "size": "64K", "keep": keep})
        for number in range(1500):
            tee.write(lost(number))
        assert await tee.flush(20) == []
        tee.close()
        assert {path.name for path in tmp_path.glob(f"{name}*")} == {name, *(f"{name}.{each + 1}" for each in range(keep))}


async def test_somebody_else_rotates_it(tmp_path):
    """A file that was moved, removed or cut by others (logrotate) is followed: the next line is in a new one, or at its start."""
    path = tmp_path / "f"
    tee, _ = opened(tmp_path, {"to": f"file:{path}"})
    for number, act in enumerate(
        (lambda: None, lambda: path.rename(tmp_path / "moved"), path.unlink, lambda: os.truncate(path, 0))
    ):
        act()
        tee.write(lost(number))
        assert await tee.flush(20) == []
        assert [int(line["sequence"]) for line in lines_of(path.read_bytes())] == [number + 1]
    tee.close()
    assert len(lines_of((tmp_path / "moved").read_bytes())) == 1


async def test_a_torn_line_is_closed(tmp_path):
    """Behind what a power cut left of a line a new line begins."""
    path = tmp_path / "f"
    path.write_bytes(b'{"torn')
    path.chmod(0o600)
    tee, _ = opened(tmp_path, {"to": f"file:{path}"})
    tee.write(SEEN)
    assert await tee.flush(20) == []
    tee.close()
    torn, line = path.read_bytes().splitlines()
    assert torn == b'{"torn'
    assert len(lines_of(line)) == 1


async def test_a_file_that_is_not_ours_alone(tmp_path):
    """A link, a pipe, a folder, a file that others can write and one that another agentscope writes are refused in a sentence."""
    (tmp_path / "real").touch(mode=0o600)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "open").touch()
    (tmp_path / "open").chmod(0o666)
    os.link(tmp_path / "real", tmp_path / "second")
    for name in ("link", "fifo", "folder", "open", "real"):
        with pytest.raises(UsageError, match="cannot write the stream to"):
            opened(tmp_path, {"to": f"file:{tmp_path}/{name}"})
    tee, _ = opened(tmp_path, {"to": f"file:{tmp_path}/f"})
    with pytest.raises(UsageError, match="another agentscope"):
        opened(tmp_path, {"to": f"file:{tmp_path}/f"})
    tee.close()


# --- a socket ----------------------------------------------------------------------------------------------------------------


async def test_who_comes_later_knows_who_is_there(tmp_path):
    """A reader that comes later gets ready and the agents that still live first, then what happens from now on."""
    tee, _ = opened(tmp_path, {"to": f"unix:{tmp_path}/s"})
    tee.write(samples.ready())
    tee.write(SEEN)
    tee.write(samples.night()[1])
    tee.write(AgentGone(at_ns=2, agent=samples.CODER, says="ended"))
    gone = samples.CODER.name
    reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s")
    assert await until(lambda: tee.branches[0].sink.readers)
    tee.write(samples.killed_by_bash())
    lines = lines_of(b"".join([await reader.readline() for _ in range(3)]))
    assert [line["type"].removeprefix("agentscope.") for line in lines] == ["ready", "agent.seen", "incident.opened"]
    assert lines[1]["data"]["agent"]["name"] != gone
    writer.close()
    assert await until(lambda: not tee.branches[0].sink.readers), "who has left is forgotten though nothing is written"
    tee.close()


async def test_many_readers_and_one_that_never_reads(tmp_path):
    """The readers that read get everything; the one that does not costs only itself, and is told how much, in its place."""
    tee, _ = opened(tmp_path, {"to": f"unix:{tmp_path}/s"})
    sink = tee.branches[0].sink
    lazy = socket.socket(socket.AF_UNIX)
    lazy.connect(f"{tmp_path}/s")
    assert await until(lambda: len(sink.readers) == 1)
    next(iter(sink.readers.values())).queue_bytes = 50_000
    good = [await asyncio.open_unix_connection(f"{tmp_path}/s") for _ in range(10)]
    assert await until(lambda: len(sink.readers) == 11)
    reading = [asyncio.create_task(reader.read()) for reader, _ in good]
    for number in range(400):
        tee.write(BIG)
        if number % 20 == 0:
            await asyncio.sleep(0.01)
    count = sink.lost_count
    assert count > 200
    loop = asyncio.get_running_loop()
    late = loop.run_in_executor(None, lambda: b"".join(iter(lambda: lazy.recv(1 << 16), b"")))
    assert await tee.flush(20) == []
    tee.close()
    for task, (_, writer) in zip(reading, good, strict=True):
        assert [int(line["sequence"]) for line in lines_of(await task)] == list(range(1, 401))
        writer.close()
    came, told = accounted(lines_of(await late), "ndjson")
    assert (came + told, told) == (400, count)
    lazy.close()


async def test_the_place_of_a_socket(tmp_path):
    """One that nobody listens at any more is replaced, a living one and a file are not; its mode is as asked for; it goes with us."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    tee, _ = opened(tmp_path, {"to": f"unix:{path}", "mode": "0660"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with pytest.raises(UsageError, match="in use"):
        opened(tmp_path, {"to": f"unix:{path}"})
    tee.close()
    assert not path.exists()
    path.write_text("kept")
    with pytest.raises(UsageError, match="no socket"):
        opened(tmp_path, {"to": f"unix:{path}"})
    assert path.read_text() == "kept"


# --- a webhook ---------------------------------------------------------------------------------------------------------------


async def test_a_webhook_gets_cloudevents(tmp_path):
    """Each event is one POST in the structured mode of CloudEvents, in order, with the headers of the config, on one connection."""
    with hook() as server:
        tee, _ = opened(tmp_path, {"to": server.url, "only": [], "headers": {"Authorization": "Bearer t0ken"}})
        for number in range(50):
            tee.write(lost(number))
        assert await tee.flush(20) == []
        tee.close()
        lines = lines_of(b"\n".join(content for _, content in server.got))
        assert [int(line["sequence"]) for line in lines] == list(range(1, 51))
        headers = server.got[0][0]
        assert headers["Content-Type"].startswith("application/cloudevents+json")
        assert headers["Authorization"] == "Bearer t0ken"


async def test_a_webhook_that_fails_is_asked_again(tmp_path):
    """After 500, 503 and 429 the same event comes again and none is lost; what is refused with 400 is lost, told, and passed over."""
    with hook(500, 503, 429, 200, 400) as server:
        tee, said = opened(tmp_path, {"to": server.url, "only": []})
        for number in range(4):
            tee.write(lost(number))
        assert await tee.flush(30) == []
        lines = lines_of(b"\n".join(content for _, content in server.got))
        assert [int(line["sequence"]) for line in lines] == [1, 3, 4, 2]
        assert lines[-1]["data"] == {**lines[-1]["data"], "source": "sink http", "count": 1}
        assert server.asked == 4 + 3 + 1
        assert said[0].startswith("the webhook at 127.0.0.1:")
        assert "it answers 500: no" in said[0]
        assert "secret-path" not in "".join(said)
        tee.close()


async def test_nobody_answers_yet(tmp_path):
    """A server that comes up after us gets what happened before."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    tee, said = opened(tmp_path, {"to": f"http://127.0.0.1:{port}/", "only": []})
    tee.write(lost(0))
    assert await until(lambda: said)
    assert "refused" in said[0]
    got = []

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        got.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 204 \r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    assert await tee.flush(30) == []
    assert len(lines_of(got[0])) == 1
    tee.close()
    server.close()


# --- the journal -------------------------------------------------------------------------------------------------------------


def test_an_entry_of_the_journal(tmp_path):
    """An incident is an entry with a message for a person, an urgency, its own id of message, and each fact as a field."""
    line = around(tmp_path).recorder.line(samples.killed_by_bash())
    fields = dict(field.split(b"=", 1) for field in b"".join(fields_of(line)).splitlines())
    assert fields[b"MESSAGE"].startswith(b"coder (pid 5150): coder was killed by bash")
    assert fields[b"MESSAGE_ID"].decode() == message_id("agentscope.incident.opened") == "2424085be2e05eb28539556bf112f78d"
    assert fields[b"PRIORITY"] == b"2"
    assert fields[b"AGENTSCOPE_CAUSE"] == b"killed/sigkill"
    assert json.loads(fields[b"AGENTSCOPE_EVENT"])["data"]["headline"]


def test_a_hostile_name_makes_no_field_of_its_own(tmp_path):
    """A line break or a control character in what a process chose begins no field of the journal and reaches no terminal."""
    for event in samples.night():
        entry = b"".join(fields_of(around(tmp_path).recorder.line(event)))
        names = [field.partition(b"=")[0].decode() for field in entry.splitlines()]
        assert all(
            name.isascii()
            and (name in {"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER"} or name.startswith("AGENTSCOPE_"))
            for name in names
        )
        assert b"\x1b" not in entry


# --- what it costs those who do not use it -----------------------------------------------------------------------------------


def test_extras_are_loaded_by_those_who_ask_for_them():
    """Every sink can be named, and the stream be written, without loading a library of an extra, or HTTP."""
    heavy = "{'prometheus_client', 'opentelemetry', 'nats', 'requests', 'httpx', 'google'}"
    code = (
        "import sys, agentscope.session, agentscope.live, agentscope.fleet.watching\nfrom agentscope.sinks import schemes, typed_sinks\n"
        "schemes(); typed_sinks([module.EXAMPLE for module in set(schemes().values()) if module.SCHEMES != ('-',)])\n"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & {heavy}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_standard_output_alone_loads_no_other_sink():
    """`events` without a sink starts as fast as it did before there were any."""
    code = (
        "import sys\nfrom agentscope.sinks import typed_sinks\nimport agentscope.session\ntyped_sinks(['-'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('agentscope.sinks.')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "['agentscope.sinks._tee', 'agentscope.sinks.stdout']"
