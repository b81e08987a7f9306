"""A program of our own, run as another user with nothing of ours: bounded in time, in output and in memory."""

import contextlib
import os
import resource
import selectors
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ERRORS_LIMIT = 1 << 14
MEMORY_LIMIT = 1 << 30
_PIECE = 1 << 16
_REAP_S = 1.0


class Ended(NamedTuple):
    """How it ended: `status` is None where it could not be started, was killed because time was up, or wrote too much."""

    status: int | None
    output: bytes = b""
    errors: bytes = b""
    timed_out: bool = False


def run_as(program: str, arguments: Sequence[str], user: tuple[int, int], *, until_s: float, limit_bytes: int) -> Ended:
    """Run a program of ours as `user` (uid and gid) until `until_s` on the monotonic clock.

    The file is opened here and run by its descriptor: that user need not be able to reach where we are installed. Without root
    it runs as whoever we are.
    """
    try:
        opened = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Ended(None)
    root = os.geteuid() == 0
    try:
        child = subprocess.Popen(
            [Path(program).name, *arguments],
            executable=f"/proc/self/fd/{opened}",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"LANG": "C.UTF-8", "RUST_BACKTRACE": "0"},
            pass_fds=(opened,),
            start_new_session=True,
            user=user[0] if root else None,
            group=user[1] if root else None,
            extra_groups=[] if root else None,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return Ended(None)
    finally:
        os.close(opened)
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(child.pid, resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    return _watched(child, until_s, limit_bytes)


def _watched(child: subprocess.Popen[bytes], until_s: float, limit_bytes: int) -> Ended:
    """What a child writes until it ends, kept to its bounds; killed where it goes beyond them."""
    assert child.stdout is not None
    assert child.stderr is not None
    written = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    limits = {child.stdout.fileno(): limit_bytes, child.stderr.fileno(): ERRORS_LIMIT}
    output, errors = written.values()
    whole = True
    with child.stdout, child.stderr, selectors.DefaultSelector() as selector:
        for stream in written:
            selector.register(stream, selectors.EVENT_READ)
        while whole and selector.get_map():
            left = until_s - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            whole = bool(ready)
            for key, _ in ready:
                piece = os.read(key.fd, _PIECE)
                written[key.fd] += piece
                whole = whole and len(written[key.fd]) <= limits[key.fd]
                if not piece:
                    selector.unregister(key.fd)
        if not whole:
            child.kill()
    try:
        status = child.wait(timeout=_REAP_S)
    except subprocess.TimeoutExpired:  # it waits in the kernel for the memory of a target that waits for a dead server
        return Ended(None, timed_out=True)
    return Ended(status if whole else None, bytes(output), bytes(errors), timed_out=not whole)
