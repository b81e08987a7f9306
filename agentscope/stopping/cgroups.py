"""The cgroups of an agent: which of them are its own, so that everybody in them is ended with it, and how they are thawed and killed.

A cgroup of a unit or of a container is made for it alone; any other is the agent's own only if every process in it is known as one
of its tree. Never ours, never one above ours. Sources: cgroups(7), proc_pid_mountinfo(5), Documentation/admin-guide/cgroup-v2.rst
("cgroup.kill", "cgroup.freeze"), cgroup-v1/freezer-subsystem.rst.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping

from agentscope.agents import container_of
from agentscope.examination.proc import read_proc
from agentscope.model import Value

MOST_FOLDERS = 1024


class Group(Value, frozen=True):
    """One cgroup: its folder, its path in its hierarchy, and whether that is the one of version 2. `names` are its controllers."""

    folder: str
    path: str
    unified: bool
    names: str = ""

    @property
    def above(self) -> "Group | None":
        """The cgroup that holds this one; None at the root, which is nobody's own."""
        path = self.path.rpartition("/")[0]
        return Group(folder=self.folder.rpartition("/")[0], path=path, unified=self.unified, names=self.names) if path else None


def groups_of(pid: int, places: Mapping[str, str]) -> list[Group]:
    """The cgroups of a process below `places`, one a hierarchy, version 2 first; those at a root are left out."""
    found = []
    for line in (read_proc(f"/proc/{pid}/cgroup") or b"").decode("utf-8", "surrogateescape").splitlines()[:64]:
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        place = places.get(names)
        if not colon or place is None or path in {"", "/"} or ".." in path.split("/") or path.endswith(" (deleted)"):
            continue
        found.append(Group(folder=place + path, path=path, unified=not names, names=names))
    return sorted(found, key=lambda group: not group.unified)


def hierarchies() -> dict[str, str]:
    """Where each hierarchy is mounted whole, by its controllers as /proc/PID/cgroup writes them; "" is version 2."""
    found: dict[str, str] = {}
    for line in (read_proc("/proc/self/mountinfo", 1 << 20) or b"").decode("utf-8", "surrogateescape").splitlines():
        mount, _, kind = line.partition(" - ")
        fields, words = mount.split(" "), kind.split(" ")
        if len(fields) < 5 or len(words) < 3 or words[0] not in {"cgroup", "cgroup2"} or fields[3] != "/":
            continue
        found.setdefault("" if words[0] == "cgroup2" else controllers(words[2]), fields[4])
    return found


def controllers(options: str) -> str:
    """The controllers among the options of a mount of version 1, in the order of /proc/PID/cgroup."""
    plain = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"}
    return ",".join(each for each in options.split(",") if each not in plain and not each.startswith("release_agent="))


def pids_in(group: Group) -> set[int]:
    """Every process in a cgroup and in those below it; bounded, and what goes away meanwhile is passed over."""
    return {pid for folder in folders(group) for pid in numbers(f"{folder}/cgroup.procs")}


def folders(group: Group) -> Iterator[str]:
    """The folder of a cgroup and those below."""
    for folder, _, _ in itertools.islice(os.walk(group.folder), MOST_FOLDERS):
        yield folder


def numbers(path: str) -> Iterator[int]:
    """The numbers in a file of lines of numbers; none where it is gone or of another kind (a threaded cgroup)."""
    for word in (read_proc(path, 1 << 20) or b"").split():
        if word.isdigit():
            yield int(word)


def is_own(group: Group, pid: int, known: Mapping[int, int], starts: Mapping[int, int], never: Iterable[int]) -> bool:
    """Whether a cgroup is this agent's alone: `known` are its processes, `starts` those of the host, by pid with their start time."""
    inside = pids_in(group)
    if not inside or not inside.isdisjoint(never):
        return False
    if inside <= known.keys():
        return True
    name = group.path.rpartition("/")[2]
    made_for_one = name.endswith(".service") and not name.startswith("user@")
    container = container_of(group.path)
    if not made_for_one and (container is None or container not in name):
        return False
    # a unit's first process is the oldest in it; sshd.service and its like have agents that are younger
    return pid in inside and pid in starts and all(starts[pid] <= starts[each] for each in inside if each in starts)


def kill_all(group: Group) -> bool:
    """Kill everybody in a cgroup of version 2 at once (kernel 5.14 and later); False where that cannot be done."""
    return group.unified and write(f"{group.folder}/cgroup.kill", b"1")


def thaw(group: Group) -> bool:
    """Undo the freezing of one cgroup, if it is that which was told to freeze; tells whether it was."""
    if group.unified and (read_proc(f"{group.folder}/cgroup.freeze") or b"").strip() == b"1":
        return write(f"{group.folder}/cgroup.freeze", b"0")
    if "freezer" in group.names.split(",") and (read_proc(f"{group.folder}/freezer.self_freezing") or b"").strip() == b"1":
        return write(f"{group.folder}/freezer.state", b"THAWED")
    return False


def is_frozen(pid: int) -> bool:
    """Whether a process is in a frozen cgroup of version 1, where not even SIGKILL reaches it until that is thawed."""
    states = (
        read_proc(f"{group.folder}/freezer.state")
        for group in groups_of(pid, hierarchies())
        if "freezer" in group.names.split(",")
    )
    return any((state or b"").startswith(b"FR") for state in states)


def write(path: str, text: bytes) -> bool:
    """Write to a file of a cgroup; False where the kernel refuses or it is not there."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return os.write(opened, text) == len(text)
    except OSError:
        return False
    finally:
        os.close(opened)
