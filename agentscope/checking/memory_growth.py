"""Whether its memory comes near its limit: now, and as fast as it has grown since it started."""

from itertools import pairwise

from agentscope.ceilings import seconds_words
from agentscope.checking import Checked, Subject
from agentscope.pipeline import now_ns
from agentscope.pressure import WARN, theil_sen
from agentscope.sizes import percent, size_of

PLACE = 2
TITLE = "memory growth against the limit"
SETTLED_S = 600.0  # what is younger is still loading: its growth says nothing yet
SOON_S = 600.0
DAY_S = 86400.0


def check(subject: Subject) -> Checked:
    """A few samples, the mean growth since the start, and what the cgroup's own counters tell of the past."""
    uses, binding = subject.uses, subject.binding
    watch = f"sudo agentscope watch --pid {subject.pid}"
    if binding is not None and binding.oom_kill_count:
        times = f"{binding.oom_kill_count} time{'s' if binding.oom_kill_count > 1 else ''}"
        return Checked(False, f"the kernel has killed in cgroup {binding.path} for its limit {times} already", watch)
    if uses is None:
        return Checked(None, "its memory could not be sampled", watch)
    warn = subject.entry.memory.warn if subject.entry is not None and subject.entry.memory is not None else WARN
    used = uses.samples[-1][1]
    share, room = used / uses.limit, uses.limit - used
    says = f"it holds {size_of(used)} ({percent(share)}) of {size_of(uses.limit)} of {uses.where}"
    if share >= warn:
        return Checked(False, f"{says}, above {percent(warn)}", watch)
    growth = theil_sen(uses.samples)
    span_s = (uses.samples[-1][0] - uses.samples[0][0]) / 1e9
    rises = all(later[1] > earlier[1] for earlier, later in pairwise(uses.samples))
    if growth is not None and rises and growth.least > 0 and room / growth.slope < SOON_S:
        left = seconds_words(room / growth.slope)
        return Checked(False, f"{says} and grew in {span_s:.0f} s by {size_of(growth.slope * span_s)}: full in {left}", watch)
    age_s = (now_ns() - subject.agent.start_ns) / 1e9
    if age_s < SETTLED_S:
        return Checked(None, f"{says}, but it has run for {seconds_words(age_s)} only: needs watching", watch)
    if room / (used / age_s) < DAY_S and share > 0.3:
        return Checked(None, f"{says} after {seconds_words(age_s)}: whether that grows on needs watching", watch)
    return Checked(True, f"{says} after {seconds_words(age_s)}, and did not grow towards it in the last {span_s:.0f} s")
