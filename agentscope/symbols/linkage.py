"""The name by which code calls another module: from the call instruction to the slot that the dynamic linker fills.

A stripped library does not say what its functions are called, but whoever calls one through the dynamic linker names it.
The name is that of the call: where the callee went on by a tail call, the code that is running belongs to another function.
x86-64 only.
"""

import struct

from agentscope.symbols.elf import Elf

_ENDBR64 = bytes.fromhex("f30f1efa")
_BND = 0xF2


def called_symbol(caller: Elf, return_address: int) -> str | None:
    """Name that the call just before `return_address` asks for, None where it is a call by pointer or within the file."""
    before = caller.read_address(return_address - 6, 6)
    if len(before) < 6:
        return None
    if before[:2] == b"\xff\x15":  # call *slot(%rip): code built without a linkage table
        return caller.relocation_symbol(return_address + struct.unpack("<i", before[2:])[0])
    if before[1] != 0xE8:
        return None
    target = return_address + struct.unpack("<i", before[2:])[0]
    stub = caller.read_address(target, 16)
    skipped = 4 if stub.startswith(_ENDBR64) else 0
    if stub[skipped : skipped + 1] == bytes([_BND]):
        skipped += 1
    if stub[skipped : skipped + 2] != b"\xff\x25" or len(stub) < skipped + 6:  # jmp *slot(%rip)
        return None
    return caller.relocation_symbol(target + skipped + 6 + struct.unpack("<i", stub[skipped + 2 : skipped + 6])[0])
