"""Where the dynamic loader finds a library, inside the root of a process, without running it.

glibc: ld.so(8), "DESCRIPTION" (RPATH of the file and of those that loaded it, LD_LIBRARY_PATH, RUNPATH, /etc/ld.so.cache, the
default folders); the cache's form is sysdeps/generic/dl-cache.h. musl: ldso/dynlink.c (/etc/ld-musl-ARCH.path).
"""

import errno
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from agentscope.symbols.elf import Elf, open_elf
from agentscope.symbols.image import printable
from agentscope.symbols.rooted import read_regular, resolved

CACHE_LIMIT_BYTES = 16 << 20
CACHE_ENTRIES_LIMIT = 60_000
FOLDERS_LIMIT = 200
_CACHE = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"
_DEFAULT = {
    "EM_X86_64": ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"),
    "EM_AARCH64": ("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"),
}
_MUSL = re.compile(r"^/lib/ld-musl-([\w-]{1,30})\.so\.1$")
_OF_MUSL = re.compile(
    r"^lib(?:c|pthread|rt|m|dl|util|xnet)\.(?:so|musl)"
)  # the loader is all of these, reserved[] of dynlink.c
_TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM))")


class Libraries:
    """The search paths of one program: of its machine, its loader, its root."""

    def __init__(self, program: Elf, *, root: str | None, library_path: Sequence[str] = ()) -> None:
        self._root = root
        self._machine = program.image.machine
        self._environment = tuple(library_path)
        loader = program.image.interpreter or ""
        self._musl = loader if _MUSL.match(loader) else None
        self._cached: dict[str, list[str]] | None = None
        self._default = self._musl_folders() if self._musl else _DEFAULT.get(self._machine, ("/lib", "/usr/lib"))

    @property
    def versioned(self) -> bool:
        """Whether its loader asks for versions of symbols at all: musl's does not."""
        return self._musl is None

    def find(self, name: str, *, rpaths: Iterable[str], runpath: Iterable[str]) -> Elf | None:
        """The file that the loader would take for a needed name, open; None where it would find none."""
        if "/" in name:
            return self._open(name) if name.startswith("/") else None
        if self._musl and _OF_MUSL.match(name):
            return self._open(self._musl)
        folders = [*rpaths, *self._environment, *runpath]
        for folder in folders[:FOLDERS_LIMIT]:
            if folder.startswith("/") and (found := self._open(f"{folder.rstrip('/')}/{name}")):
                return found
        for path in self._by_cache(name):
            if found := self._open(path):
                return found
        for folder in self._default:
            if found := self._open(f"{folder}/{name}"):
                return found
        return None

    def substituted(self, folders: Iterable[str], path: str) -> Iterator[str]:
        """RPATH or RUNPATH of the file at `path` with $ORIGIN, $LIB and $PLATFORM filled in (ld.so(8), "Dynamic string tokens")."""
        libs = (
            ("lib/x86_64-linux-gnu", "lib64", "lib")
            if self._machine == "EM_X86_64"
            else ("lib/aarch64-linux-gnu", "lib64", "lib")
        )
        platform = "x86_64" if self._machine == "EM_X86_64" else "aarch64"
        for folder in folders:
            for lib in libs if "LIB" in folder else libs[:1]:
                tokens = {"ORIGIN": path.rpartition("/")[0] or "/", "LIB": lib, "PLATFORM": platform}
                yield _TOKEN.sub(partial(_filled, tokens), folder)

    def _open(self, path: str) -> Elf | None:
        """A file of the same machine; the loader passes over others."""
        try:
            real = resolved(path, root=self._root)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                raise
            return None
        opened = open_elf(real, root=self._root)
        if not isinstance(opened, Elf):
            return None
        if opened.image.machine != self._machine:
            opened.close()
            return None
        return opened

    def _by_cache(self, name: str) -> list[str]:
        if self._musl:
            return []
        if self._cached is None:
            try:
                self._cached = read_cache(read_regular(_CACHE, root=self._root, limit_bytes=CACHE_LIMIT_BYTES, follow=True))
            except OSError:
                self._cached = {}
        return self._cached.get(name, [])

    def _musl_folders(self) -> tuple[str, ...]:
        found = _MUSL.match(self._musl or "")
        try:
            raw = read_regular(
                f"/etc/ld-musl-{found[1] if found else ''}.path", root=self._root, limit_bytes=65536, follow=True
            )
            return tuple(part for part in re.split(r"[:\n]", raw.decode("utf-8", "replace")) if part)[:FOLDERS_LIMIT]
        except OSError:
            return ("/lib", "/usr/local/lib", "/usr/lib")


def _filled(tokens: dict[str, str], match: re.Match[str]) -> str:
    return tokens[match[1] or match[2]]


def read_cache(raw: bytes) -> dict[str, list[str]]:
    """Paths by name in an ld.so.cache; those for special processors last, because we do not ask what this one can."""
    start = raw.find(_MAGIC)  # an old table can stand before it
    if start < 0 or len(raw) < start + 48:
        return {}
    (count,) = struct.unpack_from("<I", raw, start + 20)
    plain: dict[str, list[str]] = {}
    special: dict[str, list[str]] = {}
    entries = raw[start + 48 : start + 48 + 24 * min(count, CACHE_ENTRIES_LIMIT)]
    for _, key, value, _, hwcap in struct.iter_unpack("<iIIIQ", entries[: len(entries) // 24 * 24]):
        name, path = (printable(raw[start + place : start + place + 4096]) for place in (key, value))
        if name and path:
            (special if hwcap else plain).setdefault(name, []).append(path)
    for name, paths in special.items():
        plain.setdefault(name, []).extend(paths)
    return plain
