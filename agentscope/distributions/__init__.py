"""Packages of languages that are installed beside a program: Python distributions, Node packages, and what locks them.

Read from their metadata (Python packaging specifications, "Recording installed projects"; package.json of npm), never by pip,
npm or the interpreter of the process.
"""

from typing import Literal

from agentscope.model import Value

NAME_LIMIT = 200


class Distribution(Value, frozen=True):
    """One installed Python distribution: `folder` is its .dist-info or .egg-info, `record` a digest of its RECORD.

    `wall_ns` is when its metadata was written (ns since 1970): pip and uv leave no other log. `installer` is the tool's own word
    for itself, `requested` whether it was asked for by name, `origin` the address that it came from where that was not an index.
    `tops` are the first components of the paths of its files: what can be imported of it.
    """

    name: str
    version: str
    folder: str
    record: str | None = None
    wall_ns: int | None = None
    installer: str | None = None
    requested: bool = False
    origin: str | None = None
    tops: tuple[str, ...] = ()


class NodePackage(Value, frozen=True):
    """One package in a node_modules folder; `wall_ns` is when it was put there (ns since 1970).

    `nested` tells that it has packages of its own in a node_modules folder inside.
    """

    name: str
    version: str
    folder: str
    wall_ns: int | None = None
    nested: bool = False


class SystemPackages(Value, frozen=True):
    """Every package of the system as its database has them: (name, version) sorted by name."""

    ecosystem: Literal["dpkg", "apk", "pacman"]
    versions: tuple[tuple[str, str], ...]


class Deviation(Value, frozen=True):
    """A package that is installed in a version that the lock file does not have."""

    name: str
    locked: tuple[str, ...]
    installed: str

    def says(self) -> str:
        """One clause for a person."""
        return f"{self.name} {self.installed} is installed, the lock file has {', '.join(self.locked)}"


def plain(text: str, limit: int = NAME_LIMIT) -> str:
    """A stranger's text with nothing in it that could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:limit])
