"""The cgroups of one victim, whichever hierarchy has the memory controller."""

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path


def hierarchies() -> tuple[Path, Path, bool]:
    """Where our memory cgroup and our v2 cgroup are, and whether memory is controlled by v1."""
    v1, memory, unified = Path("/sys/fs/cgroup/memory"), "/", "/"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            memory = path
        elif number == "0":
            unified = path
    if v1.is_dir():
        return v1 / memory.lstrip("/"), Path("/sys/fs/cgroup/unified") / unified.lstrip("/"), True
    return Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"), False


class Cage:
    """The cgroups of one victim: `memory` with the limit, `unified` in the v2 hierarchy (the same folder where v2 has memory)."""

    serial = itertools.count(1)  # several may be made at once

    def __init__(self, limit_mib: int, *, nested: bool) -> None:
        name = f"zoo-{os.getpid()}-{next(Cage.serial)}"
        memory_root, unified_root, v1 = hierarchies()
        limited = memory_root / name
        self.folders = [limited] + ([limited / "agent"] if nested else []) + ([unified_root / name] if v1 else [])
        if not v1:
            with contextlib.suppress(OSError):
                (memory_root / "cgroup.subtree_control").write_text("+memory")
        for folder in self.folders:
            folder.mkdir()
        self.limit_path = limited
        (limited / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit_mib << 20))
        swap = limited / ("memory.memsw.limit_in_bytes" if v1 else "memory.swap.max")
        with contextlib.suppress(OSError):
            swap.write_text(str(limit_mib << 20) if v1 else "0")
        self.memory = limited / "agent" if nested else limited
        self.unified = self.folders[-1] if v1 else self.memory
        self.joined = [self.memory, self.unified] if v1 else [self.memory]

    def close(self) -> None:
        """End whatever is left in them and remove them."""
        for _ in range(100):
            left = {int(pid) for folder in self.folders for pid in (folder / "cgroup.procs").read_text().split()}
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for folder in reversed(self.folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
