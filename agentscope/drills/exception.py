"""The model answers with an error, which it does not expect: an exception that nobody catches ends it."""

import json
import signal
import sys
import time

CAUSE = "exception/uncaught"
ROOTLESS = None
MEMORY_MIB = 128
RUNS = 0


def next_step(reply: str) -> str:
    """What the model wants done next."""
    step: str = json.loads(reply)["choices"][0]["message"]["content"]
    return step


def main() -> None:
    """Live a little, then trust the shape of an answer."""
    signal.alarm(60)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    time.sleep(float(sys.argv[1]))
    next_step('{"error": {"message": "overloaded"}}')


if __name__ == "__main__":
    main()
