"""What a thread's system call waits for, its arguments read for what they mean (man-pages(2); numbers of x86-64).

Time-outs are those given to the call. One that hangs on the socket (SO_RCVTIMEO, SO_SNDTIMEO: a call in recvfrom(2) is given
none) is asked of the socket itself, where the kernel lets us borrow it; where it does not (before Linux 5.6, or not root) such
a call looks as if it waits without end. Signals, alarms and timers of the program are not seen: they can end any call.

A call that a stop or a tracer interrupted goes on as restart_syscall(2) with its old arguments; which one it was is told by the
kernel's stack.
"""

import os
import posixpath
import struct
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from agentscope.examination import Call
from agentscope.examination.borrow import socket_timeout_s
from agentscope.examination.futexes import CONTENDED, futex_call, futex_wait_call, futex_waitv_call, mutex_at
from agentscope.examination.memory import Memory
from agentscope.examination.proc import link_of, numbers_of_namespaces, plain, read_proc, read_stat, status_field, tids_of
from agentscope.examination.timeouts import REALTIME, UNREAD, milliseconds, signed, timespec, timeval, until
from agentscope.model import LastSyscall
from agentscope.symbols.syscalls import syscall_name

_MOST_DESCRIPTORS = 4096
_PATH_LIMIT = 4096
_AT_FDCWD = -100
_TIMER_ABSTIME = 1
_P_PID, _P_PIDFD = 1, 3
_IO_URING_EXT_ARG, _IO_URING_REGISTERED, _IO_URING_ABS_TIMER = 1 << 3, 1 << 4, 1 << 5

# Calls whose first argument is the descriptor that they wait for. A time-out of the socket ends the first two kinds.
_RECEIVES = frozenset(
    {"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4"}
)  # recvmmsg's own time-out is looked at only between datagrams (recvmmsg(2), BUGS): it ends no wait
_SENDS = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "connect"})
_ON_DESCRIPTOR = frozenset(
    {
        "flock", "fcntl", "ioctl", "fsync", "fdatasync", "sync_file_range", "syncfs", "ftruncate", "fallocate", "fstat", "lseek",
        "close", "getdents", "getdents64", "fadvise64", "readahead", "fchmod", "fchown", "fstatfs", "fsetxattr", "fgetxattr",
        "vmsplice", "finit_module", "shutdown", "getsockopt", "setsockopt",
    }
)  # fmt: skip
_ON_PATH = frozenset(
    {
        "open", "creat", "stat", "lstat", "access", "truncate", "rename", "mkdir", "rmdir", "link", "unlink", "symlink",
        "readlink", "chmod", "chown", "lchown", "statfs", "chdir", "chroot", "umount2", "utime", "utimes", "mknod", "execve",
        "getxattr", "lgetxattr", "setxattr", "listxattr", "swapoff",
    }
)  # fmt: skip
_ON_PATH_AT = frozenset(
    {
        "openat", "openat2", "newfstatat", "statx", "faccessat", "faccessat2", "mkdirat", "unlinkat", "renameat", "renameat2",
        "linkat", "readlinkat", "fchmodat", "fchownat", "mknodat", "utimensat", "execveat", "name_to_handle_at",
    }
)  # fmt: skip


def read_call(pid: int, tid: int, syscall: LastSyscall, *, since_ns: int | None = None) -> Call:
    """What the call that a thread is blocked in waits for. `since_ns` (CLOCK_BOOTTIME) is when it blocked, if that is known.

    For several threads of one process a `CallReader` is cheaper.
    """
    with CallReader(pid) as reader:
        return reader.read(tid, syscall, since_ns=since_ns)


def abandoned_by(pid: int, address: int) -> int | None:
    """Who never gives back the mutex of glibc that a thread waits for at `address`: a tid that is no thread of the process.

    It ended while it held the mutex, or the process was forked while another thread held it. None: no such mutex, or its owner
    lives. The tid is as the process counts. A mutex that processes share, or that is made for dead owners, is never abandoned.
    """
    with CallReader(pid) as reader:
        mutex = mutex_at(reader.memory, address, CONTENDED)
        if mutex is None or mutex.shared or mutex.robust or reader.thread_of(mutex.owner) is not None:
            return None
        return mutex.owner


