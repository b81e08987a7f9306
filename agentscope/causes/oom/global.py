"""The kernel killed it because the whole machine had run out of memory.

What it means: all programs together used up the memory of the machine (or of the part of it that this process may use),
nothing could be freed any more, and the kernel killed the process that it judged the largest. That process need not be
the one to blame: it may only have been the biggest when something else asked for the last page.

How agentscope knows: the kernel reports whom it chooses at the moment of choosing (tracepoint oom:mark_victim) and
writes into its log that no cgroup's limit was involved (CONSTRAINT_NONE). Where that log could not be read, it follows
from there being no limit above the process, or from the limits being far from reached while the machine was full; then
the diagnosis says "likely".

What to do: see what used the memory (the kernel's table is in the report where the log could be read). Give the memory
hogs a limit of their own (MemoryMax= of their service), add memory or swap, and protect what must survive with
OOMScoreAdjust=.

What looks like it but is not: a cgroup's limit with the machine half empty (oom/cgroup); earlyoom, systemd-oomd or
kubelet, which kill before the kernel has to (oom/userspace-killer); any other SIGKILL (killed/sigkill).
"""
# ruff: noqa: N999 - the cause is named oom/global, and its file by it; it is only ever imported by name

from agentscope.causes import No
from agentscope.causes.oom import ceiling, size, spared
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.evidence.oom_victim import OomKill
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

NAMED = 3


def match(
    *, status: WaitStatus, victim: OomKill, actor: SignalActor | None, log: KernelLog | None, limits: MemoryLimits | None
) -> Finding | No:
    """The kernel chose it, and no cgroup's limit was what ran out."""
    other = spared(status, actor)
    if other is not None:
        return No(other)
    found = ceiling(victim, log, limits)
    if found.scope != "global":
        return No(f"the limit of cgroup {found.cgroup} ran out, not the machine's memory")
    report = log.oom if log is not None else None
    where = "the memory that it may use (its CPU set or NUMA nodes)" if partial(log) else "the whole machine"
    left = ""
    if limits is not None and limits.host_available_bytes is not None and limits.host_total_bytes is not None:
        left = f" ({size(limits.host_available_bytes)} of {size(limits.host_total_bytes)} available when last read)"
    held = f"; it held {size(victim.anon_rss_bytes)}" if victim.anon_rss_bytes is not None else ""
    tasks = sorted(report.tasks if report is not None else (), key=lambda task: task.rss_kb or 0, reverse=True)
    largest = ", ".join(f"{task.comm} (pid {task.pid}) {size((task.rss_kb or 0) * 1024)}" for task in tasks[:NAMED])
    return Finding(
        headline=f"Killed by the kernel: {where} ran out of memory{left}{held}",
        culprit=f"the machine's memory; largest: {largest}" if largest else "the machine's memory",
        confidence=found.confidence,
        cites=("wait-status", *found.cites),
        advice=(
            "see who uses the memory now: ps -eo pid,user,rss,comm --sort=-rss | head",
            "give the largest a limit of its own: systemctl set-property UNIT MemoryMax=…; protect this one: OOMScoreAdjust=-500",
        ),
    )


def partial(log: KernelLog | None) -> bool:
    """Whether only a part of the machine's memory was allowed to it."""
    constraint = log.oom.constraint if log is not None and log.oom is not None else None
    return constraint in {"CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY"}
