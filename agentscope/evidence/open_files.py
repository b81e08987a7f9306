"""How many file descriptors were open against the limit."""

from agentscope.evidence import AnyScene, Evidence, Missing

ABSENT = "descriptors were not counted"


class OpenFiles(Evidence, frozen=True, tag="open-files"):
    """Descriptors open when last counted, and RLIMIT_NOFILE (soft)."""

    count: int
    limit: int | None

    def says(self) -> str:
        """One sentence for a person."""
        return f"{self.count} of {self.limit or 'unlimited'} file descriptors were open when last counted"


def collect(scene: AnyScene) -> OpenFiles | Missing:
    """From what was counted while it lived."""
    seen = scene.last_seen
    if seen is None or seen.open_files is None:
        return Missing(kind="open-files", because="the process ended before its descriptors could be counted")
    return OpenFiles(source="/proc/PID/fd while it lived", count=seen.open_files, limit=seen.soft_limits.get("NOFILE"))
