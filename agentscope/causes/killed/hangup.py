"""Its terminal or login session went away, and it ended of the hang-up (SIGHUP).

What it means: when a terminal window, an SSH connection or a login shell ends, the programs that were started from it
get SIGHUP, and most of them end. A long-running agent that was started by hand in a terminal dies this way when the
laptop is closed.

How agentscope knows: the process ended by SIGHUP, or caught it and exited non-zero, and the kernel tells who sent it:
the terminal itself, the shell, or some other process with `kill -HUP`.

What to do: start it where it does not hang on a terminal: as a service (systemd-run --user --unit=NAME COMMAND), in
tmux or screen, or with nohup or setsid.

What looks like it but is not: SIGHUP that a daemon catches to read its configuration again, after which it lives on (no
incident); SIGTERM at the end of a session (killed/sigterm).
"""

from agentscope.causes import No
from agentscope.causes.killed import answer, by_nobody_seen, ended_by, named, sender_of
from agentscope.evidence.actor import SIGHUP, SignalActor
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding


def match(*, status: WaitStatus, actor: SignalActor | None, words: LastWords | None) -> Finding | No:
    """SIGHUP ended it, or it answered one by a failing exit."""
    other = ended_by(SIGHUP, status, actor, words)
    if other is not None:
        return No(other)
    sender = sender_of(actor)
    if sender is None:
        headline = f"Ended by a hang-up (SIGHUP); {by_nobody_seen(status)}"
    elif sender.relation in {"terminal", "kernel"}:
        headline = "Ended because its terminal was closed (SIGHUP)"
    else:
        headline = f"Ended by a hang-up (SIGHUP) from {named(sender)}"
    return Finding(
        headline=headline + answer(status),
        culprit=named(sender),
        confidence="possible" if not status.signals_seen else "likely" if sender is None else "certain",
        cites=("wait-status", *(("actor",) if sender is not None else ())),
        advice=(
            "start it so that it outlives the terminal: systemd-run --user --unit=NAME COMMAND, tmux, or nohup COMMAND &",
            "for a user's service without a login: loginctl enable-linger USER",
        ),
    )
