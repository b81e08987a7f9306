"""Events as log records and figures as metrics, at a receiver that is built from the protocol's own definitions."""

import asyncio
import gzip
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from agentscope.errors import UsageError
from agentscope.model import AgentSeen, Lost, RemedyFinished
from tests import samples
from tests.commandline import agentscope
from tests.sink_builders import lost, opened, until

pytest.importorskip("opentelemetry.sdk")
logs_service = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")
metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")


class Receiver:
    """A collector. `answers` says what the next requests of logs get (then 200)."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.logs: list = []
        self.metrics: list = []
        self.headers: list[dict[str, str]] = []
        self.asked = 0
        receiver = self

        class Asked(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    content = gzip.decompress(content)
                receiver.headers.append(dict(self.headers))
                status = receiver.took(self.path, content)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
        self.server.daemon_threads = True
        self.url = f"otlp:http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def took(self, path: str, content: bytes) -> int:
        """Read a request as the protocol has it; the status of the answer."""
        if path == "/v1/metrics":
            self.metrics.append(metrics_service.ExportMetricsServiceRequest.FromString(content))
            return 200
        assert path == "/v1/logs"
        self.asked += 1
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.logs.append(logs_service.ExportLogsServiceRequest.FromString(content))
        return status

    def records(self) -> list:
        """Every log record."""
        return [
            record
            for each in self.logs
            for about in each.resource_logs
            for scope in about.scope_logs
            for record in scope.log_records
        ]

    def figures(self) -> dict[str, object]:
        """Every metric of the last request, by name."""
        return {
            metric.name: metric
            for about in self.metrics[-1].resource_metrics
            for scope in about.scope_metrics
            for metric in scope.metrics
        }

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    """A collector that takes everything."""
    made = Receiver()
    yield made
    made.close()


def plain(value) -> object:
    """A value of the protocol as Python has it."""
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [plain(each) for each in found.values] if kind == "array_value" else found


def attributes(of) -> dict[str, object]:
    """The attributes of a record, a point or a resource."""
    return {each.key: plain(each.value) for each in of.attributes}


async def test_an_incident_is_a_log_record(receiver, tmp_path):
    """A death has its time, a severity, the name of its type, and the process under the names of the semantic conventions."""
    tee, _ = opened(tmp_path, {"to": receiver.url, "headers": {"x-key": "k3y"}})
    reading = {"facts": {"exception_type": "KeyError", "message": "'browse'"}}
    uncaught = samples.INCIDENTS["uncaught"]() if "uncaught" in samples.INCIDENTS else samples.uncaught()
    words = samples.evidence("last-words", "a file", "KeyError", "decisive", readings=[reading])
    uncaught = msgspec.structs.replace(uncaught, evidence=(*uncaught.evidence, words))
    for event in (samples.ready(), samples.oom_cgroup(), uncaught):
        tee.write(event)
    assert await tee.flush(20) == []
    tee.close()
    _, oom, raised = receiver.records()
    found = attributes(oom)
    assert oom.event_name == "agentscope.incident.opened"
    assert oom.severity_text == "FATAL"
    assert oom.body.string_value.startswith("researcher (pid 4242): the kernel killed researcher")
    assert oom.time_unix_nano == samples.BOOT_WALL_NS + samples.DIED_NS
    assert found["process.pid"] == 4242
    assert found["process.user.id"] == 1000
    assert found["process.linux.cgroup"] == "/agents/researcher"
    assert found["process.command_line"].endswith("--model sonnet")
    assert found["error.type"] == found["agentscope.cause"] == "oom/cgroup"
    assert found["agentscope.scope"] == "agent"
    assert found["cloudevents.event_type"] == oom.event_name
    assert found["cloudevents.event_id"].endswith("-2")
    assert "exception.type" not in found
    assert len(found["agentscope.evidence"]) == len(samples.oom_cgroup().evidence)
    assert attributes(raised)["exception.type"] == "KeyError"
    assert attributes(raised)["process.exit.code"] == uncaught.exit.code
    host = attributes(receiver.logs[0].resource_logs[0].resource)
    assert host["service.name"] == "agentscope"
    assert host["host.name"] == "h"
    assert all(each["x-key"] == "k3y" for each in receiver.headers)


async def test_figures_are_metrics(receiver, tmp_path):
    """Deaths, recoveries, losses, agents, the time to a verdict and our own cost arrive as metrics, with no pid among their attributes."""
    tee, _ = opened(tmp_path, {"to": receiver.url})
    agent = samples.RESEARCHER
    for event in (
        AgentSeen(at_ns=1, agent=agent, because="x"), samples.oom_cgroup(), samples.oom_cgroup(), Lost(at_ns=1, source="ring", count=7),
        RemedyFinished(at_ns=1, incident="x", agent=agent, remedy="restart", attempt=1, outcome="done", says="", took_ms=1.0),
    ):  # fmt: skip
        tee.write(event)
    assert await tee.flush(20) == []
    tee.close()
    found = receiver.figures()
    (deaths,) = found["agentscope.deaths"].sum.data_points
    assert (deaths.as_int, attributes(deaths)) == (2, {"cause": "oom/cgroup", "scope": "agent"})
    assert found["agentscope.deaths"].sum.is_monotonic
    assert found["agentscope.deaths"].unit == "{death}"
    assert attributes(found["agentscope.recoveries"].sum.data_points[0]) == {"remedy": "restart", "outcome": "done"}
    assert found["agentscope.lost_events"].sum.data_points[0].as_int == 7
    assert found["agentscope.agents"].sum.data_points[0].as_int == 1
    assert found["agentscope.verdict.duration"].histogram.data_points[0].count == 2
    assert found["process.memory.usage"].sum.data_points[0].as_int > 1 << 20
    assert {attributes(point)["cpu.mode"] for point in found["process.cpu.time"].sum.data_points} == {"user", "system"}
    kinds = ("sum", "histogram", "gauge")
    points = [point for metric in found.values() for kind in kinds for point in getattr(metric, kind).data_points]
    assert not [name for point in points for name in attributes(point) if "pid" in name]


async def test_a_collector_that_fails_loses_nothing(tmp_path):
    """After 503 the same events come again, are counted once, and the owner is told of it; what is refused with 400 is lost and told."""
    receiver = Receiver(503, 200, 400)
    try:
        tee, said = opened(tmp_path, {"to": receiver.url, "only": []})
        tee.write(samples.oom_cgroup())
        assert await tee.flush(30) == []
        tee.write(lost(1))
        assert await until(lambda: tee.branches[0].sink.lost_count == 1)
        tee.write(lost(2))
        assert await tee.flush(30) == []
        tee.close()
        assert receiver.figures()["agentscope.deaths"].sum.data_points[0].as_int == 1
        names = [attributes(record)["cloudevents.event_id"].rpartition("-1-")[2] for record in receiver.records()]
        assert names == ["1", "2-lost", "3"]
        assert said[0].startswith("the collector at 127.0.0.1:")
    finally:
        receiver.close()


async def test_hostile_text_is_text(receiver, tmp_path):
    """Whatever a process calls itself, a log record has no control character and no secret in it."""
    tee, _ = opened(tmp_path, {"to": receiver.url, "only": []})
    for event in samples.night():
        tee.write(event)
    secret = msgspec.structs.replace(samples.RESEARCHER, command="agent --password hunter2222 --key sk-ant-REDACTED")
    tee.write(AgentSeen(at_ns=1, agent=secret, because="x"))
    assert await tee.flush(30) == []
    tee.close()
    assert len(receiver.records()) == len(samples.night()) + 1
    for request in receiver.logs:
        content = request.SerializeToString()
        assert b"\x1b[" not in content
        assert b"hunter2222" not in content
        assert b"abcdefghijklmnop" not in content


async def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    """Where the SDK is not installed, the sink is refused at the start with the line to type."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(UsageError, match=r"pip install 'agentscope-linux\[otlp\]'"):
        opened(tmp_path, {"to": "otlp:http://127.0.0.1:4318"})


def test_an_address_that_is_none():
    """An endpoint that is no address is refused with an example of one."""
    for to in ("otlp:", "otlp:127.0.0.1:4318", "otlp:ftp://x", "otlp:http://x?y=1"):
        agentscope("events", "--to", to).is_sentence(65, "otlp:http://127.0.0.1:4318")


async def test_nobody_there_keeps_nobody_waiting(tmp_path):
    """With no collector at all a flush ends in its time, and what was not sent is named."""
    tee, said = opened(tmp_path, {"to": "otlp:http://127.0.0.1:9", "only": []})
    tee.write(lost(1))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await tee.flush(0.5) == ["otlp"]
    assert loop.time() - begun < 10
    assert await until(lambda: said, 30)
    tee.close()
