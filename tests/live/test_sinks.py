"""Sinks under a real agentscope: a disk that is really full, a journal that is really journald's, a storm with every reader broken."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recovering import free_port
from test_ledger import JOURNALD, ROOT, START, privately
from zoo import AGENTSCOPE, INCIDENT, Lines, reader

from agentscope.sinks.journal import message_id
from tests.sink_builders import accounted, hook, lines_of, nats_server

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
DEATHS = 300
STORM = f"""
import os, sys, time
sys.stdin.readline()
for _ in range({DEATHS}):
    child = os.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-c", "exit 7"])
    os.waitpid(child, 0)
print("over", flush=True)
time.sleep(50)
"""
FULL = """
import asyncio, sys
from pathlib import Path
from tests.sink_builders import accounted, lines_of, lost, opened, until
folder = Path(sys.argv[1])

async def main():
    tee, said = opened(folder, {"to": f"file:{folder}/f", "size": "1M"})
    sink = tee.branches[0].sink
    sink.waiting.limit_bytes = 50_000
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    for number in range(1000):
        tee.write(lost(number))
        await asyncio.sleep(0)
    assert await until(lambda: said), "it says nothing"
    assert "No space left on device" in said[0], said
    assert sink.lost_count > 500, sink.lost_count
    whole = (folder / "f").read_bytes()
    assert not whole or whole.endswith(b"\\n"), "half a line is left"
    filler.unlink()
    assert await tee.flush(40) == []
    tee.write(lost(1000))
    assert await tee.flush(40) == []
    tee.close()
    lines = lines_of((folder / "f").read_bytes())
    came, told = accounted(lines, "sink file")
    assert (came + told, told) == (1001, sink.lost_count), (came, told)
    numbers = [int(line["sequence"]) for line in lines]
    assert numbers == sorted(set(numbers))
    assert await until(lambda: said[-1].endswith("takes the stream")), said

