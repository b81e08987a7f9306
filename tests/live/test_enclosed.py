"""Processes in pid, mount, net and cgroup namespaces of their own, diagnosed from outside: by either number, with inside names."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cage import Cage
from owners import WORKER, Docker, Podman, playing
from zoo import AGENTSCOPE, INCIDENT, Watcher, parsed

from agentscope.agents import ancestors_of
from agentscope.enclosed import insides, meant

FAULT = 10
ENDS = [("oom", "USR1", "oom/cgroup"), ("fault", "USR2", "crash/segfault"), ("exception", "USR1", "exception/uncaught")]
INSIDE = """set -e
for place in $PLACES; do echo 0 > "$place/cgroup.procs"; done
exec unshare --pid --fork --kill-child=SIGKILL --mount --mount-proc --net --cgroup --uts --ipc sh -ec '
mount -t tmpfs -o size=1m tmpfs /mnt; cp "$1" /mnt/agent.py; echo $(($2 - 1)) > /proc/sys/kernel/ns_last_pid
/usr/bin/python3 /mnt/agent.py /mnt/starts "does=$3" & wait $!; exit $?' sh "$@"
"""


class Enclosed:
    """A worker in namespaces that unshare(1) makes: its number inside is `number`, its number here `pid`; its program is /mnt/agent.py."""

    def __init__(self, does: str, number: int | None = None) -> None:
        self.cage = Cage(64, nested=False)
        # one that nobody has outside; ns_last_pid belongs to the new namespace alone (pid_namespaces(7))
        self.number = number or next(n for n in iter(lambda: random.randint(3000, 30000), 0) if not Path(f"/proc/{n}").exists())
        self.process = subprocess.Popen(
            ["sh", "-c", INSIDE, "sh", str(WORKER), str(self.number), does], start_new_session=True, stderr=subprocess.DEVNULL,
            env={**os.environ, "PLACES": " ".join(map(str, self.cage.joined))},
        )  # fmt: skip
        self.pid = self.found()

    def found(self) -> int:
        """The worker's number here, once its handlers stand: the youngest of that number inside."""
        for _ in range(200):
            for each in insides(self.number):
                if (
                    self.process.pid in above(each.pid)
                    and Path(f"/proc/{each.pid}/root/mnt/starts").exists()
                    and each.comm.startswith("python")
                ):
                    time.sleep(0.4)
                    return each.pid
            time.sleep(0.05)
        self.close()
        pytest.fail("nothing started inside")

    def close(self) -> None:
        """End it with its namespace."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.cage.close()


def above(pid: int) -> set[int]:
    """The pids above a process."""
    return {each.pid for each in ancestors_of(pid)}


def diagnosed(who: str, state: Path, *options: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """What `diagnose WHO` tells: its exit status, record, and what it says on stderr."""
    ran = subprocess.run(
        [str(AGENTSCOPE), "diagnose", who, "--json", "--state-dir", str(state), *options],
        capture_output=True, text=True, check=False, timeout=90, env={**os.environ, **environment},
    )  # fmt: skip
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else {}, ran.stderr


def fact(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields of one kind of evidence."""
    return next(each["data"] for each in record["evidence"] if each["kind"] == kind)


def watched_ends(sent: dict[int, str], folder: Path) -> dict[int, dict[str, Any]]:
    """The incidents that one watcher tells of when processes are made to end, each by a signal."""
    watcher = Watcher([*sent], folder)
    try:
        watcher.attach([*sent])
        for pid, name in sent.items():
            os.kill(pid, signal.Signals[f"SIG{name}"])
        for pid in sent:
            assert watcher.wait_for(INCIDENT, pid, 40), "\n".join(watcher.said.lines[-5:]) + watcher.stderr()
    finally:
        watcher.stop()
    told = [event["data"] for event in map(parsed, watcher.said.lines) if event["type"] == INCIDENT]
    return {incident["agent"]["pid"]: incident for incident in told}


@pytest.mark.live
def test_ends_in_namespaces(root, tmp_path):
    """A death in namespaces of its own is told from outside with both numbers and inside paths; later the inside number finds it."""
    with contextlib.ExitStack() as held:
        living = {does: held.enter_context(contextlib.closing(Enclosed(does))) for does, _, _ in ENDS}
        incidents = watched_ends({living[does].pid: sent for does, sent, _ in ENDS}, tmp_path)
    for does, _, cause in ENDS:
        enclosed, incident = living[does], incidents[living[does].pid]
        assert incident["cause"] == cause
        told = fact(incident, "enclosure")
        assert (told["pid"], told["pid_inside"]) == (enclosed.pid, enclosed.number)
        assert {"pid", "mnt", "net", "cgroup"} <= set(told["namespaces"])
        assert "/mnt/agent.py" in incident["agent"]["command"]
        if does == "exception":
            assert "/mnt/agent.py" in json.dumps(fact(incident, "last-words"))
        status, record, _ = diagnosed(str(enclosed.number), tmp_path / "state")
        assert (status, record["incident"]) == (FAULT, incident["incident"])


