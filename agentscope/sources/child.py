"""The end of our own child, by pidfd and wait4(2): needs no privilege, sees no signal's sender. The source of `run` without root."""

import os
import time

from agentscope.agents import start_ns_of
from agentscope.model import ProcessExit


class ChildSource:
    """One child of ours. `status` is its raw wait status once it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.descriptor: int | None = os.pidfd_open(pid)
        self.start_ns = start_ns_of(pid) or time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.status: int | None = None

    def fileno(self) -> int:
        """The pidfd: readable once the child has ended (pidfd_open(2))."""
        assert self.descriptor is not None
        return self.descriptor

    def drain(self) -> list[ProcessExit]:
        """The end, once, when it has come."""
        if self.status is not None:
            return []
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return []
        self.status = status
        end = ProcessExit(
            at_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            pid=pid,
            start_ns=self.start_ns,
            ppid=os.getpid(),
            comm="",
            status=status,
            uid=os.getuid(),
            max_rss_bytes=used.ru_maxrss * 1024,
            user_ns=int(used.ru_utime * 1e9),
            system_ns=int(used.ru_stime * 1e9),
            engine="none",
        )
        return [end]

    def close(self) -> None:
        """Close the pidfd."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
