"""dpkg's own log (dpkg(1), --log): every unpacking and removal on Debian and Ubuntu, whichever tool asked for it."""

import re
from collections.abc import Iterator

from agentscope.changes import By, Change, ChangeKind
from agentscope.changes._look import Look
from agentscope.distributions import plain
from agentscope.distributions.versions import newer

LOG = "/var/log/dpkg.log"
_LINE = re.compile(
    rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (upgrade|install|remove|purge) ([a-z0-9][a-z0-9+.-]{0,200})(?::([a-z0-9-]{1,40}))?"
    rb" ([^\s]{1,200}) ([^\s]{1,200})$",
    re.MULTILINE,
)


def read(look: Look) -> Iterator[Change]:
    """Its lines that begin a change; "status" lines only tell how far it got. Times are local, to the second."""
    for path, raw in look.rotated(LOG):
        for moment, verb, name, architecture, old, new in _LINE.findall(raw):
            at = look.local_ns(moment.decode())
            if at is None or not look.within(*at):
                continue
            before, after = _version(old), _version(new)
            yield Change(
                what=plain(name.decode()),
                ecosystem="dpkg",
                kind=_kind(verb.decode(), before, after),
                wall_ns=at[0],
                precision_ns=at[1],
                source=path,
                from_version=before,
                to_version=after,
                architecture=architecture.decode() or None,
                by=By(tool="dpkg"),
            )


def _version(raw: bytes) -> str | None:
    return None if raw == b"<none>" else plain(raw.decode("utf-8", "replace"))


def _kind(verb: str, before: str | None, after: str | None) -> ChangeKind:
    if verb in {"remove", "purge"}:
        return "removed"
    if before is None or after is None:
        return "installed"
    if before == after:
        return "reinstalled"
    return "downgraded" if newer("dpkg", before, after) else "upgraded"
