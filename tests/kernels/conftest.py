"""Other kernels, in an emulator: only when they are asked for with `-m kernels`."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out of the ordinary run: each boots a machine."""
    if "kernels" in config.getoption("markexpr"):
        return
    booting = [item for item in items if item.get_closest_marker("kernels")]
    if booting:
        config.hook.pytest_deselected(items=booting)
        items[:] = [item for item in items if item not in booting]
