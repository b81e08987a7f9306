"""The last words: the tail of what the process wrote to stdout and stderr, and what readers make of it."""

from functools import lru_cache

from agentscope import readers
from agentscope.evidence import Evidence, Missing, Scene
from agentscope.model import Reading

ABSENT = "it wrote nothing before it ended"
KEPT_BYTES = 8192


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


@lru_cache(maxsize=8)
def read_words(tail: bytes) -> tuple[str, tuple[Reading, ...]]:
    """Clean text and its readings; kept for the kinds of evidence that ask for the same words again."""
    text = readers.clean(tail.decode("utf-8", "replace"))
    return text, readers.read(text)


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
