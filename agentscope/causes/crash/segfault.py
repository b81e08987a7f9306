"""Its code touched memory that it does not own, and the processor stopped it (SIGSEGV).

What it means: some native code, of the program itself or far more often of a library or extension module that it loads,
followed a bad pointer: null, already freed, or plain wrong. Python, JavaScript and the like never do that by
themselves.

How agentscope knows: the kernel raised SIGSEGV for an instruction of this very process (not `kill -11` from somebody);
its probe keeps the address, the registers and the stack, and for Python the line that was running. A crash handler such
as faulthandler that passes the signal on is seen through.

What to do: look at the library that is named and its version; try the one before or after it. With a core dump, gdb
shows the rest. For an agent in Python, the line shows which call led into the native code.

What looks like it but is not: `kill -11` from outside (killed/signal); a stack that ran out (crash/stack-overflow); a
fault that the program catches on purpose and survives, as Java and Go do (no incident); a library that was replaced
under the running program (drift), which needs proof of a change.
"""

from agentscope.causes import No
from agentscope.causes.crash import NULL_PAGES, SIGSEGV, Ending, cited, look_closer, overflowed, own_fault, place
from agentscope.evidence.actor import SI_KERNEL
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding

SEGV_ACCERR = 2
WRITE_BIT = 2  # arch/x86/include/asm/trap_pf.h, X86_PF_WRITE


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGSEGV by its own doing, with stack to spare."""
    sure = own_fault(frozenset({SIGSEGV}), end)
    if isinstance(sure, No):
        return sure
    if overflowed(end, native):
        return No("the stack had run out")
    found = place(end, native, python)
    doubt = "; whether it faulted or was sent that could not be seen" if sure == "possible" else ""
    return Finding(
        headline=f"Segmentation fault{found.short}: {what(end.fault, end.log)}{doubt}",
        culprit=found.culprit,
        confidence=sure,
        cites=cited(found, end),
        advice=look_closer(end.status, native, python),
    )


def what(fault: FaultFacts | None, log: KernelLog | None) -> str:
    """What the instruction did, as far as the kernel says."""
    line = log.fault if log is not None else None
    did = "touched"
    if line is not None and line.error_code and line.trap is None:
        try:
            did = "wrote to" if int(line.error_code, 16) & WRITE_BIT else "read from"
        except ValueError:
            did = "touched"
    if fault is None or not fault.synchronous:
        return f"it {did} memory that is not its own"
    if fault.code == SI_KERNEL:
        return "it used an address that cannot exist (a destroyed pointer)"
    if fault.address is None:
        return f"it {did} memory that is not its own"
    if fault.address == fault.ip:
        return f"it jumped to {fault.address:#x}, where there is no code"
    if fault.address < NULL_PAGES:
        return f"it {did} a null pointer (address {fault.address:#x})"
    if fault.code == SEGV_ACCERR:
        return f"it {did} {fault.address:#x}, memory that is there but not open for that"
    return f"it {did} {fault.address:#x}, where no memory is"
