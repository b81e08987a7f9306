"""Which container a cgroup is of: its runtime, name, image and pod, by the cgroup's path and the records that the runtime keeps in files.

Docker: /var/lib/docker/containers/ID/config.v2.json. Podman and CRI-O: containers.json of containers/storage. Kubernetes: the kubelet
names the log of every container POD_NAMESPACE_CONTAINER-ID.log; containerd keeps the annotations of a running one in its bundle.
Where agentscope itself runs in a container (a DaemonSet with hostPID), these are read through the root of the host's first process.
"""

import os
import re
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from agentscope.distributions import plain
from agentscope.distributions.container import CONTAINERS_LIMIT, DOCKER, RECORD_LIMIT_BYTES, STORAGE
from agentscope.model import Value
from agentscope.symbols.rooted import directory, read_regular

KUBELET_LOGS = "/var/log/containers"
CONTAINERD = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
_ID = re.compile(r"([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_LOG = re.compile(r"^([a-z0-9.-]{1,253})_([a-z0-9-]{1,63})_([a-z0-9-]{1,63})-([0-9a-f]{64})\.log$")
_RUNTIMES = (
    ("libpod", "podman"),
    ("crio", "cri-o"),
    ("cri-containerd", "containerd"),
    ("docker", "docker"),
    ("kubepods", "kubernetes"),
)


class Enclosure(Value, frozen=True):
    """A container: `pod` is NAMESPACE/NAME where Kubernetes runs it, else its uid alone; `source` says which record names it."""

    id: str
    runtime: str
    source: str
    name: str | None = None
    image: str | None = None
    pod: str | None = None

    def says(self) -> str:
        """One clause for a person."""
        image = f" of image {self.image}" if self.image else ""
        pod = f", in pod {self.pod}" if self.pod else ""
        return f"{self.runtime} container {self.name or self.id[:12]}{image}{pod}"


def enclosure_of(cgroup: str | None) -> Enclosure | None:
    """The container that a cgroup is of; None where it is of none."""
    path = cgroup or ""
    found = _ID.search(path)
    runtime = next((name for mark, name in _RUNTIMES if mark in path), None)
    if found is None or runtime is None:
        return None
    pod = _POD.search(path)
    return described(found[1], runtime, pod[1].replace("_", "-") if pod else None, host_root())


def host_root() -> str | None:
    """The root of the host's first process, where ours is another one; None where they are the same, or that cannot be told."""
    with suppress(OSError):
        theirs, ours = Path("/proc/1/root/").stat(), Path("/").stat()
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            return "/proc/1/root"
    return None


@lru_cache(maxsize=256)
def described(container: str, runtime: str, pod: str | None, root: str | None) -> Enclosure:
    """What the records say of a container; what they do not, stays unknown. Kept: a container does not change its name or image."""
    bare = Enclosure(id=container, runtime=runtime, source="the path of its cgroup", pod=f"uid {pod}" if pod else None)
    for look in (_by_docker, _by_storage, _by_containerd, _by_kubelet):
        with suppress(OSError, msgspec.DecodeError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            found = look(bare, root)
            if found is not None:
                return found
    return bare


def of_labels(bare: Enclosure, labels: dict[str, Any]) -> str | None:
    """The pod that labels or annotations of Kubernetes name, else what is known of it."""
    for name, space in (
        ("io.kubernetes.pod.name", "io.kubernetes.pod.namespace"),
        ("io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"),
    ):
        if labels.get(name):
            return plain(f"{labels.get(space) or 'default'}/{labels[name]}", 320)
    return bare.pod


def _by_docker(bare: Enclosure, root: str | None) -> Enclosure | None:
    path = f"{DOCKER}/{bare.id}/config.v2.json"
    said = msgspec.json.decode(read_regular(path, root=root, limit_bytes=RECORD_LIMIT_BYTES))
    config = said.get("Config") or {}
    return msgspec.structs.replace(
        bare, source=path, name=plain(str(said["Name"]).lstrip("/")), image=plain(str(config.get("Image") or "")) or None,
        pod=of_labels(bare, config.get("Labels") or {}),
    )  # fmt: skip


def _by_storage(bare: Enclosure, root: str | None) -> Enclosure | None:
    for said in msgspec.json.decode(read_regular(STORAGE, root=root, limit_bytes=RECORD_LIMIT_BYTES)):
        if said.get("id") == bare.id:
            told = msgspec.json.decode(said.get("metadata") or "{}")
            name = told.get("container-name") or told.get("name") or next(iter(said.get("names") or ()), None)
            space = f"{told.get('namespace') or 'default'}/{told['pod-name']}" if told.get("pod-name") else None
            return msgspec.structs.replace(
                bare, source=STORAGE, name=plain(str(name)) if name else None,
                image=plain(str(told.get("image-name") or "")) or None, pod=plain(space, 320) if space else bare.pod,
            )  # fmt: skip
    return None


def _by_containerd(bare: Enclosure, root: str | None) -> Enclosure | None:
    path = f"{CONTAINERD}/{bare.id}/config.json"
    notes = msgspec.json.decode(read_regular(path, root=root, limit_bytes=RECORD_LIMIT_BYTES)).get("annotations") or {}
    name, image = notes.get("io.kubernetes.cri.container-name"), notes.get("io.kubernetes.cri.image-name")
    return msgspec.structs.replace(
        bare, source=path, name=plain(str(name)) if name else None, image=plain(str(image)) if image else None, pod=of_labels(bare, notes)
    )  # fmt: skip


def _by_kubelet(bare: Enclosure, root: str | None) -> Enclosure | None:
    with directory(KUBELET_LOGS, root=root) as folder, os.scandir(folder) as entries:
        for entry in islice(entries, CONTAINERS_LIMIT):
            named = _LOG.match(entry.name)
            if named is not None and named[4] == bare.id:
                return msgspec.structs.replace(
                    bare, source=f"{KUBELET_LOGS}/{entry.name}", name=named[3], pod=f"{named[2]}/{named[1]}"
                )
    return None
