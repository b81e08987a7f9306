"""The layout of one ELF file, read from its headers within a budget (ELF-64, little endian; elf(5)).

pyelftools decodes the structures, over a stream that refuses to give more than a fixed amount, so that a forged file costs
milliseconds. A symbol table is taken apart here instead, into sorted arrays, because a file has up to 10^6 symbols.
"""

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import compress
from typing import IO, TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_HEADER_BUDGET = 1 << 20
_TABLE_LIMIT = 24 * 600_000
_SECTION_LIMIT = 2048
_SEGMENT_LIMIT = 256
NAME_LIMIT = 256

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = "PT_LOAD", "PT_DYNAMIC", "PT_INTERP"
_PT_NOTE, _PT_GNU_EH_FRAME = "PT_NOTE", "PT_GNU_EH_FRAME"
_DT_NULL, _DT_STRTAB, _DT_SONAME = 0, 5, 14
_IS_FUNCTION = bytes(kind & 0xF in {2, 10} for kind in range(256))  # STT_FUNC, STT_GNU_IFUNC


class Segment(NamedTuple):
    """A loaded part of the file: `size` bytes from `offset` stand at virtual address `address`."""

    offset: int
    address: int
    size: int


class SymbolTable(NamedTuple):
    """Where a symbol table and its strings are in the file."""

    offset: int
    size: int
    strings_offset: int
    strings_size: int


class FunctionIndex(NamedTuple):
    """A symbol table taken apart: one entry a symbol in three arrays, and in `order` the functions by their address.

    A head is, from its low end: st_name 32 bits, st_info 8 (type in its low 4, binding above), st_other 8, st_shndx 16.
    """

    order: "array[int]"  # subscriptable from Python 3.12 on only
    heads: "array[int]"
    addresses: "array[int]"
    sizes: "array[int]"
    strings: Segment

    @property
    def cost_bytes(self) -> int:
        """Memory that the arrays hold."""
        return len(self.order) * 4 + len(self.heads) * 24

    def nearest(self, address: int) -> int:
        """Place in `order` of the last function that starts at or before an address, -1 for none."""
        return bisect_right(self.order, address, key=self.addresses.__getitem__) - 1

    def name_offset(self, number: int) -> int | None:
        """Position in the file of a symbol's name."""
        name = self.heads[number] & 0xFFFFFFFF
        return self.strings.offset + name if name < self.strings.size else None

    def binding(self, number: int) -> int:
        """STB_LOCAL 0, STB_GLOBAL 1, STB_WEAK 2."""
        return self.heads[number] >> 36 & 0xF


class Image:
    """What is known of one ELF file, without any descriptor: the layout now, the symbols once they were asked for.

    `symbols` is .symtab, `dynamic` .dynsym; `linkage` is where the dynamic section stands, `interpreter` the loader it asks for.
    """

    def __init__(self) -> None:
        self.machine = ""
        self.segments: tuple[Segment, ...] = ()
        self.eh_frame_header: Segment | None = None
        self.build_id: str | None = None
        self.soname: str | None = None
        self.symbols: SymbolTable | None = None
        self.dynamic: SymbolTable | None = None
        self.linkage: Segment | None = None
        self.interpreter: str | None = None
        self.relocations: tuple[tuple[int, int], ...] = ()
        self.index: FunctionIndex | None = None
        self.dynamic_index: FunctionIndex | None = None

    @property
    def cost_bytes(self) -> int:
        """Memory that this image holds, roughly."""
        return 4096 + sum(index.cost_bytes for index in (self.index, self.dynamic_index) if index)


def printable(raw: bytes) -> str | None:
    """A name out of a file: up to its NUL, with nothing that could steer a terminal; None where nothing is left."""
    name = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in name) or None


