"""A fleet of hosts: `nats://host:4222` publishes the stream to NATS JetStream, where `agentscope watch --fleet` reads that of all hosts.

Each event goes to a spool on disk first and from there to the server, which knows it by its id: while the server is away nothing is
lost, and what is sent twice is kept once. Subjects are agentscope.HOST.TYPE; the stream AGENTSCOPE is made if it is not there.
"""

import asyncio
import importlib.util
import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from agentscope.errors import BadInput, UsageError
from agentscope.examination.proc import plain
from agentscope.record import Line, RawEnvelope, redact
from agentscope.sinks import PREFIX, Around, Chosen, cannot_open, server_of
from agentscope.sinks import Options as NoOptions
from agentscope.sinks._outlet import FIRST_PAUSE_S, Outlet
from agentscope.sinks._spool import Spool
from agentscope.sizes import bytes_of

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

SCHEMES = ("nats", "tls")
EXAMPLE = "nats://nats.example.org:4222"
USUAL = ("ready", "agent", "incident", "remedy", "pressure", "lost")
STREAM = "AGENTSCOPE"
SUBJECT = "agentscope"
KEPT_S = 30 * 86400
SAME_WITHIN_S = 600  # how long the server knows an id; whoever reads knows them for longer
ANSWER_S = 5.0
CONNECT_S = 3
PAUSE_S = 0.2
AT_ONCE = 256
LONGEST_PAUSE_S = 5.0
HEADERS_BYTES = 1024
INSTALL = "pip install 'agentscope-linux[fleet]'"


class Options(NoOptions, frozen=True):
    """`credentials` is a file as `nsc` makes it; `spool` is how much may wait on disk while the server is away."""

    credentials: str | None = None
    spool: str = "64M"


def checked(wrong: str, to: str, options: Options) -> None:
    """What can be wrong before anything is sent.

    Raises:
        BadInput: no host, no size.
    """
    try:
        parts = urlsplit(to)
        is_address = bool(parts.hostname) and parts.port != 0 and not parts.path.strip("/") and to.isascii() and " " not in to
    except ValueError:
        is_address = False
    if not is_address or not to.startswith(("nats://", "tls://")):
        raise BadInput(wrong, "it names no server", EXAMPLE)
    if options.credentials is not None and not options.credentials.startswith("/"):
        raise BadInput(f"{wrong}: credentials", "a file has a path from / on", 'credentials = "/etc/agentscope/fleet.creds"')
    bytes_of(f"{wrong}: spool", options.spool)


def opened(chosen: Chosen, around: Around) -> "ToFleet":
    """The spool, open, and the thread that sends from it.

    Raises:
        UsageError: the library is missing, or the spool cannot be had.
    """
    if not is_installed():
        raise UsageError("a fleet needs nats-py", "it is not installed", INSTALL)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", chosen.name).lstrip(".") or "fleet"
    spool = Spool(around.state / "spool", name, bytes_of("spool", chosen.options.spool))
    try:
        spool.open()
    except OSError as error:
        raise cannot_open(f"cannot use the spool {spool.path}", str(spool.path), error) from None
    return ToFleet(chosen, around, spool)


def is_installed() -> bool:
    """Whether the library is there; looked up, not loaded."""
    try:
        return importlib.util.find_spec("nats.js") is not None
    except (ImportError, ValueError):
        return False


def host_token(source: str) -> str:
    """The host of a line's source as one token of a subject."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", urlsplit(source).netloc) or "unknown"


async def connect(url: str, credentials: str | None = None) -> "Client":
    """A connection that ends when the server does: whoever has it makes another.

    Raises:
        nats.errors.Error, OSError, TimeoutError: there is none.
    """
    import nats
    from nats.errors import Error, NoServersError

    heard: list[Exception] = []

    async def hear(error: Exception) -> None:
        """Whoever waits for an answer is told; while nobody does yet, it says why there is no connection."""
        heard[:] = [error]

    more: dict[str, Any] = {} if credentials is None else {"user_credentials": credentials}
    try:
        return await nats.connect(
            url, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=PAUSE_S, connect_timeout=CONNECT_S,
            ping_interval=20, error_cb=hear, name="agentscope", **more,
        )  # fmt: skip
    except NoServersError:
        for error in heard:
            if isinstance(error, (Error, OSError, TimeoutError)):
                raise error from None
        raise


async def stream_of(connection: "Client") -> "JetStreamContext":
    """JetStream with our stream in it, made where it is not there.

    Raises:
        nats.errors.Error: the server has no JetStream, or does not let us.
    """
    from nats.js.api import StreamConfig
    from nats.js.errors import NotFoundError

    stream = connection.jetstream(timeout=ANSWER_S)
    try:
        await stream.stream_info(STREAM)
    except NotFoundError:
        await stream.add_stream(
            StreamConfig(name=STREAM, subjects=[f"{SUBJECT}.>"], max_age=KEPT_S, duplicate_window=SAME_WITHIN_S)
        )
    return stream


class Spooling:
    """The place of the outlet: the spool. What is in it is safe."""

    def __init__(self, spool: Spool, sender: "Sender") -> None:
        self.spool = spool
        self.sender = sender

    def put(self, lines: Sequence[Line]) -> None:
        """Keep these, and have them sent.

        Raises:
            NotTaken: there is no room.
        """
        self.spool.append([line.encoded for line in lines])
        self.sender.wake()

    def close(self) -> None:
        """The sender closes it."""


class ToFleet(Outlet):
    """An outlet into the spool, and the sender behind it."""

    def __init__(self, chosen: Chosen, around: Around, spool: Spool) -> None:
        called = f"the fleet at {server_of(chosen.to)}"
        self.spool = spool
        self.sender = Sender(chosen, spool, self)
        super().__init__(chosen, around, Spooling(spool, self.sender), called)
        self.sender.thread.start()

    @property
    def lost_count(self) -> int:
        """Lines that will never arrive."""
        return super().lost_count + self.sender.refused

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent, or the time is over: then the rest is sent at the next start."""
        until = time.monotonic() + timeout_s
        spooled = await super().flush(timeout_s)
        while not self.spool.is_empty and time.monotonic() < until:  # noqa: ASYNC110 - its end is in another thread's loop
            await asyncio.sleep(0.02)
        if spooled and not self.spool.is_empty:
            self.say(
                f"{self.called} has not got everything: the rest waits in {self.spool.path}, and is sent at the next start"
            )
        return spooled

    def close(self) -> None:
        """Stop both; what is in the spool stays."""
        super().close()
        self.sender.stop()


