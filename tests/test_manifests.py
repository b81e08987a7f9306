"""The manifests for Kubernetes and the Containerfile: valid, no more grants than are explained, every mount with its volume."""

import re
from pathlib import Path

import pytest
import yaml

from agentscope.cli import main

PLACE = Path(__file__).parent.parent / "agentscope" / "service"
MANIFESTS = sorted(PLACE.glob("*.yaml"))
EXPLAINED = re.compile(r"privileged|hostPID|mountPath|readOnlyRootFilesystem|limits|tolerations|automount")


def pod_of(manifest: dict) -> dict:
    """The pod that a manifest describes."""
    return manifest["spec"]["template"]["spec"] if manifest["kind"] == "DaemonSet" else manifest["spec"]


def ours_in(pod: dict) -> dict:
    """The container of agentscope in it."""
    return next(container for container in pod["containers"] if container["name"] == "agentscope")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest(path):
    """It is one YAML document of a kind that Kubernetes has, whose labels agree and whose mounts all have a volume."""
    manifest = yaml.safe_load(path.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) in {("apps/v1", "DaemonSet"), ("v1", "Pod")}
    pod = pod_of(manifest)
    assert pod["hostPID"] is True
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert sorted(mount["name"] for mount in ours_in(pod)["volumeMounts"]) == sorted(volumes)
    if manifest["kind"] == "DaemonSet":
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_grant_has_a_reason(path):
    """Whatever gives a right, opens the host or sets a limit says why in its own line."""
    lines = [line for line in path.read_text().splitlines() if EXPLAINED.search(line.partition("#")[0])]
    assert len(lines) >= 5
    assert [line for line in lines if " # " not in line] == []


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_arguments(path):
    """What a manifest has agentscope do is a command line that agentscope takes."""
    words = ours_in(pod_of(yaml.safe_load(path.read_text())))["args"]
    context = main.make_context("agentscope", list(words), resilient_parsing=False)
    name, command, rest = main.resolve_command(context, [*context.protected_args, *context.args])
    assert name == "events"
    command.make_context(name, rest, parent=context)


def test_containerfile():
    """It copies only what is there, and starts what the package installs."""
    text = (PLACE / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    assert all((PLACE.parent.parent / word).exists() for word in copied)
    assert 'ENTRYPOINT ["/opt/agentscope/bin/agentscope"]' in text
