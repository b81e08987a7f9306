"""A cgroup of its own for one command of ours: limits on memory and processes, and an end for everybody in it.

With cgroups of version 1 it is made below our own for each controller. With version 2 a cgroup that has processes cannot hand its
controllers on (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"): there the limits need a cgroup that was
delegated to us (systemd's Delegate=yes with DelegateSubgroup=), else the cage only knows and ends its processes.
"""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from agentscope.examination.proc import read_proc
from agentscope.model import Value
from agentscope.stopping.cgroups import Group, hierarchies, kill_all, numbers, write

PREFIX = "agentscope-cage-"
MEMORY_BYTES = 256 << 20
PIDS = 64
EMPTY_S = 3.0
_MEMORY = {True: "memory.max", False: "memory.limit_in_bytes"}


class Cage(Value, frozen=True):
    """The cgroups that were made, and which limits they hold; with none of them a command runs where we do."""

    groups: tuple[Group, ...] = ()
    holds: tuple[str, ...] = ()
    memory_bytes: int = MEMORY_BYTES

    @property
    def folders(self) -> tuple[str, ...]:
        """To be entered before it begins."""
        return tuple(group.folder for group in self.groups)

    def hits(self) -> tuple[str, ...]:
        """Which limits were reached, in words."""
        told = []
        for group in self.groups:
            ended = field(f"{group.folder}/{'memory.events' if group.unified else 'memory.oom_control'}", "oom_kill")
            if ended:
                told.append(f"it was ended at its limit of {self.memory_bytes >> 20} MiB")
            if field(f"{group.folder}/pids.events", "max"):
                told.append(f"it reached its limit of {PIDS} processes")
        return tuple(told)


@contextlib.contextmanager
def cage(name: str, memory_bytes: int = MEMORY_BYTES, *, anywhere: bool = False) -> Iterator[Cage]:
    """A cage for one command; at its end whoever is still in it is killed, and it is removed.

    `anywhere`: also in a cgroup that is not ours to share out, such as the slice of a user, where only there limits can be had. For
    a moment and by hand that does no harm; a daemon does not do so ("delegation" in systemd's CGROUP_DELEGATION).
    """
    made, holds = [], []
    for parent, controllers in homes(anywhere=anywhere):
        tidy(parent)
        group = Group(
            folder=f"{parent.folder}/{PREFIX}{name}-{os.getpid()}-{os.urandom(4).hex()}",
            path=parent.path,
            unified=parent.unified,
            names=parent.names,
        )
        try:
            Path(group.folder).mkdir(0o755)
        except OSError:
            continue
        made.append(group)
        if "memory" in controllers and write(f"{group.folder}/{_MEMORY[group.unified]}", str(memory_bytes).encode()):
            holds.append("memory")
            write(f"{group.folder}/memory.swap.max", b"0")
            write(f"{group.folder}/memory.memsw.limit_in_bytes", str(memory_bytes).encode())
        if "pids" in controllers and write(f"{group.folder}/pids.max", str(PIDS).encode()):
            holds.append("processes")
    try:
        yield Cage(groups=tuple(made), holds=tuple(holds), memory_bytes=memory_bytes)
    finally:
        for group in made:
            write(f"{group.folder}/pids.max", b"0")  # nobody is born while the others are killed
        for group in made:
            end(group)


def homes(*, anywhere: bool = False) -> list[tuple[Group, frozenset[str]]]:
    """The cgroups below which a cage can be made, with the controllers that it would have."""
    mounted = hierarchies()
    found: list[tuple[Group, frozenset[str]]] = []
    for line in (read_proc("/proc/self/cgroup") or b"").decode("utf-8", "surrogateescape").splitlines()[:64]:
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        place = mounted.get(names)
        if not colon or place is None or ".." in path.split("/"):
            continue
        own = Group(folder=(place + path).rstrip("/"), path=path, unified=not names, names=names)
        held = frozenset(names.split(",")) & {"memory", "pids"}
        if held:
            found.append((own, held))
        elif own.unified:
            found.append(home_of(own, anywhere=anywhere))
    # the unified hierarchy beside those of version 1 has no controllers, and nothing to add to them
    return [each for each in found if each[1]] or found[:1]


def home_of(own: Group, *, anywhere: bool = False) -> tuple[Group, frozenset[str]]:
    """Of version 2: our own cgroup if it hands controllers on, the one above if it was delegated to us, else ours without limits."""
    for group in (own, *itertools.islice(above(own), None if anywhere else 1)):
        if group is not own and not (anywhere or delegated(group)):
            continue
        held = frozenset((read_proc(f"{group.folder}/cgroup.subtree_control") or b"").decode("ascii", "replace").split())
        if held & {"memory", "pids"}:
            return group, held
    return own, frozenset()


def above(group: Group) -> Iterator[Group]:
    """The cgroups that hold this one, up to the root, which holds all."""
    while (upper := group.above) is not None:
        yield upper
        group = upper


def delegated(group: Group) -> bool:
    """Whether systemd gave this cgroup away (systemd.resource-control(5), Delegate=: an extended attribute says so)."""
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group.folder, name) == b"1":
                return True
    return False


def field(path: str, name: str) -> int:
    """A number of a flat file of a cgroup; 0 where there is none."""
    for line in (read_proc(path) or b"").decode("ascii", "replace").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def end(group: Group) -> None:
    """Kill everybody in a cage and remove it; what cannot end within some seconds is left, and cleared by a later cage."""
    until = time.monotonic() + EMPTY_S
    while time.monotonic() < until:
        if not kill_all(group):
            for pid in numbers(f"{group.folder}/cgroup.procs"):
                kill_in(group, pid)
        try:
            Path(group.folder).rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return


def kill_in(group: Group, pid: int) -> None:
    """Kill one process of a cage, if it still is the one that was found there."""
    with contextlib.suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            if pid in set(numbers(f"{group.folder}/cgroup.procs")):
                signal.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)


def tidy(parent: Group) -> None:
    """Remove what cages before left empty."""
    with contextlib.suppress(OSError), os.scandir(parent.folder) as entries:
        for left in [entry.path for entry in entries if entry.name.startswith(PREFIX)]:
            with contextlib.suppress(OSError):  # one that is in use has processes, or is about to
                if not set(numbers(f"{left}/cgroup.procs")) and time.time() - Path(left).stat().st_mtime > 3600:
                    Path(left).rmdir()
