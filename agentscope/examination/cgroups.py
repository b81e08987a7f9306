"""What its cgroups do to a process: frozen, short of CPU time, held back at a memory limit.

Version 1 has a hierarchy of folders a controller, version 2 one for all (/sys/fs/cgroup, or /sys/fs/cgroup/unified beside
version 1, without controllers). Every cgroup from the process's own up to the root can be the one that holds it. Sources:
Documentation/admin-guide/cgroup-v1/{freezer-subsystem,memory}.rst, scheduler/sched-bwc.rst, cgroup-v2.rst, accounting/psi.rst.
"""

import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from agentscope.examination import CgroupState
from agentscope.examination.proc import plain, read_proc
from agentscope.model import Value

_MOST_LEVELS = 32
_ROOT = Path("/sys/fs/cgroup")
_V2 = ""  # how /proc/PID/cgroup names the controllers of version 2
_NO_LIMIT = 1 << 60


class Quota(Value, frozen=True):
    """CPU time that a cgroup may use: `quota_us` of every `period_us`; how many periods there were, and in how many it was stopped."""

    path: str
    quota_us: int
    period_us: int
    periods: int
    throttled: int
    throttled_ns: int


class SoftLimit(Value, frozen=True):
    """memory.high of a cgroup of version 2, and how often a process in it was held back for that."""

    path: str
    high_bytes: int
    hits: int


class CgroupReading(Value, frozen=True):
    """Everything that we read of a process's cgroups at one moment; counters go up only. `paths` is controller to path."""

    at_ns: int
    path: str
    paths: dict[str, str]
    frozen: bool = False
    frozen_path: str | None = None
    quotas: tuple[Quota, ...] = ()  # innermost first, only those with a limit
    soft_limits: tuple[SoftLimit, ...] = ()
    stalled_us: int | None = None
    under_oom_path: str | None = None


def read_cgroup(pid: int, *, root: Path = _ROOT, membership: bytes | None = None) -> CgroupReading:
    """The cgroups of a process now. Of one that has ended the path is empty. `membership` is the text of its /proc/PID/cgroup."""
    text = read_proc(f"/proc/{pid}/cgroup") if membership is None else membership
    paths = parse_membership(text or b"")
    folders = {name: _folder(root, name, path) for name, path in paths.items()}
    own = {name: folder for name, folder in folders.items() if folder is not None}
    frozen_path, frozen = _freezer(own)
    return CgroupReading(
        at_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        path=plain(paths.get("memory", paths.get(_V2, "")), 1024),
        paths={name or "unified": plain(path, 1024) for name, path in paths.items()},
        frozen=frozen,
        frozen_path=frozen_path,
        quotas=tuple(_quotas(own)),
        soft_limits=tuple(_soft_limits(own)),
        stalled_us=_stalled_us(own),
        under_oom_path=_under_oom(own),
    )


def state_between(before: CgroupReading, after: CgroupReading) -> CgroupState:
    """What the cgroups did between two readings of the same process: shares of the time or of the periods between them."""
    shares = [(_throttled_share(quota, before), quota) for quota in after.quotas]
    # the level that stopped it most; if none did, the tightest
    binding = max(shares, key=lambda each: (each[0] or 0.0, -each[1].quota_us / each[1].period_us), default=None)
    hits = [(_hits(limit, before), limit) for limit in after.soft_limits]
    hit = max(hits, key=lambda each: each[0], default=None)
    elapsed_us = (after.at_ns - before.at_ns) / 1e3
    stalled = None
    if after.stalled_us is not None and before.stalled_us is not None and elapsed_us > 0:
        stalled = min(1.0, max(0.0, (after.stalled_us - before.stalled_us) / elapsed_us))
    return CgroupState(
        path=after.path,
        frozen=after.frozen,
        frozen_path=after.frozen_path,
        quota_cpus=None if binding is None else binding[1].quota_us / binding[1].period_us,
        quota_path=None if binding is None else binding[1].path,
        throttled_share=None if binding is None else binding[0],
        memory_high_path=None if hit is None else hit[1].path,
        memory_high_hits=None if hit is None else hit[0],
        memory_stalled_share=stalled,
        under_oom_path=after.under_oom_path,
    )


def parse_membership(text: bytes) -> dict[str, str]:
    """/proc/PID/cgroup, lines "4:cpu,cpuacct:/a/b": controller to path, "" for version 2. None above our own root ("/..")."""
    found: dict[str, str] = {}
    for line in text.decode("utf-8", "surrogateescape").split("\n")[:64]:
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon or not path.startswith("/") or ".." in path.split("/"):
            continue
        if number == "0":
            found[_V2] = path.removesuffix(" (deleted)")
        for name in controllers.split(","):
            if name and not name.startswith("name="):
                found[name] = path.removesuffix(" (deleted)")
    return found


# --- where its files are -------------------------------------------------------------------------------------------------


class _Folder(Value, frozen=True):
    """The folder of one cgroup: where it is, and its path in the hierarchy, as a person names it."""

    place: str
    path: str

    def read(self, name: str) -> bytes | None:
        return read_proc(f"{self.place}/{name}")

    def number(self, name: str) -> int | None:
        text = (self.read(name) or b"").strip()
        return int(text) if text.removeprefix(b"-").isdigit() else None

    def counter(self, name: str, key: bytes) -> int | None:
        """One value of a file of lines "key value"."""
        for line in (self.read(name) or b"").splitlines():
            found, _, value = line.partition(b" ")
            if found == key and value.strip().isdigit():
                return int(value)
        return None

    def upwards(self) -> Iterator["_Folder"]:
        """This cgroup and those above it, innermost first; the root, which has no limits, left out."""
        place, path = self.place, self.path
        for _ in range(_MOST_LEVELS):
            if path in {"", "/"}:
                return
            yield _Folder(place=place, path=plain(path, 1024))
            place, path = place.rpartition("/")[0], path.rpartition("/")[0]


