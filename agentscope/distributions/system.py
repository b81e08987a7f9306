"""Every package that the system has installed, by the database of its package tool; rpm's is left to its logs (changes/rpm.py).

dpkg: /var/lib/dpkg/status (deb822(5)). apk: /lib/apk/db/installed. pacman: one folder a package in /var/lib/pacman/local.
"""

import os
import re
from contextlib import suppress
from itertools import islice

from agentscope.distributions import SystemPackages, plain
from agentscope.symbols.remembered import Remembered, identity_of, settled
from agentscope.symbols.rooted import directory, read_regular, state_of

DATABASE_LIMIT_BYTES = 64 << 20
PACKAGES_LIMIT = 20_000
_DPKG, _APK, _PACMAN = "/var/lib/dpkg/status", "/lib/apk/db/installed", "/var/lib/pacman/local"
_FIELD = re.compile(rb"^(Package|Status|Architecture|Version): ([^\n]{1,300})$", re.MULTILINE)
_APK_FIELD = re.compile(rb"^([PV]):([^\n]{1,300})$", re.MULTILINE)
_FOLDER = re.compile(r"^(.{1,200})-([^-]{1,100}-[^-]{1,40})$")

_known: Remembered[SystemPackages] = Remembered(64)


def system_packages(*, root: str | None = None) -> SystemPackages | None:
    """The packages of the first database that there is; None where there is none that can be read."""
    for path in (_DPKG, _APK, _PACMAN):
        with suppress(OSError):
            status = state_of(path, root=root)
            key = (path, identity_of(status))
            known = _known.get(key)
            if known is None:
                known = _read(path, root)
                if settled(status.st_ctime_ns):
                    _known.put(key, known)
            return known
    return None


def _read(path: str, root: str | None) -> SystemPackages:
    if path == _PACMAN:
        return SystemPackages(ecosystem="pacman", versions=_of_folders(root))
    raw = read_regular(path, root=root, limit_bytes=DATABASE_LIMIT_BYTES, follow=True)
    if path == _DPKG:
        return SystemPackages(ecosystem="dpkg", versions=packages_of_status(raw))
    found: dict[str, str] = {}
    name = ""
    for field, value in _APK_FIELD.findall(raw):
        text = plain(value.decode("utf-8", "replace"))
        if field == b"P":
            name = text
        elif name and len(found) < PACKAGES_LIMIT:
            found[name] = text
    return SystemPackages(ecosystem="apk", versions=tuple(sorted(found.items())))


def packages_of_status(raw: bytes) -> tuple[tuple[str, str], ...]:
    """Installed packages of a dpkg status file: "libc6", and "libc6:i386" where that is not the first architecture."""
    found: dict[str, str] = {}
    name = architecture = ""
    installed = False
    for field, value in _FIELD.findall(raw):
        if field == b"Package":
            name, installed, architecture = plain(value.decode("utf-8", "replace")), False, ""
        elif field == b"Status":
            installed = value.endswith((b" installed", b" half-configured", b" unpacked"))
        elif field == b"Architecture":
            architecture = plain(value.decode("utf-8", "replace"))
        elif installed and name and len(found) < PACKAGES_LIMIT:
            version = plain(value.decode("utf-8", "replace"))
            found[name if name not in found else f"{name}:{architecture}"] = version
    return tuple(sorted(found.items()))


def _of_folders(root: str | None) -> tuple[tuple[str, str], ...]:
    with directory(_PACMAN, root=root) as opened, os.scandir(opened) as entries:
        matches = [_FOLDER.match(entry.name) for entry in islice(entries, PACKAGES_LIMIT)]
    return tuple(sorted((plain(match[1]), plain(match[2])) for match in matches if match))
