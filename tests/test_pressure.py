"""Warnings before a death: what is told of a series of memory, and when; printed with -s: how long before the end."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.errors import BadInput
from agentscope.pressure import SECOND_NS, Level, Memory, theil_sen
from agentscope.sizes import bytes_of, percent, size_of

MIB = 1 << 20
GIB = 1 << 30


def noisy(series, spread=2 * MIB):
    """The series with what a real one has beside: a spread, always the same."""
    dice = random.Random(1)
    return [int(value + dice.gauss(0, spread)) for value in series]


def told(series, limit, warn=0.7):
    """What is told of one sample a second, up to the death: (second, Warned); and the second of the death."""
    fold, found = Memory(warn), []
    for second, used in enumerate(series):
        if used >= limit:
            return found, second
        warned = fold.sample(second * SECOND_NS, used, limit)
        if warned is not None:
            found.append((second, warned))
    return found, None


def lead_of(name, series, limit):
    """How long before its death the first warning came, printed."""
    found, dead = told(series, limit)
    assert dead is not None
    assert found, f"{name}: it died at {dead} s without a warning"
    lead = dead - found[0][0]
    first = found[0][1]
    at_most = "?" if first.at_most is None else f"{first.at_most:.0f}"
    print(
        f"{name}: warned {lead} s before the limit, at {first.used / limit:.0%}, saying {first.seconds:.0f} s ({first.at_least:.0f} to {at_most})"
    )
    return lead, first


@pytest.mark.parametrize("fill_s", [150, 300, 600, 1800, 7200])
def test_a_linear_leak(fill_s):
    """A leak that fills its limit in minutes or hours is told at 70 % of it, or after 50 s of it, with the time that is left."""
    series = noisy(GIB * (0.1 + 0.9 * second / fill_s) for second in range(fill_s + 60))
    lead, first = lead_of(f"linear leak, full in {fill_s} s", series, GIB)
    assert lead >= min(0.32 * fill_s, 3700)
    assert first.seconds == pytest.approx(lead, rel=0.15)
    assert first.at_least <= first.seconds <= first.at_most


def test_the_burst_of_the_article():
    """467 MB to 7.5 GB in 20 s is told seconds before a limit of 7.5 GB: as soon as it is above 70 %."""
    series = [467_000_000] * 60 + [int(467e6 + (7.5e9 - 467e6) * second / 20) for second in range(21)]
    lead, first = lead_of("467 MB to 7.5 GB in 20 s", series, 7_500_000_000)
    assert lead >= 5
    assert first.stage == 3
    assert abs(first.seconds - lead) <= 1


def test_a_step():
    """What jumps above 70 % and stays there is told a minute later, and is not said to grow."""
    found, dead = told(noisy([0.3 * GIB] * 100 + [0.78 * GIB] * 3600), GIB)
    assert dead is None
    assert [(second, warned.stage, warned.seconds) for second, warned in found] == [(160, 0, None)]


def test_steps_that_go_on():
    """A staircase is a leak: it is told a minute or more before its end."""
    series = noisy((0.2 + 0.1 * (second // 60)) * GIB for second in range(600))
    lead, _ = lead_of("a step of 10 % a minute", series, GIB)
    assert lead > 60


@pytest.mark.parametrize("period_s", [5, 20, 30, 45])
def test_a_saw_tooth(period_s):
    """Garbage that is collected in time is no alarm, from the first tooth on, though it goes to 85 % of the limit every time."""
    low, high = (0.6, 0.85) if period_s < 30 else (0.45, 0.85)
    series = noisy(GIB * (low + (high - low) * (second % period_s) / period_s) for second in range(4 * 3600))
    assert told(series, GIB) == ([], None)


def test_a_slow_saw_tooth():
    """The first tooth of two minutes cannot be told from a leak; the second and all others are known."""
    series = noisy(GIB * (0.35 + 0.5 * (second % 120) / 120) for second in range(4 * 3600))
    found, _ = told(series, GIB)
    assert [second for second, warned in found if not warned.eased and second > 240] == []


def test_a_leak_below_a_saw_tooth():
    """Peaks that rise from tooth to tooth are a leak."""
    series = noisy((0.35 + 0.3 * (second % 30) / 30 + 0.36 * second / 3600) * GIB for second in range(3700))
    lead, first = lead_of("a leak below a saw-tooth", series, GIB)
    assert lead > 600
    assert first.seconds == pytest.approx(lead, rel=0.3)
    warnings = [warned for _, warned in told(series, GIB)[0] if not warned.eased]
    assert len(warnings) <= 3  # once for each stage, not once for each tooth


def test_a_cache_then_a_plateau():
    """A cache of its own that fills and then stays the same below the share that was asked for is never told."""
    series = noisy(GIB * 0.66 * (1 - 2.718 ** (-second / 200)) for second in range(24 * 3600))
    assert told(series, GIB) == ([], None)


def test_a_plateau_above_the_share():
    """What levels off above 70 % is told once as what it is, a level, and not as growth that would reach the limit."""
    series = noisy(GIB * 0.78 * (1 - 2.718 ** (-second / 100)) for second in range(4 * 3600))
    found, _ = told(series, GIB)
    assert [warned.stage for _, warned in found] == [0]


@pytest.mark.parametrize("spread", [1 * MIB, 5 * MIB, 10 * MIB])
def test_a_day_on_a_noisy_plateau(spread):
    """A whole day at 66 % with noise is not told at all."""
    assert told(noisy([0.64 * GIB] * 86400, spread), GIB) == ([], None)


def test_a_warning_is_over():
    """Once a crossing: after a fall it is said that it is over, and the next crossing is told again."""
    day = [0.3 * GIB] * 200 + [0.8 * GIB] * 200
    found, _ = told(noisy(day * 2 + [0.3 * GIB] * 200), GIB)
    assert [(warned.stage, warned.eased) for _, warned in found] == [(0, False), (0, True)] * 2


def test_a_warning_comes_again_as_the_end_comes_nearer():
    """A slow leak is told an hour, ten minutes and a minute before its end."""
    series = noisy((0.4 + 0.6 * second / 20000) * GIB for second in range(21000))
    found, dead = told(series, GIB)
    assert [warned.stage for _, warned in found if warned.stage] == [1, 2, 3]
    assert [round((dead - second) / 60) for second, warned in found if warned.stage] == pytest.approx([60, 10, 1], abs=3)


def test_a_share_of_ones_own():
    """The share that is asked for in the config counts: at 0.9 a level of 80 % is nothing, at 0.3 one of 35 % is told."""
    assert told([int(0.8 * GIB)] * 600, GIB, warn=0.9) == ([], None)
    assert [warned.stage for _, warned in told([int(0.35 * GIB)] * 600, GIB, warn=0.3)[0]] == [0]


def test_time_that_nobody_saw():
    """After a gap nothing is reckoned over it: a machine that was suspended has not leaked all at once."""
    fold = Memory()
    samples = [(second, 0.71 * GIB) for second in range(30)] + [(9000 + second, 0.72 * GIB) for second in range(30)]
    assert [fold.sample(second * SECOND_NS, int(used), GIB) for second, used in samples if second < 9000] == [None] * 30
    warned = [fold.sample(second * SECOND_NS, int(used), GIB) for second, used in samples if second >= 9000]
    assert all(each is None or each.growth is None for each in warned)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4 * GIB), max_size=200), st.integers(-1, 2 * GIB), st.floats(0.1, 0.99))
def test_any_series(series, limit, warn):
    """Whatever the numbers, nothing fails, times are positive and in order, and over comes only after a warning."""
    fold, warned_now = Memory(warn), False
    for second, used in enumerate(series):
        found = fold.sample(second * SECOND_NS, used, limit)
        if found is None:
            continue
        assert warned_now or not found.eased
        warned_now = not found.eased
        known = [each for each in (found.at_least, found.seconds, found.at_most) if each is not None]
        assert known == sorted(known)
        assert all(each >= 0 for each in known)


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=30), st.integers(-50, 50))
def test_the_slope_of_theil_and_sen(noise, slope):
    """The slope lies in its interval, and adding a line to the points adds its slope to all three."""
    points = [(second * SECOND_NS, value) for second, value in enumerate(noise)]
    flat = theil_sen(points)
    tilted = theil_sen([(at, value + slope * second) for second, (at, value) in enumerate(points)])
    assert flat.least <= flat.slope <= flat.most
    assert tilted.slope == pytest.approx(flat.slope + slope)
    assert (tilted.least, tilted.most) == (pytest.approx(flat.least + slope), pytest.approx(flat.most + slope))


def test_one_wild_point_moves_no_slope():
    """Of thirty points a wild one is outvoted: that is why it is the median of all pairs."""
    points = [(second * SECOND_NS, 10 * second) for second in range(30)]
    points[17] = (17 * SECOND_NS, 10**9)
    assert theil_sen(points).slope == pytest.approx(10)


def test_a_level_is_told_once_a_crossing():
    """A share that wavers around what is to be told is told once, until it was well below."""
    level = Level(0.8, 0.7)
    assert [level.sample(share) for share in (0.5, 0.81, 0.79, 0.82, 0.71, 0.69, 0.75, 0.85)] == [
        None, True, None, None, None, False, None, True,
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "size"), [("512M", 512 * MIB), ("4G", 4 * GIB), ("1.5 GiB", GIB + GIB // 2), ("64KB", 65536)])
def test_sizes(text, size):
    """A size is read as a person writes it, by 1024."""
    assert bytes_of("x", text) == size


@pytest.mark.parametrize("text", ["", "4", "4g", "-1G", "0M", "four", "4GG", "4G\n"])
def test_what_is_no_size(text):
    """It is refused, with one that would do."""
    with pytest.raises(BadInput, match=r"no size.*512M"):
        bytes_of("x", text)


def test_a_size_is_said_shortly():
    """Two digits tell enough."""
    assert [size_of(count) for count in (0, 999, 1536, 498 * MIB, 9.5 * GIB)] == [
        "0 B",
        "999 B",
        "1.5 KiB",
        "498 MiB",
        "9.5 GiB",
    ]


def test_a_share_is_said_in_percent():
    """What is there is never said to be nothing."""
    assert [percent(share) for share in (0, 0.001, 0.714, 1.2)] == ["0 %", "under 1 %", "71 %", "120 %"]
