"""What tests of sinks need: a recorder, events, a webhook that answers as it is told."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import agentscope
from agentscope.model import AgentSeen, Lost
from agentscope.record import Recorder, decode
from agentscope.sinks import Around, chosen_of
from agentscope.sinks._tee import Tee, open_tee
from tests import samples

BIG = AgentSeen(at_ns=1, agent=samples.CODER, because="x" * 4000)
SEEN = AgentSeen(at_ns=1, agent=samples.CODER, because="signature")
SCHEMA = json.loads((Path(agentscope.__file__).parent / "stream.schema.json").read_text())
# one of each type: to try them all for each line takes twenty times as long
VALIDATORS = {
    kind["properties"]["type"]["const"]: jsonschema.Draft202012Validator({**kind, "$defs": SCHEMA["$defs"]})
    for kind in SCHEMA["oneOf"]
}


def nats_server() -> str:
    """The program: Debian's, installed or unpacked by `make` where nothing starts it; else a skip."""
    unpacked = Path(sys.prefix) / "nats" / "usr" / "sbin"
    found = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin:{unpacked}")
    if found is None:
        pytest.skip("nats-server is not installed (Debian: apt-get install nats-server)")
    return found


class Said(list[str]):
    """What was said to the owner."""

    def __call__(self, says: str) -> None:
        """Keep it."""
        self.append(says)


def around(folder: Path) -> Around:
    """What sinks are given."""
    return Around(Recorder("3d3393b2-0000-4000-8000-000000000000", samples.BOOT_WALL_NS, host="h", run="1"), folder, Said())


def opened(folder: Path, *tables: dict[str, Any]) -> tuple[Tee, Said]:
    """Sinks of these tables, named by their schemes, and what they say."""
    given = around(folder)
    chosen = [chosen_of("the test", table["to"].partition(":")[0], table) for table in tables]
    assert isinstance(given.say, Said)
    return open_tee(chosen, given), given.say


def lines_of(content: bytes) -> list[dict[str, Any]]:
    """Every line, each of which keeps the schema and can be read back."""
    found = []
    for line in content.splitlines():
        decode(line)
        found.append(json.loads(line))
        VALIDATORS[found[-1]["type"]].validate(found[-1])
    return found


def accounted(lines: Sequence[dict[str, Any]], source: str) -> tuple[int, int]:
    """How many lines came, and how many are told as lost in the place of others."""
    lost = [line for line in lines if line["id"].endswith("-lost") and line["data"]["source"] == source]
    return len(lines) - len(lost), sum(line["data"]["count"] for line in lost)


async def until(true: Callable[[], object], limit_s: float = 20.0) -> bool:
    """Wait for it, with an end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not true():  # noqa: ASYNC110 - what it waits for sets no event
                await asyncio.sleep(0.01)
    return bool(true())


def lost(number: int) -> Lost:
    """A small event, each another."""
    return Lost(at_ns=number, source="test", count=number + 1)


class Hook:
    """A webhook at `url`. `answers` says what the next requests get (then 200): a status, or None for no answer at all."""

    def __init__(self, answers: Sequence[int | None]) -> None:
        self.answers = list(answers)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.asked = 0
        self.over = threading.Event()
        hook = self

        class Asked(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked += 1
                status = hook.answers.pop(0) if hook.answers else 200
                if status is None:
                    hook.over.wait(60)
                    return
                if status == 200:
                    hook.got.append((dict(self.headers), content))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"no" if status != 200 else b"ok")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret-path"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End it."""
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def hook(*answers: int | None) -> Iterator[Hook]:
    """One for a test."""
    made = Hook(answers)
    try:
        yield made
    finally:
        made.close()
