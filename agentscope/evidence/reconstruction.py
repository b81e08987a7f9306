"""Nobody watched this end: what it was put together from, and which logs could not be asked.

A reconstruction sees what others wrote down. Where a log is closed or has not kept that time, its silence means nothing, and what it
could have refuted must not be claimed (`hindsight.py` judges by this).
"""

from agentscope.evidence import RUNTIME, Aftermath, Collected, Evidence, Scene
from agentscope.evidence.last_words import LastWords
from agentscope.model import MissingEvidence

ABSENT = "it was watched when it ended"


class Reconstruction(Evidence, frozen=True, tag="reconstruction"):
    """`read` are the sources that were read, `unread` those that could not be; `told_by` tell of the end itself.

    `kernel_log` and `journal` say whether that log was read and reaches back to the end. `pid_inside` is the number that the process
    had in its own pid namespace, where that is another one. `joined_by` is what makes the pieces those of one end.
    """

    read: tuple[str, ...]
    unread: tuple[MissingEvidence, ...]
    told_by: tuple[str, ...]
    kernel_log: bool
    journal: bool
    counted_oom: str | None = None
    pid_inside: int | None = None
    joined_by: str = ""
    cpu_limited: bool | None = None

    def says(self) -> str:
        """One sentence for a person."""
        closed = "; ".join(f"{each.kind}: {each.because}" for each in self.unread)
        read = ", ".join(self.read) or "nothing"
        inside = "" if self.pid_inside is None else f"; its number in its own pid namespace was {self.pid_inside}"
        return f"reconstructed afterwards from {read}, joined by {self.joined_by}{inside}{f'; not to be had: {closed}' if closed else ''}"


def unsaid(past: Aftermath | None, words: Collected) -> str:
    """How a headline ends where no cause can be named: why not."""
    if past is None:
        return ", and nothing that was seen explains it"
    if isinstance(words, LastWords) and words.readings:
        return f"; {words.readings[0].says}, but what is behind that cannot be told from what was left of it"
    if past.counted_oom and not past.kernel_log:
        return f"; {past.counted_oom} counted an OOM kill near it, but the kernel log, which names the victim, cannot be had"
    if past.told_by == (RUNTIME,):
        return "; so its runtime has it, for which that and an exit with 128 and this number are one; nothing else tells of it"
    if closed := [each.kind for each in past.unread]:
        return f"; what was left of it does not say why, and there is no telling without the {' and the '.join(closed[:3])}"
    return "; nobody watched it, and what was left of it does not say why"


def collect(scene: Scene) -> Reconstruction | None:
    """From what was gathered afterwards."""
    past = scene.past
    if past is None:
        return None
    return Reconstruction(
        source=", ".join(past.read) or "nothing",
        read=past.read,
        unread=past.unread,
        told_by=past.told_by,
        kernel_log=past.kernel_log,
        journal=past.journal,
        counted_oom=past.counted_oom,
        pid_inside=past.pid_inside,
        joined_by=past.joined_by,
        cpu_limited=past.cpu_limited,
    )
