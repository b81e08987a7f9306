"""It ran an instruction that this processor does not have, or one that means "this must never be reached" (SIGILL).

What it means: either the program or one of its libraries was built for a newer processor (AVX2, AVX-512) than the one
it runs on; or the compiler had put a deliberate trap at a place that must never be reached; or the program jumped into
something that is no code.

How agentscope knows: the kernel raised SIGILL for an instruction of this process, and the stack tells in which file and
function.

What to do: compare the processor with what the library needs: lscpu | grep -i avx. After a move to another machine or a
change of the virtual machine's CPU type, install a build for the plain x86-64 or set the CPU type to "host".

What looks like it but is not: SIGILL sent by somebody (killed/signal); a failed check that calls abort() (crash/abort).
"""

from agentscope.causes import No
from agentscope.causes.crash import SIGILL, Ending, cited, look_closer, own_fault, place
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGILL by its own doing."""
    sure = own_fault(frozenset({SIGILL}), end)
    if isinstance(sure, No):
        return sure
    found = place(end, native, python)
    return Finding(
        headline=f"Illegal instruction{found.short}: built for another processor, or a place that must never be reached",
        culprit=found.culprit,
        confidence=sure,
        cites=cited(found, end),
        advice=(
            "see what this processor can do: lscpu | grep -i -E 'model name|avx'; a library built for a newer one cannot run here",
            *look_closer(end.status, native, python),
        ),
    )
