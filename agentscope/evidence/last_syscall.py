"""The system call the last thread was in when the process ended: what it was doing when it was killed."""

from agentscope.evidence import Evidence, Missing, Scene
from agentscope.symbols.syscalls import syscall_name

ABSENT = "it was not in a system call"
WITH_DESCRIPTOR = frozenset(
    {
        "read",
        "write",
        "recvfrom",
        "sendto",
        "recvmsg",
        "sendmsg",
        "connect",
        "accept",
        "accept4",
        "readv",
        "writev",
        "pread64",
        "fsync",
        "epoll_wait",
        "epoll_pwait",
    }
)


class LastSyscallFacts(Evidence, frozen=True, tag="last-syscall"):
    """Name and arguments as the kernel had them; `descriptor` is the first argument where that is a file descriptor."""

    name: str
    args: tuple[int, ...]
    descriptor: int | None

    def says(self) -> str:
        """One sentence for a person."""
        on = "" if self.descriptor is None else f" on descriptor {self.descriptor}"
        return f"its last system call was {self.name}{on}"


def collect(scene: Scene) -> LastSyscallFacts | Missing | None:
    """From the registers at exit; exit_group itself says nothing."""
    last = scene.exit.last_syscall
    if last is None:
        return None
    name = syscall_name(last.number)
    if name is None or name in {"exit", "exit_group"}:
        return None
    descriptor = last.args[0] if last.args and name in WITH_DESCRIPTOR else None
    return LastSyscallFacts(source="registers at the end", name=name, args=last.args, descriptor=descriptor)
