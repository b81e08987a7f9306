"""unattended-upgrades' own log: what it was about to upgrade, and that it got through (unattended-upgrade(8))."""

import re
from collections.abc import Iterator

from agentscope.changes import By, Change
from agentscope.changes._look import SECOND_NS, Look

LOG = "/var/log/unattended-upgrades/unattended-upgrades.log"
_LINE = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{1,6} (?:INFO Packages that will be upgraded: (.{1,100000})|INFO (All upgrades installed))$",
    re.MULTILINE,
)
_NAME = re.compile(r"^[a-z0-9][a-z0-9+.-]{0,200}$")


def read(look: Look) -> Iterator[Change]:
    """The packages of each run that ended well; versions stand in dpkg's log only."""
    for path, raw in look.rotated(LOG):
        began: tuple[int, list[str]] | None = None
        for moment, names, installed in _LINE.findall(raw.decode("utf-8", "replace")):
            at = look.local_ns(moment)
            if at is None:
                continue
            if names:
                began = at[0], [name for name in names.split()[:5000] if _NAME.match(name)]
            elif installed and began is not None:
                span = max(SECOND_NS, at[0] - began[0] + at[1])
                if look.within(began[0], span):
                    for name in began[1]:
                        yield Change(
                            what=name,
                            ecosystem="dpkg",
                            kind="upgraded",
                            wall_ns=began[0],
                            precision_ns=span,
                            source=path,
                            by=By(tool="unattended-upgrades"),
                        )
                began = None
