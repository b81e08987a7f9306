"""The one look at a process that all points share: some four seconds, in which its memory is sampled beside all else."""

import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from agentscope.agents import matches, read_process
from agentscope.baseline.facts import facts_of
from agentscope.baseline.taking import take
from agentscope.ceilings import held_in, own_pages
from agentscope.checking import Subject, Told, Uses
from agentscope.config import AgentConfig, Config, read_config
from agentscope.evidence import CgroupMemory, LastSeen, binding_of
from agentscope.examining import examine
from agentscope.lastseen import host_memory
from agentscope.ledger import Ledger
from agentscope.marks import with_standing
from agentscope.model import ProcessExec
from agentscope.pipeline import now_ns
from agentscope.policy import Policy
from agentscope.state import state_dir
from agentscope.supervisors import claimed
from agentscope.views.board import wall_ns_of

SAMPLES = 5
EVERY_S = 0.8
PATIENCE_S = 30.0


def subject_of(pid: int, state: str | None, config: str | None) -> Subject:
    """Look at it.

    Raises:
        NoSuchProcess: it ended meanwhile. BadInput, UsageError: the config is not right.
    """
    read = read_config(config) if config is not None else Config()
    seen = read_process(pid)
    label, entry = entry_of(read, seen)
    with ThreadPoolExecutor(1) as beside:
        sampled = beside.submit(samples_of, pid)
        found = examine(pid, PATIENCE_S)
        agent = msgspec.structs.replace(found.scene.agent, name=label or found.scene.agent.name)
        scene = with_standing(msgspec.structs.replace(found.scene, agent=agent), state_dir(state))
        facts = facts_of(pid, start_ns=agent.start_ns, container=agent.container)
        standing = take(facts, lockfile=entry.lockfile if entry else None) if facts is not None else None
        owner = claimed(agent, Policy())
        past = past_of(Ledger(state_dir(state)), agent.name)
        samples = sampled.result()
    binding = binding_of(scene.last_seen.cgroups) if scene.last_seen else None
    return Subject(
        agent=agent,
        scene=scene,
        facts=facts,
        standing=standing,
        binding=real(binding, scene.last_seen),
        uses=samples,
        owner=owner,
        entry=entry,
        config=config,
        owner_uid=read.owner_uid,
        past=past,
    )


def real(binding: CgroupMemory | None, seen: LastSeen | None) -> CgroupMemory | None:
    """A limit that the host could not give is none."""
    total = seen.host_total_bytes if seen is not None else None
    beyond = binding is not None and total is not None and (binding.limit_bytes or 0) >= total
    return None if beyond else binding


def entry_of(config: Config, seen: ProcessExec) -> tuple[str | None, AgentConfig | None]:
    """The entry of the config that this process matches, and its name."""
    for target in config.targets:
        if matches(target, seen):
            return target.name, config.agents.get(target.name or "")
    return None, None


def samples_of(pid: int) -> Uses | None:
    """Its memory, a few times: of the cgroup that limits it, or its own against what the host can give."""
    from agentscope.agents import memory_cgroup_of
    from agentscope.lastseen import memory_cgroups

    total = host_memory()[1]
    chain = [each for each in memory_cgroups(memory_cgroup_of(pid)) if total is None or (each.limit_bytes or 0) < total]
    binding = binding_of(chain)
    samples, limit = [], binding.limit_bytes if binding is not None else None
    for number in range(SAMPLES):
        used = held_in(binding) if binding is not None else own_pages(pid)
        if used:
            samples.append((now_ns(), used))
        if number + 1 < SAMPLES:
            time.sleep(EVERY_S)
    if limit is None:
        limit = (host_memory()[0] or 0) + (samples[-1][1] if samples else 0)
    where = f"cgroup {binding.path}" if binding is not None else "what the host can give"
    return Uses(samples=tuple(samples), limit=limit, where=where) if len(samples) > 1 and limit else None


def past_of(ledger: Ledger, name: str) -> tuple[tuple[int, Told], ...] | None:
    """What the ledger tells of agents of this name; None where it may not be read."""
    try:
        return tuple(
            (wall_ns_of(envelope) or 0, envelope.data)
            for envelope in ledger.read()
            if isinstance(envelope.data, Told) and envelope.data.agent.name == name
        )
    except OSError:
        return None
