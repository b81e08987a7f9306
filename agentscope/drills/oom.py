"""It keeps everything that it ever read. At the memory limit of its cgroup the kernel ends it.

Python gets MemoryError instead where no cgroup can be made for it: there the limit is one of its address space.
"""

import signal
import sys
import time

CAUSE = "oom/cgroup"
ROOTLESS = "oom/runtime-heap"
MEMORY_MIB = 96
RUNS = 0
PAGE_BYTES = 4 << 20


def read_more(history: list[bytes]) -> None:
    """Another page of the conversation, and nothing is ever forgotten."""
    history.append(b"x" * PAGE_BYTES)
    time.sleep(0.03)


def main() -> None:
    """Live a little, then grow; 256 MiB would be the end of it anyway."""
    signal.alarm(60)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    time.sleep(float(sys.argv[1]))
    history: list[bytes] = []
    for _ in range(64):
        read_more(history)


if __name__ == "__main__":
    main()
