"""The rule of progress of one agent as the config has it: when it last got on, by one signal, and whether that is too long ago.

What cannot be known is never overdue. Time in which the machine was suspended does not count.
"""

import asyncio
import errno
import os
import time
from functools import partial

from agentscope.agents import same_identity, start_ns_of
from agentscope.commands import identity_of
from agentscope.config import ProgressConfig
from agentscope.examination import ProgressResult
from agentscope.model import Agent
from agentscope.sources.aside import Aside, Stuck
from agentscope.sources.notify import Notice
from agentscope.symbols.rooted import open_regular

S = 1_000_000_000
FED_EVERY_NS = 5 * S  # numbers come once a second; older ones say nothing of now
CHECK_BYTES = 4096  # what a health check may make an agent read and write: that is no progress
LOOK_S = 1.0
ANY_SIZE = 1 << 62


SUSPENDED_NS = 100_000_000


class ProgressRule:
    """One agent's rule. The caller feeds `moved`, `wrote` or `noticed`; a heartbeat file is looked at by the rule itself."""

    def __init__(self, agent: Agent, asked: ProgressConfig, began_ns: int) -> None:
        self.agent = agent
        self.asked = asked
        self.began_ns = began_ns
        self.last_ns: int | None = None
        self.fed_ns: int | None = None
        self.total_bytes: int | None = None
        self.mtime_ns: int | None = None
        self.suspended_ns = suspended_ns()  # as of the last sign
        self.says = ""
        self.hindered = ""  # why nothing can be known
        self.at_fault = False
        self.aside = Aside()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at the heartbeat file, if that is the signal."""
        if self.asked.signal == "heartbeat-file":
            self.task = asyncio.get_running_loop().create_task(self.watch_file())

    def close(self) -> None:
        """Look no more."""
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def state(self, at_ns: int) -> ProgressResult:
        """What the rule says at this time."""
        within_s = self.asked.within_s
        unknown = self.hindered or self.unfed(at_ns)
        if unknown:
            return ProgressResult(signal=self.asked.signal, within_s=within_s, last_ago_s=None, overdue=False, says=unknown)
        asleep_ns = suspended_ns() - self.suspended_ns
        # the two clocks are read one after the other, so that they differ a little without any suspend
        asleep_ns = asleep_ns if asleep_ns > SUSPENDED_NS else 0
        quiet_s = (at_ns - max(self.last_ns or 0, self.began_ns) - asleep_ns) / S
        return ProgressResult(
            signal=self.asked.signal,
            within_s=within_s,
            last_ago_s=None if self.last_ns is None else round(max(0, at_ns - self.last_ns) / S, 3),
            overdue=self.at_fault or quiet_s > within_s,
            says=self.says,
        )

    def unfed(self, at_ns: int) -> str:
        """Why a signal that others count says nothing now."""
        if self.asked.signal not in {"io", "stdout"}:
            return ""
        if self.fed_ns is None:
            return "nothing has been counted yet"
        return "" if at_ns - self.fed_ns <= FED_EVERY_NS else "nothing has been counted lately"

    # --- signs ------------------------------------------------------------------------------------------------------------

    def sign(self, at_ns: int) -> None:
        """It got on at this time."""
        if self.last_ns is None or at_ns > self.last_ns:
            self.last_ns = at_ns
            self.suspended_ns = suspended_ns()

    def moved(self, total_bytes: int, at_ns: int, *, checked: bool = False) -> None:
        """Signal io: bytes that the agent's tree has read and written up to now. `checked`: a health check fell into this time.

        The total falls when a child ends and takes its count along: that is no progress, and no loss of any.
        """
        more = 0 if self.total_bytes is None else total_bytes - self.total_bytes
        self.total_bytes, self.fed_ns = total_bytes, at_ns
        if more > (CHECK_BYTES if checked else 0):
            self.sign(at_ns)

    def wrote(self, wrote_ns: int | None, at_ns: int) -> None:
        """Signal stdout: when it last wrote to descriptors 1 or 2, as known now; None: it has not."""
        self.fed_ns = at_ns
        if wrote_ns is not None:
            self.sign(wrote_ns)

    def noticed(self, notice: Notice, at_ns: int) -> None:
        """Signal sd_notify: a process of the agent reported."""
        if notice.status is not None:
            self.says = f"its last status: {notice.status}"
        if notice.alive:
            self.hindered, self.at_fault = "", False
            self.sign(at_ns)
        if notice.at_fault:
            self.hindered, self.at_fault = "", True
            self.says = "it reported WATCHDOG=trigger: it finds itself at fault"

    # --- the heartbeat file -------------------------------------------------------------------------------------------------

    async def watch_file(self) -> None:
        """Look at it for ever; beside the loop, as its file system may be dead or the agent's own."""
        pause_s = max(0.2, min(LOOK_S, self.asked.within_s / 4))
        while True:
            try:
                touched_ns = await self.aside.run(partial(touched, self.asked.path or "", self.agent), LOOK_S)
            except (TimeoutError, Stuck):
                self.hindered = f"{self.asked.path} cannot be looked at: its file system does not answer"
            except OSError as error:
                self.unseen(error)
            else:
                self.seen(touched_ns, time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            await asyncio.sleep(pause_s)

    def seen(self, mtime_ns: int, wall_ns: int, at_ns: int) -> None:
        """The file's time of change: a new one is a sign. One in the future counts from when it was seen."""
        self.hindered = self.says = ""
        if mtime_ns != self.mtime_ns:
            self.mtime_ns = mtime_ns
            self.sign(at_ns - max(0, wall_ns - mtime_ns))

    def unseen(self, error: OSError) -> None:
        """It could not be looked at. A file that is not there is the agent's to make; anything else may be our mistake."""
        reason = {errno.ELOOP: "a symbolic link is not followed"}.get(error.errno or 0) or error.strerror or "it cannot be read"
        if error.errno == errno.ENOENT:
            self.hindered, self.says = "", f"{self.asked.path}: {reason}"
        else:
            self.hindered = f"{self.asked.path}: {reason}"


def touched(path: str, agent: Agent) -> int:
    """When a file of the agent's was last changed, in nanoseconds since 1970.

    Raises:
        OSError: it is not there, no regular file, or somebody else's.
    """
    descriptor = open_regular(path, root=f"/proc/{agent.pid}/root", limit_bytes=ANY_SIZE)
    try:
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    start_ns = start_ns_of(agent.pid)
    if start_ns is None or not same_identity(start_ns, agent.start_ns):
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH), path)
    if facts.st_uid not in {0, agent.uid, identity_of(agent).uid}:
        raise OSError(errno.EPERM, f"it belongs to uid {facts.st_uid}, neither root nor the agent", path)
    return facts.st_mtime_ns


def suspended_ns() -> int:
    """How long the machine was suspended since boot: CLOCK_MONOTONIC stands still meanwhile (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
