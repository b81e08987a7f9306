"""Engine `core`: the CO-RE probes of bpf/, loaded through libbpf, as a source of events.

Which flavour of a probe a kernel takes is found by loading it, never by a version (kernels before 6.16 free the address
space before sched_process_exit; some refuse fentry). What cannot be had is a sentence in `degraded`.
"""

import os
import struct
import time
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from agentscope.agents import sees_kernel_numbers
from agentscope.errors import EngineUnavailable
from agentscope.examination import SyscallProfile
from agentscope.model import AnyEvent, EngineName, Lost, MissingEvidence, ProcessSample
from agentscope.sources import wire
from agentscope.sources.libbpf import BpfError, the_library
from agentscope.sources.loading import KERNEL_BTF, Family, Flavour, load, not_loadable, probes_of
from agentscope.sources.probed import NO_WORDS, SHARED_MAPS, WORDS, Probed
from agentscope.sources.python_runtime import PythonFinder
from agentscope.sources.sampling import Samples, rss_by_pid
from agentscope.sources.tracefs import tracepoint_id

if TYPE_CHECKING:
    from agentscope.sources.examiner import Examiner

CORE = probes_of(os.uname().machine) / "core.bpf.o"

_PULSE = "on_pulse"
_BEFORE_EXIT = "before_exit_fentry"
_VMA_KFUNC = b"\0bpf_iter_task_vma_new\0"
_NO_MAPPINGS = "executable mappings at a process's end cannot be had: this kernel frees the address space before its exit probe"

_FAMILIES: tuple[Family, ...] = (
    (Flavour(("on_fork", "on_exec", "on_signal", "on_fault")),),
    (
        Flavour(("on_exit_with_memory",)),
        Flavour(("on_exit", _BEFORE_EXIT)),
        Flavour(("on_exit",), _NO_MAPPINGS),
    ),
    (Flavour(("on_oom_victim",)), Flavour((), "victims of the OOM killer are known from the kernel log only")),
    (Flavour((_PULSE,)), Flavour((), "threads are not sampled: this kernel has no task iterator")),
    (Flavour(tuple(WORDS)), Flavour((), NO_WORDS)),
)


