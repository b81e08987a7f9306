"""Work that may block, beside the loop: a name server that is silent, a dead network file system, the start of a program.

Not the loop's own executor: its threads are few and shared, and our end would wait for one that is stuck.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Stuck(Exception):
    """The work before this one has not come back yet, so nothing else is started."""


class Aside:
    """One thread at a time. A thread cannot be stopped: one that is stuck is left, and does not hold up our own end."""

    def __init__(self) -> None:
        self.busy = False

    async def run(self, work: Callable[[], Result], timeout_s: float) -> Result:
        """What `work` returns, or raises.

        Raises:
            TimeoutError: it has not come back in time. Stuck: the one before has not.
        """
        if self.busy:
            raise Stuck
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()

        def deliver(settle: Callable[[], None]) -> None:
            if not answer.done():
                settle()

        def body() -> None:
            settle: Callable[[], None]
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 - it is raised again where the answer is awaited
                settle = lambda error=error: answer.set_exception(error)  # type: ignore[misc] # noqa: E731
            else:
                settle = lambda: answer.set_result(value)  # noqa: E731
            self.busy = False
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(deliver, settle)

        thread = threading.Thread(target=body, daemon=True)
        self.busy = True
        try:
            thread.start()
        except RuntimeError:  # the limit of threads
            self.busy = False
            raise Stuck from None
        return await asyncio.wait_for(answer, timeout_s)