def _folder(root: Path, controller: str, path: str) -> _Folder | None:
    """The folder of a cgroup in the hierarchy of a controller; None where that is not mounted."""
    try:
        place = _hierarchy(root, controller)
    except LookupError:
        return None
    path = path.rstrip("/")
    return _Folder(place=f"{place}{path}", path=path or "/")


@lru_cache(64)
def _hierarchy(root: Path, controller: str) -> str:
    """Where the hierarchy of a controller is mounted.

    Raises:
        LookupError: nowhere; this is not remembered, since it may be mounted later.
    """
    if controller == _V2:
        places = [root] if (root / "cgroup.controllers").exists() else [root / "unified"]
    else:
        places = [root / controller, *root.glob(f"*,{controller}"), *root.glob(f"{controller},*")]
    place = next((str(each) for each in places if each.is_dir()), None)
    if place is None:
        raise LookupError(controller)
    return place


# --- what each controller tells ------------------------------------------------------------------------------------------


def _freezer(own: dict[str, _Folder]) -> tuple[str | None, bool]:
    """The cgroup that was told to freeze, and whether this one is frozen: for version 1 a parent's order counts as well."""
    v1, v2 = own.get("freezer"), own.get(_V2)
    if v1 is not None and (v1.read("freezer.state") or b"").startswith(b"FROZEN"):
        told = (each.path for each in v1.upwards() if each.number("freezer.self_freezing") == 1)
        return next(told, plain(v1.path, 1024)), True
    if v2 is not None and v2.counter("cgroup.events", b"frozen") == 1:
        told = (each.path for each in v2.upwards() if each.number("cgroup.freeze") == 1)
        return next(told, plain(v2.path, 1024)), True
    return None, False


def _quotas(own: dict[str, _Folder]) -> Iterator[Quota]:
    v1 = own.get("cpu")
    for folder in (v1 or own.get(_V2) or _Folder(place="", path="/")).upwards():
        if v1 is not None:
            quota, period = folder.number("cpu.cfs_quota_us"), folder.number("cpu.cfs_period_us")
        else:
            words = (folder.read("cpu.max") or b"").split()
            quota, period = (int(word) if word.isdigit() else None for word in (*words, b"", b"")[:2])
        if quota is None or quota <= 0 or not period:
            continue
        stopped_us = folder.counter("cpu.stat", b"throttled_usec")
        yield Quota(
            path=folder.path,
            quota_us=quota,
            period_us=period,
            periods=folder.counter("cpu.stat", b"nr_periods") or 0,
            throttled=folder.counter("cpu.stat", b"nr_throttled") or 0,
            throttled_ns=stopped_us * 1000 if stopped_us is not None else folder.counter("cpu.stat", b"throttled_time") or 0,
        )


def _soft_limits(own: dict[str, _Folder]) -> Iterator[SoftLimit]:
    """memory.high with the hits of each level alone: memory.events counts those of the levels below as well."""
    v2 = own.get(_V2)
    for folder in v2.upwards() if v2 is not None and "memory" not in own else ():
        high = folder.number("memory.high")
        if high is None or high >= _NO_LIMIT:
            continue
        hits = folder.counter("memory.events.local", b"high")
        hits = folder.counter("memory.events", b"high") if hits is None else hits
        yield SoftLimit(path=folder.path, high_bytes=high, hits=hits or 0)


def _stalled_us(own: dict[str, _Folder]) -> int | None:
    """Time in which everything in its cgroup waited for memory: "full … total=123" of memory.pressure. PSI is often off."""
    v2 = own.get(_V2)
    if v2 is None or v2.path == "/":  # the root's would be the whole machine's
        return None
    for line in (v2.read("memory.pressure") or b"").splitlines():
        total = line.rpartition(b"total=")[2]
        if line.startswith(b"full ") and total.isdigit():
            return int(total)
    return None


def _under_oom(own: dict[str, _Folder]) -> str | None:
    """The cgroup of version 1 whose processes wait for memory, its OOM killer being off (oom_kill_disable, under_oom)."""
    v1 = own.get("memory")
    for folder in v1.upwards() if v1 is not None else ():
        off = folder.counter("memory.oom_control", b"oom_kill_disable")
        if off == 1 and folder.counter("memory.oom_control", b"under_oom") == 1:
            return folder.path
    return None


def _throttled_share(quota: Quota, before: CgroupReading) -> float | None:
    """Share of the periods between two readings in which a cgroup ran out of its quota; None where there was no period."""
    old = next((each for each in before.quotas if each.path == quota.path), None)
    if old is None or quota.periods <= old.periods:
        return None
    return min(1.0, max(0.0, (quota.throttled - old.throttled) / (quota.periods - old.periods)))


def _hits(limit: SoftLimit, before: CgroupReading) -> int:
    old = next((each for each in before.soft_limits if each.path == limit.path), None)
    return 0 if old is None else max(0, limit.hits - old.hits)
