"""Which installed package a file came with: a Debian package, a Python distribution or a Node package.

Only files are read: dpkg's lists (dpkg-query(1), FILES), RECORD and METADATA of distributions (Python packaging
specifications, "Recording installed projects"), package.json. Neither dpkg nor the interpreter of the process is run.
"""

import errno
import json
import os
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath
from typing import Literal

from agentscope.model import Value
from agentscope.symbols.rooted import directory, read_regular

OwnerKind = Literal["dpkg", "python", "node"]

_DPKG_LISTS = "/var/lib/dpkg/info"
_DPKG_STATUS = "/var/lib/dpkg/status"
_LIST_LIMIT = 8 << 20
_STATUS_LIMIT = 64 << 20
_RECORD_LIMIT = 16 << 20
_METADATA_LIMIT = 1 << 20
_SEARCH_LIMIT = 128 << 20
_STANZA_LIMIT = 64
_ENTRY_LIMIT = 20_000
_MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/")


class Owner(Value, frozen=True):
    """An installed package: "libc6 2.36-9+deb12u14", "numpy 2.2.6"."""

    name: str
    version: str
    kind: OwnerKind

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def owner_of(path: str, *, root: str | None = None) -> Owner | None:
    """The package that installed the file at `path` as seen in `root`; None where none of them says so.

    The answer is kept until the folders that it was read from change.
    """
    if not path.startswith("/") or "\0" in path or "\n" in path:
        return None
    site = _site_folder(path)
    if site is not None:
        found = _distribution(path, site, root, _changed(site, root))
        if found is not None:
            return found
    if "/node_modules/" in path:
        found = _node_package(path, root)
        if found is not None:
            return found
    return _debian_package(path, root, _changed(_DPKG_LISTS, root))


def _changed(folder: str, root: str | None) -> int | None:
    """When a folder last changed, as part of the key under which an answer is kept."""
    try:
        with directory(folder, root=root) as descriptor:
            return os.fstat(descriptor).st_mtime_ns
    except OSError:
        return None


def _names(folder: str, root: str | None, ending: str) -> list[str]:
    try:
        with directory(folder, root=root) as descriptor, os.scandir(descriptor) as entries:
            return [entry.name for entry in islice(entries, _ENTRY_LIMIT) if entry.name.endswith(ending)]
    except OSError:
        return []


def _content(path: str, root: str | None, limit_bytes: int) -> bytes:
    """All of a file, or nothing where it cannot be had or is larger than the limit."""
    try:
        return read_regular(path, root=root, limit_bytes=limit_bytes)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise  # ours, and not to be remembered as an answer
        return b""


@lru_cache(maxsize=512)
def _debian_package(path: str, root: str | None, changed: int | None) -> Owner | None:
    """The package whose list names the path, under its name from before or after /usr was merged."""
    if changed is None:
        return None
    spellings = [path]
    if path.startswith("/usr/") and path[4:].startswith(_MERGED):
        spellings.append(path[4:])
    elif path.startswith(_MERGED):
        spellings.append("/usr" + path)
    try:
        wanted = [b"\n" + os.fsencode(spelling) + b"\n" for spelling in spellings]
    except UnicodeEncodeError:
        return None
    left = _SEARCH_LIMIT
    for name in _names(_DPKG_LISTS, root, ".list"):
        content = b"\n" + _content(f"{_DPKG_LISTS}/{name}", root, min(_LIST_LIMIT, left)) + b"\n"
        left -= len(content)
        if any(line in content for line in wanted):
            package, _, architecture = name.removesuffix(".list").partition(":")
            version = _debian_version(package, architecture, root)
            return Owner(name=_plain(package), version=version, kind="dpkg") if version else None
    return None


def _debian_version(package: str, architecture: str, root: str | None) -> str | None:
    status = b"\n" + _content(_DPKG_STATUS, root, _STATUS_LIMIT)
    heading = b"\nPackage: " + os.fsencode(package) + b"\n"
    start = -1
    for _ in range(_STANZA_LIMIT):  # one for each architecture that it is installed for
        start = status.find(heading, start + 1)
        if start < 0:
            break
        end = status.find(b"\n\n", start)
        stanza = _fields(status[start + 1 : end if end >= 0 else len(status)])
        if not architecture or stanza.get("architecture") == architecture:
            return stanza.get("version")
    return None


def _fields(header: bytes) -> dict[str, str]:
    """The one-line fields of a header such as those of mail; the first of each name."""
    found: dict[str, str] = {}
    for line in header.split(b"\n", 400)[:400]:
        if not line.strip():
            break
        name, colon, content = line.partition(b":")
        if colon and not line[:1].isspace():
            found.setdefault(name.decode("ascii", "replace").lower(), _plain(content.decode("utf-8", "replace").strip()))
    return found


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


def _site_folder(path: str) -> str | None:
    parts = PurePosixPath(path).parts
    places = [place for place, part in enumerate(parts) if part in {"site-packages", "dist-packages"}]
    return str(PurePosixPath(*parts[: places[-1] + 1])) if places and places[-1] < len(parts) - 1 else None


@lru_cache(maxsize=512)
def _distribution(path: str, site: str, root: str | None, changed: int | None) -> Owner | None:
    """The distribution whose RECORD names the path; those that are called like its top folder are asked first."""
    if changed is None:
        return None
    inside = path[len(site) + 1 :]
    top = inside.split("/", 1)[0].removesuffix(".libs").split(".", 1)[0].replace("-", "_").lower()
    metadata = sorted(_names(site, root, ".dist-info"), key=lambda name: not name.replace("-", "_").lower().startswith(top))
    try:
        wanted = b"\n" + os.fsencode(inside) + b","
    except UnicodeEncodeError:
        return None
    left = _SEARCH_LIMIT
    for name in metadata:
        record = b"\n" + _content(f"{site}/{name}/RECORD", root, min(_RECORD_LIMIT, left))
        left -= len(record)
        if wanted in record:
            fields = _fields(_content(f"{site}/{name}/METADATA", root, _METADATA_LIMIT))
            if "name" in fields and "version" in fields:
                return Owner(name=fields["name"], version=fields["version"], kind="python")
    return None


@lru_cache(maxsize=512)
def _node_package(path: str, root: str | None) -> Owner | None:
    """The package of the innermost node_modules folder on the way to the path."""
    before, _, after = path.rpartition("/node_modules/")
    parts = after.split("/")
    depth = 2 if parts[0].startswith("@") else 1
    if len(parts) <= depth:
        return None
    try:
        described = json.loads(
            _content("/".join([before, "node_modules", *parts[:depth], "package.json"]), root, _METADATA_LIMIT)
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(described, dict):
        return None
    name, version = described.get("name"), described.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        return None
    return Owner(name=_plain(name), version=_plain(version), kind="node")
