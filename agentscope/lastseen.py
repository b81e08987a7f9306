"""What is kept of living processes, because /proc is gone when user space hears of a death (measured: 0 of 400 readable).

Limits, cgroup chain and open files are read at attach and refreshed with the pulse; memory is a ring of samples; the file behind
descriptor 2 is held open, so that its tail can be read even after it was unlinked.
"""

import contextlib
import os
import resource
import signal
import stat
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from agentscope import transcripts
from agentscope.evidence import CgroupMemory, LastSeen, MemorySample, Words, binding_of
from agentscope.examination.proc import read_proc, status_field
from agentscope.model import Process, ProcessExit

HISTORY_KEPT = 600  # samples: ten minutes
TAIL_BYTES = 32768
FILES_KEPT = 256
ENVIRONMENT_BYTES = 262144
MAPS_BYTES = 4 << 20
REFRESH_NS = 5_000_000_000
NO_LIMIT = 1 << 60  # cgroup v1 writes a huge number for "no limit": memory.limit_in_bytes is rounded PAGE_COUNTER_MAX
NAMESPACES = ("pid", "mnt", "net", "cgroup", "ipc", "uts", "user")
LIMITS = {
    "AS": resource.RLIMIT_AS, "DATA": resource.RLIMIT_DATA, "STACK": resource.RLIMIT_STACK, "NOFILE": resource.RLIMIT_NOFILE,
    "NPROC": resource.RLIMIT_NPROC, "CPU": resource.RLIMIT_CPU, "FSIZE": resource.RLIMIT_FSIZE, "CORE": resource.RLIMIT_CORE,
}  # fmt: skip


def number_in(path: Path) -> int | None:
    """The number in a cgroup file; None where there is no file, no number, or "max"."""
    text = (read_proc(str(path)) or b"").strip()
    return int(text) if text.isdigit() and int(text) < NO_LIMIT else None


def counter_in(path: Path, name: str) -> int | None:
    """One counter of a "name value" file such as memory.events."""
    for line in (read_proc(str(path)) or b"").decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return None


def counted_now(cgroups: Sequence[CgroupMemory], root: str = "/sys/fs/cgroup") -> tuple[CgroupMemory, ...]:
    """The same with their counters of OOM kills read anew: one that is gone keeps what was read last.

    The kernel counts before it sends the signal (mm/oom_kill.c, __oom_kill_process), so at the end it has been counted.
    """
    files = {1: (Path(root, "memory"), "memory.oom_control"), 2: (Path(root), "memory.events")}
    found = []
    for cgroup in cgroups:
        folder, name = files[cgroup.version]
        count = counter_in(folder / cgroup.path.strip("/") / name, "oom_kill")
        found.append(cgroup if count is None else msgspec.structs.replace(cgroup, oom_kill_count=count))
    return tuple(found)


def memory_cgroups(cgroup: str | None, root: str = "/sys/fs/cgroup") -> tuple[CgroupMemory, ...]:
    """The memory cgroup and those above it, innermost first, v1 or v2 as mounted; the root itself has no limit."""
    chain: list[CgroupMemory] = []
    path = (cgroup or "").strip("/")
    v1 = Path(root, "memory")
    version = 1 if (v1 / "memory.limit_in_bytes").exists() else 2
    while path and len(chain) < 16:
        folder = Path(v1 if version == 1 else root, path)
        if version == 1:
            found = CgroupMemory(
                path=f"/{path}",
                version=1,
                limit_bytes=number_in(folder / "memory.limit_in_bytes"),
                usage_bytes=number_in(folder / "memory.usage_in_bytes"),
                peak_bytes=number_in(folder / "memory.max_usage_in_bytes"),
                hit_limit_count=number_in(folder / "memory.failcnt"),
                oom_kill_count=counter_in(folder / "memory.oom_control", "oom_kill"),
            )
        else:
            found = CgroupMemory(
                path=f"/{path}",
                version=2,
                limit_bytes=number_in(folder / "memory.max"),
                usage_bytes=number_in(folder / "memory.current"),
                peak_bytes=number_in(folder / "memory.peak"),
                hit_limit_count=counter_in(folder / "memory.events", "max"),
                oom_kill_count=counter_in(folder / "memory.events", "oom_kill"),
            )
        chain.append(found)
        path = path.rpartition("/")[0]
    return tuple(chain)


def host_memory(proc: str = "/proc") -> tuple[int | None, int | None]:
    """Available and total bytes of the host."""
    text = read_proc(f"{proc}/meminfo") or b""
    words = [(status_field(text, name) or b"").split() for name in (b"MemAvailable", b"MemTotal")]
    available, total = (int(found[0]) * 1024 if found and found[0].isdigit() else None for found in words)
    return available, total


