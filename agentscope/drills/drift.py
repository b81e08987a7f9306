"""It runs well; then a library that it imports is upgraded, and its next run finds that the function it calls is gone.

It has a venv of its own, and a library in it that is installed as pip would: 1.4.0 at first, then 2.0.0.
"""

import signal
import sys
import time

CAUSE = "drift/python-import"
ROOTLESS = None
MEMORY_MIB = 128
RUNS = 1

# What is installed before each run.
LIBRARY = "drill_planner"
VERSIONS = (
    ("1.4.0", "def plan(goal):\n    return [goal]\n"),
    ("2.0.0", "def make_plan(goal, *, model=None):\n    return [goal]\n"),
)


def main() -> None:
    """Plan, live on and end well when it is told to, as long as the library is what it was."""
    signal.alarm(60)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    from drill_planner import plan  # type: ignore[import-not-found] # of the sandbox

    plan("be useful")
    time.sleep(float(sys.argv[1]))
    sys.stdin.readline()


if __name__ == "__main__":
    main()
