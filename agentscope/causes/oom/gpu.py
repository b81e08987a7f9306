"""The memory of the graphics card ran out, and the program did not survive that.

What it means: the program asked the GPU for more memory than was free on it and ended by the error. The machine's own
memory has nothing to do with it. Other programs on the same card count too: the card may be full although this program
is small.

How agentscope knows: its last words, which ended just before it did, are the GPU library's out-of-memory error (torch,
CUDA, ROCm, JAX), and it ended as an uncaught error ends a program.

What to do: see who holds the card (nvidia-smi), then use a smaller batch, context or model, or another card. Against a
card that is full of fragments: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.

What looks like it but is not: a CUDA error that was caught and retried (no incident); the kernel's OOM killer
(oom/cgroup, oom/global); MemoryError of the machine's memory (oom/runtime-heap).
"""

from agentscope.causes import No
from agentscope.causes.exception import first_line, last_error, place_of
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding


def match(
    *, status: WaitStatus, words: LastWords, actor: SignalActor | None, fault: FaultFacts | None, log: KernelLog | None
) -> Finding | No:
    """Its last words tell of a full graphics card, and it ended as an uncaught error ends a program."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    if told.reading.suggests != "oom/gpu":
        return No(f"its last words tell of something else: {told.reading.says}")
    place = place_of(told.reading)
    return Finding(
        headline=f"Out of GPU memory: {first_line(told.reading)}{f' at {place}' if place else ''}",
        culprit=f"the GPU's memory: {told.reading.culprit or place or first_line(told.reading)}",
        confidence=told.confidence,
        cites=("wait-status", "last-words"),
        advice=(
            "see who holds the card: nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv",
            "use a smaller batch or context; against fragments: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
        ),
    )
