"""Where a process keeps its Python objects: finds `_PyRuntime` and the offsets of one build of CPython, 3.11 to 3.14.

The offsets of 3.11 and 3.12 are those of their headers (Include/internal/pycore_runtime.h, pycore_interp.h, pycore_frame.h,
Include/cpython/code.h, unicodeobject.h; offsetof() with the headers of 3.11.7 and 3.12.1), x86-64 builds with the GIL and
without Py_TRACE_REFS. From 3.13 on `_PyRuntime` begins with a table of them (Include/internal/pycore_debug_offsets.h).
ELF files are hostile: each read is bounded, and a file that makes no sense is simply not Python.
"""

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_RUNTIME = b"_PyRuntime"
_VERSION = b"Py_Version"


class Layout(NamedTuple):
    """Offsets, in bytes, that lead from `_PyRuntime` to the names and lines of frames (bpf/event.h, struct python_layout).

    `frame_holder` is where a thread points at what holds `current_frame` (struct _PyCFrame, until 3.12); 0: the thread itself.
    """

    interpreters_head: int
    interpreter_next: int
    threads_head: int
    thread_next: int
    native_thread_id: int
    frame_holder: int
    current_frame: int
    frame_code: int
    frame_previous: int
    frame_instruction: int
    frame_owner: int
    code_filename: int
    code_qualname: int
    code_linetable: int
    code_firstlineno: int
    code_instructions: int
    text_length: int
    text_state: int
    text_kind_shift: int
    text_ascii_size: int
    text_compact_size: int
    bytes_length: int
    bytes_content: int


_LAYOUTS = {
    (3, 11): Layout(40, 0, 16, 8, 160, 56, 8, 32, 48, 56, 69, 112, 128, 136, 72, 184, 16, 32, 2, 48, 72, 16, 32),
    (3, 12): Layout(40, 0, 72, 8, 144, 56, 0, 0, 8, 56, 70, 112, 128, 136, 68, 192, 16, 32, 2, 40, 56, 16, 32),
}
_OFFSETS_COOKIE = b"xdebugpy"
_COMMON = (
    "head.cookie head.version head.free_threaded runtime.size runtime.finalizing runtime.interpreters_head "
    "interpreter.size interpreter.id interpreter.next interpreter.threads_head {interpreter_more}"
    "thread.size thread.prev thread.next thread.interp thread.current_frame thread.thread_id thread.native_thread_id "
    "thread.datastack_chunk thread.status "
    "frame.size frame.previous frame.executable frame.instr_ptr frame.localsplus frame.owner {frame_more}"
    "code.size code.filename code.name code.qualname code.linetable code.firstlineno code.argcount code.localsplusnames "
    "code.localspluskinds code.co_code_adaptive {code_more}"
    "object.size object.ob_type type.size type.tp_name type.tp_repr type.tp_flags tuple.size tuple.ob_item tuple.ob_size "
    "list.size list.ob_item list.ob_size {set}dict.size dict.ma_keys dict.ma_values float.size float.ob_fval "
    "long.size long.lv_tag long.ob_digit bytes.size bytes.ob_size bytes.ob_sval "
    "unicode.size unicode.state unicode.length unicode.asciiobject_size"
)
_OFFSET_TABLES = {
    (3, 13): _COMMON.format(
        interpreter_more="i.gc i.imports_modules i.sysdict i.builtins i.ceval_gil i.gil i.gil_enabled i.gil_locked i.gil_holder ",
        frame_more="",
        code_more="",
        set="",
    ).split(),
    (3, 14): _COMMON.format(
        interpreter_more="i.threads_main i.gc i.imports_modules i.sysdict i.builtins i.ceval_gil i.gil i.gil_enabled i.gil_locked "
        "i.gil_holder i.code_object_generation i.tlbc_generation ",
        frame_more="frame.stackpointer frame.tlbc_index ",
        code_more="code.co_tlbc ",
        set="set.size set.used set.table set.mask ",
    ).split(),
}
_REFERENCE_BYTES = 16  # ob_refcnt and ob_type, the same in every build that this knows
_LARGEST_OFFSET = 1 << 24


