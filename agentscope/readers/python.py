"""What a Python program said last: which of its tracebacks ended it, and which only look like it.

`logging.exception` prints the same text as a death and goes on, so a traceback that a logger wrote, that a server reports for
one request, or after which ordinary work is logged, ends nothing. The last exception is often noise (`Exception ignored in`,
atexit, SystemExit): then the one before decides.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._python_causes import UNCAUGHT, cause_of, is_follow_up, short
from agentscope.readers._tracebacks import HEADER, Frame, Trace, find_traces, raised_in_source, standalone

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})
MAX_HANDLED = 5
MAX_AFTER_ALONE = 10

_NOISE = late(
    r"Exception ignored |Exception in (?:ASGI|WSGI) application|exception was never retrieved|Exception in (?:callback|default exception)"
    r"|--- Logging error ---|Error in atexit|atexit callback|Exception on /|Internal Server Error|Exception happened during processing"
    r"|Error handling request|exception calling callback|Exception in Tkinter|Unhandled exception in event loop"
    r"|raised unexpected: |raised an exception$|raised exception: |[Rr]etrying|will retry|Exception occurred in (?:response|request)"
    r"|[Cc]aught (?:an )?exception|[Ii]gnoring|Exception while (?:handling|serving|processing) |Exception serving |Error processing request"
    r"|Unhandled exception in (?:client_connected|protocol)|on_message error|Error in sys\.excepthook|Callback (?:failed|error)",
)
_FATAL_HEAD = late(
    r"failed to (?:start|boot|initiali[sz]e|load)|hit an exception|worker process|[Ff]atal|unrecoverable|[Uu]ncaught|startup failed"
    r"|[Uu]nhandled exception(?! in)|crash|[Ee]xiting|[Tt]erminating|aborting|Process \w{0,40}Process-|^Process \S{1,60}:$"
    r"|(?:died|dead)\b|giving up",
)
_FATAL_AFTER = late(
    r"startup failed|[Ee]xiting|failed to boot|(?:process|engine|worker|server).{0,40}(?:died|dead|terminat|exited|crash)|core dumped"
    r"|[Cc]ommand exited with non-zero|exited with (?:code|status) [1-9]|exit (?:code|status)[ :=]{1,3}[1-9]|SIGQUIT received|[Ss]hutting down server"
    r"|Engine core initialization failed|^Killed$|Aborted|Segmentation fault|code=(?:exited|dumped)",
)
_TESTS = late(
    r"^=+ (?:FAILURES|ERRORS|short test summary info|.{0,60}\d{1,6} (?:failed|passed|error)).{0,200}$|^FAILED \S{1,400}::|^E {3}\s{0,12}\w",
    re.MULTILINE,
)
_LIBRARY_CODE = late(r"site-packages|dist-packages|[/\\]lib(?:64)?[/\\]python\d|<frozen|[/\\]Lib[/\\]|\.pyx$")
_STATUS = late(
    r"[Ee]rror code: (\d{3})\b|status(?:_code| code)?[ =:']{1,4}(\d{3})\b|HTTP(?: Error)? (?:code )?(\d{3})\b|^(\d{3}) [A-Z]"
)
_CODE = late(r"""['"]code['"]: ['"]([\w.-]{1,80})['"]""")
_ERRNO = late(r"^\[Errno (\d{1,4})\] [^:]{1,120}(?:: '([^'\n]{1,1000})'| : '([^'\n]{1,1000})')?")
_MISSING_LIBRARY = late(r"(?P<library>[^\s:]{1,400}): cannot open shared object file")
_VERSION = late(
    r"(?P<library>[^\s:]{1,400}): version [`'](?P<version>[\w.]{1,64})' not found(?: \(required by (?P<by>[^)\n]{1,400})\))?"
)
_SYMBOL = late(r"undefined symbol: ?(?P<symbol>[\w@$.]{1,600})")
_REQUIRED = late(r"(?P<package>[\w.-]{1,80}) with minimum required version (?P<required>[\w.]{1,40})")


def read(passage: Passage) -> Iterator[Mark]:
    """The traceback that ended the program, then those that ended nothing."""
    traces = find_traces([line.text for line in passage.lines])
    typed = [trace for trace in traces if _completed(trace)]
    continued = {id(trace.above) for trace in typed}
    for trace in traces:
        if trace.type is None and trace.above is not None:
            trace.above.continues = True
    finals = [trace for trace in typed if id(trace) not in continued]
    fatal: list[Trace] = []
    handled: list[tuple[Trace, str]] = []
    for trace in finals:
        reason = _why_handled(trace, passage)
        if reason is None:
            fatal.append(trace)
        else:
            handled.append((trace, reason))
    for trace, reason in handled[-MAX_HANDLED:]:
        yield _mark(trace, passage, reason)
    if fatal:
        decisive = max(fatal, key=lambda trace: (not is_follow_up(trace), cause_of(trace).startswith("oom/"), trace.last))
        yield _mark(decisive, passage, None)
    elif not traces or not typed:
        yield from _alone(passage, bool(traces))


def _completed(trace: Trace) -> bool:
    """Whether the exception is known; for a traceback cut before it, from the last line of source."""
    if trace.type is None and trace.above is None and trace.frames:
        trace.type = raised_in_source(trace)
    return trace.type is not None


def _why_handled(trace: Trace, passage: Passage) -> str | None:
    """Why this traceback ended nothing, or None if it did end the program."""
    start = trace
    for _ in range(50):
        if start.above is None or start.link == "remote":
            break
        start = start.above
    heads = start.before
    if any(_NOISE.search(line) for line in heads[:3]):
        return "it was caught and reported"
    if _TESTS.search(passage.text):
        return "a test reported it"
    level = passage.lines[start.first].level
    after = passage.lines[trace.last + 1 :]
    if passage.goes_on_after(trace.last):
        return "the program went on working after it"
    fatal_head = any(_FATAL_HEAD.search(line) for line in heads[:1])
    fatal_after = any(_FATAL_AFTER.search(line.text) for line in after[:40])
    if fatal_head or fatal_after or "critical" in (level, _level_above(start, passage)):
        return None
    if level is not None or _level_above(start, passage) in ("error", "warning", "info", "debug"):
        return "a logger wrote it"
    return None


def _level_above(trace: Trace, passage: Passage) -> str | None:
    """The level of the log line right above this traceback: `logger.exception("...")` writes the two as one record."""
    for index in range(trace.first - 1, max(-1, trace.first - 3), -1):
        line = passage.lines[index]
        if line.text.strip() or line.level:
            return line.level if line.level in ("error", "warning", "critical") else None
    return None


def _alone(passage: Passage, cut: bool) -> Iterator[Mark]:
    """An exception without a traceback above it: the text was cut, or only the last line was kept."""
    if (
        passage.has("\n    at ", "\n\tat ", "\n   at ", "\tfrom ")
        or _TESTS.search(passage.text)
        or (cut and not passage.has(HEADER))
    ):
        return
    following = 0
    for index in range(len(passage.lines) - 1, -1, -1):
        line = passage.lines[index]
        following += bool(line.text.strip())
        if following > MAX_AFTER_ALONE:
            return
        named = standalone(line.text.strip())
        if named is None or named[0].startswith(("java", "System.", "org.", "com.")) or line.level is not None:
            continue
        above = tuple(passage.lines[at].text.strip() for at in range(index - 1, max(-1, index - 3), -1))
        trace = Trace(first=index, last=index, indent=0, before=above, type=named[0], message=named[1])
        trace.more = [after.text.strip() for after in passage.lines[index + 1 : index + 6] if after.text.strip()]
        reason = _why_handled(trace, passage)
        mark = _mark(trace, passage, reason)
        weight = mark.weight if reason or cause_of(trace) != UNCAUGHT else Weight.STATUS
        yield Mark(reading=mark.reading, weight=weight, first=index, last=index)
        return


def _mark(trace: Trace, passage: Passage, handled: str | None) -> Mark:
    cause = _ended_by(trace)
    facts = _facts(trace)
    frame = _own_frame(trace)
    where = (
        ""
        if frame is None
        else f"{frame.file.rsplit('/', 1)[-1]}:{frame.line or '?'}{f' {frame.function}' if frame.function else ''}: "
    )
    what = f"{trace.type}{': ' + trace.message if trace.message else ''}"[:400]
    if handled is not None or cause is None:
        facts["killed"] = False
    return Mark(
        reading=Reading(
            reader="python",
            suggests=None if handled is not None else cause,
            says=f"Python {'raised' if handled is None else 'reported'} {what}" + (f", but {handled}" if handled else ""),
            culprit=f"{where}{what}",
            facts=facts,
            excerpt=passage.excerpt(trace.first, trace.last),
        ),
        weight=_weight(cause, handled),
        first=trace.first,
        last=trace.last,
    )


def _weight(cause: str | None, handled: str | None) -> Weight:
    if handled is not None or cause is None:
        return Weight.HARMLESS
    if cause in ("exit/status", UNCAUGHT):
        return Weight.STATUS if cause == "exit/status" else Weight.ENDING
    return Weight.FATAL


def _ended_by(trace: Trace) -> str | None:
    """The cause, with exceptions that only carry an exit: `SystemExit: 0` and a cancellation end nothing."""
    kind = short(trace)
    if kind == "SystemExit":
        status = trace.message.strip()
        return None if status in ("", "0", "None") else "exit/status"
    if kind in ("CancelledError", "GeneratorExit"):
        return None
    if kind == "KeyboardInterrupt" and "SIGTERM" in trace.words:
        return "killed/sigterm"
    return cause_of(trace)


def _own_frame(trace: Trace) -> Frame | None:
    """The innermost frame of the program's own code, else the innermost."""
    for frame in reversed(trace.frames):
        if not _LIBRARY_CODE.search(frame.file):
            return frame
    return trace.innermost


def _facts(trace: Trace) -> dict[str, object]:
    facts: dict[str, object] = {
        "exception_type": trace.type,
        "message": trace.message,
        "chained": trace.chained or trace.continues,
    }
    innermost = trace.innermost
    shown = trace
    if trace.link == "remote" and trace.above is not None:
        facts.update(exception_type=trace.above.type, message=trace.above.message, cause_type=trace.type)
        shown = trace.above
        facts["chained"] = shown.chained
    if innermost is not None:
        facts.update(file=innermost.file, line=innermost.line, function=innermost.function)
    if trace.remote or (trace.above is not None and trace.above.remote):
        facts["remote"] = True
    if trace.group or trace.subs:
        facts["group"] = True
    if trace.chained and trace.link != "remote" and trace.root is not trace:
        facts["root_type"] = trace.root.type
        facts["root_message"] = trace.root.message
    facts.update(_facts_of_words(trace))
    if short(trace) == "KeyboardInterrupt" and not trace.message:
        facts["signal"] = "SIGINT"
    return facts


def _facts_of_words(trace: Trace) -> dict[str, object]:
    facts: dict[str, object] = {}
    words = f"{trace.message}\n{' '.join(trace.more)}"[:3000]
    if match := _STATUS.search(trace.message[:1000]):
        facts["status"] = int(next(group for group in match.groups() if group))
    if short(trace) == "SystemExit" and trace.message.strip().isdecimal():
        facts["status"] = int(trace.message.strip()[:6])
    if match := _CODE.search(words):
        facts["code"] = match.group(1)
    if match := _ERRNO.match(trace.message):
        facts["errno"] = int(match.group(1))
        if match.group(2) or match.group(3):
            facts["path"] = match.group(2) or match.group(3)
    versions = list(dict.fromkeys(match["version"] for match in _VERSION.finditer(words)))
    if versions and (match := _VERSION.search(words)):
        facts.update(versions=versions, library=match["library"])
        if match["by"]:
            facts["required_by"] = match["by"]
    elif match := _MISSING_LIBRARY.search(words):
        facts["library"] = match["library"]
    if match := _SYMBOL.search(words):
        facts["symbol"] = match["symbol"]
    if match := _REQUIRED.search(words):
        facts.update(package=match["package"], required=match["required"])
    return facts
