"""It used up a limit that the kernel enforces by a signal: CPU time (RLIMIT_CPU) or file size (RLIMIT_FSIZE).

What it means: a process can be started with limits (ulimit, LimitCPU=, LimitFSIZE=, a batch system). When its CPU time
is used up the kernel sends SIGXCPU, and SIGKILL at the hard limit; when it writes a file larger than allowed, SIGXFSZ.

How agentscope knows: SIGXCPU or SIGXFSZ ended it, sent by the kernel; or SIGKILL came from the kernel itself after
SIGXCPU, or with the allowed CPU time used up, while the OOM killer did not choose it.

What to do: raise or drop the limit where it is set (ulimit -t, ulimit -f, LimitCPU= or LimitFSIZE= of the service,
/etc/security/limits.conf, the batch system's job file), or find out why it burns so much: an agent that waits for a
model should use next to no CPU time.

What looks like it but is not: a CPU quota of a cgroup, which slows down and never kills; `kill -XCPU` by a person
(killed/signal); SIGKILL from the OOM killer (oom/cgroup, oom/global).
"""

from agentscope.causes import No
from agentscope.causes.killed import cpu_limit, limit_signal
from agentscope.evidence.actor import SIGKILL, SIGXCPU, SignalActor
from agentscope.evidence.cpu_time import CpuTime
from agentscope.evidence.oom_victim import OomKill
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding


def match(*, status: WaitStatus, actor: SignalActor | None, victim: OomKill | None, cpu: CpuTime | None) -> Finding | No:
    """The kernel's signal for a spent limit ended it."""
    if status.signal == SIGKILL:
        if victim is not None or not cpu_limit(actor, cpu):
            return No("the kernel did not send SIGKILL for a spent CPU time limit")
        return of_cpu(actor, cpu, hard=True)
    if not limit_signal(status, actor):
        return No(f"it {status.says()}" if actor is None else actor.says())
    if status.signal == SIGXCPU:
        return of_cpu(actor, cpu, hard=False)
    return Finding(
        headline="Ended by the kernel: it wrote a file larger than its file size limit allows (SIGXFSZ)",
        culprit="the file size limit (RLIMIT_FSIZE)",
        confidence="likely" if actor is None or actor.relation == "unattributed" else "certain",
        cites=("wait-status", *(("actor",) if actor is not None else ())),
        advice=(
            "raise it where it is set: ulimit -f, LimitFSIZE= of its service; and see which file grew: find DIR -size +1G",
        ),
    )


def of_cpu(actor: SignalActor | None, cpu: CpuTime | None, *, hard: bool) -> Finding:
    """The finding for spent CPU time."""
    limit = f" of {cpu.limit_s} s" if cpu is not None and cpu.limit_s is not None else ""
    used = f" after {cpu.used_ns / 1e9:.1f} s of work" if cpu is not None else ""
    how = "SIGKILL, the hard limit" if hard else "SIGXCPU"
    seen = actor is not None and actor.relation == "kernel"
    return Finding(
        headline=f"Ended by the kernel: it used up its CPU time limit{limit}{used} ({how})",
        culprit=f"the CPU time limit{limit} (RLIMIT_CPU)",
        confidence="certain" if seen else "possible" if hard else "likely",
        cites=("wait-status", *(("actor",) if actor is not None else ()), *(("cpu-time",) if cpu is not None else ())),
        advice=(
            "raise it where it is set: ulimit -t, LimitCPU= of its service; an agent that only waits should use little of it",
        ),
    )
