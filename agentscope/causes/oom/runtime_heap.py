"""Its own language runtime ran out of memory: MemoryError in Python, a full heap in Node or Java.

What it means: no kernel killed it. The program asked for memory and was refused, either by a ceiling of its own runtime
(V8's heap, Java's -Xmx) or by a limit on its address space (ulimit -v, RLIMIT_AS), and nobody in the program handled
that. The machine may have had plenty left.

How agentscope knows: its last words, which ended just before it did, are those of such a failure, and it ended in the
way in which that runtime ends then (Python with exit code 1, Node with SIGABRT from itself, Java with 1 or 3). No
signal came from outside, and the kernel's OOM killer did not choose it.

What to do: for Node, NODE_OPTIONS=--max-old-space-size=MEGABYTES; for Java, -Xmx; for Python, raise or drop RLIMIT_AS
(ulimit -v, LimitAS= of the service) or hold less at once: the report names the line that asked for more.

What looks like it but is not: the kernel's OOM killer (oom/cgroup, oom/global); a MemoryError that was caught, after
which the program lived on (no incident); text about memory in the log of a program that somebody killed
(killed/sigkill).
"""

from agentscope.causes import No
from agentscope.causes.exception import first_line, last_error, place_of
from agentscope.causes.oom import size
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

WHO = {"python": "Python", "node": "the JavaScript heap", "jvm": "Java", "go": "Go", "rust": "Rust"}
DO = {
    "python": "hold less at once where the traceback points, or process it in pieces",
    "node": "give V8 a larger heap: NODE_OPTIONS=--max-old-space-size=8192 (megabytes); take a look with --heapsnapshot-near-heap-limit=1",
    "jvm": "give Java a larger heap: -Xmx4g, or -XX:MaxRAMPercentage=75 in a container; -XX:+HeapDumpOnOutOfMemoryError shows what fills it",
    "go": "see who refuses memory: ulimit -v, vm.overcommit_memory; GOMEMLIMIT makes the collector work harder before that",
}


def match(
    *,
    status: WaitStatus,
    words: LastWords,
    actor: SignalActor | None,
    fault: FaultFacts | None,
    log: KernelLog | None,
    limits: MemoryLimits | None,
) -> Finding | No:
    """Its last words tell of a refused allocation, and it ended as its runtime ends then."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    if told.reading.suggests != "oom/runtime-heap":
        return No(f"its last words tell of something else: {told.reading.says}")
    reading = told.reading
    who = WHO.get(reading.reader, "its runtime")
    ceiling = limits.address_space_bytes if limits is not None else None
    if ceiling is None and limits is not None:
        ceiling = limits.data_bytes
    limited = ceiling is not None and reading.reader not in {"node", "jvm"}
    place = place_of(reading)
    advice = [DO.get(reading.reader, "give its runtime a larger heap, or hold less at once")]
    if limited:
        advice.append(
            f"it may use {size(ceiling)} of address space (RLIMIT_AS): raise it with ulimit -v, or LimitAS= of its service"
        )
    return Finding(
        headline=f"Out of memory inside {who}: {first_line(reading)}{f' at {place}' if place else ''}; the kernel did not kill it",
        culprit=f"{reading.culprit or place or who}{f'; limit RLIMIT_AS {size(ceiling)}' if limited else ''}",
        confidence=told.confidence,
        cites=("wait-status", "last-words", *(("memory-limits",) if limited else ())),
        advice=tuple(advice),
    )
