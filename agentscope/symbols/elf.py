"""Names for addresses in one ELF file that a process has mapped.

What was learnt of a file is kept while its device, inode, size and mtime stay the same. Files are opened for the length of
one question only: a descriptor kept open would keep the file system of a container from being unmounted.
"""

import errno
import os
import struct
from collections import OrderedDict
from threading import Lock
from types import TracebackType
from typing import Literal, Self

from agentscope.model import Value
from agentscope.symbols.image import NAME_LIMIT, FunctionIndex, Image, SymbolTable, index_functions, printable, read_image
from agentscope.symbols.rooted import open_regular

ProblemKind = Literal["missing", "forbidden", "replaced", "not-a-file", "too-large", "not-elf", "malformed"]

FILE_LIMIT = 4 << 30
_RELOCATION_LIMIT = 24 * 700_000
_CACHE_LIMIT = 32 << 20
_CACHE_COUNT_LIMIT = 512
_ENCLOSING_LIMIT = 32
_SIZELESS_REACH = 4096
_DEBUG_ROOT = "/usr/lib/debug/.build-id"
_GLOBAL, _WEAK = 1, 2


class ElfProblem(Value, frozen=True):
    """Why a file gave no names: `kind` for programs, `says` for people."""

    path: str
    kind: ProblemKind
    says: str


class Symbol(Value, frozen=True):
    """A function of an ELF file, and how far into it an address is."""

    name: str
    offset: int

    def __str__(self) -> str:
        return f"{self.name}+{self.offset:#x}" if self.offset else self.name


class _Cache:
    """Images by identity of their file, the least recently used dropped first."""

    def __init__(self, limit_bytes: int) -> None:
        self._images: OrderedDict[tuple[int, int, int, int], Image] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._lock = Lock()

    def get(self, key: tuple[int, int, int, int]) -> Image | None:
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
            return image

    def put(self, key: tuple[int, int, int, int], image: Image) -> None:
        with self._lock:
            self._images[key] = image
            self._images.move_to_end(key)
            total = sum(kept.cost_bytes for kept in self._images.values())
            while len(self._images) > 1 and (total > self._limit_bytes or len(self._images) > _CACHE_COUNT_LIMIT):
                total -= self._images.popitem(last=False)[1].cost_bytes

    def clear(self) -> None:
        with self._lock:
            self._images.clear()

    @property
    def cost_bytes(self) -> int:
        with self._lock:
            return sum(kept.cost_bytes for kept in self._images.values())


cache = _Cache(_CACHE_LIMIT)


class Elf:
    """One ELF file, open. Use it as a context manager; every question is answered with a value or None, never an error."""

    def __init__(self, path: str, root: str | None, descriptor: int, key: tuple[int, int, int, int], image: Image) -> None:
        self.path = path
        self.image = image
        self._root = root
        self._descriptor = descriptor
        self._key = key
        self._debug: Elf | None = None
        self._debug_sought = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was learnt of it stays in the cache."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._debug:
            self._debug.close()

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes of the file at `offset`; fewer or none where it ends or cannot be read."""
        if not 0 <= offset < 1 << 62 or size <= 0:
            return b""
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError:
            return b""

    def read_address(self, address: int, size: int) -> bytes:
        """At most `size` bytes that the file puts at a virtual address."""
        offset = self.offset_of(address)
        return b"" if offset is None else self.read(offset, size)

    def address_of(self, offset: int) -> int | None:
        """Virtual address of a byte of the file; pages are mapped whole, so the rest of a segment's page counts too."""
        for segment in self.image.segments:
            if segment.offset <= offset < segment.offset + segment.size:
                return offset - segment.offset + segment.address
        for segment in self.image.segments:
            if segment.offset & ~0xFFF <= offset < (segment.offset + segment.size + 0xFFF) & ~0xFFF:
                return offset - segment.offset + segment.address
        return None

    def offset_of(self, address: int) -> int | None:
        """Position in the file of a virtual address, None where no loaded segment has it."""
        for segment in self.image.segments:
            if segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        return None

    def symbol_at(self, address: int) -> Symbol | None:
        """The function that a virtual address is in: by .symtab, else by the separate debug file, else by .dynsym."""
        index = self._index()
        if index and index.order:
            return self._look_up(index, address)
        debug = self._debug_file()
        if debug:
            return debug.symbol_at(address)
        index = self._dynamic_index()
        return self._look_up(index, address) if index else None

    def name_of_dynamic(self, number: int) -> str | None:
        """Name of the symbol at one place of .dynsym, as relocations point at it."""
        table = self.image.dynamic
        if table is None or not 0 < number < table.size // 24:
            return None
        entry = self.read(table.offset + 24 * number, 24)
        if len(entry) < 24:
            return None
        return self._name_at(table.strings_offset + int.from_bytes(entry[:4], "little"))

    def relocation_symbol(self, address: int) -> str | None:
        """Name of the symbol whose address the dynamic linker writes at `address` (a slot of the global offset table)."""
        wanted = struct.pack("<Q", address & 0xFFFFFFFFFFFFFFFF)
        for offset, size in self.image.relocations:
            entries = self.read(offset, min(size, _RELOCATION_LIMIT))
            position = -1
            for _ in range(64):
                position = entries.find(wanted, position + 1)
                if position < 0 or position + 24 > len(entries):
                    break
                if position % 24 == 0:
                    return self.name_of_dynamic(int.from_bytes(entries[position + 12 : position + 16], "little"))
        return None

    def _index(self) -> FunctionIndex | None:
        image = self.image
        if image.index is None and image.symbols is not None:
            image.index = self._sort(image.symbols)
            cache.put(self._key, image)
        return image.index

    def _dynamic_index(self) -> FunctionIndex | None:
        image = self.image
        if image.dynamic_index is None and image.dynamic is not None:
            image.dynamic_index = self._sort(image.dynamic)
            cache.put(self._key, image)
        return image.dynamic_index

    def _sort(self, table: SymbolTable) -> FunctionIndex | None:
        try:
            return index_functions(self._descriptor, table)
        except OSError:
            return None

    def _debug_file(self) -> "Elf | None":
        """The file of debug symbols with the same build id, where the distribution installs them."""
        if not self._debug_sought:
            self._debug_sought = True
            build_id = self.image.build_id
            if build_id and len(build_id) > 2 and self.image.symbols is None:
                opened = open_elf(f"{_DEBUG_ROOT}/{build_id[:2]}/{build_id[2:]}.debug", root=self._root)
                if isinstance(opened, Elf):
                    if opened.image.build_id == build_id and opened.image.symbols is not None:
                        opened._debug_sought = True  # noqa: SLF001  a debug file has none of its own
                        self._debug = opened
                    else:
                        opened.close()
        return self._debug

    def _look_up(self, index: FunctionIndex, address: int) -> Symbol | None:
        nearest = index.nearest(address)
        for place in range(nearest, max(-1, nearest - _ENCLOSING_LIMIT), -1):
            number = index.order[place]
            start, size = index.addresses[number], index.sizes[number]
            sizeless = size == 0 and place == nearest and address - start < _SIZELESS_REACH
            if address < start + size or sizeless:
                return self._best_alias(index, place, address)
        return None

    def _best_alias(self, index: FunctionIndex, place: int, address: int) -> Symbol | None:
        """Of the names of one function, the public one with the fewest underscores in front."""
        start, size = index.addresses[index.order[place]], index.sizes[index.order[place]]
        best: tuple[int, int, int, str] | None = None
        for number in reversed(index.order[max(0, place - _ENCLOSING_LIMIT) : place + 1]):
            if index.addresses[number] != start:
                break
            position = index.name_offset(number)
            name = self._name_at(position) if position is not None and index.sizes[number] == size else None
            if name:
                rank = {_GLOBAL: 0, _WEAK: 1}.get(index.binding(number), 2)
                candidate = (rank, len(name) - len(name.lstrip("_")), len(name), name)
                best = candidate if best is None or candidate < best else best
        return Symbol(name=best[3], offset=address - start) if best else None

    def _name_at(self, position: int) -> str | None:
        return printable(self.read(position, NAME_LIMIT))


