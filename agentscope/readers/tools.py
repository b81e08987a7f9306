"""What command-line tools and schedulers say when they give up: coreutils, curl, git, ssh, bash's fork, Slurm, YARN, clouds.

Sources: error(3) of glibc ("prog: what: strerror"), curl's and git's messages, slurmstepd's and YARN's logs, the platforms' own
documentation of memory limits. Such a line decides only where it stands at the end and nothing better is said.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})
LAST_LINES = 6

_STRERROR = late(
    r"^(?P<program>[\w./+-]{1,200}): (?P<what>[^\n]{0,600}?)(?:: )?(?P<why>No space left on device|Disk quota exceeded|Cannot allocate memory|Too many open files"
    r"(?: in system)?)$"
)
_CAUSES = {
    "No space left on device": ("exception/disk-full", "ENOSPC"),
    "Disk quota exceeded": ("exception/disk-full", "EDQUOT"),
    "Cannot allocate memory": ("oom/runtime-heap", "ENOMEM"),
    "Too many open files": ("exception/fd-exhausted", "EMFILE"),
    "Too many open files in system": ("exception/fd-exhausted", "ENFILE"),
}
_NETWORK = late(
    r"^(?:curl: \((?:5|6|7|28|35|52|56|60)\) |fatal: unable to access |ssh: (?:connect to host|Could not resolve)|wget: unable to resolve|nc: connect to "
    r"|ERROR 200[235] \(|psql: error: (?:could not connect|connection to server)|(?:fatal: )?[Cc]ould not resolve host)"
)
_DISK = late(
    r"(?:could not (?:write|extend|create)|Disk is full|write error|cannot write|PANIC)[^\n]{0,300}No space left on device|ran out of disk space"
)
_LIMITS = (
    (
        "oom/cgroup",
        late(r"Detected \d{1,6} oom[-_]kill event|Exceeded (?:job|step) memory limit|tasks? [\d,-]{1,80}: Out [Oo]f Memory"),
    ),
    (
        "oom/cgroup",
        late(r"Memory limit of [\d.]{1,12} ?[KMG]i?B? exceeded with|OutOfMemoryError: Container killed due to memory usage"),
    ),
    ("oom/cgroup", late(r"topic=/tasks/oom|container oom [0-9a-f]{12,64}|using too much memory and was terminated")),
    (
        "oom/userspace-killer",
        late(r"[Cc]ontainer killed by YARN for exceeding|running beyond (?:physical|virtual) memory limits|TERM_MEMLIMIT"),
    ),
    ("oom/userspace-killer", late(r"Error R15 \(Memory quota vastly exceeded\)")),
    ("killed/limit", late(r"CANCELLED AT [^\n]{1,60} DUE TO TIME LIMIT|TERM_RUNLIMIT|DUE to TIME LIMIT")),
)


def read(passage: Passage) -> Iterator[Mark]:
    """A limit that a scheduler enforced, anywhere; a tool's own failure, at the end."""
    for index, line in enumerate(passage.lines):
        for cause, pattern in _LIMITS:
            if match := pattern.search(line.text):
                yield _mark(
                    passage, index, cause, says=line.text.strip(), facts={"reason": match.group()[:200]}, weight=Weight.FATAL
                )
                break
    ending = [index for index, line in enumerate(passage.lines) if line.text.strip()][-LAST_LINES:]
    for index in ending:
        line = passage.lines[index]
        if line.level in ("debug", "info", "warning") or passage.goes_on_after(index):
            continue
        text = line.text.strip()
        if match := _STRERROR.match(text):
            cause, errno = _CAUSES[match["why"]]
            facts: dict[str, object] = {"program": match["program"], "errno": errno}
            yield _mark(passage, index, cause, says=text, facts=facts, weight=Weight.STATUS)
        elif _NETWORK.match(text):
            yield _mark(passage, index, "exception/network", says=text, facts={"message": text[:600]}, weight=Weight.STATUS)
        elif _DISK.search(text):
            yield _mark(passage, index, "exception/disk-full", says=text, facts={"errno": "ENOSPC"}, weight=Weight.STATUS)


def _mark(passage: Passage, index: int, cause: str, *, says: str, facts: dict[str, object], weight: Weight) -> Mark:
    return Mark(
        reading=Reading(
            reader="tools",
            suggests=cause,
            says=says[:400],
            culprit=str(facts.get("program") or says[:200]),
            facts=facts,
            excerpt=passage.excerpt(index, index),
        ),
        weight=weight,
        first=index,
        last=index,
    )
