"""The lines of all hosts from NATS JetStream, each once: from some time ago on, and then as they come.

While the server is away it is asked again; meanwhile nothing is missed, for it goes on behind the last line that came.
"""

import asyncio
import datetime as dt
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agentscope.errors import BadInput, EngineUnavailable, UsageError
from agentscope.examination.proc import plain
from agentscope.record import Envelope, decode, redact
from agentscope.sinks import server_of
from agentscope.sinks.nats import ANSWER_S, INSTALL, STREAM, SUBJECT, Options, checked, connect, is_installed

if TYPE_CHECKING:
    from nats.js import JetStreamContext

SEEN_KEPT = 100_000  # ids: what the server has forgotten and got again is known by them
PAUSE_S = 1.0
QUIET_S = 2.0  # without a line, it is asked whether it is still there


def check_fleet(url: str) -> None:
    """Whether it can be read at all, before a screen is drawn.

    Raises:
        BadInput: it is no address. UsageError: the library is missing.
    """
    checked(f"--fleet {url}", url, Options())
    if not is_installed():
        raise UsageError("a fleet needs nats-py", "it is not installed", INSTALL)


class Fleet:
    """One reader."""

    def __init__(self, url: str, since_s: float) -> None:
        self.url = url
        self.since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=since_s)
        self.last = 0  # the number that the server gave the last line
        self.ids: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def lines(self, *, once: bool = False) -> AsyncIterator[Envelope]:
        """What hosts tell; with `once` only what is there now.

        Raises:
            EngineUnavailable: nobody answers, or there is no such stream; later that is waited out, unless it is asked for `once`.
        """
        from nats.errors import Error

        begun = False
        while True:
            try:
                connection = await connect(self.url)
                try:
                    stream = connection.jetstream(timeout=ANSWER_S)
                    async for line in self.read(stream, once=once):
                        begun = True
                        yield line
                finally:
                    await connection.close()
            except (Error, OSError, TimeoutError) as error:
                if once or not begun:
                    why = redact(plain(str(error) or type(error).__name__, 200)).removeprefix("nats: ")
                    raise EngineUnavailable(f"cannot read the fleet at {server_of(self.url)}", why, self.hint(error)) from None
                await asyncio.sleep(PAUSE_S)
            else:
                return

    def hint(self, error: BaseException) -> str:
        """What to type."""
        from nats.js.errors import NotFoundError

        if isinstance(error, NotFoundError):
            return f"agentscope events --to {self.url.partition('://')[0]}://{server_of(self.url)} on a host: that makes the stream"
        return "nats-server --jetstream there, and a way through the firewall"

    async def read(self, stream: "JetStreamContext", *, once: bool) -> AsyncIterator[Envelope]:
        """The lines behind the last that came.

        Raises:
            nats.errors.Error, TimeoutError: the server has gone.
        """
        from nats.js.api import ConsumerConfig, DeliverPolicy

        state = (await stream.stream_info(STREAM)).state
        if once and state.last_seq <= self.last:
            return
        where = (
            ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.last + 1)
            if self.last
            else ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=self.since)
        )
        subscription = await stream.subscribe(f"{SUBJECT}.>", stream=STREAM, ordered_consumer=True, config=where)
        info = await subscription.consumer_info()
        if once and not info.num_pending and not (info.delivered and info.delivered.consumer_seq):
            return
        while True:
            try:
                message = await subscription.next_msg(timeout=QUIET_S)
            except TimeoutError:
                await stream.stream_info(STREAM)  # raises where it is gone
                continue
            self.last = message.metadata.sequence.stream
            line = self.taken(message.data)
            if line is not None:
                yield line
            if once and not message.metadata.num_pending:
                return

    def taken(self, content: bytes) -> Envelope | None:
        """The line; None where it came already, or is one that this version does not know."""
        try:
            line = decode(content)
        except BadInput:
            return None
        key = line.source, line.id
        if key in self.ids:
            return None
        self.ids[key] = None
        if len(self.ids) > SEEN_KEPT:
            self.ids.popitem(last=False)
        return line
