"""Call frame information: its numbers, its expressions, and what a walk makes of them."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.model import Mapping
from agentscope.symbols.cfi import CfiError, Cursor, Rule, _Cie, _Machine
from agentscope.symbols.expression import evaluate
from agentscope.symbols.unwind import unwind

CIE = _Cie(
    code_align=1,
    value_align=-8,
    return_register=16,
    pointer_encoding=0x1B,
    has_augmentation=True,
    signal_frame=False,
    program=b"",
)


def refuse(address, size):
    raise AssertionError((address, size))


def after(program, wanted, *, initial=b""):
    machine = _Machine(CIE)
    machine.run(Cursor(initial), 0, None)
    machine.initial = dict(machine.rules)
    machine.run(Cursor(program), 0, wanted)
    return machine


def test_leb128_numbers_are_read_as_the_standard_lists_them():
    """The examples of DWARF 5, figures 22 and 23."""
    assert Cursor(bytes([0xE5, 0x8E, 0x26])).uleb() == 624485
    assert [Cursor(bytes(raw)).sleb() for raw in ([2], [0x7E], [0xFF, 0], [0x81, 0x7F], [0x80, 1], [0x80, 0x7F])] == [
        2,
        -2,
        127,
        -127,
        128,
        -128,
    ]


def test_a_number_without_an_end_is_an_error():
    """Eleven continuation bytes are no number, and neither is a number that the entry cuts off."""
    for raw in (b"\x80" * 11, b"\x80"):
        with pytest.raises(CfiError):
            Cursor(raw).uleb()


def test_rows_change_where_the_location_says():
    """After push and pop the frame grows and shrinks at exactly the addresses of the table."""
    push_at_one = bytes([0x0C, 7, 8, 0x80 | 16, 1, 0x41, 0x0E, 16, 0x80 | 3, 2, 0x44, 0x0E, 8])
    offsets = [after(push_at_one, address).cfa_offset for address in (0, 1, 4, 5, 9)]
    assert offsets == [8, 16, 16, 8, 8]
    assert after(push_at_one, 1).rules[3] == Rule("offset", -16)


def test_remembered_states_come_back():
    """An early return in the middle of a function does not change the rows after it."""
    program = bytes([0x0C, 7, 32, 0x41, 0x0A, 0x0E, 8, 0x41, 0x0B])
    assert [after(program, address).cfa_offset for address in (0, 1, 2)] == [32, 8, 32]


def test_restore_gives_the_rule_of_the_common_part_back():
    """DW_CFA_restore undoes what the function did to a register, back to what all functions start with."""
    machine = after(bytes([0x80 | 6, 4, 0xC0 | 6, 0x80 | 3, 4, 0xC0 | 3]), 0, initial=bytes([0x80 | 6, 2]))
    assert machine.rules == {6: Rule("offset", -16)}


@pytest.mark.parametrize("program", [b"\x0b", b"\x3f", b"\x01" + bytes(8), b"\x0a" * 100, b"\x0f\x20"])
def test_impossible_programs_are_errors(program):
    """Restoring nothing, unknown instructions, endless remembering and cut blocks are told, not raised as something else."""
    with pytest.raises(CfiError):
        after(program, 0)


def test_the_expression_of_a_linkage_table_knows_both_halves():
    """The stub's frame is one word before its push and two words after it (the expression that ld writes for .plt)."""
    plt = bytes([0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24, 0x22])
    assert evaluate(plt, {7: 0x1000, 16: 0x400020}, refuse) == 0x1008
    assert evaluate(plt, {7: 0x1000, 16: 0x40002B}, refuse) == 0x1010


def test_the_expressions_of_a_signal_frame_read_memory():
    """breg7 + offset gives where the kernel saved a register; a dereference reads it."""
    assert evaluate(bytes([0x77, 0xA8, 1]), {7: 0x1000}, refuse) == 0x10A8
    assert evaluate(bytes([0x77, 0xA0, 1, 0x06]), {7: 0x1000}, lambda address, size: address + size) == 0x10A8


def test_arithmetic_is_that_of_64_bits():
    """Overflow wraps, comparison is signed, and a shift by too much is zero."""
    assert evaluate(bytes([0x31, 0x1F, 0x30, 0x2D]), {}, refuse) == 1
    assert evaluate(bytes([0x0E, *b"\xff" * 8, 0x31, 0x22]), {}, refuse) == 0
    assert evaluate(bytes([0x31, 0x08, 70, 0x24]), {}, refuse) == 0


