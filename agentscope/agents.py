"""Step 2: which processes are watched, who they are (identity that survives pid reuse), and what each is to its agent.

An identity is boot id + pid + start time. The tree is kept by birth: a child that is re-parented stays in its agent.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import psutil

from agentscope.commandlines import is_wrapper, program_name, split_title
from agentscope.discovery import is_name, known_by, launched_by
from agentscope.errors import NoSuchProcess, UsageError
from agentscope.model import Agent, Ancestor, Process, ProcessExec, Role, StreamKind, Value
from agentscope.record import timestamp

TICK_NS = 10_000_000  # USER_HZ is 100 on every architecture Linux serves: /proc/PID/stat counts in it
ARGV_LIMIT_BYTES = 512
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h, PROC_PID_INIT_INO


class Target(Value, frozen=True):
    """What the user asked to watch. `name` labels the agent; `value` is a pid, a regular expression, a unit or a cgroup path."""

    kind: Literal["pid", "name", "command", "unit", "cgroup", "user", "signature"]
    value: str
    name: str | None = None

    def __str__(self) -> str:
        """As the user would write it."""
        return "known agents by signature" if self.kind == "signature" else f"--{self.kind} {self.value}"

    def pattern(self) -> re.Pattern[str]:
        """The compiled regular expression.

        Raises:
            UsageError: it is not one.
        """
        try:
            return re.compile(self.value)
        except re.error as error:
            raise UsageError(
                f"--{self.kind} {self.value!r} is not a regular expression", str(error), "a plain name, such as --name aider"
            ) from None


def role_of(argv: tuple[str, ...], parent: Role | None, parent_on_agent_line: bool) -> tuple[Role, bool]:
    """Role of a process, and whether it is on the agent's own line: the root, or below nothing but wrappers of it."""
    on_line = parent is None or (parent_on_agent_line and parent == "wrapper")
    if is_wrapper(argv):
        return "wrapper", on_line
    return ("agent" if on_line else "tool"), on_line


def same_identity(start_a_ns: int, start_b_ns: int) -> bool:
    """Whether two start times are of one process: /proc rounds to 10 ms, the kernel does not."""
    return abs(start_a_ns - start_b_ns) < 2 * TICK_NS


def start_ns_of(pid: int, proc: str = "/proc") -> int | None:
    """Start time in nanoseconds since boot, rounded to 10 ms; None if there is no such process."""
    try:
        line = Path(f"{proc}/{pid}/stat").read_bytes()
    except OSError:
        return None
    # comm may hold spaces and parentheses: the fields start after the last one (proc_pid_stat(5))
    fields = line[line.rfind(b")") + 2 :].split()
    return int(fields[19]) * TICK_NS if len(fields) > 19 else None


