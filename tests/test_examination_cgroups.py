"""What cgroups of version 2 do, and mixed hierarchies, from folders that look like theirs."""

import msgspec
import pytest

from agentscope.examination.cgroups import read_cgroup, state_between

SECOND_NS = 1_000_000_000


def folder(root, path, **files):
    """A cgroup with these files; "__" in a name is a dot."""
    place = root / path.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


@pytest.fixture
def v2(tmp_path):
    """A root of version 2 with /outer and /outer/inner below it."""
    folder(tmp_path, "/", cgroup__controllers="cpu memory\n")
    folder(tmp_path, "/outer")
    folder(tmp_path, "/outer/inner")
    return tmp_path


def reading(root, membership=b"0::/outer/inner\n"):
    return read_cgroup(1, root=root, membership=membership)


def between(root, change, seconds=10, **options):
    """The state between now and after a change, `seconds` later."""
    before = reading(root, **options)
    change()
    return state_between(before, msgspec.structs.replace(reading(root, **options), at_ns=before.at_ns + seconds * SECOND_NS))


def test_frozen_names_who_was_told_to_freeze(v2):
    """A frozen cgroup names the nearest one that was told to freeze; one that is told but not yet frozen is not."""
    folder(v2, "/outer", cgroup__freeze="1\n", cgroup__events="populated 1\nfrozen 1\n")
    folder(v2, "/outer/inner", cgroup__freeze="0\n", cgroup__events="populated 1\nfrozen 0\n")
    assert (reading(v2).frozen, reading(v2).frozen_path) == (False, None)
    folder(v2, "/outer/inner", cgroup__events="populated 1\nfrozen 1\n")
    assert (reading(v2).frozen, reading(v2).frozen_path) == (True, "/outer")


def test_the_level_that_throttled_most_is_named(v2):
    """Of several quotas the one that stopped it in most periods is named, with its share of the periods between."""
    stat = "usage_usec 5\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\n"
    folder(v2, "/outer", cpu__max="50000 100000\n", cpu__stat=stat.format(1000, 10, 5))
    folder(v2, "/outer/inner", cpu__max="200000 100000\n", cpu__stat=stat.format(1000, 900, 5))
    state = between(v2, lambda: folder(v2, "/outer", cpu__stat=stat.format(1100, 105, 9)))
    assert (state.quota_path, state.quota_cpus, state.throttled_share) == ("/outer", 0.5, 0.95)
    assert reading(v2).quotas[0].throttled_ns == 5000


def test_no_quota_and_no_period(v2):
    """Without a limit there is no quota; with one but no period in between, the tightest is named without a share."""
    folder(v2, "/outer", cpu__max="max 100000\n")
    assert between(v2, lambda: None).quota_path is None
    folder(v2, "/outer", cpu__max="100000 100000\n")
    folder(v2, "/outer/inner", cpu__max="20000 100000\n")
    state = between(v2, lambda: None)
    assert (state.quota_path, state.quota_cpus, state.throttled_share) == ("/outer/inner", 0.2, None)


def test_memory_high_counts_its_own_level(v2):
    """Hits at memory.high count at the level that has the limit, not at those above that hear of them."""
    folder(v2, "/outer", memory__high="1048576\n", memory__events="high 50\n", memory__events__local="low 0\nhigh 50\n")
    folder(v2, "/outer/inner", memory__high="max\n")
    state = between(v2, lambda: folder(v2, "/outer", memory__events__local="low 0\nhigh 75\n"))
    assert (state.memory_high_path, state.memory_high_hits) == ("/outer", 25)
    assert reading(v2).soft_limits[0].high_bytes == 1048576


def test_memory_high_before_local_events(v2):
    """A kernel without memory.events.local has its hits in memory.events."""
    folder(v2, "/outer/inner", memory__high="4096\n", memory__events="high 5\n")
    state = between(v2, lambda: folder(v2, "/outer/inner", memory__events="high 6\n"))
    assert (state.memory_high_path, state.memory_high_hits) == ("/outer/inner", 1)


