"""Who waits for a lock in memory, and who holds it: mutexes of the C library, PI mutexes, locks of Python."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import LockWait

ABSENT = "no thread of it waits for a lock whose holder could be known"
LISTED = 200


class LockWaits(Evidence, frozen=True, tag="lock-waits"):
    """At most 200 waits; a holder of None was looked for and not found."""

    waits: tuple[LockWait, ...]

    def of(self, pid: int, tid: int) -> LockWait | None:
        """What lock a thread waits for."""
        return next((each for each in self.waits if each.tid == tid and each.pid == pid), None)

    def says(self) -> str:
        """One sentence for a person."""
        known = [each for each in self.waits if each.holder_tid is not None]
        if not known:
            return f"{len(self.waits)} threads wait for locks whose holder is not known"
        first = known[0]
        whom = "itself" if first.holder_tid == first.tid else f"thread {first.holder_tid}"
        more = f" ({len(known) - 1} more threads wait for held locks)" if len(known) > 1 else ""
        return f"thread {first.tid} waits for a {first.kind} that {whom} holds: {first.proof}{more}"


def collect(scene: HangScene) -> LockWaits | Missing | None:
    """From the memory of the process: the lock words and the objects around them."""
    waits = scene.examination.lock_waits
    if not waits:
        return scene.missing("lock-waits")
    known_first = sorted(waits, key=lambda each: each.holder_tid is None)
    return LockWaits(source="process_vm_readv(2) of the locks", waits=tuple(known_first[:LISTED]))
