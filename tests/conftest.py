"""What every test may count on."""

import signal


def pytest_configure() -> None:
    """Ctrl-C ends what a test starts also where a shell runs the tests in the background, which has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
