"""Two of its threads take two locks in opposite order, and each waits for ever for the one that the other holds."""

import signal
import sys
import threading
import time

CAUSE = "hang/deadlock"
ROOTLESS = None
MEMORY_MIB = 128
RUNS = 0

memory, journal = threading.Lock(), threading.Lock()
both = threading.Barrier(2)


def remember() -> None:
    """Keep what the model said, and note that in the journal."""
    with memory:
        both.wait()
        with journal:
            pass


def report() -> None:
    """Write the journal, and look up what it is about."""
    with journal:
        both.wait()
        with memory:
            pass


def main() -> None:
    """Live a little, then hang; after a minute the alarm is the end of it anyway."""
    signal.alarm(60)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    time.sleep(float(sys.argv[1]))
    threads = [threading.Thread(target=remember), threading.Thread(target=report)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
