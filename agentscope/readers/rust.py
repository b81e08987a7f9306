"""What a Rust program says last: a panic in every wording since 0.x, a stack overflow, an allocation that failed.

Sources: library/std/src/panicking.rs, library/std/src/sys/pal/unix/stack_overflow.rs and library/alloc/src/alloc.rs. Before
1.73 `panicked at 'message', file:line:col`; since then `panicked at file:line:col:` and the message below; before 1.0
`task '<main>' failed at`. Zig's `thread N panic:` reads much the same.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in, errno_in

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_WHO = r"(?:thread|task) '(?P<thread>[^'\n]{1,120})' (?:\(\d{1,12}\) )?"
_NEW = late(_WHO + r"panicked at (?P<file>[^'\n:][^:\n]{0,400}):(?P<line>\d{1,9}):(?:(?P<column>\d{1,6}):?)?$")
_OLD = late(
    _WHO
    + r"(?:panicked|failed) at '(?P<message>.{0,3000}?)', (?P<file>[^\s:,'][^:\n]{0,400}):(?P<line>\d{1,9})(?::(?P<column>\d{1,6}))?"
)
_OLD_CUT = late(_WHO + r"(?:panicked|failed) at '(?P<message>.{0,3000})$")
_OVERFLOW = late(r"thread '(?P<thread>[^'\n]{1,120})' (?:\(\d{1,12}\) )?has overflowed its stack")
_MEMORY = late(r"memory allocation of (?P<bytes>\d{1,20}) bytes failed")
_DOUBLE = late(r"thread panicked while (?:panicking|processing panic)\. aborting|thread caused non-unwinding panic\. aborting")
_RUNTIME = late(r"^fatal runtime error: (?P<fatal>[^\n]{1,300})")
_ANYHOW = late(r"^Error: (?P<message>[^\n]{1,600})$")
_ZIG = late(r"^(?:thread \d{1,12} )?panic: (?P<message>[^\n]{1,400})$")
_FOLLOWS = late(
    r"value: (?:Any|PoisonError|RecvError|SendError|JoinError::Panic)|A Tokio 1\.x context was found, but it is being shutdown"
)
_PATH = late(r"path=(?P<path>[^;)\n]{1,400})|path: \"(?P<quoted>[^\"\n]{1,400})\"")


def read(passage: Passage) -> Iterator[Mark]:
    """The last panic, or the way the runtime gave up."""
    panic = _panic(passage)
    if panic is not None:
        yield panic
    for index, text in passage.numbered("has overflowed its stack", "memory allocation of", "aborting", "fatal runtime error"):
        if match := _OVERFLOW.search(text):
            says = f"thread '{match['thread']}' overflowed its stack"
            yield _mark(passage, index, "crash/stack-overflow", says=says, facts={"thread": match["thread"]})
        elif match := _MEMORY.search(text):
            says = f"an allocation of {match['bytes']} bytes failed"
            yield _mark(passage, index, "oom/runtime-heap", says=says, facts={"bytes": int(match["bytes"])})
        elif _DOUBLE.search(text) and panic is None:
            yield _mark(
                passage, index, "exception/panic", says="a panic happened while panicking", facts={"double_panic": True}
            )
        elif (match := _RUNTIME.search(text)) and "overflow" not in match["fatal"] and panic is None:
            yield _mark(
                passage,
                index,
                "crash/abort",
                says=f"the Rust runtime ended the program: {match['fatal']}",
                facts={"fatal": match["fatal"]},
            )
    if panic is None:
        yield from _returned(passage)


def _panic(passage: Passage) -> Mark | None:
    found: Mark | None = None
    double = _DOUBLE.search(passage.text) is not None
    for index, text in passage.numbered("panicked at", "failed at '"):
        match = _NEW.search(text) or _OLD.search(_with_next(passage, index, text)) or _OLD_CUT.search(text)
        if match is None:
            continue
        fields = match.groupdict()
        message = fields.get("message")
        if message is None:
            message = next((line.text.strip() for line in passage.lines[index + 1 : index + 3] if line.text.strip()), "")
        facts: dict[str, object] = {"thread": fields["thread"], "message": message}
        if fields.get("file"):
            column = fields.get("column")
            facts.update(file=fields["file"], line=int(fields["line"]), column=None if column is None else int(column))
        cause = cause_in(message) or "exception/panic"
        if double:
            facts["double_panic"] = True
        if cause != "exception/panic" and (errno := errno_in(message)):
            facts["errno"] = errno
        if path := _PATH.search(message):
            facts["path"] = path["path"] or path["quoted"]
        mark = _mark(passage, index, cause, says=f"thread '{fields['thread']}' panicked: {message}"[:500], facts=facts)
        if found is None or not (double or _FOLLOWS.search(message)):
            found = mark
    if found is not None and found.reading.facts["thread"] != "main" and passage.goes_on_after(found.last):
        reading = found.reading
        facts = {**reading.facts, "killed": False}
        harmless = Reading(
            reader="rust", suggests=None, says=reading.says, culprit=reading.culprit, facts=facts, excerpt=reading.excerpt
        )
        return Mark(reading=harmless, weight=Weight.HARMLESS, first=found.first, last=found.last)
    return found


def _with_next(passage: Passage, index: int, text: str) -> str:
    """The line with those that follow, where the message of an old panic runs over several lines."""
    if "', " in text:
        return text
    return "\n".join([text, *(line.text for line in passage.lines[index + 1 : index + 12])])[:4000].replace("\n", " ")


def _returned(passage: Passage) -> Iterator[Mark]:
    """`main` returned an error: `Error: ...` with the causes below it (anyhow, eyre), or Debug output of a std error."""
    for index, text in passage.numbered("Error: "):
        match = _ANYHOW.match(text)
        following = [line.text.strip() for line in passage.lines[index + 1 : index + 4]]
        if match is None or not ("Caused by:" in following or match["message"].startswith(("Os {", "Custom {"))):
            continue
        words = " ".join([match["message"], *(line.text for line in passage.lines[index + 1 : index + 12])])
        says = f"main returned an error: {match['message']}"
        cause = cause_in(words) or "exception/uncaught"
        yield _mark(passage, index, cause, says=says, facts={"message": match["message"]}, weight=Weight.ENDING)
        return


def _mark(
    passage: Passage, index: int, cause: str, *, says: str, facts: dict[str, object], weight: Weight = Weight.FATAL
) -> Mark:
    where = f"{facts['file']}:{facts['line']}: " if "file" in facts else ""
    return Mark(
        reading=Reading(
            reader="rust",
            suggests=cause,
            says=says,
            culprit=f"{where}{facts.get('message', says)}"[:500],
            facts=facts,
            excerpt=passage.excerpt(index, index + 3),
        ),
        weight=weight,
        first=index,
        last=index + 1 if "message" in facts and index + 1 < len(passage.lines) else index,
    )
