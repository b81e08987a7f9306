"""A Go or Rust program met a state that it was told never to go on from, and panicked.

What it means: in Go and Rust a programming error (nil pointer, index out of range, unwrap of an error, deadlock of all
goroutines) ends the program at once, after it printed what happened and where. It is their form of an exception that
nobody caught.

How agentscope knows: its last words are a panic, they ended just before the program did, and it ended as such a program
does: status 2 for Go, 101 for Rust, or SIGABRT from itself where it was built to abort.

What to do: go to the file and line that are named. For Rust, RUST_BACKTRACE=1 shows how it came there; for Go,
GOTRACEBACK=all shows every goroutine.

What looks like it but is not: a panic that was recovered, after which the program lived on (no incident); a fault in C
code inside the program (crash/segfault); memory that ran out (oom/runtime-heap).
"""

from agentscope.causes import No
from agentscope.causes.exception import blame, cites, fact, first_line, last_error, place_of
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

MORE = {"rust": "RUST_BACKTRACE=1", "go": "GOTRACEBACK=all"}


def match(
    *, status: WaitStatus, words: LastWords, actor: SignalActor | None, fault: FaultFacts | None, log: KernelLog | None
) -> Finding | No:
    """Its last words are a panic, and it ended as a panic ends a program."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    reading = told.reading
    if reading.suggests != "exception/panic":
        return No(f"its last words tell of no panic: {reading.says}")
    place = place_of(reading)
    said = fact(reading, "panic") or fact(reading, "fatal") or first_line(reading)
    said = next((line.strip() for line in said.splitlines() if line.strip()), "panic")
    setting = MORE.get(reading.reader)
    return Finding(
        headline=f"Panicked: {said}{f' at {place}' if place else ''}",
        culprit=blame(reading),
        confidence=told.confidence,
        cites=cites(("actor", status.signal is not None and actor is not None)),
        advice=(
            f"look at {place}" if place else "look at its last words",
            *((f"for more next time, set {setting} in its environment",) if setting else ()),
        ),
    )
