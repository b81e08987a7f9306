"""Ends as a pidfd tells them: whether, to anybody who holds one (Linux 5.3), and how, to them as well since 6.15 (pidfd_open(2))."""

import contextlib
import fcntl
import os
import select
import struct

from agentscope.examination.proc import read_proc

# include/uapi/linux/pidfd.h: PIDFD_GET_INFO is _IOWR(0xFF, 11, struct pidfd_info), whose first version has 64 bytes
_GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11
_WITH_EXIT = 1 << 3
_MASK = struct.Struct("=Q")
_STATUS_AT = 60  # after mask, cgroupid, four ids of processes and eight of users


def open_pidfd(pid: int) -> int | None:
    """A pidfd; None where the process has ended, or no descriptor is left."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def has_ended(descriptor: int | None) -> bool:
    """Whether all threads of its process have ended; False where there is no pidfd."""
    if descriptor is None:
        return False
    asked = select.poll()
    asked.register(descriptor, select.POLLIN)
    return bool(asked.poll(0))


def status_at_end(descriptor: int | None, pid: int) -> int | None:
    """The raw wait status of a process that has ended, from the kernel's own record or from what is left of it; None: nobody tells.

    Between its end and its parent's reading of it the process stands in /proc, afterwards the pidfd knows: asked in this order,
    and once more, since the parent may read it in between.
    """
    for _ in range(2):
        status = _of_zombie(pid, descriptor)
        if status is None and descriptor is not None:
            status = _of_pidfd(descriptor)
        if status is not None:
            return status
    return None


def _of_pidfd(descriptor: int) -> int | None:
    with contextlib.suppress(OSError):
        answer = fcntl.ioctl(descriptor, _GET_INFO, _MASK.pack(_WITH_EXIT).ljust(64, b"\0"))
        if _MASK.unpack_from(answer)[0] & _WITH_EXIT:
            return int(struct.unpack_from("=I", answer, _STATUS_AT)[0])
    return None


def _of_zombie(pid: int, descriptor: int | None) -> int | None:
    """Field 52 of /proc/PID/stat (proc_pid_stat(5)): of a zombie, and for who may trace it; else it reads 0, so it is not asked."""
    line = read_proc(f"/proc/{pid}/stat")
    fields = line[line.rfind(b")") + 2 :].split() if line else []
    if len(fields) < 50 or fields[0] != b"Z" or not _is_that(pid, descriptor) or not _may_trace(pid):
        return None
    return int(fields[49])


def _is_that(pid: int, descriptor: int | None) -> bool:
    """Whether the number is still that of the pidfd's process: of one that was waited for, the pidfd names -1."""
    text = read_proc(f"/proc/self/fdinfo/{descriptor}") if descriptor is not None else None
    return text is None or f"\nPid:\t{pid}\n".encode() in b"\n" + text


def _may_trace(pid: int) -> bool:
    """The kernel asks for PTRACE_MODE_READ before it tells, and so do the links of a process."""
    if os.geteuid() == 0:
        return True
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()  # noqa: PTH116 - no path object for each end
    except OSError:
        return False
