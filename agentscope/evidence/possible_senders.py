"""Who may have sent a signal whose sender nobody saw: the manager that owns the process, and programs that end others to free memory."""

import psutil

from agentscope.evidence import Evidence, Scene
from agentscope.evidence.actor import OOM_DAEMONS, SEEN_BY, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM
from agentscope.symbols.signals import signal_name

ABSENT = "its sender was seen, or no manager and no program that frees memory is there that may have sent it"
SENT_BY_THEM = frozenset({SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM})


class PossibleSenders(Evidence, frozen=True, tag="possible-senders"):
    """`signal_name` is the signal of that sort which ended it; `names` are programs, units and containers."""

    signal_name: str
    names: tuple[str, ...]

    def says(self) -> str:
        """One sentence for a person."""
        return f"who sent {self.signal_name} was not seen; it may have been {' or '.join(self.names)}"


def collect(scene: Scene) -> PossibleSenders | None:
    """From its cgroup, and from the processes that run now: only where senders are not seen.

    Of the past the journal speaks instead (`actor.from_records`): a service manager and the memory daemons write down whom they end.
    """
    number = scene.exit.signal or 0
    if scene.past is not None or scene.engine in SEEN_BY or number not in SENT_BY_THEM:
        return None
    names = []
    if scene.agent.unit is not None and scene.agent.unit.endswith(".service"):
        names.append(f"whoever stops {scene.agent.unit}")
    if scene.agent.container is not None:
        names.append(f"the runtime of container {scene.agent.container}")
    if number in {SIGKILL, SIGTERM}:
        running = {str(process.info["name"]) for process in psutil.process_iter(["name"])}
        # the kernel keeps 15 bytes of a name
        names += sorted(daemon for daemon in OOM_DAEMONS if daemon[:15] in running)
    if not names:
        return None
    return PossibleSenders(source="its cgroup, and /proc after its end", signal_name=signal_name(number), names=tuple(names))
