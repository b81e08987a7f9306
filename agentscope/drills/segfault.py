"""Its native code follows a null pointer, and the kernel ends it by SIGSEGV."""

import ctypes
import signal
import sys
import time

CAUSE = "crash/segfault"
ROOTLESS = None
MEMORY_MIB = 128
RUNS = 0


def tokenize(text: str) -> bytes:
    """What a wrong binding does: it takes an index for an address, and reads there."""
    return ctypes.string_at(text.find("hello"))


def main() -> None:
    """Live a little, then read at address 0."""
    signal.alarm(60)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    time.sleep(float(sys.argv[1]))
    tokenize("hello")


if __name__ == "__main__":
    main()