def memory_cgroup_of(pid: int, proc: str = "/proc") -> str | None:
    """Path of the memory cgroup: the v1 controller's where there is one, else the v2 one."""
    try:
        lines = Path(f"{proc}/{pid}/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    unified = None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
        if not controllers:
            unified = path
    return unified


def unit_of(cgroup: str | None) -> str | None:
    """The innermost systemd service or scope in a cgroup path."""
    for part in reversed((cgroup or "").split("/")):
        if part.endswith((".service", ".scope")) and not part.startswith(("docker-", "libpod-", "cri-containerd-", "crio-")):
            return part
    return None


def container_of(cgroup: str | None) -> str | None:
    """The container id (first 12 digits) in a cgroup path of docker, podman, containerd or cri-o."""
    found = re.search(
        r"(?:docker|libpod|cri-containerd|crio|containerd|kubepods[^/]*)[-/:](?:[^/]*/)*?([0-9a-f]{64})", cgroup or ""
    )
    return found.group(1)[:12] if found else None


def read_process(pid: int) -> ProcessExec:
    """One live process as an exec event: what it is now, at the time of looking.

    Raises:
        NoSuchProcess: it is gone, or never was.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            argv = tuple(process.cmdline())
            comm = process.name()
            ppid = process.ppid()
            uid = process.uids().real
        start_ns = start_ns_of(pid)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        raise NoSuchProcess(
            f"there is no process {pid}", "it has ended, or the number is wrong", "ps aux | grep NAME"
        ) from None
    if start_ns is None:
        raise NoSuchProcess(f"there is no process {pid}", "it ended just now", "ps aux | grep NAME")
    try:
        exe: str | None = process.exe() or None
    except (psutil.Error, OSError):
        exe = None
    return ProcessExec(
        at_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        pid=pid,
        start_ns=start_ns,
        ppid=ppid,
        comm=comm[:15],
        argv=bounded(argv),
        exe=exe,
        uid=uid,
        cgroup=memory_cgroup_of(pid),
        stderr=stderr_of(pid),
        ancestors=ancestors_of(ppid),
    )


def stderr_of(pid: int) -> StreamKind | None:
    """What is behind a live process's descriptor 2; None where we may not look."""
    try:
        mode = os.stat(f"/proc/{pid}/fd/2")  # noqa: PTH116 - the magic link itself is meant
    except FileNotFoundError:
        return "closed"
    except OSError:
        return None
    if stat.S_ISREG(mode.st_mode):
        return "file"
    if stat.S_ISFIFO(mode.st_mode):
        return "pipe"
    if stat.S_ISSOCK(mode.st_mode):
        return "socket"
    if stat.S_ISCHR(mode.st_mode):
        # Documentation/admin-guide/devices.txt: 1:3 is /dev/null, 136 to 143 are Unix98 ptys
        major, minor = os.major(mode.st_rdev), os.minor(mode.st_rdev)
        return "null" if (major, minor) == (1, 3) else "pty" if 136 <= major <= 143 else "other"
    return "other"


def bounded(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The first 512 bytes of a command line, as the probe would have taken them."""
    kept, room = [], ARGV_LIMIT_BYTES
    for word in argv:
        kept.append(word[:room])
        room -= len(word) + 1
        if room <= 0:
            break
    return tuple(kept)


def ancestors_of(pid: int) -> tuple[Ancestor, ...]:
    """Parent chain from `pid` up, at most eight."""
    chain: list[Ancestor] = []
    while pid > 0 and len(chain) < 8:
        try:
            line = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            break
        close = line.rfind(b")")
        chain.append(Ancestor(pid=pid, comm=line[line.find(b"(") + 1 : close].decode("utf-8", "replace")))
        pid = int(line[close + 2 :].split()[1])
    return tuple(chain)


def sees_kernel_numbers() -> bool:
    """Whether the process numbers of the kernel (probes, kernel log) are those seen here: we are in the first pid namespace."""
    return Path("/proc/self/ns/pid").stat().st_ino == FIRST_PID_NAMESPACE


def is_kernel_thread(pid: int) -> bool:
    """Whether a live pid is a thread of the kernel: no user memory, no command line (PF_KTHREAD, sched.h)."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return bool(int(line[line.rfind(b")") + 2 :].split()[6]) & 0x00200000)


def process_of(seen: ProcessExec, role: Role = "agent") -> Process:
    """The process that an exec event describes."""
    return Process(
        pid=seen.pid, start_ns=seen.start_ns, ppid=seen.ppid, comm=seen.comm, argv=seen.argv, exe=seen.exe, uid=seen.uid, cgroup=seen.cgroup, role=role
    )  # fmt: skip


def agent_of(seen: ProcessExec, boot_wall_ns: int, name: str | None = None) -> Agent:
    """The agent whose root process an exec event describes."""
    return Agent(
        name=name or inner_name(seen.argv, seen.comm),
        pid=seen.pid,
        start_ns=seen.start_ns,
        start_time=timestamp(boot_wall_ns + seen.start_ns),
        command=" ".join(seen.argv) or f"[{seen.comm}]",
        exe=seen.exe,
        uid=seen.uid,
        cgroup=seen.cgroup,
        unit=unit_of(seen.cgroup),
        container=container_of(seen.cgroup),
    )


def inner_name(argv: tuple[str, ...], comm: str) -> str:
    """The name of what a wrapper starts, where its command line says so: `timeout 60 python agent.py` is agent.py."""
    if is_wrapper(argv):
        if (launched := launched_by(split_title(argv))) is not None:
            return launched
        for position in range(1, len(argv)):
            word = argv[position].rsplit("/", 1)[-1]
            if re.match(r"^(?:python[0-9.]*|node|ruby|perl|bun|deno)$", word) or is_name(word):
                return program_name(argv[position:], comm)
    return program_name(argv, comm) or comm


def matches(target: Target, seen: ProcessExec) -> str | None:
    """Why this process is what the target asks for, or None if it is not."""
    if target.kind == "pid":
        return f"--pid {target.value}" if str(seen.pid) == target.value else None
    if target.kind == "name":
        names = {seen.comm, program_name(seen.argv, seen.comm), (seen.exe or "").rsplit("/", 1)[-1]}
        pattern = target.pattern()
        found = next((name for name in sorted(names) if name and pattern.search(name)), None)
        return f"its name {found!r} matches --name {target.value}" if found else None
    if target.kind == "command":
        return f"its command line matches {target.value!r}" if target.pattern().search(" ".join(seen.argv)) else None
    if target.kind == "unit":
        unit = target.value if "." in target.value else f"{target.value}.service"
        return f"it belongs to unit {unit}" if unit in (seen.cgroup or "").split("/") else None
    if target.kind == "cgroup":
        wanted = cgroup_path(target.value)
        inside = seen.cgroup is not None and (seen.cgroup == wanted or seen.cgroup.startswith(wanted.rstrip("/") + "/"))
        return f"it is in cgroup {wanted}" if inside else None
    if target.kind == "user":
        return f"it belongs to user {target.value}" if str(seen.uid) == target.value else None
    return known_by(seen)


def cgroup_path(given: str) -> str:
    """A cgroup as the kernel names it, from that or from a path below /sys/fs/cgroup."""
    path = re.sub(
        r"^/sys/fs/cgroup(?:/(?:memory|unified|systemd|cpu|cpuacct|cpu,cpuacct|pids|blkio|devices|freezer|cpuset)(?=/|$))?",
        "",
        given,
    )
    return "/" + path.strip("/")


def live_processes() -> Iterator[ProcessExec]:
    """Every process of the host now, kernel threads left out; those that end while we look are passed over."""
    for pid in psutil.pids():
        if is_kernel_thread(pid):
            continue
        try:
            yield read_process(pid)
        except NoSuchProcess:
            continue


def children_by_parent() -> dict[int, list[int]]:
    """The children of every process of the host now, in one pass over /proc."""
    children: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process.pid)
    return children


