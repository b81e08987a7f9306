"""How to step out of one function: the call frame information that compilers put into .eh_frame.

The row for an address is found by binary search in .eh_frame_hdr. The formats are those of the Linux Standard Base core
specification, chapter 10.6, and of DWARF 5, section 6.4. All of it is read from a file that may be forged: every length is
limited, and `CfiError` says what was wrong.
"""

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

from agentscope.symbols.elf import Elf

_ENTRY_LIMIT = 128 << 10
_STEP_LIMIT = 20_000
_DEPTH_LIMIT = 64
_SEARCH_TABLE_ENCODING = 0x3B  # DW_EH_PE_datarel | DW_EH_PE_sdata4: what every linker writes
_COUNT_ENCODING = 0x03  # DW_EH_PE_udata4
_WORD = 0xFFFFFFFFFFFFFFFF
_FIXED: dict[int, tuple[str, int]] = {
    0x00: ("<Q", 8),
    0x02: ("<H", 2),
    0x03: ("<I", 4),
    0x04: ("<Q", 8),
    0x0A: ("<h", 2),
    0x0B: ("<i", 4),
    0x0C: ("<q", 8),
}

RuleKind = Literal["undefined", "same", "offset", "value-offset", "register", "expression", "value-expression"]


class CfiError(Exception):
    """The unwind table of a file is unusable here; the message says why."""


class NoTable(CfiError):
    """The file has no unwind table, or none for this address."""


class Rule(NamedTuple):
    """How the caller's value of one register is had: `operand` is an offset or a register, `code` an expression."""

    kind: RuleKind
    operand: int = 0
    code: bytes = b""


class Row(NamedTuple):
    """The rules at one address. The canonical frame address is a register plus an offset, or an expression."""

    cfa_register: int
    cfa_offset: int
    cfa_code: bytes | None
    rules: dict[int, Rule]
    return_register: int
    signal_frame: bool


class Cursor:
    """A reader of little-endian numbers in bounds; anything beyond the end is a CfiError."""

    def __init__(self, content: bytes, position: int = 0, end: int | None = None) -> None:
        self.content = content
        self.position = position
        self.end = len(content) if end is None else min(end, len(content))

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self.position
        if size < 0 or start + size > self.end:
            raise CfiError("an entry of the unwind table is cut short")
        self.position = start + size
        return self.content[start : start + size]

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def number(self, layout: str, size: int) -> int:
        """A number of fixed size, by its struct layout."""
        return int(struct.unpack(layout, self.take(size))[0])

    def uleb(self) -> int:
        """An unsigned LEB128 number of at most ten bytes."""
        result = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & _WORD
        raise CfiError("an endless number in the unwind table")

    def skip_uleb(self) -> None:
        """Pass over an unsigned LEB128 number."""
        self.uleb()

    def sleb(self) -> int:
        """A signed LEB128 number of at most ten bytes."""
        result = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result - (1 << shift + 7) if byte & 0x40 else result
        raise CfiError("an endless number in the unwind table")

    def block(self) -> bytes:
        """Bytes with their length in front."""
        return self.take(self.uleb())

    def pointer(self, encoding: int, here: int) -> int:
        """A pointer in one of the encodings of .eh_frame; `here` is the virtual address of the content's first byte."""
        base = here + self.position if encoding & 0x70 == 0x10 else 0
        if encoding & 0x70 not in {0x00, 0x10}:
            raise CfiError(f"pointers of the unwind table are in the encoding {encoding:#x}")
        return (base + self.plain(encoding)) & _WORD

    def plain(self, encoding: int) -> int:
        """The number under a pointer, without its base."""
        kind = encoding & 0x0F
        if kind == 0x01:
            return self.uleb()
        if kind == 0x09:
            return self.sleb()
        if kind not in _FIXED:
            raise CfiError(f"pointers of the unwind table are in the encoding {encoding:#x}")
        return self.number(*_FIXED[kind])


class _Cie(NamedTuple):
    """What all entries of one compilation have in common."""

    code_align: int
    value_align: int
    return_register: int
    pointer_encoding: int
    has_augmentation: bool
    signal_frame: bool
    program: bytes


