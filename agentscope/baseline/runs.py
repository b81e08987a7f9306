"""From one run of an agent to the next: under which name its baseline is kept, and what can be taken for well of which run."""

import contextlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from agentscope.baseline import Baseline, FileState, MappedFile
from agentscope.baseline.mapped import stem_of
from agentscope.baseline.store import identity_of
from agentscope.distributions.container import image_of
from agentscope.model import Agent, Process
from agentscope.symbols.rooted import state_of

CLOCKS_NS = 2_000_000_000  # between a time of the file system and one that was reckoned from the boot clock
ENTRIES_LIMIT = 20_000  # of /proc
ROOTS_LIMIT = 200
NOWHERE = "/proc/0/root"  # leads to nothing: better no files than those of another root


def extended(last: Baseline, own: Baseline | None) -> Baseline:
    """The last healthy run, and what this one has loaded that it had not: to be compared with what stands there at its end."""
    if own is None:
        return last
    known = {stem_of(file.path) for file in last.mapped}
    return msgspec.structs.replace(
        last, mapped=(*last.mapped, *(file for file in own.mapped if stem_of(file.path) not in known))
    )


def as_it_began(taken: Baseline, started_wall_ns: int) -> Baseline:
    """What a process that has long been running began with: whatever changed since its start is not what it works with.

    Of a file that was replaced only the old inode is known; a package that came later is left out, so that it counts as new.
    """

    def before(wall_ns: int | None) -> bool:
        return wall_ns is None or wall_ns <= started_wall_ns + CLOCKS_NS

    def began(file: MappedFile) -> MappedFile:
        if not file.stale:
            return file
        old = FileState(path=file.path, device=0, inode=file.inode, size_bytes=0, mtime_ns=0, ctime_ns=0)
        return msgspec.structs.replace(file, file=old)

    stale = {file.path for file in taken.mapped if file.stale}
    return msgspec.structs.replace(
        taken,
        wall_ns=started_wall_ns,
        mapped=tuple(map(began, taken.mapped)),
        interpreter=None if taken.exe in stale else taken.interpreter,
        distributions=tuple(found for found in taken.distributions if before(found.wall_ns)),
        node=tuple(package for package in taken.node if before(package.wall_ns)),
        system=None,
    )


def identity_in(agent: Agent, process: Process, cwd: str | None) -> str | None:
    """The name of a baseline: of this program of this agent; in a container, of its image. None where that is not known."""
    if agent.container is not None:
        image = image_of(agent.container)
        if image is None or image.name is None:
            return None
        repository, _, tag = image.name.partition("@")[0].rpartition(":")
        cwd = f"{repository if repository and '/' not in tag else image.name}:{cwd}"
    command = " ".join(process.argv) or agent.command
    uid = agent.uid if process.uid is None else process.uid
    return identity_of(msgspec.structs.replace(agent, command=command, uid=uid), cwd)


def living_roots() -> Iterator[str]:
    """The roots of living processes other than ours, one way to each."""
    ours = Path("/").stat()
    seen = {(ours.st_dev, ours.st_ino)}
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in islice(entries, ENTRIES_LIMIT):
            with contextlib.suppress(OSError):
                path = f"/proc/{int(entry.name)}/root" if entry.name.isdecimal() else ""
                status = os.stat(path)  # noqa: PTH116 - the magic link itself is meant
                if (status.st_dev, status.st_ino) not in seen and len(seen) < ROOTS_LIMIT:
                    seen.add((status.st_dev, status.st_ino))
                    yield path


def root_like(base: Baseline) -> str | None:
    """The root of a living process in which the files of a baseline stand on the same device: its container, if that still runs."""
    file = next((file.file for file in base.mapped if file.file is not None), None)
    return next((root for root in living_roots() if file is not None and _device(file.path, root) == file.device), None)


def root_with(path: str) -> str | None:
    """The root in which a program stands that ended before anybody could ask: None for ours, NOWHERE where none that lives has it."""
    if _device(path, None) is not None:
        return None
    return next((root for root in living_roots() if _device(path, root) is not None), NOWHERE)


def _device(path: str, root: str | None) -> int | None:
    try:
        return state_of(path, root=root).st_dev
    except OSError:
        return None
