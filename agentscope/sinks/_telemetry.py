"""What speaks OTLP: the OpenTelemetry SDK with its exporters over HTTP. Loading it takes a quarter of a second, so only `otlp` does, late.

The queue before it, its losses and the tries are those of our outlet: the SDK's own batches would drop without a word.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psutil
import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from agentscope import __version__
from agentscope.model import AnyEvent, IncidentOpened
from agentscope.record import Line, RawEnvelope
from agentscope.sinks._figures import SAYS, VERDICT_BUCKETS_S, Figures
from agentscope.sinks._words import CRITICAL, DEBUG, ERROR, INFO, NOTICE, WARNING, facts_of, said_of, shown
from agentscope.sinks.webhook import ASK_AGAIN

TIMEOUT_S = 5.0
UNITS = {
    "deaths": "{death}",
    "hangs": "{hang}",
    "recoveries": "{remedy}",
    "incidents_closed": "{incident}",
    "lost_events": "{event}",
}
SEVERITIES = {
    CRITICAL: SeverityNumber.FATAL,
    ERROR: SeverityNumber.ERROR,
    WARNING: SeverityNumber.WARN,
    NOTICE: SeverityNumber.INFO2,
    INFO: SeverityNumber.INFO,
    DEBUG: SeverityNumber.DEBUG,
}
CONVENTIONAL = frozenset({"PID", "AGENT_PID", "EXIT_CODE", "CONTAINER", "UNIT"})  # facts that have a name of their own here


class Gathering(LogRecordProcessor):
    """Keeps what is emitted until it is sent as one request."""

    def __init__(self) -> None:
        self.records: list[ReadableLogRecord] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Keep it."""
        self.records.append(
            ReadableLogRecord(log_record.log_record, log_record.resource or Resource({}), log_record.instrumentation_scope)
        )

    def shutdown(self) -> None:
        """Nothing is left to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - nothing waits here
        """Nothing is left to do."""
        return True


class Heard(logging.Handler):
    """Keeps the last word of the exporters, which they have for a log and for nobody else."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said = shown(record.getMessage())[:200]


