"""What agentscope tells systemd of itself: sd_notify(3) for the protocol, sd_watchdog_enabled(3) for how often.

Without a systemd that asks for it nothing is told.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, MutableMapping


class Telling:
    """Tells systemd how we are. What it does not take at once is told with the next; without a systemd that asks, nothing is told."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what systemd says from the environment, so that nobody whom we start speaks for us."""
        self.at = environment.pop("NOTIFY_SOCKET", "")
        every_us, whom = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        asked = every_us.isdecimal() and int(every_us) > 0 and whom in {"", str(os.getpid())}
        self.watchdog_s = int(every_us) / 1e6 if asked and self.at else None
        self.waiting: list[str] = []

    def tell(self, word: str) -> None:
        """One word of sd_notify(3); never waits, never raises."""
        if self.at[:1] not in {"/", "@"}:
            return
        self.waiting = [*self.waiting[-7:], word]
        address = "\0" + self.at[1:] if self.at.startswith("@") else self.at
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaking:
            speaking.setblocking(False)
            speaking.sendto("\n".join(self.waiting).encode(), address)
            self.waiting = []

    async def beat(self) -> None:
        """Two signs of life in the time that systemd gives us. A loop that stands gives none, and is started again."""
        while self.watchdog_s is not None:
            await asyncio.sleep(self.watchdog_s / 2)
            self.tell("WATCHDOG=1")


@contextlib.asynccontextmanager
async def told_to_systemd(telling: Telling) -> AsyncIterator[None]:
    """Inside we are ready and well; after that we are on our way out."""
    telling.tell("READY=1")
    beating = asyncio.get_running_loop().create_task(telling.beat())
    try:
        yield
    finally:
        beating.cancel()
        telling.tell("STOPPING=1")
