"""Python tracebacks out of a log, as they were printed: whole, cut at either end, chained, grouped, framed or quoted.

Sources: Lib/traceback.py of CPython 2.7 to 3.14 (PEP 657 carets, PEP 678 notes, 3.13's `...<N lines>...`), rich/traceback.py,
IPython/core/ultratb.py, concurrent/futures/process.py and multiprocessing/pool.py (`_RemoteTraceback` in triple quotes), ray's
RayTaskError, rpyc's "Remote Traceback". One pass over the lines; a line that fits nothing is a stranger's and is stepped over.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agentscope.readers._late import late

MAX_TRACES = 200
MAX_STRANGERS = 40

HEADER = "Traceback (most recent call last)"
_FRAME = late(r'^[\s^C]{0,200}File "(?P<file>[^"\n]{0,1024})", line (?P<line>\d{1,9})(?:, in (?P<function>.{1,400}))?\s*$')
_EXCEPTION = late(
    r"^(?:\^C)?(?P<type>[A-Za-z_]\w{0,120}(?:\.(?:\w{1,120}|<locals>)){0,12}(?:\([\w.]{1,120}\))?)(?::(?: (?P<message>.*))?)?$"
)
_KNOWN_ENDING = late(
    r"(?:Error|Exception|Exit|Interrupt|Group|Iteration|Timeout|Expired|Refused|Failure|Fault|Cancelled|NotFound|Empty|Full|Closed"
    r"|Died|Warning|Abort|error|timeout|gaierror|Unreachable|Mismatch|Conflict)(?:\([\w.]{1,120}\))?$"
)
_CERTAIN = late(r"^[A-Z_]\w{0,120}[a-z](?:Error|Exception|Interrupt|Exit|Group)$")
_MARGIN = late(r"^(?P<indent>\s{0,80})(?P<edge>[|+])(?P<rest>[ -].{0,4000}|)$")
_GROUP_START = late(r"^(?P<indent>\s{0,80})\+ Exception Group " + re.escape(HEADER))
_RAISES = late(r"^raise (?P<type>[A-Za-z_][\w.]{0,200})\(?")
_REMOTE = late(r"Remote ?Traceback")
_CREATED = late(r"Object created at \(most recent call last\)")
_RICH_TOP = late(r"^\s{0,80}[╭┌+][─━-]{1,400}.{0,4}" + re.escape(HEADER))
_RICH_END = late(r"^\s{0,80}[╰└+][─━-]{4,}")
_RICH_FRAME = late(r"^(?P<file>[^\s│|❱][^:\n]{0,400}):(?P<line>\d{1,9}) in (?P<function>\S{1,200})\s*$")
_RICH_UNNAMED = late(r"^in (?P<function>\S{1,200}):(?P<line>\d{1,9})$")
_IPYTHON_TOP = late(r"^(?P<type>[A-Za-z_][\w.]{0,200}) {2,}" + re.escape(HEADER) + r"\s*$")
_IPYTHON_FRAME = late(
    r"^(?:File (?P<file>[^\s:][^:\n]{0,400}):(?P<line>\d{1,9}),? in (?P<function>[^\s(]{1,200})"
    r"|(?:Cell )?(?P<cell>In ?\[\d{1,9}\]),? (?:line (?P<cell_line>\d{1,9})|in (?P<cell_function>.{1,120}?)(?:\(.{0,400})?$)"
    r"|(?:Input )(?P<input>In \[\d{1,9}\]), in (?P<input_function>.{1,120}?)(?:\(.{0,400})?$"
    r"|(?P<old>[~/<][^\n]{0,400}?) in (?P<old_function>[^\s(]{1,200})(?:\(.{0,400})?$)"
)
_IPYTHON_ARROW = late(r"^-{1,8}> {0,8}(?P<line>\d{1,9})(?: |$)")
CHAINED_DURING = "During handling of the above exception, another exception occurred"
CHAINED_CAUSE = "The above exception was the direct cause of the following exception"


@dataclass(slots=True)
class Frame:
    """One frame; `function` is None for the place of a SyntaxError."""

    file: str
    line: int | None
    function: str | None


@dataclass(slots=True)
class Trace:
    """One traceback. `type` None means that the text ends, or another begins, before its exception.

    `before` are the lines that stood above it, nearest first; `link` says how it hangs on `above`; `continues` that another
    followed it, whose own exception is cut off.
    """

    first: int
    last: int
    indent: int
    before: tuple[str, ...] = ()
    headed: bool = False
    frames: list[Frame] = field(default_factory=list)
    source: str = ""
    type: str | None = None
    message: str = ""
    more: list[str] = field(default_factory=list)
    link: str | None = None
    above: "Trace | None" = None
    group: bool = False
    subs: "list[Trace]" = field(default_factory=list)
    remote: bool = False
    continues: bool = False
    strangers: int = 0

    @property
    def innermost(self) -> Frame | None:
        """The frame that raised."""
        return self.frames[-1] if self.frames else None

    @property
    def chained(self) -> bool:
        """Whether another exception stands above it as context or cause."""
        return self.above is not None

    @property
    def root(self) -> "Trace":
        """The first exception of the chain."""
        trace = self
        for _ in range(MAX_TRACES):
            if trace.above is None or trace.above.type is None:
                break
            trace = trace.above
        return trace

    @property
    def words(self) -> str:
        """The message with the lines that follow it."""
        return "\n".join([self.message, *self.more])


def find_traces(lines: Sequence[str]) -> list[Trace]:
    """Every traceback in these lines, oldest first; members of an exception group hang on it as `subs`."""
    if not any('File "' in line or HEADER in line for line in lines):
        return []
    main, subs = _split_groups(lines)
    traces = _Parser(lines).run(main)
    if subs:
        inner = _Parser(lines).run(subs)
        for trace in traces:
            if trace.group:
                trace.subs = [sub for sub in inner if sub.first > trace.first and sub.type is not None]
    return traces


def looks_like_exception(name: str, *, colon: bool) -> bool:
    """Whether this word at the end of a traceback can be the name of an exception."""
    last = name.rsplit(".", 1)[-1]
    if name.isupper() and len(name) < 10 and not last.endswith("ERROR"):
        return False
    if _KNOWN_ENDING.search(last) or "." in name:
        return True
    return colon and (last[0].isupper() or last[0] == "_")


def standalone(line: str) -> tuple[str, str] | None:
    """Type and message of a line that is an exception with certainty, though no traceback stands above it."""
    match = _EXCEPTION.match(line)
    if match is None or not (_KNOWN_ENDING if "." in match["type"] else _CERTAIN).search(match["type"]):
        return None
    return match["type"], (match["message"] or "").strip()


def _split_groups(lines: Sequence[str]) -> tuple[list[tuple[int, str, bool]], list[tuple[int, str, bool]]]:
    """The lines of ordinary and outermost-group tracebacks, margins gone; and those of the groups' members."""
    main: list[tuple[int, str, bool]] = []
    subs: list[tuple[int, str, bool]] = []
    outer: int | None = None
    for index, line in enumerate(lines):
        start = _GROUP_START.match(line)
        if start is not None and outer is None:
            outer = len(start["indent"])
            main.append((index, line.replace("+ Exception Group ", "", 1)[outer:], True))
            continue
        if outer is None:
            main.append((index, line, False))
            continue
        margin = _MARGIN.match(line)
        if margin is None:
            if line.strip() and not line.startswith(" "):
                outer = None
            main.append((index, line, False))
        elif len(margin["indent"]) <= outer and margin["edge"] == "|":
            main.append((index, margin["rest"][1:], False))
        else:
            subs.append((index, margin["rest"][1:].replace("Exception Group ", "", 1), False))
    return main, subs


