"""Its cgroup is frozen: the kernel runs none of its processes until somebody thaws it.

What it means: a cgroup is a box that Linux puts around a service or a container, and such a box can be frozen whole,
as `docker pause`, `systemctl freeze`, checkpoints and backups do it. The processes notice nothing; they just do not
run.

How agentscope knows: the freezer's own file says that the cgroup, or one above it, is frozen, and none of the
process's threads has run for longer than you allow.

What to do: thaw the cgroup that is named, with the tool that froze it (docker unpause, systemctl thaw) or by its
file, and find out why whoever froze it did not come back.

What looks like it but is not: a snapshot that freezes it for a moment; a process stopped by a signal (hang/stopped);
a cgroup that gets too little CPU time, which still runs a little (hang/throttled).
"""

from agentscope.causes import No
from agentscope.causes.hang import cites, seconds
from agentscope.evidence.scheduling import Scheduling
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.model import Finding


def match(*, waits: ThreadWaits, scheduling: Scheduling) -> Finding | No:
    """The freezer says so, and nothing of it has run since."""
    cgroup, agent = scheduling.cgroup, waits.agent
    if cgroup is None or not cgroup.frozen:
        return No("its cgroup is not frozen")
    for_s = agent.still_for_s
    if for_s is None or for_s < waits.patience_s:
        return No(f"its cgroup is frozen, but it ran {seconds(for_s)} ago")
    path = cgroup.frozen_path or cgroup.path
    above = f", above its own {cgroup.path}" if cgroup.path.startswith(f"{path}/") else ""
    return Finding(
        headline=f"Hung for {seconds(for_s)}: its cgroup {path} is frozen{above}",
        culprit=f"the frozen cgroup {path}",
        confidence="certain",
        cites=cites(("scheduling", True)),
        advice=(
            f"thaw it: echo 0 > /sys/fs/cgroup{path}/cgroup.freeze",
            f"or, with cgroups of version 1: echo THAWED > /sys/fs/cgroup/freezer{path}/freezer.state",
            "a container: docker unpause NAME; a unit: systemctl thaw UNIT",
        ),
    )