def test_the_share_of_time_stalled(v2):
    """The share of time in which everything waited for memory comes from the totals of "full"."""
    line = "some avg10=0.00 avg60=0.00 avg300=0.00 total=999\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"
    folder(v2, "/outer/inner", memory__pressure=line.format(1_000_000))
    state = between(v2, lambda: folder(v2, "/outer/inner", memory__pressure=line.format(7_000_000)))
    assert state.memory_stalled_share == pytest.approx(0.6)
    folder(v2, "/outer/inner", memory__pressure="")  # PSI switched off
    assert between(v2, lambda: None).memory_stalled_share is None


def test_one_reading_twice_is_no_interval(v2):
    """The same reading as before and after says nothing about an interval, and fails at nothing."""
    folder(
        v2,
        "/outer",
        cpu__max="50000 100000\n",
        cpu__stat="nr_periods 5\nnr_throttled 5\n",
        memory__high="4096\n",
        memory__events="high 9\n",
    )
    now = reading(v2)
    state = state_between(now, now)
    assert (state.throttled_share, state.memory_high_hits, state.memory_stalled_share) == (None, 0, None)


def test_a_process_that_moved_has_no_shares(v2):
    """Counters of another cgroup than before are not compared."""
    folder(v2, "/other", cpu__max="50000 100000\n", cpu__stat="nr_periods 100\nnr_throttled 100\n")
    state = state_between(reading(v2), reading(v2, b"0::/other\n"))
    assert (state.path, state.quota_path, state.throttled_share) == ("/other", "/other", None)


MIXED = b"9:memory:/m/n\n5:cpu,cpuacct:/c\n3:freezer:/f/g\n1:name=systemd:/s\n0::/u\n"


def test_version_1_beside_version_2(tmp_path):
    """With version 1 each controller is read in its own hierarchy, joint ones too, and version 2 below "unified"."""
    folder(tmp_path, "/unified", cgroup__controllers="")
    folder(tmp_path, "/unified/u", cgroup__events="frozen 0\n", memory__high="1\n")
    folder(
        tmp_path,
        "/cpu,cpuacct/c",
        cpu__cfs_quota_us="2000\n",
        cpu__cfs_period_us="100000\n",
        cpu__stat="nr_periods 8\nnr_throttled 7\nthrottled_time 6\n",
    )
    folder(tmp_path, "/freezer/f", freezer__state="FROZEN\n", freezer__self_freezing="1\n")
    folder(tmp_path, "/freezer/f/g", freezer__state="FROZEN\n", freezer__self_freezing="0\n")
    folder(tmp_path, "/memory/m", memory__oom_control="oom_kill_disable 1\nunder_oom 1\noom_kill 0\n")
    folder(tmp_path, "/memory/m/n", memory__oom_control="oom_kill_disable 0\nunder_oom 1\noom_kill 0\n")
    found = reading(tmp_path, MIXED)
    assert (found.path, found.under_oom_path, found.frozen_path) == ("/m/n", "/m", "/f")
    assert found.paths == {"memory": "/m/n", "cpu": "/c", "cpuacct": "/c", "freezer": "/f/g", "unified": "/u"}
    assert [(quota.path, quota.quota_us, quota.throttled, quota.throttled_ns) for quota in found.quotas] == [("/c", 2000, 7, 6)]
    assert found.soft_limits == ()


def test_minus_one_is_no_quota(tmp_path):
    """A quota of -1 is none, as version 1 writes it."""
    folder(tmp_path, "/cpu/c", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert reading(tmp_path, b"5:cpu:/c\n").quotas == ()


def test_nothing_mounted(tmp_path):
    """Where there is no hierarchy, or the process has gone, nothing is claimed."""
    assert reading(tmp_path / "none", MIXED).quotas == ()
    assert reading(tmp_path, b"").path == ""


def test_a_hostile_name_is_shown_clean(v2):
    """A cgroup whose name holds colours and a bell is read by its name, and shown without them."""
    name = "/x\x1b[31m\x07y"
    folder(v2, name, cpu__max="1000 100000\n")
    found = reading(v2, b"0::" + name.encode() + b"\n")
    assert (found.path, found.quotas[0].path) == ("/xy", "/xy")
