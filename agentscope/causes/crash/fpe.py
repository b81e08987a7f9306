"""It divided an integer by zero, or did other arithmetic that the processor refuses (SIGFPE).

What it means: in native code (C, C++, Rust without checks, a library) a whole number was divided by zero, or the
smallest number by -1. Despite the signal's name floating-point numbers are hardly ever involved. Python raises
ZeroDivisionError instead and never dies so.

How agentscope knows: the kernel raised SIGFPE for an instruction of this process; its code says which arithmetic, the
stack where.

What to do: look at the function that is named and at the input it was given: a size, a count or a rate was zero where
the author took it for granted that it never is.

What looks like it but is not: SIGFPE sent by somebody (killed/signal); an uncaught ZeroDivisionError, which
ends the program by an exit status and not by a signal (exception/uncaught).
"""

from agentscope.causes import No
from agentscope.causes.crash import SIGFPE, Ending, cited, look_closer, own_fault, place
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding

# si_code of SIGFPE, include/uapi/asm-generic/siginfo.h
KINDS = {
    1: "a whole number was divided by zero",
    2: "a whole number overflowed",
    3: "a floating-point number was divided by zero",
    4: "a floating-point number overflowed",
    5: "a floating-point number underflowed",
    6: "a floating-point result was not exact",
    7: "a floating-point operation was invalid",
}


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGFPE by its own doing."""
    sure = own_fault(frozenset({SIGFPE}), end)
    if isinstance(sure, No):
        return sure
    found = place(end, native, python)
    code = end.fault.code if end.fault is not None and end.fault.synchronous else 0
    return Finding(
        headline=f"Arithmetic error (SIGFPE){found.short}: {KINDS.get(code, 'a division by zero, most likely')}",
        culprit=found.culprit,
        confidence=sure,
        cites=cited(found, end),
        advice=look_closer(end.status, native, python),
    )
