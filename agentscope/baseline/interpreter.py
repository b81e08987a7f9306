"""Which Python runs a program, in which venv, and from which folders it takes its distributions; the same for Node.

A venv is found as CPython finds it (Lib/site.py, "pyvenv.cfg" beside the name that it was started by or one folder above it);
nothing is ever asked of the interpreter itself.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from agentscope.baseline import Interpreter
from agentscope.baseline.facts import ProcessFacts, started_with
from agentscope.baseline.mapped import file_state, scan
from agentscope.distributions import plain
from agentscope.distributions.installed import SITES_LIMIT
from agentscope.symbols.rooted import read_regular, resolved, state_of

CONFIG_LIMIT_BYTES = 64 << 10
_PYTHON = re.compile(r"^(?:python|pypy)(\d(?:\.\d{1,2})?)?")
_LIBPYTHON = re.compile(r"^libpython(\d\.\d{1,2})")
_IN_LIBRARY = re.compile(r"^(.*/lib(?:64)?/(?:python|pypy)(\d\.\d{1,2}))(?:/|$)")
_SITE = re.compile(r"^(.*/(?:site|dist)-packages)(?:/|$)")
_NODE = re.compile(r"^(?:node|nodejs|bun|deno)\d*$")
_VERSION = rb"\0(%s\.\d{1,2}(?:(?:a|b|rc)\d{1,2})?\+?)\0"  # PY_VERSION of patchlevel.h, which Py_GetVersion begins with
_ANCESTORS_LIMIT = 8


def interpreter_of(facts: ProcessFacts, mapped: Iterable[str], *, exact: bool = True) -> Interpreter | None:
    """The Python that runs the process, by its program and what it has mapped; None where that is no Python.

    Not `exact`, its version is what names tell ("3.11"): the whole one is read out of megabytes of code.
    """
    paths = list(mapped)
    exe = facts.exe or ""
    named = _PYTHON.match(exe.rpartition("/")[2])
    library = next((path for path in paths if _LIBPYTHON.match(path.rpartition("/")[2])), None)
    if named is None and library is None:
        return None
    short = _short_version(exe, library, paths)
    link = facts.program()
    venv = _venv_of(link, facts, paths)
    config = _config(f"{venv}/pyvenv.cfg", facts.root) if venv else {}
    code = library or exe
    version = scan(code, re.compile(_VERSION % re.escape(short).encode()), root=facts.root) if short and exact else None
    return Interpreter(
        path=plain(exe, 4096),
        version=version or short,
        link=link if link and link.isprintable() else None,
        file=file_state(exe, root=facts.root),
        venv=plain(venv, 4096) if venv else None,
        venv_version=_release(config.get("version") or config.get("version_info")),
        venv_home=plain(config["home"], 4096) if "home" in config else None,
    )


def _short_version(exe: str, library: str | None, paths: Iterable[str]) -> str | None:
    """Such as "3.11": by the library's name, the program's, or the folder that modules are mapped from."""
    if library and (found := _LIBPYTHON.match(library.rpartition("/")[2])):
        return found[1]
    named = _PYTHON.match(exe.rpartition("/")[2])
    if named and named[1] and "." in named[1]:
        return named[1]
    return next((found[2] for path in paths if (found := _IN_LIBRARY.match(path))), None)


def _venv_of(link: str | None, facts: ProcessFacts, paths: Iterable[str]) -> str | None:
    """The folder with pyvenv.cfg: of the name it was started by, else that modules are mapped from, else VIRTUAL_ENV."""
    candidates: list[str] = []
    if link:
        beside = link.rpartition("/")[0]
        candidates += [beside, beside.rpartition("/")[0]]
    for path in paths:
        if (site := _SITE.match(path)) and (library := _IN_LIBRARY.match(site[1])):
            candidates.append(library[1].rpartition("/")[0].rpartition("/")[0])
    if link is None and "VIRTUAL_ENV" in facts.environment:
        candidates.append(facts.environment["VIRTUAL_ENV"])
    for folder in dict.fromkeys(candidates):
        with suppress(OSError):
            if folder.startswith("/") and folder.isprintable() and state_of(f"{folder}/pyvenv.cfg", root=facts.root):
                return folder
    return None


def _config(path: str, root: str | None) -> dict[str, str]:
    """Keys of a pyvenv.cfg."""
    try:
        text = read_regular(path, root=root, limit_bytes=CONFIG_LIMIT_BYTES, follow=True).decode("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines()[:200])
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}


def _release(said: str | None) -> str | None:
    """A version out of pyvenv.cfg: venv writes "3.11.2", virtualenv "3.11.2.final.0"."""
    found = re.match(r"\d{1,2}\.\d{1,3}(?:\.\d{1,3})?", said or "")
    return found[0] if found else None


def sites_of(facts: ProcessFacts, interpreter: Interpreter | None, mapped: Iterable[str]) -> tuple[str, ...]:
    """The folders that distributions of this process can stand in, in the order of its search path."""
    if interpreter is None:
        return ()
    short = ".".join((interpreter.version or "").split(".")[:2])
    found: list[str] = [
        folder for folder in facts.environment.get("PYTHONPATH", "").split(":")[:SITES_LIMIT] if folder.startswith("/")
    ]
    system = True
    if interpreter.venv:
        found += [
            f"{interpreter.venv}/lib/python{short}/site-packages",
            f"{interpreter.venv}/lib64/python{short}/site-packages",
        ]
        config = _config(f"{interpreter.venv}/pyvenv.cfg", facts.root)
        system = config.get("include-system-site-packages", "").lower() == "true"
    found += dict.fromkeys(site[1] for path in mapped if (site := _SITE.match(path)))
    if system:
        found += _system_sites(interpreter.path, short, facts)
    return tuple(_existing(found, facts.root))


def _system_sites(path: str, short: str, facts: ProcessFacts) -> Iterator[str]:
    prefix = path.rpartition("/")[0].rpartition("/")[0]
    base = facts.environment.get("PYTHONUSERBASE") or (f"{facts.home}/.local" if facts.home else None)
    if base and base.startswith("/"):
        yield f"{base}/lib/python{short}/site-packages"
    prefixes = ["/usr/local", "/usr"] if prefix in {"/usr", ""} else [prefix]
    for folder in prefixes:
        for lib in ("lib", "lib64"):
            yield from (f"{folder}/{lib}/python{short}/{name}" for name in ("site-packages", "dist-packages"))
    if prefix in {"/usr", ""}:
        yield "/usr/lib/python3/dist-packages"  # Debian Python Policy, "Module Path"


def _existing(folders: Iterable[str], root: str | None) -> Iterator[str]:
    """Those that exist, once each though links lead to them."""
    seen: set[tuple[int, int]] = set()
    for folder in dict.fromkeys(folders):
        with suppress(OSError):
            status = state_of(folder, root=root)
            if (status.st_dev, status.st_ino) not in seen and len(seen) < SITES_LIMIT and folder.isprintable():
                seen.add((status.st_dev, status.st_ino))
                yield folder


def script_of(facts: ProcessFacts) -> str | None:
    """The script that an interpreter was started with, links followed: the first word that is no option."""
    told = started_with(facts.argv)
    path = facts.absolute(told[0]) if len(told) == 1 and "\0" not in told[0] else None
    if path is not None:
        with suppress(OSError):
            return resolved(path, root=facts.root)
    return None


def node_folders_of(facts: ProcessFacts, mapped: Iterable[str]) -> tuple[str, ...]:
    """The node_modules folders that a Node program looks into (nodejs.org, "Loading from node_modules folders")."""
    if not _NODE.match((facts.exe or "").rpartition("/")[2]):
        return ()
    found: list[str] = []
    for start in (script_of(facts), f"{facts.cwd}/." if facts.cwd else None):
        folder = (start or "").rpartition("/")[0]
        for _ in range(_ANCESTORS_LIMIT):
            if not folder:
                break
            found.append(folder if folder.endswith("/node_modules") else f"{folder}/node_modules")
            folder = folder.rpartition("/")[0]
    found += [folder for folder in facts.environment.get("NODE_PATH", "").split(":")[:8] if folder.startswith("/")]
    found += [f"{path.partition('/node_modules/')[0]}/node_modules" for path in mapped if "/node_modules/" in path]
    return tuple(_existing(found, facts.root))
