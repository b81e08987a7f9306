"""Where busy threads were found on the CPU, about fifty times within a few seconds."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import StackSamples

ABSENT = "no thread of it was busy enough to be sampled"
THREADS = 16


class SampledThreads(Evidence, frozen=True, tag="stack-samples"):
    """At most 16 busy threads."""

    threads: tuple[StackSamples, ...]

    def of(self, pid: int, tid: int) -> StackSamples | None:
        """The samples of a thread."""
        return next((each for each in self.threads if each.tid == tid and each.pid == pid), None)

    def says(self) -> str:
        """One sentence for a person."""
        first = self.threads[0]
        lines = f"; Python at {first.python_lines[0]}" if first.python_lines else ""
        top = first.places[0] if first.places else None
        where = f", {top.count} times in {top.place}" if top is not None else ""
        return f"thread {first.tid} was found on the CPU {first.samples} times{where}{lines}"


def collect(scene: HangScene) -> SampledThreads | Missing | None:
    """From the instruction pointers of its busy threads."""
    samples = scene.examination.samples
    if not samples:
        return scene.missing("stack-samples")
    busiest = sorted(samples, key=lambda each: -each.samples)
    return SampledThreads(source="user registers, sampled", threads=tuple(busiest[:THREADS]))
