"""What programs in other languages say last: Perl, Lua, R, Julia, Dart, Erlang and Elixir, Haskell, OCaml, Swift, bash.

Each has one form that it prints only when it ends, so each is one pattern here.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_UNCAUGHT = "exception/uncaught"
_FORMS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (cause, needle, late(pattern))
    for cause, needle, pattern in (
        (
            "drift/missing-library",
            "in @INC",
            r"^Can't locate (?P<library>\S{1,200}) in @INC[^\n]{0,2000}? at (?P<file>\S{1,400}) line (?P<line>\d{1,9})",
        ),
        ("oom/runtime-heap", "Out of memory", r"^(?P<message>Out of memory(?:!| in perl:[^\n]{0,80}))"),
        (_UNCAUGHT, "lua", r"^lua[\w.]{0,8}: (?P<file>[^:\n]{1,300}):(?P<line>\d{1,9}): (?P<message>[^\n]{1,600})$"),
        (_UNCAUGHT, "Execution halted", r"^(?P<message>Execution halted)$"),
        (_UNCAUGHT, "ERROR: ", r"^(?:ERROR: )?LoadError: (?P<message>[^\n]{1,600})$"),
        (_UNCAUGHT, "Unhandled exception:", r"^Unhandled exception:$"),
        ("oom/runtime-heap", "alloc: Cannot", r"(?P<message>\w{1,20}_alloc: Cannot (?:re)?allocate \d{1,20} bytes of memory)"),
        (_UNCAUGHT, "init terminating", r"(?P<message>init terminating in [^\n]{1,300})"),
        (_UNCAUGHT, "** (", r"^\*\* \((?P<type>[A-Z][\w.]{1,120}|exit)\) (?P<message>[^\n]{1,600})$"),
        (_UNCAUGHT, "Kernel pid terminated", r"(?P<message>Kernel pid terminated \([^\n]{1,200})"),
        ("oom/runtime-heap", "heap overflow", r"^(?P<message>[\w./-]{1,120}: [Hh]eap (?:overflow|exhausted)[^\n]{0,80})"),
        ("exception/uncaught", "Fatal error: exception", r"^Fatal error: exception (?P<message>[^\n]{1,600})$"),
        (
            "exception/panic",
            "Fatal error: ",
            r"^(?P<file>[\w./-]{1,300}\.swift):(?P<line>\d{1,9}): Fatal error: (?P<message>[^\n]{1,600})$",
        ),
        (
            "exception/panic",
            "Fatal error: ",
            r"^Fatal error: (?P<message>[^\n]{1,600}?): file (?P<file>[^\s,]{1,300}), line (?P<line>\d{1,9})$",
        ),
        ("exception/panic", "panic: ", r"^thread \d{1,12} panic: (?P<message>[^\n]{1,600})$"),
    )
)


def read(passage: Passage) -> Iterator[Mark]:
    """The first form that fits."""
    for cause, needle, pattern in _FORMS:
        if needle not in passage.text and needle != "ERROR: ":
            continue
        for index, line in enumerate(passage.lines):
            match = pattern.search(line.text)
            if match is None:
                continue
            fields = {name: value for name, value in match.groupdict().items() if value}
            facts: dict[str, object] = dict(fields)
            if "line" in fields:
                facts["line"] = int(fields["line"])
            if "type" in fields:
                facts["exception_type"] = facts.pop("type")
            said = fields.get("message") or line.text
            if not fields and index + 1 < len(passage.lines):
                said = passage.lines[index + 1].text.strip()
                facts["message"] = said
            named = (cause_in(said) or cause) if cause.startswith("exception/") else cause
            yield Mark(
                reading=Reading(
                    reader="scripts",
                    suggests=named,
                    says=f"the program ended: {said}"[:500],
                    culprit=said[:500],
                    facts=facts,
                    excerpt=passage.excerpt(index, index + 6),
                ),
                weight=Weight.ENDING if named == _UNCAUGHT else Weight.FATAL,
                first=index,
                last=index,
            )
            return
