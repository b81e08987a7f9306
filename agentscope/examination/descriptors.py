"""What a process has open, and who else has the other end: /proc/PID/fd and fdinfo, pipes asked for how full they are.

An inode number is enough to tell sockets and pipes apart: each kind has one number space on a machine.
"""

import fcntl
import os
import stat
import struct
import termios
import time
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from agentscope.examination import Descriptor, DescriptorKind, Holder, Pipe
from agentscope.examination.borrow import borrowed
from agentscope.examination.mounts import Mounts, OpenFile, open_file
from agentscope.examination.proc import holder_of, link_of, numbers_in, plain

Access = Literal["r", "w", "rw"]

_F_GETPIPE_SZ = 1032  # linux/fcntl.h
_TARGET_LIMIT = 4096
_EPOLL_LIMIT_BYTES = 1 << 19
_MOST_PROCESSES = 1 << 16
_MOST_SCANNED = 1 << 16  # descriptors of one stranger
_MOST_HOLDERS = 64  # of one object
_ANONYMOUS: dict[str, DescriptorKind] = {
    "anon_inode:[eventpoll]": "epoll",
    "anon_inode:[eventfd]": "eventfd",
    "anon_inode:[timerfd]": "timerfd",
    "anon_inode:[signalfd]": "signalfd",
    "anon_inode:inotify": "inotify",
    "anon_inode:[inotify]": "inotify",
}
# Documentation/admin-guide/devices.txt: consoles and serial ports, Unix98 terminals, USB, ARM and hypervisor consoles
_TTY_MAJORS = frozenset({4, *range(136, 144), 188, 204, 229})
_TTY, _CONSOLE, _NULL = (5, 0), (5, 1), (1, 3)


class Holders(dict[int, tuple[Holder, ...]]):
    """Who has an object open, by its inode. `complete` is False where the time was over before every process was looked at."""

    complete: bool = True


class _End(NamedTuple):
    """One descriptor of somebody that matched: `device` tells FIFOs of different file systems apart."""

    pid: int
    number: int
    access: Access | None
    target: str
    device: int


def read_descriptors(pid: int, limit: int = 4096) -> tuple[Descriptor, ...]:
    """The open descriptors of a process, lowest first, at most `limit`; empty where it has ended or may not be looked at."""
    mounts = Mounts(pid)
    found = []
    for number in numbers_in(f"/proc/{pid}/fd", limit):
        target = link_of(f"/proc/{pid}/fd/{number}")
        if target is not None:
            found.append(_described(pid, number, target, mounts))
    return tuple(found)


def inodes_held(pids: Collection[int]) -> dict[int, tuple[int, ...]]:
    """The sockets and pipes that these processes have open: inode to the pids that have it."""
    found: dict[int, list[int]] = {}
    for pid in pids:
        for _, target in _targets(pid, _MOST_SCANNED, time.monotonic() + 1):
            inode = numbered_inode(target)
            if inode is not None and pid not in found.setdefault(inode, []):
                found[inode].append(pid)
    return {inode: tuple(holders) for inode, holders in found.items()}


def holders_of(inodes: Collection[int], skip: int | None = None, *, limit_s: float = 0.2) -> Holders:
    """Every process of the machine that has one of these sockets or pipes open, `skip` (None: ourselves) left out.

    Of each process its lowest descriptor is named. A process that we may not look at is not found.
    """
    ends, complete = _scan(frozenset(inodes), os.getpid() if skip is None else skip, time.monotonic() + limit_s)
    found = Holders((inode, _holders(each)) for inode, each in ends.items())
    found.complete = complete
    return found


def numbered_inode(target: str) -> int | None:
    """The inode in "socket:[123]" or "pipe:[123]"; None for everything else. A path cannot look like it: it begins with "/"."""
    kind, bracket, rest = target.partition(":[")
    number = rest.removesuffix("]")
    return int(number) if bracket and kind in {"socket", "pipe"} and number.isdecimal() else None


