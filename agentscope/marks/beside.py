"""One thread beside the event loop, whose end nobody has to wait for: a look at a dead network file system never comes back.

The threads of concurrent.futures are joined when the interpreter ends, however long that takes; this one is not.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")


class Beside:
    """Does what it is given, one after the other, in a thread that starts with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, task: Callable[..., Answer], *given: object) -> Future[Answer]:
        """Do it as soon as what was given before is done."""
        future: Future[Answer] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(task(*given))
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is asked for
                future.set_exception(error)

        self._given.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return future

    def finish(self, within_s: float) -> bool:
        """Wait until all that was given is done, but no longer than this; whether it was."""
        if self._thread is None:
            return True
        try:
            self.submit(int).result(within_s)
        except TimeoutError:
            return False
        return True

    def _work(self) -> None:
        while True:
            self._given.get()()
