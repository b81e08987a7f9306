"""What is kept of the living, and what their cgroups still tell after the end."""

import os
from pathlib import Path

import msgspec
import pytest

from agentscope.evidence import CgroupMemory
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.lastseen import LastSeenCache, counted_now, read_last_seen
from agentscope.model import Process

BOX = CgroupMemory(path="/a/b", version=2, limit_bytes=64 << 20, usage_bytes=1 << 20, oom_kill_count=0)


def limits_of(binding: CgroupMemory) -> MemoryLimits:
    """The evidence with this cgroup as the tightest."""
    return MemoryLimits(
        source="cgroup files",
        binding=binding,
        address_space_bytes=None,
        data_bytes=None,
        host_available_bytes=None,
        host_total_bytes=None,
    )


@pytest.mark.parametrize(("version", "name"), [(2, "a/b/memory.events"), (1, "memory/a/b/memory.oom_control")])
def test_oom_kills_are_counted_anew_at_the_end(tmp_path: Path, version: int, name: str) -> None:
    """After a kill the counter that the kernel has raised meanwhile stands in the evidence, with the file that says so."""
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("low 0\nmax 38\noom 1\noom_kill 2\noom_group_kill 1\n")
    (found,) = counted_now([msgspec.structs.replace(BOX, version=version)], str(tmp_path))
    assert found.oom_kill_count == 2
    assert f"2 OOM kills counted in its {Path(name).name} (oom_kill)" in limits_of(found).says()


def test_a_cgroup_that_is_gone_keeps_its_last_count(tmp_path: Path) -> None:
    """A service manager removes the cgroup at once: what was read before stays, and is not taken for zero or for nothing."""
    counted = msgspec.structs.replace(BOX, oom_kill_count=3)
    assert counted_now([counted], str(tmp_path)) == (counted,)


def test_no_kill_is_not_told() -> None:
    """Of a cgroup that has seen no OOM kill none is told."""
    assert "OOM" not in limits_of(BOX).says()


def test_what_does_not_change_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces are read of a program once, kills for memory counted only where no kernel log names the victims."""
    process = Process(pid=os.getpid(), start_ns=1)
    first = read_last_seen(process)
    assert first.oom_kills is not None
    monkeypatch.setattr("agentscope.lastseen.own_namespaces", lambda _: ("net",))
    cache = LastSeenCache(0)
    cache.counts_kills = False
    cache.refresh(process, first.at_ns)
    monkeypatch.setattr("agentscope.lastseen.own_namespaces", lambda _: pytest.fail("was read again"))
    cache.refresh(process, first.at_ns + 60_000_000_000)
    assert (cache.seen[process.pid].namespaces, cache.seen[process.pid].oom_kills) == (("net",), None)
    monkeypatch.setattr("agentscope.lastseen.own_namespaces", lambda _: ("pid",))
    cache.refresh(process, first.at_ns + 120_000_000_000, execed=True)
    assert cache.seen[process.pid].namespaces == ("pid",)
