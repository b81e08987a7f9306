"""Kills a writer at every step of its work: `python -m tests.ledger_crasher FOLDER SCENARIO` ends with the number of steps.

The writer is a fork whose calls that change a disk are counted; at the n-th it does half of it (a write) or nothing, and is gone.
After each death the ledger must be whole, must have what was confirmed, and must go on.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from agentscope.ledger import Ledger, Settings, upkeep
from agentscope.model import Lost
from tests.ledger_builders import anchored, copied, is_whole, kept, lines

CALLS = ("write", "fsync", "open", "rename", "unlink", "ftruncate", "mkdir", "fchmod")
GONE = 9
STEPS_LIMIT = 2000


def dying(at: int) -> None:
    """From now on this process ends at the `at`-th call that changes a disk."""
    left = [at]

    def wrapped(name: str, real: Callable) -> Callable:
        def call(*given, **named):
            if name == "open" and not given[1] & (os.O_CREAT | os.O_TRUNC):
                return real(*given, **named)
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    real(given[0], bytes(given[1])[: len(given[1]) // 2])
                os._exit(GONE)
            return real(*given, **named)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def life(state: Path, settings: Settings, at: int, confirmed: Path) -> int:
    """One writer that dies at this step, or does not get there; its wait status."""
    child = os.fork()
    if child == 0:
        told = os.open(confirmed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        real = os.write
        upkeep.HEAD_S = 0  # every sync is followed by a head: more steps to die at
        dying(at)
        ledger = Ledger(state, settings)
        for line in lines(4, "life"):
            ledger.append(line, durable=True)
            real(told, b".")
        ledger.close(20)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def check(state: Path, settings: Settings, confirmed: int) -> None:
    """Whole at once, whole after the next writer, and nothing of what was confirmed is lost."""
    is_whole(state, settings)
    kept(state, 1, settings, "afterwards")
    found = is_whole(state, settings)
    assert not found.unsigned, found.unsigned
    told = [envelope.data for envelope in Ledger(state).read() if isinstance(envelope.data, Lost)]
    of_life = [loss.count for loss in told if loss.says == "life"]
    retired = found.retired or 0
    assert of_life == sorted(set(of_life))
    assert retired or len(of_life) >= confirmed, (of_life, confirmed)
    assert told[-1].says == "afterwards"


def main() -> None:
    """Every step of one scenario."""
    place, scenario = Path(sys.argv[1]), sys.argv[2]
    base, state = place / "base", place / "state"
    small = {"segment_bytes": 1200, "keep_bytes": 4000 if scenario == "retention" else 1 << 30}
    settings = anchored(place, **(small if scenario != "beginning" else {}))
    if scenario != "beginning":
        kept(base, 9, settings, "before")
    for step in range(1, STEPS_LIMIT):
        for name in ("anchors", "confirmed"):
            (place / name).unlink(missing_ok=True)
        if scenario == "beginning":
            copied(place / "nothing", state)
        else:
            copied(base, state)
        status = life(state, settings, step, place / "confirmed")
        confirmed = (place / "confirmed").stat().st_size if (place / "confirmed").exists() else 0
        check(state, settings, confirmed)
        if status == 0:
            assert confirmed == 4
            print(step - 1)
            return
        assert os.waitstatus_to_exitcode(status) == GONE


if __name__ == "__main__":
    (Path(sys.argv[1]) / "nothing").mkdir()
    main()
