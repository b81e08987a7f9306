"""Starts a command for which the kernel refuses system calls with EPERM, as a sandbox does: `refusing.py bpf,pidfd_open -- COMMAND…`.

`proc-connector` refuses sockets of that netlink family, as kernels before 6.6 do without root. A seccomp filter in classic BPF
(Documentation/userspace-api/seccomp_filter.rst), for x86-64.
"""

import ctypes
import os
import struct
import sys

CALLS = {"bpf": 321, "pidfd_open": 434}
LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
ALLOW, EPERM = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
SOCKET, PROTOCOL_AT, CONNECTOR = 41, 16 + 2 * 8, 11
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2


def program(refused: list[str]) -> list[tuple[int, int, int, int]]:
    """The instructions: code, jump if true, jump if false, value."""
    lines = [(LOAD, 0, 0, 0)]
    for name in refused:
        if name == "proc-connector":
            lines += [
                (EQUALS, 0, 4, SOCKET),
                (LOAD, 0, 0, PROTOCOL_AT),
                (EQUALS, 0, 1, CONNECTOR),
                (RETURN, 0, 0, EPERM),
                (LOAD, 0, 0, 0),
            ]
        else:
            lines += [(EQUALS, 0, 1, CALLS[name]), (RETURN, 0, 0, EPERM)]
    return [*lines, (RETURN, 0, 0, ALLOW)]


def refuse(refused: list[str]) -> None:
    """From now on these calls fail, here and in whatever is started from here."""
    packed = b"".join(struct.pack("=HBBI", *line) for line in program(refused))
    buffer = ctypes.create_string_buffer(packed, len(packed))
    head = ctypes.create_string_buffer(struct.pack("HP", len(packed) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER, head, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse(sys.argv[1].split(","))
    os.execvp(sys.argv[3], sys.argv[3:])