class _Parser:
    """The states of one pass: outside, inside a traceback, inside a rich box or an IPython report."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.traces: list[Trace] = []
        self.open: Trace | None = None
        self.link: str | None = None
        self.quoted = False
        self.style = "plain"
        self.boxed = False
        self.half = ""

    def run(self, sequence: Iterable[tuple[int, str, bool]]) -> list[Trace]:
        for index, text, group in sequence:
            if len(self.traces) > MAX_TRACES:
                del self.traces[: MAX_TRACES // 2]
            self._take(index, text, group=group)
        self._close()
        return self.traces

    def _take(self, index: int, text: str, *, group: bool) -> None:
        if HEADER in text:
            self._start(index, text, group=group)
        elif (self.style == "rich" and self.open is not None and self._rich(index, text)) or (
            self.style == "ipython" and self.open is not None and self._ipython(index, text)
        ):
            pass
        elif 'File "' in text and (match := _FRAME.match(text)):
            self._frame(index, text, match)
        elif CHAINED_DURING in text or CHAINED_CAUSE in text:
            self._close()
            self.link = CHAINED_CAUSE if CHAINED_CAUSE in text else CHAINED_DURING
        elif self.open is not None:
            self._inside(index, text)
        else:
            self._outside(index, text)

    def _start(self, index: int, text: str, *, group: bool) -> None:
        # asyncio in debug mode puts the stack of a task's creation between its words and the traceback
        created = self.open.before if self.open is not None and not self.open.headed else ()
        if any(_CREATED.search(line) for line in created):
            self.open = None
        else:
            created = ()
            self._close()
        head = text.split(HEADER, 1)[0]
        self._begin(index, len(text) - len(text.lstrip()))
        assert self.open is not None
        self.open.headed, self.open.group = True, group
        self.open.before = created or self.open.before
        self.style, self.boxed = "plain", False
        if _RICH_TOP.match(text):
            self.style, self.boxed = "rich", True
        elif match := _IPYTHON_TOP.match(text):
            self.style = "ipython"
            self.open.source = f"raise {match['type']}("
        elif head.strip():
            self.open.before = (head.strip(), *self.open.before)

    def _begin(self, index: int, indent: int) -> None:
        trace = Trace(first=index, last=index, indent=indent, before=self._before(index))
        if self.link is not None and self.traces:
            trace.link, trace.above = self.link, self.traces[-1]
        trace.remote = self.quoted or any(_REMOTE.search(line) for line in trace.before[:2])
        self.link = None
        self.open = trace

    def _before(self, index: int) -> tuple[str, ...]:
        floor = self.traces[-1].last if self.traces else -1
        found: list[str] = []
        for above in range(index - 1, max(floor, index - 6), -1):
            if self.lines[above].strip():
                found.append(self.lines[above].strip())
            if len(found) == 3:
                break
        return tuple(found)

    def _frame(self, index: int, text: str, match: re.Match[str]) -> None:
        indent = len(text) - len(text.lstrip())
        if self.open is None:
            last = self.traces[-1] if self.traces else None
            after_ray = last is not None and "RayTaskError" in (last.type or "")
            self._begin(index, indent)
            assert self.open is not None
            if after_ray and last is not None and index - last.last <= 3:
                self.open.above, self.open.link, self.open.remote = last, "remote", True
        assert self.open is not None
        self.style = "plain"
        self.open.indent = indent
        self.open.last = index
        self.open.frames.append(Frame(match["file"], int(match["line"]), match["function"]))

    def _inside(self, index: int, text: str) -> None:
        trace = self.open
        assert trace is not None
        stripped = text.strip()
        if not stripped:
            return
        indent = len(text) - len(text.lstrip())
        match = _EXCEPTION.match(stripped)
        if indent > trace.indent and trace.frames:
            if _RAISES.match(stripped) or not stripped.startswith(("^", "~", "...<", "[Previous line")):
                trace.source = stripped
            trace.last = index
        elif match is not None and looks_like_exception(match["type"], colon=":" in stripped[: match.end("type") + 1]):
            trace.type, trace.message, trace.last = match["type"], (match["message"] or "").strip(), index
            self._close()
        else:
            trace.strangers += 1
            if trace.strangers > MAX_STRANGERS:
                self._close()

    def _outside(self, index: int, text: str) -> None:
        if text.strip() == '"""':
            self.quoted = not self.quoted and index > 0 and bool(_REMOTE.search(self.lines[index - 1]))
        last = self.traces[-1] if self.traces else None
        if last is not None and last.type is not None and text.strip() and index - last.last <= 12 and len(last.more) < 12:
            last.more.append(text.strip()[:1000])

    def _close(self) -> None:
        if self.open is not None and (self.open.frames or self.open.type or self.open.headed):
            self.traces.append(self.open)
        self.open = None
        self.style, self.boxed, self.half = "plain", False, ""

    def _rich(self, index: int, text: str) -> bool:
        trace = self.open
        assert trace is not None
        if _RICH_END.match(text):
            self.boxed = False
            trace.last = index
            trace.indent = 0
            return True
        if not self.boxed:
            return False
        inner = text.strip().strip("│|").strip()
        joined = self.half + inner
        if match := _RICH_FRAME.match(joined) or _RICH_FRAME.match(inner):
            trace.frames.append(Frame(match["file"], int(match["line"]), match["function"]))
            self.half = ""
        elif match := _RICH_UNNAMED.match(inner):
            trace.frames.append(Frame("<string>", int(match["line"]), match["function"]))
        elif inner.startswith("❱") or inner[:1].isdigit() or not inner:
            self.half = ""
            if inner.startswith("❱"):
                trace.source = inner.lstrip("❱ 0123456789│|")
        elif inner.startswith(("/", "~", "<")):
            self.half = inner
        trace.last = index
        return True

    def _ipython(self, index: int, text: str) -> bool:
        trace = self.open
        assert trace is not None
        if match := _IPYTHON_FRAME.match(text):
            fields = {name: value for name, value in match.groupdict().items() if value}
            file = fields.get("file") or fields.get("cell") or fields.get("input") or fields.get("old") or ""
            line = fields.get("line") or fields.get("cell_line")
            function = next((value for name, value in fields.items() if name.endswith("function")), "<module>")
            trace.frames.append(Frame(file, None if line is None else int(line), function.strip()))
            trace.last = index
            return True
        if (arrow := _IPYTHON_ARROW.match(text)) and trace.frames:
            trace.frames[-1].line = int(arrow["line"])
            trace.source = text[arrow.end() :].strip() or trace.source
            trace.last = index
            return True
        trace.indent = 0
        return False


def raised_in_source(trace: Trace) -> str | None:
    """The exception that the last line of source raises, for a traceback cut before its last line."""
    match = _RAISES.match(trace.source)
    return match["type"] if match else None