def find_row(elf: Elf, address: int) -> Row:
    """The rules that hold at a virtual address of `elf`; raises NoTable or CfiError."""
    entry = _search(elf, address)
    length, cie_distance = struct.unpack("<II", _exactly(elf, entry, 8))
    if not 4 <= length <= _ENTRY_LIMIT or cie_distance == 0:
        raise CfiError(f"the unwind table points at no entry for {address:#x}")
    cie = _read_cie(elf, entry + 4 - cie_distance)
    cursor = Cursor(_exactly(elf, entry + 8, length - 4))
    start = cursor.pointer(cie.pointer_encoding, entry + 8)
    if not start <= address < start + cursor.plain(cie.pointer_encoding & 0x0F):
        raise NoTable(f"no unwind table for {address:#x}")
    if cie.has_augmentation:
        cursor.block()
    machine = _Machine(cie)
    machine.run(Cursor(cie.program), 0, None)
    machine.initial = dict(machine.rules)
    machine.run(Cursor(cursor.content, cursor.position), start, address)
    return Row(machine.cfa_register, machine.cfa_offset, machine.cfa_code, machine.rules, cie.return_register, cie.signal_frame)


def _exactly(elf: Elf, address: int, size: int) -> bytes:
    raw = elf.read_address(address, size)
    if len(raw) < size:
        raise CfiError("the unwind table points outside of the file")
    return raw


