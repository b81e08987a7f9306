"""What the probes are told of a process that runs Python: where its `_PyRuntime` is, and the offsets from there to its frames."""

from dataclasses import dataclass

from agentscope.sources.wire import EXE_KEY, PYTHON_EXE, PYTHON_LAYOUT, PYTHON_PROCESS
from agentscope.symbols.cpython import RuntimeFinder


@dataclass(frozen=True)
class Knowledge:
    """What to put into the maps for one process: `process` by its pid, `exe` under `exe_key` for others that run the same."""

    process: bytes
    exe_key: bytes
    exe: bytes


class PythonFinder:
    """Finds Python in processes, and says it as the probes read it."""

    def __init__(self) -> None:
        self._finder = RuntimeFinder()

    def look(self, pid: int) -> Knowledge | None:
        """None if the process is gone, may not be looked at, or runs no Python that is known."""
        place = self._finder.find(pid)
        if place is None:
            return None
        runtime, exe = place.runtime, place.exe
        layout = PYTHON_LAYOUT.packed.pack(*runtime.layout, 0)
        # Python in a library: code, rendezvous with the dynamic linker, library; in the executable: its code says where it is.
        way = (exe.code_vaddr, exe.debug_vaddr, runtime.dynamic_vaddr) if place.in_library else (exe.code_vaddr, 0, 0)
        return Knowledge(
            PYTHON_PROCESS.packed.pack(place.address, layout),
            EXE_KEY.packed.pack(place.exe_inode, place.exe_bytes),
            PYTHON_EXE.packed.pack(*way, runtime.vaddr, layout),
        )