class CallReader:
    """Reads the calls of one process's threads at one moment; keeps its memory open, and what it learned, until it is closed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.memory = Memory(pid)
        self._namespaces: int | None = None
        self._own_numbers: dict[int, int] | None = None
        self._socket_timeouts: dict[tuple[int, bool], float | None] = {}
        self._is_64_bit: bool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.memory.close()

    def read(self, tid: int, syscall: LastSyscall, *, since_ns: int | None = None) -> Call:
        """As `read_call` does, for one of this process's threads."""
        if not self._numbers_are_ours():
            return Call(name=f"32-bit call {syscall.number}", timeout_s=UNREAD)
        args = (*syscall.args, 0, 0, 0, 0, 0, 0)[:6]
        name = syscall_name(syscall.number) or f"call {syscall.number}"
        if name == "restart_syscall":
            name = self._restarted(tid, args)
        if name == "restart_syscall":
            return Call(name=name, timeout_s=UNREAD)
        special = _SPECIAL.get(name)
        if special is not None:
            return special(_Asked(self, name, args, since_ns))
        number = signed(args[0])
        if name in _RECEIVES or name in _SENDS:
            return Call(name=name, descriptors=(number,), timeout_s=self._socket_timeout_s(number, sends=name in _SENDS))
        if name in _ON_DESCRIPTOR:
            return Call(name=name, descriptors=(number,))
        if name in _ON_PATH:
            return Call(name=name, path=self._path(_AT_FDCWD, args[0]))
        if name in _ON_PATH_AT:
            return Call(name=name, path=self._path(number, args[1]))
        return Call(name=name)

    def thread_of(self, own_number: int) -> int | None:
        """Our tid of the thread that calls itself `own_number`; None where this process has no such thread."""
        if self._depth() <= 1:
            return own_number if read_stat(self.pid, own_number) else None
        if self._own_numbers is None:
            numbers = ((tid, numbers_of_namespaces(self.pid, tid)) for tid in tids_of(self.pid))
            self._own_numbers = {known[-1]: tid for tid, known in numbers if known}
        return self._own_numbers.get(own_number)

    def child_of(self, own_number: int) -> int | None:
        """Our pid of the child that the process knows by a number: where it has a pid namespace of its own, they differ."""
        depth = self._depth()
        if depth <= 1:
            return own_number
        for tid in tids_of(self.pid):
            text = read_proc(f"/proc/{self.pid}/task/{tid}/children") or b""
            for child in (int(word) for word in text.split()[:_MOST_DESCRIPTORS] if word.isdigit()):
                if numbers_of_namespaces(child)[depth - 1 : depth] == (own_number,):
                    return child
        return None

    def _depth(self) -> int:
        """In how many pid namespaces the process has a number, from ours down."""
        if self._namespaces is None:
            self._namespaces = len(numbers_of_namespaces(self.pid))
        return self._namespaces

    def _numbers_are_ours(self) -> bool:
        """Whether the process is 64-bit. The first type in its auxiliary vector is small: in 8 bytes, the upper 4 are zero."""
        if self._is_64_bit is None:
            vector = read_proc(f"/proc/{self.pid}/auxv", 8)
            self._is_64_bit = not vector or vector[4:8] == bytes(4)
        return self._is_64_bit

    def _socket_timeout_s(self, number: int, *, sends: bool) -> float | None:
        key = number, sends
        if key not in self._socket_timeouts:
            found = None
            if (link_of(f"/proc/{self.pid}/fd/{number}") or "").startswith("socket:["):
                found = socket_timeout_s(self.pid, number, sends=sends)
            self._socket_timeouts[key] = found
        return self._socket_timeouts[key]

    def _path(self, folder: int, address: int) -> str | None:
        """A path argument, made absolute as the process sees it: the folder is one of its descriptors, or where it stands."""
        raw = self.memory.string(address, _PATH_LIMIT)
        if raw is None:
            return None
        path = os.fsdecode(raw)
        if not path.startswith("/"):
            link = link_of(f"/proc/{self.pid}/{'cwd' if folder == _AT_FDCWD else f'fd/{folder}'}")
            path = posixpath.join(link or "", path)
        return plain(path, _PATH_LIMIT)

    def _restarted(self, tid: int, args: tuple[int, ...]) -> str:
        """The call that restart_syscall(2) goes on with: those that set a restart block are poll, futex and the two sleeps."""
        stack = read_proc(f"/proc/{self.pid}/task/{tid}/stack")
        if not stack:
            return "restart_syscall"
        if b"do_restart_poll" in stack:
            return "poll"
        if b"futex_wait_restart" in stack:
            return "futex"
        # hrtimer_nanosleep_restart leaves no frame. nanosleep begins with a pointer, clock_nanosleep with the number of a clock.
        return "clock_nanosleep" if args[0] < 4096 or args[0] >> 63 else "nanosleep"


