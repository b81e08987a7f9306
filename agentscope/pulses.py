"""The pulse: once a second, what every agent uses, kept for the history and told as one event an agent."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from agentscope.ceilings import Ceilings
from agentscope.evidence import MemorySample
from agentscope.incidents import Tree
from agentscope.model import ProcessSample, Pulse
from agentscope.pipeline import Pipeline, now_ns
from agentscope.sources import Engine
from agentscope.vigil import Vigil

if TYPE_CHECKING:
    from concurrent.futures import Future

PULSE_S = 1.0
THREADS_A_SECOND = 333  # sampled; a thousand that all wake every second would else cost half a percent of a core
LONGEST_PAUSE_S = 3.0
READS_AGAIN_A_SECOND = 2  # a hundred agents are read again within a minute, a few every second or two
OUTPUTS_READ = 4  # processes of one agent: its own and its first tools


class Pulses:
    """The pulses of all agents of a pipeline; what threads do goes to the vigil."""

    def __init__(self, pipeline: Pipeline, engine: Engine, vigil: Vigil) -> None:
        self.pipeline = pipeline
        self.engine = engine
        self.vigil = vigil
        self.ceilings = Ceilings(pipeline, vigil.probes.config)
        self.threads_due_ns = self.sampled_ns = 0
        self.files_wrote_ns: dict[int, int] = {}
        self.looking: Future[None] | None = None

    def beat(self) -> int:
        """One pulse of each agent; returns the time of it, CLOCK_BOOTTIME."""
        trees = list(self.pipeline.incidents.trees)
        samples = self.sample_threads(trees)
        rss = {sample.pid: sample.rss_bytes for sample in samples} if samples is not None else self.engine.memory()
        now = now_ns()
        self.read_again(now)
        self.look_at_files()
        if samples is not None:
            self.sampled_ns = now
            by_pid = {sample.pid: sample for sample in samples}
            for tree in trees:
                self.vigil.sampled(tree, [by_pid[pid] for pid in tree.live if pid in by_pid], now)
        for tree in trees:
            self.tell_use(tree, rss, now)
        self.ceilings.beat(rss, now)
        return now

    def sample_threads(self, trees: Iterable[Tree]) -> Sequence[ProcessSample] | None:
        """All threads of all agents, where that is due: every second, but of many threads a third of a thousand a second.

        No patience needs more: it is at least ten of these pauses. Memory is read every second, whatever the number of threads.
        """
        known = self.vigil.agents
        if now_ns() < self.threads_due_ns and all((tree.agent.pid, tree.agent.start_ns) in known for tree in trees):
            return None
        samples = self.engine.sample()
        threads = sum(len(sample.threads) for sample in samples)
        pause_s = max(PULSE_S, min(threads / THREADS_A_SECOND, self.vigil.waits.patience_s / 10, LONGEST_PAUSE_S))
        self.threads_due_ns = now_ns() + int((pause_s - PULSE_S / 2) * 1e9)
        self.vigil.interval_s = pause_s
        return samples

    def tell_use(self, tree: Tree, rss: Mapping[int, int | None], now: int) -> None:
        """One agent's pulse; what its threads do is that of their last sample."""
        cache = self.pipeline.cache
        binding = cache.binding.get(tree.root.process.pid) if tree.root else None
        living = {pid: rss[pid] for pid in tree.live if pid in rss}
        for pid, rss_bytes in living.items():
            cache.sample(pid, MemorySample(at_ns=now, rss_bytes=rss_bytes))
        known = [rss_bytes for rss_bytes in living.values() if rss_bytes is not None]
        waits = self.vigil.agents[(tree.agent.pid, tree.agent.start_ns)].waits
        self.pipeline.sink(  # no fold asks for it
            Pulse(
                at_ns=now,
                agent_pid=tree.agent.pid,
                agent_start_ns=tree.agent.start_ns,
                state=waits.state(now),
                rss_bytes=sum(known) if known else None,
                cpu_percent=None if waits.watched_since_ns == self.sampled_ns else round(100 * waits.cpu_share, 1),
                threads=sum(len(process.sample.threads) for process in waits.known.values()),
                cgroup_bytes=binding.usage_bytes if binding else None,
                limit_bytes=binding.limit_bytes if binding else None,
                limit_path=binding.path if binding else None,
                wrote_ns=self.wrote_ns(tree),
            )
        )

    def wrote_ns(self, tree: Tree) -> int | None:
        """When any of these last wrote to its output, as far as the write probe or the last look at their files tells."""
        times = [self.engine.wrote_ns(pid) or self.files_wrote_ns.get(pid) for pid in list(tree.live)[:OUTPUTS_READ]]
        return max((at_ns for at_ns in times if at_ns is not None), default=None)

    def look_at_files(self) -> None:
        """Ask the files behind outputs when they were written, beside the loop: a file of a server that is gone hangs whoever asks."""
        if self.looking is not None and not self.looking.done():
            return
        pids = [pid for tree in self.pipeline.incidents.trees for pid in list(tree.live)[:OUTPUTS_READ]]

        def look() -> None:
            found = {pid: self.pipeline.cache.wrote_ns(pid) for pid in pids}
            self.files_wrote_ns = {pid: at_ns for pid, at_ns in found.items() if at_ns is not None}

        self.looking = self.vigil.threads.submit(look)

    def read_again(self, now: int) -> None:
        """Read in /proc what dies with a process: of new ones at once, of the others a few a second, the oldest reading first."""
        cache, again = self.pipeline.cache, []
        for member in list(self.pipeline.incidents.members.values()):
            kept = cache.seen.get(member.process.pid)
            if kept is None:
                cache.refresh(member.process, now)
                self.ceilings.looked(member, now)
            else:
                again.append((kept.at_ns, member.process.pid))
        for _, pid in heapq.nsmallest(READS_AGAIN_A_SECOND, again):
            member = self.pipeline.incidents.members[pid]
            cache.refresh(member.process, now)
            self.ceilings.looked(member, now)
