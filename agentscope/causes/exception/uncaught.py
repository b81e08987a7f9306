"""An error was raised in the program and nobody caught it, so the program ended.

What it means: the program met something it was not prepared for: a missing key, a wrong type, a bad answer of a model,
a package that cannot be imported. Its runtime printed the error with the place it came from and ended the program with
a failing exit status.

How agentscope knows: its last words are such an error, they ended just before the program did, and the exit status is
the one that this runtime uses for errors nobody caught (Python 1, Node 1, Java 1). Text alone proves nothing: a logged
error that the program survived is no incident, and one that was logged before an exit with another status is only
context.

What to do: go to the file and line that are named: the last line of your own code in the traceback. If the error can
happen in ordinary use, catch it there and decide what the agent shall do; a restart alone meets it again.

What looks like it but is not: an error that was logged and handled; sys.exit("message") or process.exit(1), which raise
nothing (exit/status); errors of the network, the disk, file descriptors or memory, which have causes of their own.
"""

from agentscope.causes import No
from agentscope.causes.exception import blame, cites, fact, first_line, last_error, place_of
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding


def match(
    *, status: WaitStatus, words: LastWords, actor: SignalActor | None, fault: FaultFacts | None, log: KernelLog | None
) -> Finding | No:
    """Its last words are an error that nobody caught, of no kind that has a cause of its own."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    reading = told.reading
    not_loaded = (reading.suggests or "").startswith("drift/")
    if reading.suggests != "exception/uncaught" and not not_loaded:
        return No(f"the error is of a kind of its own: {reading.says}")
    place = place_of(reading)
    function = fact(reading, "function")
    own = place.endswith(f":{fact(reading, 'line')}")
    where = f" at {place}{f' in {function}' if function and own else ''}" if place else ""
    full = f"{fact(reading, 'file')}:{fact(reading, 'line')}" if own else place
    look = f"look at {full}" if place else "look at its last words"
    changed = "see what was installed or upgraded since it last ran: pip list, the lock file, /var/log/dpkg.log"
    return Finding(
        headline=f"Ended by an error that nobody caught: {first_line(reading)}{where}",
        culprit=blame(reading),
        confidence=told.confidence,
        cites=cites(),
        advice=(look, changed) if not_loaded else (f"{look}; catch it there if it can happen in ordinary use",),
    )
