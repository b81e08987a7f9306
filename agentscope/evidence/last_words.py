"""The last words: the tail of what the process wrote to stdout and stderr, and what readers make of it."""

from functools import lru_cache

from agentscope import readers
from agentscope.evidence import Evidence, Missing, Scene
from agentscope.model import Reading

ABSENT = "it wrote nothing before it ended"
KEPT_BYTES = 8192
LINES_AFTER = 12  # lines of clean-up that may follow the words that ended it; after more it had gone on
LONG_PAST_NS = 10_000_000_000  # a runtime ends within this after printing what ended it, exit hooks and slow threads included

# Statuses with which a runtime ends by an error that nobody caught; one that is not named here may exit with any but 0.
# Python: "Exit status", docs of sys.excepthook. Node: process docs, "Exit codes". Go: runtime, fatalpanic and dieFromSignal.
# Rust: std::process, termination of a panicking main and of one that returns Err. JVM: java(1), ExitOnOutOfMemoryError.
# The loader: elf/dl-error-skeleton.c, fatal_error (127), and elf/dl-version.c, which leaves with 1.
UNCAUGHT_CODES = {
    "python": frozenset({1}),
    "node": frozenset({1, 5, 6, 7, 10, 13}),
    "go": frozenset({2}),
    "rust": frozenset({1, 101}),
    "jvm": frozenset({1, 3}),
    "loader": frozenset({1, 127}),
}
NOT_STARTED = frozenset({126, 127})  # the shell's and the loader's words: no runtime got to run, so none raised anything
TRAPS = frozenset({4, 5, 6})  # ILL, TRAP, ABRT: how V8, the JVM, Rust and C++ end themselves
ENDING_BY_TRAP = frozenset({"exception/panic", "oom/runtime-heap", "oom/gpu"})


class LastWords(Evidence, frozen=True, tag="last-words"):
    """`text` is the tail, control sequences removed, at most 8 KiB; `readings` are in the order the readers rank them.

    `before_end_ns` is how long before the end the last byte was written (None: not known): words long past explain no end.
    """

    text: str
    readings: tuple[Reading, ...]
    before_end_ns: int | None = None

    def says(self) -> str:
        """One sentence for a person."""
        if self.readings:
            return f"its last words: {self.readings[0].says}"
        last = self.text.strip().rsplit("\n", 1)[-1].strip()
        return f"its last line was {last[:160]!r}" if last else "it wrote nothing"

    def reading(self, suggests: str) -> Reading | None:
        """The best reading that suggests this cause."""
        return next((reading for reading in self.readings if reading.suggests == suggests), None)

    def accounting_for(self, code: int | None, signal: int | None) -> Reading | None:
        """The one passage that tells of an error which ends a program just so: the best one that fits this status and place."""
        if self.before_end_ns is not None and self.before_end_ns > LONG_PAST_NS:
            return None
        fitting = (reading for reading in self.readings if fits(reading, code, signal))
        # 1 is what many programs exit with for many reasons; 2 after a Go panic or an abort from within is nobody's chance
        own_status = signal is not None or code != 1
        return next(
            (r for r in fitting if (own_status and r.reader in UNCAUGHT_CODES) or self.lines_after(r) <= LINES_AFTER), None
        )

    def lines_after(self, reading: Reading) -> int:
        """How many lines follow a passage; at least LINES_AFTER where its own words cannot be found again in what is kept.

        Indented lines belong to what stands above them: stacks, the members of an exception group.
        """
        last = next((line.strip() for line in reversed(reading.excerpt.splitlines()) if line.strip()), "")
        _, found, after = self.text.rpartition(last) if last else ("", "", "")
        if not found:
            return LINES_AFTER + (len(self.text) >= KEPT_BYTES)
        return sum(1 for line in after.splitlines()[1:] if line.strip() and not line[0].isspace())


def fits(reading: Reading, code: int | None, signal: int | None) -> bool:
    """Whether an error of this kind, uncaught, ends a program with this status."""
    suggests = reading.suggests or ""
    if signal is not None:
        return signal in TRAPS and suggests in ENDING_BY_TRAP
    if not code or code in NOT_STARTED:
        return False
    if not suggests.startswith(("exception/", "drift/")) and suggests not in ENDING_BY_TRAP:
        return False
    return code in UNCAUGHT_CODES.get(reading.reader, {code})


@lru_cache(maxsize=8)
def read_words(tail: bytes) -> tuple[str, tuple[Reading, ...]]:
    """Clean text and its readings; kept for the kinds of evidence that ask for the same words again."""
    text = readers.clean(tail.decode("utf-8", "replace"))
    return text, readers.read(text, kind="stderr")


def collect(scene: Scene) -> LastWords | Missing | None:
    """From the file behind descriptor 2, or the write probe's tail."""
    words = scene.words
    if words is None:
        return Missing(kind="last-words", because=scene.words_missing) if scene.words_missing else None
    text, readings = read_words(words.text[-65536:])
    if not text.strip():
        return None
    return LastWords(
        source=words.source,
        text=text[-KEPT_BYTES:],
        readings=readings,
        before_end_ns=None if words.written_ns is None else max(0, scene.exit.at_ns - words.written_ns),
    )
