"""One run of one process: what is remembered of it, and what of it can be read while it lives and once it is gone."""

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agentscope.agents import same_identity, start_ns_of
from agentscope.baseline import Baseline
from agentscope.baseline.facts import ProcessFacts
from agentscope.baseline.taking import take, take_again
from agentscope.commandlines import SHELLS, is_wrapper, program_name
from agentscope.model import Agent, Process

BODIES_LIMIT = 5
DESCRIPTORS_LIMIT = 512


@dataclass
class Run:
    """One process on an agent's line: who it is, its baseline so far (`own`), and that of the last healthy run (`last`).

    `since_ns` is when it became this program (boot time). `looked_at` tells that it had been running when it was found. `root`
    is a descriptor of its root, where that is not ours: so its files can be reached when it is gone. `settled` tells that `own`
    was taken once its parts were loaded, `healthy` that it can be the measure of the next run. `first` is the name under which
    what the agent was started as is known, such as a script that became this program by exec. `lockfile` is that of the configuration, by a whole path if its folder
    is known. `held` counts who still looks through its root, so that this is not closed though it is `dropped`.
    """

    agent: Agent
    process: Process
    since_ns: int
    looked_at: bool
    cwd: str | None
    root: int | None = None
    identity: str | None = None
    first: str | None = None
    lockfile: str | None = None
    facts: ProcessFacts | None = None
    own: Baseline | None = None
    last: Baseline | None = None
    settled: bool = False
    healthy: bool = False
    paths: frozenset[str] = frozenset()
    next_ns: int = 0
    pending: Future[None] | None = None
    copying: Future[None] | None = None
    ended_ns: int | None = None
    held: int = 0
    dropped: bool = False
    known: Future[None] | None = None


def standing(run: Run, base: Baseline | None, root: str | None, mapped: Iterable[str]) -> Baseline | None:
    """What stands now where the baseline saw things; without one, what the program that ended would find."""
    own = run.own
    if base is None:
        seen = run.facts or ProcessFacts(argv=run.process.argv, exe=run.process.exe, cwd=run.cwd, own_root=root is None)
        return take(msgspec.structs.replace(seen, pid=None, root=root), lockfile=run.lockfile)
    now = take_again(base, root=root, mapped=mapped, lockfile=run.lockfile)
    if own is None:
        return now
    same = {"pid": base.pid, "start_ns": base.start_ns} if base is own else {}
    return msgspec.structs.replace(now, environment=own.environment, image=own.image or now.image, **same)


def same_run(baseline: Baseline, process: Process) -> bool:
    """Whether a baseline is of this very process."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii", "replace").strip()
    begun_ns = baseline.start_ns
    same = (baseline.boot_id, baseline.pid) == (boot_id, process.pid)
    return same and begun_ns is not None and same_identity(begun_ns, process.start_ns)


def lives(run: Run) -> bool:
    """Whether the process is still there, and no other has its number."""
    start_ns = start_ns_of(run.process.pid)
    return start_ns is not None and same_identity(start_ns, run.process.start_ns)


def body_of(pid: int, argv: tuple[str, ...]) -> int:
    """What a shell or wrapper runs: it says little of itself, and what it runs is what can drift."""
    for _ in range(BODIES_LIMIT):
        if not (is_wrapper(argv) or program_name(argv[:1], "") in SHELLS):
            break
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii", "replace").split()
            child = int(children[0])
            argv = tuple(Path(f"/proc/{child}/cmdline").read_text("utf-8", "replace")[:4096].split("\0"))
        except (OSError, ValueError, IndexError):
            break
        pid = child
    return pid


def cwd_of(process: Process) -> str | None:
    """Its folder, or that of its parent if it is gone already: a child starts where its parent is."""
    for pid in (process.pid, process.ppid):
        with contextlib.suppress(OSError):
            return str(Path(f"/proc/{pid}/cwd").readlink())
    return None


def root_of(process: Process) -> int | None:
    """A descriptor of its root, where that is not ours."""
    ours = Path("/").stat()
    for pid in (process.pid, process.ppid):
        with contextlib.suppress(OSError):
            opened = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            status = os.fstat(opened)
            if (status.st_dev, status.st_ino) != (ours.st_dev, ours.st_ino) and opened < DESCRIPTORS_LIMIT:
                return opened
            os.close(opened)
            return None
    return None
