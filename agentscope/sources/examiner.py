"""The probes of an examination, in an object of their own: nothing of it is attached except while somebody asks.

So `diagnose` needs no other probe, and a watcher loads it only once an agent is suspect.
"""

import os
import time
from collections.abc import Iterable, Sequence

from agentscope.examination import SyscallProfile
from agentscope.model import EngineName, MissingEvidence, ProcessSample
from agentscope.sources.libbpf import BpfError, the_library
from agentscope.sources.loading import Family, Flavour, load, probes_of
from agentscope.sources.profile import PROBE, SYSCALL_PROFILE, Profiler
from agentscope.sources.sampling import Samples, registers_of

EXAMINE = probes_of(os.uname().machine) / "examine.bpf.o"

_SAMPLE, _REGISTERS = "on_sample", "on_registers"
_NO_THREADS = "threads are not sampled and their registers not read: this kernel has no task iterator"
_NO_PROFILE = "system calls cannot be profiled: this kernel has no tracepoint on system calls"
_FAMILIES: tuple[Family, ...] = (
    (Flavour((_SAMPLE, _REGISTERS)), Flavour((), _NO_THREADS)),
    (Flavour((PROBE,)), Flavour((), _NO_PROFILE)),
)


class Examiner:
    """Loaded until `close`. `degraded` says in sentences what this kernel does not give.

    Samples, registers and the profile may be asked for by different threads; two threads must not ask for the same at once.

    Raises:
        EngineUnavailable: this machine or this user cannot have it.
    """

    name: EngineName = "core"
    degraded: tuple[str, ...]

    def __init__(self) -> None:
        self._object, self._loaded, self.degraded = load(the_library(), EXAMINE, _FAMILIES)
        self._samples = Samples()
        self._scoping = True
        self._profiler = Profiler(self._object) if PROBE in self._loaded else None

    def close(self) -> None:
        """Detach and free everything; safe to call twice."""
        self._object.close()

    def sample(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes with their threads, now; what has not changed since the last sample is the same object."""
        if _SAMPLE not in self._loaded:
            return ()
        self._samples.prepare()
        wanted = set(pids)
        return [sample for sample in self._samples.fold(self._passes(_SAMPLE, pids)) if sample.pid in wanted]

    def registers(self, pid: int) -> dict[int, dict[int, int]]:
        """User registers of the threads of a process, by tid and DWARF number (`machines`).

        They are those of a thread's last entry into the kernel: of one that is blocked, exactly where it is; of one that runs,
        where its last call or timer tick found it. Empty if there is no such process, or this kernel cannot tell.
        """
        if _REGISTERS not in self._loaded:
            return {}
        return registers_of(b"".join(self._passes(_REGISTERS, (pid,))), pid)

    def begin_profile(self, pids: Iterable[int]) -> None:
        """Count the system calls of these processes until `end_profile`; one profile at a time, a new one replaces it."""
        if self._profiler is not None:
            self._profiler.begin(pids)

    def end_profile(self) -> SyscallProfile | MissingEvidence:
        """What was counted since `begin_profile`, or why nothing was."""
        if self._profiler is None:
            return MissingEvidence(kind=SYSCALL_PROFILE, because=_NO_PROFILE)
        return self._profiler.end()

    def profile(self, pids: Iterable[int], seconds: float) -> SyscallProfile | MissingEvidence:
        """Count the system calls of these processes during `seconds`, which it waits."""
        self.begin_profile(pids)
        if self._profiler is not None:
            time.sleep(seconds)
        return self.end_profile()

    def _passes(self, program: str, pids: Sequence[int]) -> list[bytes]:
        """What an iterator writes about these processes: one pass each, or one over all where it cannot be scoped."""
        if self._scoping:
            try:
                return [self._object.read_iterator_of(program, pid) for pid in pids]
            except BpfError:
                self._scoping = False
        if not self._object.attached(program):
            self._object.attach_iterator(program)
        return [self._object.read_iterator(program)]
