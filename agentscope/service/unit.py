"""The unit file: the shipped one, with the program, the config and the state directory of this installation."""

import shlex
import sys
from pathlib import Path

from agentscope.errors import UsageError

UNIT = Path(__file__).with_name("agentscope.service")
EXEC_START = "ExecStart="
SPECIAL = frozenset("\"'\\$;")  # what systemd.service(5), "Command lines", gives a meaning; % is doubled


def unit(config: str | None, state: str | None) -> str:
    """The unit file for this installation: the shipped one, with the program, config and state directory that are meant.

    Raises:
        UsageError: a path cannot stand in a unit file.
    """
    shipped = UNIT.read_text("utf-8")
    usual = next(line for line in shipped.splitlines() if line.startswith(EXEC_START))
    words = shlex.split(usual.removeprefix(EXEC_START))[1:]
    if config is not None:
        words[words.index("--config") + 1] = str(Path(config).absolute())
    if state is not None:
        words += ["--state-dir", str(Path(state).absolute())]
    return shipped.replace(usual, EXEC_START + " ".join(quoted(word) for word in (*program(), *words)))


def program() -> tuple[str, ...]:
    """The agentscope of this Python, by its path."""
    script = Path(sys.executable).with_name("agentscope")
    return (str(script),) if script.is_file() else (sys.executable, "-I", "-m", "agentscope")


def quoted(word: str) -> str:
    """A word of a command line of systemd.

    Raises:
        UsageError: it has a character that means something else there.
    """
    if not word.isprintable() or SPECIAL & set(word):
        raise UsageError("no unit file can be made", f"{word!r} has a character that is special there", "a plain path")
    word = word.replace("%", "%%")
    return f'"{word}"' if " " in word else word