# --- what one descriptor is ----------------------------------------------------------------------------------------------


def _described(pid: int, number: int, target: str, mounts: Mounts) -> Descriptor:
    inode = numbered_inode(target)
    watches: tuple[int, ...] = ()
    kind: DescriptorKind = "other"
    if inode is not None:
        kind = "socket" if target.startswith("socket") else "pipe"
    elif target in _ANONYMOUS:
        kind = _ANONYMOUS[target]
        if kind == "epoll":
            watches = _watched(pid, number)
    elif target.startswith("/"):
        opened = open_file(pid, number)
        kind, inode = _of_path(pid, number, opened, mounts), opened.inode if opened else None
    return Descriptor(
        number=number,
        kind=kind,
        target=plain(target, _TARGET_LIMIT),
        inode=inode,
        access=_access(pid, number),
        watches=watches,
    )


def _watched(pid: int, number: int) -> tuple[int, ...]:
    """The descriptors in an epoll's set: lines "tfd: 5 events: 19 data: …" of its fdinfo."""
    opened = open_file(pid, number, _EPOLL_LIMIT_BYTES)
    lines = opened.text.splitlines() if opened else []
    fields = (line.split(None, 2) for line in lines if line.startswith(b"tfd:"))
    return tuple(sorted({int(each[1]) for each in fields if len(each) > 1 and each[1].isdigit()}))


def _of_path(pid: int, number: int, opened: OpenFile | None, mounts: Mounts) -> DescriptorKind:
    """The kind of what has a path. On a file system that may not answer nothing is asked: nearly all there are regular files."""
    status = _asked(pid, number, opened, mounts)
    if status is None:
        return "file"
    if stat.S_ISCHR(status.st_mode):
        device = os.major(status.st_rdev), os.minor(status.st_rdev)
        if device == _NULL:
            return "null"
        return "tty" if device[0] in _TTY_MAJORS or device in {_TTY, _CONSOLE} else "other"
    kinds: dict[int, DescriptorKind] = {stat.S_IFIFO: "fifo", stat.S_IFDIR: "folder", stat.S_IFREG: "file"}
    return kinds.get(stat.S_IFMT(status.st_mode), "other")


def _asked(pid: int, number: int, opened: OpenFile | None, mounts: Mounts) -> os.stat_result | None:
    """stat(2) of what is behind a descriptor, where that answers at once."""
    mount = mounts.of(opened) if opened is not None else None
    if mount is None or not mount.answers_at_once:
        return None
    try:
        return os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116 - the magic link itself is meant
    except OSError:
        return None


def _access(pid: int, number: int) -> Access | None:
    """How it was opened: the permissions of the link itself (proc_pid_fd(5)); None of one that only names a place (O_PATH)."""
    try:
        mode = os.lstat(f"/proc/{pid}/fd/{number}").st_mode
    except OSError:
        return None
    if mode & stat.S_IRUSR:
        return "rw" if mode & stat.S_IWUSR else "r"
    return "w" if mode & stat.S_IWUSR else None


# --- who has it open, on the whole machine -------------------------------------------------------------------------------


def _targets(pid: int, limit: int, until: float) -> Iterator[tuple[int, str]]:
    try:
        folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for position, number in enumerate(numbers_in(folder, limit)):
            if position % 64 == 63 and time.monotonic() > until:
                return
            target = link_of(str(number), folder)
            if target is not None:
                yield number, target
    finally:
        os.close(folder)


