"""Somebody asked it to end with SIGTERM, and it did, though its owner had not asked for that.

What it means: SIGTERM (signal 15) is the polite request to stop: what plain `kill`, `timeout`, `systemctl stop` and
`docker stop` send. The service manager that owns a process may send it; then that is no incident. Here it came from
somebody else, or the process answered it with a failing exit status.

How agentscope knows: the kernel tells who sends every signal to a watched process (tracepoint signal:signal_generate).
The process died of it, or caught it and exited non-zero right after.

What to do: ask the sender that is named. `timeout` means that a time limit was put around the command. If the process
should outlive such requests, start it as a service of its own (systemd-run, a unit) instead of under a shell or a
session.

What looks like it but is not: a stop by systemd, docker or kubernetes when they were asked to (no incident); earlyoom,
which sends SIGTERM too (oom/userspace-killer); an error long after a SIGTERM that was ignored (exception/uncaught).
"""

from agentscope.causes import No
from agentscope.causes.killed import (
    SEE_THE_SENDER,
    answer,
    by_nobody_seen,
    ended_by,
    named,
    sender_of,
    sent_by_another,
    who_to_ask,
)
from agentscope.causes.oom import memory_killer
from agentscope.evidence.actor import SIGTERM, SignalActor
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.possible_senders import PossibleSenders
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding


def match(
    *, status: WaitStatus, actor: SignalActor | None, words: LastWords | None, senders: PossibleSenders | None
) -> Finding | No:
    """SIGTERM ended it, or it answered one by a failing exit."""
    other = ended_by(SIGTERM, status, actor, words)
    if other is not None:
        return No(other)
    killer = memory_killer(status, actor, words)
    if killer is not None:
        return No(f"{killer} sent it to free memory")
    another = sent_by_another(status, actor, senders)
    if another is not None:
        return No(another)
    sender = sender_of(actor)
    who = named(sender)
    if sender is None:
        headline = f"Ended by SIGTERM; {by_nobody_seen(status)}"
    elif sender.relation == "dying-parent":
        headline = f"Ended by SIGTERM because its parent {who} ended (parent-death signal)"
    elif sender.relation == "self":
        headline = "It sent SIGTERM to itself"
    else:
        headline = f"Ended by SIGTERM from {who}"
    at_once = status.signal is not None or status.code == 128 + SIGTERM
    return Finding(
        headline=headline + answer(status),
        culprit=who,
        confidence="possible" if sender is None else "certain" if at_once else "likely",
        cites=("wait-status", *(("actor",) if sender is not None else ())),
        advice=advice(sender),
    )


def advice(sender: SignalActor | None) -> tuple[str, ...]:
    """What to look at next, by who it was."""
    if sender is None:
        return (SEE_THE_SENDER,)
    if (sender.actor.exe or sender.actor.comm or "").rsplit("/", 1)[-1] == "timeout":
        return ("its time limit was up: give timeout(1) more, or find out what took so long",)
    return who_to_ask(sender)
