"""A row of the table, and the arithmetic of paired runs."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

Watch = Callable[[int], AbstractContextManager[object]]
Work = Callable[[Watch | None], float]


@dataclass(frozen=True)
class Row:
    """One line of the table. `held` is None where there is no budget or the noise hides the answer; `beside` are the figures of other tools on the same work."""

    what: str
    ours: str
    budget: str = ""
    held: bool | None = None
    beside: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Ratio:
    """Runs with something attached (B) against runs with nothing (A), taken in turns: A B A B."""

    each: tuple[float, ...]
    bare: float
    unit: str

    @property
    def median(self) -> float:
        """The median of the ratios of the pairs."""
        return statistics.median(self.each)

    def within(self, budget: float) -> bool | None:
        """Whether the median, as it is printed, is in the budget; None where it is not but a quarter of the pairs are."""
        if round(self.median, 2) <= budget:
            return True
        return None if statistics.quantiles(self.each, n=4)[0] <= budget else False

    def __str__(self) -> str:
        """Median, lowest and highest."""
        return f"{self.median:.2f}x ({min(self.each):.2f}-{max(self.each):.2f})"


def paired(work: Work, watch: Watch, *, pairs: int, unit: str) -> Ratio:
    """Run the work in turns without and with the watcher; one run before them warms the caches and does not count."""
    work(None)
    bare, each = [], []
    for _ in range(pairs):
        bare.append(work(None))
        each.append(work(watch) / bare[-1])
    return Ratio(tuple(each), statistics.median(bare), unit)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * len(ordered)))]


def spread(values: Sequence[float], unit: str) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.0f} {unit} ({min(values):.0f}-{max(values):.0f})"
