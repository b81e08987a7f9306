"""Class `oom`: it wanted more memory than it was given. What the causes of this class judge by, once for all of them."""

import re
import shlex
from dataclasses import dataclass

from agentscope.causes.killed import asked_to_end
from agentscope.evidence.actor import SIGKILL, SIGTERM, SignalActor
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.evidence.oom_victim import OomKill
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence

NEAR_LIMIT = 0.8  # the last reading is up to a second old, and a process can fill much in a second
HOST_SHORT = 0.05  # below this share of memory available, the machine itself may have run out

CONTAINER = re.compile(r"(?:docker|libpod|cri-containerd|crio)[-/]([0-9a-f]{12})[0-9a-f]{0,52}(?:\.scope)?(?:/|$)")


@dataclass(frozen=True)
class Ceiling:
    """What the memory ran into: `cgroup` None is the machine. `cites` are the kinds of evidence that say so."""

    scope: str
    confidence: Confidence
    cites: tuple[str, ...]
    cgroup: str | None = None
    version: int = 2
    limit_bytes: int | None = None


def spared(status: WaitStatus, actor: SignalActor | None) -> str | None:
    """Why the OOM killer did not end this process although it names it, or None: it marks dying processes without killing them."""
    if status.signal != SIGKILL:
        return "it was ending by itself when the OOM killer marked it"
    if actor is not None and actor.relation not in {"kernel", "unattributed"}:
        return f"{actor.signal_name} {actor.actor.says} had come before the OOM killer marked it"
    return None


def memory_killer(status: WaitStatus, actor: SignalActor | None, words: LastWords | None) -> str | None:
    """The user-space program that ended it to free memory, if one did.

    A service manager may have been told to by one (kubelet, systemd-oomd); then the words of its log say so.
    """
    if actor is None or not actor.outside or actor.signal not in {SIGKILL, SIGTERM}:
        return None
    if status.signal != actor.signal and not asked_to_end(status, actor, words):
        return None
    if actor.oom_daemon is not None:
        return actor.oom_daemon
    told = words.reading("oom/userspace-killer") if words is not None else None
    return actor.manager if told is not None else None


def ceiling(victim: OomKill, log: KernelLog | None, limits: MemoryLimits | None) -> Ceiling:
    """Whether a cgroup's limit or the machine's memory ran out: what the kernel says, else what the limits let through."""
    binding = limits.binding if limits is not None else None
    version = binding.version if binding is not None else 2
    report = log.oom if log is not None else None
    if report is not None and report.cause != "oom/cgroup":
        return Ceiling("global", "certain", ("oom-victim", "kernel-log"))
    if report is not None:
        path = (
            report.oom_memcg or report.limit_memcg or (binding.path if binding else None) or report.task_memcg or victim.cgroup
        )
        limit = None if report.limit_kb is None else report.limit_kb * 1024
        if limit is None and binding is not None and binding.path == path:
            limit = binding.limit_bytes
        return Ceiling("cgroup", "certain", ("oom-victim", "kernel-log"), path, version, limit)
    if limits is None:
        return unread(victim)
    if binding is None or binding.limit_bytes is None:
        return Ceiling("global", "likely", ("oom-victim", "memory-limits"))
    held = sum(part or 0 for part in (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes))
    near = max(binding.usage_bytes or 0, held) >= NEAR_LIMIT * binding.limit_bytes
    cites = ("oom-victim", "memory-limits")
    short = is_short(limits)
    if short and not near:
        return Ceiling("global", "likely", cites)
    sure: Confidence = "possible" if short else "likely"
    return Ceiling("cgroup", sure, cites, binding.path, version, binding.limit_bytes)


def unread(victim: OomKill) -> Ceiling:
    """Nothing was read of the limits: a process in the root cgroup can only run into the machine's end."""
    if victim.cgroup in {None, "", "/"}:
        return Ceiling("global", "possible", ("oom-victim",))
    return Ceiling("cgroup", "possible", ("oom-victim",), victim.cgroup)


def is_short(limits: MemoryLimits) -> bool:
    """Whether the machine had next to nothing left when last looked at."""
    available, total = limits.host_available_bytes, limits.host_total_bytes
    return available is not None and total is not None and available < HOST_SHORT * total


def size(count: int | None) -> str:
    """Bytes as a person says them: "128 MiB", "1.9 GiB"."""
    if count is None:
        return "unknown"
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            number = f"{count / step:.1f}".removesuffix(".0") if unit == "GiB" else f"{count / step:.0f}"
            return f"{number} {unit}"
    return f"{count} bytes"


def raise_limit(found: Ceiling) -> str:
    """The command that raises this limit: through whoever owns the cgroup, who would undo a write to its file."""
    path = found.cgroup or "/"
    name = path.rstrip("/").rsplit("/", 1)[-1]
    twice = 2 * found.limit_bytes if found.limit_bytes else None
    more = f"{twice >> 20}M" if twice else "4G"
    container = CONTAINER.search(path)
    if "kubepods" in path:
        return "raise resources.limits.memory of this container in its pod's manifest"
    if container is not None and path.find("libpod") >= 0:
        return f"allow it more, for example: podman update --memory {more} {container[1]}"
    if container is not None:
        return f"allow it more, for example: docker update --memory {more} --memory-swap {more} {container[1]}"
    if name.endswith((".service", ".scope", ".slice")):
        user = " --user" if "/user@" in path and not name.startswith("user@") else ""
        return f"allow it more, for example: systemctl{user} set-property {shlex.quote(name)} MemoryMax={more}"
    folder = "/sys/fs/cgroup/memory" if found.version == 1 else "/sys/fs/cgroup"
    limit_file = "memory.limit_in_bytes" if found.version == 1 else "memory.max"
    return f"allow it more, for example: echo {more} > {shlex.quote(f'{folder}{path}/{limit_file}')}"
