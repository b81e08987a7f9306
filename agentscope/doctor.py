"""What this machine can give and what it cannot: each check says what is lost without it and what to type."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from agentscope.errors import AgentscopeError
from agentscope.views.report import Check

CAPABILITIES = {21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF", 19: "CAP_SYS_PTRACE", 34: "CAP_SYSLOG"}


def effective_capabilities() -> int:
    """The effective set of this process, as in /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def checks(state: Path) -> Iterator[Check]:
    """Every check, the most important first."""
    yield privileges()
    yield engine_core()
    yield present(
        "/sys/kernel/btf/vmlinux",
        "BTF",
        "the kernel describes its own types",
        "probes cannot be fitted to this kernel",
        "a kernel with CONFIG_DEBUG_INFO_BTF=y",
    )
    yield tracefs()
    yield kernel_log()
    yield memory_controller()
    yield state_folder(state)
    yield Check(name="Python", ok=True, says=f"Python {sys.version.split()[0]}", try_this="")


def present(path: str, name: str, says: str, lost: str, try_this: str) -> Check:
    """Whether a file of the kernel is there."""
    found = Path(path).exists()
    return Check(
        name=name,
        ok=found,
        says=f"{path}: {says}" if found else f"{path} is not there: {lost}",
        try_this="" if found else try_this,
    )


def privileges() -> Check:
    """Root, or the capabilities that stand for it."""
    have = effective_capabilities()
    missing = [name for bit, name in CAPABILITIES.items() if not have >> bit & 1]
    if not missing:
        return Check(name="privileges", ok=True, says="root, with every capability that is needed", try_this="")
    says = f"{', '.join(missing)} missing: only `run`, `diagnose --log`, `replay` and `explain` work"
    return Check(name="privileges", ok=False, says=says, try_this="sudo agentscope doctor")


def engine_core() -> Check:
    """Load and attach the probes for real."""
    if os.geteuid() != 0:
        return Check(
            name="engine core", ok=None, says="not tried: loading probes needs root", try_this="sudo agentscope doctor"
        )
    try:
        from agentscope.sources.ebpf import CoreEngine

        engine = CoreEngine()
        degraded = engine.degraded
        engine.close()
    except AgentscopeError as error:
        says = f"{error.what}: {error.why}" if error.why else error.what
        return Check(name="engine core", ok=False, says=says, try_this=error.try_this)
    says = "probes load and attach" + (f"; {'; '.join(degraded)}" if degraded else ", nothing is degraded")
    return Check(name="engine core", ok=True, says=says, try_this="")


def tracefs() -> Check:
    """Only the write probe needs it."""
    # only root may look inside
    inside = os.access("/sys/kernel/tracing/events/syscalls/sys_enter_write", os.F_OK)
    found = inside if os.geteuid() == 0 else Path("/sys/kernel/tracing").is_mount()
    says = "mounted" if found else "not mounted: last words on a terminal or a pipe cannot be read; those in files can"
    return Check(name="tracefs", ok=found, says=says, try_this="" if found else "mount -t tracefs tracefs /sys/kernel/tracing")


def kernel_log() -> Check:
    """The kernel log carries the scope and limit of an OOM kill."""
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        says = f"/dev/kmsg: {os.strerror(error.errno or 0)}: the limit behind an OOM kill is then taken from the cgroup's files"
        return Check(name="kernel log", ok=False, says=says, try_this="sudo agentscope doctor")
    return Check(name="kernel log", ok=True, says="/dev/kmsg is readable", try_this="")


def memory_controller() -> Check:
    """Which version of cgroups accounts memory here."""
    if Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        return Check(name="memory cgroups", ok=True, says="version 1, at /sys/fs/cgroup/memory", try_this="")
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if controllers.exists() and "memory" in controllers.read_text().split():
        return Check(name="memory cgroups", ok=True, says="version 2, at /sys/fs/cgroup", try_this="")
    return Check(
        name="memory cgroups",
        ok=False,
        says="no memory controller: limits of services are not seen",
        try_this="boot with cgroup_enable=memory",
    )


def state_folder(state: Path) -> Check:
    """Whether incidents can be recorded."""
    nearest = next((folder for folder in (state, *state.parents) if os.access(folder, os.F_OK)), Path("/"))
    if not os.access(nearest, os.W_OK):
        return Check(name="state folder", ok=False, says=f"{state} cannot be written", try_this="--state-dir DIR, or sudo")
    free = os.statvfs(nearest)
    room = free.f_bavail * free.f_frsize
    ok = room > 64 << 20
    return Check(
        name="state folder", ok=ok, says=f"{state}, {room / 2**30:.1f} GiB free", try_this="" if ok else f"df -h {nearest}"
    )
