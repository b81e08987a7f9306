"""Step 4: Incident -> Evidence. One file a kind: its struct, and `collect(scene)`.

A file `evidence/<kind>.py` holds one `Evidence` class (tagged with the file's name, hyphens for underscores), the sentence
`ABSENT` (what it means when there is nothing of the kind) and `collect`, which returns the evidence, `None` where there is
nothing of the kind, or `Missing` where it could not be had. The type of its parameter says what it is evidence of: an end
(`Scene`), a hang (`HangScene`), or either. Being in the folder is being registered. `READS_FILES = True` in one tells that it opens
files of the agent's root, which can hang.
"""

import importlib
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import msgspec

from agentscope.baseline import Baseline
from agentscope.distributions.enclosing import Enclosure
from agentscope.examination import Examination
from agentscope.model import (
    Agent,
    EngineName,
    EvidenceRecord,
    Fault,
    KernelLine,
    MissingEvidence,
    OomVictim,
    Process,
    ProcessExit,
    Scope,
    SignalSent,
    Value,
    Weight,
)


class MemorySample(Value, frozen=True):
    """Memory of one process and of its cgroup at one moment, in bytes."""

    at_ns: int
    rss_bytes: int | None
    cgroup_bytes: int | None = None


class CgroupMemory(Value, frozen=True):
    """One memory cgroup on the way to the root: its limit and counters as last read. None: the file says "no limit"."""

    path: str
    version: int
    limit_bytes: int | None
    usage_bytes: int | None
    peak_bytes: int | None = None
    hit_limit_count: int | None = None
    oom_kill_count: int | None = None


def binding_of(cgroups: Iterable[CgroupMemory]) -> CgroupMemory | None:
    """The cgroup whose limit a process meets first: the tightest of its own and those above; None: there is no limit."""
    limited = [cgroup for cgroup in cgroups if cgroup.limit_bytes is not None]
    return min(limited, key=lambda cgroup: cgroup.limit_bytes or 0, default=None)


class LastSeen(Value, frozen=True):
    """What user space knew of a process while it lived, because /proc is gone when it hears of the death.

    `environment` is where it keeps its sessions: of one that keeps none that we know, nothing of its environment is kept.
    `oom_kills` is how many processes the kernel had killed for memory since boot.
    `pids_inside` are its numbers in the pid namespaces below ours, the innermost last; `namespaces` are those of its own.
    """

    at_ns: int
    cwd: str | None = None
    soft_limits: dict[str, int] = {}
    open_files: int | None = None
    cgroups: tuple[CgroupMemory, ...] = ()
    host_available_bytes: int | None = None
    host_total_bytes: int | None = None
    maps: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    oom_kills: int | None = None
    pids_inside: tuple[int, ...] = ()
    namespaces: tuple[str, ...] = ()


class Words(Value, frozen=True):
    """The tail of what a process wrote to stdout and stderr: the bytes, where they were read, and when the last was written."""

    text: bytes
    source: str
    written_ns: int | None = None


class Sent(Value, frozen=True):
    """A signal that a record of somebody other than the kernel tells of: by `program`, in its words, at a time (CLOCK_BOOTTIME).

    `itself`: the process raised it (a stack in its core dump that leads through abort).
    """

    signal: int
    program: str
    says: str
    at_ns: int
    source: str
    itself: bool = False


KERNEL_LOG, RUNTIME = "kernel log", "container runtime"  # what an Aftermath calls these sources


class Aftermath(Value, frozen=True):
    """What was left of an end that nobody watched: which sources were read, which could not be, and how sure the pieces belong together.

    `told_by` are the sources that tell of the end itself. `kernel_log` and `journal` say whether that log could be read and reaches
    back to the end: only then does its silence mean anything. `counted_oom` names who counted an OOM kill of some process near it. `pid_inside` is its number in its own pid namespace, where that is another;
    `cpu_limited` tells whether its CPU time was limited (None: not known), which the kernel enforces by SIGKILL and writes down nowhere.
    """

    read: tuple[str, ...]
    unread: tuple[MissingEvidence, ...]
    told_by: tuple[str, ...]
    kernel_log: bool
    journal: bool
    sent: Sent | None = None
    counted_oom: str | None = None
    pid_inside: int | None = None
    joined_by: str = "its process number"
    cpu_limited: bool | None = None


class Scene(Value, frozen=True):
    """Everything that is known about one end when its evidence is collected: a value, so that collecting is a function.

    `family` are the pids of the agent's tree, root first; `manager` names the service manager or runtime that owns the agent.
    `baseline` is of its last healthy run, or of this run's beginning (None: `baseline_missing` says why); `installed` is what stands
    in the same places now. `root` leads into the container that it died in ("/proc/PID/root" of one that lives there; None: ours).
    `oom_kills` is how many processes the kernel killed for memory on this machine since it was last looked at (None: not counted).
    `past` is set where nobody watched it and its end is put together afterwards.
    """

    agent: Agent
    process: Process
    scope: Scope
    exit: ProcessExit
    engine: EngineName
    signals: tuple[SignalSent, ...] = ()
    faults: tuple[Fault, ...] = ()
    victim: OomVictim | None = None
    kernel_lines: tuple[KernelLine, ...] | None = None
    last_seen: LastSeen | None = None
    memory: tuple[MemorySample, ...] = ()
    words: Words | None = None
    words_missing: str = ""
    family: tuple[int, ...] = ()
    ancestors: tuple[int, ...] = ()
    baseline: Baseline | None = None
    installed: Baseline | None = None
    baseline_missing: str = ""
    root: str | None = None
    oom_kills: int | None = None
    past: Aftermath | None = None
    enclosure: Enclosure | None = None


