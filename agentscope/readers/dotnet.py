"""What a .NET program says last.

Source: src/coreclr/vm/excep.cpp ("Unhandled exception. "), eepolicy.cpp ("Process terminated.", "Fatal error.") and the stack
overflow report of dotnet/runtime; Mono and .NET Framework write "Unhandled Exception:".
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in, errno_in

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_HEAD = late(r"^\s{0,8}(?:Unhandled [Ee]xception[.:]|\[ERROR\] FATAL UNHANDLED EXCEPTION:) ?(?P<rest>[^\n]{0,2000})$")
_TYPE = late(r"^(?P<type>[A-Za-z_][\w.+`]{2,300}): ?(?P<message>[^\n]{0,2000})$")
_INNER = late(r"^\s{0,8}---> (?P<type>[A-Za-z_][\w.+`]{2,300}): ?(?P<message>[^\n]{0,2000})$")
_FRAME = late(
    r"^\s{1,8}at (?P<function>[^(\n]{1,400})\([^\n]{0,800}?\)(?: in (?P<file>[^\n]{1,500}?):line (?P<line>\d{1,9})| \+ 0x|\s|$)"
)
_FATAL = late(r"^(?:Fatal error\. (?P<fatal>[^\n]{1,300})|Process terminated\. ?(?P<terminated>[^\n]{0,300}))$")
_QUOTED = late(r"'(?P<path>/[^'\n]{1,1000})'")
_TYPES = {
    "OutOfMemoryException": "oom/runtime-heap",
    "InsufficientMemoryException": "oom/runtime-heap",
    "DllNotFoundException": "drift/missing-library",
    "FileLoadException": "drift/missing-library",
    "EntryPointNotFoundException": "drift/symbol",
    "MissingMethodException": "drift/symbol",
    "MissingFieldException": "drift/symbol",
    "TypeLoadException": "drift/abi",
    "BadImageFormatException": "drift/abi",
    "HttpRequestException": "exception/network",
    "SocketException": "exception/network",
    "WebException": "exception/network",
}


def read(passage: Passage) -> Iterator[Mark]:
    """An unhandled exception, a fatal error of the runtime, a stack that overflowed."""
    for index, text in passage.numbered("Unhandled", "FATAL UNHANDLED"):
        match = _HEAD.match(text)
        if match is None:
            continue
        named = _TYPE.match(match["rest"]) or (
            _TYPE.match(passage.lines[index + 1].text) if index + 1 < len(passage.lines) else None
        )
        if named is not None and ("." in named["type"] or named["type"].endswith("Exception")):
            yield _unhandled(passage, index, named)
            return
    for index, text in passage.numbered("Fatal error. ", "Process terminated", "Stack overflow", "Out of memory."):
        mark = _fatal(passage, index, text)
        if mark is not None:
            yield mark
            return


def _unhandled(passage: Passage, index: int, named: re.Match[str]) -> Mark:
    facts: dict[str, object] = {"exception_type": named["type"], "message": named["message"].strip()}
    words = [named["message"]]
    cause = _TYPES.get(named["type"].rsplit(".", 1)[-1])
    for line in passage.lines[index + 1 : index + 60]:
        if inner := _INNER.match(line.text):
            facts.update(root_type=inner["type"], root_message=inner["message"].strip(), chained=True)
            cause = cause or _TYPES.get(inner["type"].rsplit(".", 1)[-1])
        elif (frame := _FRAME.match(line.text)) and "function" not in facts:
            facts["function"] = frame["function"].strip()
            if frame["file"]:
                facts.update(file=frame["file"], line=int(frame["line"]))
        if "function" not in facts:
            words.append(line.text)
    text = " ".join(words)[:3000]
    found = cause_in(text)
    if found is not None and not found.startswith("drift/"):
        cause = found
        if errno := errno_in(text):
            facts["errno"] = errno
        if path := _QUOTED.search(text):
            facts["path"] = path["path"]
    if "Could not load file or assembly" in text:
        cause = "drift/missing-library"
    return _mark(passage, index, cause or found or "exception/uncaught", facts)


def _fatal(passage: Passage, index: int, text: str) -> Mark | None:
    following = passage.lines[index + 1].text if index + 1 < len(passage.lines) else ""
    if text.strip() == "Stack overflow." and _FRAME.match(following):
        return _mark(passage, index, "crash/stack-overflow", {"fatal": "Stack overflow"})
    if text.strip() == "Out of memory." and (_FRAME.match(following) or not following.strip()):
        return _mark(passage, index, "oom/runtime-heap", {"fatal": "Out of memory"})
    match = _FATAL.match(text)
    if match is None:
        return None
    said = (match["fatal"] or match["terminated"] or following).strip()
    cause = "crash/segfault" if "AccessViolation" in said or "0xC0000005" in said else "crash/abort"
    if "ut of memory" in said:
        cause = "oom/runtime-heap"
    return _mark(passage, index, cause, {"fatal": said})


def _mark(passage: Passage, index: int, cause: str, facts: dict[str, object]) -> Mark:
    what = (
        f"{facts.get('exception_type', '')}: {facts.get('message', '')}" if "exception_type" in facts else str(facts["fatal"])
    )
    where = f"{facts['function']}: " if "function" in facts else ""
    return Mark(
        reading=Reading(
            reader="dotnet",
            suggests=cause,
            says=f".NET: {what}"[:500],
            culprit=f"{where}{what}"[:500],
            facts=facts,
            excerpt=passage.excerpt(index, index + 12),
        ),
        weight=Weight.ENDING if cause == "exception/uncaught" else Weight.FATAL,
        first=index,
        last=index,
    )
