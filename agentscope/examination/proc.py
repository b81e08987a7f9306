"""Small files of /proc, read once and bounded. Their form is the kernel's, but much of the text in them a process chose itself.

Nothing here raises for a process that ends meanwhile or may not be looked at: the answer is None.
"""

import os
from typing import NamedTuple

from agentscope.examination import Holder

TEXT_LIMIT_BYTES = 1 << 16
PLAIN_LIMIT = 512
_PIECE_BYTES = 4096
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """What /proc/PID/stat says that we use (proc_pid_stat(5)); times rounded to 10 ms, `start_ns` since boot."""

    comm: str
    state: str
    ppid: int
    user_ns: int
    system_ns: int
    start_ns: int


def read_proc(path: str, limit_bytes: int = TEXT_LIMIT_BYTES, folder: int | None = None) -> bytes | None:
    """At most `limit_bytes` of a file of /proc, by its path or by its name inside an open `folder`; None where it cannot be read."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError):
        return None
    try:
        pieces = [os.read(opened, min(limit_bytes, _PIECE_BYTES))]
        left = limit_bytes - len(pieces[0])
        # One read gets a short file whole, which saves a second one of each; a longer file comes about a page at a time.
        while pieces[-1] and left > 0 and len(pieces[0]) >= _PIECE_BYTES // 2:
            pieces.append(os.read(opened, min(left, TEXT_LIMIT_BYTES)))
            left -= len(pieces[-1])
        return b"".join(pieces)
    except OSError:
        return None
    finally:
        os.close(opened)


def link_of(path: str, folder: int | None = None) -> str | None:
    """Where a link of /proc points, as the kernel writes it; None where it may not be read."""
    try:
        return os.readlink(path, dir_fd=folder)
    except OSError:
        return None


def plain(raw: bytes | str, limit: int = PLAIN_LIMIT) -> str:
    """Text that a process chose (a name, a path, an argument) as it may be shown to a person: one line, bounded, no controls."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw.encode("utf-8", "replace").decode()
    if text.isascii() and text.isprintable():
        return text[:limit]
    from agentscope.readers import clean

    return clean(text[: 2 * limit]).replace("\n", " ").replace("\t", " ")[:limit]


def parse_stat(line: bytes) -> Stat | None:
    """The fields of a line of /proc/PID/stat. The name may hold spaces and parentheses: the fields start after the last one."""
    close = line.rfind(b")")
    fields = line[close + 2 :].split()
    if close < 0 or len(fields) < 20:
        return None
    try:
        user, system, start = (int(fields[number]) * _TICK_NS for number in (11, 12, 19))
        ppid = int(fields[1])
    except ValueError:
        return None
    return Stat(plain(line[line.find(b"(") + 1 : close], 64), fields[0].decode("ascii", "replace"), ppid, user, system, start)


def read_stat(pid: int, tid: int | None = None) -> Stat | None:
    """/proc/PID/stat, or that of one of its threads; None where there is none."""
    line = read_proc(f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat")
    return None if line is None else parse_stat(line)


def status_field(text: bytes, name: bytes) -> bytes | None:
    """The value of the line "Name: value" in /proc/PID/status, fdinfo and their like; a process cannot forge a line there."""
    start = 0 if text.startswith(name + b":") else text.find(b"\n" + name + b":") + 1
    if start == 0 and not text.startswith(name + b":"):
        return None
    end = text.find(b"\n", start)
    return text[start + len(name) + 1 : end if end >= 0 else len(text)].strip()


def holder_of(pid: int, descriptor: int | None = None) -> Holder | None:
    """A process as the holder of something; None where it has ended."""
    stat = read_stat(pid)
    return None if stat is None else Holder(pid=pid, comm=stat.comm, descriptor=descriptor, state=stat.state)


def tids_of(pid: int, limit: int = 4096) -> list[int]:
    """The threads of a process, at most `limit`; empty where it has ended."""
    return numbers_in(f"/proc/{pid}/task", limit)


def numbers_in(folder: str | int, limit: int) -> list[int]:
    """The numeric names in a folder of /proc, at most `limit`: a hostile process can have a million descriptors."""
    found: list[int] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.isdecimal():
                    found.append(int(entry.name))
                    if len(found) >= limit:
                        break
    except OSError:
        pass
    return found


def numbers_of_namespaces(pid: int, tid: int | None = None) -> tuple[int, ...]:
    """The numbers of a process or thread in our pid namespace and in each one below, its own last (status, "NSpid")."""
    text = read_proc(f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status")
    value = None if text is None else status_field(text, b"NSpid")
    return tuple(int(number) for number in value.split() if number.isdigit()) if value else ()
