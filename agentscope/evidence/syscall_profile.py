"""What the agent's processes asked of the kernel during a few seconds: how often, and how it ended."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import CallCount, ConnectCount, StatusCount
from agentscope.model import Value

ABSENT = "its system calls were not traced: it was not awake, or nothing was outstanding"
CALLS = 200
ADDRESSES = 100


class Written(Value, frozen=True):
    """How much a process wrote to descriptors 1 and 2."""

    pid: int
    bytes: int


class CallProfile(Evidence, frozen=True, tag="syscall-profile"):
    """The most frequent calls, connections and HTTP statuses of `seconds`, most frequent first."""

    seconds: float
    calls: tuple[CallCount, ...]
    connects: tuple[ConnectCount, ...] = ()
    statuses: tuple[StatusCount, ...] = ()
    written: tuple[Written, ...] = ()
    lost: int = 0  # calls that could not be counted

    def count(self, pid: int, *, without: frozenset[str] = frozenset()) -> int:
        """How many calls a process made, some kinds left out."""
        return sum(each.count for each in self.calls if each.pid == pid and each.name not in without)

    def succeeded(self, pid: int, names: frozenset[str]) -> int:
        """How often one of these calls of a process succeeded."""
        return sum(each.count for each in self.calls if each.pid == pid and each.name in names and each.error is None)

    def written_by(self, pid: int) -> int:
        """Bytes that a process wrote to its output."""
        return sum(each.bytes for each in self.written if each.pid == pid)

    def says(self) -> str:
        """One sentence for a person."""
        failed = next((each for each in self.connects if each.error is not None), None)
        if failed is not None:
            return f"connect({failed.address}) = {failed.error}, {failed.count} times in {self.seconds:.1f} s"
        if self.statuses:
            first = self.statuses[0]
            return f"HTTP status {first.status} was read {first.count} times in {self.seconds:.1f} s"
        if not self.calls:
            return f"no system call in {self.seconds:.1f} s"
        told = "; ".join(
            f"{each.name}{f' = {each.error}' if each.error else ''}, {each.count} times" for each in self.calls[:3]
        )
        return f"in {self.seconds:.1f} s: {told}"


def collect(scene: HangScene) -> CallProfile | Missing | None:
    """From raw_syscalls, attached for just that long."""
    profile = scene.examination.profile
    if profile is None:
        return scene.missing("syscall-profile")
    return CallProfile(
        source=f"tracepoint raw_syscalls, for {profile.seconds:.1f} s",
        seconds=profile.seconds,
        calls=tuple(sorted(profile.calls, key=lambda each: -each.count)[:CALLS]),
        connects=tuple(sorted(profile.connects, key=lambda each: -each.count)[:ADDRESSES]),
        statuses=tuple(sorted(profile.statuses, key=lambda each: -each.count)[:ADDRESSES]),
        lost=profile.lost,
        written=tuple(Written(pid=pid, bytes=count) for pid, count in list(profile.written_bytes.items())[:ADDRESSES]),
    )