def read_image(descriptor: int, size: int) -> Image:
    """The layout of an open ELF file. A forged one can raise any exception here, all of them meaning that it is malformed."""
    from elftools.common.utils import struct_parse
    from elftools.elf.elffile import ELFFile

    stream = cast("IO[bytes]", _BoundedStream(descriptor, size))
    elf = ELFFile(stream)
    header, structs = elf.header, elf.structs
    image = Image()
    image.machine = str(header["e_machine"])
    segments, sections = int(header["e_phnum"]), int(header["e_shnum"])
    if segments > _SEGMENT_LIMIT:
        raise _BudgetExceeded
    # The bare structures, not the library's objects: those follow links between sections and look for names.
    loads: list[Segment] = []
    dynamic: Segment | None = None
    for number in range(segments):
        entry = struct_parse(structs.Elf_Phdr, stream, stream_pos=header["e_phoff"] + number * header["e_phentsize"])
        place = Segment(entry["p_offset"], entry["p_vaddr"], entry["p_filesz"])
        if entry["p_type"] == _PT_LOAD:
            loads.append(place)
        elif entry["p_type"] == _PT_GNU_EH_FRAME:
            image.eh_frame_header = place
        elif entry["p_type"] == _PT_NOTE and image.build_id is None:
            image.build_id = _build_id(elf, place)
        elif entry["p_type"] == _PT_DYNAMIC:
            dynamic = place
        elif entry["p_type"] == _PT_INTERP:
            stream.seek(place.offset)
            image.interpreter = printable(stream.read(min(place.size, NAME_LIMIT)))
    image.segments = tuple(loads)
    if header["e_shoff"] and sections <= _SECTION_LIMIT:
        _read_sections(
            image,
            [
                struct_parse(structs.Elf_Shdr, stream, stream_pos=header["e_shoff"] + number * header["e_shentsize"])
                for number in range(sections)
            ],
            size,
        )
    if dynamic is not None:
        image.linkage = dynamic
        image.soname = _soname(stream, dynamic, image.segments)
    return image


def _read_sections(image: Image, sections: Sequence[dict[str, int]], file_size: int) -> None:
    """Note where the symbol tables and the relocations against .dynsym are."""
    relocations: list[tuple[int, int]] = []
    for section in sections:
        kind, link = cast("object", section["sh_type"]), section["sh_link"]
        offset, size = section["sh_offset"], section["sh_size"]
        if offset + size > file_size or link >= len(sections):
            continue
        if kind in {"SHT_SYMTAB", "SHT_DYNSYM"} and section["sh_entsize"] == 24:
            strings = sections[link]
            table = SymbolTable(offset, size, strings["sh_offset"], strings["sh_size"])
            if kind == "SHT_SYMTAB":
                image.symbols = table
            else:
                image.dynamic = table
        elif kind == "SHT_RELA" and cast("object", sections[link]["sh_type"]) == "SHT_DYNSYM":
            relocations.append((offset, size))
    image.relocations = tuple(sorted(relocations, key=lambda place: place[1])[:4])


def _build_id(elf: "ELFFile", place: Segment) -> str | None:
    from elftools.elf.notes import iter_notes

    for note in iter_notes(elf, place.offset, min(place.size, 4096)):
        if note["n_type"] == "NT_GNU_BUILD_ID":
            found = str(note["n_desc"])
            return found if len(found) <= 128 and found.isalnum() else None
    return None


def _soname(stream: IO[bytes], dynamic: Segment, segments: tuple[Segment, ...]) -> str | None:
    stream.seek(dynamic.offset)
    raw = stream.read(min(dynamic.size, 16384))
    tags: dict[int, int] = {}
    for tag, number in struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16]):
        if tag == _DT_NULL:
            break
        tags.setdefault(tag, number)
    if _DT_SONAME not in tags or _DT_STRTAB not in tags:
        return None
    for segment in segments:
        if segment.address <= tags[_DT_STRTAB] < segment.address + segment.size:
            stream.seek(tags[_DT_STRTAB] - segment.address + segment.offset + tags[_DT_SONAME])
            return printable(stream.read(NAME_LIMIT))
    return None


def index_functions(descriptor: int, table: SymbolTable) -> FunctionIndex | None:
    """Order the functions of a symbol table by address; None where the table is too large to do that in time."""
    if table.size > _TABLE_LIMIT:
        return None
    raw = os.pread(descriptor, table.size, table.offset)
    raw = raw[: len(raw) // 24 * 24]
    words = array("Q")
    words.frombytes(raw)
    heads, addresses, sizes = words[0::3], words[1::3], words[2::3]
    defined = (low | high for low, high in zip(raw[6::24], raw[7::24], strict=True))
    wanted = (function and section for function, section in zip(raw[4::24].translate(_IS_FUNCTION), defined, strict=True))
    order = list(compress(range(len(heads)), wanted))
    order.sort(key=addresses.__getitem__)
    return FunctionIndex(array("I", order), heads, addresses, sizes, Segment(table.strings_offset, 0, table.strings_size))


class _BudgetExceeded(Exception):
    """A file made us read more of its headers than any real file has."""


class _BoundedStream:
    """The part of a binary stream that pyelftools uses, over pread(2), with a limit on all that is read."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._position = 0
        self._left = _HEADER_BUDGET

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        if self._position < 0:
            raise _BudgetExceeded
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise _BudgetExceeded
        self._left -= size + 16
        if self._position >= 1 << 62:
            raise _BudgetExceeded
        piece = os.pread(self._descriptor, size, self._position)
        self._position += len(piece)
        return piece
