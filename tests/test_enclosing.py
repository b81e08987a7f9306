"""Which container a cgroup is of, by its path and by the records of each runtime."""

import json

import pytest

from agentscope.distributions.enclosing import described, enclosure_of

ID = "4f5c" * 16
UID = "7d0c9a3e-1b2c-4d5e-8f90-a1b2c3d4e5f6"
POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope"


@pytest.mark.parametrize(
    ("cgroup", "runtime", "pod"),
    [
        (f"/docker/{ID}", "docker", None),
        (f"/system.slice/docker-{ID}.scope", "docker", None),
        (f"/libpod_parent/libpod-{ID}", "podman", None),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman", None),
        (POD, "containerd", f"uid {UID}"),
        (f"/kubepods/burstable/pod{UID}/{ID}", "kubernetes", f"uid {UID}"),
        (f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{ID}.scope", "cri-o", f"uid {UID}"),
    ],
)
def test_paths(cgroup, runtime, pod):
    """The path alone tells the runtime, the id and, under Kubernetes, the pod's uid."""
    found = enclosure_of(cgroup)
    assert (found.runtime, found.id, found.pod) == (runtime, ID, pod)


@pytest.mark.parametrize("cgroup", [None, "/", "/user.slice/session-3.scope", f"/build/{ID}", "/docker/short"])
def test_no_container(cgroup):
    """A path of no runtime, or with no whole id, is no container."""
    assert enclosure_of(cgroup) is None


def put(root, path, text):
    """A file in a root."""
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_docker(tmp_path):
    """Docker's own record gives name, image and, under cri-dockerd, the pod; control characters in it are taken out."""
    labels = {"io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop"}
    record = {"Name": "/we\x1b[31mb", "Image": "sha256:1", "Config": {"Image": "agent:1", "Labels": labels}}
    put(tmp_path, f"/var/lib/docker/containers/{ID}/config.v2.json", json.dumps(record))
    found = described(ID, "docker", None, str(tmp_path))
    assert (found.name, found.image, found.pod) == ("we?[31mb", "agent:1", "shop/web-0")


def test_storage(tmp_path):
    """The record that podman and CRI-O share gives the same."""
    metadata = {"image-name": "localhost/agent:1", "name": "web", "pod-name": "web-0", "namespace": "shop"}
    stored = [{"id": "0" * 64}, {"id": ID, "names": ["web"], "metadata": json.dumps(metadata)}]
    put(tmp_path, "/var/lib/containers/storage/overlay-containers/containers.json", json.dumps(stored))
    found = described(ID, "podman", None, str(tmp_path))
    assert (found.name, found.image, found.pod) == ("web", "localhost/agent:1", "shop/web-0")


def test_containerd(tmp_path):
    """The annotations in containerd's bundle give name, image and pod of a running container."""
    notes = {
        "container-name": "main",
        "image-name": "registry.example/agent:1",
        "sandbox-name": "web-0",
        "sandbox-namespace": "shop",
    }
    path = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
    put(tmp_path, path, json.dumps({"annotations": {f"io.kubernetes.cri.{name}": text for name, text in notes.items()}}))
    found = described(ID, "containerd", UID, str(tmp_path))
    assert (found.name, found.image, found.pod, found.source) == ("main", "registry.example/agent:1", "shop/web-0", path)


def test_kubelet(tmp_path):
    """Where the bundle is gone, the name of the log that the kubelet links gives pod, namespace and container."""
    put(tmp_path, f"/var/log/containers/web-0_shop_main-{ID}.log", "")
    found = described(ID, "containerd", UID, str(tmp_path))
    assert (found.name, found.pod) == ("main", "shop/web-0")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"Name": 7, "Config": []}', "[" * 5000])
def test_broken_records(text, tmp_path):
    """A record that is not what it should be costs the name, never the rest."""
    put(tmp_path, f"/var/lib/docker/containers/{ID}/config.v2.json", text)
    put(tmp_path, "/var/lib/containers/storage/overlay-containers/containers.json", text)
    assert described(ID, "docker", None, str(tmp_path)).id == ID
