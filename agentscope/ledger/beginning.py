"""Begins a chain in a process of its own: makes the keys, signs the first head, ends.

The library that does that costs 9 MiB of resident memory once it is loaded, and whoever watches may never have anything to record:
so he does not load it, and the first record follows a chain that is there already. Where this process cannot be had, or does not
come to an end, the chain is begun by the first append as well.
"""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from agentscope.errors import CannotWrite
from agentscope.ledger.appending import Appender
from agentscope.ledger.places import FOLDER, HEAD, segments_in

BEGIN_S = 10.0
LOCK_S = 5.0


def begin_beside(state: Path, anchor: str) -> None:
    """Begin the chain of this state directory where there is nothing of one. Whether that worked is seen when its end is looked for.

    Records without a head, or a head that cannot be read, are not for this process to mend: what is wrong with them has to be told.
    """
    folder = state / FOLDER
    if not sys.executable or (folder / HEAD).exists() or (folder.is_dir() and segments_in(folder)):
        return
    # -P: nothing is loaded from the folder that we happen to be in
    argv = [sys.executable, "-P", "-m", "agentscope.ledger.beginning", str(state), anchor]
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        subprocess.run(
            argv,
            timeout=BEGIN_S,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def main(state: str, anchor: str) -> None:
    """Look where the chain ends, which begins it where there is none; what is wrong is for whoever appends to tell."""
    appender = Appender(Path(state), anchor)
    with suppress(OSError, CannotWrite), appender.held(LOCK_S):
        pass
    appender.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
