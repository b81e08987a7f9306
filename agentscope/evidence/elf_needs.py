"""What the program, or the module that it could not load, needs of shared libraries and does not find."""

from collections.abc import Iterator

from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.last_words import NOT_STARTED, LastWords
from agentscope.evidence.last_words import collect as read_last_words
from agentscope.model import Reading
from agentscope.symbols.elf import ElfProblem
from agentscope.symbols.needs import Needs, Unmet, needs_of

ABSENT = "neither the loader nor an import complained of a library"
READS_FILES = True
MODULES_LIMIT = 4
_NAMES = ("library", "required_by", "program", "module")
_WORDS = (
    "undefined symbol",
    "shared object file",
    "not found (required by",
    "symbol lookup error",
    "GLIBC",
    "invalid ELF header",
)


class ElfNeeds(Evidence, frozen=True, tag="elf-needs"):
    """Needs that nothing on disk meets now: of `program`, and of `modules` that the words name. `files` is how many were read.

    `limited` says why not everything could be read.
    """

    program: str
    modules: tuple[str, ...]
    unmet: tuple[Unmet, ...]
    files: int
    limited: str | None = None

    def says(self) -> str:
        """One sentence for a person."""
        if not self.unmet:
            return f"every library, version and symbol that {self.program} needs is there now ({self.files} files read)"
        more = f", and {len(self.unmet) - 1} more" if len(self.unmet) > 1 else ""
        return f"{self.unmet[0].says()}{more}"

    def about(self, *, symbol: str | None = None, version: str | None = None, library: str | None = None) -> Unmet | None:
        """The unmet need that the loader's words are about."""
        for unmet in self.unmet:
            asked = (
                (symbol, unmet.symbol),
                (version, unmet.version),
                (library.rpartition("/")[2] if library else None, (unmet.library or "").rpartition("/")[2]),
            )
            if all(wanted is None or wanted == found for wanted, found in asked) and (symbol or version or library):
                return unmet
        return None


def loader_readings(scene: Scene) -> tuple[Reading, ...]:
    """The readings in which the loader speaks, itself or through an import that failed."""
    words = read_last_words(scene)
    if not isinstance(words, LastWords):
        return ()
    return tuple(
        reading
        for reading in words.readings
        if reading.reader == "loader" or any(word in f"{reading.facts.get('message', '')}{reading.excerpt}" for word in _WORDS)
    )


def collect(scene: Scene) -> ElfNeeds | Missing | None:
    """From the files themselves, as the loader would look for them; asked only where it complained."""
    readings = loader_readings(scene)
    if not readings or not (scene.exit.code in NOT_STARTED or scene.exit.code):
        return None
    exe = scene.process.exe
    if exe is None:
        return Missing(kind="elf-needs", because="which program it was is not known")
    if scene.installed is not None and not scene.installed.own_root and scene.root is None:
        return Missing(kind="elf-needs", because="it ran in a container that is gone with its files")
    folders = _library_path(scene)
    program = needs_of(exe, root=scene.root, library_path=folders)
    if isinstance(program, ElfProblem):
        return Missing(kind="elf-needs", because=program.says)
    unmet, files, limited = list(program.unmet), len(program.checked), program.limited
    read: list[str] = []
    for module in _modules(readings):
        if len(read) >= MODULES_LIMIT or module in program.checked or module == exe:
            continue
        needs = needs_of(module, root=scene.root, within=exe, library_path=folders)
        if isinstance(needs, Needs):
            read.append(module)
            unmet += [each for each in needs.unmet if each not in unmet]
            files += len(set(needs.checked) - set(program.checked))
            limited = limited or needs.limited
    return ElfNeeds(
        source="the ELF files as they stand now",
        program=exe,
        modules=tuple(read),
        unmet=tuple(unmet[:100]),
        files=files,
        limited=limited,
    )


def _modules(readings: tuple[Reading, ...]) -> Iterator[str]:
    """Files that the words name by a whole path."""
    seen: set[str] = set()
    for reading in readings:
        for name in _NAMES:
            path = str(reading.facts.get(name) or "")
            if path.startswith("/") and path not in seen and len(path) < 4096:
                seen.add(path)
                yield path
        for word in f"{reading.facts.get('message', '')}".split():
            path = word.strip("():;,'\"")
            if path.startswith("/") and ".so" in path and path not in seen and len(path) < 4096:
                seen.add(path)
                yield path


def _library_path(scene: Scene) -> tuple[str, ...]:
    """Folders that libraries came from when it was well: LD_LIBRARY_PATH of a process that is gone cannot be read."""
    known = scene.baseline or scene.installed
    if known is None:
        return ()
    paths = (file.path for file in known.mapped if ".so" in file.path and "-packages/" not in file.path)
    return tuple(dict.fromkeys(path.rpartition("/")[0] for path in paths))[:50]
