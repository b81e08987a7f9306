"""What one ELF file asks of others and offers them: its dynamic section, as the loader reads it.

Sources: elf(5), "Dynamic tags"; the symbol versioning of Sun and GNU (Linux Standard Base, "Symbol Versioning"). Everything is
read with a limit of its own; what does not fit a table is left out, never followed.
"""

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from agentscope.symbols.elf import Elf
from agentscope.symbols.image import printable

SYMBOLS_LIMIT = 400_000
STRINGS_LIMIT_BYTES = 48 << 20
VERSIONS_LIMIT = 4000
TAGS_LIMIT_BYTES = 16 << 10
NEEDED_LIMIT = 500
_NAME_LIMIT_BYTES = 4096

_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_RPATH = 1, 4, 5, 6, 10, 15
_DT_RUNPATH, _DT_GNU_HASH, _DT_VERSYM, _DT_VERDEF, _DT_VERNEED = 29, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE
_VER_FLG_BASE, _VER_FLG_WEAK, _HIDDEN, _GLOBAL_INDEX = 1, 2, 0x8000, 1
_STB_LOCAL, _STB_WEAK = 0, 2
_VERDEF, _VERDAUX, _VERNEED, _VERNAUX = (struct.Struct(form) for form in ("<HHHHIII", "<II", "<HHIII", "<IHHII"))
_SYMBOL = struct.Struct("<IBBHQQ")


class VersionNeed(NamedTuple):
    """A version that this file needs of a library: "GLIBC_2.34" of "libc.so.6"; one that is weak may be absent."""

    library: str
    version: str
    weak: bool


class Reference(NamedTuple):
    """A symbol that this file wants of others, with the version it was linked against."""

    name: bytes
    need: VersionNeed | None


