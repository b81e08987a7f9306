"""Which packages stand in the node_modules folders of a program.

Each package is asked by its own package.json: npm's hidden lock file (node_modules/.package-lock.json) says what npm meant to
install, not what stands there, and pnpm and yarn have none.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import msgspec

from agentscope.distributions import NodePackage, plain
from agentscope.symbols.remembered import Remembered, identity_of, settled
from agentscope.symbols.rooted import directory, read_in

PACKAGES_LIMIT = 4000
FOLDERS_LIMIT = 8
NESTED_LIMIT = 400
PACKAGE_LIMIT_BYTES = 1 << 20

_known: Remembered[NodePackage] = Remembered(20_000)


class _Described(msgspec.Struct):
    name: str = ""
    version: str = ""


def node_packages(folders: tuple[str, ...], *, root: str | None = None) -> tuple[tuple[NodePackage, ...], int]:
    """The packages of these node_modules folders and of those nested in them, sorted by folder; how many were left out."""
    found: dict[str, NodePackage] = {}
    left_out = 0
    waiting = list(folders[:FOLDERS_LIMIT])
    nested = 0
    while waiting:
        folder = waiting.pop(0)
        for package in _of_folder(folder, root):
            if len(found) >= PACKAGES_LIMIT:
                left_out += 1
                continue
            found.setdefault(package.folder, package)
            if package.nested and nested < NESTED_LIMIT:
                nested += 1
                waiting.append(f"{package.folder}/node_modules")
    return tuple(found[folder] for folder in sorted(found)), left_out


def _of_folder(folder: str, root: str | None) -> Iterator[NodePackage]:
    try:
        with directory(folder, root=root) as opened:
            for name in _names_in(opened):
                with suppress(OSError):
                    package = _package(opened, folder, name, root)
                    if package is not None:
                        yield package
    except OSError:
        return


def _names_in(opened: int) -> tuple[str, ...]:
    """Names of packages in a node_modules folder; those of a scope with it, as "@scope/name"."""
    names: list[str] = []
    with os.scandir(opened) as entries:
        tops = sorted(
            entry.name for entry in islice(entries, PACKAGES_LIMIT) if entry.name[:1] != "." and entry.name.isprintable()
        )
    for name in tops:
        if not name.startswith("@"):
            names.append(name)
            continue
        with suppress(OSError):
            scope = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened)
            try:
                with os.scandir(scope) as entries:
                    scoped = [entry.name for entry in islice(entries, PACKAGES_LIMIT) if entry.name.isprintable()]
                names.extend(f"{name}/{inner}" for inner in scoped)
            finally:
                os.close(scope)
    return tuple(names[:PACKAGES_LIMIT])


def _package(opened: int, folder: str, name: str, root: str | None) -> NodePackage | None:
    where = f"{folder}/{name}"
    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        return None
    with directory(where, root=root) as inside:  # pnpm's packages are links to its store
        described = os.stat("package.json", dir_fd=inside, follow_symlinks=False)
        key = (where, identity_of(described))
        known = _known.get(key)
        if known is not None:
            return known
        raw, _ = read_in(inside, "package.json", limit_bytes=PACKAGE_LIMIT_BYTES)
        try:
            package = msgspec.json.decode(raw, type=_Described)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        nested = False
        with suppress(OSError):
            nested = stat.S_ISDIR(os.stat("node_modules", dir_fd=inside, follow_symlinks=False).st_mode)
        # npm sets mtime to 1985 so that archives are the same everywhere; ctime is when it was put here
        read = NodePackage(
            name=plain(package.name or name),
            version=plain(package.version) or "?",
            folder=where,
            wall_ns=described.st_ctime_ns,
            nested=nested,
        )
        return _known.put(key, read) if settled(described.st_ctime_ns) else read
