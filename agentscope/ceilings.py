"""What is told before a death: every second, how near each agent is to the limits that it would die or fail of.

The memory that counts is what the kernel cannot take back: of a cgroup its usage without page cache, of an agent that no cgroup
limits its own anonymous and shared pages against what the host could still give. Descriptors are counted of each process, threads
against the pids.max of its cgroup, the disk is that of its folder. Sources: Documentation/admin-guide/cgroup-v1/memory.rst and
pids.rst, cgroup-v2.rst, proc_pid_status(5), getrlimit(2).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentscope.config import Config, MemoryConfig
from agentscope.evidence import CgroupMemory
from agentscope.examination.cgroups import parse_membership
from agentscope.examination.proc import plain, read_proc, status_field
from agentscope.incidents import Member, Tree
from agentscope.lastseen import host_memory, number_in
from agentscope.marks.beside import Beside
from agentscope.model import Pressure, PressureKind
from agentscope.pipeline import Pipeline, now_ns
from agentscope.pressure import WATCHED, Level, Memory, Warned
from agentscope.sizes import percent, size_of

if TYPE_CHECKING:
    from concurrent.futures import Future

DISK_EASED = 0.9
SHARES: dict[str, tuple[float, float]] = {"descriptors": (0.8, 0.7), "threads": (0.8, 0.7), "disk": (0.95, DISK_EASED)}
DISK_ROOM = 2 << 30  # a disk of which more is free is not near its end, whatever its share
DISK_EVERY_NS = 30_000_000_000
STUCK_NS = 60_000_000_000
READ_EVERY_NS = 4_500_000_000
MOVED = 0.005  # of the limit
NEAR_WARN = 0.1
CGROUPS = Path("/sys/fs/cgroup")
MOST_LEVELS = 16
USUAL = MemoryConfig()
Key = tuple[int, int]


class Room(NamedTuple):
    """A limit of memory, and what is used of it: `path` is that of the cgroup whose limit it is; None: `where` says whose."""

    used: int
    limit: int
    path: str | None
    where: str = ""


def held_in(cgroup: CgroupMemory, root: Path = CGROUPS) -> int | None:
    """What a cgroup holds that the kernel cannot take back: its usage without page cache. None where it is not there."""
    v1 = cgroup.version == 1
    folder = (root / "memory" if v1 else root) / cgroup.path.lstrip("/")
    usage = number_in(folder / ("memory.usage_in_bytes" if v1 else "memory.current"))
    if usage is None:
        return None
    # shared memory is counted as cache, and cannot be taken back (without swap)
    cache, shared = ("total_cache", "total_shmem") if v1 else ("file", "shmem")
    counted = {cache: 0, shared: 0} | ({} if v1 else {"slab_reclaimable": 0})
    for line in (read_proc(str(folder / "memory.stat")) or b"").decode("ascii", "replace").splitlines():
        name, _, value = line.partition(" ")
        if name in counted and value.isdigit():
            counted[name] = int(value)
    return max(0, usage - max(0, counted[cache] - counted[shared]) - counted.get("slab_reclaimable", 0))


def held_once(cgroup: CgroupMemory, held: dict[str, int | None]) -> int | None:
    """The same, read once for all agents in it."""
    if cgroup.path not in held:
        held[cgroup.path] = held_in(cgroup)
    return held[cgroup.path]


def own_pages(pid: int) -> int:
    """Anonymous and shared pages of a process, in bytes (proc_pid_status(5)); 0 where it has ended."""
    text = read_proc(f"/proc/{pid}/status") or b""
    kilobytes = ((status_field(text, name) or b"").split() for name in (b"RssAnon", b"RssShmem"))
    return sum(int(words[0]) * 1024 for words in kilobytes if words and words[0].isdigit())


def threads_of(pid: int, root: Path = CGROUPS) -> tuple[int, int, str] | None:
    """Threads and limit of the cgroup above a process that is nearest to its pids.max; None where there is no limit."""
    paths = parse_membership(read_proc(f"/proc/{pid}/cgroup") or b"")
    v1 = "pids" in paths
    path = paths.get("pids", paths.get("", "")).strip("/")
    found: list[tuple[float, int, int, str]] = []
    for _ in range(MOST_LEVELS):
        if not path:
            break
        folder = root / "pids" / path if v1 else root / path
        most, now = number_in(folder / "pids.max"), number_in(folder / "pids.current")
        if most and now is not None:
            found.append((now / most, now, most, f"/{path}"))
        path = path.rpartition("/")[0]
    return max(found)[1:] if found else None


class Counted(NamedTuple):
    """Something that is counted against a limit: `which` tells several of a kind apart, `words` say of what it is."""

    kind: PressureKind
    which: int
    used: int
    limit: int
    words: str
    path: str | None = None


class Disk(NamedTuple):
    """Used and usable bytes of a file system, or inodes where those are scarcer."""

    used: int
    limit: int
    unit: str


def disk_of(pid: int) -> Disk | None:
    """The file system that a process works in; None of one that it cannot fill.

    The magic link is followed by the kernel: no path that the process controls is walked. It may wait: a network mount can be dead.
    """
    try:
        found = os.statvfs(f"/proc/{pid}/cwd")
    except OSError:
        return None
    if found.f_flag & os.ST_RDONLY or not found.f_blocks:
        return None
    free, used = found.f_bavail * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize
    scarce = found.f_favail / found.f_files if found.f_files else 1.0
    if scarce < min(1 - DISK_EASED, free / max(1, used + free)):
        return Disk(found.f_files - found.f_favail, found.f_files, "inodes")
    return Disk(used if free < DISK_ROOM else 0, used + free, "bytes")


class Ceilings:
    """The warnings of all agents of a pipeline; the pulse asks once a second."""

    def __init__(self, pipeline: Pipeline, config: Config) -> None:
        self.pipeline = pipeline
        self.config = config
        self.memory: dict[Key, Memory] = {}
        self.readings: dict[Key, tuple[int, int, int]] = {}  # when, the resident size then, and what was used
        self.levels: dict[tuple[Key, PressureKind, int], Level] = {}
        self.disks: dict[Key, Future[Disk | None]] = {}
        self.asked_ns = 0
        self.beside = Beside("disks")
        self.stuck = False

    def beat(self, rss: Mapping[int, int | None], now: int) -> None:
        """Memory and disk of every agent."""
        trees = {tree.key: tree for tree in self.pipeline.incidents.trees}
        self.forget(trees)
        held: dict[str, int | None] = {}
        host: tuple[int | None, int | None] | None = None
        for key, tree in trees.items():
            living = sum(rss.get(pid) or 0 for pid in tree.live)
            if host is None and self.pipeline.cache.binding.get(tree.agent.pid) is None:
                host = host_memory()
            self.remember(key, tree, self.room_of(tree, living, held, (host or (None, None))[0]), now)
        self.look_at_disks(trees, now)

    def forget(self, trees: Mapping[Key, Tree]) -> None:
        """Of those that are gone nothing is kept."""
        for key in [key for key in self.memory if key not in trees]:
            del self.memory[key]
        for key in [key for key in self.readings if key not in trees]:
            del self.readings[key]
        for level in [level for level in self.levels if level[0] not in trees]:
            del self.levels[level]

    # --- memory -----------------------------------------------------------------------------------------------------------

    def asked_of(self, tree: Tree) -> MemoryConfig:
        """What the config asks for."""
        entry = self.config.agents.get(tree.agent.name)
        return entry.memory if entry is not None and entry.memory is not None else USUAL

    def room_of(self, tree: Tree, rss: int, held: dict[str, int | None], available: int | None) -> Room | None:
        """The tightest limit and what is used of it. Only near it is that read exactly; below, the resident size will do."""
        asked = self.asked_of(tree)
        near = min(WATCHED, asked.warn - NEAR_WARN)
        binding = self.pipeline.cache.binding.get(tree.agent.pid)
        limit = binding.limit_bytes if binding is not None else None
        if binding is not None and limit is not None and (asked.limit_bytes is None or limit <= asked.limit_bytes):
            far = max(rss, binding.usage_bytes or 0) < near * limit
            held_bytes = rss if far else self.exact(tree, rss, limit, partial(held_once, binding, held))
            return None if held_bytes is None else Room(held_bytes, limit, binding.path)
        if asked.limit_bytes is None and available is None:
            return None
        ceiling = asked.limit_bytes if asked.limit_bytes is not None else rss + (available or 0)
        used = rss if rss < near * ceiling else self.exact(tree, rss, ceiling, lambda: sum(own_pages(pid) for pid in tree.live))
        if used is None:
            return None
        if asked.limit_bytes is not None:
            return Room(used, ceiling, None, "of the limit that the config sets")
        return Room(used, used + (available or 0), None, "of what the host can give")

    def exact(self, tree: Tree, rss: int, limit: int, read: Callable[[], int | None]) -> int | None:
        """What is used, read again after a few seconds or where the resident size has moved: a reading costs a tenth of a millisecond."""
        key = tree.key
        now, (at_ns, was, used) = now_ns(), self.readings.get(key, (0, 0, 0))
        if now - at_ns < READ_EVERY_NS and abs(rss - was) < MOVED * limit:
            return max(0, used + rss - was)
        found = read()
        if found is not None:
            self.readings[key] = (now, rss, found)
        return found

    def remember(self, key: Key, tree: Tree, room: Room | None, now: int) -> None:
        """One sample of memory, and what is to be told of it."""
        if room is None:
            return
        fold = self.memory.get(key)
        if fold is None:
            fold = self.memory[key] = Memory(self.asked_of(tree).warn)
        warned = fold.sample(now, room.used, room.limit)
        if warned is not None:
            self.pipeline.sink(memory_told(tree, room, warned, now))

    # --- descriptors, threads, disk ---------------------------------------------------------------------------------------

    def looked(self, member: Member, now: int) -> None:
        """A process whose limits were read just now."""
        tree, seen = member.tree, self.pipeline.cache.seen.get(member.process.pid)
        pid = member.process.pid
        most = seen.soft_limits.get("NOFILE") if seen is not None else None
        if seen is not None and seen.open_files is not None and most:
            where = f"process {pid} ({plain(member.process.comm)})"
            self.tell(tree, Counted("descriptors", pid, seen.open_files, most, f"descriptors of {where}", where), now)
        if pid == tree.agent.pid:
            threads = threads_of(pid)
            if threads is not None:
                words = f"threads that cgroup {plain(threads[2])} may have"
                self.tell(tree, Counted("threads", 0, threads[0], threads[1], words, threads[2]), now)

    def look_at_disks(self, trees: Mapping[Key, Tree], now: int) -> None:
        """Twice a minute, beside the loop: of a file system that hangs nothing is known, and the others are asked no more either."""
        for key, answer in list(self.disks.items()):
            if answer.done():
                del self.disks[key]
                found = answer.result() if answer.exception() is None else None
                if found is not None and key in trees:
                    words = f"{'inodes' if found.unit == 'inodes' else 'room'} of the file system that it works in"
                    self.tell(trees[key], Counted("disk", 0, found.used, found.limit, words), now)
        if self.disks:
            if now - self.asked_ns > STUCK_NS and not self.stuck:
                self.stuck = True
                self.pipeline.lost("disk", "a file system that an agent works in does not answer: no disk is watched any more")
            return
        if now - self.asked_ns >= DISK_EVERY_NS:
            self.asked_ns = now
            self.disks = {key: self.beside.submit(disk_of, tree.agent.pid) for key, tree in trees.items()}

    def tell(self, tree: Tree, counted: Counted, now: int) -> None:
        """A share that is counted and not reckoned: told once where it gets near, once where that is over."""
        key = tree.key
        kind, which, used, limit, words, path = counted
        full, eased = SHARES[kind]
        level = self.levels.get((key, kind, which))
        if level is None:
            if used < full * limit:
                return
            level = self.levels[key, kind, which] = Level(full, eased)
        told = level.sample(used / limit)
        if told is None:
            return
        amount = f"{size_of(used)} of {size_of(limit)}" if "room" in words else f"{used:,} of {limit:,}"
        amount = f"{amount} ({percent(used / limit)}) of the {words}"
        self.pipeline.sink(
            Pressure(
                at_ns=now,
                agent_pid=key[0],
                agent_start_ns=key[1],
                kind=kind,
                used=used,
                limit=limit,
                share=round(used / limit, 4),
                says=f"{amount} are used" if told else f"well below the limit again: {amount} are used",
                limit_path=path,
                eased=not told,
            )
        )


def memory_told(tree: Tree, room: Room, warned: Warned, now: int) -> Pressure:
    """A warning of memory as the stream has it."""
    growth = warned.growth
    seconds = warned.seconds
    where = room.where if room.path is None else f"of the limit of cgroup {plain(room.path)}"
    return Pressure(
        at_ns=now,
        agent_pid=tree.agent.pid,
        agent_start_ns=tree.agent.start_ns,
        kind="memory",
        used=warned.used,
        limit=warned.limit,
        share=round(warned.used / warned.limit, 4),
        says=" ".join(memory_words(tree.agent.name, where, warned)),
        slope_bytes_per_s=None if growth is None else round(growth.slope, 1),
        seconds_to_limit=None if seconds is None else round(seconds, 1),
        seconds_at_least=None if warned.at_least is None else round(warned.at_least, 1),
        seconds_at_most=None if warned.at_most is None else round(warned.at_most, 1),
        limit_path=room.path,
        eased=warned.eased,
    )


def memory_words(name: str, where: str, warned: Warned) -> Iterator[str]:
    """The same for a person, in parts."""
    amount = f"{size_of(warned.used)} of {size_of(warned.limit)} ({percent(warned.used / warned.limit)})"
    if warned.eased:
        yield f"{name} is well below its limit again: it holds {amount} {where}"
        return
    yield f"{name} holds {amount} {where}"
    if warned.growth is None or warned.seconds is None:
        yield "and has done so for a minute"
        return
    yield f"and grows by {size_of(warned.growth.slope * 60)} a minute: it is reached in about {seconds_words(warned.seconds)}"
    if warned.at_least is not None:
        latest = "or never" if warned.at_most is None else f"to {seconds_words(warned.at_most)}"
        yield f"({seconds_words(warned.at_least)} {latest})"


def seconds_words(seconds: float) -> str:
    """As "7 s", "11 min", "3.2 h": one unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
