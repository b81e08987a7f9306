"""A thread called itself, or nested calls, so deep that its stack ran out.

What it means: every call takes a little of a fixed piece of memory, the stack (8 MiB for the first thread, often less
for others). A function that calls itself without end, deeply nested input (JSON with ten thousand brackets), or one
huge local array uses it up, and the next call touches the guard page below it.

How agentscope knows: the address of the fault lies right at the stack pointer, and the stack is deep; or the runtime
itself said that its stack had overflowed (Rust, Java, glibc) before it ended the program.

What to do: look at the function that repeats in the stack. If the depth is right for the input, give the thread more:
ulimit -s, threading.stack_size(), RUST_MIN_STACK, -Xss.

What looks like it but is not: a null or wild pointer (crash/segfault); Python's RecursionError or JavaScript's
RangeError, which are exceptions (exception/uncaught); Go's stack limit, which is a panic (exception/panic).
"""

from agentscope.causes import No
from agentscope.causes.crash import (
    SIGABRT,
    SIGSEGV,
    Ending,
    cited,
    look_closer,
    overflowed,
    own_fault,
    place,
    recursing,
    says_overflow,
)
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGSEGV at the stack pointer, or a runtime that says so and aborts."""
    sure = own_fault(frozenset({SIGSEGV, SIGABRT}), end)
    if isinstance(sure, No):
        return sure
    if not overflowed(end, native):
        return No("the fault was not at the end of its stack")
    told = says_overflow(end)
    found = place(end, native, python)
    name = recursing(native)
    return Finding(
        headline=f"Stack overflow{found.short}" + (f": {name} calls itself without end" if name else ""),
        culprit=found.culprit,
        confidence="likely" if sure == "certain" and not name and not told else sure,
        cites=(*cited(found, end), *(("last-words",) if told else ())),
        advice=(
            "look for recursion without end, or input nested too deep; more stack: ulimit -s, threading.stack_size(), RUST_MIN_STACK",
            *look_closer(end.status, native, python),
        ),
    )
