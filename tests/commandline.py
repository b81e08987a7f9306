"""Runs `agentscope` as a person would, and holds what it says against the rule: a sentence, an exit status, never a traceback."""

import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

import pytest

AGENTSCOPE = (sys.executable, "-m", "agentscope")
LONGEST_S = 60.0
NOBODY = 65534


@dataclass(frozen=True)
class Told:
    """How one run ended and what it said."""

    status: int
    out: bytes
    err: bytes

    @property
    def said(self) -> str:
        """Standard error as text."""
        return self.err.decode(errors="replace")

    def is_sentence(self, status: int, *parts: str) -> None:
        """Assert that it ended with `status`, and that standard error is one plain sentence that holds every part."""
        self.is_clean()
        assert self.status == status, f"exit status {self.status}, expected {status}: {self.said}"
        lines = self.said.splitlines()
        assert len(lines) == 1, f"not one sentence: {self.said}"
        assert lines[0].startswith("agentscope: "), self.said
        for part in parts:
            assert part in lines[0], f"{part!r} is not in {lines[0]!r}"

    def is_clean(self) -> None:
        """Assert that no traceback and no internal name reached the person."""
        whole = self.said + self.out.decode(errors="replace")
        for sign in ("Traceback (most recent call last)", "Exception ignored in", "Task exception was never retrieved"):
            assert sign not in whole, whole[-3000:]


def agentscope(
    *arguments: str, front: Sequence[str] = (), stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None
) -> Told:
    """Run it to its end; `front` is put before it (setpriv, unshare, prlimit ...)."""
    done = subprocess.run(
        [*front, *AGENTSCOPE, *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=LONGEST_S,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    return Told(done.returncode, done.stdout, done.stderr)


def shell(script: str, *arguments: str, front: Sequence[str] = ()) -> Told:
    """Run a line of bash in which `$A` is agentscope and $1, $2 ... are the arguments."""
    argv = [*front, "bash", "-c", f'A="{" ".join(AGENTSCOPE)}"; {script}', "bash", *arguments]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=LONGEST_S)
    return Told(done.returncode, done.stdout, done.stderr)


def without_root(home: Path) -> list[str]:
    """The front that makes a command run as somebody who is not root; empty if we are not root anyway."""
    if os.geteuid() != 0:
        return []
    probe = subprocess.run([*AS_NOBODY, *AGENTSCOPE, "--version"], capture_output=True, check=False, cwd="/")
    if probe.returncode != 0:
        pytest.skip(f"another user cannot read {sys.executable} or this checkout")
    os.chown(home, NOBODY, NOBODY)
    return [*AS_NOBODY, "env", f"HOME={home}", "XDG_STATE_HOME=", "AGENTSCOPE_STATE_DIR=" + str(home / "state")]


AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def in_terminal(*arguments: str, columns: int, lines: int, keys: bytes = b"", after_s: float = 2.0) -> Told:
    """Run it on a terminal of this size; `keys` are typed once it has been quiet for half a second after its first output."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*AGENTSCOPE, *arguments], stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=env, start_new_session=True
    )
    os.close(slave)
    said = bytearray()
    ends_at, typed, quiet_since = time.monotonic() + LONGEST_S, not keys, time.monotonic()
    while time.monotonic() < ends_at:
        if select.select([master], [], [], 0.1)[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # EIO: nobody holds the terminal any more
                break
            said += chunk
            quiet_since = time.monotonic()
        elif not typed and said and time.monotonic() - quiet_since > after_s:
            os.write(master, keys)
            typed = True
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    _, err = process.communicate()
    os.close(master)
    return Told(process.returncode, bytes(said), err or b"")
