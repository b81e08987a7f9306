"""Small builders of evidence for the tests of causes: what a death looks like, with everything else absent."""

from typing import Any

from agentscope.classifier import classify
from agentscope.evidence import CgroupMemory, Collected, Evidence, Missing, Scene, kinds_of
from agentscope.evidence.actor import EarlierSignal, Relation, SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.evidence.native_stack import NativeFrame, NativeStack
from agentscope.evidence.oom_victim import OomKill
from agentscope.evidence.python_stack import PythonStack
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Actor, Diagnosis, Finding, Mapping, PythonFrame, Reading
from agentscope.readers.kernel_fault import FaultLine
from agentscope.readers.kernel_oom import OomReport
from agentscope.symbols.signals import code_name, signal_name

SOURCE = "a test"
MIB = 1 << 20
GIB = 1 << 30
KIND_OF_ACTOR = {"self": "self", "kernel": "kernel", "terminal": "terminal", "unattributed": "unattributed"}


def exited(code: int) -> WaitStatus:
    """It exited with this code."""
    return WaitStatus(source=SOURCE, code=code, signal=None, signal_name=None, core_dumped=False, lived_ns=5_000_000_000)


def died(signal: int) -> WaitStatus:
    """This signal ended it."""
    return WaitStatus(
        source=SOURCE, code=None, signal=signal, signal_name=signal_name(signal), core_dumped=False, lived_ns=5_000_000_000
    )


def sent(signal: int, relation: Relation = "stranger", *, code: int | None = 0, comm: str = "bash", **more: Any) -> SignalActor:
    """This signal was the decisive one, from such a sender."""
    by_process = relation not in KIND_OF_ACTOR
    return SignalActor(
        source=SOURCE,
        actor=Actor(
            kind=KIND_OF_ACTOR.get(relation, "process"),  # type: ignore[arg-type]
            says=f"from {comm} (pid 812, uid 1000)" if by_process else f"from {relation}",
            pid=812 if by_process or relation == "self" else None,
            comm=comm if by_process else None,
            exe=f"/usr/bin/{comm}" if by_process else None,
            uid=1000 if by_process else None,
        ),
        signal=signal,
        signal_name=signal_name(signal),
        si_code=code,
        relation=relation,
        before_end_ns=more.pop("before_end_ns", 1_000_000),
        **more,
    )


def earlier(name: str) -> EarlierSignal:
    """This signal had come one second before."""
    return EarlierSignal(signal_name=name, before_end_ns=1_000_000_000, sender="from bash (pid 812, uid 1000)", caught=True)


def faulted(
    signal: int = 11,
    code: int = 1,
    *,
    address: int | None = 0,
    module: str = "/usr/lib/libc.so.6",
    sp: int = 0x7FFC00001000,
    near: bool = False,
    **more: Any,
) -> FaultFacts:
    """This fault signal was delivered; code > 0 is the processor's own."""
    return FaultFacts(
        source=SOURCE,
        signal=signal,
        signal_name=signal_name(signal),
        code=code,
        code_name=code_name(signal, code),
        address=address,
        ip=0x7F0000067AD8,
        sp=sp,
        module=Mapping(start=0x7F0000000000, end=0x7F0000200000, offset=0, inode=7, device=1, path=module),
        file_offset=0x67AD8,
        thread="python3",
        tid=100,
        main_thread=True,
        synchronous=code > 0,
        handled_first=False,
        near_stack=near,
        **more,
    )


def stack(*places: tuple[str, str], owner: str | None = None, complete: bool = False) -> NativeStack:
    """A native stack, innermost first, of (function, file)."""
    frames = tuple(
        NativeFrame(module=module, offset=0x1000 + index, symbol=f"{name}+0x10") for index, (name, module) in enumerate(places)
    )
    return NativeStack(source=SOURCE, frames=frames, ended="", owner=owner, complete=complete)


def python(*frames: tuple[str, str, int]) -> PythonStack:
    """Python frames, innermost first, of (function, file, line)."""
    return PythonStack(
        source=SOURCE, frames=tuple(PythonFrame(function=n, file=f, first_line=line, line=line) for n, f, line in frames)
    )


