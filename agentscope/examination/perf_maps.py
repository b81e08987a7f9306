"""Names of code that a just-in-time compiler made, from the map that it writes for profilers.

Node writes /tmp/perf-PID.map with --perf-basic-prof, as do other runtimes on demand: a line "START SIZE NAME" a function, the
numbers in hexadecimal (tools/perf/Documentation/jit-interface.txt of the kernel). Its text is the target's, so it counts only if
it is a regular file of the target's own user, and no more of it is read than 32 MiB; only the names asked for are kept.
"""

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from agentscope.examination.proc import numbers_of_namespaces, plain, read_proc, status_field
from agentscope.symbols.rooted import open_regular

FILE_LIMIT = 32 << 20
_PIECE = 1 << 18
_LINE = re.compile(rb"^([0-9a-f]{1,16}) ([0-9a-f]{1,8}) (.+)$", re.MULTILINE | re.IGNORECASE)


def names_in_perf_map(pid: int, addresses: Iterable[int]) -> dict[int, str]:
    """The names of code at these addresses, as far as the process has a map of them; a later line replaces an earlier one."""
    wanted = sorted(set(addresses))
    found: dict[int, str] = {}
    if not wanted:
        return found
    for piece in _pieces(pid):
        for line in _LINE.finditer(piece):
            start = int(line[1], 16)
            inside = slice(bisect_left(wanted, start), bisect_right(wanted, start + int(line[2], 16) - 1))
            for address in wanted[inside]:
                found[address] = plain(line[3], 200)
    return found


def _pieces(pid: int) -> Iterator[bytes]:
    """The map in pieces of whole lines."""
    status = read_proc(f"/proc/{pid}/status") or b""
    owner = (status_field(status, b"Uid") or b"").split()
    inner = (numbers_of_namespaces(pid) or (pid,))[-1]
    try:
        opened = open_regular(f"/tmp/perf-{inner}.map", root=f"/proc/{pid}/root", limit_bytes=FILE_LIMIT)  # noqa: S108
    except OSError:
        return
    try:
        if str(os.fstat(opened).st_uid).encode() not in owner[:2]:
            return
        rest = b""
        for _ in range(FILE_LIMIT // _PIECE):
            piece = os.read(opened, _PIECE)
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            yield whole + newline
            if not piece or len(rest) > _PIECE:
                return
    except OSError:
        return
    finally:
        os.close(opened)
