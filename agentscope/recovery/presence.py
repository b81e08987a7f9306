"""Which instance of an agent was there when agentscope was: so that an end that nobody saw is said when we come back.

Whether it was wanted cannot be told then, so nothing is started for it.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from agentscope.model import Agent, Value

SIZE_LIMIT_BYTES = 4096


class Seen(Value, frozen=True):
    """One instance, by its identity."""

    boot_id: str
    pid: int
    start_ns: int


class Presence:
    """The note of one agent, beside its lock. A note that cannot be written or read costs that sentence and nothing else."""

    def __init__(self, lock: Path, boot_id: str) -> None:
        self.path = lock.with_suffix(".seen")
        self.boot_id = boot_id

    def note(self, agent: Agent) -> None:
        """It is there."""
        text = msgspec.json.encode(Seen(boot_id=self.boot_id, pid=agent.pid, start_ns=agent.start_ns))
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            opened = os.open(self.path, flags, 0o600)
            try:
                os.write(opened, text)
            finally:
                os.close(opened)

    def forget(self) -> None:
        """It ended, and we saw it."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def left(self) -> Seen | None:
        """Who was there when we were there last; None where that is not known, or was before this boot."""
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            opened = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                seen = msgspec.json.decode(os.read(opened, SIZE_LIMIT_BYTES), type=Seen)
            finally:
                os.close(opened)
            return seen if seen.boot_id == self.boot_id else None
        return None
