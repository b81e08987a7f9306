"""What JavaScript runtimes say last: Node.js and V8, Deno, Bun.

Sources: node_errors.cc and lib/internal/process/execution.js of Node, V8's api.cc (FatalProcessOutOfMemory), libuv's error
names, Bun's crash handler. A heap that is full is V8's own limit, not the kernel's. `UnhandledPromiseRejectionWarning` (Node 14
and before) ends nothing.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_FATAL = late(
    r"FATAL ERROR: (?P<fatal>[^\n]{1,400})|# ?Fatal (?:JavaScript|javascript|process) (?:out of memory: |OOM in )(?P<oom>[^\n]{1,200})"
    r"|^(?P<bare>[^\n]{0,200}JavaScript heap out of memory)$"
)
_CHECK = late(r"# Fatal error in (?P<where>[^\n]{0,200})")
_GC = late(r"^\[(?P<pid>\d{1,10}):0x[0-9a-fA-F]{1,16}\]")
_LIMIT = late(r"--max[-_]old[-_]space[-_]size[= ](\d{1,7})")
_HEAD = late(
    r"^(?:\[(?P<box>))?\s{0,4}(?P<deno>error: )?(?P<uncaught>Uncaught (?:\(in promise\) )?|Unhandled [Rr]ejection:? ?)?"
    r"(?P<type>(?:[A-Z]\w{0,80}\.)?(?:[A-Z]\w{0,80}(?:Error|Exception|Rejection)|Error)(?: \[(?P<code>[A-Z][A-Z0-9_]{2,60})\])?)(?:: (?P<message>.*))?$"
)
_BOXED = late(r"^\[(?:[A-Z]\w{0,80})?(?:Error|Exception|Rejection)\b")
_BUN = late(r"^error: (?P<message>[^\n]{1,600})$")
_FRAME = late(
    r"^\s{2,40}at (?:async )?(?:(?P<function>[^\n()]{1,200}?) \()?(?P<file>(?:file://|node:|[A-Za-z]:[\\/])?[^\s:()][^:()\n]{0,500}):"
    r"(?P<line>\d{1,9}):(?P<column>\d{1,9})\)?"
)
_PLACE = late(r"^(?P<file>(?:file://|node:|[A-Za-z]:[\\/])?[^\s:][^:\n]{0,500}):(?P<line>\d{1,9})$")
_PROPERTY = late(r"^\s{1,8}(?P<name>code|errno|syscall|path|address|port|hostname): (?P<value>'[^'\n]{0,500}'|-?\d{1,9})")
_REASON = late(r'The promise rejected with the reason "(?P<reason>.{0,600})"\.')
_WARNING = late(r"\(node:(?P<pid>\d{1,10})\) (?P<type>[\w ]{0,60}Warning): (?P<message>[^\n]{0,400})")
_ABI = late(r"The module '(?P<module>[^'\n]{1,500})'")
_ABI_NUMBERS = late(r"NODE_MODULE_VERSION (\d{1,4})\b.{0,200}?NODE_MODULE_VERSION (\d{1,4})", re.DOTALL)
_MISSING = late(r"Cannot find (?:module|package) '(?P<name>[^'\n]{1,400})'")
_BUN_CRASH = late(
    r"panic(?:\([^)\n]{1,80}\))?: (?P<panic>(?:Segmentation fault|Bus error|Illegal instruction|Stack overflow)[^\n]{0,120})"
)
_BUN_CAUSES = (
    ("Segmentation fault", "crash/segfault"),
    ("Bus error", "crash/bus"),
    ("Illegal instruction", "crash/illegal-instruction"),
    ("Stack overflow", "crash/stack-overflow"),
)
_INTERNAL = ("node:", "internal/", "module.js", "bootstrap_node.js", "events.js", "net.js", "timers.js", "ext:", "native")


def read(passage: Passage) -> Iterator[Mark]:
    """Heap limits, fatal errors, errors nobody caught, addons of another version; warnings as harmless."""
    yield from _fatal(passage)
    yield from _addon(passage)
    yield from _warnings(passage)
    if passage.has("    at ", "Error", "UnhandledPromiseRejection", "error: ") and not passage.has("NODE_MODULE_VERSION"):
        yield from _uncaught(passage)


def _fatal(passage: Passage) -> Iterator[Mark]:
    if passage.has("----- Native stack trace -----") and not passage.has("FATAL ERROR: "):
        index = next(index for index, _ in passage.numbered("----- Native stack trace -----"))
        says = "Node aborted itself"
        yield _mark(passage, index, index + 8, "crash/abort", says=says, culprit=says, facts={}, weight=Weight.MONITOR)
    for index, text in passage.numbered(
        "FATAL ERROR: ", "# Fatal ", "#Fatal ", "ERR_WORKER_OUT_OF_MEMORY", "JavaScript heap out of memory"
    ):
        if match := _FATAL.search(text):
            yield _fatal_error(passage, index, match)
        elif "ERR_WORKER_OUT_OF_MEMORY" in text:
            says = "a worker thread reached its memory limit"
            facts: dict[str, object] = {"code": "ERR_WORKER_OUT_OF_MEMORY"}
            yield _mark(passage, index, index, "oom/runtime-heap", says=says, culprit=says, facts=facts)
        elif (check := _CHECK.search(text)) and not passage.has("Fatal JavaScript out of memory"):
            where = check["where"]
            yield _mark(passage, index, index, "crash/abort", says=f"V8 ended the process: {where}", culprit=where, facts={})
    if not passage.has("Bun"):
        return
    for index, text in passage.numbered("panic"):
        if match := _BUN_CRASH.search(text):
            panic = match["panic"]
            cause = next(cause for words, cause in _BUN_CAUSES if panic.startswith(words))
            yield _mark(passage, index, index, cause, says=f"Bun crashed: {panic}", culprit=panic, facts={"panic": panic})


def _fatal_error(passage: Passage, index: int, match: re.Match[str]) -> Mark:
    said = (match["fatal"] or match["oom"] or match["bare"]).strip()
    memory = "emory" in said or "Allocation failed" in said or match["oom"] is not None
    facts: dict[str, object] = {"fatal": said.split(" Allocation failed")[0]}
    pids = [found for line in passage.lines[max(0, index - 40) : index] if (found := _GC.match(line.text))]
    if pids:
        facts["gc_pid"] = int(pids[-1]["pid"])
    if limit := _LIMIT.search(passage.text):
        facts["limit_mb"] = int(limit.group(1))
    cause = "oom/runtime-heap" if memory else "crash/abort"
    size = f" of {facts['limit_mb']} MB" if "limit_mb" in facts else ""
    culprit = f"the V8 heap limit{size}" if memory else said
    return _mark(passage, index, index, cause, says=f"V8 ended the process: {said}", culprit=culprit, facts=facts)


def _addon(passage: Passage) -> Iterator[Mark]:
    numbers = _ABI_NUMBERS.search(passage.text) if passage.has("NODE_MODULE_VERSION") else None
    if numbers is None:
        return
    module = _ABI.search(passage.text)
    index = next(index for index, _ in passage.numbered("The module '", "NODE_MODULE_VERSION"))
    facts: dict[str, object] = {"built": int(numbers.group(1)), "required": int(numbers.group(2))}
    if module:
        facts["module"] = module["module"]
    says = "a native addon was built for another version of Node.js"
    culprit = f"{facts.get('module', 'a native addon')} built for ABI {facts['built']}, Node wants {facts['required']}"
    yield _mark(passage, index, index, "drift/abi", says=says, culprit=culprit, facts=facts)


def _warnings(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("Warning: "):
        if match := _WARNING.search(text):
            facts: dict[str, object] = {"killed": False, "pid": int(match["pid"]), "warning": match["type"].strip()}
            yield _mark(
                passage, index, index, None, says=f"Node warned: {match['message']}", culprit=match["message"], facts=facts
            )


def _uncaught(passage: Passage) -> Iterator[Mark]:
    """The last error with a stack, a code or a place in front of it; what is nested in another's stack is that one's."""
    found: Mark | None = None
    last = -1
    for index, line in enumerate(passage.lines):
        if index <= last:
            continue
        match = _HEAD.match(line.text.lstrip("[") if _BOXED.match(line.text) else line.text)
        if match is None and not (line.text.startswith("error: ") and _BUN.match(line.text)):
            continue
        mark = _error(passage, index, match, line.text)
        if mark is None:
            continue
        last = mark.last
        if found is None or found.weight <= mark.weight:
            found = mark
    if found is not None:
        yield found


def _error(passage: Passage, index: int, match: re.Match[str] | None, text: str) -> Mark | None:
    frames, facts, last = _stack(passage, index)
    thrown = _thrown(passage, index)
    marked = thrown or (match is not None and match["uncaught"] is not None) or text.startswith("[")
    if not (frames or marked or "code" in facts):
        return None
    if match is not None:
        facts["exception_type"] = match["type"].split(" [")[0]
        message = (match["message"] or "").removesuffix("] {").removesuffix(" {").removesuffix("]")
        if match["code"]:
            facts.setdefault("code", match["code"])
    else:
        facts["exception_type"], message = "Error", text.removeprefix("error: ")
    if reason := _REASON.search(text):
        facts["reason"] = reason["reason"]
    elif facts["exception_type"] == "UnhandledPromiseRejection":
        facts["reason"] = message
    facts["message"] = message
    facts.update(_where(frames, thrown))
    logged = passage.lines[index].level is not None or passage.goes_on_after(last)
    cause = None if logged and not thrown else _cause(f"{message} {facts.get('code', '')}", message)
    if cause is None:
        facts["killed"] = False
    place = f"{facts['file']}:{facts['line']}: " if "file" in facts else ""
    what = f"{facts['exception_type']}: {message}"[:400]
    weight = Weight.FATAL if cause not in (None, "exception/uncaught") else Weight.ENDING
    return _mark(passage, index, last, cause, says=f"JavaScript: {what}", culprit=f"{place}{what}", facts=facts, weight=weight)


def _stack(passage: Passage, index: int) -> tuple[list[dict[str, object]], dict[str, object], int]:
    """The frames and the properties that follow an error, and where they end."""
    frames: list[dict[str, object]] = []
    facts: dict[str, object] = {}
    last = index
    for at in range(index + 1, min(len(passage.lines), index + 80)):
        text = passage.lines[at].text
        if frame := _FRAME.match(text):
            frames.append(
                {
                    "file": frame["file"].removeprefix("file://"),
                    "line": int(frame["line"]),
                    "column": int(frame["column"]),
                    "function": frame["function"],
                }
            )
        elif found := _PROPERTY.match(text):
            value = found["value"]
            facts.setdefault(found["name"], value.strip("'") if value.startswith("'") else int(value))
        elif not (
            text.startswith((" ", "\t", "}", "Emitted '", "- ")) or (not frames and at - index < 12 and not _HEAD.match(text))
        ):
            break
        last = at
    return frames, facts, last


def _thrown(passage: Passage, index: int) -> dict[str, object] | None:
    """The `file:line` that Node prints above an error it did not see caught."""
    for at in range(index - 1, max(-1, index - 8), -1):
        if match := _PLACE.match(passage.lines[at].text):
            return {"file": match["file"].removeprefix("file://"), "line": int(match["line"])}
    return None


def _where(frames: list[dict[str, object]], thrown: dict[str, object] | None) -> dict[str, object]:
    own = next((frame for frame in frames if not str(frame["file"]).startswith(_INTERNAL)), None)
    chosen = own or (frames[0] if frames else thrown)
    return {} if chosen is None else {name: value for name, value in chosen.items() if value is not None}


def _cause(words: str, message: str) -> str:
    if missing := _MISSING.search(message):
        return "exception/uncaught" if missing["name"].startswith((".", "/")) else "drift/missing-library"
    return cause_in(words) or "exception/uncaught"


def _mark(
    passage: Passage,
    first: int,
    last: int,
    cause: str | None,
    *,
    says: str,
    culprit: str,
    facts: dict[str, object],
    weight: Weight = Weight.FATAL,
) -> Mark:
    pid = facts.get("gc_pid")
    return Mark(
        reading=Reading(
            reader="node",
            suggests=cause,
            says=says,
            culprit=culprit,
            pid=pid if isinstance(pid, int) else None,
            facts=facts,
            excerpt=passage.excerpt(first, last),
        ),
        weight=Weight.HARMLESS if cause is None else weight,
        first=first,
        last=last,
    )
