"""The measured truth table of the kernel, row by row: which signals are generated for which death, and what is made of them.

Measured on 6.18: for each way to end, the signals of tracepoint signal:signal_generate with si_code and sender, whether
oom:mark_victim fired, and the wait status. Tools that look elsewhere (signal_deliver, the leader's exit) get several of these wrong.
"""

import pytest
from conftest import Theatre
from scenario import Scenario, scenarios
from test_zoo import skip_without_needs
from verdicts import ending_faults, truth_faults, verdict_faults

ROWS = {
    "kill -9 by bash",
    "cgroup.kill",
    "memcg OOM",
    "RLIMIT_CPU soft then hard",
    "PID-namespace init exits",
    "PR_SET_PDEATHSIG",
    "NULL dereference in libc",
    "the same with faulthandler",
    "abort",
    "V8 heap limit",
    "no signal at all: MemoryError",
    "no signal at all: uncaught exception",
    "no signal at all: node unhandled rejection",
    "SIGTERM answered by exit 0",
    "SIGPIPE default death",
    "SIGTERM default death",
    "SIGHUP default death",
    "multi-threaded normal exit",
    "leader thread exits first",
    "timeout wrapping a killed child",
    "missing shared library at exec",
    "undefined symbol",
}
SHOWN = [scenario for scenario in scenarios() if scenario.truth is not None]


def test_every_row_is_shown() -> None:
    """No row of the table is without its live scenario, and none has been invented."""
    assert {scenario.truth.row for scenario in SHOWN if scenario.truth} == ROWS


@pytest.mark.live
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("scenario", SHOWN, ids=lambda scenario: scenario.slug)
def test_row(scenario: Scenario, theatre: Theatre) -> None:
    """The signals, the out-of-memory mark and the end are those of the row; the verdict is the stated one and no other."""
    skip_without_needs(scenario)
    outcome = theatre.outcome(scenario)
    faults = [*ending_faults(outcome, scenario), *truth_faults(outcome, scenario), *verdict_faults(outcome, scenario)]
    assert not faults, "\n".join(faults)
