"""What the progress rule of the config says of it."""

from agentscope.evidence import Evidence, HangScene

ABSENT = "no progress rule is configured for it"


class Progress(Evidence, frozen=True, tag="progress"):
    """Nothing of `signal` (io, stdout, heartbeat-file, sd_notify) for longer than `within_s` is overdue."""

    signal: str
    within_s: float
    last_ago_s: float | None
    overdue: bool
    seen: str = ""

    def says(self) -> str:
        """One sentence for a person."""
        rule = f"its progress rule ({self.signal} within {self.within_s:g} s)"
        told = f": {self.seen}" if self.seen else ""
        if self.last_ago_s is None:
            return f"{rule} {'is broken' if self.overdue else 'could not be checked'}{told}"
        return f"{rule} {'is broken' if self.overdue else 'holds'}: the last was {self.last_ago_s:.0f} s ago"


def collect(scene: HangScene) -> Progress | None:
    """From the rule that the config names."""
    progress = scene.examination.progress
    if progress is None:
        return None
    return Progress(
        source="the progress rule of the config",
        signal=progress.signal,
        within_s=progress.within_s,
        last_ago_s=progress.last_ago_s,
        overdue=progress.overdue,
        seen=progress.says,
    )