def read_last_seen(
    process: Process, *, maps: bool = False, count_kills: bool = True, before: LastSeen | None = None
) -> LastSeen:
    """What can be read of a process now; of one that is gone, what its cgroup and the host still tell.

    `before` is what was read of the same program earlier: its namespaces are not read again. Not to `count_kills` saves
    /proc/vmstat, for which the kernel sums up all of its processors.
    """
    available, total = host_memory()
    soft: dict[str, int] = {}
    cwd, files = None, None
    lines: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        cwd = os.readlink(f"/proc/{process.pid}/cwd").removesuffix(" (deleted)")  # noqa: PTH115 - as below
        files = len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208 - many times as fast
        with contextlib.suppress(PermissionError):  # prlimit(2) of another user's process asks for CAP_SYS_RESOURCE
            for name, number in LIMITS.items():
                limit = resource.prlimit(process.pid, number)[0]
                if limit != resource.RLIM_INFINITY:
                    soft[name] = limit
        if maps:
            mapped = (read_proc(f"/proc/{process.pid}/maps", MAPS_BYTES) or b"").decode("utf-8", "replace")
            lines = tuple(line for line in mapped.split("\n") if " r-xp " in line)[:512]
    return LastSeen(
        at_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        cwd=cwd,
        soft_limits=soft,
        open_files=files,
        cgroups=memory_cgroups(process.cgroup),
        host_available_bytes=available,
        host_total_bytes=total,
        maps=lines,
        environment=places_of(process),
        oom_kills=counter_in(Path("/proc/vmstat"), "oom_kill") if count_kills else None,
        pids_inside=numbers_inside(process.pid) if before is None else before.pids_inside,
        namespaces=own_namespaces(process.pid) if before is None else before.namespaces,
    )


def numbers_inside(pid: int, proc: str = "/proc") -> tuple[int, ...]:
    """The numbers of a living process in the pid namespaces below ours, the innermost last; none where it is in ours (NSpid, proc(5))."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(proc, str(pid), "status").read_text("utf-8", "replace").splitlines():
            if line.startswith("NSpid:"):
                return tuple(int(number) for number in line.split()[2:])
    return ()


def own_namespaces(pid: int) -> tuple[str, ...]:
    """Which namespaces of a living process are not ours, by the names of /proc/PID/ns."""
    try:
        return tuple(
            name
            for name in NAMESPACES
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115 - it names no path
        )
    except OSError:
        return ()


def places_of(process: Process) -> dict[str, str]:
    """Where a command-line agent keeps its sessions, as its environment has it; nothing else of that, and nothing of any other."""
    if transcripts.tool_of(process.argv, process.exe) is None:
        return {}
    try:
        with Path(f"/proc/{process.pid}/environ").open("rb", buffering=0) as environ:
            words = environ.read(ENVIRONMENT_BYTES).split(b"\0")
    except OSError:
        return {}
    wanted = transcripts.places()
    pairs = (os.fsdecode(word).partition("=") for word in words)
    return {name: value for name, _, value in pairs if name in wanted and len(value) < 4096}


def usage_of(pid: int) -> tuple[int | None, int]:
    """Resident bytes and threads of a process with its descendants."""
    rss, threads = 0, 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                rss += process.memory_info().rss
                threads += process.num_threads()
    return rss or None, threads


def open_stderr(pid: int) -> int | None:
    """A descriptor of the regular file behind a live process's descriptor 2, or None where that is something else.

    The kernel follows the magic link itself, so no path that the process controls is walked; opening never blocks and never
    creates; what is not a regular file is closed again at once.
    """
    try:
        if not stat.S_ISREG(os.stat(f"/proc/{pid}/fd/2").st_mode):  # noqa: PTH116 - the magic link itself is meant
            return None
        held = os.open(f"/proc/{pid}/fd/2", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(held).st_mode):
        return held
    os.close(held)
    return None


def open_regular(path: str) -> int | None:
    """A descriptor of a regular file by path, links not followed; None where that cannot be."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    return None


def tail_of(descriptor: int, boot_wall_ns: int, source: str, begin: int = 0) -> Words | None:
    """The end of a regular file from byte `begin` on, and when it was last written (CLOCK_BOOTTIME)."""
    try:
        facts = os.fstat(descriptor)
        start = max(begin if begin <= facts.st_size else 0, facts.st_size - TAIL_BYTES)
        text = os.pread(descriptor, TAIL_BYTES, start)
    except OSError:
        return None
    return Words(text=text, source=source, written_ns=facts.st_mtime_ns - boot_wall_ns)


class MemoryCourse:
    """Resident memory of all processes over the last ten minutes, a sample a second.

    As numbers, and all processes of a second in one piece: of a hundred agents that is one megabyte, and no work for each.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[int, tuple[int, ...], array[int]]] = deque(maxlen=HISTORY_KEPT)

    def add(self, at_ns: int, rss: Mapping[int, int | None]) -> None:
        """One sample: resident bytes by pid, None where that could not be had."""
        pids = tuple(rss)
        if self._samples and self._samples[-1][1] == pids:
            pids = self._samples[-1][1]
        numbers = array("q", [-1 if rss_bytes is None else rss_bytes for rss_bytes in rss.values()])
        self._samples.append((at_ns, pids, numbers))

    def of(self, pid: int, since_ns: int) -> tuple[MemorySample, ...]:
        """The samples of one process, the oldest first; those from before `since_ns` were another's with the same pid."""
        found: list[MemorySample] = []
        known: tuple[int, ...] = ()
        place = -1
        for at_ns, pids, numbers in reversed(self._samples):
            if at_ns < since_ns:
                break
            if pids is not known:
                known, place = pids, pids.index(pid) if pid in pids else -1
            if place >= 0:
                rss_bytes = numbers[place]
                found.append(MemorySample(at_ns=at_ns, rss_bytes=None if rss_bytes < 0 else rss_bytes))
        return tuple(reversed(found))


