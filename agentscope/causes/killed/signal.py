"""A signal that was sent to it ended it: not one of the usual requests to stop, and no fault of its own.

What it means: most signals end a program that has not prepared for them. Some are sent by mistake (SIGUSR1 "to get a
dump"), some by a watchdog (SIGABRT, SIGQUIT), some the program brings on itself: SIGPIPE when it writes to a pipe that
nobody reads any more, SIGALRM from its own alarm clock. Even SIGSEGV can be sent with `kill -11`; then nothing is wrong
with the program's memory.

How agentscope knows: the kernel tells who sends every signal to a watched process (tracepoint signal:signal_generate).
For the signals of a crash (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP) it also tells that they were sent
and not raised by the processor.

What to do: ask the sender that is named. For SIGPIPE see what became of the reader of its output; for SIGUSR1 and the
like send only what the program handles; for a watchdog's SIGABRT see why the program did not report in time
(WatchdogSec=).

What looks like it but is not: a real crash (crash/segfault and the rest of that class); SIGTERM, SIGKILL, SIGHUP and
the limits, which have causes of their own in this class; Ctrl-C at its own terminal (no incident).
"""

from agentscope.causes import No
from agentscope.causes.crash import FAULT_SIGNALS, SENT, Ending, origin
from agentscope.causes.killed import answer, asked_to_end, by_nobody_seen, limit_signal, named, sender_of, who_to_ask
from agentscope.evidence.actor import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence, Finding

SIGABRT, SIGPIPE = 6, 13
TIMERS = frozenset({14, 26, 27})  # ALRM, VTALRM, PROF: the kernel's, on the program's own order
OF_OTHER_CAUSES = frozenset({SIGHUP, SIGKILL, SIGTERM})


def match(
    *,
    status: WaitStatus,
    actor: SignalActor | None,
    fault: FaultFacts | None,
    log: KernelLog | None,
    words: LastWords | None,
) -> Finding | No:
    """A signal of no other cause ended it, or a caught SIGINT or SIGQUIT did."""
    if status.signal is None:
        if actor is None or actor.signal not in {SIGINT, SIGQUIT} or not asked_to_end(status, actor, words):
            return No(f"it {status.says()}")
    elif status.signal in OF_OTHER_CAUSES:
        return No(f"{status.signal_name} has causes of its own")
    elif status.signal in {SIGINT, SIGQUIT} and not status.signals_seen:
        return No(f"who sent {status.signal_name} was not seen: a key at its terminal, which is no incident, or somebody else")
    elif limit_signal(status, actor):
        return No("the kernel sent it for a spent limit")
    elif status.signal in FAULT_SIGNALS and origin(Ending(status, fault, actor, log, words)) != SENT:
        return No(f"{status.signal_name} was its own fault, or nothing shows that somebody sent it")
    sender = sender_of(actor)
    name = actor.signal_name if actor is not None else status.signal_name or "a signal"
    sure: Confidence = "certain" if sender is not None else "likely"
    return Finding(
        headline=headline(name, sender, status) + answer(status),
        culprit=f"{name} from {named(sender)}",
        confidence=sure if status.signal is not None else "likely",
        cites=("wait-status", *(("actor",) if sender is not None else ()), *(("fault",) if fault is not None else ())),
        advice=advice(status, sender),
    )


def headline(name: str, sender: SignalActor | None, status: WaitStatus) -> str:
    """Which signal, from whom, as one sentence."""
    if sender is None:
        return f"Ended by {name}; {by_nobody_seen(status)}"
    if name == "SIGPIPE" and sender.relation in {"self", "kernel"}:
        return "Ended by SIGPIPE: it wrote to a pipe or connection whose reader was gone"
    if sender.signal in TIMERS and sender.relation in {"self", "kernel"}:
        return f"Ended by {name}: its own timer ran out, and it had no handler for that"
    if sender.relation == "self":
        return f"It sent {name} to itself"
    if sender.relation == "kernel":
        return f"Ended by {name} from the kernel"
    if sender.relation == "terminal":
        return f"Ended by {name} from its terminal (Ctrl-C or Ctrl-\\)"
    if sender.relation == "dying-parent":
        return f"Ended by {name} because its parent {named(sender)} ended (parent-death signal)"
    if sender.signal == SIGABRT and sender.manager is not None:
        return f"Ended by {name} from {named(sender)}, as a watchdog does when no sign of life came in time"
    return f"Ended by {name} from {named(sender)}"


def advice(status: WaitStatus, sender: SignalActor | None) -> tuple[str, ...]:
    """What to look at next, by signal and sender."""
    if status.signal == SIGPIPE:
        return ("see why the reader of its output ended first; in a shell: set -o pipefail; to live on, ignore SIGPIPE",)
    if sender is not None and sender.signal == SIGABRT and sender.manager is not None:
        return (
            "see why it did not report in time (WatchdogSec= of its service): systemctl status UNIT; journalctl -u UNIT -e",
        )
    return who_to_ask(sender)
