"""Runs in the guest: deaths of six kinds under one `agentscope events`; leaves the stream and who died of what in the given folder.

Everything takes five to fifteen times as long here, so every wait is long and no time is checked.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

OUT = Path(sys.argv[1])
AGENTSCOPE = [sys.executable, "-m", "agentscope"]
CGROUPS = Path("/sys/fs/cgroup")
HELD = 'read _; exec "$@"'  # until agentscope is attached
TRACEBACK = 'd = {}\nd["content"]\n'
LONGEST_S = 120.0


def start(*argv: str, stderr: int = subprocess.DEVNULL, cgroup: Path | None = None) -> subprocess.Popen[bytes]:
    """A victim that waits for a line before it becomes its program."""
    enter = f'echo $$ > "{cgroup}/cgroup.procs"; ' if cgroup else ""
    return subprocess.Popen(
        ["sh", "-c", enter + HELD, "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr
    )


def small_cgroup(name: str) -> Path:
    """A v2 cgroup of 24 MiB."""
    (CGROUPS / "cgroup.subtree_control").write_text("+memory")
    folder = CGROUPS / name
    folder.mkdir()
    (folder / "memory.max").write_text(str(24 << 20))
    return folder


class Stream:
    """The lines of agentscope as they come."""

    def __init__(self, pids: list[int]) -> None:
        targets = [word for pid in pids for word in ("--pid", str(pid))]
        argv = [*AGENTSCOPE, "events", "--for", "600", "--state-dir", str(OUT / "state"), *targets]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=(OUT / "stderr").open("wb"))
        self.lines: list[bytes] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def wait_for(self, count: int, kind: bytes) -> bool:
        """Whether so many lines of a kind came before the time, or the program, was over."""
        ends = time.monotonic() + LONGEST_S
        while sum(b'"%s"' % kind in line for line in self.lines) < count:
            if time.monotonic() > ends or self.process.poll() is not None:
                return False
            time.sleep(0.05)
        return True

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(LONGEST_S)
        self.reader.join(LONGEST_S)
        return status


def main() -> None:
    """Play all of it and write down what was said."""
    program = OUT / "traceback.py"
    program.write_text(TRACEBACK)
    python = str(Path(sys.executable).resolve())
    log = (OUT / "victim.log").open("wb")
    victims = {
        "oom/cgroup": start(str(OUT / "hog"), cgroup=small_cgroup("agent")),
        "crash/segfault": start(str(OUT / "fault"), stderr=log.fileno()),
        "exception/uncaught": start(python, "-I", "-S", str(program), stderr=log.fileno()),
        "exception/uncaught on a pipe": start(python, "-I", "-S", str(program), stderr=subprocess.PIPE),
        "killed/sigkill": start("sleep", "1000"),
        "none": start("true"),
    }
    pids = {name: victim.pid for name, victim in victims.items()}
    (OUT / "pids.json").write_text(json.dumps(pids))
    (OUT / "doctor.json").write_bytes(
        subprocess.run([*AGENTSCOPE, "doctor", "--json"], stdout=subprocess.PIPE, check=False).stdout
    )
    stream = Stream(list(pids.values()))
    ready = stream.wait_for(1, b"agentscope.ready")
    for name, victim in victims.items() if ready else ():
        assert victim.stdin is not None
        victim.stdin.write(b"\n")
        victim.stdin.close()
        if name == "killed/sigkill":
            time.sleep(1)
            os.kill(victim.pid, signal.SIGKILL)
        victim.wait(LONGEST_S)
    stream.wait_for(len(victims), b"agentscope.agent.gone")
    status = stream.stop()
    (OUT / "stream.ndjson").write_bytes(b"".join(stream.lines))
    (OUT / "status.json").write_text(
        json.dumps({"agentscope": status, "victims": {name: victim.returncode for name, victim in victims.items()}})
    )
    for victim in victims.values():
        victim.kill()


if __name__ == "__main__":
    main()
