"""Class `killed`: a signal that was sent to it ended it. What the causes of this class judge by, once for all of them."""

from agentscope.evidence.actor import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGXCPU, SignalActor
from agentscope.evidence.cpu_time import CpuTime
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.possible_senders import PossibleSenders
from agentscope.evidence.wait_status import WaitStatus

AT_ONCE_NS = 10_000_000_000  # a clean-up that takes longer may have met an error of its own
SIGXFSZ = 25
SEE_THE_SENDER = "engine core sees who sends signals: sudo agentscope watch; agentscope doctor tells whether it works here"
# The kernel sends SIGXFSZ in the name of the writer (mm/filemap.c, generic_write_check_limits), SIGXCPU in its own.
OF_A_LIMIT = {SIGXCPU: {"kernel", "unattributed"}, SIGXFSZ: {"kernel", "self", "unattributed"}}


def asked_to_end(status: WaitStatus, actor: SignalActor | None, words: LastWords | None) -> bool:
    """Whether it caught a signal that asks to end, and its failing exit is the answer to that.

    128+N is what such a handler returns. SIGHUP and SIGINT may also mean "read your configuration again" or "stop this step", so
    an error that follows them is the error's doing; after SIGTERM it belongs to the ending.
    """
    if actor is None or not actor.answered or not status.code or actor.signal not in {SIGHUP, SIGINT, SIGQUIT, SIGTERM}:
        return False
    if status.code == 128 + actor.signal:
        return True
    at_once = actor.before_end_ns is not None and actor.before_end_ns <= AT_ONCE_NS
    erred = words is not None and words.accounting_for(status.code, None) is not None
    return (at_once or not erred) if actor.signal == SIGTERM else (at_once and not erred)


def ended_by(number: int, status: WaitStatus, actor: SignalActor | None, words: LastWords | None) -> str | None:
    """Why this signal is not what ended it; None if it is, by death or by an answered request."""
    if status.signal == number:
        return None
    if actor is not None and actor.signal == number and asked_to_end(status, actor, words):
        return None
    return f"it {status.says()}"


def sender_of(actor: SignalActor | None) -> SignalActor | None:
    """The actor, where somebody was seen sending; None where nobody was, or nobody could look."""
    return None if actor is None or actor.relation == "unattributed" else actor


def sent_by_another(status: WaitStatus, actor: SignalActor | None, senders: PossibleSenders | None) -> str | None:
    """Why a signal whose sender nobody could see may mean something else than that somebody sent it; None if it does not."""
    if actor is not None or status.signal is None:
        return None
    return senders.says() if senders is not None else None


def named(actor: SignalActor | None) -> str:
    """The sender as a culprit: "bash (pid 812, uid 1000)"."""
    who = actor.actor if actor is not None else None
    if who is None or who.kind == "unattributed":
        return "an unknown sender"
    if who.kind != "process":
        return {"kernel": "the kernel", "terminal": "its terminal", "self": "the process itself"}[who.kind]
    program = (who.exe or "").rsplit("/", 1)[-1] or who.comm or "a process"
    if who.pid is None:
        return program
    return f"{program} (pid {who.pid}{'' if who.uid is None else f', uid {who.uid}'})"


def by_nobody_seen(status: WaitStatus) -> str:
    """What is said in the place of a sender: that there was none to be seen, or that nobody could look."""
    return "nobody was seen sending it" if status.signals_seen else "who sent it could not be seen"


def answer(status: WaitStatus) -> str:
    """How it answered a signal that it caught: a clause for a headline."""
    return "" if status.signal is not None else f"; it caught that and exited with status {status.code}"


def who_to_ask(actor: SignalActor | None) -> tuple[str, ...]:
    """Where to look for the reason of a sender: its own log and its parents."""
    who = actor.actor if actor is not None else None
    if actor is None or who is None or who.pid is None or who.kind != "process":
        return ()
    if actor.manager is not None:
        return (
            f"ask {actor.manager} why: its log says so, for example journalctl -u UNIT -e, or docker events / kubectl describe",
        )
    chain = " ← ".join(f"{step.comm} (pid {step.pid})" for step in who.ancestors[:3])
    return (f"find out why {named(actor)} did that{f'; it was started by {chain}' if chain else ''}",)


def was_told_before(actor: SignalActor | None) -> str:
    """The request that came before a SIGKILL, as a clause."""
    asked = next((e for e in reversed(actor.earlier) if e.signal_name == "SIGTERM"), None) if actor is not None else None
    if asked is None or actor is None or actor.signal != SIGKILL:
        return ""
    return f", {asked.before_end_ns / 1e9:.1f} s after a SIGTERM that did not end it"


def cpu_limit(actor: SignalActor | None, cpu: CpuTime | None) -> bool:
    """Whether a SIGKILL is the end of the CPU time limit: the kernel sent it, after its warning or with the time used up.

    Where nobody could see who sent it, time that is used up speaks for the kernel.
    """
    if actor is None:
        return cpu is not None and cpu.spent
    if actor.relation != "kernel":
        return False
    warned = any(earlier.signal_name == "SIGXCPU" for earlier in actor.earlier)
    return warned or (cpu is not None and cpu.spent)


def limit_signal(status: WaitStatus, actor: SignalActor | None) -> bool:
    """Whether SIGXCPU or SIGXFSZ ended it and nobody else sent that."""
    allowed = OF_A_LIMIT.get(status.signal or 0)
    return allowed is not None and (actor is None or actor.relation in allowed)
