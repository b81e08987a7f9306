"""Locks on files that somebody waits for, and who holds them: /proc/locks (proc_locks(5), fs/locks.c).

    1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
    1: -> FLOCK  ADVISORY  WRITE 1235 08:01:5678 0 EOF

A line with an arrow waits for the line without one of the same number. The pid of a flock is whoever took it, though the lock
belongs to the open file, which may have been passed on since; a lock of an open file description has no pid at all (-1). Both
are found in fdinfo, where each descriptor shows the locks that its open file holds. Locks of processes outside of our pid
namespace are not shown, nor are those that a server holds for another machine.
"""

import time
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from agentscope.examination import FileLock, Holder
from agentscope.examination.mounts import Mounts, OpenFile, open_file
from agentscope.examination.proc import holder_of, link_of, numbers_in, plain, read_proc, tids_of
from agentscope.examination.threads import parse_syscall
from agentscope.symbols.syscalls import syscall_name

LockKind = Literal["flock", "posix", "ofd", "lease"]

_LIMIT_BYTES = 4 << 20
_MOST_LOCKS = 256  # waited for by one agent
_MOST_DESCRIPTORS = 4096
_PATH_LIMIT = 4096
_KINDS: dict[bytes, LockKind] = {b"FLOCK": "flock", b"POSIX": "posix", b"OFDLCK": "ofd", b"LEASE": "lease", b"DELEG": "lease"}
_FCNTL_WAITS = frozenset({7, 38})  # F_SETLKW, F_OFD_SETLKW: asm-generic/fcntl.h


class LockLine(NamedTuple):
    """One line of /proc/locks or of fdinfo: `device` is "major:minor" in decimal; `pid` None where the kernel shows none.

    `extent` is all of what is locked and how: READ or WRITE, first and last byte.
    """

    number: bytes
    waits: bool
    kind: LockKind
    pid: int | None
    device: str
    inode: int
    extent: tuple[bytes, ...]


def read_file_locks(pids: Collection[int], *, limit_s: float = 0.3) -> tuple[FileLock, ...]:
    """The file locks that one of these processes waits for, each with its path and holder, as far as they are found in time."""
    until = time.monotonic() + limit_s
    found: list[FileLock] = []
    holds: dict[bytes, LockLine] = {}
    for line in parse_locks(read_proc("/proc/locks", _LIMIT_BYTES) or b""):
        if not line.waits:
            holds[line.number] = line
        elif line.number in holds and (line.pid is None or line.pid in pids) and len(found) < _MOST_LOCKS:
            lock = _lock(line, holds[line.number], pids, until)
            found += [] if lock is None or lock in found else [lock]
    return tuple(found)


def parse_locks(text: bytes) -> Iterator[LockLine]:
    """The locks in the text of /proc/locks, or of the lines "lock:" of fdinfo; lines that are none are left out."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == b"lock:":
            del words[0]
        waits = len(words) > 1 and words[1] == b"->"
        if waits:
            del words[1]
        # number, kind, ADVISORY or ACTIVE or BREAKING, READ or WRITE, pid, major:minor:inode in hex:hex:decimal, start, end
        if len(words) < 6 or words[1] not in _KINDS:
            continue
        try:
            major, minor, inode = words[5].split(b":")
            device, pid = f"{int(major, 16)}:{int(minor, 16)}", int(words[4])
            yield LockLine(
                words[0], waits, _KINDS[words[1]], pid if pid > 0 else None, device, int(inode), (words[3], *words[6:8])
            )
        except ValueError:
            continue


def _lock(wait: LockLine, hold: LockLine, pids: Collection[int], until: float) -> FileLock | None:
    waiter = _waiter(wait, pids)
    if waiter is None:
        return None
    holder = _holder(hold, waiter, pids, until)
    named = [each for each in (waiter, holder) if each is not None and each.descriptor is not None]
    path = next((link_of(f"/proc/{each.pid}/fd/{each.descriptor}") for each in named), None)
    return FileLock(
        kind=hold.kind,
        path=None if path is None else plain(path, _PATH_LIMIT),
        inode=hold.inode,
        waiter=waiter,
        holder=holder,
    )


def _waiter(wait: LockLine, pids: Collection[int]) -> Holder | None:
    """Who waits, and at which descriptor: the one of the blocked call, as it may have the file open more than once.

    A line without pid is of an open file description: then it is whoever is blocked in asking for a lock on that file.
    """
    for pid in pids if wait.pid is None else (wait.pid,):
        asked = _asked_for(pid)
        numbers = list(_descriptors_of(pid, wait))
        number = next((each for each in numbers if each in asked), None)
        if number is not None or wait.pid is not None:
            return holder_of(pid, number if number is not None else next(iter(numbers), None))
    return None


def _asked_for(pid: int) -> set[int]:
    """The descriptors on which threads of a process are blocked in flock(2) or in fcntl(2) that waits for a lock."""
    asked = set()
    for tid in tids_of(pid):
        syscall = parse_syscall(read_proc(f"/proc/{pid}/task/{tid}/syscall") or b"")
        name = syscall_name(syscall.number) if syscall else None
        if syscall and (name == "flock" or (name == "fcntl" and syscall.args[1] in _FCNTL_WAITS)):
            asked.add(syscall.args[0])
    return asked


def _holder(hold: LockLine, waiter: Holder, pids: Collection[int], until: float) -> Holder | None:
    """Who holds it: by the lock's own pid where a process owns it, else whoever has the open file that it belongs to.

    The likely ones first: whoever took it, the tree of the waiter, then everybody, as long as there is time.
    """
    if hold.kind in {"posix", "lease"} and hold.pid is not None:
        return holder_of(hold.pid, next(_descriptors_of(hold.pid, hold), None))
    likely = dict.fromkeys(pid for pid in (hold.pid, *pids) if pid is not None)
    for pid in (*likely, *(each for each in numbers_in("/proc", 1 << 16) if each not in likely)):
        if time.monotonic() > until:
            break
        for number in _descriptors_of(pid, hold, holds=True):
            if (pid, number) != (waiter.pid, waiter.descriptor):  # it may hold a shared lock, and want it for itself
                return holder_of(pid, number)
    return None


def _descriptors_of(pid: int, lock: LockLine, *, holds: bool = False) -> Iterator[int]:
    """The descriptors of a process that are the locked file, and with `holds` also own the lock.

    Told by mount and inode in fdinfo, so that no file is touched; before Linux 5.14, where the inode is not there, only those
    that own a lock are found.
    """
    mounts = Mounts(pid)
    for number in numbers_in(f"/proc/{pid}/fd", _MOST_DESCRIPTORS):
        opened = open_file(pid, number)
        if opened is None:
            continue
        owns = any(each[2:] == lock[2:] for each in _owned(opened))
        if owns or (not holds and opened.inode == lock.inode and _on_device(mounts, opened, lock.device)):
            yield number


def _owned(opened: OpenFile) -> Iterator[LockLine]:
    return parse_locks(opened.text) if b"lock:" in opened.text else iter(())


def _on_device(mounts: Mounts, opened: OpenFile, device: str) -> bool:
    mount = mounts.of(opened)
    return mount is None or mount.device == device