def _search(elf: Elf, address: int) -> int:
    """Virtual address of the entry for the function that may hold `address`, from the sorted table of .eh_frame_hdr."""
    header = elf.image.eh_frame_header
    if header is None:
        raise NoTable("no unwind table")
    version, pointer_encoding, count_encoding, table_encoding = elf.read(header.offset, 4).ljust(4, b"\xff")
    if version != 1 or table_encoding != _SEARCH_TABLE_ENCODING or count_encoding != _COUNT_ENCODING:
        raise NoTable("no unwind table that can be searched")
    skipped = 4 + _FIXED.get(pointer_encoding & 0x0F, ("", 4))[1]
    count = int.from_bytes(elf.read(header.offset + skipped, 4), "little")
    table = header.offset + skipped + 4
    low, high = 0, min(count, max(0, header.size - skipped - 4) // 8)
    found: int | None = None
    while low < high:
        middle = (low + high) // 2
        pair = elf.read(table + 8 * middle, 8)
        if len(pair) < 8:
            break
        function, entry = struct.unpack("<ii", pair)
        if header.address + function <= address:
            found = header.address + entry
            low = middle + 1
        else:
            high = middle
    if found is None:
        raise NoTable(f"no unwind table for {address:#x}")
    return found


def _read_cie(elf: Elf, address: int) -> _Cie:
    length, identity = struct.unpack("<II", _exactly(elf, address, 8))
    if not 8 <= length <= _ENTRY_LIMIT or identity != 0:
        raise CfiError("an entry of the unwind table has no common part")
    cursor = Cursor(_exactly(elf, address + 8, length - 4))
    version = cursor.byte()
    if version not in {1, 3, 4}:
        raise CfiError(f"the unwind table is of version {version}")
    augmentation = cursor.content[1:].split(b"\0", 1)[0]
    cursor.take(len(augmentation) + 1)
    if version == 4:
        cursor.take(2)
    code_align, value_align = cursor.uleb(), cursor.sleb()
    return_register = cursor.byte() if version == 1 else cursor.uleb()
    encoding, signal_frame = 0, False
    if augmentation[:1] == b"z":
        fields = Cursor(cursor.block())
        for letter in augmentation[1:]:
            if letter == ord("R"):
                encoding = fields.byte()
            elif letter == ord("P"):
                fields.plain(fields.byte())
            elif letter == ord("L"):
                fields.byte()
            elif letter == ord("S"):
                signal_frame = True
            elif letter != ord("B"):  # B: pointers are signed with the other key, on aarch64
                break
    elif augmentation:
        raise CfiError("the unwind table has an unknown augmentation")
    program = cursor.content[cursor.position : cursor.end]
    return _Cie(code_align, value_align, return_register, encoding, augmentation[:1] == b"z", signal_frame, program)


class _Machine:
    """Runs the instructions of an entry up to one address; its state is then the row for that address."""

    def __init__(self, cie: _Cie) -> None:
        self.cfa_register, self.cfa_offset = -1, 0
        self.cfa_code: bytes | None = None
        self.rules: dict[int, Rule] = {}
        self.initial: dict[int, Rule] = {}
        self.value_align, self._code_align = cie.value_align, cie.code_align
        self._remembered: list[tuple[int, int, bytes | None, dict[int, Rule]]] = []
        self._steps = 0

    def run(self, cursor: Cursor, location: int, wanted: int | None) -> None:
        """Execute until the location passes `wanted` (None: to the end)."""
        align = self._code_align
        while cursor.position < cursor.end:
            self._steps += 1
            if self._steps > _STEP_LIMIT:
                raise CfiError("an entry of the unwind table is too long")
            opcode = cursor.byte()
            low = opcode & 0x3F
            if opcode & 0xC0 == 0x40:  # DW_CFA_advance_loc
                location += low * align
            elif opcode & 0xC0 == 0x80:  # DW_CFA_offset
                self.rules[low] = Rule("offset", cursor.uleb() * self.value_align)
            elif opcode & 0xC0 == 0xC0:  # DW_CFA_restore
                self.restore(low)
            elif opcode == 0x01:  # DW_CFA_set_loc
                raise CfiError("the unwind table sets a location outright")
            elif 0x02 <= opcode <= 0x04:  # DW_CFA_advance_loc1, 2, 4
                size = 1 << opcode - 2
                location += int.from_bytes(cursor.take(size), "little") * align
            else:
                step = _STEPS.get(opcode)
                if step is None:
                    raise CfiError(f"the unwind table has the unknown instruction {opcode:#x}")
                step(self, cursor)
            if wanted is not None and location > wanted:
                return

    def restore(self, register: int) -> None:
        """Give a register back the rule that the common part has for it."""
        if register in self.initial:
            self.rules[register] = self.initial[register]
        else:
            self.rules.pop(register, None)

    def remember(self) -> None:
        """Keep the row for `recall`."""
        if len(self._remembered) >= _DEPTH_LIMIT:
            raise CfiError("the unwind table remembers too many states")
        self._remembered.append((self.cfa_register, self.cfa_offset, self.cfa_code, dict(self.rules)))

    def recall(self) -> None:
        """Take back the row that was remembered last."""
        if not self._remembered:
            raise CfiError("the unwind table restores a state that it did not remember")
        self.cfa_register, self.cfa_offset, self.cfa_code, self.rules = self._remembered.pop()

    def define_cfa(self, register: int | None, offset: int | None) -> None:
        """Set the register or the offset of the canonical frame address, or both."""
        self.cfa_register = self.cfa_register if register is None else register
        self.cfa_offset = self.cfa_offset if offset is None else offset
        self.cfa_code = None

    def rule(self, cursor: Cursor, kind: RuleKind, *, sign: int | None = None) -> None:
        """Set the rule of the next register; `sign` is set where a factored offset follows: -1, 0 for signed, 1."""
        register = cursor.uleb()
        if sign is not None:
            offset = cursor.sleb() if sign == 0 else cursor.uleb() * sign
            self.rules[register] = Rule(kind, offset * self.value_align)
        elif kind == "register":
            self.rules[register] = Rule(kind, cursor.uleb())
        elif kind in {"expression", "value-expression"}:
            self.rules[register] = Rule(kind, code=cursor.block())
        else:
            self.rules[register] = Rule(kind)

    def define_cfa_expression(self, cursor: Cursor) -> None:
        """Let an expression give the canonical frame address."""
        self.cfa_code = cursor.block()


_STEPS: dict[int, Callable[[_Machine, Cursor], None]] = {
    0x00: lambda _machine, _cursor: None,  # DW_CFA_nop
    0x05: lambda machine, cursor: machine.rule(cursor, "offset", sign=1),  # DW_CFA_offset_extended
    0x06: lambda machine, cursor: machine.restore(cursor.uleb()),  # DW_CFA_restore_extended
    0x07: lambda machine, cursor: machine.rule(cursor, "undefined"),
    0x08: lambda machine, cursor: machine.rule(cursor, "same"),
    0x09: lambda machine, cursor: machine.rule(cursor, "register"),
    0x0A: lambda machine, _cursor: machine.remember(),  # DW_CFA_remember_state
    0x0B: lambda machine, _cursor: machine.recall(),  # DW_CFA_restore_state
    0x0C: lambda machine, cursor: machine.define_cfa(cursor.uleb(), cursor.uleb()),
    0x0D: lambda machine, cursor: machine.define_cfa(cursor.uleb(), None),
    0x0E: lambda machine, cursor: machine.define_cfa(None, cursor.uleb()),
    0x0F: lambda machine, cursor: machine.define_cfa_expression(cursor),
    0x10: lambda machine, cursor: machine.rule(cursor, "expression"),
    0x11: lambda machine, cursor: machine.rule(cursor, "offset", sign=0),  # DW_CFA_offset_extended_sf
    0x12: lambda machine, cursor: machine.define_cfa(cursor.uleb(), cursor.sleb() * machine.value_align),
    0x13: lambda machine, cursor: machine.define_cfa(None, cursor.sleb() * machine.value_align),
    0x14: lambda machine, cursor: machine.rule(cursor, "value-offset", sign=1),
    0x15: lambda machine, cursor: machine.rule(cursor, "value-offset", sign=0),
    0x16: lambda machine, cursor: machine.rule(cursor, "value-expression"),
    0x2E: lambda _machine, cursor: cursor.skip_uleb(),  # DW_CFA_GNU_args_size
    0x2F: lambda machine, cursor: machine.rule(cursor, "offset", sign=-1),  # DW_CFA_GNU_negative_offset_extended
}
