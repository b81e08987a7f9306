"""How much CPU time it had used, against the limit that makes the kernel end it (RLIMIT_CPU)."""

from agentscope.evidence import Evidence, Missing, Scene

ABSENT = "no CPU time was measured"


class CpuTime(Evidence, frozen=True, tag="cpu-time"):
    """CPU time in user and kernel mode at the end, and the soft limit in whole seconds (None: no limit was read or set)."""

    used_ns: int
    limit_s: int | None

    def says(self) -> str:
        """One sentence for a person."""
        of = "" if self.limit_s is None else f" of the {self.limit_s} s that RLIMIT_CPU allows"
        return f"it had used {self.used_ns / 1e9:.1f} s of CPU time{of}"

    @property
    def spent(self) -> bool:
        """Whether the limit was reached; the kernel looks at it once a tick, so it may be a hair early."""
        return self.limit_s is not None and self.used_ns >= self.limit_s * 1_000_000_000 - 20_000_000


def collect(scene: Scene) -> CpuTime | Missing:
    """From the exit event and the limits that were read while it lived."""
    end = scene.exit
    if end.user_ns is None or end.system_ns is None:
        return Missing(kind="cpu-time", because="the CPU time at the end was not reported")
    limit = scene.last_seen.soft_limits.get("CPU") if scene.last_seen else None
    return CpuTime(source="times at sched_process_exit, /proc/PID/limits", used_ns=end.user_ns + end.system_ns, limit_s=limit)
