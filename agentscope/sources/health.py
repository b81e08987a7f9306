"""The health check of one agent as the config asks for it: made again and again, counted, told. It judges nothing.

Checks never overlap: the next one is made an interval after the start of the last, or when that has come back, if it took longer.
A success is told when it is news, a failure always; what keeps us from asking is a `Lost`, and then nothing is known.
"""

import asyncio
import time
from collections.abc import Callable

from agentscope.config import HealthConfig
from agentscope.examination import HealthResult
from agentscope.model import Agent, AnyEvent, Health, Lost
from agentscope.sources.aside import Aside
from agentscope.sources.checks import Answer, CannotAsk, ask, probe_of
from agentscope.sources.quoting import quoted

PAUSE_S = 0.05  # between checks that take longer than their interval


class HealthProbe:
    """One agent's health check. `owner_uid` is whose the config is: a command gets no more rights than that."""

    def __init__(self, agent: Agent, asked: HealthConfig, tell: Callable[[AnyEvent], None], owner_uid: int = 0) -> None:
        self.agent = agent
        self.asked = asked
        self.tell = tell
        self.owner_uid = owner_uid
        self.probe = probe_of(asked)
        self.failures = 0
        self.first_failure_ns: int | None = None
        self.last: Answer | None = None
        self.hindered: str | None = None
        self.asking = False
        self.asked_ns: int | None = None  # when the last check came back
        self.aside = Aside()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Make the first check soon, and go on until `close`."""
        self.task = asyncio.get_running_loop().create_task(self.run())

    def close(self) -> None:
        """Make no more checks; one that is being made is dropped."""
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def state(self) -> HealthResult | None:
        """What the last check said; None before the first, and while the check cannot be made."""
        if self.last is None:
            return None
        failing = self.failures >= self.asked.strikes
        return HealthResult(
            probe=self.probe,
            failures=self.failures,
            says=f"{self.probe}: {self.last.says}",
            failing_since_ns=self.first_failure_ns if failing else None,
            answered=self.last.answered,
        )

    def asked_since(self, at_ns: int) -> bool:
        """Whether a check was under way at some time since then: it makes an agent read and write, which is no progress."""
        return self.asking or (self.asked_ns is not None and self.asked_ns >= at_ns)

    async def run(self) -> None:
        """Ask for ever."""
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            await self.check()
            await asyncio.sleep(max(PAUSE_S, begun_s + self.asked.interval_s - loop.time()))

    async def check(self) -> None:
        """Ask once and fold in what came of it."""
        begun_ns, self.asking = now_ns(), True
        try:
            answer = await ask(self.asked, self.agent, self.owner_uid, self.aside)
        except CannotAsk as error:
            self.cannot(str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with us, it is not the agent's failure
            self.cannot(f"{type(error).__name__}: {quoted(str(error))}")
        else:
            self.fold(answer, begun_ns, now_ns())
        finally:
            self.asking, self.asked_ns = False, now_ns()

    def fold(self, answer: Answer, begun_ns: int, at_ns: int) -> None:
        """Count one answer. One that is as it should be takes all strikes away."""
        news = self.last is None or self.last.ok != answer.ok
        self.last, self.hindered = answer, None
        if answer.ok:
            self.failures, self.first_failure_ns = 0, None
        else:
            self.failures += 1
            self.first_failure_ns = begun_ns if self.first_failure_ns is None else self.first_failure_ns
        if news or not answer.ok:
            self.tell(
                Health(
                    at_ns=at_ns,
                    agent_pid=self.agent.pid,
                    agent_start_ns=self.agent.start_ns,
                    probe=self.probe,
                    ok=answer.ok,
                    failures=self.failures,
                    says=f"{self.probe}: {answer.says}",
                    took_ms=round((at_ns - begun_ns) / 1e6, 1),
                    answered=answer.answered,
                )
            )

    def cannot(self, because: str) -> None:
        """The check could not be made: nothing is known until it can, and no strike is taken away. Told once for each reason."""
        self.last = None
        if because != self.hindered:
            self.hindered = because
            says = f"{self.agent.name} cannot be asked by {self.probe}: {because}"
            self.tell(Lost(at_ns=now_ns(), source="health", count=1, says=says))


def now_ns() -> int:
    """CLOCK_BOOTTIME, the clock of every event."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
