"""The ceilings above this process: its cgroups' memory limits (v1 and v2), its rlimits, and what the host had free."""

from agentscope.evidence import AnyScene, CgroupMemory, Evidence, Missing, binding_of

ABSENT = "no memory limit was read"


def kills_of(cgroup: CgroupMemory) -> str:
    """How many OOM kills a cgroup has counted, and in which file."""
    if not cgroup.oom_kill_count:
        return ""
    name = "memory.events" if cgroup.version == 2 else "memory.oom_control"
    return f", {cgroup.oom_kill_count} OOM kill{'s' if cgroup.oom_kill_count > 1 else ''} counted in its {name} (oom_kill)"


class MemoryLimits(Evidence, frozen=True, tag="memory-limits"):
    """`binding` is the tightest cgroup limit above the process (None: none is set). Limits in bytes, None is "unlimited"."""

    binding: CgroupMemory | None
    address_space_bytes: int | None
    data_bytes: int | None
    host_available_bytes: int | None
    host_total_bytes: int | None

    def says(self) -> str:
        """One sentence for a person."""
        parts = []
        if self.binding is not None and self.binding.limit_bytes is not None:
            used = (
                "" if self.binding.usage_bytes is None else f", {self.binding.usage_bytes / 2**20:.0f} MiB used when last read"
            )
            parts.append(
                f"cgroup {self.binding.path} allows {self.binding.limit_bytes / 2**20:.0f} MiB{used}{kills_of(self.binding)}"
            )
        else:
            parts.append("no cgroup above it limits memory")
        if self.address_space_bytes is not None:
            parts.append(f"RLIMIT_AS is {self.address_space_bytes / 2**20:.0f} MiB")
        if self.data_bytes is not None:
            parts.append(f"RLIMIT_DATA is {self.data_bytes / 2**20:.0f} MiB")
        if self.host_available_bytes is not None:
            parts.append(f"the host had {self.host_available_bytes / 2**30:.1f} GiB available")
        return "; ".join(parts)


def collect(scene: AnyScene) -> MemoryLimits | Missing:
    """From what was read while the process lived: after its end /proc has nothing."""
    seen = scene.last_seen
    if seen is None:
        return Missing(kind="memory-limits", because="the process ended before its limits could be read")
    return MemoryLimits(
        source="cgroup files and /proc/PID/limits while it lived",
        binding=binding_of(seen.cgroups),
        address_space_bytes=seen.soft_limits.get("AS"),
        data_bytes=seen.soft_limits.get("DATA"),
        host_available_bytes=seen.host_available_bytes,
        host_total_bytes=seen.host_total_bytes,
    )
