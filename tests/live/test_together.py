"""Many agents die at once under one agentscope: each verdict goes to the right one."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from scenario import scenarios
from zoo import AGENTSCOPE, GRACE_S, INCIDENT, Watcher, parsed, victim

CHOSEN = {
    "kill-9-by-bash",
    "uncaught/pipe",
    "exit-3",
    "exit-0",
    "ctypes-null-read",
    "sigterm-answered",
    "logged-traceback",
    "memory-error",
    "sigusr1",
}


@pytest.mark.live
@pytest.mark.usefixtures("root")
def test_verdicts_are_not_mixed_up(tmp_path: Path) -> None:
    """Twenty-seven agents that die in nine ways at the same moment: each has its own cause, and none has another's."""
    if not AGENTSCOPE.exists():
        pytest.skip("agentscope is not installed")
    with ExitStack() as stack:
        chosen = [scenario for scenario in scenarios() if scenario.slug in CHOSEN]
        running = [
            stack.enter_context(victim(each, tmp_path / f"{turn}-{index}"))
            for turn in range(3)
            for index, each in enumerate(chosen)
        ]
        pids = [each.watched for each in running]
        watcher = Watcher(pids, tmp_path)
        try:
            watcher.attach(pids)
            for each in running:
                each.trigger()
            for each in running:
                each.wait()
            for each in running:
                assert watcher.wait_for("agentscope.agent.gone", each.watched, 10), each.scenario.slug
        finally:
            time.sleep(GRACE_S)
            status = watcher.stop()
        assert status == 0
        incidents = [event["data"] for event in map(parsed, watcher.said.lines) if event["type"] == INCIDENT]
        told = sorted((incident["agent"]["pid"], incident["cause"]) for incident in incidents)
        assert told == sorted(
            (each.watched, each.scenario.expect.cause) for each in running if each.scenario.expect.cause != "none"
        )
