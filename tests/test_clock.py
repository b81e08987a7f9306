"""Moments are told in the local time of the machine that judged, wherever and whenever they are read."""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from agentscope.baseline.clock import UTC, Clock, clock

SECOND = 1_000_000_000


def at(text, zone):
    """Nanoseconds since 1970 of a moment in a zone."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


@pytest.fixture
def here(monkeypatch):
    """Move this machine to a zone, at a moment."""

    def move(zone, now):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        monkeypatch.setattr(time, "time_ns", lambda: at(now, zone))

    yield move
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
def test_moments_are_local(here, zone):
    """With the day where it is another than today, also in zones of odd minutes."""
    here(zone, "2026-11-25 19:30")
    told = clock(at("2026-11-20 23:59", zone))
    assert told.moment(at("2026-11-25 00:05", zone)) == "00:05"
    assert told.moment(at("2026-11-24 23:59:59", zone)) == "2026-11-24 23:59"
    assert told.dated(at("2026-11-25 19:29", zone)) == "2026-11-25 19:29"
    assert told.set_ns is None


def test_summer_time_within_the_window(here):
    """What was before the clock was set back is told in the time that was in force then."""
    here("Europe/Berlin", "2026-10-28 12:00")
    told = clock(at("2026-10-20 12:00", "Europe/Berlin"))
    assert (told.offset_s, told.before_s) == (3600, 7200)
    assert told.set_ns == int(datetime.fromisoformat("2026-10-25T01:00:00+00:00").timestamp()) * SECOND
    for text in ("2026-10-20 12:00", "2026-10-25 01:59", "2026-10-25 03:00", "2026-10-28 11:59"):
        assert told.dated(at(text, "Europe/Berlin")) == text


def test_a_window_without_end_or_sense(here):
    """One that begins in 1970 or in the future looks back a year at most, and fails on nothing."""
    here("Europe/Berlin", "2026-07-01 12:00")
    assert clock(0).dated(at("2026-06-30 10:00", "Europe/Berlin")) == "2026-06-30 10:00"
    assert clock(at("2036-01-01 00:00", "UTC")).offset_s == 7200


def test_a_reader_elsewhere_and_later_sees_the_same(here):
    """A recording is read in another zone a year after: the day and the hour are those of the machine that it came from."""
    here("Asia/Tokyo", "2026-11-25 19:30")
    changed_ns = at("2026-11-25 02:04", "Asia/Tokyo")
    told = clock(at("2026-11-24 02:04", "Asia/Tokyo"))
    here("America/Los_Angeles", "2027-12-01 08:00")
    assert told.moment(changed_ns) == "02:04"
    assert told.dated(changed_ns) == "2026-11-25 02:04"


def test_a_record_that_tells_no_clock_is_in_utc():
    """One of an earlier version: always with the day."""
    assert Clock() == UTC
    assert UTC.moment(0) == UTC.dated(0) == "1970-01-01 00:00"
