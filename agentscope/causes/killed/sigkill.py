"""Somebody or something sent it SIGKILL, and it was not the OOM killer.

What it means: SIGKILL (signal 9, `kill -9`) ends a process at once; it cannot be caught, so the process has no chance
to say a word. Many things send it: a person, a supervisor whose patience after SIGTERM ended, a container that is torn
down, a parent that took its child with it. Signal 9 alone does not mean "out of memory".

How agentscope knows: the kernel tells who sends every signal to a watched process (tracepoint signal:signal_generate),
with pid, user, program and parents, and the kernel's OOM killer did not choose this one. Where the sender could not be
seen, the diagnosis says "possible" and names nobody.

What to do: ask the sender that is named. If it was a supervisor after a SIGTERM, the process is too slow to stop or
ignores SIGTERM: let it react, or allow it more time (TimeoutStopSec=, docker stop --time).

What looks like it but is not: the kernel's OOM killer (oom/cgroup, oom/global); earlyoom or systemd-oomd
(oom/userspace-killer); the CPU time limit (killed/limit); exit code 137, which a shell or a container reports when
something inside was killed.
"""

from agentscope.causes import Known, No
from agentscope.causes.killed import (
    SEE_THE_SENDER,
    by_nobody_seen,
    cpu_limit,
    named,
    sender_of,
    sent_by_another,
    was_told_before,
    who_to_ask,
)
from agentscope.causes.oom import memory_killer, spared
from agentscope.evidence.actor import SIGKILL, SignalActor
from agentscope.evidence.cpu_time import CpuTime
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.oom_victim import OomKill
from agentscope.evidence.possible_senders import PossibleSenders
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence, Finding


def match(
    *,
    status: WaitStatus,
    actor: SignalActor | None,
    victim: Known[OomKill],
    cpu: CpuTime | None,
    words: LastWords | None,
    senders: PossibleSenders | None,
) -> Finding | No:
    """Signal 9 ended it, and no cause that explains more did."""
    if status.signal != SIGKILL:
        return No(f"it {status.says()}")
    if victim is not None and spared(status, actor) is None:
        return No("the kernel's OOM killer chose it")
    killer = memory_killer(status, actor, words)
    if killer is not None:
        return No(f"{killer} sent it to free memory")
    if victim is None and cpu_limit(actor, cpu):
        return No("the CPU time limit ended it")
    another = sent_by_another(status, actor, senders)
    if another is not None:
        return No(another)
    sender = sender_of(actor)
    sure: Confidence = "certain" if sender is not None else "possible"
    if sender is not None and sender.relation == "kernel":
        sure = "likely"
    return Finding(
        headline=f"{headline(sender, status)}{was_told_before(actor)}",
        culprit=named(sender),
        confidence=sure,
        cites=("wait-status", *(("actor",) if sender is not None else ())),
        advice=advice(actor, sender),
    )


def headline(sender: SignalActor | None, status: WaitStatus) -> str:
    """Who killed it and in which way, as one sentence."""
    if sender is None:
        return f"Killed with SIGKILL; {by_nobody_seen(status)}"
    who = named(sender)
    if sender.relation == "namespace-init":
        return f"Killed because its container ended: {who}, the init of its pid namespace, exited"
    if sender.relation == "dying-parent":
        return f"Killed because its parent {who} ended (parent-death signal)"
    if sender.relation == "kernel":
        return "Killed with SIGKILL by the kernel itself, though not for memory and not for CPU time"
    if sender.relation == "self":
        return "It sent SIGKILL to itself"
    if sender.cgroup_kill:
        return f"Killed with SIGKILL together with its whole cgroup by {who} (cgroup.kill)"
    above = {"ancestor": ", above it in the process tree", "family": ", another process of the same agent"}
    return f"Killed with SIGKILL by {who}{above.get(sender.relation, '')}"


def advice(actor: SignalActor | None, sender: SignalActor | None) -> tuple[str, ...]:
    """What to look at next, by who it was."""
    if sender is None:
        if actor is None:
            return (SEE_THE_SENDER,)
        return ("every sender is seen here, so the kernel ended it without a signal: a strict seccomp filter does; see dmesg",)
    if sender.relation == "kernel":
        return ("a security tool with BPF (Tetragon, Falco) may kill from inside the kernel: see its log, and dmesg",)
    if sender.relation == "namespace-init":
        return ("see why the container's first process ended: docker logs, podman logs, kubectl logs --previous",)
    if sender.relation == "dying-parent":
        return (f"see why {named(sender)} ended; to outlive it, do not set PR_SET_PDEATHSIG (prctl, setpriv --pdeathsig)",)
    slow = was_told_before(sender)
    patience = ("it did not end on SIGTERM in time: let it react to that, or raise TimeoutStopSec= / docker stop --time",)
    return (*(patience if slow else ()), *who_to_ask(sender))
