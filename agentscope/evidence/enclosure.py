"""What the process lived in: a container with its name, image and pod, or namespaces of its own; and its number inside."""

from agentscope.distributions.enclosing import Enclosure, enclosure_of
from agentscope.evidence import AnyScene, Evidence, Scene

ABSENT = "it lived in no container and in no pid namespace of its own"


class Enclosed(Evidence, frozen=True, tag="enclosure"):
    """`pid` is its number here outside, `pid_inside` the one in its own pid namespace (None: not known, or the same).

    `namespaces` are those of its own, as /proc/PID/ns names them; `container` is None where it is in none that a runtime made.
    """

    pid: int
    pid_inside: int | None
    namespaces: tuple[str, ...]
    container: Enclosure | None

    def says(self) -> str:
        """One sentence for a person."""
        inside = f"pid {self.pid} here is pid {self.pid_inside} inside" if self.pid_inside is not None else ""
        where = self.container.says() if self.container is not None else f"namespaces of its own ({', '.join(self.namespaces)})"
        return f"it lived in {where}{'; ' if inside else ''}{inside}"


def collect(scene: AnyScene) -> Enclosed | None:
    """From what was read while it lived, the path of its cgroup, and the records of its runtime."""
    seen, process = scene.last_seen, scene.process
    container = scene.enclosure or enclosure_of(process.cgroup or scene.agent.cgroup)
    numbers = seen.pids_inside if seen is not None else ()
    inside = numbers[-1] if numbers else None
    if isinstance(scene, Scene) and scene.past is not None and inside is None:
        inside = scene.past.pid_inside
    namespaces = seen.namespaces if seen is not None else ()
    if container is None and inside is None and "pid" not in namespaces:
        return None
    return Enclosed(
        source=container.source if container is not None else "/proc/PID/status and /proc/PID/ns while it lived",
        pid=process.pid,
        pid_inside=inside,
        namespaces=namespaces,
        container=container,
    )
