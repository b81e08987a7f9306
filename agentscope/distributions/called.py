"""Which package of Node gives the name that was called and is no function: read off the source of the line that failed.

Only what cannot be read in two ways is told: the name is bound once in the file, by a `require` or an `import` of a package, and is
given to nothing else there. The file is read as text; nothing of it is run.
"""

import re
from contextlib import suppress

from agentscope.symbols.rooted import read_regular, state_of

SOURCE_LIMIT_BYTES = 128 << 10
LINE_LIMIT = 1000
# V8's words (messages: kCalledNonCallable, kNotConstructor); "(0 , uuid_1.v4)" is how TypeScript writes a call of an import.
_NO_FUNCTION = re.compile(
    r"^(?:TypeError: )?(?:\(0 ?, ?(?P<module>[A-Za-z_$][\w$]{0,80})\.[\w$]{1,80}\)|(?P<name>[A-Za-z_$][\w$]{0,80})) is not a (?:function|constructor)"
)
_PACKAGE = r"['\"](?P<package>(?:@[a-z0-9][\w.-]{0,80}/)?[a-z0-9][\w.-]{0,80})(?:/[\w./-]{0,200})?['\"]"
_REQUIRE = rf"(?:__import\w{{1,20}}\(\s{{0,4}})?require\(\s{{0,4}}{_PACKAGE}\s{{0,4}}\)"
# Comments that can be nothing else: whole lines, and what follows the end of a statement.
_COMMENT = re.compile(r"^[ \t]{0,200}(?://|/\*|\* |\*/)[^\n]*|;[ \t]{0,200}//[^\n]*", re.MULTILINE)


def called_package(file: str, line: int, message: str, *, before_ns: int, root: str | None = None) -> str | None:
    """The package whose export was called at a line of a file, if that stood there already at `before_ns` (ns since 1970); else None."""
    found = _NO_FUNCTION.match(message)
    if found is None or not file.startswith("/"):
        return None
    with suppress(OSError):
        if state_of(file, root=root).st_ctime_ns > before_ns:
            return None  # its author changed it as well: then that may be the reason
        raw = read_regular(file, root=root, limit_bytes=SOURCE_LIMIT_BYTES, follow=True)
        return bound_to(raw.decode("utf-8", "replace"), line, found["module"] or found["name"])
    return None


def bound_to(source: str, line: int, name: str) -> str | None:
    """The package that a name is bound to in a source, where it is called at this line and bound nowhere else."""
    word = rf"(?<![\w$.]){re.escape(name)}(?![\w$])"
    lines = source.split("\n")
    if not 0 < line <= len(lines) or not re.search(rf"{word}\s{{0,4}}[.(]|\.{re.escape(name)}\(", lines[line - 1][:LINE_LIMIT]):
        return None
    code = _COMMENT.sub(";", source)
    whole = re.compile(
        rf"(?:const|let|var)\s{{1,8}}{re.escape(name)}\s{{0,8}}=\s{{0,8}}{_REQUIRE}|import\s{{1,8}}(?:\*\s{{1,8}}as\s{{1,8}})?{re.escape(name)}\s{{1,8}}from\s{{0,8}}{_PACKAGE.replace('package', 'imported')}"
    )
    part = re.compile(rf"(?:const|let|var)\s{{0,8}}\{{(?P<names>[^{{}}]{{1,400}})\}}\s{{0,8}}=\s{{0,8}}{_REQUIRE}")
    bindings = [(match.span(), match["package"] or match["imported"]) for match in whole.finditer(code)]
    bindings += [
        (match.span(), match["package"])
        for match in part.finditer(code)
        if re.search(rf"{word}\s{{0,8}}(?:,|$)", match["names"])
    ]
    if len(bindings) != 1:
        return None
    (start, end), package = bindings[0]
    rest = f"{code[:start]};{code[end:]}"
    # elsewhere it may only be called, or asked for a part of it: as a parameter or on the left of "=" it would be another
    used = sum(1 for _ in re.finditer(rf"{word}\s{{0,4}}(?:\(|\.(?!\.))", rest))
    declared = re.search(rf"(?:function\*?|class|const|let|var)\s{{1,8}}{re.escape(name)}(?![\w$])", rest)
    return package if declared is None and used == sum(1 for _ in re.finditer(word, rest)) else None