asyncio.run(main())
"""


def test_a_full_disk(tmp_path):
    """On a full disk the file keeps whole lines only; with room again it goes on, and every line is there or told as lost."""
    told = privately('mount -t tmpfs -o size=256k none "$1"; "$P" -c "$2" "$1"', str(tmp_path), FULL)
    assert told.returncode == 0, told.stderr[-3000:]


@pytest.mark.skipif(not JOURNALD.exists() or shutil.which("journalctl") is None, reason="there is no journald here")
def test_fields_are_read_back_from_the_journal(tmp_path):
    """A death is an entry that journalctl finds by its MESSAGE_ID, with every field, and with the whole line, however long it is."""
    script = f"""{START}
      bash -c 'exec -a victim-of-journal sleep 50' & victim=$!
      sleep 0.3
      timeout 40 "$P" -m agentscope events --pid $victim --state-dir "$1/state" --for 6 --to journal: --to file:"$1/f" & watching=$!
      for _ in $(seq 100); do [ -s "$1/f" ] && break; sleep 0.1; done
      kill -9 $victim; wait $watching
      "$P" -c "$2"
      journalctl --sync >/dev/null 2>&1 || sleep 0.5
      journalctl --quiet --all --output=json MESSAGE_ID={message_id(INCIDENT)}
    """
    large = (
        "import sys; from pathlib import Path; from tests import samples; from tests.sink_builders import around; from agentscope.sinks.journal import Journal\n"
        "import msgspec; event = msgspec.structs.replace(samples.oom_cgroup(), incident='large', advice=('x' * 3_000_000,))\n"
        "Journal().put([around(Path('.')).recorder.line(event)])\n"
    )
    told = privately(script, str(tmp_path), large)
    entries = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(entries) == 2, told.stderr[-3000:]
    entry = next(each for each in entries if each["AGENTSCOPE_INCIDENT"] != "large")
    assert entry["AGENTSCOPE_CAUSE"] == "killed/sigkill"
    assert entry["AGENTSCOPE_SIGNAL"] == "SIGKILL"
    assert entry["PRIORITY"] == "2"
    assert entry["SYSLOG_IDENTIFIER"] == "agentscope"
    (line,) = (line for line in lines_of((tmp_path / "f").read_bytes()) if line["type"] == INCIDENT)
    assert json.loads(entry["AGENTSCOPE_EVENT"]) == line
    assert entry["MESSAGE"].endswith(line["data"]["headline"])
    (long,) = (each for each in entries if each["AGENTSCOPE_INCIDENT"] == "large")
    assert len(long["AGENTSCOPE_EVENT"]) > 3_000_000


def test_a_storm_with_every_reader_broken(tmp_path):
    """While a pipe is blocked, a socket is never read and a server answers only 500, no death is lost to the one reader that is well."""
    storm = subprocess.Popen([sys.executable, "-c", STORM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    blocked, ours = os.pipe()
    with hook(*[500] * 10_000) as server:
        config = tmp_path / "agentscope.toml"
        config.write_text(
            f'[agent.storm]\nmatch = {{ pid = {storm.pid} }}\n[sink.good]\nto = "file:{tmp_path}/good"\n'
            f'[sink.socket]\nto = "unix:{tmp_path}/s"\n[sink.hook]\nto = "{server.url}"\nonly = []\n'
        )
        config.chmod(0o600)
        watching = subprocess.Popen(
            [AGENTSCOPE, "events", "--config", config, "--state-dir", tmp_path / "state", "--for", "45"],
            stdout=ours, stderr=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        os.close(ours)
        try:
            assert watching.stderr is not None
            says = Lines(reader(watching.stderr.fileno()))
            assert settles(lambda: (tmp_path / "good").exists() and b"agent.seen" in (tmp_path / "good").read_bytes())
            never = socket.socket(socket.AF_UNIX)
            never.connect(str(tmp_path / "s"))
            assert storm.stdin is not None
            storm.stdin.write(b"go\n")
            storm.stdin.flush()
            assert storm.stdout is not None
            assert storm.stdout.readline() == b"over\n"
            assert settles(lambda: len(ends(tmp_path / "good")) == DEATHS)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 0
            assert says.wait_for(lambda line: "the webhook at 127.0.0.1" in line and "it answers 500" in line, 5)
        finally:
            for process in (watching, storm):
                process.kill()
                process.wait(10)
            os.close(blocked)
    lines = lines_of((tmp_path / "good").read_bytes())
    assert len({line["data"]["pid"] for line in ends(tmp_path / "good")}) == DEATHS
    kernel = [line for line in lines if line["type"] == "agentscope.lost" and not line["data"]["source"].startswith("sink ")]
    assert kernel == [], "something was lost on the way from the kernel"
    assert accounted(lines, "sink good")[1] == 0


def ends(path: Path) -> list[dict]:
    """The deaths with status 7 that a file tells of."""
    found = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if b"process.exit" in line]
    return [line for line in found if line["type"] == "agentscope.process.exit" and line["data"]["status"] == 7 << 8]


def settles(true: "object", limit_s: float = 30.0) -> bool:
    """Wait for it, with an end."""
    assert callable(true)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_run_tells_the_sinks_of_its_config(tmp_path):
    """`run --config` sends the death of its child to the sinks too; one that another agentscope has costs neither the child nor the others."""
    config = tmp_path / "agentscope.toml"
    config.write_text(
        f'[sink.disk]\nto = "file:{tmp_path}/f"\n[sink.there]\nto = "file:{tmp_path}/no/f"\n[sink.out]\nto = "-"\n'
    )
    config.chmod(0o600)
    words = [AGENTSCOPE, "run", "--config", config, "--state-dir", tmp_path / "state", "--", "sh", "-c", "echo out; exit 7"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.startswith("agentscope: without the sink there: cannot write the stream to")
    types = [line["type"].removeprefix("agentscope.") for line in lines_of((tmp_path / "f").read_bytes())]
    assert types[0] == "ready"
    assert "incident.opened" in types


def test_a_fleet_of_one(tmp_path):
    """A death on a host is in the table of `watch --fleet`, with the host before the agent's name."""
    port = free_port()
    serving = subprocess.Popen(
        [nats_server(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", tmp_path], stderr=subprocess.DEVNULL
    )
    victim = subprocess.Popen(["bash", "-c", "exec -a fleet-victim sleep 50"])
    url = f"nats://127.0.0.1:{port}"
    watching = subprocess.Popen(
        [AGENTSCOPE, "events", "--pid", str(victim.pid), "--state-dir", tmp_path / "state", "--for", "40", "--to", url, "--to", "-"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert watching.stdout is not None
        lines = Lines(reader(watching.stdout.fileno()))
        assert lines.wait_for(lambda line: "agentscope.agent.seen" in line, 20)
        victim.kill()
        assert lines.wait_for(lambda line: INCIDENT in line, 20)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
        table = subprocess.run(
            [AGENTSCOPE, "watch", "--fleet", url, "--once"], capture_output=True, text=True, check=False, timeout=60
        )
        assert table.returncode == 0, table.stderr
        assert f"{socket.gethostname()}/fleet-victim" in table.stdout
        assert "killed/sigkill" in table.stdout
        assert "CHANGES THAT BROKE AGENTS" in table.stdout
    finally:
        for process in (watching, victim, serving):
            process.kill()
            process.wait(10)
