"""It chose to end with a failing exit status, and nothing else tells why.

What it means: the program itself called exit with a number other than 0. That is its way to say "I failed"; what the
number means is written in the program's manual. No signal ended it and it left no error that explains more.

How agentscope knows: the wait status says that it exited, with this number; its last words hold no uncaught error that
would end it so. An error that was logged before an exit with another status than an uncaught error leaves was handled,
and is shown as context.

What to do: look up the number in the program's manual and read its last lines and its own log. 126 and 127 mean that a
command could not be run or found; a number above 128 is how a shell reports that something it had started was ended by
a signal (137 is 128+9, SIGKILL): look at that child.

What looks like it but is not: an uncaught error (exception/uncaught and the rest of that class); death by a signal
(killed, crash); exit status 0, which is no incident.
"""

from agentscope.causes import No
from agentscope.causes.killed import asked_to_end
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding
from agentscope.symbols.signals import signal_name

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # POSIX sh, "Exit Status for Commands"; 127 also ld.so and glibc's posix_spawn
BY_SIGNAL = 128
LAST_SIGNAL = 64
SHOWN = 160


def match(*, status: WaitStatus, words: LastWords | None, actor: SignalActor | None) -> Finding | No:
    """A failing exit status that no other evidence explains."""
    if status.signal is not None:
        return No(f"it {status.says()}")
    if not status.code:
        return No("it ended with status 0")
    if asked_to_end(status, actor, words):
        return No(f"it ended in answer to {actor.says()}" if actor is not None else "it was asked to end")
    told = words.accounting_for(status.code, None) if words is not None else None
    if told is not None:
        return No(f"its last words tell why: {told.says}")
    said = words.readings[0] if words is not None and words.readings else None
    meaning = meaning_of(status.code)
    doubt = "" if status.signals_seen else "; whether that was its answer to a signal could not be seen"
    if words is None and not status.signals_seen:
        doubt += ", nor its last words"
    last = next((line.strip() for line in reversed(words.text.splitlines()) if line.strip()), "") if words is not None else ""
    context = f"; its last line was: {last[:SHOWN]}" if last else ""
    culprit = said.culprit if said is not None and said.culprit and status.code in {NOT_EXECUTABLE, NOT_FOUND} else None
    return Finding(
        headline=f"Exited by itself with status {status.code}{f' ({meaning})' if meaning else ''}{context}{doubt}",
        culprit=culprit or (f"its own exit with status {status.code}" if not meaning else f"{meaning} (status {status.code})"),
        confidence="possible" if doubt else "certain" if words is not None else "likely",
        cites=("wait-status", *(("last-words",) if last else ())),
        advice=advice(status.code),
    )


def meaning_of(code: int) -> str:
    """What this number means by convention; empty where it is the program's own."""
    if code == NOT_EXECUTABLE:
        return "a command was found but could not be run"
    if code == NOT_FOUND:
        return "a command or a library that it needs was not found"
    if BY_SIGNAL < code <= BY_SIGNAL + LAST_SIGNAL:
        number = code - BY_SIGNAL
        return f"{code} = 128+{number}: something it ran was ended by {signal_name(number)}; this process itself exited"
    return ""


def advice(code: int) -> tuple[str, ...]:
    """What to look at next, by the number."""
    if code in {NOT_EXECUTABLE, NOT_FOUND}:
        return (
            "see which command or library its last line names; then: command -v NAME, ls -l PATH, and its PATH and LD_LIBRARY_PATH",
        )
    if BY_SIGNAL < code <= BY_SIGNAL + LAST_SIGNAL:
        return ("look at what it had started: that child died; watch the whole tree, and see: agentscope incidents",)
    return (f"look up exit status {code} in its manual, and read its own log from just before the end",)