class LastSeenCache:
    """What is kept for each watched process: bounded, refreshed with the pulse, dropped at the end."""

    def __init__(self, boot_wall_ns: int) -> None:
        self.boot_wall_ns = boot_wall_ns
        self.seen: dict[int, LastSeen] = {}
        self.binding: dict[int, CgroupMemory | None] = {}
        self.memory = MemoryCourse()
        self.counts_kills = True  # no kernel log names the victims
        self.stderr: dict[int, int] = {}
        self.passed: dict[
            tuple[int, int], tuple[int, int]
        ] = {}  # device and inode -> until when, and to where, others had written

    def refresh(self, process: Process, now_ns: int, *, execed: bool = False) -> None:
        """Read the process again if what is kept is old, or of the program that it was before."""
        kept = self.seen.get(process.pid)
        if kept is not None and now_ns - kept.at_ns < REFRESH_NS and not execed:
            return
        before = None if execed else kept
        seen = read_last_seen(process, maps=True, count_kills=self.counts_kills, before=before)
        if seen.cwd is None and kept is not None and kept.cwd is not None:
            return  # it is ending: what was read while it lived says more
        self.seen[process.pid] = seen
        self.binding[process.pid] = binding_of(seen.cgroups)
        if process.pid not in self.stderr:
            held = open_stderr(process.pid)
            if held is not None:
                self.stderr[process.pid] = held

    def last_seen(self, process: Process, end: ProcessExit) -> LastSeen | None:
        """What was last seen of a process that ended; its cgroups are those it ended in, which outlive it."""
        seen = self.seen.get(process.pid)
        cgroup = end.cgroup or process.cgroup
        if end.signal is None or cgroup is None:
            return seen
        if seen is None:
            return read_last_seen(msgspec.structs.replace(process, cgroup=cgroup))
        if not seen.cgroups or seen.cgroups[0].path != cgroup:
            return msgspec.structs.replace(seen, cgroups=memory_cgroups(cgroup))
        return msgspec.structs.replace(seen, cgroups=counted_now(seen.cgroups)) if end.signal == signal.SIGKILL else seen

    def oom_kills_since(self, pid: int) -> int | None:
        """How many processes the kernel has killed for memory since this one was looked at; None where that was not counted."""
        kept, now = self.seen.get(pid), counter_in(Path("/proc/vmstat"), "oom_kill")
        return None if kept is None or kept.oom_kills is None or now is None else now - kept.oom_kills

    def words(self, end: ProcessExit) -> Words | None:
        """The last words in the file behind descriptor 2, if it was a regular file."""
        held = self.stderr.get(end.pid)
        if held is not None:
            return self.own_words(held, end, "the file behind its descriptor 2")
        if end.stderr == "file" and end.stderr_path:
            opened = open_regular(end.stderr_path)
            if opened is not None:
                try:
                    return self.own_words(opened, end, end.stderr_path)
                finally:
                    os.close(opened)
        return None

    def own_words(self, descriptor: int, end: ProcessExit, source: str) -> Words | None:
        """The tail of a file without what an earlier life had written to it: it is started again with the same log."""
        facts = os.fstat(descriptor)
        until_ns, size = self.passed.get((facts.st_dev, facts.st_ino), (0, 0))
        words = tail_of(descriptor, self.boot_wall_ns, source, size if end.start_ns > until_ns else 0)
        self.pass_by(descriptor, end.at_ns)
        return words

    def pass_by(self, descriptor: int, at_ns: int) -> None:
        """What stands in this file now, if it is one, is nobody's who starts later than `at_ns`."""
        try:
            facts = os.fstat(descriptor)
        except OSError:
            return  # closed
        if not stat.S_ISREG(facts.st_mode):
            return
        self.passed.pop((facts.st_dev, facts.st_ino), None)
        self.passed[facts.st_dev, facts.st_ino] = (at_ns, facts.st_size)
        while len(self.passed) > FILES_KEPT:
            del self.passed[next(iter(self.passed))]

    def wrote_ns(self, pid: int) -> int | None:
        """When the regular file behind a living process's descriptors 1 or 2 was last written (CLOCK_BOOTTIME); None: no file."""
        times = []
        for number in (1, 2):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116 - the magic link itself is meant
                if stat.S_ISREG(found.st_mode):
                    times.append(found.st_mtime_ns - self.boot_wall_ns)
        return max(times, default=None)

    def forget(self, pid: int) -> None:
        """The process ended and its evidence was taken."""
        self.seen.pop(pid, None)
        self.binding.pop(pid, None)
        held = self.stderr.pop(pid, None)
        if held is not None:
            os.close(held)
