"""Python distributions by the metadata that pip, uv and their kin write beside them: they leave no log.

The time is that of RECORD; who is in INSTALLER, whether it was asked for by name in REQUESTED ("Recording installed projects").
The version before is gone with its metadata: only a baseline knows it.
"""

from collections.abc import Iterator

from agentscope.changes import By, Change
from agentscope.changes._look import SECOND_NS, Look
from agentscope.distributions.installed import installed


def read(look: Look) -> Iterator[Change]:
    """What was installed into the site folders within the window."""
    found, _ = installed(look.place.sites, root=look.place.root)
    look.sources.extend(sorted({distribution.folder.rpartition("/")[0] for distribution in found}))
    for distribution in found:
        if distribution.wall_ns is not None and look.within(distribution.wall_ns):
            yield Change(
                what=distribution.name,
                ecosystem="python",
                kind="installed",
                wall_ns=distribution.wall_ns,
                precision_ns=SECOND_NS,
                source=distribution.folder,
                to_version=distribution.version,
                by=By(tool=distribution.installer or "unknown", requested=distribution.requested or None),
            )