@dataclass(frozen=True)
class Segment:
    """One PT_LOAD."""

    vaddr: int
    offset: int
    file_bytes: int
    executable: bool


class NotElf(ValueError):
    """The file is no 64-bit little-endian ELF file, or not one that makes sense."""


class Elf:
    """The few facts of an ELF file that lead to a symbol: program headers, dynamic section, hash table."""

    _MOST_HEADERS = 256
    _MOST_DYNAMIC = 1024
    _LONGEST_CHAIN = 4096
    _LARGEST_TABLE = 4 << 20  # of a static CPython: 1 MiB; of node: 30 MiB, and 30 ms to look through

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        header = self.read(0, 64)
        if header[:6] != b"\x7fELF\x02\x01":
            raise NotElf
        phoff, self._shoff = struct.unpack_from("<QQ", header, 32)
        phentsize, phnum, self._shentsize, self._shnum, self._shstrndx = struct.unpack_from("<HHHHH", header, 54)
        if phentsize != 56 or phnum > self._MOST_HEADERS:
            raise NotElf
        self.segments: list[Segment] = []
        self.dynamic_vaddr = 0
        dynamic_bytes = 0
        for kind, flags, offset, vaddr, _, file_bytes, _, _ in struct.iter_unpack("<IIQQQQQQ", self.read(phoff, phnum * 56)):
            if kind == 1:  # PT_LOAD
                self.segments.append(Segment(vaddr, offset, file_bytes, bool(flags & 1)))
            elif kind == 2:  # PT_DYNAMIC
                self.dynamic_vaddr, dynamic_bytes = vaddr, file_bytes
        self.debug_vaddr = 0
        self._tags: dict[int, int] = {}
        if self.dynamic_vaddr:
            entries = self.at(self.dynamic_vaddr, min(dynamic_bytes // 16, self._MOST_DYNAMIC) * 16)
            for index, (tag, value) in enumerate(struct.iter_unpack("<QQ", entries)):
                if tag == 0:
                    break
                if tag == 21:  # DT_DEBUG: filled in by the dynamic linker
                    self.debug_vaddr = self.dynamic_vaddr + index * 16 + 8
                self._tags.setdefault(tag, value)

    @property
    def code_vaddr(self) -> int:
        """Lowest executable address: what the kernel calls start_code, less the load bias."""
        return min((segment.vaddr for segment in self.segments if segment.executable), default=0)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the file."""
        if offset < 0 or size < 0 or offset + size > 1 << 40:
            raise NotElf
        piece = os.pread(self._descriptor, size, offset)
        if len(piece) != size:
            raise NotElf
        return piece

    def at(self, vaddr: int, size: int) -> bytes:
        """Exactly `size` bytes of what the file puts at this address."""
        for segment in self.segments:
            if segment.vaddr <= vaddr and vaddr + size <= segment.vaddr + segment.file_bytes:
                return self.read(segment.offset + vaddr - segment.vaddr, size)
        raise NotElf

    def bias(self, mapped_at: int, file_offset: int) -> int | None:
        """What to add to the file's addresses, given that a mapping shows this offset of it there."""
        for segment in self.segments:
            page = segment.offset & ~4095
            if page == file_offset:
                return mapped_at - (segment.vaddr - (segment.offset - page))
        return None

    def symbol(self, name: bytes) -> int | None:
        """Address of an exported symbol by the GNU hash table; None if it is not exported."""
        table, symbols, strings = self._tags.get(0x6FFFFEF5), self._tags.get(6), self._tags.get(5)
        if table is None or symbols is None or strings is None:
            return None
        buckets, first, bloom_words, _ = struct.unpack("<IIII", self.at(table, 16))
        if not buckets:
            return None
        hashed = 5381
        for byte in name:
            hashed = (hashed * 33 + byte) & 0xFFFFFFFF
        buckets_at = table + 16 + bloom_words * 8
        (index,) = struct.unpack("<I", self.at(buckets_at + hashed % buckets * 4, 4))
        for _ in range(self._LONGEST_CHAIN):
            if index < first:
                return None
            (entry,) = struct.unpack("<I", self.at(buckets_at + buckets * 4 + (index - first) * 4, 4))
            if entry | 1 == hashed | 1:
                name_at, _, _, _, value, _ = struct.unpack("<IBBHQQ", self.at(symbols + index * 24, 24))
                if self.at(strings + name_at, len(name) + 1) == name + b"\0":
                    return int(value)
            if entry & 1:
                return None
            index += 1
        return None

    def local_symbol(self, name: bytes) -> int | None:
        """Address of a symbol by the full symbol table, for static builds that export nothing."""
        if not self._shnum or self._shentsize != 64 or self._shnum > 4096:
            return None
        sections = list(struct.iter_unpack("<IIQQQQIIQQ", self.read(self._shoff, self._shnum * 64)))
        for _, kind, _, _, offset, size, link, _, _, _ in sections:
            if kind != 2 or link >= len(sections) or size > self._LARGEST_TABLE:  # SHT_SYMTAB
                continue
            strings_at, strings_size = sections[link][4], sections[link][5]
            if strings_size > self._LARGEST_TABLE:
                return None
            found = self.read(strings_at, strings_size).find(b"\0" + name + b"\0")
            if found < 0:
                return None
            wanted = struct.pack("<I", found + 1)
            symbols = self.read(offset, size - size % 24)
            at = symbols.find(wanted)
            while at >= 0:
                if at % 24 == 0:
                    return int(struct.unpack_from("<Q", symbols, at + 8)[0])
                at = symbols.find(wanted, at + 1)
        return None


@dataclass(frozen=True)
class Runtime:
    """`_PyRuntime` in one file. `published` is the table of offsets that it begins with since 3.13, by the names used there."""

    vaddr: int
    version: tuple[int, int, int]
    layout: Layout
    dynamic_vaddr: int
    published: Mapping[str, int]


def runtime_of(elf: Elf) -> Runtime | None:
    """CPython in this file, if it is of a version whose frames can be read."""
    vaddr, version_at = elf.symbol(_RUNTIME), elf.symbol(_VERSION)
    if vaddr is None:
        vaddr, version_at = elf.local_symbol(_RUNTIME), elf.local_symbol(_VERSION)
    if not vaddr or not version_at:
        return None
    (packed,) = struct.unpack("<Q", elf.at(version_at, 8))
    version = packed >> 24 & 0xFF, packed >> 16 & 0xFF, packed >> 8 & 0xFF
    published = _published(elf, vaddr, version[:2]) if version[:2] in _OFFSET_TABLES else {}
    layout = _LAYOUTS.get(version[:2]) or (_published_layout(published) if published else None)
    return None if layout is None else Runtime(vaddr, version, layout, elf.dynamic_vaddr, published)


def _published(elf: Elf, vaddr: int, version: tuple[int, int]) -> dict[str, int]:
    """_Py_DebugOffsets; nothing for a free-threaded build, whose byte code is elsewhere, or on nonsense."""
    names = _OFFSET_TABLES[version]
    values = elf.at(vaddr, len(names) * 8)
    if values[:8] != _OFFSETS_COOKIE:
        return {}
    offsets = dict(zip(names, struct.unpack(f"<{len(names)}Q", values), strict=True))
    known = offsets["head.version"] >> 16 == version[0] << 8 | version[1] and not offsets["head.free_threaded"]
    # sizes that have been the same in all builds: were the table of another shape, they would not stand where they should
    shaped = (offsets["object.size"], offsets["bytes.ob_size"], offsets["bytes.ob_sval"]) == (16, 16, 32)
    return offsets if known and shaped else {}


def _published_layout(offsets: Mapping[str, int]) -> Layout | None:
    """The layout out of _Py_DebugOffsets; None on nonsense."""
    layout = Layout(
        interpreters_head=offsets["runtime.interpreters_head"],
        interpreter_next=offsets["interpreter.next"],
        threads_head=offsets["interpreter.threads_head"],
        thread_next=offsets["thread.next"],
        native_thread_id=offsets["thread.native_thread_id"],
        frame_holder=0,
        current_frame=offsets["thread.current_frame"],
        frame_code=offsets["frame.executable"],
        frame_previous=offsets["frame.previous"],
        frame_instruction=offsets["frame.instr_ptr"],
        frame_owner=offsets["frame.owner"],
        code_filename=offsets["code.filename"],
        code_qualname=offsets["code.qualname"],
        code_linetable=offsets["code.linetable"],
        code_firstlineno=offsets["code.firstlineno"],
        code_instructions=offsets["code.co_code_adaptive"],
        text_length=offsets["unicode.length"],
        text_state=offsets["unicode.state"],
        text_kind_shift=2,
        text_ascii_size=offsets["unicode.asciiobject_size"],
        text_compact_size=offsets["unicode.size"] - 8,
        bytes_length=offsets["bytes.ob_size"],
        bytes_content=offsets["bytes.ob_sval"],
    )
    return layout if min(layout) >= 0 and max(layout) < _LARGEST_OFFSET else None


class Place(NamedTuple):
    """`_PyRuntime` of one process at `address`; `exe` is what it runs, `in_library` tells that Python is in a library of it."""

    address: int
    runtime: Runtime
    exe: Elf
    exe_inode: int
    exe_bytes: int
    in_library: bool


class RuntimeFinder:
    """Finds Python in processes; each file is looked at once, by device, inode, size and time of change."""

    _MOST_FILES = 512
    _MOST_MAPS_BYTES = 1 << 20

    def __init__(self) -> None:
        self._files: dict[tuple[int, ...], tuple[Elf | None, Runtime | None]] = {}

    def find(self, pid: int) -> Place | None:
        """None if the process is gone, may not be looked at, or runs no Python that is known."""
        try:
            return self._find(pid)
        except (OSError, NotElf, struct.error):
            return None

    def _find(self, pid: int) -> Place | None:
        exe_path = f"/proc/{pid}/exe"
        about = Path(exe_path).stat()
        exe, runtime = self._inspect(exe_path)
        if exe is None:
            return None
        maps = list(self._mappings(pid))
        if runtime is not None:
            for start, _, offset, inode, _ in maps:
                bias = exe.bias(start, offset) if inode == about.st_ino else None
                if bias is not None:
                    return Place(bias + runtime.vaddr, runtime, exe, about.st_ino, about.st_size, in_library=False)
            return None
        for start, end, offset, inode, path in maps:
            if not inode or b"libpython" not in path.rpartition(b"/")[2]:
                continue
            library, runtime = self._inspect(f"/proc/{pid}/map_files/{start:x}-{end:x}")
            bias = library.bias(start, offset) if library else None
            if runtime is not None and bias is not None:
                return Place(bias + runtime.vaddr, runtime, exe, about.st_ino, about.st_size, in_library=True)
        return None

    def _mappings(self, pid: int) -> Iterator[tuple[int, int, int, int, bytes]]:
        with Path(f"/proc/{pid}/maps").open("rb") as maps:
            for line in maps.read(self._MOST_MAPS_BYTES).splitlines():
                fields = line.split(None, 5)
                if len(fields) == 6 and fields[4] != b"0":
                    start, _, end = fields[0].partition(b"-")
                    yield int(start, 16), int(end, 16), int(fields[2], 16), int(fields[4]), fields[5]

    def _inspect(self, path: str) -> tuple[Elf | None, Runtime | None]:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(descriptor)
            key = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
            if key in self._files:
                return self._files[key]
            found: tuple[Elf | None, Runtime | None] = None, None
            if stat.S_ISREG(about.st_mode):
                try:
                    elf = Elf(descriptor)
                    found = elf, runtime_of(elf)
                except (NotElf, struct.error, OSError):
                    found = None, None
            if len(self._files) >= self._MOST_FILES:
                self._files.pop(next(iter(self._files)))
            self._files[key] = found
            return found
        finally:
            os.close(descriptor)
