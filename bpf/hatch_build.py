"""Build hook of the wheel: compiles the probes, so that whoever installs the wheel needs no compiler and no kernel headers."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROBES = "agentscope/sources/probes"
MACHINES = ("x86_64", "aarch64")
OBJECTS = (f"{PROBES}/bcc.c", *(f"{PROBES}/{machine}/{name}.bpf.o" for machine in MACHINES for name in ("core", "examine")))


class ProbesHook(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore] # hatchling need not be installed to check types
    """Runs `make -C bpf` before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface of hatchling
        """Compile; where there is no clang, objects that somebody else compiled are taken as they are."""
        root = Path(self.root)
        missing = [name for name in OBJECTS if not (root / name).exists()]
        if shutil.which("clang") and shutil.which("make"):
            subprocess.run(["make", "--silent", "-C", str(root / "bpf")], check=True)
        elif missing:
            raise RuntimeError(
                f"the probes are not compiled ({', '.join(missing)}) and clang or make is missing. "
                "Try: apt-get install clang llvm libbpf-dev bpftool make, or install a wheel"
            )
        if self.target_name == "wheel":
            # it carries the probes for every processor, and they link no C library: one wheel for all
            build_data["tag"] = "py3-none-any"
            build_data["artifacts"].extend(OBJECTS)
