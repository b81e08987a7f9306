"""The program and the libraries that a process has mapped, and what stands at their paths now.

/proc/PID/maps is proc_pid_maps(5). On overlayfs and btrfs its device and inode can be other than stat(2) gives for the same file,
so where they differ /proc/PID/map_files is asked, which answers as stat(2) does.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from agentscope.baseline import FileState, MappedFile
from agentscope.distributions import plain
from agentscope.symbols.remembered import Remembered, identity_of, settled
from agentscope.symbols.rooted import open_regular, resolved, state_of

MAPS_LIMIT_BYTES = 16 << 20
FILES_LIMIT = 2000
FILE_LIMIT_BYTES = 4 << 30
SCANNED_LIMIT_BYTES = 64 << 20
_LINE = re.compile(
    rb"^([0-9a-f]+-[0-9a-f]+) [r-][w-]x[ps] [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) ([1-9]\d*) +(/[^\n]{1,4200})$", re.MULTILINE
)
# What has a path but is no file of a package: memory and devices, and code that a just-in-time compiler wrote and deleted.
_NOT_FILES = ("/memfd:", "/dev/", "/SYSV", "/drm", "/anon_hugepage", "/[aio]", "/i915", "/proc/")
_PASSING = ("/tmp/", "/var/tmp/", "/run/")  # noqa: S108 - nothing is written there
_OCTAL = re.compile(rb"\\012")
_STEM = re.compile(r"^(.{1,200}?)(?:-\d[\d.]{0,20})?(\.so(?:\.\d{1,9})?)(?:\.\d[\d.]{0,40})?$")
_GLIBC = re.compile(rb"stable release version (\d{1,3}\.\d{1,3})")
_MUSL = re.compile(rb"\0(1\.[0-9]\.\d{1,3})\0")
_PT_NOTE, _NT_GNU_BUILD_ID = 4, 3

_states: Remembered[FileState] = Remembered(20_000)
_scanned: Remembered[str] = Remembered(500)


class Mapping:
    """One mapped file as the process sees it, before its path is looked at: `span` names it in map_files."""

    __slots__ = ("deleted", "device", "inode", "path", "span")

    def __init__(self, span: str, device: str, inode: int, path: str, deleted: bool) -> None:
        self.span, self.device, self.inode, self.path, self.deleted = span, device, inode, path, deleted


def mappings_of(pid: int, *, proc: str = "/proc") -> tuple[Mapping, ...]:
    """The executable mappings of files, one a file, in the order of their addresses. Nothing of a process that is gone."""
    try:
        descriptor = os.open(f"{proc}/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ()
    pieces: list[bytes] = []
    left = MAPS_LIMIT_BYTES
    try:
        while left > 0 and (piece := os.read(descriptor, 1 << 16)):
            pieces.append(piece)
            left -= len(piece)
    except OSError:
        return ()
    finally:
        os.close(descriptor)
    return tuple(parsed(b"".join(pieces)))


def parsed(raw: bytes) -> Iterator[Mapping]:
    """The files of a maps text."""
    seen: set[tuple[bytes, bytes, bytes]] = set()
    for span, device, inode, name in _LINE.findall(raw):
        if (device, inode, name) in seen or len(seen) >= FILES_LIMIT:
            continue
        seen.add((device, inode, name))
        deleted = name.endswith(b" (deleted)")
        path = os.fsdecode(_OCTAL.sub(b"\n", name.removesuffix(b" (deleted)")))
        if not path.isprintable():
            continue  # it could not be shown, nor found again by what is shown of it
        if path.startswith(_NOT_FILES) or (deleted and path.startswith(_PASSING) and ".so" not in path):
            continue
        yield Mapping(span.decode(), device.decode(), int(inode), path, deleted)


def mapped_files(pid: int, mappings: Iterable[Mapping], *, root: str | None, proc: str = "/proc") -> Iterator[MappedFile]:
    """Each mapping with what stands at its path now."""
    for mapping in mappings:
        file = file_state(mapping.path, root=root)
        stale = file is None or mapping.deleted
        if file is not None and not mapping.deleted and file.inode != mapping.inode:
            stale = _differs(f"{proc}/{pid}/map_files/{mapping.span}", file)
        yield MappedFile(path=mapping.path, inode=mapping.inode, device=mapping.device, file=file, stale=stale)


def _differs(link: str, file: FileState) -> bool:
    try:
        status = os.stat(link)  # noqa: PTH116 - the magic link itself is meant
    except OSError:
        return False  # we may not look: then only "(deleted)" tells
    return (status.st_dev, status.st_ino) != (file.device, file.inode)


def file_state(path: str, *, root: str | None) -> FileState | None:
    """What stands at a path now; None where that is no regular file."""
    try:
        status = state_of(path, root=root)
        key = (path, identity_of(status))
        known = _states.get(key)
        if known is not None:
            return known
        descriptor = open_regular(path, root=root, limit_bytes=FILE_LIMIT_BYTES, follow=True)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        found = FileState(
            path=path,
            device=status.st_dev,
            inode=status.st_ino,
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            build_id=build_id_of(descriptor),
        )
    finally:
        os.close(descriptor)
    return _states.put((path, identity_of(status)), found) if settled(status.st_ctime_ns) else found


def recall(files: Iterable[MappedFile]) -> None:
    """Know again what a baseline tells of files: of those that are still the same nothing is read anew."""
    for file in (mapped.file for mapped in files):
        if file is not None and settled(file.ctime_ns):
            _states.put((file.path, (file.device, file.inode, file.size_bytes, file.mtime_ns, file.ctime_ns)), file)


def build_id_of(descriptor: int) -> str | None:
    """The GNU build id of an open 64-bit ELF file, by its first note segments (elf(5)); None where it has none."""
    with suppress(OSError, struct.error, OverflowError):
        header = os.pread(descriptor, 64, 0)
        if header[:6] != b"\x7fELF\x02\x01":
            return None
        offset, entry, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        if entry != 56 or count > 256:
            return None
        for number in range(count):
            kind, _, place, _, _, size = struct.unpack_from("<IIQQQQ", os.pread(descriptor, 56, offset + 56 * number))
            if kind == _PT_NOTE and (found := _build_id(os.pread(descriptor, min(size, 4096), place))):
                return found
    return None


def _build_id(notes: bytes) -> str | None:
    place = 0
    for _ in range(64):
        if place + 12 > len(notes):
            return None
        name, size, kind = struct.unpack_from("<III", notes, place)
        start = place + 12 + (name + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[place + 12 : place + 16] == b"GNU\0" and size <= 64:
            return notes[start : start + size].hex() or None
        place = start + (size + 3 & ~3)
    return None


def stem_of(path: str) -> str:
    """What a library is called through its versions: libfoo.so.1.0 and libfoo.so.1.1 are "libfoo.so.1"."""
    name = path.rpartition("/")[2]
    found = _STEM.match(name)
    return f"{found[1]}{found[2]}" if found else name


def successor_of(path: str, *, root: str | None) -> str | None:
    """The file that the loader now finds under the name of a library that is gone: libfoo.so.1 leads to libfoo.so.1.1."""
    folder, _, name = path.rpartition("/")
    stem = stem_of(path)
    if stem == name or ".so" not in stem:
        return None
    try:
        return resolved(f"{folder}/{stem}", root=root)
    except OSError:
        return None


def libc_version(files: Iterable[MappedFile], *, root: str | None) -> str | None:
    """The C library, such as "glibc 2.36" or "musl 1.2.4", by the text in the one that is mapped."""
    for mapped in files:
        name = mapped.path.rpartition("/")[2]
        if mapped.file is None or not name.startswith(("libc.so.6", "libc-2.", "ld-musl-")):
            continue
        pattern, title = (_MUSL, "musl") if name.startswith("ld-musl-") else (_GLIBC, "glibc")
        found = scan(mapped.path, pattern, root=root)
        return f"{title} {found}" if found else None
    return None


def scan(path: str, pattern: re.Pattern[bytes], *, root: str | None) -> str | None:
    """The first group of a pattern in a file, remembered while the file is the same; None where it is not there."""
    try:
        known = _scanned.get((pattern.pattern, identity_of(state_of(path, root=root))))
        if known is not None:
            return known or None
        descriptor = open_regular(path, root=root, limit_bytes=FILE_LIMIT_BYTES, follow=True)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        found = _search(descriptor, min(status.st_size, SCANNED_LIMIT_BYTES), pattern)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if settled(status.st_ctime_ns):
        _scanned.put((pattern.pattern, identity_of(status)), found)
    return found or None


def _search(descriptor: int, size: int, pattern: re.Pattern[bytes]) -> str:
    place, tail = 0, b""
    while place < size:
        piece = os.pread(descriptor, 1 << 20, place)
        if found := pattern.search(tail + piece):
            return plain(found[1].decode("ascii", "replace"), 40)
        if not piece:
            break
        tail, place = piece[-64:], place + len(piece)
    return ""
