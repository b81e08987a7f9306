"""Only one agentscope brings an agent back: whoever holds the lock of its name, below the state directory.

The lock is flock(2) on a file: it goes with its holder, however that ends, and it is closed by exec (O_CLOEXEC), so nothing that we
start inherits it. Two that watch the same agent with different state directories know nothing of each other.
"""

import fcntl
import hashlib
import os
from pathlib import Path

from agentscope.errors import CannotWrite


class Claim:
    """The right to bring one agent back. `take` may be tried again and again."""

    def __init__(self, state: Path, name: str) -> None:
        mark = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]  # a label may hold any character
        self.path = state / "recovery" / f"{mark}.lock"
        self.descriptor: int | None = None

    def take(self) -> bool:
        """Whether we have it now; False while another has it.

        Raises:
            CannotWrite: there can be no lock there (a full disk, a folder that refuses).
        """
        if self.descriptor is not None:
            return True
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise CannotWrite(f"cannot lock {self.path}", why, f"ls -ld {self.path.parent}") from None
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(opened)
            return False
        self.descriptor = opened
        return True

    def release(self) -> None:
        """Let another have it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
