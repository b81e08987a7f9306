"""How the process ended, exactly as waitpid(2) would report it."""

from agentscope.durations import span
from agentscope.evidence import Evidence, Scene
from agentscope.evidence.actor import SEEN_BY
from agentscope.symbols.signals import signal_name

ABSENT = "the process has not ended"


class WaitStatus(Evidence, frozen=True, tag="wait-status"):
    """One of `code` and `signal` is None. `lived_ns` is the time from start to end; None where nobody knows when it started.

    `signals_seen` tells whether signals to it were seen: where not, an exit may be the answer to one.
    """

    code: int | None
    signal: int | None
    signal_name: str | None
    core_dumped: bool
    lived_ns: int | None
    signals_seen: bool = True

    def says(self) -> str:
        """One sentence for a person."""
        lived = f" after {span(self.lived_ns)}" if self.lived_ns is not None else ""
        if self.signal is not None:
            return f"ended by {self.signal_name}{' (core dumped)' if self.core_dumped else ''}{lived}"
        return f"exited with status {self.code}{lived}"


def collect(scene: Scene) -> WaitStatus:
    """From the exit event, which every engine has."""
    end = scene.exit
    sources = {
        "core": "tracepoint sched:sched_process_exit",
        "bcc": "tracepoint sched:sched_process_exit",
        "none": "wait4(2), pidfd or /proc/PID/stat",
        "netlink": "proc connector",
    }
    return WaitStatus(
        source=sources.get(end.engine, end.engine) if scene.past is None else ", ".join(scene.past.told_by),
        code=end.code,
        signal=end.signal,
        signal_name=signal_name(end.signal) if end.signal is not None else None,
        core_dumped=end.core_dumped,
        # of an end that nobody watched the start may not be known; it is 0 then, which no program has but the first
        lived_ns=max(0, end.at_ns - end.start_ns) if end.start_ns or scene.past is None else None,
        signals_seen=end.engine in SEEN_BY,
    )
