"""Engine `core`: the CO-RE probes of bpf/, loaded through libbpf, as a source of events.

Which flavour of a probe a kernel takes is found by loading it, never by a version (kernels before 6.16 free the address
space before sched_process_exit; some refuse fentry). What cannot be had is a sentence in `degraded`.
"""

import errno
import os
import platform
import select
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentscope.errors import EngineUnavailable
from agentscope.model import AnyEvent, EngineName, Lost, ProcessSample
from agentscope.sources import wire
from agentscope.sources.decode import Decoder, clock_bound_ns, samples_of
from agentscope.sources.libbpf import BpfError, Library, ProbeObject, Ring, SharedPage, tracepoint_id
from agentscope.sources.python_runtime import PythonFinder

PROBES = Path(__file__).parent / "probes" / "core.bpf.o"
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
RING_BYTES = 4 << 20

_WORDS = {"on_write": ("syscalls", "sys_enter_write"), "on_writev": ("syscalls", "sys_enter_writev")}
_PULSE = "on_pulse"
_VMA_KFUNC = b"\0bpf_iter_task_vma_new\0"
_NO_WORDS = "last words that go to a terminal or a pipe cannot be had: this kernel has no tracepoints on system calls"
_NO_MAPPINGS = "executable mappings at a process's end cannot be had: this kernel frees the address space before its exit probe"


@dataclass(frozen=True)
class Flavour:
    """Programs that go together, and what is lost with them compared to the flavour before."""

    programs: tuple[str, ...]
    lost: str = ""


# each family: flavours, best first; the last one always loads or the engine cannot be had
_FAMILIES: tuple[tuple[Flavour, ...], ...] = (
    (Flavour(("on_fork", "on_exec", "on_signal", "on_fault")),),
    (
        Flavour(("on_exit_with_memory",)),
        Flavour(("on_exit", "before_exit_fentry")),
        Flavour(("on_exit",), _NO_MAPPINGS),
    ),
    (Flavour(("on_oom_victim",)), Flavour((), "victims of the OOM killer are known from the kernel log only")),
    (Flavour((_PULSE,)), Flavour((), "threads are not sampled: this kernel has no task iterator")),
    (Flavour(tuple(_WORDS)), Flavour((), _NO_WORDS)),
)

_LIBBPF_OWN_ERRORS = 4000  # enum libbpf_errno: what libbpf itself found wrong with the file; below it are errnos of the kernel


class CoreEngine:
    """Implements `Engine`: attached from the moment it exists until `close`."""

    name: EngineName = "core"
    degraded: tuple[str, ...]

    def __init__(self) -> None:
        self._object, self._loaded, self.degraded = _load(Library())
        try:
            self._attach_always_on()
            self._word_tracepoints = self._find_word_tracepoints()
            self._watched = self._object.table("watched", 4, wire.WATCH.size)
            self._tails = self._object.table("tails", 4, wire.TAIL.size)
            self._python_by_pid = self._object.table("python_by_pid", 4, wire.PYTHON_PROCESS.size)
            self._python_by_exe = self._object.table("python_by_exe", wire.EXE_KEY.size, wire.PYTHON_EXE.size)
            self._ring = Ring(self._object.map_fd("ring"), RING_BYTES)
            self._control = SharedPage(self._object.map_fd("control"), wire.CONTROL.size)
        except BpfError as error:
            self._object.close()
            raise _not_loadable(error) from error
        except BaseException:
            self._object.close()
            raise
        self._decode = Decoder().decode
        self._finder = PythonFinder()
        self._clock_bounds: deque[int] = deque(maxlen=64)
        self._lost_before = bytes(16)
        self._closed = False

    def fileno(self) -> int:
        """Polls readable when `drain` has something."""
        return self._ring.fileno()

    def drain(self) -> Sequence[AnyEvent]:
        """Every event that is waiting, oldest first; a loss that happened meanwhile is the last of them."""
        if self._closed:
            return ()
        decode = self._decode
        events: list[AnyEvent] = [event for record in self._ring.drain() if (event := decode(record)) is not None]
        if self._control.bytes[:16] != self._lost_before:
            events.extend(self._losses())
        return events

    def close(self) -> None:
        """Detach everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._ring.close()
        self._control.close()
        self._object.close()

    def watch(self, pid: int) -> None:
        """Report this process and its future descendants; a pid that is already gone is ignored."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        try:
            key = struct.pack("<I", pid)
            if self._watched.get(key) is None:
                self._watched.put(key, bytes(wire.WATCH.size))
            # if it died before the entry was there, nobody in the kernel will take the entry away
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if poll.poll(0):
                self._watched.drop(key)
        finally:
            os.close(descriptor)

    def unwatch(self, pid: int) -> None:
        """Stop reporting this process."""
        key = struct.pack("<I", pid)
        self._watched.drop(key)
        self._python_by_pid.drop(key)

    def watch_discovered(self, enabled: bool) -> None:
        """Report and watch every process of the host from its next exec on, or stop doing so."""
        self._control.bytes[16:20] = struct.pack("<I", enabled)

    def sample(self) -> Sequence[ProcessSample]:
        """All watched processes with their threads, now."""
        if not self._object.attached(_PULSE):
            return ()
        if not self._clock_bounds:
            time.sleep(1e-5)  # so that we have just got our CPU, which makes the bound of the clocks' offset tight
        rows = self._object.read_iterator(_PULSE)
        bound = clock_bound_ns(rows)
        if bound is not None:
            self._clock_bounds.append(bound)
        return samples_of(rows, min(self._clock_bounds, default=0))

    def capture_words(self, enabled: bool) -> None:
        """Attach or detach the probes on write and writev; nothing happens where they cannot be had."""
        if not enabled:
            self._object.detach_behind(_WORDS)
            return
        for name, number in self._word_tracepoints.items():
            if not self._object.attached(name):
                self._object.attach_tracepoint(name, number)

    def take_words(self, pid: int) -> tuple[bytes, int] | None:
        """The last bytes that `pid` wrote to descriptors 1 and 2, with the time of the last write, and forget them."""
        key = struct.pack("<I", pid)
        value = self._tails.get(key)
        if value is None:
            return None
        self._tails.drop(key)
        return wire.tail_text(value)

    def know_python(self, pids: Iterable[int]) -> None:
        """Teach the fault probe where these processes, and later ones of the same executables, keep their Python frames."""
        for pid in pids:
            found = self._finder.look(pid)
            if found is not None:
                self._python_by_pid.put(struct.pack("<I", pid), found.process)
                self._python_by_exe.put(found.exe_key, found.exe)

    def _attach_always_on(self) -> None:
        for name in sorted(self._loaded - _WORDS.keys()):
            if name == _PULSE:
                self._object.attach_iterator(name)
            else:
                self._object.attach(name)

    def _find_word_tracepoints(self) -> dict[str, int]:
        """Looked up at the start, so that `degraded` is whole then; attaching later takes a millisecond."""
        if not self._loaded >= _WORDS.keys():
            return {}
        try:
            return {name: tracepoint_id(category, event) for name, (category, event) in _WORDS.items()}
        except (OSError, ValueError):
            self.degraded += (_NO_WORDS,)
            return {}

    def _losses(self) -> Iterable[Lost]:
        before = struct.unpack("<QQ", self._lost_before)
        self._lost_before = bytes(self._control.bytes[:16])
        now = struct.unpack("<QQ", self._lost_before)
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        says = "records did not fit the ring buffer", "processes could not be watched: the table is full"
        for count, sentence in zip((new - old for new, old in zip(now, before, strict=True)), says, strict=True):
            if count:
                yield Lost(at_ns=at_ns, source="core", count=count, says=sentence)


