"""A connection failed (refused, reset, timed out, name or certificate not accepted), and the program did not handle that.

What it means: the program talked to another machine or service, a model's API above all, and the network or the other
side let it down. The error went through the whole program uncaught and ended it.

How agentscope knows: its last words are a network error, they ended just before the program did, and the exit status is
that of an error which nobody caught.

What to do: see whether the other side is there (curl -v, ss -tn, getent hosts). Networks fail now and then: the program
should try again with growing pauses instead of ending.

What looks like it but is not: a failed connection that was logged and tried again (no incident); waiting without end
for an answer, which ends nothing and is a hang; any other uncaught error (exception/uncaught).
"""

import re

from agentscope.causes import No
from agentscope.causes.exception import blame, cites, fact, first_line, last_error, place_of
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding, Reading

# How libraries write whom they could not reach; each is bounded, and a user name or password before "@" is left out.
PEERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"host='(?P<host>[^'\s]{1,253})', port=(?P<port>\d{1,5})",
        r"\('(?P<host>[0-9A-Za-z.:_-]{1,253})', (?P<port>\d{1,5})",
        r"Cannot connect to host (?P<host>[^\s:]{1,253}):(?P<port>\d{1,5})",
        r"\b(?:ECONN[A-Z]{1,10}|ETIMEDOUT|E[A-Z]{1,6}UNREACH) (?P<host>[0-9A-Za-z.:\[\]_-]{1,253}):(?P<port>\d{1,5})\b",
        r"\b(?:ENOTFOUND|EAI_AGAIN) (?P<host>[0-9A-Za-z._-]{1,253})",
        r"\bdial (?:tcp|udp) (?P<host>[0-9A-Za-z.:\[\]_-]{1,253}):(?P<port>\d{1,5}):",
        r"\b(?:https?|wss?|grpc|redis|postgres(?:ql)?)://(?:[^\s/@]{1,200}@)?(?P<host>[0-9A-Za-z._-]{1,253})(?::(?P<port>\d{1,5}))?",
    )
)
SEARCHED = 4096


def match(
    *, status: WaitStatus, words: LastWords, actor: SignalActor | None, fault: FaultFacts | None, log: KernelLog | None
) -> Finding | No:
    """Its last words are an uncaught network error."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    reading = told.reading
    if reading.suggests != "exception/network":
        return No(f"its last words tell of no network error: {reading.says}")
    place = place_of(reading)
    peer = peer_in(reading)
    host, _, port = peer.rpartition(":") if peer and ":" in peer else (peer or "HOST", "", "PORT")
    said = blame(reading)
    return Finding(
        headline=f"Ended by a network error that nobody caught: {first_line(reading)}{f' at {place}' if place else ''}",
        culprit=f"{peer}: {said}" if peer and peer not in said else said,
        confidence=told.confidence,
        cites=cites(),
        advice=(
            f"see whether it answers: curl -sv --max-time 5 telnet://{host}:{port or 443}; getent hosts {host}",
            f"catch it{f' at {place}' if place else ''} and try again with growing pauses",
        ),
    )


def peer_in(reading: Reading) -> str | None:
    """Whom it could not reach, as the error's own words name it: "host:port"."""
    for text in (fact(reading, "message")[:SEARCHED], reading.excerpt[-SEARCHED:]):
        for pattern in PEERS:
            found = pattern.search(text)
            if found is not None:
                port = found.groupdict().get("port")
                return f"{found['host']}:{port}" if port else found["host"]
    return None
