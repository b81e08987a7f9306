"""The DWARF expressions of call frame information: a stack machine without loops that matter (DWARF 5, section 2.5).

Procedure linkage tables use them ("am I before or after the push?"), and so does the frame that the kernel pushes for a
signal handler.
"""

from collections.abc import Callable, Mapping

from agentscope.symbols.cfi import CfiError, Cursor

_STEP_LIMIT = 1000
_STACK_LIMIT = 256
_WORD = 0xFFFFFFFFFFFFFFFF
_SIGN = 1 << 63

ReadMemory = Callable[[int, int], int]


def _signed(word: int) -> int:
    return word - (1 << 64) if word & _SIGN else word


_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: lambda a, b: a & b,
    0x1C: lambda a, b: a - b,
    0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b,
    0x22: lambda a, b: a + b,
    0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0,
    0x26: lambda a, b: _signed(a) >> min(b, 63),
    0x27: lambda a, b: a ^ b,
    0x29: lambda a, b: int(a == b),
    0x2A: lambda a, b: int(_signed(a) >= _signed(b)),
    0x2B: lambda a, b: int(_signed(a) > _signed(b)),
    0x2C: lambda a, b: int(_signed(a) <= _signed(b)),
    0x2D: lambda a, b: int(_signed(a) < _signed(b)),
    0x2E: lambda a, b: int(a != b),
}
_CONSTANT = {0x08: (1, False), 0x09: (1, True), 0x0A: (2, False), 0x0B: (2, True)} | {
    0x0C: (4, False),
    0x0D: (4, True),
    0x0E: (8, False),
    0x0F: (8, True),
    0x03: (8, False),  # DW_OP_addr
}


def evaluate(code: bytes, registers: Mapping[int, int], read: ReadMemory, *initial: int) -> int:
    """Value of an expression, starting from `initial` on its stack.

    Raises CfiError for a bad expression, KeyError with the number of a register that is not known, and whatever `read` does.
    """
    cursor = Cursor(code)
    stack = list(initial)
    for _ in range(_STEP_LIMIT):
        if cursor.position >= cursor.end:
            if not stack:
                break
            return stack[-1]
        if len(stack) > _STACK_LIMIT:
            break
        try:
            _step(cursor, stack, registers, read)
        except IndexError:
            break
    raise CfiError("an expression of the unwind table cannot be evaluated")


def _step(cursor: Cursor, stack: list[int], registers: Mapping[int, int], read: ReadMemory) -> None:
    """Execute one operation; IndexError where the stack is too short."""
    opcode = cursor.byte()
    if opcode in _BINARY:
        right, left = stack.pop(), stack.pop()
        stack.append(_BINARY[opcode](left, right) & _WORD)
    elif opcode in _CONSTANT:
        size, signed = _CONSTANT[opcode]
        stack.append(int.from_bytes(cursor.take(size), "little", signed=signed) & _WORD)
    elif 0x30 <= opcode <= 0x4F:  # DW_OP_lit0..31
        stack.append(opcode - 0x30)
    elif 0x70 <= opcode <= 0x8F:  # DW_OP_breg0..31
        stack.append(registers[opcode - 0x70] + cursor.sleb() & _WORD)
    elif opcode == 0x92:  # DW_OP_bregx
        stack.append(registers[cursor.uleb()] + cursor.sleb() & _WORD)
    elif opcode == 0x06:  # DW_OP_deref
        stack.append(read(stack.pop(), 8))
    elif opcode == 0x94:  # DW_OP_deref_size
        size = cursor.byte()
        if size not in {1, 2, 4, 8}:
            raise CfiError("an expression of the unwind table reads an odd number of bytes")
        stack.append(read(stack.pop(), size))
    elif opcode in {0x10, 0x11}:  # DW_OP_constu, DW_OP_consts
        stack.append((cursor.uleb() if opcode == 0x10 else cursor.sleb()) & _WORD)
    elif opcode == 0x23:  # DW_OP_plus_uconst
        stack.append(stack.pop() + cursor.uleb() & _WORD)
    elif opcode in {0x28, 0x2F}:  # DW_OP_bra, DW_OP_skip
        distance = int.from_bytes(cursor.take(2), "little", signed=True)
        if opcode == 0x2F or stack.pop():
            cursor.position += distance
            if not 0 <= cursor.position <= cursor.end:
                raise CfiError("an expression of the unwind table jumps out of itself")
    elif opcode != 0x96:  # DW_OP_nop
        _shuffle(opcode, cursor, stack)


def _shuffle(opcode: int, cursor: Cursor, stack: list[int]) -> None:
    if opcode == 0x12:  # DW_OP_dup
        stack.append(stack[-1])
    elif opcode == 0x13:  # DW_OP_drop
        stack.pop()
    elif opcode == 0x14:  # DW_OP_over
        stack.append(stack[-2])
    elif opcode == 0x15:  # DW_OP_pick
        stack.append(stack[-1 - cursor.byte()])
    elif opcode == 0x16:  # DW_OP_swap
        stack[-1], stack[-2] = stack[-2], stack[-1]
    elif opcode == 0x17:  # DW_OP_rot
        stack[-1], stack[-2], stack[-3] = stack[-2], stack[-3], stack[-1]
    elif opcode == 0x19:  # DW_OP_abs
        stack[-1] = abs(_signed(stack[-1])) & _WORD
    elif opcode == 0x1F:  # DW_OP_neg
        stack[-1] = -stack[-1] & _WORD
    elif opcode == 0x20:  # DW_OP_not
        stack[-1] = ~stack[-1] & _WORD
    else:
        raise CfiError(f"an expression of the unwind table has the unknown operation {opcode:#x}")