def _scan(inodes: frozenset[int], skip: int, until: float, *, fifos: bool = False) -> tuple[dict[int, list[_End]], bool]:
    """The descriptors of all processes that are one of these, and whether all were looked at.

    `fifos` looks among what has a path, by the inode in fdinfo; else by the numbers in the links.
    """
    found: dict[int, list[_End]] = {}
    if not inodes:
        return found, True
    for pid in numbers_in("/proc", _MOST_PROCESSES):
        if time.monotonic() > until:
            return found, False
        if pid == skip:
            continue
        mounts = Mounts(pid)
        for number, target in _targets(pid, _MOST_SCANNED, until):
            device = 0
            if not fifos:
                inode = numbered_inode(target)
            elif target.startswith("/"):
                opened = open_file(pid, number)
                inode = opened.inode if opened else None
                if inode in inodes:
                    status = _asked(pid, number, opened, mounts)
                    if status is None or not stat.S_ISFIFO(status.st_mode):
                        continue
                    device = status.st_dev
            else:
                continue
            if inode in inodes and len(found.setdefault(inode, [])) < _MOST_HOLDERS * 4:
                found[inode].append(_End(pid, number, _access(pid, number), target, device))
    return found, time.monotonic() <= until


def _holders(ends: Collection[_End], access: str = "") -> tuple[Holder, ...]:
    """The processes behind these descriptors, each once, that have it open in this way ("": in any)."""
    firsts: dict[int, int] = {}
    for end in ends:
        if access in (end.access or ""):
            firsts.setdefault(end.pid, end.number)
    named = (holder_of(pid, number) for pid, number in list(firsts.items())[:_MOST_HOLDERS])
    return tuple(holder for holder in named if holder is not None)


# --- pipes ---------------------------------------------------------------------------------------------------------------


def read_pipes(inodes: Collection[int], tree: Collection[int] = (), *, limit_s: float = 0.4) -> tuple[Pipe, ...]:
    """These pipes and FIFOs: how full, and who has their ends open, ourselves left out. One that nobody has open is left out.

    FIFOs of different file systems can share a number: `tree` says whose is meant. The question how full it is goes to a copy of
    a descriptor that somebody has (see `borrow`): opening the read end instead would make us a reader for a moment, so that a
    writer whose last reader goes just then is told too late (its bytes lost, its SIGPIPE missed), and would let go whoever is
    blocked in open(2) of a FIFO, waiting for a reader that then is none. The write end would keep back the end of file.
    """
    until = time.monotonic() + limit_s
    ours = os.getpid()
    ends, _ = _scan(frozenset(inodes), ours, until)
    left = frozenset(inodes) - ends.keys()
    ends |= _scan(left, ours, until, fifos=True)[0]
    return tuple(_pipe(inode, _of_one_device(each, tree)) for inode, each in ends.items())


def _of_one_device(ends: list[_End], tree: Collection[int]) -> list[_End]:
    device = next((end.device for end in ends if end.pid in tree), ends[0].device)
    return [end for end in ends if end.device == device]


def _pipe(inode: int, ends: list[_End]) -> Pipe:
    held, capacity = None, None
    for end in ends[:4]:  # one that closes just now costs the next try
        held, capacity = _fill(end.pid, end.number, inode)
        if held is not None:
            break
    path = next((plain(end.target, _TARGET_LIMIT) for end in ends if end.target.startswith("/")), None)
    return Pipe(
        inode=inode,
        path=path,
        held_bytes=held,
        capacity_bytes=capacity,
        readers=_holders(ends, "r"),
        writers=_holders(ends, "w"),
    )


def _fill(pid: int, number: int, inode: int) -> tuple[int | None, int | None]:
    """Bytes in a pipe and how many fit (pipe(7), FIONREAD and F_GETPIPE_SZ); None where it cannot be asked."""
    with borrowed(pid, number) as copy:
        if copy is None:
            return None, None
        try:
            status = os.fstat(copy)
            if not stat.S_ISFIFO(status.st_mode) or status.st_ino != inode:
                return None, None  # the number was given to something else meanwhile
            held = struct.unpack("@i", fcntl.ioctl(copy, termios.FIONREAD, bytes(4)))[0]
            return held, fcntl.fcntl(copy, _F_GETPIPE_SZ)
        except OSError:
            return None, None
