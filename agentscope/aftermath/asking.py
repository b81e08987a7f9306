"""Asking the programs that keep records: no shell, no colours, a time limit, and no more of the answer than is useful."""

import os
import subprocess
import threading

from agentscope.commands import PATH

LIMIT_S = 5.0
LIMIT_BYTES = 16 << 20


class Unanswered(Exception):
    """The program is not there, or fails, or takes too long; the text says why."""


def answer(*command: str, limit_s: float = LIMIT_S, both: bool = False) -> bytes:
    """What a program says on standard output (with `both` on standard error too); the first 16 MiB of it.

    Raises:
        Unanswered: it cannot be run, refuses, or is not done in time.
    """
    kept = {name: value for name, value in os.environ.items() if name.startswith(("CONTAINERS_", "DOCKER_"))}
    try:
        asked = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if both else subprocess.PIPE,
            env={"PATH": PATH, "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0", "HOME": "/root", **kept},
        )  # fmt: skip
    except OSError as error:
        raise Unanswered(f"{command[0]} cannot be run ({error.strerror})") from None
    late = threading.Timer(limit_s, asked.kill)
    late.start()
    try:
        with asked:
            assert asked.stdout is not None
            said = asked.stdout.read(LIMIT_BYTES)
            flooded = len(said) == LIMIT_BYTES
            if flooded:
                asked.kill()
            refusal = asked.stderr.read(4096).decode("utf-8", "replace").strip() if asked.stderr is not None else ""
    finally:
        late.cancel()
    if asked.returncode != 0 and not flooded:
        said_why = " ".join(refusal.split())[:200]
        raise Unanswered(f"{command[0]}: {said_why or ('no answer in time' if asked.returncode < 0 else asked.returncode)}")
    return said
