"""What code was mapped when the process ended: the executables and libraries, by path and inode."""

from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.fault import CORE_SIGNALS
from agentscope.model import Mapping

ABSENT = "it did not die of a fault, so its mappings were not taken"


class MemoryMap(Evidence, frozen=True, tag="memory-map"):
    """The executable, file-backed mappings, lowest address first."""

    mappings: tuple[Mapping, ...]

    def says(self) -> str:
        """One sentence for a person."""
        return f"{len({mapping.path for mapping in self.mappings})} executable files were mapped"


def collect(scene: Scene) -> MemoryMap | Missing | None:
    """From the exit probe's walk over the address space; only taken for deaths by a fault signal."""
    if scene.exit.mappings:
        return MemoryMap(source="address space at tracepoint sched:sched_process_exit", mappings=scene.exit.mappings)
    if scene.exit.signal not in CORE_SIGNALS:
        return None
    return Missing(kind="memory-map", because="this kernel frees the address space before the exit probe can read it")
