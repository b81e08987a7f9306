"""A signal stopped it (SIGSTOP, SIGTSTP), and nobody has let it go on since.

What it means: a stopped process keeps everything that it has, its memory, locks and connections, and does not run at
all until somebody sends SIGCONT. Whoever waits for it waits in vain.

How agentscope knows: all of its threads are in state T for longer than you allow, and no debugger holds it. Where it
was watched when it happened, the sender of the signal is named.

What to do: let it go on with kill -CONT and its pid, and ask the sender that is named: a script that throttles, a
snapshot or a checkpoint that did not finish, somebody at another terminal.

What looks like it but is not: Ctrl-Z at its own terminal, or a job in the background that wants to read from it (a
person decides, so that is waiting); a debugger at a breakpoint (state t); a frozen cgroup (hang/frozen).
"""

from agentscope.causes import No
from agentscope.causes.hang import cites, seconds
from agentscope.evidence.scheduling import Scheduling
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.model import Finding


def match(*, waits: ThreadWaits, scheduling: Scheduling) -> Finding | No:
    """Every thread of the agent's process is stopped."""
    agent, stop = waits.agent, scheduling.stop
    if agent.tracer is not None:
        return No(f"{agent.tracer} traces it: a debugger decides when it goes on")
    if not agent.threads or agent.stopped < agent.threads:
        return No("not all of its threads are stopped" if agent.stopped else "no signal stopped it")
    if stop is not None and stop.by_terminal:
        return No(f"{stop.signal_name} from its terminal stopped it: a person decides when it goes on")
    if scheduling.cgroup is not None and scheduling.cgroup.frozen:
        return No("its cgroup is frozen, so that SIGCONT would change nothing")
    for_s = agent.still_for_s if stop is None else stop.ago_s
    if for_s is None or for_s < waits.patience_s:
        return No(f"it is stopped for {seconds(for_s)} only")
    by = f" by {stop.signal_name} from {stop.sender}" if stop is not None else " by a signal; who sent it was not seen"
    return Finding(
        headline=f"Hung for {seconds(for_s)}: all {agent.threads} threads of it are stopped{by}",
        culprit=stop.sender if stop is not None else "whoever stopped it: nobody watched when that happened",
        confidence="certain",
        cites=cites(("scheduling", True)),
        advice=(
            f"let it go on: kill -CONT {agent.pid}",
            f"find out why {stop.sender} stopped it"
            if stop is not None
            else "watch it, so that the sender is seen: agentscope watch",
        ),
    )
