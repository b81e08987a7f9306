"""The kernel killed it because the cgroup it lived in had used up its memory limit.

What it means: a cgroup is a box that Linux puts around a service, a container or a session, and the box may have a
memory limit. All processes in the box together reached that limit, nothing could be freed, and the kernel killed one of
them. The machine itself may have had plenty of memory left.

How agentscope knows: the kernel reports whom it chooses at the moment of choosing (tracepoint oom:mark_victim) and
writes into its log which box was full (CONSTRAINT_MEMCG). Where that log could not be read, the box is judged by its
limit and by what it held a moment before, and the diagnosis says "likely". A SIGKILL without the kernel's choice is
never called out of memory.

What to do: find out whether it leaks or really needs that much: the report shows how its memory grew. Then raise the
limit (the report names the command for the service, the container or the file), or give the agent less to hold. If
something else in the box ate the memory, put that into a box of its own.

What looks like it but is not: `kill -9` by a person or a supervisor near the limit (killed/sigkill, with its sender);
the machine being full (oom/global); Python's MemoryError or a full JavaScript heap (oom/runtime-heap); exit code 137 of
a shell or container, which only says that something was killed by signal 9.
"""

from agentscope.causes import No
from agentscope.causes.oom import ceiling, raise_limit, size, spared
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.memory_history import MemoryHistory
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.evidence.oom_victim import OomKill
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

GROWING_BYTES_PER_MIN = 8 << 20
SMALL_SHARE = 0.5


def match(
    *,
    status: WaitStatus,
    victim: OomKill,
    actor: SignalActor | None,
    log: KernelLog | None,
    limits: MemoryLimits | None,
    history: MemoryHistory | None,
) -> Finding | No:
    """The kernel chose it, and a cgroup's limit was what ran out."""
    other = spared(status, actor)
    if other is not None:
        return No(other)
    found = ceiling(victim, log, limits)
    if found.scope != "cgroup":
        return No("the machine's memory ran out, not a cgroup's limit")
    named = f"cgroup {found.cgroup}" if found.cgroup else "cgroup"
    limit = f"{size(found.limit_bytes)} memory limit" if found.limit_bytes else "memory limit"
    held = victim.anon_rss_bytes
    by_others = held is not None and found.limit_bytes is not None and held < SMALL_SHARE * found.limit_bytes
    share = f", though it held only {size(held)} of it itself" if by_others else ""
    advice = [raise_limit(found)]
    if by_others:
        advice.append(f"see what else filled that cgroup: systemd-cgtop -m, or the processes in {named}")
    growth = history.growth_bytes_per_min if history is not None else None
    if growth is not None and growth > GROWING_BYTES_PER_MIN and not by_others:
        advice.append(f"it grew by {size(int(growth))} a minute before the end: look for what it keeps and never lets go")
    grown = history is not None and bool(history.samples)
    return Finding(
        headline=f"Killed by the kernel: its {named} ran out of its {limit}{share}",
        culprit=f"the {limit} of {named}" if found.cgroup else "the memory limit of its cgroup",
        confidence=found.confidence,
        cites=("wait-status", *found.cites, *(("memory-history",) if grown else ())),
        advice=tuple(advice),
    )
