"""What differs between the processors that agentscope knows; bpf/machine.h is the same for the probes.

Registers are told by DWARF number: System V ABI, AMD64 supplement, figure 3.36 (16 is rip); DWARF for the Arm 64-bit Architecture,
4.1 (0..30, 31 is sp, and 32 here pc, which has no number there). x86-64 has none above 16 here, so that registers tell themselves
of which processor they are, in a recording from another machine too.
"""

import os
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple


class Machine(NamedTuple):
    """One processor, by the name that uname(2) has for it."""

    name: str
    registers: int  # how many a probe tells: REGISTERS of bpf/event.h
    frame_pointer: int
    stack_pointer: int
    program_counter: int
    perf_event_open: int  # arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
    tid_in_pthread: int  # where glibc's struct pthread has tid: what its own libc.so.6 says in _thread_db_pthread_tid


X86_64 = Machine("x86_64", 17, 6, 7, 16, 298, 720)
AARCH64 = Machine("aarch64", 33, 29, 31, 32, 241, 208)
MACHINES = {machine.name: machine for machine in (X86_64, AARCH64)}


@cache
def this_machine() -> Machine | None:
    """The processor that this runs on; None: one that nothing is known of."""
    return MACHINES.get(os.uname().machine)


def machine_of(registers: Mapping[int, int]) -> Machine:
    """The processor that these registers are of."""
    return AARCH64 if AARCH64.program_counter in registers else X86_64


def program_counter(registers: Mapping[int, int]) -> int | None:
    """The address of the instruction; None where it was not told."""
    return registers.get(machine_of(registers).program_counter)


def stack_pointer(registers: Mapping[int, int]) -> int | None:
    """The address of the top of the stack; None where it was not told."""
    return registers.get(machine_of(registers).stack_pointer)
