"""Other kernels, in an emulator: only when they are asked for with `-m kernels`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_table import TABLE, table_of

LAB = Path(os.environ.get("AGENTSCOPE_KERNEL_LAB", Path(__file__).parents[3] / "shared" / "lab" / "kernel-lab.sh"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out of the ordinary run: each boots a machine."""
    if "kernels" in config.getoption("markexpr"):
        return
    booting = [item for item in items if item.get_closest_marker("kernels")]
    if booting:
        config.hook.pytest_deselected(items=booting)
        items[:] = [item for item in items if item not in booting]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of scenarios by kernel and engine, where those were played."""
    worths = config.stash.get(TABLE, {})
    if worths:
        terminalreporter.section("scenario by kernel and engine")
        terminalreporter.write_line("\n".join(table_of(worths)))


@pytest.fixture(scope="session")
def lab() -> Path:
    """The script that boots another kernel."""
    if not LAB.exists():
        pytest.skip(f"no kernel lab at {LAB}: set AGENTSCOPE_KERNEL_LAB to a script that takes `--kernel V --rw DIR -- CMD`")
    if shutil.which("qemu-system-x86_64") is None:
        installed = subprocess.run([LAB, "--install"], capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            pytest.skip(f"qemu cannot be installed: {installed.stderr.strip()[-300:]}")
    return LAB
