"""Whether bringing it back was ever seen to work: a recovery that was never tried is a hope."""

import datetime as dt

from agentscope.checking import Checked, Subject
from agentscope.model import IncidentClosed, IncidentOpened
from agentscope.pipeline import boot_wall_ns, now_ns

PLACE = 10
TITLE = "recovery drill"
STALE_S = 180 * 86400


def check(subject: Subject) -> Checked:
    """The ledger has an incident of an agent of this name after which it was well again and passed its probation."""
    line = "sudo agentscope watch --config FILE, then in another terminal: sudo kill -SEGV " + str(subject.pid)
    if subject.past is None:
        return Checked(None, "the ledger may not be read", f"sudo agentscope check {subject.pid}")
    closed = [(at_ns, event) for at_ns, event in subject.past if isinstance(event, IncidentClosed) and event.held is not None]
    if not closed:
        deaths = sum(isinstance(event, IncidentOpened) for _, event in subject.past)
        had = f"{deaths} incident{'s' if deaths > 1 else ''}" if deaths else "no incident"
        return Checked(False, f"the ledger has {had} of {subject.agent.name}, and no recovery that was seen to hold", line)
    at_ns, last = closed[-1]
    day = dt.datetime.fromtimestamp(at_ns / 1e9, tz=dt.UTC).strftime("%Y-%m-%d")
    if not last.held:
        return Checked(False, f"its last recovery, on {day}, did not hold: {last.outcome}", f"agentscope show {last.incident}")
    if (boot_wall_ns() + now_ns() - at_ns) / 1e9 > STALE_S:
        return Checked(False, f"its last recovery that held was on {day}, more than half a year ago", line)
    return Checked(True, f"it was brought back on {day}, and that held: {last.outcome}")
