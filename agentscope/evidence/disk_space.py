"""Free space where the agent worked, and at the path that its last words name."""

import os
from pathlib import Path

from agentscope.evidence import Evidence, Scene
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.last_words import collect as read_last_words

ABSENT = "its last words name no full disk"
READS_FILES = True


class DiskSpace(Evidence, frozen=True, tag="disk-space"):
    """File system of `path`: what a user without privileges can still write, and the inodes left."""

    path: str
    free_bytes: int
    free_inodes: int | None

    def says(self) -> str:
        """One sentence for a person."""
        inodes = "" if self.free_inodes is None else f" and {self.free_inodes} inodes"
        return f"{self.path} has {self.free_bytes / 2**20:.1f} MiB{inodes} free now"


def collect(scene: Scene) -> DiskSpace | None:
    """Asked only where the last words speak of a full disk: statvfs of a dead network mount can block."""
    words = read_last_words(scene)
    if not isinstance(words, LastWords) or not any(r.suggests == "exception/disk-full" for r in words.readings):
        return None
    named = next((str(r.facts["path"]) for r in words.readings if r.facts.get("path")), None)
    for path in (named, scene.last_seen.cwd if scene.last_seen else None):
        if path is None or not path.startswith("/"):
            continue
        try:
            found = os.statvfs(path if os.path.lexists(path) else str(Path(path).parent))
        except OSError:
            continue
        return DiskSpace(
            source="statvfs(2)",
            path=path,
            free_bytes=found.f_bavail * found.f_frsize,
            free_inodes=found.f_favail if found.f_files else None,
        )
    return None