def open_elf(path: str, *, inode: int | None = None, root: str | None = None) -> Elf | ElfProblem:
    """Open the file that a process has mapped as `path`, as seen in `root`, if it is still the one with that `inode`.

    The inode is compared, not the device: on btrfs and overlayfs the kernel's device number is another than stat(2)'s.
    """
    try:
        descriptor = open_regular(path, root=root, limit_bytes=FILE_LIMIT)
    except OSError as error:
        return _open_problem(path, error)
    try:
        status = os.fstat(descriptor)
        if inode is not None and status.st_ino != inode:
            problem = ElfProblem(path=path, kind="replaced", says=f"{path} was replaced since it was mapped")
        else:
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            image = cache.get(key) or _examine(path, descriptor, status.st_size)
            if isinstance(image, Image):
                cache.put(key, image)
                opened = Elf(path, root, descriptor, key, image)
                descriptor = -1
                return opened
            problem = image
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return problem


def warm(path: str, *, inode: int | None = None, root: str | None = None) -> ElfProblem | None:
    """Learn a file's layout and symbols now, so that a death later finds them in memory; says what was wrong, if anything."""
    opened = open_elf(path, inode=inode, root=root)
    if isinstance(opened, ElfProblem):
        return opened
    with opened:
        opened.symbol_at(0)
    return None


def _open_problem(path: str, error: OSError) -> ElfProblem:
    kinds: dict[int | None, ProblemKind] = {
        errno.ENOENT: "missing",
        errno.ENOTDIR: "missing",
        errno.EACCES: "forbidden",
        errno.EPERM: "forbidden",
        errno.ELOOP: "replaced",
        errno.EINVAL: "not-a-file",
        errno.EFBIG: "too-large",
    }
    kind = kinds.get(error.errno, "missing")
    if kind == "missing" and path.endswith(" (deleted)"):  # as /proc/PID/maps marks it, proc_pid_maps(5)
        kind = "replaced"
    says = f"{path} was replaced since it was mapped" if kind == "replaced" else f"{path}: {error.strerror or error}"
    return ElfProblem(path=path, kind=kind, says=says)


def _examine(path: str, descriptor: int, size: int) -> Image | ElfProblem:
    """Read the headers of an ELF file; whatever pyelftools stumbles over means that it is malformed."""
    try:
        magic = os.pread(descriptor, 6, 0)
    except OSError as error:
        return _open_problem(path, error)
    if magic[:4] != b"\x7fELF":
        return ElfProblem(path=path, kind="not-elf", says=f"{path} is no ELF file")
    if magic[4:] != b"\x02\x01":
        return ElfProblem(path=path, kind="not-elf", says=f"{path} is no 64-bit little-endian ELF file")
    try:
        return read_image(descriptor, size)
    except Exception as error:  # noqa: BLE001  a forged file can make the library raise anything; all of it means the same
        return ElfProblem(path=path, kind="malformed", says=f"{path} is malformed: {type(error).__name__}")