class Dynamic:
    """The dynamic section of one open file, read now; the symbols when they are asked for, while the file is open."""

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._tags: dict[int, int] = {}
        needed: list[int] = []
        linkage = elf.image.linkage
        raw = elf.read(linkage.offset, min(linkage.size, TAGS_LIMIT_BYTES)) if linkage else b""
        for tag, value in struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16]):
            if tag == 0:
                break
            if tag == _DT_NEEDED and len(needed) < NEEDED_LIMIT:
                needed.append(value)
            else:
                self._tags.setdefault(tag, value)
        self._strings = self._table(_DT_STRTAB, min(self._tags.get(_DT_STRSZ, 0), STRINGS_LIMIT_BYTES))
        self.needed = tuple(name for value in needed if (name := self._text(value)))
        self.rpath = self._folders(_DT_RPATH)
        self.runpath = self._folders(_DT_RUNPATH)
        self._defined_versions = self._read_defined()
        self._needed_versions = dict(self._read_needed())

    @property
    def version_needs(self) -> tuple[VersionNeed, ...]:
        """Every version that it needs."""
        return tuple(self._needed_versions.values())

    @property
    def versions(self) -> frozenset[str]:
        """Every version that it defines."""
        return frozenset(self._defined_versions.values())

    @property
    def indexed(self) -> bool:
        """Whether its symbols have version indexes, as those of every file that was linked to a versioned library do."""
        return _DT_VERSYM in self._tags

    def references(self) -> Iterator[Reference]:
        """The symbols that it needs of others; weak ones may be absent and are left out."""
        for number, (name, bind, section) in self._symbols():
            if section == 0 and bind not in {_STB_LOCAL, _STB_WEAK} and name:
                yield Reference(name, self._needed_versions.get(self._index(number) & ~_HIDDEN))

    def definitions(self, wanted: Collection[bytes]) -> dict[bytes, tuple[str | None, ...]]:
        """Of the wanted names those that it defines, each with its versions; None is one that any version accepts."""
        found: dict[bytes, list[str | None]] = {}
        for number, (name, bind, section) in self._symbols():
            if section == 0 or bind == _STB_LOCAL or name not in wanted:
                continue
            index = self._index(number)
            if index & ~_HIDDEN > _GLOBAL_INDEX:
                found.setdefault(name, []).append(self._defined_versions.get(index & ~_HIDDEN))
            elif not index & _HIDDEN and index == _GLOBAL_INDEX:
                found.setdefault(name, []).append(None)
        return {name: tuple(versions) for name, versions in found.items()}

    def _symbols(self) -> Iterator[tuple[int, tuple[bytes, int, int]]]:
        raw = self._table(_DT_SYMTAB, self._symbol_count() * 24)
        self._indexes = self._table(_DT_VERSYM, len(raw) // 24 * 2)
        strings = self._strings
        for number, (name, kind, _, section, _, _) in enumerate(_SYMBOL.iter_unpack(raw[: len(raw) // 24 * 24])):
            end = strings.find(b"\0", name, name + _NAME_LIMIT_BYTES)
            yield number, (strings[name:end] if end > name else b"", kind >> 4, section)

    def _index(self, number: int) -> int:
        """The version index of a symbol; a file without versions takes everything for global."""
        raw = self._indexes[2 * number : 2 * number + 2]
        return int.from_bytes(raw, "little") if len(raw) == 2 else _GLOBAL_INDEX

    def _symbol_count(self) -> int:
        """From the section of the table, else from the hash tables: the dynamic section does not say."""
        table = self._elf.image.dynamic
        address = self._tags.get(_DT_SYMTAB)
        if table is not None and address is not None and self._elf.offset_of(address) == table.offset:
            return min(table.size // 24, SYMBOLS_LIMIT)
        if _DT_HASH in self._tags:
            header = self._elf.read_address(self._tags[_DT_HASH], 8)
            return min(int.from_bytes(header[4:8], "little"), SYMBOLS_LIMIT)
        return min(self._count_by_gnu_hash(), SYMBOLS_LIMIT)

    def _count_by_gnu_hash(self) -> int:
        """One more than the last symbol of the last chain (https://sourceware.org/gnu-gabi/program-loading-and-dynamic-linking.txt)."""
        address = self._tags.get(_DT_GNU_HASH)
        header = self._elf.read_address(address, 16) if address is not None else b""
        if address is None or len(header) < 16:
            return 0
        buckets, first, bloom = struct.unpack("<III", header[:12])
        if buckets > SYMBOLS_LIMIT or bloom > SYMBOLS_LIMIT:
            return 0
        start = address + 16 + 8 * bloom
        raw = self._elf.read_address(start, 4 * buckets)
        last: int = max((bucket for (bucket,) in struct.iter_unpack("<I", raw[: len(raw) // 4 * 4])), default=0)
        if last < first:
            return int(first)
        chain = self._elf.read_address(start + 4 * buckets + 4 * (last - first), 4 * 65536)
        for place, (value,) in enumerate(struct.iter_unpack("<I", chain[: len(chain) // 4 * 4])):
            if value & 1:
                return last + place + 1
        return last

    def _table(self, tag: int, size: int) -> bytes:
        address = self._tags.get(tag)
        return b"" if address is None else self._elf.read_address(address, size)

    def _text(self, offset: int) -> str | None:
        return printable(self._strings[offset : offset + _NAME_LIMIT_BYTES])

    def _folders(self, tag: int) -> tuple[str, ...]:
        text = self._text(self._tags[tag]) if tag in self._tags else None
        return tuple(folder for folder in (text or "").split(":")[:100] if folder)

    def _read_defined(self) -> dict[int, str]:
        """Version definitions by index, without the base, which only repeats the name of the file."""
        found: dict[int, str] = {}
        address = self._tags.get(_DT_VERDEF)
        for _ in range(VERSIONS_LIMIT):
            entry = self._elf.read_address(address, _VERDEF.size) if address is not None else b""
            if address is None or len(entry) < _VERDEF.size:
                break
            _, flags, index, _, _, first, following = _VERDEF.unpack(entry)
            name = self._elf.read_address(address + first, _VERDAUX.size)
            text = self._text(_VERDAUX.unpack(name)[0]) if len(name) == _VERDAUX.size else None
            if text and not flags & _VER_FLG_BASE:
                found.setdefault(index & ~_HIDDEN, text)
            if not following:
                break
            address += following
        return found

    def _read_needed(self) -> Iterator[tuple[int, VersionNeed]]:
        address = self._tags.get(_DT_VERNEED)
        left = VERSIONS_LIMIT
        while address is not None and left > 0:
            entry = self._elf.read_address(address, _VERNEED.size)
            if len(entry) < _VERNEED.size:
                return
            _, _, file, first, following = _VERNEED.unpack(entry)
            library = self._text(file) or "?"
            place = address + first
            while left > 0:
                left -= 1
                need = self._elf.read_address(place, _VERNAUX.size)
                if len(need) < _VERNAUX.size:
                    break
                _, flags, index, name, further = _VERNAUX.unpack(need)
                text = self._text(name)
                if text:
                    yield index & ~_HIDDEN, VersionNeed(library, text, bool(flags & _VER_FLG_WEAK))
                if not further:
                    break
                place += further
            if not following:
                return
            address += following
            left -= 1
