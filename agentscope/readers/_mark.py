"""What one reader found: a reading, where it stands and how much it decides."""

from enum import IntEnum

from agentscope.model import Reading, Value


class Weight(IntEnum):
    """How much a mark decides over the others of its passage."""

    HARMLESS = 0
    STATUS = 1  # an exit status, or an exception that stands alone
    MONITOR = 2  # a shell, a parent or a supervisor says which signal or code it saw
    ENDING = 3  # an uncaught exception: the program's own last words
    FATAL = 4  # a runtime, the loader or the C library ends the program
    KILLER = 5  # the one that kills says so: the kernel, an out-of-memory daemon


class Mark(Value, frozen=True):
    """A reading with the lines it rests on (`first` to `last`).

    `names` tells marks of one passage apart where several processes died: a pid or a program.
    """

    reading: Reading
    weight: Weight
    first: int
    last: int
    names: str | None = None
