"""What it did lately, and what could not be known because nobody watched before."""

from agentscope.evidence import Evidence, HangScene
from agentscope.examination.waiting import cpu_of

ABSENT = "it was not looked at"


class Activity(Evidence, frozen=True, tag="activity"):
    """CPUs used by the whole tree over `interval_s`; how long ago it wrote output, was first watched (None: just now), started."""

    interval_s: float
    cpus: float
    output_ago_s: float | None
    watched_s: float | None
    lived_s: float | None

    def says(self) -> str:
        """One sentence for a person."""
        used = f"it used {self.cpus:.2f} CPUs over {self.interval_s:.1f} s"
        wrote = "" if self.output_ago_s is None else f" and last wrote output {self.output_ago_s:.0f} s ago"
        if self.watched_s is None:
            late = "; nobody watched it before: rates, and since when it is busy, are known of this moment only"
        else:
            late = f"; watched for {self.watched_s:.0f} s"
        return f"{used}{wrote}{late}"


def collect(scene: HangScene) -> Activity | None:
    """From the CPU times of its threads."""
    seen = scene.examination
    if not seen.processes:
        return None
    started_ns = scene.process.start_ns
    return Activity(
        source="iter/task",
        interval_s=round(seen.interval_s, 3),
        cpus=round(sum(cpu_of(process) for process in seen.processes), 3),
        output_ago_s=seen.output_ago_s,
        watched_s=None if seen.watched_since_ns is None else max(0.0, (seen.at_ns - seen.watched_since_ns) / 1e9),
        lived_s=max(0.0, (seen.at_ns - started_ns) / 1e9) if started_ns else None,
    )