def chosen(cgroup: str | None = "/agents/x", **more: Any) -> OomKill:
    """The OOM killer chose it."""
    held = more.pop("anon_rss_bytes", 120 * MIB)
    return OomKill(
        source=SOURCE,
        anon_rss_bytes=held,
        file_rss_bytes=4 * MIB,
        shmem_rss_bytes=0,
        oom_score_adj=0,
        cgroup=cgroup,
        **{"trigger_pid": 100, "trigger_comm": "python3", "trigger": "itself"} | more,
    )


def logged(*, oom: OomReport | None = None, fault: FaultLine | None = None) -> KernelLog:
    """What the kernel log says of this pid."""
    return KernelLog(source="/dev/kmsg", oom=oom, fault=fault, lines=("a line",))


def memcg_report(**more: Any) -> OomReport:
    """The kernel's report of a cgroup that ran out of 128 MiB."""
    stated = {
        "constraint": "CONSTRAINT_MEMCG",
        "oom_memcg": "/agents",
        "task_memcg": "/agents/x",
        "limit_kb": 131072,
        "pid": 100,
    }
    return OomReport(**stated | more)  # type: ignore[arg-type]


def limits(
    limit: int | None = 128 * MIB,
    used: int | None = 127 * MIB,
    *,
    path: str = "/agents/x",
    version: int = 2,
    available: int | None = 8 * GIB,
    address_space: int | None = None,
) -> MemoryLimits:
    """The limits as last read; `limit` None: no cgroup limits it."""
    binding = None if limit is None else CgroupMemory(path=path, version=version, limit_bytes=limit, usage_bytes=used)
    return MemoryLimits(
        source=SOURCE,
        binding=binding,
        address_space_bytes=address_space,
        data_bytes=None,
        host_available_bytes=available,
        host_total_bytes=16 * GIB,
    )


def read(suggests: str | None, reader: str = "python", *, excerpt: str = "", **more: Any) -> Reading:
    """One reading."""
    says, culprit = more.pop("says", f"the words suggest {suggests}"), more.pop("culprit", None)
    return Reading(reader=reader, suggests=suggests, says=says, culprit=culprit, excerpt=excerpt, facts=more)


def words(*readings: Reading, text: str | None = None, before_end_ns: int | None = None) -> LastWords:
    """Its last words, made of the readings' excerpts unless given."""
    said = "\n".join(reading.excerpt for reading in readings) if text is None else text
    return LastWords(source=SOURCE, text=said or "working", readings=readings, before_end_ns=before_end_ns)


TRACEBACK = 'Traceback (most recent call last):\n  File "/srv/agent.py", line 12, in plan\n    x["y"]\nKeyError: \'y\''


def traceback(suggests: str = "exception/uncaught", **more: Any) -> Reading:
    """A Python traceback at the end of the words."""
    stated: dict[str, Any] = {
        "exception_type": "KeyError",
        "message": "'y'",
        "file": "/srv/agent.py",
        "line": 12,
        "function": "plan",
        "culprit": "agent.py:12 in plan: KeyError",
        "excerpt": TRACEBACK,
    }
    return read(suggests, "python", **stated | more)


def gather(*evidence: Evidence, missing: tuple[str, ...] = ()) -> dict[str, Collected]:
    """Exactly this evidence; everything else absent, or missing where named."""
    collected: dict[str, Collected] = dict.fromkeys(kinds_of(Scene))
    collected |= {kind: Missing(kind=kind, because="this test withholds it") for kind in missing}
    return collected | {each.kind: each for each in evidence}


def diagnose(*evidence: Evidence, missing: tuple[str, ...] = ()) -> Diagnosis:
    """What the causes make of it."""
    return classify(gather(*evidence, missing=missing))


def verdict(*evidence: Evidence, missing: tuple[str, ...] = ()) -> Finding:
    """The only finding."""
    found = diagnose(*evidence, missing=missing).findings
    assert len(found) == 1, [(finding.cause, finding.headline) for finding in found]
    return found[0]
