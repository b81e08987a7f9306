r"""One record of the chain: the stream's line, and behind its last member five CloudEvents extension attributes.

    {"specversion":"1.0", ..., "data":{...},"ledgerchain":"<id>","ledgerseq":7,"ledgercount":7,"ledgerprev":"<hex>","ledgerhash":"<hex>"}

`ledgerseq` counts the records of the chain from 1, `ledgercount` those of this file; `ledgerprev` is the hash of the record
before, wherever that is; `ledgerhash` is the SHA-256 of this line as it would be without `ledgerhash` (and without its newline).

The exact bytes are hashed, not a canonical form of their meaning. RFC 8785 cannot say our numbers: a time in nanoseconds is beyond
2^53 after 104 days of uptime, an address always may be. A canonical form also has to be parsed first, and parsers differ over
members that stand twice, so that two records could have one hash. And it would cost a millisecond a record, which a storm of deaths
does not have. Bytes have none of this, and anybody can check them without us:

    sed -n 7p FILE | sed 's/,"ledgerhash":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum

Numbers stay within 31 bits, as CloudEvents 1.0 has them (its type Integer).
"""

import hashlib
import re
from typing import NamedTuple

SUFFIX_LONGEST = 320  # bytes; what is behind a record's own members is shorter than this
SEQUENCE_LIMIT = (1 << 31) - 1
LINK = re.compile(
    rb',"ledgerchain":"([0-9a-f]{16})","ledgerseq":([1-9][0-9]{0,9}),"ledgercount":([1-9][0-9]{0,9})'
    rb',"ledgerprev":"([0-9a-f]{64})"(,"ledgerhash":"([0-9a-f]{64})"\}\n?)\Z'
)


class Link(NamedTuple):
    """A record's place in the chain. `within` is its number in its file, `digest` its own hash in hex; a link with `seq` 0 is what the first record follows."""

    chain: str
    seq: int
    within: int
    previous: str
    digest: str


def origin(chain: str, public_key: bytes) -> Link:
    """What the first record follows: the hash of the public key (its 32 bytes), so that the chain names its key from the start."""
    return Link(chain, 0, 0, "", hashlib.sha256(public_key).hexdigest())


def chained(line: bytes, before: Link) -> tuple[bytes, Link]:
    """A line of the stream as the record that follows `before`.

    Raises:
        ValueError: it is not one line that holds one object, or it is a record already.
    """
    if not line.endswith(b"}\n") or line.count(b"\n") != 1 or not line.startswith(b"{") or read_link(line) is not None:
        raise ValueError("a record is made of one line of the stream")
    if before.seq >= SEQUENCE_LIMIT:
        raise ValueError("the chain is full: move the ledger away and begin another")
    seq, within = before.seq + 1, before.within + 1
    body = (
        line[:-2]
        + f',"ledgerchain":"{before.chain}","ledgerseq":{seq},"ledgercount":{within},"ledgerprev":"{before.digest}"'.encode()
    )
    digest = digest_of(body)
    return body + f',"ledgerhash":"{digest}"}}\n'.encode(), Link(before.chain, seq, within, before.digest, digest)


def digest_of(body: bytes) -> str:
    """The hash of a record, from its bytes up to its `ledgerhash`."""
    hashed = hashlib.sha256(body)
    hashed.update(b"}")
    return hashed.hexdigest()


def read_link(line: bytes) -> Link | None:
    """The place that a line claims; None where it is no record of a chain."""
    found = LINK.search(line, max(0, len(line) - SUFFIX_LONGEST))
    if found is None:
        return None
    chain, seq, within, previous, _, digest = found.groups()
    return Link(chain.decode(), int(seq), int(within), previous.decode(), digest.decode())


def read_checked(line: bytes) -> tuple[Link, str] | None:
    """The place that a line claims, and the hash that its bytes really have."""
    found = LINK.search(line, max(0, len(line) - SUFFIX_LONGEST))
    if found is None:
        return None
    chain, seq, within, previous, _, digest = found.groups()
    link = Link(chain.decode(), int(seq), int(within), previous.decode(), digest.decode())
    return link, digest_of(line[: found.start(5)])
