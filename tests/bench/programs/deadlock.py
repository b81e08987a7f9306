"""Two threads that wait for each other's lock, and idle threads up to the number that was asked for."""

import sys
import threading
import time

FIRST, SECOND = threading.Lock(), threading.Lock()
READY = threading.Barrier(2)


def cross(own: threading.Lock, other: threading.Lock) -> None:
    """Take one lock, then want the other, when the other thread has done the same."""
    with own:
        READY.wait()
        with other:
            pass


for locks in ((FIRST, SECOND), (SECOND, FIRST)):
    threading.Thread(target=cross, args=locks, daemon=True).start()
for _ in range(int(sys.argv[1]) - 3):
    threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
print("ready", flush=True)
time.sleep(300)
