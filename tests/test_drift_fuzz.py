"""A small share of `make fuzz`: forged files through every reader of drift."""

import os

import pytest

from agentscope.symbols import rooted
from tests.drift_fuzz import CHECKS, fenced, run

INPUTS = 400


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_forged_files_crash_nothing_and_lead_nowhere(name):
    """Every input is read to an answer, in time, inside the root."""
    inputs = INPUTS * CHECKS[name][1] // 100
    count, longest = run(name, inputs)
    print(f"{name}: {count} inputs, the longest {longest * 1e3:.1f} ms")
    assert count >= inputs


def test_the_fence_itself_holds(tmp_path):
    """A read outside of the root would be noticed: else the count above would prove nothing."""
    with fenced(tmp_path), pytest.raises(AssertionError, match="was opened in"):
        os.close(rooted.open_regular("/etc/passwd", limit_bytes=1 << 20))
