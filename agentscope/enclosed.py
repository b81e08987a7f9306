"""Who is meant by a number from inside a container, or by a container's name; and what a runtime says of a container that lives.

A number typed by a person may be the one that `ps` showed inside: it is looked for among the processes of other pid namespaces
(NSpid of /proc/PID/status). Where several have it, they are listed, and CONTAINER:PID says which is meant.
"""

import re
from pathlib import Path

from agentscope.agents import memory_cgroup_of
from agentscope.distributions import plain
from agentscope.distributions.enclosing import Enclosure, enclosure_of, of_labels
from agentscope.errors import UsageError
from agentscope.lastseen import numbers_inside
from agentscope.model import Value

WITH_PLACE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,127}):(\d{1,7})$")
LISTED = 8


class Inside(Value, frozen=True):
    """A live process of another pid namespace: its number here and inside, its name and its container."""

    pid: int
    number: int
    comm: str
    container: Enclosure | None

    def says(self) -> str:
        """As it is listed."""
        where = f" in {self.container.says()}" if self.container is not None else " in a pid namespace of its own"
        return f"{self.pid} ({self.comm}, {self.number} inside{where})"


def insides(number: int | None = None) -> list[Inside]:
    """The live processes that have this number in a pid namespace below ours (None: all of them)."""
    own = Path("/proc/self/ns/pid").readlink()
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            if (place / "ns/pid").readlink() == own:
                continue
            comm = (place / "comm").read_text("utf-8", "replace").strip()
        except OSError:
            continue
        numbers = numbers_inside(int(place.name))
        if numbers and (number is None or numbers[-1] == number):
            container = asked(memory_cgroup_of(int(place.name)))
            found.append(Inside(pid=int(place.name), number=numbers[-1], comm=plain(comm, 64), container=container))
    return sorted(found, key=lambda each: each.pid)


def asked(cgroup: str | None) -> Enclosure | None:
    """The container of a cgroup, by the runtime's records, else by asking the runtime itself."""
    known = enclosure_of(cgroup)
    if known is None or known.name is not None:
        return known
    from agentscope.aftermath.asking import Unanswered
    from agentscope.aftermath.runtimes import places, tell

    for at in places():
        try:
            told = tell(at, known.id)
        except (Unanswered, OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue
        if told is None or not told.get("Name"):
            continue
        config = told.get("Config") or {}
        image = told.get("ImageName") or config.get("Image")
        return Enclosure(
            id=known.id, runtime=known.runtime, source=f"the runtime at {at.partition(':')[2] or at}", name=plain(str(told["Name"]).lstrip("/")),
            image=plain(str(image)) if image else None, pod=of_labels(known, config.get("Labels") or {}),
        )  # fmt: skip
    return known


def is_called(each: Inside, name: str) -> bool:
    """Whether a process is in the container of this name or id."""
    container = each.container
    return container is not None and (container.name == name or (len(name) >= 4 and container.id.startswith(name)))


def meant(who: str) -> int | None:
    """The live process that CONTAINER:PID or the name of a container means (there its first process); None where it means none.

    Raises:
        UsageError: several are meant.
    """
    placed = WITH_PLACE.match(who)
    name, number = (placed[1], int(placed[2])) if placed else (who, None)
    found = [each for each in insides(number) if is_called(each, name)]
    if number is None and found:
        first = min(each.number for each in found)
        found = [each for each in found if each.number == first]
    return the_one(who, found)


def the_one(who: str, found: list[Inside]) -> int | None:
    """The one that was found; None where none was.

    Raises:
        UsageError: several were, and which are listed.
    """
    if len(found) > 1:
        listed = ", ".join(each.says() for each in found[:LISTED])
        raise UsageError(f"{len(found)} processes are {who} inside", listed, f"agentscope diagnose {found[0].pid}")
    return found[0].pid if found else None
