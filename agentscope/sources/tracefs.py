"""What tracefs says of a tracepoint, from a tracefs of our own that no mount namespace shows: so it need not be mounted."""

import os

from agentscope.sources.libbpf import system_call

# the same on all architectures since 5.2: include/uapi/asm-generic/unistd.h
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC_FLAG = 1  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC
_FORMAT_BYTES = 65536


def tracepoint_file(category: str, event: str, name: str) -> bytes:
    """One of the files of a tracepoint: "id" or "format". OSError where the kernel has none or refuses it."""
    context = system_call(_SYS_FSOPEN, b"tracefs", _CLOEXEC_FLAG)
    try:
        system_call(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        mount = system_call(_SYS_FSMOUNT, context, _CLOEXEC_FLAG, 0)
    finally:
        os.close(context)
    try:
        descriptor = os.open(f"events/{category}/{event}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_FORMAT_BYTES)


def tracepoint_id(category: str, event: str) -> int:
    """The kernel's number of a tracepoint. OSError where the kernel has none or refuses it."""
    return int(tracepoint_file(category, event, "id"))
