"""It made a system call that its sandbox forbids, and the sandbox ended it (SIGSYS).

What it means: a filter (seccomp) lists the system calls that the program may make; containers, systemd services,
browsers and agent sandboxes set such filters. The program, or a newer version of one of its libraries, made a call that
is not on the list, and the filter is set to end the program for that.

How agentscope knows: the kernel raised SIGSYS with the code SYS_SECCOMP for this process; it tells which system call it
was.

What to do: allow that call where the filter is set: SystemCallFilter= of the service, docker run --security-opt
seccomp=PROFILE.json, the sandbox's own rules; or find out why the program makes it now (often a new C library after an
update).

What looks like it but is not: a filter that only refuses, so that the call fails with an error (no signal); the strict
mode of seccomp, which ends with a SIGKILL that nobody sent (killed/sigkill); SIGSYS sent by somebody (killed/signal).
"""

from agentscope.causes import No
from agentscope.causes.crash import SIGSYS, Ending, cited, look_closer, own_fault, place
from agentscope.evidence.native_stack import NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding
from agentscope.symbols.syscalls import syscall_name

SYS_USER_DISPATCH = 2  # include/uapi/asm-generic/siginfo.h: a program's own redirection of system calls, no sandbox


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
) -> Finding | No:
    """SIGSYS by its own doing, raised by a seccomp filter."""
    sure = own_fault(frozenset({SIGSYS}), end)
    if isinstance(sure, No):
        return sure
    if end.fault is not None and end.fault.code == SYS_USER_DISPATCH:
        return No("SIGSYS came from syscall user dispatch, not from a seccomp filter")
    found = place(end, native, python, past_carriers=True)
    number = end.fault.syscall_number if end.fault is not None else None
    name = None if number is None else syscall_name(number) or f"number {number}"
    call = f"the system call {name}" if name else "a system call"
    return Finding(
        headline=f"Ended by its sandbox: a seccomp filter forbids {call}",
        culprit=f"{call}, made by {found.culprit}" if found.cites else call,
        confidence=sure,
        cites=cited(found, end),
        advice=(
            f"allow it where the filter is set: SystemCallFilter={name or 'NAME'} in its unit, or docker run --security-opt seccomp=FILE",
            *look_closer(end.status, native, python)[:1],
        ),
    )
