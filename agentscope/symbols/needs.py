"""What a program or an extension module needs of shared libraries, against what stands on disk now: ldd(1) without running it.

The whole closure of needed libraries is read, breadth first as the loader does; then every version and every symbol that a file
of it needs is looked for in the others. A symbol that nobody defines is a fact, not yet a death: the loader may bind it late.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Literal, NamedTuple

from agentscope.model import Value
from agentscope.symbols.dynamic import Dynamic, Reference
from agentscope.symbols.elf import Elf, ElfProblem, open_elf
from agentscope.symbols.libraries import Libraries
from agentscope.symbols.owner import owner_of
from agentscope.symbols.rooted import resolved

UnmetKind = Literal["missing-library", "missing-symbol", "missing-version"]

FILES_LIMIT = 400
UNMET_LIMIT = 200
TIME_LIMIT_S = 4.0


class Unmet(Value, frozen=True):
    """One need that nothing on disk meets.

    `needed_by` is the file that has it; `library` the name that it asks for; `found_at` the file that stands under that name and
    does not have the symbol or version (None: there is none), `provided_by_package` the package that this file came with.
    """

    kind: UnmetKind
    needed_by: str
    library: str | None = None
    symbol: str | None = None
    version: str | None = None
    found_at: str | None = None
    provided_by_package: str | None = None

    def says(self) -> str:
        """One clause for a person."""
        by = self.needed_by.rsplit("/", 1)[-1]
        if self.kind == "missing-library":
            return f"{by} needs {self.library}, which is not there"
        what = (
            f"version {self.version}"
            if self.kind == "missing-version"
            else f"{self.symbol}{f' ({self.version})' if self.version else ''}"
        )
        where = self.found_at or self.library
        if where is None:
            return f"{by} wants {what}, which no library has"
        return f"{by} wants {what}, which {where}{f' from {self.provided_by_package}' if self.provided_by_package else ''} does not have"


class Needs(Value, frozen=True):
    """What was found: `checked` are the files that were read, `limited` why not all could be (None: all were)."""

    unmet: tuple[Unmet, ...]
    checked: tuple[str, ...]
    limited: str | None = None


class _Loaded(NamedTuple):
    """One file of the closure; `names` are those that others may ask for it by, `rpaths` those of the files that loaded it."""

    path: str
    elf: Elf
    dynamic: Dynamic
    names: set[str]
    rpaths: tuple[str, ...]


class _Spent(Exception):
    """It takes too long, or there are too many files."""


def needs_of(
    path: str, *, root: str | None = None, within: str | None = None, library_path: tuple[str, ...] = ()
) -> Needs | ElfProblem:
    """The unmet needs of the file at `path` inside `root`.

    `within` is the program that loads it, where it is a module: symbols of that program and of its libraries count too.
    `library_path` is LD_LIBRARY_PATH of the process.
    """
    with ExitStack() as stack:
        opened = _open(path, root, stack)
        if isinstance(opened, ElfProblem):
            return opened
        program = opened
        if within is not None:
            host = _open(within, root, stack)
            program = host if isinstance(host, Elf) else opened
        search = _Search(Libraries(program, root=root, library_path=library_path), root, stack)
        try:
            if program is not opened:
                search.load(program)
            own = len(search.loaded)
            search.load(opened)
            search.check(own)
            limited = None
        except _Spent as error:
            limited = str(error)
        return Needs(
            unmet=tuple(search.unmet[:UNMET_LIMIT]),
            checked=tuple(_plain(loaded.path) for loaded in search.loaded),
            limited=limited,
        )


def _open(path: str, root: str | None, stack: ExitStack) -> Elf | ElfProblem:
    try:
        real = resolved(path, root=root)
    except OSError as error:
        return ElfProblem(path=path, kind="missing", says=f"{path}: {error.strerror or error}")
    opened = open_elf(real, root=root)
    return stack.enter_context(opened) if isinstance(opened, Elf) else opened


class _Search:
    """The closure as it grows, and what it lacks."""

    def __init__(self, libraries: Libraries, root: str | None, stack: ExitStack) -> None:
        self.loaded: list[_Loaded] = []
        self.unmet: list[Unmet] = []
        self._libraries = libraries
        self._root = root
        self._stack = stack
        self._ends = time.monotonic() + TIME_LIMIT_S
        self._owners: dict[str, str | None] = {}

    def load(self, elf: Elf) -> None:
        """One file and everything that it needs, breadth first."""
        place = len(self.loaded)
        self._keep(elf, set(), ())
        self._interpreter(elf)
        while place < len(self.loaded):
            by = self.loaded[place]
            place += 1
            self._check_time()
            own = tuple(self._libraries.substituted(by.dynamic.rpath, by.path))
            # RPATH counts only where there is no RUNPATH, and then for what is needed further down as well (ld.so(8))
            rpaths = () if by.dynamic.runpath else (*own, *by.rpaths)
            runpath = tuple(self._libraries.substituted(by.dynamic.runpath, by.path))
            for name in by.dynamic.needed:
                if self._known(name) is not None:
                    continue
                found = self._libraries.find(name, rpaths=rpaths, runpath=runpath)
                if found is None:
                    self.unmet.append(Unmet(kind="missing-library", needed_by=_plain(by.path), library=name))
                    continue
                self._stack.enter_context(found)
                self._keep(found, {name}, (*own, *by.rpaths))

    def _keep(self, elf: Elf, names: set[str], rpaths: tuple[str, ...]) -> None:
        if len(self.loaded) >= FILES_LIMIT:
            raise _Spent(f"it needs more than {FILES_LIMIT} files")
        same = next((loaded for loaded in self.loaded if loaded.path == elf.path), None)
        if same is not None:
            same.names.update(names)
            return
        names = names | ({elf.image.soname} if elf.image.soname else set())
        self.loaded.append(_Loaded(elf.path, elf, Dynamic(elf), names, rpaths))

    def _interpreter(self, elf: Elf) -> None:
        loader = elf.image.interpreter
        if loader is None:
            return
        try:
            resolved(loader, root=self._root)
        except OSError:
            self.unmet.append(Unmet(kind="missing-library", needed_by=_plain(elf.path), library=loader))

    def _known(self, name: str) -> _Loaded | None:
        return next((loaded for loaded in self.loaded if name in loaded.names), None)

    def _check_time(self) -> None:
        if time.monotonic() > self._ends:
            raise _Spent(f"it takes longer than {TIME_LIMIT_S:.0f} s")

    def check(self, first: int) -> None:
        """Versions, then symbols, of the files from place `first` on; those before belong to the program that loads them."""
        absent = {unmet.library for unmet in self.unmet}
        broken: set[tuple[str, str]] = set()
        if self._libraries.versioned:
            for loaded in self.loaded[first:]:
                for unmet in self._versions(loaded):
                    broken.add((unmet.library or "", unmet.version or ""))
                    self.unmet.append(unmet)
        wanted = {loaded.path: list(loaded.dynamic.references()) for loaded in self.loaded[first:]}
        names = {reference.name for references in wanted.values() for reference in references}
        defined: dict[bytes, list[tuple[str | None, ...]]] = {}
        for loaded in self.loaded:
            self._check_time()
            for name, versions in loaded.dynamic.definitions(names).items():
                defined.setdefault(name, []).append(versions)
        for path, references in wanted.items():
            for reference in references:
                if len(self.unmet) >= UNMET_LIMIT:
                    return
                lacking = self._symbol(path, reference, defined.get(reference.name, []), absent, broken)
                if lacking is not None:
                    self.unmet.append(lacking)

    def _versions(self, loaded: _Loaded) -> Iterator[Unmet]:
        for need in loaded.dynamic.version_needs:
            library = self._known(need.library)
            if need.weak or library is None or need.version in library.dynamic.versions:
                continue
            # a library without versions is taken as it is, unless it has no indexes either: then the loader stops at an
            # assertion (elf/dl-version.c, match_symbol; elf/dl-lookup.c, check_match)
            if library.dynamic.indexed and not library.dynamic.versions:
                continue
            yield Unmet(
                kind="missing-version",
                needed_by=_plain(loaded.path),
                library=need.library,
                version=need.version,
                found_at=_plain(library.path),
                provided_by_package=self._package(library.path),
            )

    def _symbol(
        self,
        path: str,
        reference: Reference,
        defined: list[tuple[str | None, ...]],
        absent: set[str | None],
        broken: set[tuple[str, str]],
    ) -> Unmet | None:
        need = reference.need if self._libraries.versioned else None
        if need is None:
            # with a library missing, nobody can say what it would have defined
            if defined or absent:
                return None
            return Unmet(kind="missing-symbol", needed_by=_plain(path), symbol=_shown(reference.name))
        if any(version is None or version == need.version for versions in defined for version in versions):
            return None
        if need.weak or need.library in absent or (need.library, need.version) in broken:
            return None
        library = self._known(need.library)
        return Unmet(
            kind="missing-symbol",
            needed_by=_plain(path),
            library=need.library,
            symbol=_shown(reference.name),
            version=need.version,
            found_at=_plain(library.path) if library else None,
            provided_by_package=self._package(library.path) if library else None,
        )

    def _package(self, path: str) -> str | None:
        if path not in self._owners:
            owner = owner_of(path, root=self._root)
            self._owners[path] = str(owner) if owner else None
        return self._owners[path]


def _shown(name: bytes) -> str:
    return _plain(name[:400].decode("utf-8", "replace"))


def _plain(text: str) -> str:
    """A link can lead to a name that would steer a terminal, or that no record could hold."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
