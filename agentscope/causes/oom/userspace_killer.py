"""A program whose job is to free memory before the kernel must (earlyoom, systemd-oomd, kubelet) ended it.

What it means: many machines run a small daemon that watches how much memory is left and ends a large process early, so
that the machine does not freeze. That daemon chose this one. Nothing was wrong with the process itself, except that it
was large or that something else had filled the machine.

How agentscope knows: the kernel tells who sends every signal to a watched process (tracepoint signal:signal_generate),
and the sender's executable is one of these daemons. A service manager as sender counts only if its log says that it was
asked to.

What to do: see what filled the memory. Either allow more (a bigger machine, swap), limit the real hog, or tell the
daemon to spare this process: earlyoom --avoid REGEX, ManagedOOMPreference=avoid for systemd-oomd, a memory request in
the pod's manifest.

What looks like it but is not: the kernel's own OOM killer (oom/cgroup, oom/global: sent by the kernel, no sender
process); a person or script that sends SIGTERM or SIGKILL (killed/sigterm, killed/sigkill), even if that program only
calls itself so in its text.
"""

from agentscope.causes import No
from agentscope.causes.killed import named
from agentscope.causes.oom import memory_killer, size
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.memory_limits import MemoryLimits
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

SPARE = {
    "earlyoom": "tell earlyoom to spare it: --avoid '^NAME$' in EARLYOOM_ARGS, /etc/default/earlyoom",
    "nohang": "tell nohang to spare it: badness_adj in /etc/nohang/nohang.conf",
    "systemd-oomd": "tell systemd-oomd to spare it: ManagedOOMPreference=avoid in its unit; oomctl shows what it watches",
    "kubelet": "set the pod's resources.requests.memory to what it really needs: kubelet evicts those above their request first",
}


def match(*, status: WaitStatus, actor: SignalActor, words: LastWords | None, limits: MemoryLimits | None) -> Finding | No:
    """The sender is a memory daemon, and its signal was what ended it."""
    killer = memory_killer(status, actor, words)
    if killer is None:
        return No(f"{actor.signal_name} came {actor.actor.says}; no daemon that frees memory ended it")
    left = ""
    if limits is not None and limits.host_available_bytes is not None:
        left = f" with {size(limits.host_available_bytes)} of the machine's memory available when last read"
    proven = actor.oom_daemon is not None
    return Finding(
        headline=f"Ended by {killer} to free memory ({actor.signal_name}){left}",
        culprit=named(actor),
        confidence="certain" if proven else "likely",
        cites=("wait-status", "actor", *(() if proven else ("last-words",)), *(("memory-limits",) if left else ())),
        advice=(
            f"ask it why: journalctl --since '10 min ago' | grep -i {killer}",
            SPARE.get(killer, f"tell {killer} in its configuration to spare this process, or limit what fills the memory"),
        ),
    )
