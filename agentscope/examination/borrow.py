"""A descriptor of another process, held for a moment to ask the kernel about the object behind it (pidfd_getfd(2), Linux 5.6).

The copy shares the open file, as dup(2) would: nothing is opened anew, so no reader or writer is added to a pipe and nobody who
is blocked in open(2) of a FIFO is let go. Should the process close its own just then, the last close (end of file for the
other end of a pipe, the FIN of a socket) happens when we let go, microseconds later; were it a socket with SO_LINGER and bytes
that nobody takes, our close(2) would wait in its place. Nothing is ever read, written or set.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_SYS_PIDFD_GETFD = 438  # the same number on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def borrowed(pid: int, number: int) -> Iterator[int | None]:
    """Our own copy of a process's descriptor, closed at the end; None where the kernel refuses or there is none."""
    copy = -1
    try:
        process = os.pidfd_open(pid)
    except OSError:
        process = -1
    if process >= 0:
        try:
            copy = int(_libc.syscall(_SYS_PIDFD_GETFD, process, number, 0))
        finally:
            os.close(process)
    try:
        yield copy if copy >= 0 else None
    finally:
        if copy >= 0:
            os.close(copy)


def socket_timeout_s(pid: int, number: int, *, sends: bool) -> float | None:
    """SO_SNDTIMEO or SO_RCVTIMEO of a socket (socket(7)), which is nowhere in /proc or sock_diag; None: none, or not to be had."""
    option = socket.SO_SNDTIMEO if sends else socket.SO_RCVTIMEO
    with borrowed(pid, number) as copy:
        if copy is None:
            return None
        # Family and kind are given, though they may be others: then nothing is asked of the socket but the option.
        asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=copy)
        try:
            seconds, microseconds = struct.unpack("@ll", asked.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("@ll")))
        except (OSError, struct.error):
            return None
        finally:
            asked.detach()
    return float(seconds + microseconds / 1e6) or None
