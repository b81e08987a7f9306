"""Build hook of the wheel: compiles the probes, so that whoever installs the wheel needs no compiler and no kernel headers."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OBJECT = "agentscope/sources/probes/core.bpf.o"


class ProbesHook(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore] # hatchling need not be installed to check types
    """Runs `make -C bpf` before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface of hatchling
        """Compile; where there is no clang, an object that somebody else compiled is taken as it is."""
        root = Path(self.root)
        probes = root / OBJECT
        if shutil.which("clang") and shutil.which("make"):
            subprocess.run(["make", "--silent", "-C", str(root / "bpf")], check=True)
        elif not probes.exists():
            raise RuntimeError(
                f"the probes are not compiled ({probes}) and clang or make is missing. "
                "Try: apt-get install clang llvm libbpf-dev bpftool make, or install a wheel"
            )
        if self.target_name == "wheel":
            # The probes read x86-64 registers, so the wheel is of this architecture; it links no C library, so of no particular one.
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"
            build_data["artifacts"].append(OBJECT)
