"""The pulse: once a second, what every agent uses, kept for the history and told as one event an agent."""

import heapq
from collections.abc import Iterable, Mapping, Sequence

from agentscope.ceilings import Ceilings
from agentscope.incidents import Tree
from agentscope.model import ProcessSample, Pulse
from agentscope.outputs import Outputs
from agentscope.pipeline import Pipeline, now_ns
from agentscope.sources import Engine
from agentscope.vigil import Vigil

PULSE_S = 1.0
THREADS_A_SECOND = 200  # sampled; a thousand that all wake every second would else cost half a percent of a core
LONGEST_PAUSE_S = 5.0
PAUSES_IN_PATIENCE = 6
READS_AGAIN_A_SECOND = 2  # a few agents are read again every second or two
MANY = 60  # processes: of more only one a second, so that a hundred are read again within two minutes


class Pulses:
    """The pulses of all agents of a pipeline; what threads do goes to the vigil."""

    def __init__(self, pipeline: Pipeline, engine: Engine, vigil: Vigil) -> None:
        self.pipeline = pipeline
        self.engine = engine
        self.vigil = vigil
        self.ceilings = Ceilings(pipeline, vigil.probes.config)
        self.threads_due_ns = self.sampled_ns = 0
        self.outputs = Outputs(vigil.threads, self.asked)

    def beat(self) -> int:
        """One pulse of each agent; returns the time of it, CLOCK_BOOTTIME."""
        trees = list(self.pipeline.incidents.trees)
        samples = self.sample_threads(trees)
        rss = {sample.pid: sample.rss_bytes for sample in samples} if samples is not None else self.engine.memory()
        now = now_ns()
        self.pipeline.cache.memory.add(now, rss)
        self.read_again(now)
        if samples is not None:
            self.sampled_ns = now
            self.outputs.sampled(samples)
            by_pid = {sample.pid: sample for sample in samples}
            for tree in trees:
                self.vigil.sampled(tree, [by_pid[pid] for pid in tree.live if pid in by_pid], now)
        self.outputs.look(trees, now)
        for tree in trees:
            self.tell_use(tree, rss, now)
        self.ceilings.beat(rss, now)
        return now

    def sample_threads(self, trees: Iterable[Tree]) -> Sequence[ProcessSample] | None:
        """All threads of all agents, where that is due: every second, but of many threads two hundred a second.

        No patience needs more: it is at least six of these pauses. Memory is read every second, whatever the number of threads.
        """
        known = self.vigil.agents
        if now_ns() < self.threads_due_ns and all(tree.key in known for tree in trees):
            return None
        samples = self.engine.sample()
        threads = sum(len(sample.threads) for sample in samples)
        patience_s = self.vigil.waits.patience_s
        pause_s = max(PULSE_S, min(threads / THREADS_A_SECOND, patience_s / PAUSES_IN_PATIENCE, LONGEST_PAUSE_S))
        self.threads_due_ns = now_ns() + int((pause_s - PULSE_S / 2) * 1e9)
        self.vigil.interval_s = pause_s
        return samples

    def tell_use(self, tree: Tree, rss: Mapping[int, int | None], now: int) -> None:
        """One agent's pulse; what its threads do is that of their last sample."""
        binding = self.pipeline.cache.binding.get(tree.root.process.pid) if tree.root else None
        known = [rss_bytes for pid in tree.live if (rss_bytes := rss.get(pid)) is not None]
        waits = self.vigil.agents[tree.key].waits
        self.pipeline.sink(  # no fold asks for it
            Pulse(
                at_ns=now,
                agent_pid=tree.agent.pid,
                agent_start_ns=tree.agent.start_ns,
                state=waits.state(now),
                rss_bytes=sum(known) if known else None,
                cpu_percent=None if waits.watched_since_ns == self.sampled_ns else round(100 * waits.cpu_share, 1),
                threads=waits.threads,
                cgroup_bytes=binding.usage_bytes if binding else None,
                limit_bytes=binding.limit_bytes if binding else None,
                limit_path=binding.path if binding else None,
                wrote_ns=self.outputs.wrote_ns(tree),
            )
        )

    def asked(self, pid: int) -> int | None:
        """When a process last wrote to its outputs, as far as the write probe or their files tell."""
        return self.engine.wrote_ns(pid) or self.pipeline.cache.wrote_ns(pid)

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
        for _, pid in heapq.nsmallest(READS_AGAIN_A_SECOND if len(again) <= MANY else 1, again):
            member = self.pipeline.incidents.members[pid]
            cache.refresh(member.process, now)
            self.ceilings.looked(member, now)
