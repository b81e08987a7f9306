"""How the memory of the process and of its cgroup went in the last minutes, one sample a second."""

from agentscope.evidence import Evidence, Missing, Scene

ABSENT = "no memory sample was taken"
KEPT = 240  # samples in the record: enough for a plot, small enough for one line


class MemoryHistory(Evidence, frozen=True, tag="memory-history"):
    """`samples` are (nanoseconds before the end, rss bytes, cgroup bytes), oldest first; growth is of rss, per minute."""

    samples: tuple[tuple[int, int | None, int | None], ...]
    peak_rss_bytes: int | None
    growth_bytes_per_min: float | None

    def says(self) -> str:
        """One sentence for a person."""
        if self.peak_rss_bytes is None:
            return f"{len(self.samples)} samples of memory"
        span_s = -self.samples[0][0] / 1e9 if self.samples else 0.0
        grew = "" if self.growth_bytes_per_min is None else f", growing {self.growth_bytes_per_min / 2**20:+.0f} MiB a minute"
        when = f" in the last {span_s:.0f} s" if span_s >= 1 else ""
        return f"resident memory peaked at {self.peak_rss_bytes / 2**20:.0f} MiB{when}{grew}"


def collect(scene: Scene) -> MemoryHistory | Missing:
    """From the pulse; the exit's own maximum rss closes it."""
    end = scene.exit
    if not scene.memory:
        if end.max_rss_bytes is None:
            return Missing(kind="memory-history", because="it ended before the first pulse (one a second)")
        return MemoryHistory(
            source="maximum rss at exit", samples=(), peak_rss_bytes=end.max_rss_bytes, growth_bytes_per_min=None
        )
    step = -(-len(scene.memory) // KEPT)
    kept = scene.memory[::-1][::step][::-1]  # counted from the end: the last sample is the one that tells most
    known = [(sample.at_ns, sample.rss_bytes) for sample in scene.memory if sample.rss_bytes is not None]
    growth = None
    if len(known) >= 3 and known[-1][0] > known[0][0]:
        growth = (known[-1][1] - known[0][1]) * 60e9 / (known[-1][0] - known[0][0])
    peaks = [rss for _, rss in known] + ([end.max_rss_bytes] if end.max_rss_bytes is not None else [])
    return MemoryHistory(
        source="pulse (iter/task) once a second",
        samples=tuple((sample.at_ns - end.at_ns, sample.rss_bytes, sample.cgroup_bytes) for sample in kept),
        peak_rss_bytes=max(peaks, default=None),
        growth_bytes_per_min=growth,
    )
