"""A native program ends itself: glibc's checks, assertions, C++ exceptions nobody caught, sanitizers, crash reporters.

Sources: malloc/malloc.c, debug/fortify_fail.c and assert/assert.c of glibc (`*** Error in` until 2.25, `*** glibc detected ***`
before), musl's and BSD's `Assertion failed:`, libstdc++'s vterminate.cc, libc++abi's default handlers, compiler-rt's reports,
glog's and Abseil's failure signal writers, GLib's testing macros, ggml's GGML_ASSERT.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in, cause_of_signal, signal_named

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_HEAP = late(
    r"(?:\*\*\* (?:glibc detected \*\*\*|Error in) ?[`']?(?P<program>[^':\n]{1,400}?)'?: )?"
    r"(?P<abort>double free or corruption(?: \([!\w]{1,16}\))?|(?:free|malloc|realloc|calloc|munmap_chunk|malloc_consolidate|memalign)"
    r"\(\): (?:invalid|corrupted|unaligned|memory corruption|mismatching|double free|smallbin|largebin|unsorted)[^:\n]{0,80}"
    r"|corrupted (?:size vs\. prev_size[^:\n]{0,40}|double-linked list[^:\n]{0,40})"
    r"|break adjusted to free malloc space|sysmalloc: Assertion[^\n]{0,80})(?:: (?P<address>0x[0-9a-fA-F]{1,16}))?"
)
_FORTIFY = late(
    r"\*\*\* (?P<abort>(?:stack smashing|buffer overflow|invalid %N\$ use|%n in writable segment) detected) ?\*\*\*:? ?"
    r"(?P<program>[^\s<][^\n]{0,200}?)? ?terminated|\*\*\* (?P<longjmp>longjmp causes uninitialized stack frame) \*\*\*"
)
_ASSERT = late(
    r"(?:(?P<program>[^\s:][^:\n]{0,200}): )?(?P<file>[^\s:][^:\n]{0,300}):(?P<line>\d{1,7}): (?P<function>[^\n]{1,300}?): "
    r"Assertion [`'](?P<assertion>[^\n]{1,600}?)' failed"
)
_ASSERT_BSD = late(
    r"Assertion failed: \(?(?P<assertion>[^\n]{1,400}?)\)?(?: \((?P<file>[^:()\n]{1,300}): (?P<function>[^:()\n]{1,200}): (?P<line>\d{1,7})\)"
    r"|, function (?P<function2>[^,\n]{1,200}), file (?P<file2>[^,\n]{1,300}), line (?P<line2>\d{1,7}))"
)
_ASSERT_GGML = late(
    r"(?:(?P<file>[^\s:][^:\n]{0,300}):(?P<line>\d{1,7}): \w{2,24}_ASSERT\((?P<assertion>[^\n]{1,400})\) failed"
    r"|\w{2,24}_ASSERT: (?P<file2>[^\s:][^:\n]{0,300}):(?P<line2>\d{1,7}): (?P<assertion2>[^\n]{1,400}))"
)
_ASSERT_GLIB = late(
    r"(?:ERROR:)?(?P<file>[^\s:][^:\n]{0,300}):(?P<line>\d{1,7}):(?P<function>[\w~:<>]{1,200}): "
    r"(?:assertion failed:? ?\(?(?P<assertion>[^\n]{1,400}?)\)?$|code should not be reached)"
)
_ASSERT_QT = late(
    r'ASSERT(?: failure in [^:\n]{1,80})?: "(?P<assertion>[^\n"]{1,400})"(?:,| in) ?file (?P<file>[^,\n]{1,300}), line (?P<line>\d{1,7})'
)
_CHECK = late(r"(?P<assertion>Check failed: [^\n]{1,400})")
_TERMINATE = late(
    r"terminat(?:e called after throwing an instance of '(?P<type>[^'\n]{1,300})'|ing (?:due to|with) uncaught exception of type "
    r"(?P<type2>[^\n]{1,300}?)(?:: (?P<what>[^\n]{0,600}))?$|e called (?P<bare>recursively|without an active exception)|ing$)"
)
_WHAT = late(r"what\(\): {1,4}(?P<what>[^\n]{0,600})")
_ASAN = late(
    r"(?:==(?P<pid>\d{1,10})==)?\s?ERROR: (?:Address|HWAddress|Memory|Thread)Sanitizer:? (?P<abort>[\w -]{3,60}?)(?: on (?:unknown )?(?:address )?"
    r"(?P<address>0x[0-9a-fA-F]{1,16})| \(|: |$)"
)
_VALGRIND = late(r"==(?P<pid>\d{1,10})== Process terminating with default action of signal (?P<signal>\d{1,2})")
_WRITER = late(
    r"\*\*\* (?P<signal>SIG[A-Z]{2,6}) (?:received at time|\(@(?P<address>0x[0-9a-fA-F]{1,16})\) received by PID (?P<pid>\d{1,10})"
    r"|\(0x[0-9a-fA-F]{1,16}\) received)"
)
_UNNAMED = frozenset({"<unknown>", "terminated"})


def read(passage: Passage) -> Iterator[Mark]:
    """What a native program says when it gives itself up; of several assertions the last, which is the one it died of."""
    yield from _aborts(passage)
    yield from _assertions(passage)
    yield from _exceptions(passage)
    yield from _reports(passage)


def _aborts(passage: Passage) -> Iterator[Mark]:
    words = ("free", "malloc", "corrupted", "***", "munmap_chunk", "alloc")
    for index, text in passage.numbered(*words):
        match = _HEAP.search(text) or _FORTIFY.search(text)
        if match is None:
            continue
        fields = match.groupdict()
        abort = (fields.get("abort") or fields.get("longjmp") or "").strip()
        facts: dict[str, object] = {"abort": abort}
        program = fields.get("program")
        if program and program not in _UNNAMED:
            facts["program"] = program
        if fields.get("address"):
            facts["address"] = fields["address"]
        yield _mark(passage, index, "crash/abort", says=f"glibc ended the program: {abort}", culprit=abort, facts=facts)


def _assertions(passage: Passage) -> Iterator[Mark]:
    patterns = (_ASSERT, _ASSERT_GGML, _ASSERT_BSD, _ASSERT_GLIB, _ASSERT_QT)
    last: Mark | None = None
    for index, text in passage.numbered("ssertion", "ASSERT", "Check failed: ", "code should not be reached"):
        if "-CRITICAL **" in text or "-WARNING **" in text:
            continue
        match = next((found for pattern in patterns if (found := pattern.search(text))), None)
        facts: dict[str, object] = {}
        if match is not None:
            fields = {name.rstrip("2"): value for name, value in match.groupdict().items() if value}
            facts = {name: fields[name].strip() for name in ("assertion", "function", "program") if name in fields}
            facts["file"] = fields["file"].removeprefix(".../")
            facts["line"] = int(fields["line"])
        elif passage.lines[index].level == "critical" and (match := _CHECK.search(text)):
            facts = {"assertion": match["assertion"]}
        elif text.startswith("# Check failed: "):
            facts = {"assertion": text.removeprefix("# ")}
        if facts:
            where = f"{facts['file']}:{facts['line']}" if "file" in facts else "a check"
            says = f"an assertion failed at {where}: {facts.get('assertion', 'code that should not be reached')}"
            last = _mark(
                passage,
                index,
                "crash/abort",
                says=says,
                culprit=f"{where}: {facts.get('assertion', 'not reached')}",
                facts=facts,
            )
    if last is not None:
        yield last


def _exceptions(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("terminat"):
        match = _TERMINATE.search(text)
        if match is None:
            continue
        kind = match["type"] or match["type2"]
        what = match["what"]
        for line in passage.lines[index + 1 : index + 4]:
            if what is None and (said := _WHAT.search(line.text)):
                what = said["what"]
        if kind is None and match["bare"] is None:
            continue
        facts: dict[str, object] = {}
        if kind:
            facts["exception_type"] = kind
        if what is not None:
            facts["what"] = what.strip()
        cause = _cause_of_what(f"{kind or ''}: {what or ''}")
        says = f"an exception nobody caught ended the program: {kind or match['bare']}" + (f": {what}" if what else "")
        yield _mark(
            passage, index, cause, says=says, culprit=f"{kind or 'std::terminate'}{': ' + what if what else ''}", facts=facts
        )


def _cause_of_what(words: str) -> str:
    named = cause_in(words)
    if named is not None and named.startswith(("oom/", "exception/disk", "exception/fd")):
        return named
    return "oom/runtime-heap" if "bad_alloc" in words else "crash/abort"


def _reports(passage: Passage) -> Iterator[Mark]:
    """Sanitizers, valgrind and failure signal writers."""
    for index, text in passage.numbered("Sanitizer", "Process terminating", "*** SIG"):
        if match := _ASAN.search(text):
            abort = match["abort"].strip()
            cause = {"SEGV": "crash/segfault", "BUS": "crash/bus", "FPE": "crash/fpe", "ILL": "crash/illegal-instruction"}.get(
                abort
            )
            if "stack-overflow" in abort:
                cause = "crash/stack-overflow"
            elif "out of memory" in text or "out-of-memory" in text or "rss limit" in text:
                cause = "oom/runtime-heap"
            facts: dict[str, object] = {"abort": abort}
            if match["pid"]:
                facts["pid"] = int(match["pid"])
            if match["address"]:
                facts["address"] = match["address"]
            yield _mark(
                passage,
                index,
                cause or "crash/abort",
                says=f"a sanitizer ended the program: {abort}",
                culprit=abort,
                facts=facts,
            )
        elif match := _VALGRIND.search(text):
            yield _signal(passage, index, signal_named(match["signal"]) or "SIGSEGV", match["pid"])
        elif match := _WRITER.search(text):
            yield _signal(passage, index, match["signal"], match["pid"], match["address"])


def _signal(passage: Passage, index: int, signal: str, pid: str | None, address: str | None = None) -> Mark:
    facts: dict[str, object] = {"signal": signal}
    if address:
        facts["address"] = address
    if pid:
        facts["pid"] = int(pid)
    return _mark(
        passage,
        index,
        cause_of_signal(signal),
        says=f"the program reported {signal}",
        culprit=signal,
        facts=facts,
        weight=Weight.MONITOR,
    )


def _mark(
    passage: Passage,
    index: int,
    cause: str,
    *,
    says: str,
    culprit: str,
    facts: dict[str, object],
    weight: Weight = Weight.FATAL,
) -> Mark:
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="native",
            suggests=cause,
            says=says,
            culprit=culprit,
            pid=pid if isinstance(pid, int) else None,
            facts=facts,
            excerpt=passage.excerpt(index, index + 3),
        ),
        weight=weight,
        first=index,
        last=index,
    )
