"""Step 1: anything that yields events. One file a source; all of them keep this contract."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from agentscope.errors import NotPermitted
from agentscope.examination import SyscallProfile
from agentscope.model import AnyEvent, EngineName, MissingEvidence, ProcessExec, ProcessSample


class Source(Protocol):
    """A stream of events behind one file descriptor, for an asyncio reader.

    `drain` never blocks and returns what has come since the last call, in kernel order; a loss is in it as a `Lost` event.
    """

    def fileno(self) -> int:
        """A descriptor that polls readable when `drain` has something."""
        ...

    def drain(self) -> Sequence[AnyEvent]:
        """Every event that is waiting, oldest first."""
        ...

    def close(self) -> None:
        """Detach and free everything; safe to call twice."""
        ...


class Engine(Source, Protocol):
    """A source that watches processes in the kernel and can be asked about them.

    Watching is inherited over fork inside the kernel, so a child that lives a millisecond is not missed.
    """

    name: EngineName
    degraded: tuple[str, ...]
    words_unheard: str  # why what a process writes to no file cannot be had; empty where it can

    def may_watch(self, uid: int) -> bool:
        """Whether this engine sees what happens to processes of this user."""
        ...

    def watch(self, pid: int) -> None:
        """Report this process and its future descendants; a pid that is already gone is ignored."""
        ...

    def unwatch(self, pid: int, at_ns: int) -> None:
        """Stop reporting this process, unless it became another program after `at_ns`: that one is yet to be judged."""
        ...

    def watch_discovered(self, enabled: bool) -> None:
        """When on, every exec on the host is reported and its process watched until `unwatch` or its end.

        So targets named by a pattern lose no event while user space makes up its mind.
        """
        ...

    def sample(self) -> Sequence[ProcessSample]:
        """All watched processes with their threads, now (one pass of iter/task).

        A thread or a process of which nothing has changed since the last sample is the very same object.
        """
        ...

    def memory(self) -> Mapping[int, int | None]:
        """Resident bytes of every watched process now, by pid; None where it has given its memory back already."""
        ...

    def sample_of(self, pids: Sequence[int]) -> Sequence[ProcessSample]:
        """These processes with their threads, now, by an iterator of their own. Any thread may ask; empty where it cannot be had."""
        ...

    def registers(self, pid: int) -> Mapping[int, Mapping[int, int]]:
        """User registers of the threads of a process, by tid and DWARF number of x86-64 (16 is the instruction pointer).

        Of a blocked thread they are exact; of a running one those of its last call or timer tick, so asking again and again
        samples where it spends its time. Empty where they cannot be had. Any thread may ask.
        """
        ...

    def begin_profile(self, pids: Iterable[int]) -> None:
        """Count the system calls of these processes until `end_profile`. One profile at a time: a new one replaces it.

        It slows every system call of the host a little meanwhile.
        """
        ...

    def end_profile(self) -> SyscallProfile | MissingEvidence:
        """Stop counting: what was counted since `begin_profile`, or why nothing was. Nothing stays attached."""
        ...

    def capture_words(self, enabled: bool) -> None:
        """Attach or detach the probe that keeps the tail of what watched processes write to descriptors 1 and 2.

        It slows every system call of the host a little, so it is on only while an agent's stderr cannot be read elsewhere.
        """
        ...

    def take_words(self, pid: int) -> tuple[bytes, int] | None:
        """The last 4096 bytes that `pid` wrote to descriptors 1 and 2 and when it last did (CLOCK_BOOTTIME), and forget them.

        None if none were captured.
        """
        ...

    def wrote_ns(self, pid: int) -> int | None:
        """When `pid` last wrote to descriptors 1 or 2 (CLOCK_BOOTTIME), where the probe of `capture_words` saw it; else None."""
        ...

    def know_python(self, pids: Iterable[int]) -> None:
        """Teach the fault probe where these processes keep their Python frames; others are left alone."""
        ...


def permitted(seen: ProcessExec, engine: Engine) -> ProcessExec:
    """The same process, where this engine sees what happens to it.

    Raises:
        NotPermitted: it is another user's, and we are not root.
    """
    if not engine.may_watch(seen.uid):
        why = f"process {seen.pid} is of uid {seen.uid}, and engine {engine.name} sees our own only"
        raise NotPermitted("watching processes of others needs root", why, f"sudo {' '.join(sys.argv)}")
    return seen
