"""One thread beside the event loop, whose end nobody has to wait for: a look at a dead network file system never comes back.

The threads of concurrent.futures are joined when the interpreter ends, however long that takes; this one is not.
"""

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

Answer = TypeVar("Answer")
WAITING_LIMIT = 500


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


@dataclass
class Given:
    """What was given to be worked out: for whom, what to do with the answer, and what to answer instead where none comes."""

    key: Hashable
    work: Callable[[], Any]
    then: Callable[[Any], None]
    instead: Callable[[str], Any]
    answer: Future[Any]
    began_ns: int | None = None


class InTurn:
    """Works out in a thread what takes longer than an event may; the answers are taken up in the event loop, in the order given.

    Every answer is taken up once: of what has not come back after `late_s` (seconds), and all that there is to be had at the end, the
    answer is what `instead` gives. `wake` is called in the thread when an answer is there. All else is for the event loop only.
    """

    def __init__(self, name: str, late_s: float) -> None:
        self.wake: Callable[[], object] = int
        self._name, self._late_s = name, late_s
        self._beside = Beside(name)
        self._ending = False
        self._waiting: deque[Given] = deque()
        self._keys: Counter[Hashable] = Counter()

    def put(
        self, key: Hashable, work: Callable[[], Answer], then: Callable[[Answer], None], instead: Callable[[str], Answer]
    ) -> None:
        """Do `work` in the thread and `then` in the loop. Where hundreds wait already, this waits for the first of them."""
        while len(self._waiting) >= WAITING_LIMIT:
            self._first(self._late_s)
        given = Given(key, work, then, instead, Future())
        self._waiting.append(given)
        self._keys[key] += 1
        self._start(given)

    def waits(self, key: Hashable) -> bool:
        """Whether something that was given under this key is not taken up yet."""
        return key in self._keys

    def take_up(self) -> None:
        """Take up what is done, and what is late."""
        while self._waiting and (self._waiting[0].answer.done() or self._late(self._waiting[0])):
            self._first(0)

    def finish(self, within_s: float) -> None:
        """Take up everything, waiting no longer than this."""
        self._ending = True
        ends = time.monotonic() + within_s
        while self._waiting:
            self._first(max(0.0, ends - time.monotonic()))
        self.wake = int  # the loop may be closed when a thread that hung comes back

    def _start(self, given: Given) -> None:
        def work() -> Any:
            given.began_ns = time.monotonic_ns()
            return given.work()

        given.answer = self._beside.submit(work)
        given.answer.add_done_callback(lambda _: self.wake())

    def _late(self, given: Given) -> bool:
        return given.began_ns is not None and time.monotonic_ns() - given.began_ns > self._late_s * 1e9

    def _first(self, within_s: float) -> None:
        given = self._waiting[0]
        try:
            answer = given.answer.result(within_s)
        except Exception as error:  # noqa: BLE001 - whatever failed there, the answer is given without it
            if given.answer.done():
                answer = given.instead(f"{type(error).__name__}: {error}"[:300])
            else:
                answer = given.instead("the watching ended first" if self._ending else f"not done within {self._late_s:g} s")
                self._leave_behind()
        self._waiting.popleft()
        self._keys[given.key] -= 1
        if not self._keys[given.key]:
            del self._keys[given.key]
        given.then(answer)

    def _leave_behind(self) -> None:
        """What hangs keeps its thread; the others get a new one."""
        if self._ending:
            return
        self._beside = Beside(self._name)
        for given in list(self._waiting)[1:]:
            if given.answer.cancel():
                self._start(given)
