"""What an engine without probes can tell of living processes, from /proc, and what it cannot: the same for all of them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from agentscope.examination import SyscallProfile
from agentscope.examination import threads as threads_of_proc
from agentscope.examination.proc import read_proc, status_field
from agentscope.model import MissingEvidence, ProcessSample
from agentscope.sources.profile import SYSCALL_PROFILE

UNHEARD = "its stderr is not a file, and reading what it wrote elsewhere needs BPF"
NOT_SEEN = (
    "who sends a signal is not seen, so a kill has no name",
    "what happens at a fault is known from the kernel log only",
    "last words that go to a terminal or a pipe cannot be had",
    "system calls of a suspect are not traced, so of loops only those that use the CPU are seen",
)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CAP_SYS_PTRACE = 19


class Unprobed:
    """The part of `Engine` that is read in /proc. `watched` yields the processes that are sampled."""

    words_unheard = UNHEARD

    def watched(self) -> Iterable[int]:
        """The pids of all that is watched now."""
        raise NotImplementedError

    def may_watch(self, uid: int) -> bool:
        """Whether processes of this user show us what an engine needs to see."""
        return is_root() or uid == os.getuid()

    def sample(self) -> Sequence[ProcessSample]:
        """All watched processes with their threads, now; of a great many threads those that can be read in half a second."""
        return self.sample_of(list(self.watched()))

    def sample_of(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes with their threads, now."""
        return [with_bytes_moved(each) for each in threads_of_proc.sample(pids)]

    def memory(self) -> dict[int, int | None]:
        """Resident bytes of every watched process now, by pid."""
        return dict(self._resident())

    def registers(self, pid: int) -> Mapping[int, Mapping[int, int]]:
        """None can be had: nothing is attached, and stopping a process to ask is not what a watcher does."""
        del pid
        return {}

    def begin_profile(self, pids: Iterable[int]) -> None:
        """System calls cannot be counted without a probe."""

    def end_profile(self) -> SyscallProfile | MissingEvidence:
        """Why nothing was counted."""
        return MissingEvidence(kind=SYSCALL_PROFILE, because="system calls are counted by BPF, which is not attached here")

    def capture_words(self, enabled: bool) -> None:
        """What goes to no file is not heard."""

    def take_words(self, pid: int) -> tuple[bytes, int] | None:  # noqa: ARG002 - the contract's
        """What goes to no file is not heard."""
        return None

    def wrote_ns(self, pid: int) -> int | None:  # noqa: ARG002 - the contract's
        """What goes to no file is not heard."""
        return None

    def know_python(self, pids: Iterable[int]) -> None:
        """There is no fault probe to teach."""

    def _resident(self) -> Iterator[tuple[int, int | None]]:
        for pid in list(self.watched()):
            fields = (read_proc(f"/proc/{pid}/statm") or b"").split()
            if len(fields) > 1:
                yield pid, int(fields[1]) * _PAGE_BYTES


def with_bytes_moved(sample: ProcessSample) -> ProcessSample:
    """The same sample, its first thread standing for what the whole process has read and written (/proc/PID/io)."""
    text = read_proc(f"/proc/{sample.pid}/io") or b""
    read, written = status_field(text, b"rchar"), status_field(text, b"wchar")
    if not sample.threads or not read or not written or not read.isdigit() or not written.isdigit():
        return sample
    first, *others = sample.threads
    first = msgspec.structs.replace(first, read_bytes=int(read), written_bytes=int(written))
    return msgspec.structs.replace(sample, threads=(first, *others))


def is_root() -> bool:
    """Whether we may look at everybody's processes: root, or who may trace them all (capabilities(7))."""
    if os.geteuid() == 0:
        return True
    value = status_field(read_proc("/proc/self/status") or b"", b"CapEff")
    return value is not None and bool(int(value, 16) >> _CAP_SYS_PTRACE & 1)
