"""The course of a session: prompts, calls of tools and their results, folded into what was going on at the end. Keeps no text."""

import datetime as dt
import re
from typing import Literal, TypeVar

import msgspec

from agentscope.model import Value

Entry = TypeVar("Entry")
Doing = Literal["tool", "model", "nothing", "unknown"]
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_PENDING_LIMIT = 256


class Call(Value, frozen=True):
    """One call of a tool: `kind` is what the transcript calls such an entry, `began_wall_ns` is ns since 1970."""

    name: str | None
    kind: str
    began_wall_ns: int | None


class Course:
    """A fold over the entries of one transcript, oldest first."""

    def __init__(self) -> None:
        self.turns = 0
        self.last: Call | None = None
        self.last_key: str | None = None  # of a call that has no result
        self.pending: dict[str, Call] = {}
        self.doing: Doing = "unknown"

    def prompt(self) -> None:
        """A person, or a program, asked for something: what was pending before will get no result any more."""
        self.turns += 1
        self.pending.clear()
        self.doing = "model"

    def call(self, key: str, name: object, kind: str, began_wall_ns: int | None) -> None:
        """The model asked for a tool."""
        self.last, self.last_key = Call(name=name_of(name), kind=kind, began_wall_ns=began_wall_ns), key
        if len(self.pending) < _PENDING_LIMIT:
            self.pending[key] = self.last
        self.doing = "tool"

    def result(self, key: str) -> None:
        """A tool answered: next the model is asked, unless other calls are out."""
        self.pending.pop(key, None)
        if key == self.last_key:
            self.last_key = None
        self.doing = "tool" if self.pending else "model"

    def cut_off(self, key: str) -> None:
        """A tool will never answer, and what it did is not known."""
        self.pending.pop(key, None)
        self.doing = "tool" if self.pending else "model"

    def answer(self, *, over: bool | None) -> None:
        """The model said something: `over` tells whether that ended the turn, None where it cannot be told."""
        if not self.pending:
            self.doing = "unknown" if over is None else "nothing" if over else "model"

    def ended(self) -> None:
        """The turn is over, whatever was pending."""
        self.pending.clear()
        self.doing = "nothing"

    @property
    def action(self) -> Call | None:
        """The last action: one that has no result yet goes before those that have."""
        return next(reversed(self.pending.values()), self.last)

    @property
    def finished(self) -> bool | None:
        """Whether the last action had ended; None where there was none, or it was cut off in an earlier turn."""
        if self.pending:
            return False
        return True if self.last is not None and self.last_key is None else None


def name_of(name: object) -> str | None:
    """The name of a tool, or None for what is none: it ends up in front of people."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def moment(text: str | None) -> int | None:
    """RFC 3339 as nanoseconds since 1970; None for what is no time."""
    if not text or len(text) > 40:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
        return int(found.timestamp() * 1_000_000) * 1000 if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def decoded(line: bytes, decoder: "msgspec.json.Decoder[Entry]") -> Entry | None:
    """One line, or None where it is not what we expect: cut, of another version, or hostile."""
    if not line.strip():
        return None
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
