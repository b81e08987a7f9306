"""From the words of an exception to the distributions that it can be about.

Three ways lead there: the words name a module or a requirement; the frames of the traceback are in files of a distribution; or it
is one that the innermost of those asks for (`Client.__init__() got an unexpected keyword argument 'proxies'` is said by openai's
own frame, and the one that changed is httpx). Which of them changed is for others to say.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from agentscope.distributions import Distribution, NodePackage, plain
from agentscope.distributions.installed import normal, owner_of_file, owner_of_module, requirements_of
from agentscope.model import Reading, Value

FailureKind = Literal["import", "attribute", "argument", "abi", "requirement", "other"]
Role = Literal["named", "called", "frame", "dependency"]

ACCUSED_LIMIT = 40
FRAMES_LIMIT = 60
TEXT_LIMIT = 16_384

_MODULE = r"([A-Za-z_][\w]{0,80}(?:\.[A-Za-z_]\w{0,80}){0,8})"
_FORMS: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    ("import", re.compile(rf"No module named '?{_MODULE}")),
    ("import", re.compile(rf"cannot import name '?\w{{1,100}}'? from '?{_MODULE}")),
    ("import", re.compile(rf"^(?:ImportError: )?{_MODULE} failed to import", re.MULTILINE)),
    ("attribute", re.compile(rf"module '{_MODULE}' has no attribute")),
    ("abi", re.compile(rf"{_MODULE}\.\w{{1,80}} size changed, may indicate binary incompatibility")),
    ("abi", re.compile(r"compiled (?:using|against|with) (NumPy) ")),
    ("abi", re.compile(rf"compiled against .{{0,60}}{_MODULE} C-API version")),
)
_REQUIRED = re.compile(
    r"([A-Za-z][\w.-]{0,80}(?:\[[\w,]{1,80}\])?) ?((?:[<>=!~]=?=? ?[\w.*+!]{1,40})(?:, ?[<>=!~]=?=? ?[\w.*+!]{1,40}){0,8})(?: is required|' distribution| but | {0,2}$)",
    re.MULTILINE,
)
_MOVED = re.compile(r"moved to the `([A-Za-z][\w.-]{0,80})` package|install(?:ing)? the `?([A-Za-z][\w.-]{0,80})`? package")
_ARGUMENT = re.compile(
    r"\(\) (?:got an unexpected keyword argument|missing \d{1,3} required|takes \d{1,3} positional|got multiple values)"
)
_ABI_WORDS = re.compile(
    r"size changed, may indicate|undefined symbol|ABI version|Descriptors cannot be created directly|cannot be run in"
)
_FRAME = re.compile(r'File "([^"\n]{1,1000})", line \d{1,9}')
_NODE_PLACE = re.compile(r"((?:/[^\s:()'\"]{0,1000})?/node_modules/((?:@[\w.-]{1,80}/)?[\w.-]{1,80}))")
_NODE_MODULE = re.compile(r"Cannot find (?:module|package) '((?:@[\w.-]{1,80}/)?[\w.-]{1,80})")
_CIRCULAR = re.compile(r"partially initialized module|circular import")


class Accused(Value, frozen=True):
    """A distribution that a failure can be about: `version` is the installed one (None: it is not installed).

    `module` is what the words called it by, `required` what was asked of it.
    """

    role: Role
    ecosystem: Literal["python", "node"]
    name: str
    module: str | None = None
    version: str | None = None
    required: str | None = None


class Failure(Value, frozen=True):
    """How a program failed over its packages, and which they can be, the most likely first."""

    failure: FailureKind
    accused: tuple[Accused, ...]


def accused_by(
    reading: Reading,
    text: str,
    now: tuple[Distribution, ...],
    before: tuple[Distribution, ...] = (),
    node: tuple[NodePackage, ...] = (),
    *,
    root: str | None = None,
) -> Failure | None:
    """What an exception is about. `text` is all of the last words, for the frames that the reading's excerpt leaves out.

    `before` are the distributions of the last healthy run: what a module that is gone belonged to, only they know.
    """
    if reading.reader == "node":
        return _node_failure(reading, node)
    if reading.reader != "python":
        return None
    words = f"{reading.facts.get('message') or ''}\n{reading.facts.get('root_message') or ''}\n{reading.excerpt}"[:TEXT_LIMIT]
    if _CIRCULAR.search(words):
        return None
    known = _both(now, before)
    found: dict[tuple[str, str], Accused] = {}
    for accused in (
        *_named(words, reading, known),
        *_framed(_frames(reading, text), known, root),
    ):
        found.setdefault((accused.ecosystem, normal(accused.name)), accused)
    for accused in _dependencies(list(found.values()), known, root):
        found.setdefault((accused.ecosystem, normal(accused.name)), accused)
    installed = {normal(distribution.name): distribution.version for distribution in now}
    told = tuple(
        Accused(
            role=each.role,
            ecosystem=each.ecosystem,
            name=each.name,
            module=each.module,
            version=installed.get(normal(each.name)),
            required=each.required,
        )
        for each in list(found.values())[:ACCUSED_LIMIT]
    )
    return Failure(failure=_kind(words), accused=told)


def _both(now: tuple[Distribution, ...], before: tuple[Distribution, ...]) -> tuple[Distribution, ...]:
    """Those of now, and those of before that are gone, or whose modules were others then."""
    tops = {normal(found.name): set(found.tops) for found in now}
    return (*now, *(found for found in before if not set(found.tops) <= tops.get(normal(found.name), set())))


def _kind(words: str) -> FailureKind:
    if _ABI_WORDS.search(words):
        return "abi"
    for kind, pattern in _FORMS:
        if pattern.search(words):
            return kind
    if _ARGUMENT.search(words):
        return "argument"
    return "requirement" if _REQUIRED.search(words) or _MOVED.search(words) else "other"


def _named(words: str, reading: Reading, known: tuple[Distribution, ...]) -> Iterator[Accused]:
    """What the words name: modules, requirements, packages, and the module that defines the exception's class."""
    for _, pattern in _FORMS:
        for match in pattern.finditer(words):
            yield from _of_module(match[1] if match[1] != "NumPy" else "numpy", known)
    for match in _REQUIRED.finditer(words):
        name = match[1].partition("[")[0]
        # many words stand before a number: only a name that is installed, or was, is a requirement
        owner = next((found for found in known if normal(found.name) == normal(name)), None)
        if owner is not None:
            yield Accused(role="named", ecosystem="python", name=owner.name, required=plain(match[2]))
    for match in _MOVED.finditer(words):
        yield Accused(role="named", ecosystem="python", name=plain(match[1] or match[2]))
    kind = str(reading.facts.get("exception_type") or "")
    if "." in kind:
        for owner in owner_of_module(kind.rpartition(".")[0], known):
            yield Accused(role="named", ecosystem="python", name=owner.name, module=plain(kind))