def descendants_of(pid: int, children: Mapping[int, list[int]]) -> list[ProcessExec]:
    """Live descendants, parents before children."""
    found, queue = [], list(children.get(pid, ()))
    while queue:
        child = queue.pop(0)
        try:
            found.append(read_process(child))
        except NoSuchProcess:
            continue
        queue.extend(children.get(child, ()))
    return found


def check_pid(text: str) -> int:
    """A pid that can be watched.

    Raises:
        NoSuchProcess: nothing has this number. UsageError: it is a kernel thread, or no number.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) < 1 << 22):
        raise UsageError(f"{text!r} is not a process number", "a pid is a number from 1 to 4194303", "pgrep -a NAME")
    pid = int(text)
    if start_ns_of(pid) is None:
        raise NoSuchProcess(f"there is no process {pid}", "it has ended, or the number is wrong", "pgrep -a NAME")
    if is_kernel_thread(pid):
        raise UsageError(
            f"process {pid} is a thread of the kernel", "it runs no program that could be an agent", "pgrep -a NAME"
        )
    return pid


def found_now(
    targets: Iterable[Target], passed_over: Collection[int], may_watch: Callable[[int], bool] = lambda _: True
) -> list[tuple[ProcessExec, str]]:
    """The agents that are there already: who matches a target, but for `passed_over`, and why. A pid was asked for, so it counts.

    Of the others `may_watch` tells by uid whose processes are looked for.

    Raises:
        NoSuchProcess: a pid that was asked for is gone.
    """
    wanted = list(targets)
    found = [(read_process(int(target.value)), str(target)) for target in wanted if target.kind == "pid"]
    patterns = [target for target in wanted if target.kind != "pid"]
    if patterns:
        for seen in live_processes():
            because = next((why for target in patterns if (why := matches(target, seen))), None)
            if because and seen.pid not in passed_over and may_watch(seen.uid):
                found.append((seen, because))
    return roots(found)


def configured_name(targets: Iterable[Target], seen: ProcessExec) -> str | None:
    """The name that the config gives this agent; None where it gives none."""
    return next((target.name for target in targets if target.name and matches(target, seen)), None)


def ourselves() -> set[int]:
    """This process and those it was started by: never agents."""
    return {os.getpid(), *(ancestor.pid for ancestor in ancestors_of(os.getppid()))}


def roots(candidates: Iterable[tuple[ProcessExec, str]]) -> list[tuple[ProcessExec, str]]:
    """Of the processes that match, those with no matching ancestor: one agent for one tree."""
    chosen = {seen.pid: (seen, because) for seen, because in candidates}
    return [
        (seen, because)
        for seen, because in chosen.values()
        if not any(a.pid in chosen and a.pid != seen.pid for a in seen.ancestors)
    ]
