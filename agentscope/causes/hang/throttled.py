"""Its cgroup gives it next to no CPU time, or holds it at a memory limit, so that it hardly moves.

What it means: a cgroup may have a quota of CPU time (CPUQuota=, docker --cpus, limits.cpu) and a soft memory limit
(memory.high). Once the quota of a period is used up, everything in the cgroup stands still until the next; above the
soft limit each allocation is slowed down. A limit that is far too small looks just like a hang.

How agentscope knows: the cgroup's own counters say that it used up its quota in nearly every period while a thread of
it wanted to run; or threads sleep in the kernel's function that enforces the memory limit, while its counter of hits
grows.

What to do: raise the limit that is named where it is set (systemctl set-property UNIT CPUQuota=, docker update
--cpus, resources.limits), or find out what else in that cgroup uses it up (systemd-cgtop).

What looks like it but is not: a quota of half a CPU or more that is used to the full (slow, but it gets on); the
kernel's out-of-memory kill (oom/cgroup); a frozen cgroup, which does not run at all (hang/frozen).
"""

from agentscope.causes import No
from agentscope.causes.hang import cites, seconds
from agentscope.evidence.scheduling import HeldThread, Scheduling
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.examination import CgroupState
from agentscope.model import Finding

SHARE = 0.9  # of the periods
TINY_CPUS = 0.05
SMALL_CPUS = 0.2
STALLED_SHARE = 0.5
OVER_HIGH = ("mem_cgroup_handle_over_high", "__mem_cgroup_handle_over_high")
OUT_OF_MEMORY = ("mem_cgroup_oom_synchronize", "mem_cgroup_oom")


def match(*, waits: ThreadWaits, scheduling: Scheduling) -> Finding | No:
    """A quota that is far too small for it, a soft memory limit, or a cgroup without memory and without an OOM killer."""
    cgroup = scheduling.cgroup
    if cgroup is None:
        return No("its cgroups could not be read")
    if cgroup.frozen:
        return No("its cgroup is frozen: it does not run at all")
    return of_memory(waits, cgroup, scheduling.held) or of_quota(waits, cgroup)


def of_quota(waits: ThreadWaits, cgroup: CgroupState) -> Finding | No:
    """CPU time: used up in nearly every period, by a process that wants to run."""
    share, cpus, agent = cgroup.throttled_share, cgroup.quota_cpus, waits.agent
    if share is None or cpus is None:
        return No("no limit of CPU time or memory holds it back")
    if share < SHARE:
        return No(f"it ran out of its quota of {cpus:.2g} CPUs in only {share:.0%} of the periods")
    if cpus > SMALL_CPUS:
        return No(f"it uses its quota of {cpus:.2g} CPUs to the full: slow, but it gets on")
    if not agent.running and agent.cpu_share < cpus / 2:
        return No("its quota is used up by others in its cgroup, and it does not want to run itself")
    return Finding(
        headline=f"It hardly moves: its cgroup {cgroup.quota_path} may use {cpus:.2g} of a CPU, and used that up in {share:.0%} of the periods",
        culprit=f"the CPU quota of cgroup {cgroup.quota_path} ({cpus:.2g} CPUs)",
        confidence="likely" if cpus <= TINY_CPUS else "possible",
        cites=cites(("scheduling", True)),
        advice=(
            "raise it where it is set: systemctl set-property UNIT CPUQuota=100%, docker update --cpus 1 NAME, resources.limits.cpu",
            f"or for now: echo max > /sys/fs/cgroup{cgroup.quota_path}/cpu.max",
            f"or, with cgroups of version 1: echo -1 > /sys/fs/cgroup/cpu{cgroup.quota_path}/cpu.cfs_quota_us",
        ),
    )


def of_memory(waits: ThreadWaits, cgroup: CgroupState, held: tuple[HeldThread, ...]) -> Finding | None:
    """A memory limit that holds its threads in the kernel."""
    own = [each for each in held if (process := waits.process(each.pid)) is not None and process.own]
    dry = next((each for each in own if is_in(each, OUT_OF_MEMORY) and (each.for_s or 0.0) >= waits.patience_s), None)
    if cgroup.under_oom_path is not None and dry is not None:
        return Finding(
            headline=f"Hung for {seconds(dry.for_s)}: its cgroup {cgroup.under_oom_path} is out of memory, and its OOM killer is switched off",
            culprit=f"the memory limit of cgroup {cgroup.under_oom_path}",
            confidence="certain",
            cites=cites(("scheduling", True)),
            advice=(
                f"give it more: echo BYTES > /sys/fs/cgroup/memory{cgroup.under_oom_path}/memory.limit_in_bytes",
                f"or let the kernel kill: echo 0 > /sys/fs/cgroup/memory{cgroup.under_oom_path}/memory.oom_control",
            ),
        )
    slowed = next((each for each in own if is_in(each, OVER_HIGH)), None)
    stalled = (cgroup.memory_stalled_share or 0.0) >= STALLED_SHARE
    if not cgroup.memory_high_hits or cgroup.memory_high_path is None or (slowed is None and not stalled):
        return None
    share = (
        ""
        if cgroup.memory_stalled_share is None
        else f", all of it stood still for {cgroup.memory_stalled_share:.0%} of the time"
    )
    return Finding(
        headline=f"It hardly moves: its cgroup {cgroup.memory_high_path} is above its soft memory limit (memory.high)"
        f" and was held back {cgroup.memory_high_hits} times in {waits.interval_s:.1f} s{share}",
        culprit=f"memory.high of cgroup {cgroup.memory_high_path}",
        confidence="certain" if slowed is not None and stalled else "likely",
        cites=cites(("scheduling", True)),
        advice=(
            f"raise it: echo max > /sys/fs/cgroup{cgroup.memory_high_path}/memory.high, or MemoryHigh= of its unit",
            "and find out what it keeps: its memory may grow without end",
        ),
    )


def is_in(thread: HeldThread, functions: tuple[str, ...]) -> bool:
    """Whether a thread sleeps in one of these functions of the kernel."""
    return any(function in thread.kernel_stack for function in functions)
