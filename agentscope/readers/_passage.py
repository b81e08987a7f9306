"""The shared first step of every reader: bounded, plain lines out of whatever was pasted, followed or captured.

A passage is hostile text. At most its last 256 KiB, its last 8192 lines and 4 KiB of a line are read, control sequences are
dropped, and the prefixes that loggers, supervisors and terminals put before a line are taken off and kept beside it: /dev/kmsg
(Documentation/ABI/testing/dev-kmsg), printk times and caller ids, `dmesg -T` in any language, syslog (RFC 3164), RFC 3339,
docker compose, CRI and json-file logs, Ray and vLLM worker tags, loguru, glog, Python's logging and gunicorn.
Every pattern here is anchored and bounded, so the cost is linear in the text.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Literal

import msgspec

from agentscope.model import Value
from agentscope.readers._late import late

MAX_TEXT = 256 * 1024
MAX_LINE = 4096
MAX_LINES = 8192
MAX_PREFIXES = 8

Level = Literal["debug", "info", "warning", "error", "critical"]

_LEVELS: dict[str, Level] = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "NOTICE": "info",
    "SUCCESS": "info",
    "WARN": "warning",
    "WARNING": "warning",
    "ERROR": "error",
    "SEVERE": "error",
    "EXCEPTION": "error",
    "CRITICAL": "critical",
    "FATAL": "critical",
    "I": "info",
    "W": "warning",
    "E": "error",
    "F": "critical",
}
_NAMES = r"TRACE|DEBUG|INFO|NOTICE|SUCCESS|WARN|WARNING|ERROR|SEVERE|EXCEPTION|CRITICAL|FATAL"

_ESCAPES = late(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)?|[@-Z\\^_]|[()][0-9A-B])")
_CONTROLS = late(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_NEWLINES = late(r"\r\n|\n|\r|\x85|\u2028|\u2029")

# Each pattern may name groups: level, origin (syslog identifier), service (compose or worker name), stamp (a time was there);
# one with `stamped` holds only after a time, else it would eat the words of a program.
_PREFIXES = tuple(
    late(pattern)
    for pattern in (
        r"\d{1,5},\d{1,20},\d{1,20},[^;\s]{1,64};",
        r"<\d{1,3}>",
        r"\[ {0,8}\+?\d{1,9}\.\d{1,9}\] ?(?:\[ {0,8}[TC]\d{1,9}\])?:? ?",
        r"\s{0,4}(?P<stamp>\[[^\[\]]{0,48}\d{1,2}:\d\d[^\[\]]{0,48}\]) ?(?:\[(?P<level>" + _NAMES + r")\] )?",
        (
            r"(?P<stamp>\s{0,4}\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?: ?Z| ?[+-]\d\d:?\d\d)?(?=[\s|:\]-]|$)) ?"
            r"(?:(?:stdout|stderr) [FP] )?"
        ),
        (
            r"(?P<stamp>\s{0,4}[^\s\d\[\]|:]{2,6}\.?\s{1,2}\d{1,2}|\s{0,4}\d{1,2}[^\s\d\[\]|:.-]{1,4}\s{1,2}\d{1,2}) "
            r"\d\d:\d\d:\d\d(?:\.\d{1,9})? "
            r"(?:[\w.-]{1,64} (?P<origin>kernel|[\w.@()/-]{1,64}(?=\[\d{1,9}\]))(?:\[\d{1,9}\])?: )?"
        ),
        r"(?P<stamp>\s{0,4}\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)(?: |$)",
        r"(?:[\w.-]{1,64} )?(?P<origin>kernel): ",
        r"(?P<stamped>)[\w.-]{1,64} (?P<origin>[\w.@()/-]{1,64})\[\d{1,9}\]: (?!segfault|unhandled|undefined inst)",
        r"\((?P<service>[\w.:/ -]{0,64}pid=\d{1,10}(?:, ip=[\d.]{1,40})?)\) ?",
        r"\[(?P<service>rank\d{1,5}|default\d{1,5}|(?:DP|TP|PP|EP)\d{1,4}(?: (?:DP|TP|PP|EP)\d{1,4}){0,3}|pod/[\w./-]{1,200})\]:? ?",
        r"\[\d{1,10}\] (?=\[(?:" + _NAMES + r")\])",
        r"(?P<level>" + _NAMES + r") \d\d-\d\d \d\d:\d\d:\d\d \[?[\w./-]{1,120}:\d{1,6}\] ?",
        r"(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d{1,9}\s{1,8}\d{1,10} [\w./-]{1,120}:\d{1,6}\] ?",
        r"\s?\| (?P<level>" + _NAMES + r")\s{0,8}\| [\w.<>]{1,120}:[\w<>]{1,80}:\d{1,6} - ",
        r"(?P<level>" + _NAMES + r"):(?!\w[\w.+-]{0,80}\.\w{1,4}:\d)(?:[\w.]{1,80}:)?(?: {0,9}(?=\S)|$)",
        r"\[\s{0,4}(?P<level>" + _NAMES + r")\s{0,4}\](?:\[\w{1,40}\])? ?",
        r"[ -]{0,3}\[?[\w.:/-]{0,80}\]? ?- (?P<level>" + _NAMES + r") - ",
        r"(?P<service>(?!(?:" + _NAMES + r")\b)[A-Za-z0-9][\w.-]{0,62})\s{0,24}\|(?: |$)",
    )
)


@cache
def _named() -> tuple[tuple[re.Pattern[str], frozenset[str]], ...]:
    """The prefixes, each with the names of its groups."""
    return tuple((pattern, frozenset(pattern.groupindex)) for pattern in _PREFIXES)


_AFTER_STAMP = late(
    r"\s{0,4}(?:\[[\w .#:/-]{1,60}\]\s{1,4})?(?P<level>(?!FATAL ERROR)(?:" + _NAMES + r"))(?=[\s\[:])[\s:]{1,8}", re.ASCII
)
_CALM_WORD = late(r"(?P<level>INFO|DEBUG|TRACE|info|debug|verbose)(?:: |\s|\t)")
_LEVEL_FIELD = late(r"""(?:"level"\s{0,2}:\s{0,2}"|\blevel=|"severity"\s{0,2}:\s{0,2}")(?P<level>[A-Za-z]{4,9})\b""")
_TAG = late(r"\[[^\[\]\s][^\[\]]{0,40}\]:? ")
_ACCESS = late(r'"(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) [^"]{0,512}" [1-5]\d\d\b')
_ENDING = late(
    r"shut|exit|terminat|stopp|kill|died|\bdead\b|abort|fail|crash|restart|respawn|finish|clos|tear|clean|boot|bye|SIG[A-Z]{2}"
    r"|signal|disconnect|unreachable|trace|core dump|interrupt",
    re.IGNORECASE,
)


class Line(Value, frozen=True):
    """One line: `text` is what was said, `prefix` what stood before it.

    `level` is set where a logger wrote it, `origin` is a syslog identifier, `service` the compose service or worker.
    """

    text: str
    prefix: str = ""
    level: Level | None = None
    origin: str | None = None
    service: str | None = None

    @property
    def calm(self) -> bool:
        """Whether this is a line of ordinary work: a program that writes it is alive and not on its way out."""
        if self.origin == "kernel":
            return False
        if self.level in ("debug", "info"):
            return bool(self.text.strip()) and not _ENDING.search(self.text)
        return " HTTP/" in self.text and _ACCESS.search(self.text) is not None


class Passage(Value, frozen=True):
    """A bounded text as lines; `text` is all of them without prefixes, `kind` where it came from (None: not known).

    `last_calm` is the index of the last line of ordinary work of each service.
    """

    lines: tuple[Line, ...]
    text: str
    kind: str | None = None
    last_calm: dict[str | None, int] = {}

    def has(self, *words: str) -> bool:
        """Whether any of these words stands anywhere in it: cheap, so that a reader can give up early."""
        return any(word in self.text for word in words)

    def excerpt(self, first: int, last: int) -> str:
        """Lines `first` to `last`, at most 24 of them: the start and the end of a long stretch."""
        chosen = [line.text[:400] for line in self.lines[first : last + 1]]
        if len(chosen) > 24:
            chosen = [*chosen[:8], "...", *chosen[-15:]]
        return "\n".join(chosen)

    def goes_on_after(self, index: int) -> bool:
        """Whether the same service writes lines of ordinary work after line `index`: what stood there did not end it."""
        return self.last_calm.get(self.lines[index].service, -1) > index

    def numbered(self, *words: str) -> Iterator[tuple[int, str]]:
        """Index and text of every line that holds one of `words`."""
        for index, line in enumerate(self.lines):
            if any(word in line.text for word in words):
                yield index, line.text

    @property
    def prefix(self) -> str | None:
        """The prefix that most lines share, if they do."""
        counts = Counter(line.prefix for line in self.lines if line.prefix)
        if not counts:
            return None
        prefix, count = counts.most_common(1)[0]
        return prefix if count * 2 > len(self.lines) else None


def passage_of(text: str, kind: str | None = None) -> Passage:
    """The passage that this text is."""
    raw = [_plain(line) for line in _NEWLINES.split(text[-MAX_TEXT:])[-MAX_LINES:]]
    tag = _common_tag(raw)
    lines = tuple(_line(line, tag) for line in raw)
    last_calm = {line.service: index for index, line in enumerate(lines) if line.calm}
    return Passage(lines=lines, text="\n".join(line.text for line in lines), kind=kind, last_calm=last_calm)


def plain_text(text: str) -> str:
    """The same bounded text with nothing taken off but control sequences."""
    return "\n".join(_plain(line) for line in _NEWLINES.split(text[-MAX_TEXT:])[-MAX_LINES:])


def _plain(line: str) -> str:
    line = line[:MAX_LINE]
    if line.startswith('{"log":') or (line.startswith("{") and '"stream":"std' in line):
        line = _json_file_line(line)
    if "\x1b" in line:
        line = _ESCAPES.sub("", line)
    return _CONTROLS.sub("", line).rstrip()


def _json_file_line(line: str) -> str:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    inner = record.get("log") if isinstance(record, dict) else None
    return inner.split("\n", 1)[0] if isinstance(inner, str) else line


def _common_tag(raw: list[str]) -> str | None:
    """A bracketed tag such as `[api] ` that stands before more than half of the lines: then it is a prefix, not content."""
    matches = (_TAG.match(line) for line in raw)
    counts = Counter(match.group() for match in matches if match)
    if not counts:
        return None
    tag, count = counts.most_common(1)[0]
    return tag if count >= 3 and count * 2 > sum(1 for line in raw if line) else None


def _line(raw: str, tag: str | None) -> Line:
    if not raw:
        return Line(text="")
    position = 0
    level: str | None = None
    origin: str | None = None
    service: str | None = None
    stamped = False
    if tag is not None and raw.startswith(tag):
        position = len(tag)
        service = tag.strip("[]: ")
    for _ in range(MAX_PREFIXES):
        found = _next_prefix(raw, position, stamped=stamped, origin_known=origin is not None)
        if found is None:
            break
        match, names = found
        position = match.end()
        stamped = stamped or "stamp" in names
        level = (match["level"] if "level" in names else None) or level
        origin = (match["origin"] if "origin" in names else None) or origin
        service = (match["service"] if "service" in names else None) or service
    rest = raw[position:]
    if level is None and stamped and (match_level := _AFTER_STAMP.match(rest)):
        level = match_level["level"]
        position += match_level.end()
        rest = raw[position:]
    if level is None and (word := _CALM_WORD.match(rest)):
        level = "DEBUG" if word["level"] == "verbose" else word["level"].upper()
    if level is None and (field := _LEVEL_FIELD.search(rest[:512])):
        level = field["level"].upper()
    return Line(text=rest, prefix=raw[:position], level=_LEVELS.get(level or ""), origin=origin, service=service)


def _next_prefix(raw: str, position: int, *, stamped: bool, origin_known: bool) -> tuple[re.Match[str], frozenset[str]] | None:
    for pattern, names in _named():
        if "stamped" in names and (not stamped or origin_known):
            continue
        match = pattern.match(raw, position)
        if match is not None and match.end() > position:
            return match, names
    return None
