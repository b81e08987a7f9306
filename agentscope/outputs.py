"""When the processes of agents last wrote to their outputs, descriptors 1 and 2: asked again only of those that have written.

A thread's own count of bytes tells that it wrote something, and to ask where costs twenty times as much. The files are asked beside
the loop: one of a server that is gone hangs whoever asks. What no count tells (a thread that ended since, another process that
writes to the same file) is found by asking everybody from time to time.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from agentscope.incidents import Tree
from agentscope.model import ProcessSample

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

OUTPUTS_READ = 4  # processes of one agent: its own and its first tools
EVERYBODY_NS = 15_000_000_000


def outputs_of(tree: Tree) -> Iterable[int]:
    """The processes of an agent whose outputs are looked at."""
    return islice(tree.live, OUTPUTS_READ)


def written_by(sample: ProcessSample) -> int | None:
    """How many bytes the threads of a process have written, to whatever it was; None where the kernel does not count them."""
    counts = [thread.written_bytes for thread in sample.threads]
    return None if None in counts else sum(count for count in counts if count is not None)


class Outputs:
    """Of all agents of a pipeline; `asked` tells of one process when it wrote to its outputs (ns, CLOCK_BOOTTIME), and may block."""

    def __init__(self, threads: "Executor", asked: Callable[[int], int | None]) -> None:
        self.threads = threads
        self.asked = asked
        self.found: dict[int, int | None] = {}
        self.samples: dict[int, ProcessSample] = {}
        self.written: dict[int, int | None] = {}
        self.due: set[int] = set()
        self.everybody_ns = 0
        self.looking: Future[None] | None = None

    def sampled(self, samples: Iterable[ProcessSample]) -> None:
        """A sample of processes: those that have written since the one before are to be asked."""
        for sample in samples:
            pid = sample.pid
            if self.samples.get(pid) is sample:
                continue
            self.samples[pid] = sample
            written = written_by(sample)
            if written is None or written != self.written.get(pid):
                self.written[pid] = written
                self.due.add(pid)

    def look(self, trees: Iterable[Tree], now_ns: int) -> None:
        """Ask those that have written, and from time to time all, beside the loop; while an answer is awaited nobody else is asked."""
        if self.looking is not None and not self.looking.done():
            return
        pids = {pid for tree in trees for pid in outputs_of(tree)}
        if now_ns - self.everybody_ns >= EVERYBODY_NS:
            self.everybody_ns = now_ns
            self.forget(pids)
            wanted = pids
        else:
            # one that was never sampled may not be countable at all
            wanted = {pid for pid in pids if pid in self.due or self.written.get(pid) is None}
        self.due -= wanted
        if wanted:
            self.looking = self.threads.submit(self.ask, wanted)

    def ask(self, pids: Iterable[int]) -> None:
        """In a thread."""
        for pid in pids:
            self.found[pid] = self.asked(pid)

    def forget(self, pids: set[int]) -> None:
        """Of processes that are gone nothing is kept."""
        for kept in (self.found, self.samples, self.written):
            for pid in kept.keys() - pids:
                kept.pop(pid, None)
        self.due &= pids

    def wrote_ns(self, tree: Tree) -> int | None:
        """When any of an agent's processes last wrote to its outputs, as far as the last look tells."""
        return max((at_ns for pid in outputs_of(tree) if (at_ns := self.found.get(pid)) is not None), default=None)
