"""apt's history (apt.conf(5), Dir::Log::History): which command of which user led to what dpkg did."""

import re
from collections.abc import Iterator

from agentscope.changes import By, Change, ChangeKind
from agentscope.changes._look import Look
from agentscope.distributions import plain

LOG = "/var/log/apt/history.log"
COMMAND_LIMIT = 400
STANZA_LIMIT_BYTES = 1 << 20
_KINDS: dict[str, ChangeKind] = {
    "Install": "installed",
    "Upgrade": "upgraded",
    "Downgrade": "downgraded",
    "Reinstall": "reinstalled",
    "Remove": "removed",
    "Purge": "removed",
}
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9+.-]{0,200})(?::([a-z0-9-]{1,40}))? \(([^()]{1,500})\)")


def read(look: Look) -> Iterator[Change]:
    """One change for each package of each transaction; its time is the span of the transaction."""
    for path, raw in look.rotated(LOG):
        for stanza in re.split(rb"\n[ \t]*\n", raw):
            yield from _transaction(look, path, stanza[:STANZA_LIMIT_BYTES].decode("utf-8", "replace"))


def _transaction(look: Look, path: str, stanza: str) -> Iterator[Change]:
    fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
    began = look.local_ns(" ".join(fields.get("Start-Date", "").split()))
    if began is None:
        return
    ended = look.local_ns(" ".join(fields.get("End-Date", "").split()))
    precision = began[1] if ended is None else max(began[1], ended[0] - began[0] + ended[1])
    if not look.within(began[0], precision):
        return
    command = plain(fields.get("Commandline", ""), COMMAND_LIMIT)
    words = {word.partition("=")[0].partition(":")[0].partition("/")[0] for word in command.split()}
    user = plain(fields.get("Requested-By", ""), 60) or None
    for field, kind in _KINDS.items():
        for name, architecture, versions in _PACKAGE.findall(fields.get(field, "")):
            stated = [plain(version.strip()) for version in versions.split(",")]
            automatic = "automatic" in stated[1:]
            numbers = [version for version in stated if version != "automatic"] or [""]
            before = numbers[0] if kind != "installed" else None
            after = None if kind == "removed" else numbers[-1]
            yield Change(
                what=name,
                ecosystem="dpkg",
                kind=kind,
                wall_ns=began[0],
                precision_ns=precision,
                source=path,
                from_version=before or None,
                to_version=after or None,
                architecture=architecture or None,
                by=_author(command, user, False if automatic else True if name in words else None),
            )


def _author(command: str, user: str | None, requested: bool | None) -> By:
    """The tool by its command line: "/usr/bin/unattended-upgrade -v" is nothing that a person typed."""
    first = command.split(" ", 1)[0].rsplit("/", 1)[-1]
    if first.startswith("unattended-upgrade"):
        return By(tool="unattended-upgrades", user=user, requested=requested)
    if first == "packagekit":
        return By(tool="packagekit", command=command, user=user, requested=requested)
    return By(tool=first or "apt", command=command or None, user=user, requested=requested)
