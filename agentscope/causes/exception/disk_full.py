"""The disk was full, and the program did not handle that.

What it means: a write failed because the file system has no space or no inodes left (ENOSPC), or because a quota is
used up (EDQUOT). The error went through the whole program uncaught and ended it.

How agentscope knows: its last words are that error, they ended just before the program did, and the exit status is that
of an error which nobody caught. How much was free right after is in the report.

What to do: make room: df -h and df -i on the path that is named, then du -xh --max-depth=1 PATH | sort -h. Logs, caches
of models and packages, and files that are deleted but still open (lsof +L1) are the usual ones.

What looks like it but is not: a full /dev/shm or a mapped file on a full disk, which ends by a signal (crash/bus); a
write error that was logged while the program lived on (no incident).
"""

import shlex

from agentscope.causes import No
from agentscope.causes.exception import blame, cites, fact, first_line, last_error, place_of
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.disk_space import DiskSpace
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

LITTLE_BYTES = 64 << 20
FEW_INODES = 16


def match(
    *,
    status: WaitStatus,
    words: LastWords,
    actor: SignalActor | None,
    fault: FaultFacts | None,
    log: KernelLog | None,
    space: DiskSpace | None,
) -> Finding | No:
    """Its last words are an uncaught "no space left"."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    reading = told.reading
    if reading.suggests != "exception/disk-full":
        return No(f"its last words tell of no full disk: {reading.says}")
    path = fact(reading, "path") or (space.path if space is not None else "")
    place = place_of(reading)
    no_inodes = space is not None and space.free_inodes is not None and space.free_inodes < FEW_INODES
    still = no_inodes or (space is not None and space.free_bytes < LITTLE_BYTES)
    left = ""
    if space is not None:
        left = "; it has no inodes left" if no_inodes else f"; {space.free_bytes / 2**20:.1f} MiB are free there now"
    quoted = shlex.quote(path or ".")
    advice = [f"make room: df -h {quoted}; df -i {quoted}; du -xh --max-depth=1 {quoted} | sort -h | tail"]
    if space is not None and not still:
        advice.append(
            f"there is room again now: a quota (quota -s), or something cleaned up since; find it before it fills {quoted} again"
        )
    return Finding(
        headline=f"Ended because the disk was full: {first_line(reading)}{f' at {place}' if place else ''}{left}",
        culprit=f"the disk of {path}: {blame(reading)}" if path else blame(reading),
        confidence=told.confidence,
        cites=cites(("disk-space", still)),
        advice=tuple(advice),
    )
