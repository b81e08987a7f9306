"""OpenTelemetry: `otlp:http://127.0.0.1:4318` sends events as log records, and figures as metrics, to a collector (OTLP over HTTP).

Names are those of the semantic conventions where they have one (process.*, host.*, container.id, exception.*, error.type, cloudevents.*),
and begin with `agentscope.` where they have none.
"""

import asyncio
import importlib.util
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agentscope.durations import seconds_of
from agentscope.errors import BadInput, UsageError
from agentscope.record import Line
from agentscope.sinks import Around, Chosen, server_of
from agentscope.sinks._outlet import NotTaken, Outlet
from agentscope.sinks.webhook import Options as WithHeaders
from agentscope.sinks.webhook import checked as checked_address

if TYPE_CHECKING:
    from agentscope.sinks._telemetry import Telemetry

SCHEMES = ("otlp",)
EXAMPLE = "otlp:http://127.0.0.1:4318"
USUAL = ("ready", "agent", "incident", "remedy", "pressure", "lost")


class Options(WithHeaders, frozen=True):
    """`headers` are sent with each request, such as the key of a vendor; `every` is how often figures are sent."""

    every: str = "15s"


def checked(wrong: str, to: str, options: Options) -> None:
    """What can be wrong before anything is sent.

    Raises:
        BadInput: no address, no headers, no duration.
    """
    url = to.partition(":")[2]
    if not url.startswith(("http://", "https://")) or "?" in url:
        raise BadInput(wrong, f"{to!r} is not otlp:http://HOST:PORT", EXAMPLE)
    checked_address(wrong, url, options)
    seconds_of(f"{wrong}: every", options.every, 0.1, 3600)


def opened(chosen: Chosen, around: Around) -> "ToCollector":
    """The collector; what speaks to it is loaded with the first event, in a thread.

    Raises:
        UsageError: the libraries are missing.
    """
    if not is_installed():
        hint = "pip install 'agentscope-linux[otlp]'"
        raise UsageError("OTLP needs the OpenTelemetry SDK and its exporter", "they are not installed", hint)
    return ToCollector(chosen, around)


def is_installed() -> bool:
    """Whether the SDK and the exporter are there; looked up, not loaded."""
    try:
        return all(importlib.util.find_spec(f"opentelemetry.{name}") for name in ("sdk", "exporter.otlp.proto.http"))
    except (ImportError, ValueError):
        return False


class ToCollector(Outlet):
    """An outlet that sends its last figures before it is over."""

    def __init__(self, chosen: Chosen, around: Around) -> None:
        url = chosen.to.partition(":")[2].rstrip("/")
        self.collector = Collector(url, chosen.options, around)
        super().__init__(chosen, around, self.collector, f"the collector at {server_of(url)}")

    async def flush(self, timeout_s: float) -> bool:
        """Wait until every event is sent, and the figures of them, or the time is over."""
        until = time.monotonic() + timeout_s
        sent = await super().flush(timeout_s)
        telemetry = self.collector.telemetry
        if telemetry is None or not sent:
            return sent
        done = asyncio.Event()

        def send() -> None:
            telemetry.send_figures()
            self.on_loop(done.set)

        # a daemon, not the loop's executor: that would be waited for at the end, however long it takes
        threading.Thread(target=send, name="figures", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            return False
        return True


class Collector:
    """The SDK, made with the first event. Lives in the thread of its outlet."""

    def __init__(self, url: str, options: Options, around: Around) -> None:
        self.url = url
        self.options = options
        self.around = around
        self.telemetry: Telemetry | None = None
        self.counted = 0  # up to this number events are in the figures: what is sent again is counted once

    def put(self, lines: Sequence[Line]) -> None:
        """Count these, and send them as log records in one request.

        Raises:
            NotTaken: the collector has not taken them.
        """
        if self.telemetry is None:
            self.telemetry = self.made()
        for line in lines:
            if line.number > self.counted:
                self.counted = line.number
                self.telemetry.count(line.event)
        boot_wall_ns = self.around.recorder.boot_wall_ns
        why, again = self.telemetry.send([(line, boot_wall_ns + line.event.at_ns) for line in lines])
        if why:
            raise NotTaken(why, for_good=not again)

    def made(self) -> "Telemetry":
        """The SDK, about this host."""
        from agentscope.sinks._telemetry import Telemetry

        host, boot_id = urlsplit(self.around.recorder.source)[1:3]
        resource = {"host.name": host, "service.instance.id": f"{boot_id.strip('/')}-{os.getpid()}"}
        return Telemetry(self.url, self.options.headers, seconds_of("every", self.options.every, 0, 86400), resource)

    def close(self) -> None:
        """Stop its threads."""
        if self.telemetry is not None:
            self.telemetry.close()
