"""pacman's log (pacman(8), LogFile of pacman.conf(5)): "[2026-11-22T20:02:38+0100] [ALPM] upgraded openssl (3.0.7-1 -> 3.0.8-1)"."""

import re
from collections.abc import Iterator

from agentscope.changes import By, Change, ChangeKind
from agentscope.changes._look import Look
from agentscope.distributions import plain

LOG = "/var/log/pacman.log"
_LINE = re.compile(
    r"^\[(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[+-]\d{4})?)\] \[(?:ALPM|PACMAN)\] "
    r"(?:Running '([^\n]{1,2000})'|(installed|upgraded|downgraded|reinstalled|removed) ([^\s()]{1,200}) \(([^()\n]{1,400})\))$",
    re.MULTILINE,
)
_MINUTE_NS = 60_000_000_000


def read(look: Look) -> Iterator[Change]:
    """Its lines of changes, each with the command that ran at that time. Before 2019 it wrote local time, to the minute."""
    for path, raw in look.rotated(LOG):
        command: str | None = None
        for moment, running, verb, name, versions in _LINE.findall(raw.decode("utf-8", "replace")):
            if running:
                command = plain(running, 400)
                continue
            at = look.local_ns(moment)
            if at is None:
                continue
            precision = at[1] if moment.count(":") == 2 else max(at[1], _MINUTE_NS)
            if not look.within(at[0], precision):
                continue
            before, arrow, after = versions.partition(" -> ")
            kind: ChangeKind = verb
            yield Change(
                what=plain(name),
                ecosystem="pacman",
                kind=kind,
                wall_ns=at[0],
                precision_ns=precision,
                source=path,
                from_version=plain(before) if arrow or kind == "removed" else None,
                to_version=plain(after if arrow else before) if kind != "removed" else None,
                by=By(tool="pacman", command=command),
            )
