"""agentscope in a container with just what the DaemonSet grants, and in a pid namespace where its probes would be blind."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from owners import PYTHON, WORKER, Docker, playing
from zoo import AGENTSCOPE, INCIDENT, REPOSITORY

IN_SYS_ADMIN = {
    "cap_bpf",
    "cap_perfmon",
    "cap_checkpoint_restore",
}  # docker 20.10 does not know these; CAP_SYS_ADMIN has them all
MANIFEST = REPOSITORY / "agentscope" / "service" / "daemonset.yaml"


def privileged() -> list[str]:
    """What makes a container privileged; where we may not give every capability ourselves, all that we have, and the kernel log."""
    status = Path("/proc/self/status").read_text().splitlines()
    ours = int(next(line.split()[1] for line in status if line.startswith("CapBnd:")), 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if ours == (1 << last + 1) - 1:
        return ["--privileged"]
    names = (
        subprocess.run(["capsh", f"--decode={ours:x}"], capture_output=True, text=True, check=True)
        .stdout.strip()
        .partition("=")[2]
    )
    opened = [
        "--security-opt=seccomp=unconfined",
        "--security-opt=systempaths=unconfined",
        "--device=/dev/kmsg",
        "--cap-drop=ALL",
    ]
    return opened + [f"--cap-add={name.removeprefix('cap_').upper()}" for name in names.split(",") if name not in IN_SYS_ADMIN]


@pytest.fixture
def docker(tmp_path_factory):
    """A dockerd of our own."""
    yield from playing(Docker, tmp_path_factory.mktemp("manifests"))


@pytest.mark.live
def test_the_grants_are_enough(docker, root, tmp_path):
    """With the privileges, namespaces and mounts of the DaemonSet, a fault of a process outside is told with its cause and its place."""
    pod = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]
    ours = pod["containers"][0]
    places = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]} | {"state": str(tmp_path)}
    mounts = [
        f"{places[mount['name']]}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"
        for mount in ours["volumeMounts"]
        if Path(places[mount["name"]]).exists()  # this machine has no journal in memory
    ]
    # in place of an image: the programs of this machine
    programs = [
        "/usr:/usr:ro",
        f"{REPOSITORY}:{REPOSITORY}:ro",
        f"{AGENTSCOPE.parent.parent.resolve()}:{AGENTSCOPE.parent.parent}:ro",
    ]
    grants = (
        privileged() * ours["securityContext"]["privileged"]
        + ["--read-only"] * ours["securityContext"]["readOnlyRootFilesystem"]
    )
    grants += ["--pid=host"] * pod["hostPID"] + ["--cgroupns=host"]  # which runtimes give to privileged pods
    victim = subprocess.Popen([str(PYTHON), str(WORKER), str(tmp_path / "starts")])
    command = [*docker.client(), "run", "--rm", "--name", "watcher", "--network=none", *grants]
    command += [word for mount in [*dict.fromkeys([*programs, *mounts])] for word in ("-v", mount)]
    command += ["agent:1", str(AGENTSCOPE), *ours["args"], "--pid", str(victim.pid), "--for", "30"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines: list[dict] = []
    reading = threading.Thread(target=lambda: lines.extend(json.loads(line) for line in watcher.stdout), daemon=True)
    reading.start()
    try:
        deadline = time.monotonic() + 40
        while not any(line["type"] == "agentscope.agent.seen" for line in lines) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert lines, watcher.stderr.read() if watcher.poll() is not None else "it is not ready"
        time.sleep(0.5)
        os.kill(victim.pid, signal.SIGUSR2)
        victim.wait(20)
        while not any(line["type"] == INCIDENT for line in lines) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        victim.kill()
        docker.run("rm", "-f", "watcher", check=False)
        watcher.wait(20)
    incident = next(line["data"] for line in lines if line["type"] == INCIDENT)
    assert incident["cause"] == "crash/segfault"
    assert incident["confidence"] == "certain"
    assert {"kernel-log", "fault"} <= {each["kind"] for each in incident["evidence"]}


@pytest.mark.live
def test_a_pid_namespace_of_its_own(root, tmp_path):
    """There the kernel's numbers are those of others: the probes are refused and it says what to type; `auto` does without them."""
    apart = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        str(AGENTSCOPE),
        "events",
        "--for",
        "1",
        "--state-dir",
        str(tmp_path),
    ]
    ran = subprocess.run([*apart, "--engine", "core"], capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 69
    assert "--pid=host" in ran.stderr
    ran = subprocess.run(apart, capture_output=True, text=True, check=False, timeout=30)
    assert (ran.returncode, ran.stderr.count("\n")) == (0, 1)
    assert "engine none watches, with less evidence; not core: " in ran.stderr
    assert json.loads(ran.stdout.splitlines()[0])["data"]["engine"] == "none"
