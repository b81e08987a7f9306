"""Moments as the people of a machine write them: its local time travels with the evidence, so that a recording reads the same anywhere."""

import time

from agentscope.model import Value

SECOND_NS = 1_000_000_000
LONGEST_S = 400 * 86_400
MINUTE_S = 60
LATEST_S = 253_402_300_799  # the end of the year 9999: a forged record can claim any moment


class Clock(Value, frozen=True):
    """The local time where something was judged, at `today_ns` (ns since 1970): `offset_s` seconds east of UTC.

    Where it was set meanwhile, for summer or winter, that is so from `set_ns` on, and before that it was `before_s`. A clock that
    knows nothing is UTC, and always tells the day.
    """

    offset_s: int = 0
    set_ns: int | None = None
    before_s: int = 0
    today_ns: int | None = None

    def moment(self, wall_ns: int) -> str:
        """The hour and minute, with the day where that is not the day of the judgement: "14:02", "2026-11-22 14:02"."""
        whole = self.dated(wall_ns)
        return whole[11:] if self.today_ns is not None and whole[:10] == self.dated(self.today_ns)[:10] else whole

    def dated(self, wall_ns: int) -> str:
        """Always with the day, for what is read again on other days."""
        offset_s = self.before_s if self.set_ns is not None and wall_ns < self.set_ns else self.offset_s
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0, min(wall_ns // SECOND_NS + offset_s, LATEST_S))))


UTC = Clock()


def clock(since_ns: int) -> Clock:
    """The local time of this machine, for moments from `since_ns` (ns since 1970) until now; of several changes of it the last."""
    now_ns = time.time_ns()
    now_s = now_ns // SECOND_NS
    since_s = max(min(since_ns // SECOND_NS, now_s), now_s - LONGEST_S)
    offset_s, before_s = _offset_s(now_s), _offset_s(since_s)
    if offset_s == before_s:
        return Clock(offset_s=offset_s, today_ns=now_ns)
    early, late = since_s, now_s
    while late - early > MINUTE_S:
        middle = (early + late) // 2
        early, late = (early, middle) if _offset_s(middle) == offset_s else (middle, late)
    # zones change at a whole minute
    return Clock(offset_s=offset_s, set_ns=late // MINUTE_S * MINUTE_S * SECOND_NS, before_s=before_s, today_ns=now_ns)


def _offset_s(wall_s: int) -> int:
    return time.localtime(wall_s).tm_gmtoff
