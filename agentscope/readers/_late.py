"""Patterns that are compiled when they are first used: a report needs a handful of the readers' two hundred, and each costs time."""

import re
from typing import Any, cast


class _Late:
    """Stands for a compiled pattern, and becomes it."""

    def __init__(self, pattern: str, flags: int) -> None:
        self._source = pattern, flags

    def __getattr__(self, name: str) -> Any:
        """What the compiled pattern has under this name; kept, so that it is asked once."""
        compiled = re.compile(*self._source)
        for kept in ("match", "search", "fullmatch", "finditer", "findall", "sub", "split"):
            setattr(self, kept, getattr(compiled, kept))
        return getattr(compiled, name)


def late(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern as `re.compile` gives it, compiled at its first use; a wrong one is found by the test that uses it."""
    return cast("re.Pattern[str]", _Late(pattern, flags))
