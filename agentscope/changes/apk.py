"""apk's log on Alpine (apk(8): "All apk commands which modify the database are logged to /var/log/apk.log", from version 3 on).

Before that apk leaves no log: then the time at which a package's files were put there (ctime) tells of its last change.
"""

import re
from collections.abc import Iterator
from contextlib import suppress

from agentscope.changes import By, Change, ChangeKind
from agentscope.changes._look import SECOND_NS, Look
from agentscope.distributions import plain
from agentscope.symbols.rooted import state_of

LOG = "/var/log/apk.log"
DATABASE = "/lib/apk/db/installed"
PACKAGES_LIMIT = 5000
# src/print.c, apk_out_log_argv: UTC; src/commit.c, print_change
_LINE = re.compile(
    r"^(?:Running `([^\n]{1,2000})` at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
    r"|\( {0,8}\d{1,6}/\d{1,6}\) (Installing|Upgrading|Downgrading|Reinstalling|Replacing|Purging) ([^\s@()]{1,200})(?:@\S{1,80})? \(([^()\n]{1,400})\))",
    re.MULTILINE,
)
_KINDS: dict[str, ChangeKind] = {
    "Installing": "installed",
    "Upgrading": "upgraded",
    "Downgrading": "downgraded",
    "Reinstalling": "reinstalled",
    "Replacing": "changed",
    "Purging": "removed",
}


def read(look: Look) -> Iterator[Change]:
    """From the log; without one, from the files of the database."""
    logged = False
    for path, raw in look.rotated(LOG):
        logged = True
        yield from _logged(look, path, raw.decode("utf-8", "replace"))
    if not logged:
        yield from _by_files(look)


def _logged(look: Look, path: str, text: str) -> Iterator[Change]:
    command, at = "", None
    for running, moment, verb, name, versions in _LINE.findall(text):
        if running:
            command, at = plain(running, 400), look.local_ns(f"{moment}+00:00")
            continue
        if at is None or not look.within(*at):
            continue
        before, arrow, after = versions.partition(" -> ")
        kind = _KINDS[verb]
        yield Change(
            what=plain(name),
            ecosystem="apk",
            kind=kind,
            wall_ns=at[0],
            precision_ns=at[1],
            source=path,
            from_version=plain(before) if arrow or kind == "removed" else None,
            to_version=plain(after if arrow else before) if kind != "removed" else None,
            by=By(tool="apk", command=command, requested=True if name in command.split() else None),
        )


def _by_files(look: Look) -> Iterator[Change]:
    raw = look.content(DATABASE)
    if raw is None:
        return
    for stanza in raw.decode("utf-8", "replace").split("\n\n")[:PACKAGES_LIMIT]:
        look.check()
        name = version = folder = file = ""
        for line in stanza.split("\n"):
            field, value = line[:2], line[2:]
            if field == "P:":
                name = value
            elif field == "V:":
                version = value
            elif field == "F:":
                folder = value
            elif field == "R:":
                file = f"/{folder}/{value}"
                break
        if not name or not file:
            continue
        with suppress(OSError):
            put_ns = state_of(file, root=look.place.root, follow=False).st_ctime_ns
            if look.within(put_ns):
                yield Change(
                    what=plain(name),
                    ecosystem="apk",
                    kind="changed",
                    wall_ns=put_ns,
                    precision_ns=SECOND_NS,
                    source=DATABASE,
                    to_version=plain(version) or None,
                    by=By(tool="apk"),
                )