class Telemetry:
    """A provider of log records and one of metrics, for one collector."""

    def __init__(self, url: str, headers: Mapping[str, str], every_s: float, about: Mapping[str, str]) -> None:
        self.heard = Heard()
        ours = logging.getLogger("opentelemetry")
        ours.addHandler(self.heard)
        ours.propagate = False
        self.status: int | None = None  # of the last answer; None: there was none
        self.session = requests.Session()
        self.session.trust_env = False  # of the proxies and passwords of whoever started us nothing is taken
        self.session.hooks["response"].append(self.answered)
        host = {"service.name": "agentscope", "service.version": __version__, "os.type": "linux", **about}
        self.gathering = Gathering()
        self.logs = LoggerProvider(Resource(host), shutdown_on_exit=False)
        self.logs.add_log_record_processor(self.gathering)
        self.logger = self.logs.get_logger("agentscope", __version__)
        self.exporter = OTLPLogExporter(f"{url}/v1/logs", headers=dict(headers), timeout=TIMEOUT_S, session=self.session)
        figures = requests.Session()
        figures.trust_env = False
        metrics = OTLPMetricExporter(f"{url}/v1/metrics", headers=dict(headers), timeout=TIMEOUT_S, session=figures)
        reader = PeriodicExportingMetricReader(metrics, every_s * 1000, TIMEOUT_S * 1000)
        self.metrics = MeterProvider([reader], Resource(host), shutdown_on_exit=False)
        self.make_instruments()

    def make_instruments(self) -> None:
        """What is counted, and what we cost ourselves."""
        meter = self.metrics.get_meter("agentscope", __version__)
        self.figures = Figures()
        self.counters = {name: meter.create_counter(f"agentscope.{name}", unit, SAYS[name]) for name, unit in UNITS.items()}
        self.agents = meter.create_up_down_counter("agentscope.agents", "{agent}", SAYS["agents"])
        self.verdict = meter.create_histogram(
            "agentscope.verdict.duration", "s", SAYS["verdict"], explicit_bucket_boundaries_advisory=VERDICT_BUCKETS_S
        )
        own = psutil.Process()

        def cpu(_: CallbackOptions) -> Iterator[Observation]:
            times = own.cpu_times()
            yield Observation(times.user, {"cpu.mode": "user"})
            yield Observation(times.system, {"cpu.mode": "system"})

        def memory(_: CallbackOptions) -> Iterator[Observation]:
            yield Observation(own.memory_info().rss)

        meter.create_observable_counter("process.cpu.time", [cpu], "s", "Processor time of agentscope itself")
        meter.create_observable_up_down_counter("process.memory.usage", [memory], "By", "Resident memory of agentscope itself")

    def answered(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        """The collector has answered."""
        self.status = answer.status_code

    def count(self, event: AnyEvent) -> None:
        """Add what this event adds."""
        for figure in self.figures.of(event):
            if figure.name == "agents":
                self.agents.add(figure.amount)
            elif figure.name == "verdict":
                self.verdict.record(figure.amount, figure.labels)
            else:
                # an empty label of Prometheus is an attribute that is not there
                labels = {name: value for name, value in figure.labels.items() if value}
                self.counters[figure.name].add(figure.amount, labels)

    def send(self, lines: Sequence[tuple[Line, int]]) -> tuple[str, bool]:
        """Send these, each with its wall clock (ns): why it failed (empty: it did not), and whether another try may do."""
        self.gathering.records.clear()
        observed_ns = time.time_ns()
        for line, wall_ns in lines:
            said, priority = said_of(line.event)
            severity = SEVERITIES[priority]
            self.logger.emit(
                LogRecord(
                    timestamp=wall_ns, observed_timestamp=observed_ns, severity_number=severity, severity_text=severity.name,
                    body=shown(said), attributes=dict(attributes_of(line)),
                    event_name=str(type(line.event).__struct_config__.tag),
                )
            )  # fmt: skip
        self.status, self.heard.said = None, ""
        if self.exporter.export(self.gathering.records) is LogRecordExportResult.SUCCESS:
            return "", False
        again = self.status is None or self.status >= 500 or self.status in ASK_AGAIN
        return (f"it answers {self.status}" if self.status else self.heard.said or "no answer"), again

    def send_figures(self) -> None:
        """Send the figures now."""
        self.metrics.force_flush(TIMEOUT_S * 1000)

    def close(self) -> None:
        """Stop the thread of the figures."""
        self.metrics.shutdown(TIMEOUT_S * 1000)
        self.logs.shutdown()
        logging.getLogger("opentelemetry").removeHandler(self.heard)


def attributes_of(line: Line) -> Iterable[tuple[str, Any]]:
    """The attributes of a log record; names without a convention begin with "agentscope."."""
    event = line.event
    envelope = msgspec.json.decode(line.encoded, type=RawEnvelope)
    yield "cloudevents.event_id", envelope.id
    yield "cloudevents.event_source", envelope.source
    yield "cloudevents.event_type", envelope.type
    if envelope.subject is not None:
        yield "cloudevents.event_subject", shown(envelope.subject)
    for name, value in facts_of(event).items():
        if name not in CONVENTIONAL and value is not None and value != "":
            yield f"agentscope.{name.lower()}", value if isinstance(value, bool | int) else shown(str(value))
    found = of_process(event) | (of_incident(event) if isinstance(event, IncidentOpened) else {})
    yield from ((name, value) for name, value in found.items() if value is not None)


def of_process(event: AnyEvent) -> dict[str, Any]:
    """Whom the event is about: the process of an incident, else the agent."""
    agent = getattr(event, "agent", None)
    if agent is None:
        return {"process.pid": getattr(event, "agent_pid", None) or getattr(event, "pid", None)}
    process = event.process if isinstance(event, IncidentOpened) else None
    about = process or agent
    # in one piece: a secret is known by the word before it
    command = " ".join(process.argv) if process is not None else agent.command
    return {
        "process.pid": about.pid,
        "process.parent_pid": process.ppid if process is not None else None,
        "process.executable.name": shown(process.comm) if process is not None else None,
        "process.executable.path": shown(about.exe) if about.exe else None,
        "process.command_line": shown(command) or None,
        "process.user.id": about.uid,
        "process.linux.cgroup": shown(about.cgroup) if about.cgroup else None,
        "container.id": agent.container,
        "agentscope.unit": agent.unit,
    }


def of_incident(event: IncidentOpened) -> dict[str, Any]:
    """What an incident says beyond its facts: how it ended, the exception that its last words name, what it rests on."""
    readings = [
        reading["facts"]
        for record in event.evidence
        for reading in record.data.get("readings", ())  # type: ignore[attr-defined] # the shape that last-words has
        if isinstance(reading, dict) and isinstance(reading.get("facts"), dict)
    ]
    raised: dict[str, object] = (
        next((facts for facts in readings if "exception_type" in facts), {})
        if event.cause.startswith(("exception/", "drift/"))
        else {}
    )
    return {
        "error.type": event.cause,
        "exception.type": shown(str(raised["exception_type"])) if raised else None,
        "exception.message": shown(str(raised["message"])) if raised.get("message") else None,
        "process.exit.code": event.exit.code,
        "agentscope.evidence": [shown(record.says) for record in event.evidence],
        "agentscope.advice": [shown(each) for each in event.advice],
    }