# --- calls with arguments of their own form -------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """One call to be read: of whose thread, its name and arguments, and when it began."""

    reader: CallReader
    name: str
    args: tuple[int, ...]
    since_ns: int | None

    @property
    def memory(self) -> Memory:
        """Of the caller."""
        return self.reader.memory


_Special = Callable[[_Asked], Call]


def _poll(asked: _Asked) -> Call:
    """poll(fds, nfds, milliseconds) and ppoll(fds, nfds, timespec, mask): struct pollfd is { int fd; short events, revents }."""
    count = min(asked.args[1] & 0xFFFFFFFF, _MOST_DESCRIPTORS)
    raw = asked.memory.read(asked.args[0], 8 * count) or b""
    descriptors = tuple(number for number, _ in struct.iter_unpack("<ii", raw) if number >= 0)
    timeout_s = milliseconds(asked.args[2]) if asked.name == "poll" else timespec(asked.memory, asked.args[2])
    return Call(name=asked.name, descriptors=descriptors, timeout_s=timeout_s)


def _select(asked: _Asked) -> Call:
    """select(nfds, read, write, except, timeval) and pselect6 with a timespec: bit N of each set is descriptor N."""
    count = min(max(signed(asked.args[0]), 0), _MOST_DESCRIPTORS)
    wanted = 0
    for address in asked.args[1:4]:
        raw = asked.memory.read(address, (count + 63) // 64 * 8) if address and count else None
        wanted |= int.from_bytes(raw or b"", "little")
    descriptors = tuple(number for number in range(count) if wanted >> number & 1)
    read_timeout = timeval if asked.name == "select" else timespec
    return Call(name=asked.name, descriptors=descriptors, timeout_s=read_timeout(asked.memory, asked.args[4]))


def _epoll(asked: _Asked) -> Call:
    """epoll_wait(epfd, events, maxevents, milliseconds); epoll_pwait2 has a timespec there."""
    timeout_s = timespec(asked.memory, asked.args[3]) if asked.name == "epoll_pwait2" else milliseconds(asked.args[3])
    return Call(name=asked.name, descriptors=(signed(asked.args[0]),), timeout_s=timeout_s)


def _sleep(asked: _Asked) -> Call:
    """nanosleep(request, rest) and clock_nanosleep(clock, flags, request, rest). No sleep is without end."""
    if asked.name == "nanosleep":
        timeout_s = timespec(asked.memory, asked.args[0])
    elif asked.args[1] & _TIMER_ABSTIME:
        timeout_s = until(asked.memory, asked.args[2], signed(asked.args[0]), asked.since_ns)
    else:
        timeout_s = timespec(asked.memory, asked.args[2])
    return Call(name=asked.name, timeout_s=UNREAD if timeout_s is None else timeout_s)


def _futex(asked: _Asked) -> Call:
    if asked.name == "futex":
        return futex_call(asked.memory, asked.args, asked.reader.thread_of, asked.since_ns)
    return (futex_waitv_call if asked.name == "futex_waitv" else futex_wait_call)(asked.memory, asked.args, asked.since_ns)


def _wait4(asked: _Asked) -> Call:
    """wait4(pid, status, options, usage): a pid, or a process group (negative) or any (-1) or its own group (0)."""
    number = signed(asked.args[0])
    return Call(name=asked.name, child=asked.reader.child_of(number) if number > 0 else None)


def _waitid(asked: _Asked) -> Call:
    """waitid(kind, id, information, options, usage): a pid, a pidfd, a process group or any."""
    kind, number = asked.args[0] & 0xFFFFFFFF, signed(asked.args[1])
    if kind == _P_PID:
        return Call(name=asked.name, child=asked.reader.child_of(number))
    if kind != _P_PIDFD:
        return Call(name=asked.name)
    text = read_proc(f"/proc/{asked.reader.pid}/fdinfo/{number}") or b""
    child = status_field(text, b"Pid")
    return Call(name=asked.name, descriptors=(number,), child=int(child) if child and child.isdigit() else None)


def _timed(position: int) -> _Special:
    """A call with a relative timespec as argument `position`, and nothing else that we read."""

    def read(asked: _Asked) -> Call:
        return Call(name=asked.name, timeout_s=timespec(asked.memory, asked.args[position]))

    return read


def _message_queue(asked: _Asked) -> Call:
    """mq_timedreceive(mqd, message, length, priority, timespec), absolute on CLOCK_REALTIME; its sending twin alike."""
    return Call(
        name=asked.name,
        descriptors=(signed(asked.args[0]),),
        timeout_s=until(asked.memory, asked.args[4], REALTIME, asked.since_ns),
    )


def _io_uring(asked: _Asked) -> Call:
    """io_uring_enter(fd, submit, complete, flags, argument, size): with EXT_ARG a struct { sigmask, size, pad, u64 timespec }."""
    descriptors = () if asked.args[3] & _IO_URING_REGISTERED else (signed(asked.args[0]),)
    if not asked.args[3] & _IO_URING_EXT_ARG or not asked.args[4]:
        return Call(name=asked.name, descriptors=descriptors)
    address = asked.memory.number(asked.args[4] + 16, "<Q")
    if address is None or asked.args[3] & _IO_URING_ABS_TIMER:
        return Call(name=asked.name, descriptors=descriptors, timeout_s=UNREAD)
    return Call(name=asked.name, descriptors=descriptors, timeout_s=timespec(asked.memory, address))


def _two_descriptors(second: int) -> _Special:
    """A call that moves bytes between its first descriptor and the one at `second`."""

    def read(asked: _Asked) -> Call:
        return Call(name=asked.name, descriptors=(signed(asked.args[0]), signed(asked.args[second])))

    return read


_SPECIAL: dict[str, _Special] = {
    "poll": _poll,
    "ppoll": _poll,
    "select": _select,
    "pselect6": _select,
    "epoll_wait": _epoll,
    "epoll_pwait": _epoll,
    "epoll_pwait2": _epoll,
    "nanosleep": _sleep,
    "clock_nanosleep": _sleep,
    "futex": _futex,
    "futex_waitv": _futex,
    "futex_wait": _futex,
    "wait4": _wait4,
    "waitid": _waitid,
    "rt_sigtimedwait": _timed(2),
    "semtimedop": _timed(3),
    "io_getevents": _timed(4),
    "io_pgetevents": _timed(4),
    "mq_timedreceive": _message_queue,
    "mq_timedsend": _message_queue,
    "io_uring_enter": _io_uring,
    "sendfile": _two_descriptors(1),
    "copy_file_range": _two_descriptors(2),
    "tee": _two_descriptors(1),
    "splice": _two_descriptors(2),
}
