"""Node packages: when each was put in its folder, and the npm commands of that time (~/.npm/_logs, kept for the last ten).

Where no command is found, the file that a tool leaves in node_modules after each installation tells the tool alone.
"""

import re
from collections.abc import Iterator
from contextlib import suppress

from agentscope.changes import By, Change
from agentscope.changes._look import SECOND_NS, Look
from agentscope.distributions import plain
from agentscope.distributions.node import node_packages
from agentscope.model import Value
from agentscope.symbols.rooted import state_of

LOGS_LIMIT = 40
LOG_LIMIT_BYTES = 2 << 20
_NAME = re.compile(r"^(\d{4}-\d\d-\d\dT)(\d\d)_(\d\d)_(\d\d)_\d{1,6}Z-debug-\d{1,3}\.log$")
_TITLE = re.compile(r"^\d{1,6} verbose title (npm [^\n]{1,400})$", re.MULTILINE)
_CHANGED = re.compile(r"^\d{1,6} silly (?:ADD|CHANGE|REMOVE) (node_modules/[^\s]{1,400})$", re.MULTILINE)
_LONGEST_NS = 600 * SECOND_NS
_MARKS = {".package-lock.json": "npm", ".modules.yaml": "pnpm", ".yarn-integrity": "yarn", ".yarn-state.yml": "yarn"}


class _Run(Value, frozen=True):
    """One npm command: when it began, and the packages that it says it changed, by folder below its project."""

    wall_ns: int
    command: str
    folders: frozenset[str]


def read(look: Look) -> Iterator[Change]:
    """What was put in the node_modules folders within the window, with the command that names that folder."""
    packages, _ = node_packages(look.place.node_folders, root=look.place.root)
    recent = [package for package in packages if package.wall_ns is not None and look.within(package.wall_ns)]
    runs = sorted(_runs(look), key=lambda run: run.wall_ns) if recent else []
    look.sources.extend(look.place.node_folders if packages else ())
    marks = {folder: _marks(look, folder) for folder in {_top(package.folder) for package in recent}}
    for package in recent:
        assert package.wall_ns is not None
        run = _run_of(runs, package.folder, package.wall_ns)
        yield Change(
            what=package.name,
            ecosystem="node",
            kind="installed",
            wall_ns=package.wall_ns,
            precision_ns=SECOND_NS,
            source=package.folder,
            to_version=package.version,
            by=By(tool="npm", command=run.command, requested=_requested(run.command, package.name))
            if run
            else _tool_of(marks[_top(package.folder)], package.wall_ns),
        )


def _top(folder: str) -> str:
    """The outermost node_modules folder above a package."""
    return f"{folder.partition('/node_modules/')[0]}/node_modules"


def _marks(look: Look, folder: str) -> list[tuple[int, str]]:
    """When each tool last installed in a node_modules folder, as far as it leaves a file there."""
    found = []
    for name, tool in _MARKS.items():
        with suppress(OSError):
            found.append((state_of(f"{folder}/{name}", root=look.place.root, follow=False).st_mtime_ns, tool))
    return found


def _tool_of(marks: list[tuple[int, str]], wall_ns: int) -> By | None:
    """The tool whose installation ended next after that time, if that was soon."""
    after = [(at_ns, tool) for at_ns, tool in marks if 0 <= at_ns - wall_ns + SECOND_NS <= _LONGEST_NS]
    return By(tool=min(after)[1]) if after else None


def _run_of(runs: list[_Run], folder: str, wall_ns: int) -> _Run | None:
    """The last command before that time which says that it changed this folder."""
    fitting = [
        run
        for run in runs
        if 0 <= wall_ns - run.wall_ns + SECOND_NS <= _LONGEST_NS and any(folder.endswith(f"/{part}") for part in run.folders)
    ]
    return fitting[-1] if fitting else None


def _requested(command: str, name: str) -> bool | None:
    return True if any(word == name or word.startswith(f"{name}@") for word in command.split()) else None


def _runs(look: Look) -> Iterator[_Run]:
    for home in look.place.homes:
        folder = f"{home}/.npm/_logs"
        for name in look.names(folder)[-LOGS_LIMIT:]:
            stamp = _NAME.match(name)
            at = look.local_ns(f"{stamp[1]}{stamp[2]}:{stamp[3]}:{stamp[4]}+00:00") if stamp else None
            if at is None or not look.within(at[0], _LONGEST_NS):
                continue
            raw = look.content(f"{folder}/{name}", limit_bytes=LOG_LIMIT_BYTES)
            text = (raw or b"").decode("utf-8", "replace")
            title = _TITLE.search(text)
            if title:
                yield _Run(wall_ns=at[0], command=plain(title[1], 400), folders=frozenset(_CHANGED.findall(text)[:20_000]))
