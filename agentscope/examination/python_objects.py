"""Python objects in the memory of another process: types, texts, dictionaries, attributes. CPython 3.11 to 3.13, with the GIL.

Offsets are offsetof() with the headers of 3.11.2, 3.11.7, 3.12.1 and 3.13.0 on x86-64 (pycore_interp.h, pycore_frame.h,
pycore_dict.h, cpython/code.h, genobject.h, object.h); of 3.13 those that it publishes are taken from there. The process runs on
while it is read, so anything may be torn: an address that leads nowhere is 0, a text that cannot be read is None, and every
walk is bounded. Python 3.14 keeps its objects otherwise (tagged references, one-word locks), so it is not read here.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from agentscope.examination.memory import Memory
from agentscope.examination.proc import read_proc
from agentscope.symbols.cpython import Layout, Place, RuntimeFinder

TEXT_LIMIT = 1024
_TYPE, _SIZE_OF_VARIABLE = 8, 16
_TP_NAME, _TP_BASICSIZE, _TP_FLAGS, _TP_BASE, _TP_DICTOFFSET = 24, 32, 168, 256, 288
_INLINE_VALUES, _MANAGED_DICT = 1 << 2, 1 << 4
_MANAGED_AT, _VALUES_AT_3_11 = -24, -32
_MOST_ENTRIES = 1 << 16
_SPLIT_OR_UNICODE_ENTRY, _GENERAL_ENTRY = 16, 24
_DEEPEST_TYPE = 8
_MAPS_LIMIT = 1 << 20


class Shape(NamedTuple):
    """Offsets of one version of CPython beyond those that lead to frames. `gil` is in the interpreter (3.11: in the runtime)."""

    modules: int
    gil: int
    gil_is_pointer: bool
    gil_locked: int
    gil_holder: int
    thread_ident: int
    frame_stacktop: int
    frame_locals: int
    code_exceptions: int
    code_locals_count: int
    code_stack_size: int
    generator_state: int
    generator_frame: int
    suspended: frozenset[int]
    cached_keys: int
    values_start: int
    future_state: int
    task_coroutine: int  # its name follows


_GIL_3_11 = 360  # _PyRuntimeState.ceval.gil
_SHAPES = {
    (3, 11): Shape(888, _GIL_3_11, False, 16, 8, 152, 64, 72, 40, 76, 68, 75, 80, frozenset({-1}), 872, 0, 88, 136),
    (3, 12): Shape(944, 384, True, 16, 8, 136, 64, 72, 40, 72, 64, 67, 72, frozenset({-1}), 880, 0, 88, 136),
    (3, 13): Shape(7656, 16, True, 16, 8, 152, 64, 72, 40, 72, 64, 67, 72, frozenset({-1, -2}), 880, 8, 96, 120),
}
_FINDER = RuntimeFinder()


class Objects:
    """The Python objects of one process, as they are now."""

    def __init__(self, memory: Memory, place: Place, shape: Shape) -> None:
        self.memory = memory
        self.runtime = place.address
        self.version = place.runtime.version
        self.layout: Layout = place.runtime.layout
        self.shape = shape
        self._type_names: dict[int, str | None] = {}
        self._backing: list[tuple[int, int, int]] | None = None

    def pointer(self, address: int) -> int:
        """The pointer that stands at an address; 0 where nothing can be read."""
        raw = self.memory.read(address, 8)
        return 0 if raw is None else int.from_bytes(raw, "little")

    def signed(self, address: int, size: int) -> int | None:
        """A signed number of `size` bytes."""
        raw = self.memory.read(address, size)
        return None if raw is None else int.from_bytes(raw, "little", signed=True)

    def type_name(self, thing: int) -> str | None:
        """tp_name of an object's type, "_thread.lock"; None where this is no object."""
        return self._name_of_type(self.pointer(thing + _TYPE)) if thing else None

    def is_a(self, thing: int, name: str) -> bool:
        """Whether an object is of a type of this name, or of one derived from it by single inheritance."""
        kind = self.pointer(thing + _TYPE) if thing else 0
        for _ in range(_DEEPEST_TYPE):
            if not kind:
                return False
            if self._name_of_type(kind) == name:
                return True
            kind = self.pointer(kind + _TP_BASE)
        return False

    def c_string(self, address: int) -> bytes | None:
        """A short text that ends in NUL."""
        return (self.memory.string(address, 256) or self._in_file(address)) if address else None

    def text(self, thing: int, limit: int = TEXT_LIMIT) -> str | None:
        """The characters of a str (Include/cpython/unicodeobject.h), at most `limit`."""
        layout = self.layout
        head = self.memory.read(thing, layout.text_state + 4)
        if head is None:
            return None
        (length,) = struct.unpack_from("<Q", head, layout.text_length)
        state = int.from_bytes(head[layout.text_state :], "little") >> layout.text_kind_shift
        kind, compact, ascii_only = state & 7, state >> 3 & 1, state >> 4 & 1
        if kind not in {1, 2, 4} or not compact:
            return None
        start = thing + (layout.text_ascii_size if ascii_only else layout.text_compact_size)
        raw = self.memory.read(start, min(length, limit) * kind) if length else b""
        if raw is None:
            return None
        return raw.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[kind], "replace")

    def is_text(self, thing: int, text: str) -> bool:
        """Whether an object is this ASCII text; one read, for look-ups."""
        start = self.layout.text_ascii_size
        raw = self.memory.read(thing, start + len(text))
        if raw is None or struct.unpack_from("<Q", raw, self.layout.text_length)[0] != len(text):
            return False
        return raw[start:] == text.encode("ascii")

    def content(self, thing: int, limit: int) -> bytes:
        """What a bytes object holds, at most `limit`; nothing where it cannot be read."""
        raw = self.memory.read(thing + self.layout.bytes_length, 8)
        length = int.from_bytes(raw, "little") if raw else 0
        return (self.memory.read(thing + self.layout.bytes_content, min(length, limit)) or b"") if length else b""

    def number(self, thing: int) -> int | None:
        """A positive int below 2**90: ob_size (3.11) or lv_tag (3.12), then 30 bits a digit (cpython/longintrepr.h)."""
        raw = self.memory.read(thing + _SIZE_OF_VARIABLE, 8) if self.type_name(thing) == "int" else None
        if raw is None:
            return None
        (tag,) = struct.unpack_from("<q", raw)
        digits = tag if self.version < (3, 12) else tag >> 3
        if not 0 < digits <= 3 or (self.version >= (3, 12) and tag & 3):
            return None
        content = self.memory.read(thing + _SIZE_OF_VARIABLE + 8, 4 * digits) or b""
        return sum(digit << 30 * place for place, (digit,) in enumerate(struct.iter_unpack("<I", content))) or None

    def entries(self, dictionary: int) -> Iterator[tuple[int, int]]:
        """Keys and values of a dict, as addresses, oldest first."""
        if self.type_name(dictionary) not in {"dict", "collections.OrderedDict"}:
            return
        keys, values = self.pointer(dictionary + 32), self.pointer(dictionary + 40)
        for place, (key, value) in enumerate(self._key_entries(keys)):
            found = self.pointer(values + self.shape.values_start + 8 * place) if values else value
            if key and found:
                yield key, found

    def lookup(self, dictionary: int, name: str) -> int:
        """The value that a dict has for a text; 0 if it has none."""
        return next((value for key, value in self.entries(dictionary) if self.is_text(key, name)), 0)

    def attribute(self, thing: int, name: str) -> int:
        """What an instance has under a name, its own only and not its class's; 0 if there is none (Objects/dictobject.c)."""
        kind = self.pointer(thing + _TYPE)
        flags = self.pointer(kind + _TP_FLAGS)
        if not flags & _MANAGED_DICT:
            at = self.signed(kind + _TP_DICTOFFSET, 8) or 0
            return self.lookup(self.pointer(thing + at), name) if at > 0 else 0
        managed, values = self.pointer(thing + _MANAGED_AT), 0
        if self.version < (3, 12):
            values = 0 if managed else self.pointer(thing + _VALUES_AT_3_11)
        elif self.version < (3, 13):
            values, managed = (managed + 1, 0) if managed & 1 else (0, managed)
        elif not managed and flags & _INLINE_VALUES:
            values = thing + self.pointer(kind + _TP_BASICSIZE)
        if managed:
            return self.lookup(managed, name)
        return self._among_values(self.pointer(kind + self.shape.cached_keys), values, name) if values else 0

    def module(self, name: str) -> int:
        """The dictionary of a module that is in sys.modules of the first interpreter; 0 if it is not there."""
        interpreter = self.pointer(self.runtime + self.layout.interpreters_head)
        found = self.lookup(self.pointer(interpreter + self.shape.modules), name)
        return self.pointer(found + 16) if self.is_a(found, "module") else 0

    def _among_values(self, keys: int, values: int, name: str) -> int:
        for place, (key, _) in enumerate(self._key_entries(keys)):
            if key and self.is_text(key, name):
                return self.pointer(values + self.shape.values_start + 8 * place)
        return 0

    def _key_entries(self, keys: int) -> Iterator[tuple[int, int]]:
        """Of a struct _dictkeysobject: sizes at 8 to 10, dk_nentries at 24, then the index, then the entries."""
        head = self.memory.read(keys, 32)
        if head is None:
            return
        index_bytes, kind = head[9], head[10]
        count = min(int.from_bytes(head[24:], "little"), _MOST_ENTRIES)
        if index_bytes > 40 or kind > 2:
            return
        size = _SPLIT_OR_UNICODE_ENTRY if kind else _GENERAL_ENTRY
        at, step = keys + 32 + (1 << index_bytes), 2048
        for first in range(0, count, step):
            raw = self.memory.read(at + first * size, min(step, count - first) * size)
            if raw is None:
                return
            for key_at in range(0 if kind else 8, len(raw), size):
                key, value = struct.unpack_from("<QQ", raw, key_at)
                yield key, value

    def _name_of_type(self, kind: int) -> str | None:
        if kind not in self._type_names:
            raw = self.c_string(self.pointer(kind + _TP_NAME)) if kind else None
            self._type_names[kind] = raw.decode("utf-8", "replace") if raw else None
        return self._type_names[kind]

    def _in_file(self, address: int) -> bytes | None:
        """A text of the program's files: a child that was forked has not read all pages of them into its own memory yet."""
        if self._backing is None:
            self._backing = list(_read_only_files(self.memory.pid))
        for start, end, offset in self._backing:
            if start <= address < end:
                return _string_in_file(f"/proc/{self.memory.pid}/map_files/{start:x}-{end:x}", address - start + offset)
        return None


