"""The dynamic loader refuses to start or to go on: glibc's ld.so and musl's.

Sources: elf/dl-error-skeleton.c, elf/dl-load.c and elf/dl-version.c of glibc; ldso/dynlink.c of musl. The same words are
harmless where a program says that it goes on without: `LD_PRELOAD ... ignored`, an optional plugin that is not found.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

# Each form is found by its words; the program stands in front of them, the rest is matched behind them.
_MISSING = late(r"error while loading shared libraries: ?(?P<library>[^:\n]{1,400}): ?(?P<why>[^\n]{0,200})")
_VERSION = late(r"version [`'\"](?P<version>[\w.]{1,64})['`\"] not found(?: ?\(required by (?P<required_by>[^)\n]{1,400})\))?")
_LOOKUP = late(
    r"(?:symbol lookup|relocation) error: ?(?P<library>[^:\n]{1,400}): ?(?:undefined symbol|symbol) ?:? ?(?P<symbol>[\w@$.]{1,600})"
    r"(?:,? version (?P<version>[\w.]{1,64}))?"
)
_MUSL_LIBRARY = late(
    r"Error loading shared library (?P<library>[^:\n]{1,400}): ?(?P<why>[^(\n]{1,120})(?:\(needed by (?P<required_by>[^)\n]{1,400})\))?$"
)
_MUSL_SYMBOL = late(r"Error relocating (?P<program>[^:\n]{1,400}): ?(?P<symbol>[\w@$.]{1,600}): ?symbol not found")
_NO_INTERPRETER = late(r"cannot execute: required file not found|bad interpreter: (?:No such file|[^\n]{0,200}no such file)")
_INCONSISTENT = late(r"Inconsistency detected by ld\.so: [^\n]{1,300}")
_LOADED = late(
    r"(?P<library>/[^\s:()'\"]{1,400}): (?:undefined symbol: (?P<symbol>[\w@$.]{1,600})|cannot open shared object file|(?P<abi>wrong ELF class|invalid ELF header))"
)
_INSISTS = late(r"\[emerg\]|[Cc]annot load|[Cc]ould not load|Error: |failed to load|unable to load|dlopen\(\)")
_HARMLESS = late(
    r"LD_PRELOAD|ignored|INFO|[Pp]lugin|WARN|[Ww]arning|[Ss]kipp|[Ff]ailed to load module|[Oo]ptional|falling back|Could not load dynamic library"
    r"|dlerror|non-fatal|disabled|DEBUG"
)
_WORDS = (
    *("shared librar", "not found", "lookup error", "relocation error", "Error relocating", "cannot open shared object"),
    *("symbol not found", "undefined symbol", "wrong ELF class", "required file not found"),
    *("bad interpreter", "kernel too old", "Inconsistency detected", "invalid ELF header"),
)
_OF_PYTHON = late(r"^\s{0,8}[A-Za-z_][\w.]{0,200}(?:Error|Exception)\b")


def read(passage: Passage) -> Iterator[Mark]:
    """One mark for each program that the loader refused, with all that it misses."""
    if not passage.has(*_WORDS):
        return
    by_program: dict[str, Mark] = {}
    for index, text in passage.numbered(*_WORDS, "Error loading"):
        following = passage.lines[index + 1].text.strip() if index + 1 < len(passage.lines) else ""
        whole = f"{text.strip()} {following}" if text.rstrip().endswith(":") else text.strip()
        if _OF_PYTHON.match(whole):
            continue
        mark = _mark(passage, index, whole)
        if mark is None:
            continue
        earlier = by_program.get(mark.names or "")
        by_program[mark.names or ""] = mark if earlier is None else _together(earlier, mark)
    yield from by_program.values()


def _mark(passage: Passage, index: int, text: str) -> Mark | None:
    cause, facts = _said(text)
    if cause is None:
        return None
    harmless = bool(_HARMLESS.search(text)) or passage.lines[index].level in ("debug", "info", "warning")
    program, library, symbol = facts.get("program"), facts.get("library"), facts.get("symbol")
    versions = facts.get("versions")
    missing = symbol or (versions[0] if isinstance(versions, list) else None) or library
    needed = f" (wanted from {library})" if library and missing != library else ""
    if harmless:
        facts["killed"] = False
    return Mark(
        reading=Reading(
            reader="loader",
            suggests=None if harmless else cause,
            says=f"the loader did not find {missing}{needed}" + (f" for {program}" if program else ""),
            culprit=f"{missing}{needed}",
            facts=facts,
            excerpt=passage.excerpt(index, index),
        ),
        weight=Weight.HARMLESS if harmless else Weight.FATAL,
        first=index,
        last=index,
        names=f"program {program or ''}",
    )


def _said(text: str) -> tuple[str | None, dict[str, object]]:
    """The cause and the facts of one line of the loader; (None, {}) if it is none."""
    if found := _found(text, _VERSION, "version "):
        match, before = found
        facts = _facts(match, "required_by")
        program, _, library = before.rpartition(":")
        facts["library"] = library.strip() or before
        if program.strip():
            facts["program"] = program.strip()
        facts["versions"] = [match["version"]]
        return ("drift/libc-version" if match["version"].startswith(("GLIBC", "CXXABI", "GCC", "LIBC")) else "drift/abi"), facts
    if found := _found(text, _LOOKUP, "symbol lookup error", "relocation error"):
        return "drift/symbol", {**_program(found[1]), **_facts(found[0], "library", "symbol", "version")}
    if found := _found(text, _MISSING, "error while loading shared libraries"):
        why = found[0]["why"]
        cause = "drift/missing-library" if "cannot open" in why or "No such file" in why else "drift/abi"
        if "out of memory" in why or "Cannot allocate" in why or "failed to map segment" in why:
            cause = "oom/runtime-heap"
        return cause, {**_program(found[1]), **_facts(found[0], "library")}
    if found := _found(text, _MUSL_SYMBOL, "Error relocating"):
        return "drift/symbol", {**_facts(found[0], "program", "symbol"), "libc": "musl"}
    if found := _found(text, _MUSL_LIBRARY, "Error loading shared library"):
        needed_by = found[0]["required_by"]
        return "drift/missing-library", {
            **_facts(found[0], "library", "required_by"),
            "libc": "musl",
            **_program(needed_by or ""),
        }
    if found := _found(text, _NO_INTERPRETER, "cannot execute", "bad interpreter"):
        return "drift/missing-library", _program(found[1])
    if "kernel too old" in text and len(text) < 80:
        return "drift/libc-version", {"message": "kernel too old"}
    if inconsistent := _INCONSISTENT.search(text):
        return "drift/abi", {"message": inconsistent.group()[:300]}
    if _INSISTS.search(text) and (loaded := _LOADED.search(text)):
        cause = "drift/symbol" if loaded["symbol"] else "drift/abi" if loaded["abi"] else "drift/missing-library"
        return cause, _facts(loaded, "library", "symbol")
    return None, {}


def _found(text: str, pattern: re.Pattern[str], *words: str) -> tuple[re.Match[str], str] | None:
    """The match at the first of these words, and the text before it without its colon."""
    for word in words:
        at = text.find(word)
        if at >= 0 and (match := pattern.match(text, at)):
            return match, text[:at].strip().removesuffix(":").strip()[-400:]
    return None


def _program(name: str) -> dict[str, object]:
    return {"program": name} if name else {}


def _facts(match: re.Match[str], *names: str) -> dict[str, object]:
    return {name: match[name].strip() for name in names if match[name]}


def _together(earlier: Mark, later: Mark) -> Mark:
    """Two lines about one program as one mark: the first decides, every version that is missing is listed."""
    if later.reading.suggests is None:
        return earlier
    if earlier.reading.suggests is None:
        return later
    facts = dict(earlier.reading.facts)
    versions = [*_versions(earlier), *(version for version in _versions(later) if version not in _versions(earlier))]
    if versions:
        facts["versions"] = versions
    if facts.get("library") != later.reading.facts.get("library") and _versions(later) and _versions(earlier):
        facts.pop("library", None)
    reading = Reading(
        reader="loader",
        suggests=earlier.reading.suggests,
        says=earlier.reading.says,
        culprit=earlier.reading.culprit,
        facts=facts,
        excerpt=f"{earlier.reading.excerpt}\n{later.reading.excerpt}"[:4000],
    )
    return Mark(reading=reading, weight=earlier.weight, first=earlier.first, last=later.last, names=earlier.names)


def _versions(mark: Mark) -> list[str]:
    versions = mark.reading.facts.get("versions")
    return [str(version) for version in versions] if isinstance(versions, list) else []
