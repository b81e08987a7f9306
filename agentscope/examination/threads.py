"""Threads and processes as /proc shows them: the sample where BPF is refused, kernel stacks, who traces, who a process is.

About 45 us a thread, of which reading the three files is 35; the iterator takes under 1 us. When a thread last ran is nowhere in /proc, so it is None here.
"""

import os
import time
from collections.abc import Collection

from agentscope.examination import Holder, ProcessLook
from agentscope.examination.proc import holder_of, numbers_in, parse_stat, plain, read_proc, read_stat, status_field
from agentscope.model import LastSyscall, ProcessSample, ThreadSample

_MOST_THREADS = 4096
_MOST_FRAMES = 64
_ARGV_LIMIT_BYTES = 4096
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def sample(pids: Collection[int], *, limit_s: float = 0.5) -> list[ProcessSample]:
    """These processes with all their threads now, at most 4096 of each; when the time is over, the rest is left out."""
    until = time.monotonic() + limit_s
    found = []
    for pid in pids:
        if time.monotonic() > until:
            break
        process = read_stat(pid)
        if process is None:
            continue
        anon, rss = _memory(pid)
        threads = tuple(_threads(pid, until))
        found.append(ProcessSample(pid=pid, start_ns=process.start_ns, anon_bytes=anon, rss_bytes=rss, threads=threads))
    return found


def kernel_stack(pid: int, tid: int) -> tuple[str, ...]:
    """The functions of the kernel that a thread is in, innermost first; empty where we may not look (it needs root).

    A line of /proc/PID/task/TID/stack is "[<0>] do_sys_poll+0x400/0x590", with " [module]" after it.
    """
    text = read_proc(f"/proc/{pid}/task/{tid}/stack") or b""
    fields = (line.split() for line in text.splitlines()[:_MOST_FRAMES])
    return tuple(plain(each[1].partition(b"+")[0], 128) for each in fields if len(each) > 1)


def tracer_of(pid: int) -> Holder | None:
    """The process that traces one (a debugger, strace); None where nobody does, or it cannot be read."""
    text = read_proc(f"/proc/{pid}/status")
    return None if text is None else _tracer(text)


def identify(pid: int) -> ProcessLook | None:
    """Who a process is, without its threads and descriptors; None where there is none. An ended one is a zombie."""
    stat, status = read_stat(pid), read_proc(f"/proc/{pid}/status")
    if stat is None or status is None:
        return None
    uids = (status_field(status, b"Uid") or b"").split()
    words = (read_proc(f"/proc/{pid}/cmdline", _ARGV_LIMIT_BYTES) or b"").rstrip(b"\0")
    return ProcessLook(
        pid=pid,
        start_ns=stat.start_ns,
        ppid=stat.ppid,
        comm=stat.comm,
        argv=tuple(plain(word, _ARGV_LIMIT_BYTES) for word in words.split(b"\0")) if words else (),
        uid=int(uids[0]) if uids and uids[0].isdigit() else None,
        tracer=_tracer(status),
        ended=stat.state in {"Z", "X"} and not _lives(pid),
    )


def parse_syscall(text: bytes) -> LastSyscall | None:
    """/proc/PID/task/TID/syscall: "7 0x… (six arguments) sp pc"; "running", or -1 where it blocks outside of a call: None."""
    fields = text.split()
    try:
        number = int(fields[0])
        args = tuple(int(field, 16) for field in fields[1:7])
    except (ValueError, IndexError):
        return None
    return LastSyscall(number=number, args=args) if number >= 0 and len(args) == 6 else None


def _threads(pid: int, until: float) -> list[ThreadSample]:
    found: list[ThreadSample] = []
    try:
        folder = os.open(f"/proc/{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return found  # it ended just now
    try:
        for tid in numbers_in(folder, _MOST_THREADS):
            if time.monotonic() > until:
                break
            thread = _thread(tid, folder)
            if thread is not None:
                found.append(thread)
    finally:
        os.close(folder)
    return found


def _thread(tid: int, folder: int) -> ThreadSample | None:
    line, status = read_proc(f"{tid}/stat", folder=folder), read_proc(f"{tid}/status", folder=folder)
    stat = parse_stat(line) if line else None
    if stat is None or status is None:
        return None
    blocked = None if stat.state == "R" else read_proc(f"{tid}/syscall", folder=folder)
    return ThreadSample(
        tid=tid,
        comm=stat.comm,
        state=stat.state,
        syscall=parse_syscall(blocked) if blocked else None,
        user_ns=stat.user_ns,
        system_ns=stat.system_ns,
        voluntary_switches=_count(status, b"voluntary_ctxt_switches"),
        involuntary_switches=_count(status, b"nonvoluntary_ctxt_switches"),
    )


def _lives(pid: int) -> bool:
    """Whether a process whose first thread has ended goes on in others."""
    states = (read_stat(pid, tid) for tid in numbers_in(f"/proc/{pid}/task", _MOST_THREADS) if tid != pid)
    return any(stat is not None and stat.state not in {"Z", "X"} for stat in states)


def _tracer(status: bytes) -> Holder | None:
    number = status_field(status, b"TracerPid")
    return holder_of(int(number)) if number and number.isdigit() and number != b"0" else None


def _count(status: bytes, name: bytes) -> int:
    number = status_field(status, name)
    return int(number) if number and number.isdigit() else 0


def _memory(pid: int) -> tuple[int | None, int | None]:
    """Anonymous and resident bytes: statm has resident and shared pages, the latter of files and shared memory."""
    fields = (read_proc(f"/proc/{pid}/statm") or b"").split()
    if len(fields) < 3 or not all(field.isdigit() for field in fields[:3]):
        return None, None
    resident, shared = int(fields[1]), int(fields[2])
    return max(0, resident - shared) * _PAGE_BYTES, resident * _PAGE_BYTES
