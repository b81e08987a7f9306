"""Who waits for a lock on a file, and who holds it."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import FileLock

ABSENT = "no thread of it waits for a lock on a file"
LISTED = 32


class FileLocks(Evidence, frozen=True, tag="file-locks"):
    """At most 32 locks that processes of the tree wait for."""

    locks: tuple[FileLock, ...]

    def says(self) -> str:
        """One sentence for a person."""
        first = self.locks[0]
        by = "whose holder could not be found"
        if first.holder is not None:
            by = f"which {first.holder.comm} (pid {first.holder.pid}, state {first.holder.state or '?'}) holds"
        more = f" ({len(self.locks) - 1} more)" if len(self.locks) > 1 else ""
        return f"{first.waiter.comm} (pid {first.waiter.pid}) waits for the {first.kind} lock on {first.path or 'a file'}, {by}{more}"


def collect(scene: HangScene) -> FileLocks | Missing | None:
    """From /proc/locks and fdinfo."""
    locks = scene.examination.file_locks
    return FileLocks(source="/proc/locks, /proc/PID/fdinfo", locks=locks[:LISTED]) if locks else scene.missing("file-locks")
