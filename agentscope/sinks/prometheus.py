"""Figures for Prometheus: `prometheus:127.0.0.1:9464` serves them at /metrics, beside what agentscope itself costs.

Alert rules and a dashboard that go with them: `agentscope metrics rules`, `agentscope metrics dashboard`.
"""

import socket
import socketserver
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentscope import __version__
from agentscope.causes import causes
from agentscope.errors import BadInput, UsageError
from agentscope.model import Ready
from agentscope.record import Line
from agentscope.sinks import Around, Chosen, Options
from agentscope.sinks._figures import SAYS, VERDICT_BUCKETS_S, Figures

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SCHEMES = ("prometheus",)
EXAMPLE = "prometheus:127.0.0.1:9464"
USUAL = ("ready", "agent", "incident", "remedy", "lost")
PATH = "/metrics"
ANSWERS_AT_ONCE = 8
PATIENCE_S = 10.0  # with one who asks and does not read
POLL_S = 0.1
LABELS = {
    "deaths": ("cause", "package", "scope"),
    "hangs": ("cause", "package", "scope"),
    "recoveries": ("remedy", "outcome"),
    "incidents_closed": ("result",),
    "lost_events": ("source",),
}


def checked(wrong: str, to: str, options: Options) -> None:  # noqa: ARG001 - it has none
    """What can be wrong before anything is opened.

    Raises:
        BadInput: it is no address to listen at.
    """
    try:
        address_of(to)
    except ValueError:
        raise BadInput(wrong, f"{to!r} is not prometheus:HOST:PORT", EXAMPLE) from None


def address_of(to: str) -> tuple[str, int]:
    """Where to listen.

    Raises:
        ValueError: it is no address.
    """
    rest = to.partition(":")[2]
    parts = urlsplit(f"//{rest}")
    if not parts.hostname or parts.port is None or parts.netloc != rest or "@" in rest:
        raise ValueError(to)
    return parts.hostname, parts.port


def opened(chosen: Chosen, around: Around) -> "Metrics":  # noqa: ARG001 - it has nothing to say
    """The figures, served.

    Raises:
        UsageError: the library is missing, or somebody listens there.
    """
    try:
        import prometheus_client  # noqa: F401 - whether it is there
    except ImportError:
        raise UsageError(
            "metrics need prometheus-client", "it is not installed", "pip install 'agentscope-linux[metrics]'"
        ) from None
    host, port = address_of(chosen.to)
    metrics = Metrics()
    try:
        metrics.serve(host, port)
    except OSError as error:
        raise UsageError(
            f"cannot serve metrics at {host}:{port}", error.strerror or str(error), f"ss -ltnp 'sport = :{port}'"
        ) from None
    return metrics


class Metrics:
    """The figures since we started. Prometheus itself keeps what was before."""

    lost_count = 0
    why = ""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call] # as many lines again, which Prometheus does not use
        self.registry = prometheus.CollectorRegistry()
        self.figures = Figures()
        self.counters = {
            name: prometheus.Counter(f"agentscope_{name}", SAYS[name], labels, registry=self.registry)
            for name, labels in LABELS.items()
        }
        self.agents = prometheus.Gauge("agentscope_agents", SAYS["agents"], registry=self.registry)
        self.verdict = prometheus.Histogram(
            "agentscope_verdict_seconds", SAYS["verdict"], ("kind",), buckets=VERDICT_BUCKETS_S, registry=self.registry
        )
        self.about = prometheus.Gauge(
            "agentscope_info", "This agentscope", ("version", "engine", "kernel"), registry=self.registry
        )
        prometheus.ProcessCollector(registry=self.registry)
        self.begin_at_zero()
        self.server: ThreadingHTTPServer | None = None
        self.thread: threading.Thread | None = None

    def begin_at_zero(self) -> None:
        """Let every cause be there from the start: what first appears with 1 has not increased, for Prometheus."""
        for scope in ("agent", "tool"):
            for cause in (*causes(), "undetermined"):
                self.counters["hangs" if cause.startswith("hang/") else "deaths"].labels(cause, "", scope)
            self.counters["hangs"].labels("undetermined", "", scope)
        for kind in ("death", "hang"):
            self.verdict.labels(kind)

    def take(self, line: Line) -> None:
        """Count it."""
        event = line.event
        if isinstance(event, Ready):
            self.about.labels(__version__, event.engine, event.kernel).set(1)
        for figure in self.figures.of(event):
            if figure.name == "agents":
                self.agents.inc(figure.amount)
            elif figure.name == "verdict":
                self.verdict.labels(**figure.labels).observe(figure.amount)
            else:
                self.counters[figure.name].labels(**figure.labels).inc(figure.amount)

    def serve(self, host: str, port: int) -> None:
        """Answer whoever asks, in threads of our own.

        Raises:
            OSError: nobody can listen there.
        """
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self.server = server_class(family)((host, port), asked_class(self.registry))
        self.thread = threading.Thread(target=self.server.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
        self.thread.start()

    async def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - whoever wants them asks
        """There is nothing to wait for."""
        return True

    def close(self) -> None:
        """Answer nobody any more."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


def asked_class(registry: "CollectorRegistry") -> type[socketserver.BaseRequestHandler]:
    """Who answers one question: prometheus_client's own, for our figures, at /metrics only and with an end to its patience."""
    from prometheus_client import MetricsHandler

    class Asked(MetricsHandler):
        timeout = PATIENCE_S

        def do_GET(self) -> None:  # noqa: N802 - the name that http.server asks for
            if self.path.partition("?")[0] == PATH:
                super().do_GET()
            else:
                self.send_error(404, explain=f"The figures are at {PATH}")

    Asked.registry = registry
    return Asked


def server_class(of_family: int) -> type[ThreadingHTTPServer]:
    """A server that answers a few at once, and turns the others away: connections that say nothing must not cost us threads."""

    class Server(ThreadingHTTPServer):
        address_family = of_family
        daemon_threads = True
        block_on_close = False
        free = threading.Semaphore(ANSWERS_AT_ONCE)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.free.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.free.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """One who went away is no error of ours."""

    return Server
