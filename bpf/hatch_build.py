"""Compiles the probes when a wheel is built, so that its user needs no compiler."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TOOLS = ("make", "clang", "bpftool", "llvm-strip")
OBJECT = Path("agentscope") / "sources" / "probes" / "core.bpf.o"


class ProbesHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is untyped here
    """Runs bpf/Makefile; where its tools are missing, probes built before are taken as they are."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each target; a source distribution and an editable install carry no promise of probes."""
        del build_data
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if not missing:
            subprocess.run(["make", "-C", str(Path(self.root) / "bpf")], check=True)
        elif self.target_name == "wheel" and version != "editable" and not (Path(self.root) / OBJECT).exists():
            raise SystemExit(
                f"the probes cannot be built: {', '.join(missing)} not found. Try: apt install clang llvm bpftool libbpf-dev make"
            )
