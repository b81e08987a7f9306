"""It ended itself on purpose because it found its own state broken (SIGABRT).

What it means: a check inside the program or one of its libraries failed and called abort(): an assert, the C library
finding its heap damaged ("double free or corruption"), a C++ exception that nobody caught, os.abort(). Ending at once
is safer than going on. Some programs use a trap instruction (SIGTRAP) for the same.

How agentscope knows: the signal came from the process itself, not from outside; the native stack shows who called
abort(), and the last words often say why.

What to do: read the message in the report. Heap damage is mostly done long before it is found: run with
MALLOC_CHECK_=3, or under valgrind or AddressSanitizer. For a failed assertion, the file and line are in the message.

What looks like it but is not: a watchdog or person that sends SIGABRT (killed/signal); a full JavaScript heap, which V8
also ends by abort (oom/runtime-heap); a Rust or Go panic built to abort (exception/panic).
"""

from agentscope.causes import No
from agentscope.causes.crash import SIGABRT, SIGTRAP, Ending, cited, look_closer, overflowed, own_fault, place
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGABRT or a trap by its own doing, for no reason that has a cause of its own."""
    sure = own_fault(frozenset({SIGABRT, SIGTRAP}), end)
    if isinstance(sure, No):
        return sure
    if overflowed(end, native):
        return No("its stack had run out")
    found = place(end, native, python, past_carriers=True)
    told = None
    if end.words is not None:
        told = end.words.reading("crash/abort") or next(
            (r for r in end.words.readings if (r.suggests or "").startswith("crash/")), None
        )
    how = "Aborted itself" if end.status.signal == SIGABRT else "Stopped itself by a trap instruction"
    why = f": {told.says}" if told is not None else "; its last words give no reason" if end.words is not None else ""
    doubt = "; whether it did so itself could not be seen" if sure == "possible" else ""
    nowhere = not found.cites and end.fault is None
    culprit = found.culprit
    if told is not None and told.culprit:
        culprit = told.culprit if nowhere else f"{told.culprit}; {found.culprit}"
    return Finding(
        headline=f"{how} ({end.status.signal_name}){found.short}{why}{doubt}",
        culprit=culprit,
        confidence=sure,
        cites=(*cited(found, end), *(("last-words",) if told is not None else ())),
        advice=look_closer(end.status, native, python),
    )
