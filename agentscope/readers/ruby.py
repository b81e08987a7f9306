"""What a Ruby program says last.

Source: error.c and vm_dump.c of CRuby. `file:line:in 'method': message (Class)`, since 2.5 sometimes in reverse under a header
like Python's; `[BUG]` is the interpreter's own crash.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_HEAD = late(
    r"^\s{0,8}(?P<file>[^\s:][^:\n]{0,500}):(?P<line>\d{1,9}):(?:in [`'](?P<function>[^'\n]{1,200})': )?\s?(?P<message>[^\n]{0,2000}?) ?"
    r"\((?P<type>[A-Z]\w{0,60}(?:::[A-Z]\w{0,60}){0,6})\)$"
)
_BUG = late(r"\[BUG\] (?P<bug>[^\n]{1,300})")
_TYPES = {
    "NoMemoryError": "oom/runtime-heap",
    "LoadError": "drift/missing-library",
    "Gem::MissingSpecError": "drift/missing-library",
    "Errno::ENOSPC": "exception/disk-full",
    "Errno::EMFILE": "exception/fd-exhausted",
    "SocketError": "exception/network",
    "Net::OpenTimeout": "exception/network",
    "Net::ReadTimeout": "exception/network",
    "OpenSSL::SSL::SSLError": "exception/network",
}


def read(passage: Passage) -> Iterator[Mark]:
    """The exception that ended the program, or the interpreter's crash."""
    for index, text in passage.numbered("[BUG] "):
        if match := _BUG.search(text):
            cause = "crash/segfault" if "Segmentation fault" in match["bug"] else "crash/abort"
            yield _mark(passage, index, cause, {"fatal": match["bug"]}, match["bug"])
            return
    for index, line in enumerate(passage.lines):
        if not line.text.endswith(")") or ".go:" in line.text:
            continue
        match = _HEAD.match(line.text)
        if match is None or not (match["function"] or _from_follows(passage, index)):
            continue
        facts: dict[str, object] = {
            "exception_type": match["type"],
            "message": match["message"].strip(),
            "file": match["file"],
            "line": int(match["line"]),
        }
        if match["function"]:
            facts["function"] = match["function"]
        cause = (
            _TYPES.get(match["type"])
            or cause_in(f"{match['message']} {match['type'].rsplit('::', 1)[-1]}")
            or "exception/uncaught"
        )
        what = f"{match['type']}: {facts['message']}"
        logged = line.level is not None or passage.goes_on_after(index)
        yield _mark(passage, index, None if logged else cause, facts, f"{match['file']}:{match['line']}: {what}")
        return


def _from_follows(passage: Passage, index: int) -> bool:
    return any(line.text.lstrip().startswith("from ") for line in passage.lines[index + 1 : index + 3])


def _mark(passage: Passage, index: int, cause: str | None, facts: dict[str, object], what: str) -> Mark:
    weight = Weight.ENDING if cause == "exception/uncaught" else Weight.FATAL
    return Mark(
        reading=Reading(
            reader="ruby",
            suggests=cause,
            says=f"Ruby: {what}"[:500],
            culprit=what[:500],
            facts=facts if cause else {**facts, "killed": False},
            excerpt=passage.excerpt(index, index + 8),
        ),
        weight=weight if cause else Weight.HARMLESS,
        first=index,
        last=index,
    )
