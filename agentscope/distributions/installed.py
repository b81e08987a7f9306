"""Which Python distributions stand in the site folders of a program, and which of them owns a module or a file.

A distribution is a folder `name-version.dist-info` with METADATA, RECORD, INSTALLER, REQUESTED and direct_url.json (Python
packaging specifications, "Recording installed projects"), or an older `.egg-info`. What was read stays known while RECORD is
the same file, so that asking again costs one stat(2) a distribution.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

import msgspec

from agentscope.distributions import Distribution, plain
from agentscope.symbols.remembered import Remembered, identity_of, settled
from agentscope.symbols.rooted import directory, read_in

DISTRIBUTIONS_LIMIT = 3000
SITES_LIMIT = 24
ENTRIES_LIMIT = 20_000
RECORD_LIMIT_BYTES = 16 << 20
METADATA_LIMIT_BYTES = 1 << 20
SMALL_LIMIT_BYTES = 64 << 10
TOPS_LIMIT = 32

_DIST, _EGG = ".dist-info", ".egg-info"
_MODULE_ENDING = re.compile(r"(?:\.cpython-[\w-]{1,60}|\.abi3|\.pypy[\w-]{1,60})?\.(?:py|pyc|pyd|so|pth)$")
_HEADER = re.compile(rb"^(Name|Version):[ \t]*([^\r\n]{1,400})", re.MULTILINE | re.IGNORECASE)
_NAME_SEPARATORS = re.compile(r"[-_.]+")
_TOP = re.compile(rb'^"?([^/,\n"]{1,200})(?:/([^/,\n"]{1,200}))?', re.MULTILINE)

_known: Remembered[Distribution] = Remembered(20_000)
_listed: Remembered[tuple[str, ...]] = Remembered(500)


def normal(name: str) -> str:
    """A distribution's name as it is compared: "Foo.Bar_baz" is "foo-bar-baz" (packaging specifications, "Names")."""
    return _NAME_SEPARATORS.sub("-", name).lower()


def installed(sites: tuple[str, ...], *, root: str | None = None) -> tuple[tuple[Distribution, ...], int]:
    """The distributions of these folders, sorted by name, and how many were beyond the limit.

    Of two with one name the one in the earlier folder counts, as it does for the interpreter.
    """
    found: dict[str, Distribution] = {}
    left_out = 0
    for site in sites[:SITES_LIMIT]:
        for distribution in _of_site(site, root):
            key = normal(distribution.name)
            if key not in found and len(found) >= DISTRIBUTIONS_LIMIT:
                left_out += 1
            else:
                found.setdefault(key, distribution)
    return tuple(found[name] for name in sorted(found)), left_out


def recall(distributions: Iterable[Distribution]) -> None:
    """Know again what a baseline tells: metadata of the same time at the same place is not read anew."""
    for found in distributions:
        if found.wall_ns is not None and settled(found.wall_ns):
            _known.put((found.folder, found.wall_ns), found)


def _of_site(site: str, root: str | None) -> Iterator[Distribution]:
    try:
        with directory(site, root=root) as folder:
            for name in _metadata_in(folder):
                with suppress(OSError, ValueError):
                    distribution = _distribution(folder, site, name, root)
                    if distribution is not None:
                        yield distribution
    except OSError:
        return


def _metadata_in(folder: int) -> tuple[str, ...]:
    """Names of the metadata in a site folder."""
    key = identity_of(os.fstat(folder))
    names = _listed.get(key)
    if names is None:
        with os.scandir(folder) as entries:
            names = tuple(
                sorted(
                    entry.name
                    for entry in islice(entries, ENTRIES_LIMIT)
                    if entry.name.endswith((_DIST, _EGG)) and entry.name.isprintable()
                )
            )
        names = _listed.put(key, names) if settled(key[4]) else names
    return names


