"""One line of the record: an event in a CloudEvents 1.0 envelope.

The same format is the stream, the ledger, the replay input and the fixture. This is also the door: secrets are redacted and raw
memory is dropped here, before a disk or another program sees it.
"""

import datetime as dt
import re
import socket
import typing
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from agentscope.errors import BadInput
from agentscope.model import (
    AgentGone,
    AgentSeen,
    AnyEvent,
    Event,
    Fault,
    Health,
    IncidentClosed,
    IncidentOpened,
    KernelLine,
    Lost,
    Pressure,
    Pulse,
    RemedyFinished,
    RemedyStarted,
    Value,
    WaitChanged,
)

EVENT_TYPES: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in typing.get_args(AnyEvent)}
TYPES_OF: dict[type[Event], str] = {kind: name for name, kind in EVENT_TYPES.items()}
LINE_LIMIT_BYTES = 4 << 20  # a longer line of a recording is refused: nothing we write comes near it

# What the ledger adds to a line that it keeps: extension attributes of CloudEvents, see agentscope/ledger/chain.py
LEDGER_ATTRIBUTES: dict[str, object] = {
    "ledgerchain": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "ledgerseq": {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1},
    "ledgercount": {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1},
    "ledgerprev": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "ledgerhash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}

# What is a secret by its form: keys of known makers, signed tokens, passwords in URLs, NAME=value with a telling name. A pattern is
# tried only where one of its words stands in the text, which is thirty times as fast as one pattern for all; each is linear-time.
REDACTED = "[redacted]"
KEY = re.compile(
    r"\b((?:sk-(?:ant-|proj-|or-)?|sk_live_|rk_live_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|hf_|gsk_|AIza|npm_|pypi-))[A-Za-z0-9_\-]{12,200}"
)
NAMED = re.compile(
    r"((?:password|passwd|secret|token|api[_-]?key|_key)[\"']?[=:][ ]?[\"']?|--(?:password|token|api-key)[ ])[^\s\"'\\,;&\[{][^\s\"'\\,;&]{3,400}",
    re.IGNORECASE,
)
SECRETS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (
        (
            "sk-",
            "sk_live_",
            "rk_live_",
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "xox",
            "hf_",
            "gsk_",
            "AIza",
            "npm_",
            "pypi-",
        ),
        KEY,
    ),
    (("AKIA", "ASIA"), re.compile(r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    (("eyJ",), re.compile(r"()\beyJ[A-Za-z0-9_\-]{10,2000}\.[A-Za-z0-9_\-]{10,2000}\.[A-Za-z0-9_\-]{0,500}")),
    (("earer ", "EARER "), re.compile(r"(bearer )[A-Za-z0-9._~+/\-]{12,2000}", re.IGNORECASE)),
    (("@",), re.compile(r"(://)[^\s/:@\"\\]{1,64}:[^\s/@\"\\]{1,200}(?=@)")),
)
NAMES = ("password", "passwd", "secret", "token", "api_key", "apikey", "api-key", "_key")


class Envelope(Value, frozen=True):
    """A decoded line. `time` is RFC 3339 in UTC; `sequence` is decimal, zero-padded, so that it sorts as text."""

    id: str
    source: str
    type: str
    time: str
    sequence: str
    data: AnyEvent
    subject: str | None = None


class Line(NamedTuple):
    """An event as it is sent on: `encoded` ends with its newline, `number` is its sequence.

    `instead_of` is how many lines it was put in the place of, where it tells of a loss; else 0.
    """

    number: int
    event: AnyEvent
    encoded: bytes
    instead_of: int = 0


class Written(msgspec.Struct, frozen=True):
    """A line as it is written: the attributes of CloudEvents in this order."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str | msgspec.UnsetType
    sequence: str
    datacontenttype: str
    data: object


class RawEnvelope(msgspec.Struct, frozen=True):
    """A line whose `data` is not decoded yet."""

    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw
    time: str = ""
    sequence: str = ""
    subject: str | None = None


def redact(text: str) -> str:
    """The text without what looks like a secret; the name of a named secret stays."""
    for words, pattern in SECRETS:
        if any(word in text for word in words):
            text = pattern.sub(rf"\1{REDACTED}", text)
    lowered = text.lower()
    if any(name in lowered for name in NAMES):
        text = NAMED.sub(rf"\1{REDACTED}", text)
    return text


def well_formed(value: object) -> object:
    """The same value with every lone surrogate replaced, so that it can be UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {well_formed(key): well_formed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [well_formed(inner) for inner in value]
    return value


def subject_of(event: AnyEvent) -> str | None:
    """Whom the event is about: "name/pid" of the agent, or "pid/N" of a process."""
    if isinstance(event, Pulse | WaitChanged | Health | Pressure):  # pulses are most of all events
        return f"pid/{event.agent_pid}"
    if isinstance(event, AgentSeen | AgentGone | IncidentOpened | RemedyStarted | RemedyFinished | IncidentClosed):
        return f"{event.agent.name}/{event.agent.pid}"
    pid = getattr(event, "pid", None)
    return None if pid is None else f"pid/{pid}"


@lru_cache(4)
def second(wall_s: int) -> str:
    """RFC 3339 in UTC without a fraction; a hundred pulses are of one second."""
    return dt.datetime.fromtimestamp(wall_s, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(wall_ns: int) -> str:
    """RFC 3339 in UTC with microseconds, from nanoseconds since 1970."""
    wall_s, rest_ns = divmod(wall_ns, 1_000_000_000)
    return f"{second(wall_s)}.{rest_ns // 1000:06d}Z"


class Recorder:
    """Turns events into lines. `boot_wall_ns` is the wall clock at CLOCK_BOOTTIME 0.

    `run` tells one stream of a boot from another: with it, no two lines of a host ever have the same id.
    """

    def __init__(self, boot_id: str, boot_wall_ns: int, host: str | None = None, run: str = "") -> None:
        self.boot_id = boot_id
        self.boot_wall_ns = boot_wall_ns
        self.prefix = f"{boot_id[:8]}-{run}-" if run else f"{boot_id[:8]}-"
        self.source = f"agentscope://{host or socket.gethostname()}/{boot_id}"
        self.stamped: tuple[int, str] = (-1, "")  # the pulses of a second are all of one moment
        self.sequence = 0
        self.encoder = msgspec.json.Encoder()

    def encode(self, event: AnyEvent) -> bytes | None:
        """One line with its newline, or None for an event that never leaves the process."""
        line = self.line(event)
        return None if line is None else line.encoded

    def line(self, event: AnyEvent) -> Line | None:
        """The same with its number."""
        if isinstance(event, KernelLine):
            return None
        if isinstance(event, Fault):
            event = msgspec.structs.replace(event, stack=None)
        self.sequence += 1
        return Line(self.sequence, event, self.encoded(event, self.sequence, f"{self.prefix}{self.sequence}"))

    def instead(self, number: int, lost: Lost) -> Line:
        """What a reader gets in the place of lines that it was too slow for: it has the number of the last of them."""
        return Line(number, lost, self.encoded(lost, number, f"{self.prefix}{number}-lost"), lost.count)

    def encoded(self, event: AnyEvent, number: int, called: str) -> bytes:
        """The line of this number and id."""
        if event.at_ns != self.stamped[0]:
            self.stamped = (event.at_ns, timestamp(self.boot_wall_ns + event.at_ns))
        envelope = Written(
            "1.0",
            called,
            self.source,
            TYPES_OF[type(event)],
            self.stamped[1],
            subject_of(event) or msgspec.UNSET,
            f"{number:012d}",
            "application/json",
            event,
        )
        try:
            line = self.encoder.encode(envelope)
        except UnicodeEncodeError:  # a file name or argument that is no UTF-8 comes from /proc with lone surrogates
            line = self.encoder.encode(well_formed(msgspec.to_builtins(envelope)))
        # sampled numbers hold no secret; all else is text that a process controls
        if not isinstance(event, Pulse):
            line = redact(line.decode()).encode()
        return line + b"\n"


def decode(line: bytes) -> Envelope:
    """Read one line back.

    Raises:
        BadInput: the line is not JSON, not an envelope, or not an event that this version knows; `why` says which.
    """
    if len(line) > LINE_LIMIT_BYTES:
        raise BadInput("not a line of a recording", f"it is longer than {LINE_LIMIT_BYTES >> 20} MiB")
    try:
        raw = msgspec.json.decode(line, type=RawEnvelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("not a line of a recording", str(error)) from None
    known = EVENT_TYPES.get(raw.type)
    if known is None:
        raise BadInput("not an event that this version knows", f"its type is {raw.type[:80]!r}")
    try:
        event = msgspec.json.decode(raw.data, type=known)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"not a valid {raw.type}", str(error)) from None
    return Envelope(
        id=raw.id,
        source=raw.source,
        type=raw.type,
        time=raw.time,
        sequence=raw.sequence,
        subject=raw.subject,
        data=typing.cast("AnyEvent", event),
    )


def encode_again(envelope: Envelope) -> bytes:
    """A line that was decoded as the stream had it, without what the ledger added."""
    fields = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "time": envelope.time,
        "subject": envelope.subject,
        "sequence": envelope.sequence,
        "datacontenttype": "application/json",
        "data": envelope.data,
    }
    if envelope.subject is None:
        del fields["subject"]
    return msgspec.json.encode(fields) + b"\n"


def any_json(kind: type) -> dict[str, object]:
    """Schema of a value that may be any JSON (the fields of one kind of evidence)."""
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def schema() -> dict[str, object]:
    """JSON Schema of one line, generated from the types, so that it cannot disagree with them."""
    kinds = [kind for kind in EVENT_TYPES.values() if kind is not KernelLine]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}", schema_hook=any_json)
    lines = [
        {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "time", "sequence", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "minLength": 1},
                "source": {"type": "string", "format": "uri-reference"},
                "type": {"const": str(kind.__struct_config__.tag)},
                "time": {"type": "string", "format": "date-time"},
                "subject": {"type": "string"},
                "sequence": {"type": "string", "pattern": "^[0-9]+$"},
                "datacontenttype": {"const": "application/json"},
                "data": data,
                **LEDGER_ATTRIBUTES,
            },
            "additionalProperties": False,
        }
        for kind, data in zip(kinds, schemas, strict=True)
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of the agentscope stream",
        "oneOf": lines,
        "$defs": components,
    }


def read_lines(lines: Iterator[bytes]) -> Iterator[tuple[int, Envelope | BadInput]]:
    """Every line of a recording with its number, decoded or with its own error; blank lines are passed over."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, decode(line)
            except BadInput as error:
                yield number, error
