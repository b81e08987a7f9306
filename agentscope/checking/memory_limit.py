"""Whether anything limits its memory: without a limit, one leak takes the whole machine, and the kernel chooses who dies for it."""

from agentscope.checking import Checked, Subject
from agentscope.sizes import size_of

PLACE = 1
TITLE = "memory limit"
STEP = 256 << 20


def check(subject: Subject) -> Checked:
    """A cgroup's limit, or one of the process (RLIMIT_AS, RLIMIT_DATA)."""
    seen = subject.scene.last_seen
    if seen is None:
        return Checked(None, "its limits could not be read")
    if subject.binding is not None and subject.binding.limit_bytes is not None:
        return Checked(True, f"cgroup {subject.binding.path} allows {size_of(subject.binding.limit_bytes)}")
    limits = [(name, seen.soft_limits[name]) for name in ("AS", "DATA") if name in seen.soft_limits]
    if limits:
        return Checked(True, f"RLIMIT_{limits[0][0]} is {size_of(limits[0][1])}")
    total = f" of {size_of(seen.host_total_bytes)}" if seen.host_total_bytes else ""
    return Checked(False, f"nothing limits its memory, so it can take that of the whole host{total}", line(subject))


def line(subject: Subject) -> str:
    """A limit of twice what it uses now."""
    used = subject.uses.samples[-1][1] if subject.uses else 0
    amount = max(2 * STEP, -(-2 * used // STEP) * STEP)
    mebibytes, owner = amount >> 20, subject.owner
    if owner is not None and owner.kind == "systemd":
        return f"{'systemctl --user' if owner.at else 'sudo systemctl'} set-property {owner.name} MemoryMax={mebibytes}M"
    if owner is not None and owner.kind == "container":
        return f"{subject.engine} update --memory {mebibytes}m --memory-swap {mebibytes}m {owner.name}"
    return f"systemd-run --user --scope -p MemoryMax={mebibytes}M -- COMMAND"