class HangScene(Value, frozen=True):
    """Everything that is known about an agent that lives and does nothing, or may: what was found by looking at it.

    `process` is the agent's innermost process. `signals` are those that were seen sent to it, where it was watched. `installed` is
    what it stands on now, `baseline` what it, or its last healthy run, began with, and `root` leads into its container.
    """

    agent: Agent
    process: Process
    scope: Scope
    engine: EngineName
    examination: Examination
    signals: tuple[SignalSent, ...] = ()
    baseline: Baseline | None = None
    installed: Baseline | None = None
    root: str | None = None
    last_seen: LastSeen | None = None
    family: tuple[int, ...] = ()
    enclosure: Enclosure | None = None

    def missing(self, kind: str) -> "Missing | None":
        """Why this part of the examination could not be had, where it is known."""
        found = next((each for each in self.examination.missing if each.kind == kind), None)
        return None if found is None else Missing(kind=kind, because=found.because)


AnyScene = Scene | HangScene


class Evidence(Value, frozen=True, tag_field="kind"):
    """One kind of fact about an incident. `source` says where it came from, as a person could look it up."""

    source: str

    @property
    def kind(self) -> str:
        """The slug of this kind: its file's name with hyphens."""
        return str(type(self).__struct_config__.tag)

    def says(self) -> str:
        """One sentence for a person."""
        raise NotImplementedError

    def record(self, weight: Weight) -> EvidenceRecord:
        """This evidence as the stream carries it."""
        built = msgspec.to_builtins(self)
        return EvidenceRecord(kind=self.kind, source=self.source, says=self.says(), weight=weight, data=built)


class Missing(Value, frozen=True):
    """Evidence that could not be had, with the reason as a person would say it."""

    kind: str
    because: str


Collected = Evidence | Missing | None


@dataclass(frozen=True)
class Kind:
    """One file of this folder. `scenes` are the types of what it can be evidence of; `reads_files` tells that files of the agent's root are opened for it."""

    slug: str
    struct: type[Evidence]
    absent: str
    collect: Callable[..., Collected]
    scenes: tuple[type, ...]
    reads_files: bool = False


def scenes_of(collect: Callable[..., Collected]) -> tuple[type, ...]:
    """What a collector takes, read off the type of its one parameter."""
    hints = [hint for name, hint in typing.get_type_hints(collect).items() if name != "return"]
    taken = [part for hint in hints for part in (typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,))]
    if len(hints) != 1 or not taken or not set(taken) <= {Scene, HangScene}:
        raise TypeError(f"{collect.__module__}.collect must take one scene: Scene, HangScene, or either")
    return tuple(taken)


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind of evidence, by slug: the folder is the list."""
    found = {}
    for module_name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{module_name}")
        slug = module_name.replace("_", "-")
        structs = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Evidence) and value.__module__ == module.__name__
        ]
        if len(structs) != 1 or structs[0].__struct_config__.tag != slug:
            raise TypeError(f"evidence/{module_name}.py must hold exactly one Evidence class, tagged {slug!r}")
        reads_files = getattr(module, "READS_FILES", False)
        found[slug] = Kind(slug, structs[0], module.ABSENT, module.collect, scenes_of(module.collect), reads_files)
    return found


def kinds_of(scene: type[AnyScene]) -> dict[str, Kind]:
    """The kinds that can be evidence of such a scene, by slug."""
    return {slug: kind for slug, kind in kinds().items() if scene in kind.scenes}


def collect_all(scene: AnyScene, *, no_files: str | None = None) -> dict[str, Collected]:
    """Ask every kind that fits. One that fails costs its own answer only: a hostile process must not silence the rest.

    `no_files` says why no file of the agent's root may be opened: its file system hangs.
    """
    collected: dict[str, Collected] = {}
    for slug, kind in kinds_of(type(scene)).items():
        if no_files is not None and kind.reads_files:
            collected[slug] = Missing(kind=slug, because=no_files)
            continue
        try:
            collected[slug] = kind.collect(scene)
        except Exception as error:  # noqa: BLE001 - the reason is kept as Missing and shown to the user
            collected[slug] = Missing(kind=slug, because=f"reading it failed: {type(error).__name__}: {error}")
    return collected


def from_records(
    scene: type[AnyScene], records: tuple[EvidenceRecord, ...], missing: tuple[MissingEvidence, ...] = ()
) -> dict[str, Collected]:
    """Evidence as a recording carries it: what the record does not hold did not exist or could not be had then."""
    collected: dict[str, Collected] = dict.fromkeys(kinds_of(scene))
    collected |= {absent.kind: Missing(kind=absent.kind, because=absent.because) for absent in missing}
    for record in records:
        kind = kinds().get(record.kind)
        if kind is None:
            continue
        try:
            collected[record.kind] = msgspec.convert(record.data, kind.struct)
        except msgspec.ValidationError as error:
            collected[record.kind] = Missing(kind=record.kind, because=f"the recording holds it in another form: {error}")
    return collected
