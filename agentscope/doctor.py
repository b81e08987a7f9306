"""What this machine can give and what it cannot: each check says what is lost without it and what to type."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentscope.errors import AgentscopeError
from agentscope.sources.pidfds import open_pidfd, status_at_end
from agentscope.sources.unprobed import NOT_SEEN
from agentscope.views.report import Check

CAPABILITIES = {21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF", 19: "CAP_SYS_PTRACE", 34: "CAP_SYSLOG"}
PACKAGE = "agentscope-linux"
OF_DEVELOPERS = "dev"
GIVES = {
    "fleet": ("sink nats", "watch --fleet"),
    "metrics": ("sink prometheus",),
    "otlp": ("sink otlp",),
}  # an extra that is not here is called by its name


def effective_capabilities() -> int:
    """The effective set of this process, as in /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def checks(state: Path) -> Iterator[Check]:
    """Every check, the most important first."""
    yield privileges()
    core = engine_core()
    bcc = engine_bcc(core)
    netlink = engine("netlink")
    yield from (core, bcc, netlink, engine("none"), best_of(core, bcc, netlink))
    yield present(
        "/sys/kernel/btf/vmlinux",
        "BTF",
        "the kernel describes its own types",
        "probes cannot be fitted to this kernel",
        "a kernel with CONFIG_DEBUG_INFO_BTF=y",
    )
    yield tracefs()
    yield kernel_log()
    yield sockets()
    yield ends()
    yield memory_controller()
    yield state_folder(state)
    yield Check(name="Python", ok=True, says=f"Python {sys.version.split()[0]}", try_this="")
    yield from extras()


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
    says = f"{', '.join(missing)} missing: of others than our own processes nothing can be watched"
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


def engine_bcc(core: Check) -> Check:
    """Compile the probes for real, where those that are compiled already do not load: it takes seconds."""
    if core.ok:
        return Check(name="engine bcc", ok=None, says="not tried: engine core works, and sees more", try_this="")
    if core.ok is None:
        return Check(name="engine bcc", ok=None, says=core.says, try_this=core.try_this)
    return engine("bcc")


def engine(name: str) -> Check:
    """Open another engine for real; what it cannot see is in its sentence."""
    from agentscope.session import ENGINES

    try:
        opened = ENGINES[name]()
        degraded = opened.degraded
        opened.close()
    except AgentscopeError as error:
        says = f"{error.what}: {error.why}" if error.why else error.what
        return Check(name=f"engine {name}", ok=False, says=says, try_this=error.try_this)
    less = [lost for lost in degraded if name != "none" or lost not in NOT_SEEN]
    like = "works like netlink, but " if name == "none" else "works, but "
    return Check(name=f"engine {name}", ok=True, says=like + "; ".join(less), try_this="")


def best_of(core: Check, bcc: Check, netlink: Check) -> Check:
    """Which engine --engine auto takes here, and what is lost by that."""
    chosen = "core" if core.ok else "bcc" if bcc.ok else "netlink" if netlink.ok else "none"
    if chosen == "core":
        return Check(name="engine auto", ok=True, says="takes core, the best there is", try_this="")
    if chosen == "bcc":
        says = "takes bcc: all ends, signals and their senders are seen, with less evidence of faults; it starts some seconds later"
        return Check(name="engine auto", ok=None, says=says, try_this=core.try_this)
    says = (
        f"takes {chosen}: senders of signals, faults and last words on a terminal are not seen, so some ends stay undetermined"
    )
    return Check(name="engine auto", ok=None, says=says, try_this=core.try_this)


def sockets() -> Check:
    """Whom an agent waits for on the network is told by sock_diag."""
    from agentscope.examination.sockets import read_socket_table
    from agentscope.model import MissingEvidence

    found = read_socket_table(os.getpid())
    if isinstance(found, MissingEvidence):
        says = f"sock_diag: {found.because}: whom an agent waits for on the network is not known"
        return Check(name="sockets", ok=False, says=says, try_this="a kernel with CONFIG_INET_DIAG and CONFIG_UNIX_DIAG")
    return Check(name="sockets", ok=True, says="sock_diag tells whom an agent waits for on the network", try_this="")


def ends() -> Check:
    """Whether a pidfd tells how a process ended once its parent has read that: a child that exits with 7 is tried."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    descriptor = open_pidfd(pid)
    os.waitpid(pid, 0)
    status = status_at_end(descriptor, pid)
    if descriptor is None:
        return Check(
            name="pidfd",
            ok=False,
            says="there are none: ends are not heard of without an engine",
            try_this="Linux 5.3 or newer",
        )
    os.close(descriptor)
    if status != 7 << 8:
        says = "tells that a process has ended, but not how: without root that is known of children of agentscope only"
        return Check(name="pidfd", ok=None, says=says, try_this="Linux 6.15 or newer")
    return Check(name="pidfd", ok=True, says="tells that and how a process has ended", try_this="")


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


def extras() -> Iterator[Check]:
    """What the package declares as optional, and whether it is installed; nothing where the package has no metadata."""
    from importlib import metadata

    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return
    for extra in sorted(set(package.metadata.get_all("Provides-Extra") or ()) - {OF_DEVELOPERS}):
        absent = absent_of(package.requires or (), extra)
        yield Check(
            name=f"extra {extra}",
            ok=None if absent else True,
            says=f"{', '.join(absent)} not installed: without it there is no {', '.join(GIVES.get(extra, (extra,)))}"
            if absent
            else f"installed: {', '.join(GIVES.get(extra, (extra,)))}",
            try_this=f"pip install '{PACKAGE}[{extra}]'" if absent else "",
        )


def absent_of(requires: Iterable[str], extra: str) -> list[str]:
    """The requirements of an extra that are not installed, with what they need themselves by an extra of theirs."""
    from importlib import metadata

    from packaging.requirements import Requirement

    absent = []
    for wanted in map(Requirement, requires):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}) or not wanted.marker.evaluate({"extra": extra}):
            continue
        try:
            found = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            absent.append(wanted.name)
            continue
        if not wanted.specifier.contains(found.version, prereleases=True):
            absent.append(f"{wanted.name}{wanted.specifier}")
        absent += [each for deeper in sorted(wanted.extras) for each in absent_of(found.requires or (), deeper)]
    return absent


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