@settings(max_examples=300, deadline=500)
@given(code=st.binary(max_size=64))
def test_any_expression_ends(code):
    """Random code gives a 64-bit value, an unknown register or an error, always soon."""
    with suppress(CfiError, KeyError):
        assert 0 <= evaluate(code, {7: 1 << 40, 16: 1 << 20}, lambda address, size: address & 0xFF) < 1 << 64


def test_a_loop_in_an_expression_is_cut():
    """An expression that jumps to itself is an error, not a hang."""
    with pytest.raises(CfiError):
        evaluate(bytes([0x31, 0x2F, 0xFC, 0xFF]), {}, refuse)


@settings(max_examples=300, deadline=500)
@given(program=st.binary(max_size=200), wanted=st.integers(0, 300))
def test_any_program_ends(program, wanted):
    """Random instructions give a row or an error, always soon."""
    with suppress(CfiError):
        assert isinstance(after(program, wanted).rules, dict)


# --- the walk -----------------------------------------------------------------------------------------------------------

SELF = Mapping(start=0x10000000, end=0x10100000, offset=0, inode=1, device=0, path="/nowhere/lib.so")


def test_code_outside_of_every_file_ends_the_walk_with_its_address():
    """JIT code is shown as an address and the reason; nothing after it is guessed."""
    stack = unwind({16: 0x7F0000001234, 7: 0x7FFE0000, 6: 0x7FFE0010}, bytes(256), [SELF])
    assert [frame.address for frame in stack.frames] == [0x7F0000001234]
    assert stack.end == "no-file"
    assert "0x7f0000001234" in stack.ended


def test_a_file_that_is_gone_still_places_the_frame():
    """Without its file a frame keeps path and offset, and says what is missing."""
    stack = unwind({16: 0x10000123, 7: 0x7FFE0000}, bytes(256), [SELF])
    assert stack.end == "file"
    assert (stack.frames[0].module, stack.frames[0].offset, stack.frames[0].symbol) == ("/nowhere/lib.so", 0x123, None)
    assert "/nowhere/lib.so" in stack.frames[0].problem


def test_a_call_of_nothing_is_followed_to_its_caller():
    """At address 0 nothing ran, so the return address on top of the stack is the caller; without stack bytes it ends there."""
    caller = (0x10000456).to_bytes(8, "little")
    stack = unwind({16: 0, 7: 0x7FFE0000}, caller, [SELF])
    assert [frame.address for frame in stack.frames] == [0, 0x10000456]
    assert unwind({16: 0, 7: 0x7FFE0000}, b"", [SELF]).end == "stack-bytes"


def test_nothing_captured_is_a_stack_without_frames():
    """No registers at all give an answer, not an error."""
    stack = unwind({}, b"", [])
    assert (stack.frames, stack.end) == ((), "unknown-register")


def test_the_number_of_frames_is_limited():
    """A limit ends the walk and is told."""
    stack = unwind({16: 0, 7: 0x7FFE0000}, bytes(64), [SELF], limit=1)
    assert (len(stack.frames), stack.end) == (1, "limit")


@settings(max_examples=100, deadline=2000)
@given(
    stack=st.binary(max_size=512),
    pc=st.integers(0, (1 << 64) - 1),
    sp=st.integers(0, (1 << 64) - 1),
    rest=st.dictionaries(st.integers(0, 20), st.integers(0, (1 << 64) - 1)),
    place=st.integers(0, 1 << 20),
)
def test_hostile_registers_and_stacks_always_end(stack, pc, sp, rest, place):
    """Any registers over any stack, in a real library, end with frames and a reason."""
    mappings = real_mappings()
    inside = mappings[place % len(mappings)]
    pc = pc if place % 3 == 0 else inside.start + place % (inside.end - inside.start)
    result = unwind({**rest, 16: pc, 7: sp}, stack, mappings)
    assert result.ended
    assert len(result.frames) <= 64


def real_mappings():
    found = []
    with Path("/proc/self/maps").open(encoding="utf-8") as lines:
        for line in lines:
            fields = line.split(None, 5)
            if "x" in fields[1] and int(fields[4]) and fields[5].startswith("/"):
                start, end = (int(part, 16) for part in fields[0].split("-"))
                found.append(
                    Mapping(
                        start=start, end=end, offset=int(fields[2], 16), inode=int(fields[4]), device=0, path=fields[5].strip()
                    )
                )
    return found