def _distribution(site_folder: int, site: str, name: str, root: str | None) -> Distribution | None:
    """One distribution, from memory if its RECORD is still the same file."""
    where = f"{site}/{name}"
    status = os.stat(name, dir_fd=site_folder, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode) and name.endswith(_EGG):
        return _known.get((where, identity_of(status))) or _single_file(site_folder, name, where)
    if stat.S_ISLNK(status.st_mode):  # as the environments of Nix are made of
        with directory(where, root=root) as folder:
            return _in_folder(folder, name, where)
    if not stat.S_ISDIR(status.st_mode):
        return None
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=site_folder)
    try:
        return _in_folder(folder, name, where)
    finally:
        os.close(folder)


def _in_folder(folder: int, name: str, where: str) -> Distribution | None:
    for witness in ("RECORD", "METADATA", "PKG-INFO"):
        try:
            status = os.stat(witness, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        key = (where, identity_of(status))
        known = _known.get(key) or _known.get((where, status.st_mtime_ns))
        if known is None:
            known = _read(folder, name, where, witness)
            if settled(status.st_ctime_ns):
                _known.put(key, known)
        return known
    return None


def _read(folder: int, name: str, where: str, witness: str) -> Distribution:
    record, status = _content(folder, witness, RECORD_LIMIT_BYTES)
    header, _ = _content(folder, "METADATA" if name.endswith(_DIST) else "PKG-INFO", METADATA_LIMIT_BYTES)
    installer = _content(folder, "INSTALLER", SMALL_LIMIT_BYTES)[0].strip()
    requested = False
    with suppress(OSError):
        requested = stat.S_ISREG(os.stat("REQUESTED", dir_fd=folder, follow_symlinks=False).st_mode)
    title, version = _title(header, name)
    # conda writes files with the times of their build; only ctime tells when they were put here
    wall_ns = None if status is None else status.st_ctime_ns if installer == b"conda" else status.st_mtime_ns
    return Distribution(
        name=title,
        version=version,
        folder=where,
        record=_digest(record),
        wall_ns=wall_ns,
        installer=plain(installer.decode("utf-8", "replace"), 40) or None,
        requested=requested,
        origin=_origin(_content(folder, "direct_url.json", SMALL_LIMIT_BYTES)[0]),
        tops=tops_of(record) if witness == "RECORD" else _egg_tops(folder),
    )


def _single_file(site_folder: int, name: str, where: str) -> Distribution:
    header, status = read_in(site_folder, name, limit_bytes=METADATA_LIMIT_BYTES)
    title, version = _title(header, name)
    digest = _digest(header)
    found = Distribution(name=title, version=version, folder=where, record=digest, wall_ns=status.st_ctime_ns)
    return _known.put((where, identity_of(status)), found)


def _digest(raw: bytes) -> str | None:
    import hashlib

    return hashlib.blake2b(raw, digest_size=8).hexdigest() if raw else None


def _content(folder: int, name: str, limit_bytes: int) -> tuple[bytes, os.stat_result | None]:
    try:
        return read_in(folder, name, limit_bytes=limit_bytes)
    except OSError:
        return b"", None


def _title(header: bytes, folder_name: str) -> tuple[str, str]:
    """Name and version by the metadata, else by the name of its folder."""
    fields: dict[bytes, str] = {}
    for key, value in _HEADER.findall(header[: header.find(b"\n\n") if b"\n\n" in header else len(header)][:65536]):
        fields.setdefault(key.lower(), plain(value.decode("utf-8", "replace").strip()))
    name, _, rest = folder_name.rpartition(".")[0].partition("-")
    return fields.get(b"name") or plain(name), fields.get(b"version") or plain(rest.split("-py")[0]) or "?"


def _origin(raw: bytes) -> str | None:
    """The address in direct_url.json, without the user and password that it may hold."""
    if not raw:
        return None
    try:
        described = msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    url = described.get("url")
    if not isinstance(url, str):
        return None
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return plain(f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}", 300)


def tops_of(record: bytes) -> tuple[str, ...]:
    """What can be imported by the files that a RECORD names, dotted; of a namespace package the part below it."""
    folders: dict[bytes, set[bytes]] = {}
    for first, second in _TOP.findall(record):
        folders.setdefault(first, set()).add(second)
    found: set[str] = set()
    for first, seconds in folders.items():
        top = first.decode("utf-8", "replace")
        if top in {"..", ".", "__pycache__"} or top.endswith((_DIST, _EGG, ".data")):
            continue
        if seconds == {b""}:
            top = _MODULE_ENDING.sub("", top)
            found |= {top} if top.isidentifier() else set()
        elif not top.isidentifier():
            continue
        elif b"__init__.py" in seconds or any(second.startswith(b"__init__.") for second in seconds):
            found.add(top)
        else:
            inner = (_MODULE_ENDING.sub("", second.decode("utf-8", "replace")) for second in sorted(seconds)[:TOPS_LIMIT])
            found |= {f"{top}.{part}" for part in inner if part.isidentifier()}
    return tuple(sorted(found)[:TOPS_LIMIT])


def _egg_tops(folder: int) -> tuple[str, ...]:
    lines = _content(folder, "top_level.txt", SMALL_LIMIT_BYTES)[0].decode("utf-8", "replace").split()
    return tuple(sorted({line for line in lines if line.isidentifier()})[:TOPS_LIMIT])


def owner_of_module(module: str, distributions: tuple[Distribution, ...]) -> tuple[Distribution, ...]:
    """The distributions that a dotted module can come from: those with the longest part of its name among their tops."""
    parts = module.split(".")
    for length in range(min(len(parts), 8), 0, -1):
        wanted = ".".join(parts[:length])
        owners = tuple(found for found in distributions if wanted in found.tops)
        if owners:
            return owners
    named = normal(parts[0])
    return tuple(found for found in distributions if normal(found.name) == named)


def owner_of_file(path: str, distributions: tuple[Distribution, ...], *, root: str | None = None) -> Distribution | None:
    """The distribution whose RECORD names this file; else the only one that can hold its module."""
    for found in distributions:
        site = found.folder.rpartition("/")[0]
        if not path.startswith(f"{site}/"):
            continue
        inside = path[len(site) + 1 :]
        module = _MODULE_ENDING.sub("", inside).replace("/", ".")
        beside = tuple(other for other in distributions if other.folder.rpartition("/")[0] == site)
        owners = owner_of_module(module, beside)
        if len(owners) <= 1:
            return owners[0] if owners else _by_record(inside, beside, root)
        return _by_record(inside, owners, root)
    return None


def _by_record(inside: str, candidates: tuple[Distribution, ...], root: str | None) -> Distribution | None:
    try:
        wanted = b"\n" + os.fsencode(inside) + b","
    except UnicodeEncodeError:
        return None
    for found in candidates:
        with suppress(OSError), directory(found.folder, root=root) as folder:
            if wanted in b"\n" + read_in(folder, "RECORD", limit_bytes=RECORD_LIMIT_BYTES)[0]:
                return found
    return None


def requirements_of(found: Distribution, *, root: str | None = None) -> tuple[str, ...]:
    """The names of the distributions that one asks for (Requires-Dist of its METADATA), extras included."""
    from packaging.requirements import InvalidRequirement, Requirement

    names: dict[str, None] = {}
    with suppress(OSError), directory(found.folder, root=root) as folder:
        header = read_in(folder, "METADATA", limit_bytes=METADATA_LIMIT_BYTES)[0].partition(b"\n\n")[0]
        for line in header.split(b"\n")[:5000]:
            if line[:14].lower() == b"requires-dist:" and len(line) < 1000:
                with suppress(InvalidRequirement):
                    names.setdefault(normal(Requirement(line[14:].decode("utf-8", "replace").strip()).name))
    return tuple(names)