@pytest.mark.live
def test_hang_in_namespaces(root, tmp_path):
    """A deadlock in namespaces of its own is found by the number that it has inside."""
    enclosed = Enclosed("deadlock")
    try:
        os.kill(enclosed.pid, signal.SIGUSR1)
        time.sleep(1)
        status, record, said = diagnosed(str(enclosed.number), tmp_path, "--hang-after", "1")
    finally:
        enclosed.close()
    assert (status, record.get("cause")) == (FAULT, "hang/deadlock"), said
    assert record["process"]["pid"] == enclosed.pid
    assert fact(record, "enclosure")["pid_inside"] == enclosed.number
    assert "/mnt/agent.py" in json.dumps(record["evidence"])


@pytest.mark.live
def test_a_number_that_several_have(root, tmp_path):
    """A number that two processes have inside, and nobody outside, is not guessed: both are listed with their numbers here."""
    one = Enclosed("exception")
    try:
        other = Enclosed("exception", one.number)
        try:
            status, _, said = diagnosed(str(one.number), tmp_path)
        finally:
            other.close()
    finally:
        one.close()
    assert status == 64
    assert str(one.pid) in said
    assert str(other.pid) in said


@pytest.mark.live
def test_a_number_that_was_here_until_now(root, tmp_path):
    """A process that has just died here is what its number means, though one that lives has it inside; one that began later is meant."""
    victim = subprocess.Popen([sys.executable, "-c", "import ctypes; input(); ctypes.string_at(0)"], stdin=subprocess.PIPE)
    with contextlib.closing(Enclosed("exception", victim.pid)) as earlier:
        victim.communicate(b"\n", timeout=20)
        _, dead, said = diagnosed(str(victim.pid), tmp_path)
        text = subprocess.run([str(AGENTSCOPE), "diagnose", str(victim.pid), "--state-dir", str(tmp_path)], capture_output=True, text=True, check=False, timeout=90).stdout  # fmt: skip
    with contextlib.closing(Enclosed("exception", victim.pid)) as later:
        _, living, _ = diagnosed(str(victim.pid), tmp_path)
    assert dead.get("reconstructed"), said
    assert (dead["cause"], dead["process"]["pid"]) == ("crash/segfault", victim.pid)
    assert f"{victim.pid} is also the number, inside, of {earlier.pid}" in text
    assert (living["alive"], living["agent"]["pid"]) == (True, later.pid)


@pytest.fixture(scope="module", params=[Docker, Podman], ids=["docker", "podman"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker | Podman]:
    """A container runtime of its own; skipped with the reason where there is none."""
    yield from playing(request.param, tmp_path_factory.mktemp(request.param.__name__.lower()))


def ask_at(runtime: Docker | Podman) -> dict[str, str]:
    """Where a person has told docker's client to look."""
    return {"DOCKER_HOST": runtime.socket} if isinstance(runtime, Docker) else {}


@pytest.mark.live
def test_ends_in_containers(runtime, root, tmp_path):
    """A death in a container is told from outside; and again by the container's name, from its runtime, when nobody had watched."""
    pids = {does: runtime.start(f"web-{does}", words=(f"does={does}",)) for does, _, _ in ENDS}
    incidents = watched_ends({pids[does]: sent for does, sent, _ in ENDS}, tmp_path)
    for does, _, cause in ENDS:
        incident = incidents[pids[does]]
        assert incident["cause"] == cause
        told = fact(incident, "enclosure")
        assert (told["pid"], told["pid_inside"]) == (pids[does], 1)
        assert told["container"]["runtime"] == type(runtime).__name__.lower()
        status, record, said = diagnosed(f"web-{does}", tmp_path / "nothing", **ask_at(runtime))
        assert record, said
        assert record["reconstructed"] is True
        # where no journal runs there is no telling who was asked to stop it, so a bare status or signal stays open
        assert record["cause"] in {cause, "undetermined"}
        assert (status, record["cause"]) == (FAULT, cause) or does == "fault"
        known = fact(record, "enclosure")["container"]
        assert (known["name"], known["image"].endswith("agent:1")) == (f"web-{does}", True)


@pytest.mark.live
def test_hang_in_a_container(runtime, root, tmp_path, monkeypatch):
    """A deadlock in a container is found by CONTAINER:PID and by the container's name, and told with its name and image."""
    pid = runtime.start("stuck", words=("does=deadlock",))
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1)
    for name, value in ask_at(runtime).items():
        monkeypatch.setenv(name, value)
    assert meant("stuck") == pid
    status, record, said = diagnosed("stuck:1", tmp_path, "--hang-after", "1")
    assert (status, record.get("cause")) == (FAULT, "hang/deadlock"), said
    known = fact(record, "enclosure")
    assert (known["pid"], known["pid_inside"], known["container"]["name"]) == (pid, 1, "stuck")
    assert known["container"]["image"].endswith("agent:1")
