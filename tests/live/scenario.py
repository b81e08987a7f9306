"""What a scenario of the zoo declares: `fixtures/<slug>/scenario.toml` as typed values.

A folder is a program that ends in one way, and what must be said about it. A file may declare `[[axis.NAME]]` tables: every
combination of one table of each axis is laid over the rest of the file and becomes a scenario of its own, `<slug>/<name>-<name>`.

In `argv`, `compile`, `outside`, `env` and the expectations `{name}` is replaced: `here` (the folder), `build` (its compile cache),
`python`, `pid` (the process that said ready), `cgroup` (its memory cgroup), `unified` (its cgroup in the v2 hierarchy), `line` (the line of the crash
program that has the remark "<- dies here") and whatever `[vars]` holds; an element "{*name}" becomes all elements of that list.
"""

import itertools
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = REPOSITORY / "fixtures"
BUILD = Path(__file__).resolve().parent / "build"
MARK = "<- dies here"
TOOL_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, sorted(Path("/usr/lib").glob("go-*/bin")))])


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of scenario.toml; a key that is not declared here is an error."""


class Ending(Declared, frozen=True):
    """How a process ends: an exit code, or the name of the signal that ended it."""

    code: int | None = None
    signal: str | None = None


class ExpectedActor(Declared, frozen=True):
    """Who must be named. `comm` is a prefix, so that "python" fits python3.11."""

    kind: str | None = None
    comm: str | None = None


class Expected(Declared, frozen=True):
    """What must be said.

    `wait` is what waitpid tells of the started process; `exit` what the incident must tell of the process it is about, where
    that is another one. The `*_contains` must all be there; `proof_contains` anywhere in the incident.
    """

    cause: str
    wait: Ending
    scope: Literal["agent", "tool"] = "agent"
    exit: Ending | None = None
    actor: ExpectedActor | None = None
    culprit_contains: tuple[str, ...] = ()
    headline_contains: tuple[str, ...] = ()
    proof_contains: tuple[str, ...] = ()


class Run(Declared, frozen=True):
    """How to start the victim.

    `watch` "said" watches the process that says `ready PID` instead of the started one. `terminal` gives it a controlling
    terminal on all three descriptors; `nested` puts the memory limit on the parent of its cgroup.
    """

    argv: tuple[str, ...]
    compile: tuple[tuple[str, ...], ...] = ()
    stderr: Literal["pipe", "file", "pty", "null"] = "pipe"
    memory_mib: int = 100
    env: dict[str, str] = {}
    watch: Literal["started", "said"] = "started"
    terminal: bool = False
    nested: bool = False


class TruthSignal(Declared, frozen=True):
    """One signal of a row: name, si_code, whether process-directed, and by whom ("self", or the sender's comm as a prefix)."""

    signal: str
    code: int
    group: bool | None = None
    sender: str | None = None


class Truth(Declared, frozen=True):
    """The row of the measured truth table that this scenario shows: every signal that was generated for the process, in order."""

    row: str
    signals: tuple[TruthSignal, ...] = ()
    oom_victim: bool = False


class Scenario(Declared, frozen=True):
    """One way to end. `outside` is what is done to it once it is ready: argument lists, or "line", "ctrl-c", "hang-up"."""

    slug: str
    folder: Path
    title: str
    run: Run
    expect: Expected
    needs: tuple[str, ...] = ()
    near_miss_of: str | None = None
    outside: tuple[tuple[str, ...] | Literal["line", "ctrl-c", "hang-up"], ...] = ("line",)
    vars: dict[str, str | tuple[str, ...]] = {}
    truth: Truth | None = None

    @property
    def ending(self) -> Ending:
        """How the process that the incident is about must have ended."""
        return self.expect.exit or self.expect.wait

    @property
    def build(self) -> Path:
        """Where its compiled programs are."""
        return BUILD / self.folder.name

    @property
    def record(self) -> Path:
        """Where its recorded stream lies."""
        return FIXTURES / self.slug

    def missing(self) -> list[str]:
        """The needs that this machine cannot meet."""
        return [need for need in self.needs if not (os.geteuid() == 0 if need == "root" else which(need))]

    def names(self, **more: str) -> dict[str, str | tuple[str, ...]]:
        """Everything that may stand in braces."""
        return {
            "here": str(self.folder),
            "build": str(self.build),
            "python": PYTHON,
            "line": str(dying_line(self.folder)),
            **self.vars,
            **more,
        }


PYTHON = str(Path(sys.executable).resolve())


def which(program: str) -> str | None:
    """The path of a program, Go's own folder included (Debian leaves it off PATH)."""
    return shutil.which(program, path=TOOL_PATH)


def dying_line(folder: Path) -> int | None:
    """Number of the line that carries the mark."""
    for source in sorted(folder.glob("crash.*")):
        for number, text in enumerate(source.read_text().splitlines(), 1):
            if MARK in text:
                return number
    return None


def fill(template: str, names: Mapping[str, str | tuple[str, ...]]) -> str:
    """The template with every known {name} replaced; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda m: str(names.get(m[1], m[0])), template)


def fill_all(templates: tuple[str, ...], names: Mapping[str, str | tuple[str, ...]]) -> list[str]:
    """An argument list with its names replaced and its lists spliced in."""
    filled: list[str] = []
    for template in templates:
        listed = names.get(template[2:-1]) if template.startswith("{*") else None
        filled.extend(listed if isinstance(listed, tuple) else [fill(template, names)])
    return filled


def laid_over(base: Any, top: Any) -> Any:
    """`top` over `base`, table by table."""
    if isinstance(base, dict) and isinstance(top, dict):
        return {**base, **{key: laid_over(base.get(key), value) for key, value in top.items()}}
    return top


def load(path: Path) -> Iterator[Scenario]:
    """The scenarios of one scenario.toml."""
    declared = tomllib.loads(path.read_text())
    axes = declared.pop("axis", {})
    for point in itertools.product(*axes.values()):
        merged = declared
        for table in point:
            merged = laid_over(merged, {key: value for key, value in table.items() if key != "name"})
        slug = "/".join([path.parent.name, *(["-".join(table["name"] for table in point)] if point else [])])
        yield msgspec.convert({**merged, "slug": slug, "folder": path.parent}, Scenario, strict=True)


def scenarios() -> list[Scenario]:
    """Every scenario there is: being in the folder is being tested."""
    return [scenario for path in sorted(FIXTURES.glob("*/scenario.toml")) for scenario in load(path)]
