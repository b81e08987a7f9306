"""What PHP says last: fatal errors, exceptions nobody caught, a worker that a signal ended.

Source: main/main.c, Zend/zend_alloc.c and sapi/fpm/fpm/fpm_children.c of PHP. Warnings, notices and deprecations end nothing.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in, cause_of_signal

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_FATAL = late(
    r"(?:PHP )?(?:Fatal|Parse|Recoverable fatal) error: {1,2}(?P<message>[^\n]{1,1500}?)(?: in (?P<file>/[^\s:]{1,500}|[A-Z]:\\[^\n:]{1,500})"
    r"(?::(?P<line>\d{1,9})| on line (?P<line2>\d{1,9})))?$"
)
_UNCAUGHT = late(r"^(?:Uncaught )?(?:PHP )?(?P<type>[A-Z][\w\\]{1,200}): (?P<message>.*)$")
_CHILD = late(
    r"child (?P<pid>\d{1,10})(?:, script [^\n]{1,200}?)? exited on signal (?P<number>\d{1,2}) \((?P<signal>SIG[A-Z]{2,6})[^)\n]{0,40}\)"
)


def read(passage: Passage) -> Iterator[Mark]:
    """The fatal error, or the worker's signal."""
    for index, text in passage.numbered("atal error: ", "Parse error: "):
        match = _FATAL.search(text)
        if match is None or "glibc detected" in text or text.startswith(("fatal error: ", "FATAL ERROR")):
            continue
        facts: dict[str, object] = {}
        message = match["message"].strip()
        if match["file"]:
            facts.update(file=match["file"], line=int(match["line"] or match["line2"]))
        elif "PHP" not in text and "Uncaught" not in text and "Allowed memory size" not in text:
            continue
        cause = cause_in(message) or "exception/uncaught"
        if "Allowed memory size of" in message or message.startswith("Out of memory"):
            cause = "oom/runtime-heap"
        if "Uncaught" in message and (named := _UNCAUGHT.match(message)):
            facts["exception_type"] = named["type"]
            message = named["message"]
        facts["message"] = message
        where = f"{facts['file']}:{facts['line']}: " if "file" in facts else ""
        yield _mark(passage, index, cause, facts, f"{where}{message}")
        return
    for index, text in passage.numbered("exited on signal"):
        if match := _CHILD.search(text):
            facts = {"pid": int(match["pid"]), "signal": match["signal"]}
            yield _mark(
                passage, index, cause_of_signal(match["signal"]), facts, f"worker {match['pid']} ended by {match['signal']}"
            )


def _mark(passage: Passage, index: int, cause: str, facts: dict[str, object], what: str) -> Mark:
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="php",
            suggests=cause,
            says=f"PHP: {what}"[:500],
            culprit=what[:500],
            pid=pid if isinstance(pid, int) else None,
            facts=facts,
            excerpt=passage.excerpt(index, index + 4),
        ),
        weight=Weight.MONITOR if pid else Weight.ENDING if cause == "exception/uncaught" else Weight.FATAL,
        first=index,
        last=index,
    )
