"""Two thousand random deaths: the reported wait status is what the one that really waited saw."""

import time
from pathlib import Path

import pytest
from scenario import BUILD, Ending, Expected, Run, Scenario
from zoo import AGENTSCOPE, Watcher, parsed, victim

HERE = Path(__file__).parent
COUNT = 2000


def dice(count: int, seed: int) -> Scenario:
    """The program that lets its children die, as a scenario that ends well itself."""
    compile_it = ("gcc", "-O1", "-pthread", "-w", "-o", str(BUILD / "dice"), str(HERE / "dice.c"))
    run = Run(argv=(str(BUILD / "dice"), str(count), str(seed)), compile=(compile_it,), memory_mib=250)
    return Scenario(slug="dice", folder=HERE, title="", run=run, expect=Expected(cause="none", wait=Ending(code=0)))


@pytest.mark.live
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("engine", ["core", "netlink"])
def test_wait_statuses_agree(tmp_path: Path, engine: str) -> None:
    """Codes, signals, threads, first thread first, vfork and exec from a thread: no mismatch, none lost, none told twice."""
    if not AGENTSCOPE.exists():
        pytest.skip("agentscope is not installed")
    with victim(dice(COUNT, seed=time.time_ns() % 2**31), tmp_path) as running:
        watcher = Watcher([running.watched], tmp_path, "--engine", engine)
        try:
            watcher.attach([running.watched])
            running.trigger()
            assert running.said.wait_for(lambda line: line == "done", 100), f"only {len(running.said.lines)} of {COUNT}"
            assert watcher.wait_for("agentscope.agent.gone", running.watched, 30)
        finally:
            status = watcher.stop()
        waited = dict(line.split() for line in running.said.lines if line[:1].isdigit())
    assert status == 0
    events = [parsed(line) for line in watcher.said.lines]
    assert not [event for event in events if event["type"] == "agentscope.lost"]
    exits = [event["data"] for event in events if event["type"] == "agentscope.process.exit"]
    # without a probe at the end, a few are gone before the kernel can be asked for what their threads do not agree on: that is said
    unknown = {str(event["pid"]) for event in exits if event.get("unseen") is not None}
    told = [(str(event["pid"]), str(event["status"])) for event in exits if event["pid"] != running.watched]
    assert len(waited) == COUNT
    assert len(unknown) <= (COUNT // 50 if engine == "netlink" else 0)
    assert sorted(pid for pid, _ in told) == sorted(waited)
    assert sorted(end for end in told if end[0] not in unknown) == sorted(
        end for end in waited.items() if end[0] not in unknown
    )
