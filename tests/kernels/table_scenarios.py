"""What is played on other kernels: at least one of each class of cause and what looks like it and is none, or the whole zoo."""

import sys
from pathlib import Path

LIVE = str(Path(__file__).resolve().parents[1] / "live")
KERNELS = ("6.1", "6.12")
ENGINES = ("core", "bcc")
DEATHS = (
    "oom-cgroup",
    "oom-tool",
    "memory-error",
    "c-null-write",
    "c-abort/assertion",
    "sigbus",
    "stack-overflow",
    "seccomp",
    "leader-first/fault",
    "handled-segfault",
    "uncaught/file",
    "uncaught/pipe",
    "kill-9-by-bash",
    "kill-11-from-outside",
    "near-limit-kill-9",
    "sigterm-stranger",
    "sigterm-answered",
    "sighup",
    "exit-3",
    "exit-0",
    "exec-from-thread",
    "threads-exit-0",
    "vfork-exec",
    "tool-segfault/fork",
    "tool-exit-1",
)
GROUP = "oom-group"  # memory.oom.group: made in the guest, since the zoo must run where cgroups are v1 too
HANGS = (
    "hang-two-locks",
    "hang-lock-twice",
    "hang-wait-without-reading",
    "hang-spin",
    "calm-sleeper",
    "calm-condition",
    "calm-training",
)
PARTS = 6  # guests that share the whole zoo, so that none of them lives too long


def slugs_of(part: str) -> tuple[list[str], list[str]]:
    """The deaths and the hangs of one guest: of "short", or of a part of the whole zoo, such as "2/6" (which begin at 0)."""
    sys.path.append(LIVE)
    from hangs import hangs
    from scenario import scenarios

    deaths = [*(scenario.slug for scenario in scenarios()), GROUP]
    if part == "short":
        return [slug for slug in deaths if slug in {*DEATHS, GROUP}], list(HANGS)
    number, parts = map(int, part.split("/"))
    return deaths[number::parts], [hang.slug for hang in hangs()][number::parts]
