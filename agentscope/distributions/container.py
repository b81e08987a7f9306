"""Which image a container was made from: by the records of Docker and Podman, else by the layers that its root is mounted from.

Docker: /var/lib/docker/containers/ID/config.v2.json. Podman and CRI-O: overlay-containers/containers.json of containers/storage.
containerd keeps its records in a database of its own, so there the layers tell (mountinfo, lowerdir=; overlayfs.rst).
"""

import os
import re
from contextlib import suppress
from itertools import islice

import msgspec

from agentscope.distributions import plain
from agentscope.model import Value
from agentscope.symbols.rooted import directory, read_regular

DOCKER = "/var/lib/docker/containers"
STORAGE = "/var/lib/containers/storage/overlay-containers/containers.json"
RECORD_LIMIT_BYTES = 16 << 20
CONTAINERS_LIMIT = 10_000
_ID = re.compile(r"^[0-9a-f]{12,64}$")
_LAYERS = re.compile(r"(?:^|,)lowerdir\+?=([^,\s]{1,100000})")


class ContainerImage(Value, frozen=True):
    """An image: its id, its name, when the container was made (as its runtime writes it), and which file says so."""

    id: str
    source: str
    runtime: str
    name: str | None = None
    created: str | None = None


class _DockerConfig(msgspec.Struct):
    Image: str = ""


class _Docker(msgspec.Struct):
    Image: str = ""
    Created: str | None = None
    Config: _DockerConfig | None = None


class _Stored(msgspec.Struct):
    id: str = ""
    image: str = ""
    created: str | None = None
    metadata: str = ""


class _StoredName(msgspec.Struct):
    name: str = msgspec.field(default="", name="image-name")


def image_of(container: str, *, root: str | None = None) -> ContainerImage | None:
    """The image of a container by its id or the first twelve digits of it; `root` is that of the runtime, not the container's."""
    if not _ID.match(container):
        return None
    return _of_docker(container, root) or _of_storage(container, root)


def _of_docker(container: str, root: str | None) -> ContainerImage | None:
    with suppress(OSError, msgspec.DecodeError, ValueError, RecursionError):
        with directory(DOCKER, root=root) as folder, os.scandir(folder) as entries:
            whole = next((e.name for e in islice(entries, CONTAINERS_LIMIT) if e.name.startswith(container)), None)
        if whole is not None:
            path = f"{DOCKER}/{whole}/config.v2.json"
            said = msgspec.json.decode(read_regular(path, root=root, limit_bytes=RECORD_LIMIT_BYTES), type=_Docker)
            if said.Image:
                name = plain(said.Config.Image) if said.Config and said.Config.Image else None
                return ContainerImage(id=plain(said.Image), source=path, runtime="docker", name=name, created=said.Created)
    return None


def _of_storage(container: str, root: str | None) -> ContainerImage | None:
    with suppress(OSError, msgspec.DecodeError, ValueError, RecursionError):
        listed = msgspec.json.decode(read_regular(STORAGE, root=root, limit_bytes=RECORD_LIMIT_BYTES), type=list[_Stored])
        for said in listed:
            if said.id.startswith(container) and said.image:
                name = ""
                with suppress(msgspec.DecodeError, ValueError, RecursionError):
                    name = msgspec.json.decode(said.metadata, type=_StoredName).name
                return ContainerImage(
                    id=plain(said.image), source=STORAGE, runtime="podman", name=plain(name) or None, created=said.created
                )
    return None


def layers_of(mountinfo: str) -> ContainerImage | None:
    """What the root of a process is laid over, by its /proc/PID/mountinfo: a digest that changes with the image."""
    import hashlib

    for line in mountinfo.splitlines()[:5000]:
        fields = line.split(" ")
        if len(fields) > 6 and fields[4] == "/" and " - overlay " in line:
            layers = _LAYERS.findall(fields[-1])
            if layers:
                digest = hashlib.blake2b(":".join(layers).encode("utf-8", "replace"), digest_size=16).hexdigest()
                return ContainerImage(id=f"layers:{digest}", source="/proc/PID/mountinfo", runtime="overlay")
    return None
