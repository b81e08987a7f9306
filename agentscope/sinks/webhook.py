"""A webhook: `https://host/path` gets each event as one POST, in the structured mode of the HTTP binding of CloudEvents 1.0.

What it answers with 2xx is delivered. After no answer, 408, 425, 429 or 5xx it is asked again, longer and longer apart, as it asks
for with Retry-After; one event that it answers so ten times, or refuses with any other status, is lost, and the next is tried. An
event may come twice (its answer was lost): `id` with `source` says which are the same.
"""

import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agentscope import __version__
from agentscope.errors import BadInput
from agentscope.examination.proc import plain
from agentscope.record import Line, redact
from agentscope.sinks import Around, Chosen, server_of
from agentscope.sinks import Options as NoOptions
from agentscope.sinks._outlet import NotTaken, Outlet

if TYPE_CHECKING:
    import httpx

SCHEMES = ("http", "https")
EXAMPLE = "https://hooks.example.org/agents"
USUAL = ("incident", "remedy", "lost")
TIMEOUT_S = 5.0
TRIES = 10
ASK_AGAIN = frozenset({408, 425, 429})  # RFC 9110 and its kin; 5xx beside them
WORDS_BYTES = 200
READ_BYTES = 64 << 10  # of an answer: as much as keeps the connection; nobody needs it
HEADERS_AT_MOST = 20


class Options(NoOptions, frozen=True):
    """`headers` are sent with each event, such as Authorization."""

    headers: dict[str, str] = {}


def checked(wrong: str, to: str, options: Options) -> None:
    """What can be wrong before anything is sent. Whether somebody answers is seen later: it may come up after us.

    Raises:
        BadInput: no host, or no headers.
    """
    try:
        parts = urlsplit(to)
        is_address = bool(parts.hostname) and parts.port != 0 and to.isascii() and to.isprintable() and " " not in to
    except ValueError:
        is_address = False
    if not is_address:
        raise BadInput(wrong, "it names no host", EXAMPLE)
    for name, value in options.headers.items():
        known = name.isascii() and name.replace("-", "").replace("_", "").isalnum() and value.isascii() and value.isprintable()
        if not known or len(options.headers) > HEADERS_AT_MOST:
            raise BadInput(
                f"{wrong}: headers", f"{name!r} is no header that can be sent", 'headers = { Authorization = "Bearer …" }'
            )


def opened(chosen: Chosen, around: Around) -> Outlet:
    """The webhook; it is asked for the first time with the first event."""
    return Outlet(chosen, around, Webhook(chosen.to, chosen.options.headers), f"the webhook at {server_of(chosen.to)}")


class Webhook:
    """A connection that is kept. Lives in the thread of its outlet."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url = url
        self.headers = headers | {
            "Content-Type": "application/cloudevents+json; charset=UTF-8",
            "User-Agent": f"agentscope/{__version__}",
            "Accept-Encoding": "identity",
        }
        self.client: httpx.Client | None = None
        self.trying = 0  # the number of the line that is tried
        self.tries = 0

    def put(self, lines: Sequence[Line]) -> None:
        """One POST a line.

        Raises:
            NotTaken: one was not taken.
        """
        import httpx

        for taken, line in enumerate(lines):
            if self.trying != line.number:
                self.trying, self.tries = line.number, 0
            try:
                self.post(line.encoded.rstrip(b"\n"))
            except NotTaken as error:
                error.taken = taken
                raise
            except httpx.TimeoutException:
                self.close()
                raise NotTaken(f"no answer within {TIMEOUT_S:g} s", taken) from None
            except (httpx.HTTPError, OSError, ssl.SSLError) as error:
                self.close()
                raise NotTaken(redact(plain(str(error) or type(error).__name__, WORDS_BYTES)).lower(), taken) from None
            except httpx.InvalidURL as error:
                raise NotTaken(f"its address is not right: {plain(str(error), WORDS_BYTES)}", taken, for_good=True) from None

    def post(self, content: bytes) -> None:
        """One event.

        Raises:
            NotTaken: the answer says no. httpx.HTTPError: there was none.
        """
        import httpx

        begun = time.monotonic()
        if self.client is None:
            # of the proxies, certificates and passwords in the environment of whoever started us nothing is taken
            self.client = httpx.Client(trust_env=False, verify=ssl.create_default_context(), timeout=TIMEOUT_S)
        with self.client.stream("POST", self.url, content=content, headers=self.headers) as answer:
            words, read = b"", 0
            for piece in answer.iter_raw(4096):
                words = words or piece
                read += len(piece)
                if read > READ_BYTES or time.monotonic() - begun > TIMEOUT_S:
                    break  # the connection is closed, and the next event has one of its own
        if answer.is_success:
            return
        said = redact(plain(b" ".join(words.split()), WORDS_BYTES))
        why = f"it answers {answer.status_code}{f': {said}' if said else ''}"
        again = answer.is_server_error or answer.status_code in ASK_AGAIN
        self.tries += 1
        raise NotTaken(why, for_good=not again or self.tries >= TRIES, after_s=retry_after(answer))

    def close(self) -> None:
        """Let go of the connection."""
        if self.client is not None:
            self.client.close()
            self.client = None


def retry_after(answer: "httpx.Response") -> float:
    """How long the other side asks us to wait, in seconds (RFC 9110, Retry-After); 0 where it does not, or gives a date."""
    asked: str = answer.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() and len(asked) < 6 else 0.0
