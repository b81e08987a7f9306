"""What every test may count on."""

import signal

import pytest


def pytest_configure() -> None:
    """Ctrl-C ends what a test starts also where a shell runs the tests in the background, which has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a busy machine held up is tried once more, and shown as R; a scenario is played once, so a wrong verdict stays wrong."""
    for each in items:
        each.add_marker(pytest.mark.flaky(reruns=1))