def _load(library: Library) -> tuple[ProbeObject, frozenset[str], tuple[str, ...]]:
    """The object with the best flavour of each family that this kernel takes, its programs, and what is lost."""
    _require_this_machine()
    chosen = [family[0] for family in _FAMILIES]
    try:
        return _load_flavours(library, chosen)
    except BpfError as error:
        if error.errno == errno.EPERM:
            raise _not_permitted() from error
        if (error.errno or 0) >= _LIBBPF_OWN_ERRORS:
            why = f"{PROBES} is damaged"
            raise EngineUnavailable(
                "the kernel probes cannot be loaded", why, "make probes, or install agentscope anew"
            ) from error
    chosen = [_best_flavour(library, family) for family in _FAMILIES]
    try:
        return _load_flavours(library, chosen)
    except BpfError as error:
        raise _not_loadable(error) from error


def _load_flavours(library: Library, chosen: Sequence[Flavour]) -> tuple[ProbeObject, frozenset[str], tuple[str, ...]]:
    programs = frozenset(name for flavour in chosen for name in flavour.programs)
    probes = ProbeObject(library, PROBES)
    try:
        probes.load_only(programs)
    except BpfError:
        probes.close()
        raise
    lost = [flavour.lost for flavour in chosen if flavour.lost]
    if "before_exit_fentry" in programs and _VMA_KFUNC not in KERNEL_BTF.read_bytes():
        lost.append(_NO_MAPPINGS)
    return probes, programs, tuple(lost)


def _best_flavour(library: Library, family: Sequence[Flavour]) -> Flavour:
    for flavour in family[:-1]:
        probes = ProbeObject(library, PROBES)
        try:
            probes.load_only(frozenset(flavour.programs))
        except BpfError:
            continue
        finally:
            probes.close()
        return flavour
    return family[-1]


def _require_this_machine() -> None:
    """What libbpf would report in words that mislead is looked at first."""
    what = "the kernel probes cannot be loaded"
    if platform.machine() != "x86_64":
        raise EngineUnavailable(what, f"they are built for x86_64, and this is {platform.machine()}")
    if not PROBES.exists():
        raise EngineUnavailable(what, f"they have not been built: {PROBES} is not there", "make probes")
    if not KERNEL_BTF.exists():
        raise EngineUnavailable(
            what,
            f"this kernel does not describe its types: {KERNEL_BTF} is not there (CONFIG_DEBUG_INFO_BTF)",
            "agentscope doctor; without the probes, agentscope run and diagnose still work",
        )


def _not_permitted() -> EngineUnavailable:
    if os.geteuid() == 0:
        why = "the kernel refuses BPF to this root user: a container without CAP_BPF and CAP_PERFMON, or kernel lockdown"
        return EngineUnavailable(
            "the kernel probes cannot be loaded",
            why,
            "agentscope doctor; without the probes, agentscope run and diagnose still work",
        )
    return EngineUnavailable("the kernel probes cannot be loaded", "it takes root", "sudo agentscope …")


def _not_loadable(error: BpfError) -> EngineUnavailable:
    why = f"this kernel ({platform.release()}) refuses them: {errno.errorcode.get(error.errno or 0, error.errno)}"
    return EngineUnavailable(
        "the kernel probes cannot be loaded",
        why,
        "agentscope doctor; without the probes, agentscope run and diagnose still work",
    )
