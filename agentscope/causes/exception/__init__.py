"""Class `exception`: an error in the program that nobody in the program caught. What its causes judge by, once for all of them."""

from dataclasses import dataclass

from agentscope.causes import No
from agentscope.causes.crash import SENT, Ending, origin
from agentscope.causes.killed import asked_to_end
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import UNCAUGHT_CODES, LastWords
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence, Reading

LINE = 200
AT_ONCE_NS = 2_000_000_000
SIGNATURE_LINES = 3  # what a runtime may print below its error: "Node.js v20.20.2"


@dataclass(frozen=True)
class Told:
    """The passage of its last words that accounts for the end, and how sure that is."""

    reading: Reading
    confidence: Confidence


def last_error(
    status: WaitStatus, words: LastWords, actor: SignalActor | None, fault: FaultFacts | None, log: KernelLog | None
) -> Told | No:
    """The error that its last words tell of, if an uncaught error ends a program in just this way; else why not.

    Words alone prove nothing: they count where they are the last ones and the status is the one that such an error leaves.
    """
    if status.signal is None and not status.code:
        return No("it ended with status 0")
    if asked_to_end(status, actor, words):
        return No(f"it ended in answer to {actor.says()}" if actor is not None else "it was asked to end")
    reading = words.accounting_for(status.code, status.signal)
    if reading is None:
        return No(f"its last words tell of no error that ends a program so: it {status.says()}")
    if status.signal is not None:
        sure = origin(Ending(status, fault, actor, log, words))
        if sure == SENT:
            return No(f"{status.signal_name} was sent to it")
        return Told(reading, "certain" if sure == "certain" else "likely")
    at_once = words.before_end_ns is None or words.before_end_ns <= AT_ONCE_NS
    exact = at_once and reading.reader in UNCAUGHT_CODES and words.lines_after(reading) <= SIGNATURE_LINES
    return Told(reading, "certain" if exact else "likely")


def fact(reading: Reading, name: str) -> str:
    """One fact of a reading as bounded text; empty where it has none."""
    value = reading.facts.get(name)
    return "" if value is None else str(value)[: 4 * LINE]


def first_line(reading: Reading) -> str:
    """The error in one line: "KeyError: 'plan'"."""
    kind = fact(reading, "exception_type").rsplit(".", 1)[-1]
    message = next((line.strip() for line in fact(reading, "message").splitlines() if line.strip()), "")
    message = message[:LINE]
    if kind and message:
        return message if message.startswith(kind) else f"{kind}: {message}"
    return kind or message or reading.says[:LINE]


def place_of(reading: Reading) -> str:
    """Where to look: "agent.py:12"; empty where the words do not tell.

    A culprit that begins with a place names the program's own code; the facts name where the error was raised, often in a library.
    """
    file, _, line = (reading.culprit or "").split(" ", 1)[0].rstrip(":").partition(":")
    if not file or not line.split(":")[0].isdigit():
        file, line = fact(reading, "file"), fact(reading, "line")
    name = file[: 2 * LINE].rsplit("/", 1)[-1]
    return f"{name}:{line.split(':')[0]}" if line else name


def blame(reading: Reading) -> str:
    """The culprit: what the reader blames, with the place, which it may have left out."""
    place = place_of(reading)
    said = (reading.culprit or first_line(reading))[: 2 * LINE]
    return f"{said} at {place}" if place and place not in said else said


def cites(*supporting: tuple[str, bool]) -> tuple[str, ...]:
    """The kinds of evidence that an exception rests on, with those supporting ones that speak for it."""
    return ("wait-status", "last-words", *(kind for kind, speaks in supporting if speaks))