class CoreEngine(Probed):
    """Implements `Engine`: attached from the moment it exists until `close`."""

    name: EngineName = "core"
    degraded: tuple[str, ...]
    words_unheard: str

    def __init__(self) -> None:
        if not sees_kernel_numbers():
            # it would watch whoever has these numbers outside, and never see an end of those that are meant
            raise EngineUnavailable(
                "the probes cannot be used here",
                "this is a pid namespace of its own, and the kernel's process numbers are not those seen in it",
                "docker run --pid=host, hostPID: true in Kubernetes, or agentscope run -- COMMAND in here",
            )
        self._object, self._loaded, self.degraded = load(the_library(), CORE, _FAMILIES)
        try:
            self._attach_always_on()
            self._word_tracepoints = self._find_word_tracepoints()
            self.words_unheard = "" if self._word_tracepoints else NO_WORDS
            self._python_by_pid = self._object.table("python_by_pid", 4, wire.PYTHON_PROCESS.size)
            self._python_by_exe = self._object.table("python_by_exe", wire.EXE_KEY.size, wire.PYTHON_EXE.size)
            self._open_maps({name: self._object.map_fd(name) for name in SHARED_MAPS})
        except BpfError as error:
            self._object.close()
            raise not_loadable(error) from error
        except BaseException:
            self._object.close()
            raise
        self._finder = PythonFinder()
        self._samples = Samples()
        self._examiner: Examiner | None = None
        self._examining = Lock()
        self._unseen: list[Lost] = []

    def drain(self) -> Sequence[AnyEvent]:
        """Every event that is waiting, oldest first; a loss that happened meanwhile is the last of them."""
        events = super().drain()
        unseen, self._unseen = self._unseen, []
        return [*events, *unseen] if unseen else events

    def unwatch(self, pid: int, at_ns: int) -> None:
        """Stop reporting this process, unless it became another program after `at_ns`: that one is yet to be judged."""
        super().unwatch(pid, at_ns)
        if not self._is_watched(pid):
            self._python_by_pid.drop(struct.pack("<I", pid))

    def close(self) -> None:
        """Detach everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._close_maps()
        self._object.close()
        with self._examining:
            if self._examiner is not None:
                self._examiner.close()

    def sample(self) -> Sequence[ProcessSample]:
        """All watched processes with their threads, now; what has not changed since the last sample is the same object."""
        if not self._object.attached(_PULSE):
            return ()
        self._samples.prepare()
        return self._samples.fold((self._object.read_iterator(_PULSE),))

    def memory(self) -> dict[int, int | None]:
        """Resident bytes of every watched process now, by pid: a tenth of the cost of a sample."""
        if not self._object.attached(_PULSE):
            return {}
        self._control.bytes[20:24] = struct.pack("<I", True)
        try:
            return rss_by_pid(self._object.read_iterator(_PULSE))
        finally:
            self._control.bytes[20:24] = struct.pack("<I", False)

    def sample_of(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes with their threads, now; empty where that cannot be had."""
        with self._examining:
            examiner = self._find_examiner()
            return () if isinstance(examiner, MissingEvidence) else examiner.sample(pids)

    def registers(self, pid: int) -> dict[int, dict[int, int]]:
        """User registers of the threads of a process by tid and DWARF number, as of their last entry into the kernel."""
        with self._examining:
            examiner = self._find_examiner()
            return {} if isinstance(examiner, MissingEvidence) else examiner.registers(pid)

    def begin_profile(self, pids: Iterable[int]) -> None:
        """Count the system calls of these processes until `end_profile`; one profile at a time, a new one replaces it."""
        with self._examining:
            examiner = self._find_examiner()
            if not isinstance(examiner, MissingEvidence):
                examiner.begin_profile(pids)

    def end_profile(self) -> SyscallProfile | MissingEvidence:
        """What was counted since `begin_profile`, or why nothing was."""
        with self._examining:
            examiner = self._find_examiner()
            profile = examiner if isinstance(examiner, MissingEvidence) else examiner.end_profile()
        if isinstance(profile, SyscallProfile) and profile.lost:
            at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            says = "system calls of an examined process could not be counted: the table is full"
            self._unseen.append(Lost(at_ns=at_ns, source="core", count=profile.lost, says=says))
        return profile

    def capture_words(self, enabled: bool) -> None:
        """Attach or detach the probes on write and writev; nothing happens where they cannot be had."""
        if not enabled:
            self._object.detach_behind(WORDS)
            return
        for name, number in self._word_tracepoints.items():
            if not self._object.attached(name):
                self._object.attach_tracepoint(name, number)

    def know_python(self, pids: Iterable[int]) -> None:
        """Teach the fault probe where these processes, and later ones of the same executables, keep their Python frames."""
        for pid in pids:
            found = self._finder.look(pid)
            if found is not None:
                self._python_by_pid.put(struct.pack("<I", pid), found.process)
                self._python_by_exe.put(found.exe_key, found.exe)

    def _attach_always_on(self) -> None:
        for name in sorted(self._loaded - WORDS.keys()):
            if name == _PULSE:
                self._object.attach_iterator(name)
            elif name == _BEFORE_EXIT:
                self._attach_before_exit()
            else:
                self._object.attach(name)

    def _attach_before_exit(self) -> None:
        """It may load and be of no use: arm64 of 6.1 cannot attach it, and before 6.7 the mappings cannot be walked."""
        try:
            self._object.attach(_BEFORE_EXIT)
        except BpfError:
            self.degraded += (_NO_MAPPINGS,)
        else:
            if _VMA_KFUNC not in KERNEL_BTF.read_bytes():
                self.degraded += (_NO_MAPPINGS,)

    def _find_examiner(self) -> "Examiner | MissingEvidence":
        """Loaded when first asked for, since most agents are never suspect. The lock keeps `close` from an examiner in use."""
        from agentscope.sources.examiner import Examiner
        from agentscope.sources.profile import SYSCALL_PROFILE

        if self._closed:
            return MissingEvidence(kind=SYSCALL_PROFILE, because="the engine is closed")
        if self._examiner is None:
            try:
                self._examiner = Examiner()
            except EngineUnavailable as error:
                return MissingEvidence(kind=SYSCALL_PROFILE, because=f"{error.what}: {error.why}")
        return self._examiner

    def _find_word_tracepoints(self) -> dict[str, int]:
        """Looked up at the start, so that `degraded` is whole then; attaching later takes a millisecond."""
        if not self._loaded >= WORDS.keys():
            return {}
        try:
            return {name: tracepoint_id(category, event) for name, (category, event) in WORDS.items()}
        except (OSError, ValueError):
            self.degraded += (NO_WORDS,)
            return {}