class Sender:
    """Sends what is in the spool, in a thread with a loop of its own, for as long as it takes."""

    def __init__(self, chosen: Chosen, spool: Spool, outlet: ToFleet) -> None:
        self.to = chosen.to
        self.credentials = chosen.options.credentials
        self.spool = spool
        self.outlet = outlet
        self.refused = 0
        self.loop = asyncio.new_event_loop()
        self.more = asyncio.Event()
        self.stopping = asyncio.Event()
        self.thread = threading.Thread(target=self.run, name="fleet", daemon=True)

    def run(self) -> None:
        """The thread."""
        try:
            self.loop.run_until_complete(self.send())
        finally:
            self.spool.close()
            self.loop.close()

    def wake(self) -> None:
        """There is more to send; from any thread."""
        self.outlet_safe(self.more.set)

    def stop(self) -> None:
        """Come to an end; from any thread."""
        self.outlet_safe(self.stopping.set)
        self.wake()

    def outlet_safe(self, call: Any) -> None:
        """Have our own loop call this, unless it is over."""
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            return

    async def send(self) -> None:
        """Connect and send, again and again."""
        pause_s = FIRST_PAUSE_S
        while not self.stopping.is_set():
            if self.spool.is_empty:
                await self.waited()
                continue
            connection: Client | None = None
            try:
                connection = await connect(self.to, self.credentials)
                stream = await stream_of(connection)
                while not self.stopping.is_set():
                    if not self.spool.is_empty:
                        await self.publish(connection, stream)
                        self.outlet.on_loop(self.outlet.fails, "")
                        pause_s = FIRST_PAUSE_S
                    else:
                        await self.waited()
            except Exception as error:  # noqa: BLE001 - a server that says what its library does not expect must not end the sending
                why = redact(plain(str(error) or type(error).__name__, 200)).removeprefix("nats: ")
                self.outlet.on_loop(self.outlet.fails, why)
                with_pause = asyncio.ensure_future(self.stopping.wait())
                await asyncio.wait((with_pause,), timeout=pause_s)
                with_pause.cancel()
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            finally:
                if connection is not None:
                    await connection.close()

    async def waited(self) -> None:
        """Until there is more, or it is over."""
        await self.more.wait()
        self.more.clear()

    async def publish(self, connection: "Client", stream: "JetStreamContext") -> None:
        """The first lines of the spool, and forget them once the server has each.

        Raises:
            nats.errors.Error, TimeoutError: it has not.
        """
        lines = self.spool.read()[:AT_ONCE]
        most = connection.max_payload - HEADERS_BYTES
        wanted = [(line, envelope) for line in lines if (envelope := envelope_of(line)) is not None and len(line) <= most]
        answers = await asyncio.gather(*(publish_one(stream, *each) for each in wanted), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        self.refused += len(lines) - len(wanted)
        self.spool.forget(lines)


def envelope_of(line: bytes) -> RawEnvelope | None:
    """The envelope of a line of the spool, None where a bad disk has made something else of it."""
    try:
        return msgspec.json.decode(line, type=RawEnvelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def publish_one(stream: "JetStreamContext", line: bytes, envelope: RawEnvelope) -> None:
    """One line, under an id that no other line of any host has."""
    subject = f"{SUBJECT}.{host_token(envelope.source)}.{envelope.type.removeprefix(PREFIX)}"
    headers = {"Nats-Msg-Id": f"{envelope.source}/{envelope.id}"}
    await stream.publish(subject, line.rstrip(b"\n"), timeout=ANSWER_S, headers=headers)
