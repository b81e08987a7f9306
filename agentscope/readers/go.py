"""What a Go program says last: a panic, a fatal error of its runtime, a signal in C code.

Source: runtime/panic.go, runtime/signal_unix.go and net/http/server.go of Go. `http: panic serving` and gin's `panic recovered`
cost one request; the server lives on.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in, cause_of_signal

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_PANIC = late(r"^(?P<nested>\s{1,8})?panic: (?P<panic>[^\n]{0,2000}?)(?: \[recovered(?:, re(?:panicked|-panicked))?\])?$")
_FATAL = late(r"^(?:runtime: )?fatal error: (?P<fatal>[^\n]{1,400}?)(?: \[recovered\])?$")
_HANDLED = late(
    r"(?:http: panic serving|panic recovered|[Rr]ecovered (?:from|in)|recovered panic|Observed a panic)[^\n]{0,80}?:? ?(?P<panic>[^\n]{0,400})$"
)
_SERVING = late(r"http: panic serving [^\s]{1,80}: (?P<panic>[^\n]{0,400})$")
_SIGNAL = late(
    r"^\[signal (?P<signal>SIG[A-Z]{2,6})(?::[^\n]{0,80}?)?(?: code=\w{1,16})?(?: addr=(?P<addr>0x[0-9a-fA-F]{1,16}))?(?: pc=\w{1,20})?\]"
)
_FOREIGN = late(r"^(?P<signal>SIG[A-Z]{2,6}): [a-z][\w /-]{2,60}$")
_GOROUTINE = late(
    r"^goroutine (?P<goroutine>\d{1,12})(?: gp=\S{1,40}(?: m=\S{1,12})?(?: mp=\S{1,40})?)? \[(?P<state>[^\]\n]{1,80})\]:$"
)
_PLACE = late(r"^\s{1,16}(?P<file>(?:[A-Za-z]:)?[^\s:][^:\n]{0,500}):(?P<line>\d{1,9})(?: \+0x[0-9a-fA-F]{1,12})?")
_PLUGIN = late(r"Stack trace from the (?P<program>[^\s]{1,200}) plugin:")
_RUNTIME = (
    "panic",
    "runtime.gopanic",
    "runtime.throw",
    "runtime.fatal",
    "runtime.sigpanic",
    "runtime.panic",
    "runtime.goPanic",
    "internal/runtime/maps.fatal",
)


def read(passage: Passage) -> Iterator[Mark]:
    """The panic or fatal error that ended the program; a recovered one as harmless."""
    if not passage.has("panic", "fatal error: ", "SIG"):
        return
    handled = _handled(passage)
    if handled is not None:
        yield handled
    for index, line in enumerate(passage.lines):
        text = line.text.removeprefix("| ").removeprefix("│ ")
        match = _PANIC.match(text) or _FATAL.match(text)
        if (
            match is not None
            and _is_go(passage, index)
            and not (handled is not None and handled.first <= index <= handled.last)
        ):
            yield _ended(passage, index, match)
            return
        if (foreign := _FOREIGN.match(text)) and any(
            after.text.startswith("PC=") for after in passage.lines[index + 1 : index + 3]
        ):
            facts: dict[str, object] = {"signal": foreign["signal"]}
            yield _mark(
                passage,
                index,
                index + 6,
                cause_of_signal(foreign["signal"]),
                says=f"Go received {foreign['signal']}",
                facts=facts,
            )
            return


def _is_go(passage: Passage, index: int) -> bool:
    """Other languages say `panic:` too: Go prints a goroutine, a signal or nothing but an exit status after it."""
    following = [line.text for line in passage.lines[index + 1 : index + 40]]
    if any(text.startswith(("goroutine ", "[signal ", "runtime stack:", "exit status ", "\tpanic: ")) for text in following):
        return True
    return not any(text.strip() for text in following) or passage.has("goroutine ", ".go:")


def _handled(passage: Passage) -> Mark | None:
    for index, text in passage.numbered("panic serving", "panic recovered", "ecovered", "Observed a panic"):
        match = _SERVING.search(text) or _HANDLED.search(text)
        if match is None:
            continue
        last = index
        for at in range(index + 1, len(passage.lines)):
            after = passage.lines[at].text
            if _PANIC.match(after) and not after.startswith((" ", "\t")):
                break
            if after.strip() and not (after.startswith((" ", "\t", "goroutine", "created by")) or _called(after)):
                break
            last = at
        facts: dict[str, object] = {"killed": False, "panic": match["panic"].strip()}
        facts.update(_goroutine(passage, index))
        return _mark(passage, index, last, None, says=f"Go recovered a panic: {match['panic'].strip()}", facts=facts)
    return None


def _ended(passage: Passage, index: int, match: re.Match[str]) -> Mark:
    fields = match.groupdict()
    said = (fields.get("panic") or fields.get("fatal") or "").strip()
    facts: dict[str, object] = {"fatal" if "fatal" in fields else "panic": said}
    for line in passage.lines[index + 1 : index + 8]:
        text = line.text.removeprefix("| ").removeprefix("│ ")
        if signal := _SIGNAL.match(text):
            facts["signal"] = signal["signal"]
            if signal["addr"]:
                facts["addr"] = signal["addr"]
    facts.update(_goroutine(passage, index))
    if plugin := _PLUGIN.search(passage.text):
        facts["program"] = plugin["program"]
    cause = cause_in(said) or "exception/panic"
    if "fatal" in fields:
        cause = "oom/runtime-heap" if "out of memory" in said or "cannot allocate" in said else "exception/panic"
        if "stack overflow" in said:
            cause = "crash/stack-overflow"
    elif said.startswith("runtime error:"):
        cause = "exception/panic"
    return _mark(
        passage, index, min(len(passage.lines) - 1, index + 12), cause, says=f"Go ended the program: {said}", facts=facts
    )


def _goroutine(passage: Passage, index: int) -> dict[str, object]:
    """The first goroutine after `index`: its number, its state if it waits, and the frame that panicked."""
    facts: dict[str, object] = {}
    function: str | None = None
    skip = False
    for line in passage.lines[index : index + 60]:
        text = line.text.removeprefix("| ").removeprefix("│ ")
        if match := _GOROUTINE.match(text):
            if "goroutine" in facts:
                break
            facts["goroutine"] = int(match["goroutine"])
            if match["state"] != "running":
                facts["state"] = match["state"]
            continue
        if "goroutine" not in facts:
            continue
        if called := _called(text):
            function = called
            skip = function.startswith(_RUNTIME)
            if skip and function.startswith(("panic", "runtime.gopanic")):
                facts.pop("file", None)
        elif (place := _PLACE.match(text)) and function is not None and not skip and "file" not in facts:
            facts.update(file=place["file"].strip(), line=int(place["line"]), function=function)
    return facts


def _called(line: str) -> str | None:
    """The function of a call line, `pkg.(*Type).Method(0x0, {...})`: all before the bracket that the last one closes."""
    if not line.endswith(")") or line[:1].isspace() or " " in line.split("(", 1)[0]:
        return None
    depth = 0
    for position in range(len(line) - 1, -1, -1):
        if line[position] == ")":
            depth += 1
        elif line[position] == "(":
            depth -= 1
            if depth == 0:
                return line[:position] or None
    return None


def _mark(passage: Passage, first: int, last: int, cause: str | None, *, says: str, facts: dict[str, object]) -> Mark:
    where = f"{facts['file']}:{facts['line']} {facts['function']}: " if "file" in facts else ""
    what = facts.get("panic") or facts.get("fatal") or facts.get("signal") or ""
    return Mark(
        reading=Reading(
            reader="go",
            suggests=cause,
            says=says,
            culprit=f"{where}{what}",
            facts=facts,
            excerpt=passage.excerpt(first, last),
        ),
        weight=Weight.FATAL if cause else Weight.HARMLESS,
        first=first,
        last=last,
    )
