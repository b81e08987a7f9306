"""It touched a page of a file or of shared memory that is not there any more (SIGBUS).

What it means: a program can map a file into its memory and read it like an array. If the file has become shorter since,
or its disk or /dev/shm is full when a page must be made, or the memory chip itself is broken, touching that page ends
the program.

How agentscope knows: the kernel raised SIGBUS for an instruction of this process; its code tells the kind (BUS_ADRERR:
the page is not there; BUS_ADRALN: a misaligned address; BUS_MCEERR_AR: broken hardware).

What to do: find out which file is mapped and who shortens or replaces it in place: install files by rename, never by
writing over them. For /dev/shm in a container raise its size (docker run --shm-size). For BUS_MCEERR look at the
hardware: ras-mc-ctl --summary.

What looks like it but is not: SIGBUS sent by somebody (killed/signal); a bad pointer (crash/segfault); a full disk met
by write(), which is an error and no signal (exception/disk-full).
"""

from agentscope.causes import No
from agentscope.causes.crash import SIGBUS, Ending, cited, look_closer, own_fault, place
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding

# si_code of SIGBUS, include/uapi/asm-generic/siginfo.h
KINDS = {
    1: "a misaligned address",
    2: "a mapped file is shorter than it was, or its disk or /dev/shm is full",
    3: "the hardware behind the address failed",
    4: "the memory there is broken (hardware)",
    5: "the memory there is broken (hardware)",
}
HARDWARE = frozenset({3, 4, 5})


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGBUS by its own doing."""
    sure = own_fault(frozenset({SIGBUS}), end)
    if isinstance(sure, No):
        return sure
    found = place(end, native, python)
    code = end.fault.code if end.fault is not None and end.fault.synchronous else None
    kind = KINDS.get(code or 0, "the page it touched could not be had")
    at = (
        f" (address {end.fault.address:#x})"
        if end.fault is not None and end.fault.synchronous and end.fault.address is not None
        else ""
    )
    check = "see whether /dev/shm or the disk of its mapped files is full: df -h /dev/shm /tmp; docker run --shm-size=1g for containers"
    return Finding(
        headline=f"Bus error{found.short}: {kind}{at}",
        culprit=found.culprit,
        confidence=sure,
        cites=cited(found, end),
        advice=(
            "look at the machine's memory: dmesg | grep -i 'memory failure'; ras-mc-ctl --summary"
            if code in HARDWARE
            else check,
            *look_closer(end.status, None, python),
        ),
    )
