"""How near an agent comes to the limit of its memory, and how long it takes from here: a pure fold of one sample a second.

What is told is what a person can still act on. A level is told once it is known to stay (a minute above the share that was asked
for), growth once its slope is certain:

- The slope is Theil and Sen's: the median of the slopes between all pairs of 10 s medians. Its interval is Sen's (1968), from the
  distribution of Kendall's rank correlation, at 99 %; growth is certain where all of it is above zero. Growth that gets slower and
  slower is reckoned to its end, as a geometric series: what levels off below the limit does not reach it.
- What would fill its whole limit within a minute leaves no time for that: six samples in a row that rise are enough.
- A level from which it has come back by itself before (a garbage collector's saw-tooth) is no alarm again, unless it takes longer
  to get there than it ever did, or the peaks rise. The first tooth of all cannot be told from a leak; it is not told where it takes
  less than a minute and stays below 90 % of the limit, and less than half of the limit in half a minute.

Whoever samples leaves page cache out: the kernel takes it back before it kills anybody.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from agentscope.model import Value

SECOND_NS = 1_000_000_000
WARN = 0.7  # of the limit, where the config says nothing else
WATCHED = 0.4  # below this share nothing is kept, which is what most agents cost most of the time
EASED = 0.05  # so far below the share that was asked for a warning is over
BIN_NS = 10 * SECOND_NS
BINS = 30  # five minutes: 435 pairs, a tenth of a millisecond
BINS_NEEDED = 5
STANDS_NS = 60 * SECOND_NS
RISING = 6  # samples in a row
STEP = 0.5
BURST_S = 60.0  # in which a burst would fill the whole limit
HIGH, HIGH_S = 0.9, 30.0  # above this share, with no trend known yet, so many seconds are near
TOOTH = 0.1  # of the limit: a fall by less is no tooth
TEETH_NEEDED = 6
PASSED = 1.02  # a peak is passed only by more than this
LONGER = 1.5  # a rise is another one where it takes so much longer than any before
SLOWING = 0.75  # the later half of a window against the earlier
Z = 2.576  # 99 % of a normal distribution
STAGES_S = (3600.0, 600.0, 60.0)  # left: each is told once a crossing
STEADY, OVER = 0, -1
FAR_S = 10 * 365 * 86400.0  # a time beyond this is none

Sample = tuple[int, int]  # when (ns), how much


class Level:
    """Whether a share is above what is to be told, once a crossing: it must fall to `eased` before it is told again."""

    def __init__(self, warn: float, eased: float) -> None:
        self.warn, self.eased = warn, eased
        self.told = False

    def sample(self, share: float) -> bool | None:
        """True: tell it. False: tell that it is over. None: nothing new."""
        if share >= self.warn and not self.told:
            self.told = True
            return True
        if share < self.eased and self.told:
            self.told = False
            return False
        return None


class Growth(Value, frozen=True):
    """Bytes a second, and between which they lie."""

    slope: float
    least: float
    most: float


class Warned(Value, frozen=True):
    """What is to be told: `used` of `limit`, how fast it grows, and in how many seconds the limit is reached, at least and at most.

    None where it does not grow. `eased`: it is over. `stage` is 0 where it stands, and counts up as the time that is left gets shorter.
    """

    used: int
    limit: int
    stage: int
    growth: Growth | None = None
    seconds: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    eased: bool = False


def _until(room: int, slope: float) -> float | None:
    if slope <= 0 or room / slope > FAR_S:
        return None
    return room / slope


def theil_sen(points: Sequence[Sample]) -> Growth | None:
    """The median slope between all pairs, a second, with its interval; None of fewer than three points."""
    slopes = sorted(
        (later[1] - earlier[1]) * SECOND_NS / (later[0] - earlier[0])
        for position, earlier in enumerate(points)
        for later in points[position + 1 :]
        if later[0] > earlier[0]
    )
    count = len(points)
    if count < 3 or not slopes:
        return None
    # Sen 1968: so many ranks on either side of the middle, by the variance of Kendall's S
    ranks = Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, int((len(slopes) - ranks) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + ranks) / 2))
    return Growth(slope=median(slopes), least=slopes[low], most=slopes[high])


class Teeth:
    """Rises and falls of at least a tenth of the limit: how high it was when it came back by itself, and how long the rise took."""

    def __init__(self) -> None:
        self.rising = True
        self.low: Sample = (0, 0)
        self.high: Sample | None = None
        self.came_back_from = 0
        self.longest_ns = 0
        self.peaks: deque[Sample] = deque(maxlen=BINS)
        self.trend: Growth | None = None  # of the peaks

    def add(self, at_ns: int, used: int, limit: int) -> None:
        """One more sample."""
        if self.high is None:
            self.low = self.high = (at_ns, used)
        elif self.rising:
            if used >= self.high[1]:
                self.high = (at_ns, used)
            elif used < self.high[1] - TOOTH * limit:
                self.fell(self.high, limit)
                self.rising, self.low = False, (at_ns, used)
        elif used <= self.low[1]:
            self.low = (at_ns, used)
        elif used > self.low[1] + TOOTH * limit:
            self.rising, self.high = True, (at_ns, used)

    def is_low(self, used: int, limit: int) -> bool:
        """Whether nothing that it ever had was so much that a fall from it were a tooth: what most agents are most of the time."""
        return self.high is not None and self.rising and max(used, self.high[1]) < TOOTH * limit

    def fell(self, peak: Sample, limit: int) -> None:
        """It came back by itself."""
        self.came_back_from = max(self.came_back_from, peak[1])
        self.longest_ns = max(self.longest_ns, peak[0] - self.low[0])
        self.peaks.append(peak)
        enough = peak[1] >= WATCHED * limit and len(self.peaks) >= TEETH_NEEDED
        self.trend = theil_sen(list(self.peaks)) if enough else None

    def is_known(self, at_ns: int, used: int) -> bool:
        """Whether it has been as high before, came back by itself, and takes no longer now."""
        known = bool(self.came_back_from) and used <= self.came_back_from * PASSED
        return known and at_ns - self.low[0] <= LONGER * self.longest_ns

    def growth(self) -> Growth | None:
        """That of the peaks, where it is certain."""
        return self.trend if self.trend is not None and self.trend.least > 0 else None


class Memory:
    """The memory of one agent against one limit. `warn` is the share from which on anything is told."""

    def __init__(self, warn: float = WARN) -> None:
        self.warn = warn
        self.teeth = Teeth()
        self.recent: deque[Sample] = deque(maxlen=RISING)
        self.bin: list[Sample] = []
        self.medians: deque[Sample] = deque(maxlen=BINS)
        self.trend: Growth | None = None
        self.above_since_ns: int | None = None
        self.below_since_ns: int | None = None
        self.told = OVER

    def sample(self, at_ns: int, used: int, limit: int) -> Warned | None:
        """One second: what is to be told of it, or nothing."""
        if limit <= 0:
            return None
        if self.teeth.is_low(used, limit) and self.told == OVER and not self.recent:
            return None
        self.teeth.add(at_ns, used, limit)
        if used < min(WATCHED, self.warn - EASED) * limit:
            self.rest()
        else:
            self.keep(at_ns, used)
        if used < self.warn * limit:
            self.above_since_ns = None
            return self.below(at_ns, used, limit)
        self.below_since_ns = None
        if self.above_since_ns is None:
            self.above_since_ns = at_ns
        return self.judged(at_ns, used, limit)

    def below(self, at_ns: int, used: int, limit: int) -> Warned | None:
        """A warning is over a minute after the last sample that was near: a tooth of a saw does not end it."""
        if self.told == OVER or used >= (self.warn - EASED) * limit:
            self.below_since_ns = None
            return None
        if self.below_since_ns is None:
            self.below_since_ns = at_ns
        if at_ns - self.below_since_ns < STANDS_NS:
            return None
        self.told = OVER
        return Warned(used=used, limit=limit, stage=STEADY, eased=True)

    def rest(self) -> None:
        """It is far from its limit: what was before is of no more use."""
        if self.recent:
            self.recent.clear()
            self.bin.clear()
            self.medians.clear()
            self.trend = self.above_since_ns = None

    def keep(self, at_ns: int, used: int) -> None:
        """Take a sample into its ten seconds; after a gap (a suspended machine, nobody sampling) all begins anew."""
        if self.recent and at_ns - self.recent[-1][0] > BIN_NS:
            self.rest()
        self.recent.append((at_ns, used))
        if self.bin and at_ns - self.bin[0][0] >= BIN_NS:
            self.medians.append((self.bin[len(self.bin) // 2][0], int(median(used for _, used in self.bin))))
            self.bin.clear()
            self.trend = theil_sen(list(self.medians)) if len(self.medians) >= BINS_NEEDED else None
        self.bin.append((at_ns, used))

    def judged(self, at_ns: int, used: int, limit: int) -> Warned | None:
        """Of one that is above the share that was asked for."""
        growth, reached = self.burst(used, limit) or self.certain(used, limit), used
        if growth is not None and self.teeth.is_known(at_ns, used):
            growth, reached = self.teeth.growth(), max(used, self.teeth.peaks[-1][1])
        room = max(0, limit - reached)
        stage = OVER
        if growth is not None:
            stage = sum(1 for bound_s in STAGES_S if room / growth.slope <= bound_s) or OVER
        if stage == OVER and self.above_since_ns is not None and at_ns - self.above_since_ns >= STANDS_NS:
            stage = STEADY
        if stage <= self.told:
            return None
        self.told = stage
        if growth is None:
            return Warned(used=used, limit=limit, stage=stage)
        return Warned(
            used=used,
            limit=limit,
            stage=stage,
            growth=growth,
            seconds=_until(room, growth.slope),
            at_least=_until(room, growth.most),
            at_most=_until(room, growth.least),
        )

    def certain(self, used: int, limit: int) -> Growth | None:
        """The trend, where all of its interval is growth, and it does not level off below the limit."""
        if self.trend is None or self.trend.least <= 0:
            return None
        first, middle, last = self.medians[0][1], self.medians[len(self.medians) // 2][1], self.medians[-1][1]
        earlier, later = middle - first, last - middle
        if 0 < later < SLOWING * earlier and used + later * later / (earlier - later) < limit:
            return None
        return self.trend

    def burst(self, used: int, limit: int) -> Growth | None:
        """The growth of the last seconds, where it leaves no time to wait for a trend."""
        last = list(self.recent)
        steps = [later[1] - earlier[1] for earlier, later in pairwise(last)]
        # one step that does most of it is a step, and not yet a burst
        if len(last) < RISING or min(steps) <= 0 or max(steps) > STEP * sum(steps):
            return None
        slope = sum(steps) * SECOND_NS / (last[-1][0] - last[0][0])
        near = self.trend is None and used >= HIGH * limit and (limit - used) / slope <= HIGH_S
        return theil_sen(last) if near or slope >= limit / BURST_S else None
