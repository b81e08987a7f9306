"""What an agent's own local files say it was doing. One file a tool; being in the folder is being registered.

A reader is a module with TOOL (its name as a person says it), PROGRAMS and PACKAGES (how its process is known), PLACES (the
variables of its environment that say where it keeps sessions), `resume(session)` and `look(asked)`. Modules whose name begins with
an underscore are shared steps. What is read is hostile; what is kept of it is an id, names of tools, times and counts: no text.
"""

import importlib
import pkgutil
import pwd
import re
from functools import lru_cache
from typing import Protocol

from agentscope.model import Value
from agentscope.transcripts._course import Doing, name_of

SESSION = re.compile(
    r"[A-Za-z0-9_-]{1,128}"
)  # an id ends up in a command's arguments; one that begins with "-" would be an option
INTERPRETERS = re.compile(r"(?:node|nodejs|bun|deno)")
SECONDS_NS = 1_000_000_000
SLACK_NS = 2 * SECONDS_NS  # the wall clock is stepped, and start times are rounded to 10 ms


class Asked(Value, frozen=True):
    """Whose session is looked for. `began_wall_ns` is when the process began (ns since 1970), `start_ns` the same since boot.

    `environment` is the part of its environment that PLACES name; `root` leads into its container.
    """

    pid: int
    start_ns: int
    began_wall_ns: int
    uid: int
    argv: tuple[str, ...] = ()
    exe: str | None = None
    cwd: str | None = None
    environment: dict[str, str] = {}
    root: str | None = None

    def place(self, variable: str, *below_home: str) -> "Place | None":
        """The folder that a variable names, else the one below its home; None where its home is not known."""
        named = self.environment.get(variable)
        if named and named.startswith("/"):
            return Place(base=named)
        home = self.environment.get("HOME") or (home_of(self.uid) if self.root is None else None)
        return Place(base=home, path="/".join(below_home)) if home and home.startswith("/") else None


class Place(Value, frozen=True):
    """A folder: `path` is below `base`, and no link on it may lead out of that; the base is taken as its user names it."""

    base: str
    path: str = ""

    def __str__(self) -> str:
        """As one path."""
        return f"{self.base.rstrip('/')}/{self.path}" if self.path else self.base


class Session(Value, frozen=True):
    """One session and what was going on at its end. `turns` counts prompts; `whole` is False where only its tail was read.

    `folder` is where the session must be resumed, `began_wall_ns` when its last action did (ns since 1970).
    """

    tool: str
    session: str
    source: str
    folder: str | None
    doing: Doing = "unknown"
    action: str | None = None
    action_kind: str | None = None
    began_wall_ns: int | None = None
    finished: bool | None = None
    turns: int = 0
    whole: bool = True


class Unread(Value, frozen=True):
    """There may be a session, and which one or what it was doing could not be had: why, as a person would say it."""

    because: str


class Transcripts(Protocol):
    """What the module of a tool has."""

    TOOL: str
    PROGRAMS: frozenset[str]
    PACKAGES: tuple[str, ...]
    PLACES: tuple[str, ...]

    def resume(self, session: str) -> tuple[str, ...]:
        """The command that goes on with a session, as this tool understands it."""
        ...

    def look(self, asked: Asked) -> Session | Unread | None:
        """The session of this process; None where it keeps none, or has not begun one. May raise OSError."""
        ...


@lru_cache
def readers() -> dict[str, Transcripts]:
    """All readers by the names of their files, with hyphens."""
    return {
        found.name.replace("_", "-"): importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")
    }


@lru_cache
def places() -> frozenset[str]:
    """The variables of an environment that any reader wants to know."""
    return frozenset({"HOME"}).union(*(reader.PLACES for reader in readers().values()))


@lru_cache(maxsize=512)
def tool_of(argv: tuple[str, ...], exe: str | None) -> str | None:
    """Which of these tools a process is, by its program, or by the script of its interpreter; None: none of them."""
    first = argv[0] if argv else ""
    words = {(exe or "").rpartition("/")[2], first.rpartition("/")[2]}
    paths = [exe or "", first]
    if any(INTERPRETERS.fullmatch(word) for word in words):
        script = next((word for word in argv[1:8] if not word.startswith("-")), "")
        words = {script.rpartition("/")[2]}
        paths = [script]
    for slug, reader in readers().items():
        if words & reader.PROGRAMS or any(f"/{package}/" in path for package in reader.PACKAGES for path in paths):
            return slug
    return None


def look(slug: str, asked: Asked) -> Session | Unread | None:
    """What that tool's files say. Never raises: what cannot be opened is said."""
    reader = readers()[slug]
    try:
        return reader.look(asked)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unread(because=f"{reader.TOOL} keeps its sessions where they cannot be read: {error.strerror}")


def resume(slug: str, session: str) -> tuple[str, ...] | None:
    """The command that goes on with a session; None for what is no id of one, or no tool that we know."""
    reader = readers().get(slug)
    return reader.resume(session) if reader is not None and is_id(session) else None


def is_id(session: object) -> bool:
    """Whether this may be the id of a session."""
    return isinstance(session, str) and SESSION.fullmatch(session) is not None and not session.startswith("-")


@lru_cache(maxsize=256)
def home_of(uid: int) -> str | None:
    """The home that a user logs in to."""
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None


__all__ = [
    "Asked",
    "Place",
    "Session",
    "Unread",
    "home_of",
    "is_id",
    "look",
    "name_of",
    "places",
    "readers",
    "resume",
    "tool_of",
]