def _of_module(module: str, known: tuple[Distribution, ...]) -> Iterator[Accused]:
    owners = owner_of_module(module, known)
    for owner in owners:
        yield Accused(role="named", ecosystem="python", name=owner.name, module=module)
    if not owners:
        yield Accused(role="named", ecosystem="python", name=module.partition(".")[0], module=module)


def _frames(reading: Reading, text: str) -> list[str]:
    """Files of the frames, innermost first: of the exception's own traceback where it can be found in the text."""
    last = next((line.strip() for line in reversed(reading.excerpt.splitlines()) if line.strip()), "")
    until = text.rfind(last) if last else -1
    whole = text[: until + len(last)] if until >= 0 else reading.excerpt
    files = _FRAME.findall(whole[-TEXT_LIMIT:])
    return list(dict.fromkeys(reversed(files)))[:FRAMES_LIMIT]


def _framed(files: list[str], known: tuple[Distribution, ...], root: str | None) -> Iterator[Accused]:
    for file in files:
        owner = owner_of_file(file, known, root=root) if file.startswith("/") else None
        if owner is not None:
            yield Accused(role="frame", ecosystem="python", name=owner.name)


def _dependencies(found: list[Accused], known: tuple[Distribution, ...], root: str | None) -> Iterator[Accused]:
    """What the innermost distribution of the traceback asks for, as far as it is or was installed."""
    innermost = next((accused for accused in found if accused.role == "frame"), None)
    owner = next((each for each in known if innermost and normal(each.name) == normal(innermost.name)), None)
    if owner is None:
        return
    names = {normal(each.name): each.name for each in known}
    with suppress(OSError):
        for required in requirements_of(owner, root=root):
            if required in names:
                yield Accused(role="dependency", ecosystem="python", name=names[required])


def _node_failure(reading: Reading, node: tuple[NodePackage, ...]) -> Failure:
    """Packages of Node by the paths of the stack, or by the name that was not found."""
    words = f"{reading.facts.get('message') or ''}\n{reading.excerpt}"[:TEXT_LIMIT]
    found: dict[str, Accused] = {}
    versions = {package.folder: package.version for package in node}
    missing = _NODE_MODULE.search(words)
    if missing:
        found[missing[1]] = Accused(role="named", ecosystem="node", name=missing[1], module=missing[1])
    for folder, name in _NODE_PLACE.findall(words):
        found.setdefault(name, Accused(role="frame", ecosystem="node", name=name, version=versions.get(folder)))
    kind: FailureKind = "abi" if "NODE_MODULE_VERSION" in words else "import" if missing else "other"
    return Failure(failure=kind, accused=tuple(found.values())[:ACCUSED_LIMIT])