def _read_only_files(pid: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and file offset of the mappings whose content is that of their file: private and not writable."""
    for line in (read_proc(f"/proc/{pid}/maps", _MAPS_LIMIT) or b"").splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[1][1:2] == b"-" and fields[4] != b"0":
            start, _, end = fields[0].partition(b"-")
            yield int(start, 16), int(end, 16), int(fields[2], 16)


def _string_in_file(path: str, offset: int) -> bytes | None:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.pread(opened, 256, offset)
        return raw.partition(b"\0")[0] if b"\0" in raw else None
    except OSError:
        return None
    finally:
        os.close(opened)


def version_of(pid: int) -> str | None:
    """The version of CPython that a process runs, "3.11.7"; None if it is none, or older than 3.11."""
    place = _FINDER.find(pid)
    return None if place is None else ".".join(map(str, place.runtime.version))


def objects_of(memory: Memory) -> Objects | None:
    """The objects of a process; None if it runs no CPython whose objects can be read."""
    place = _FINDER.find(memory.pid)
    shape = _SHAPES.get(place.runtime.version[:2]) if place else None
    if place is None or shape is None:
        return None
    published = place.runtime.published
    if published:
        shape = shape._replace(
            modules=published["i.imports_modules"],
            gil=published["i.gil"],
            gil_locked=published["i.gil_locked"],
            gil_holder=published["i.gil_holder"],
            thread_ident=published["thread.thread_id"],
            frame_locals=published["frame.localsplus"],
        )
    return Objects(memory, place, shape)
