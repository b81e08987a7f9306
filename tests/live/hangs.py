"""What a scenario of the hang zoo declares: `fixtures/<slug>/hang.toml` as typed values.

A folder is a program that hangs in one way (`hang-*`), or a healthy one that looks like it (`calm-*`), and what must be said about
it. It says `ready`, waits for a line where it can, and then hangs; `hanging NANOSECONDS` (CLOCK_MONOTONIC) tells when. It ends
itself after 300 s, or its input's end does. A line `WORD NUMBER` that it says before `ready` becomes a name, such as `port`.

In `argv`, `env`, `peer`, `client`, `outside` and the expectations `{name}` is replaced: `here` (the folder), `build` (its compile
cache), `peers`, `python`, `home` (its working folder), `harness` (our pid), `pid` (its own), `peer` and `client` (their pids),
`client_port`, `line` and `line2` (the lines with the remark "<- hangs here"), `near` and `far` (network namespaces), `unified`,
`cpu`, `freezer` (cgroups; `_name` is the last part) and `model_s` (how long a model call takes: 25 s, or ZOO_MODEL_S).
"""

import os
import tomllib
from pathlib import Path
from typing import Literal

import msgspec
from cage import hierarchies
from scenario import BUILD, FIXTURES, PYTHON, Declared, which

PEERS = Path(__file__).resolve().parent / "peers"
MARK = "<- hangs here"
Slugs = dict[str, "Hang"]


class HangRun(Declared, frozen=True):
    """How to start the program.

    `network` "netns" puts it into a network namespace with 10.99.0.1, wired to another with 10.99.0.2, where its peer is.
    `stdout` "unread" stops reading its output once it is ready; `controllers` are v1 hierarchies in which it gets a cgroup too.
    """

    argv: tuple[str, ...]
    compile: tuple[tuple[str, ...], ...] = ()
    env: dict[str, str] = {}
    memory_mib: int = 64
    terminal: bool = False
    network: Literal["lo", "netns"] = "lo"
    stdout: Literal["read", "unread"] = "read"
    controllers: tuple[Literal["cpu", "freezer"], ...] = ()


class ExpectedWait(Declared, frozen=True):
    """What must be said: a cause and what is in its culprit ("a|b": either), or "none" and how the state begins, where that is clear."""

    cause: str
    culprit_contains: tuple[str, ...] = ()
    state: str | None = None


class Hang(Declared, frozen=True):
    """One way to hang, or to look like it.

    `peer` runs before it and `client` after everything `outside` was done, both beside it, not below it. `load` "cpu" uses a whole
    CPU or more, so only two of them run at once.
    """

    slug: str
    folder: Path
    title: str
    run: HangRun
    expect: ExpectedWait
    near_miss_of: str | None = None
    needs: tuple[str, ...] = ()
    peer: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    outside: tuple[tuple[str, ...] | Literal["line"], ...] = ("line",)
    load: Literal["idle", "cpu"] = "idle"

    @property
    def hung(self) -> bool:
        """Whether it is one that hangs."""
        return self.expect.cause != "none"

    @property
    def build(self) -> Path:
        """Where its compiled programs are."""
        return BUILD / self.folder.name

    @property
    def record(self) -> Path:
        """Where its recorded stream lies."""
        return self.folder

    def missing(self) -> list[str]:
        """The needs that this machine cannot meet."""
        return [need for need in self.needs if not met(need)]

    def names(self, **more: str) -> dict[str, str | tuple[str, ...]]:
        """Everything that may stand in braces."""
        return {
            "here": str(self.folder),
            "build": str(self.build),
            "peers": str(PEERS),
            "python": PYTHON,
            "harness": str(os.getpid()),
            "model_s": os.environ.get("ZOO_MODEL_S", "25"),
            **marks(self.folder),
            **more,
        }


def met(need: str) -> bool:
    """Whether this machine has it: root, a cgroup controller of v1 (cpu: of either version), or a program."""
    if need == "root":
        return os.geteuid() == 0
    if need in {"cpu", "freezer"}:
        return Path("/sys/fs/cgroup", need).is_dir() or (need == "cpu" and not hierarchies()[2])
    return which(need) is not None


def marks(folder: Path) -> dict[str, str]:
    """The numbers of the lines that carry the mark, as `line`, `line2` and so on."""
    numbers = [
        str(number)
        for source in sorted(folder.glob("agent.*"))
        for number, text in enumerate(source.read_text().splitlines(), 1)
        if MARK in text
    ]
    return {f"line{place or ''}": number for place, number in zip((None, *range(2, 9)), numbers, strict=False)}


def hangs() -> list[Hang]:
    """Every scenario there is: being in the folder is being tested."""
    return [
        msgspec.convert({**tomllib.loads(path.read_text()), "slug": path.parent.name, "folder": path.parent}, Hang, strict=True)
        for path in sorted(FIXTURES.glob("*/hang.toml"))
    ]
