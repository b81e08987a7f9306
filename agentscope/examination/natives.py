"""Native stacks of blocked threads, unwound from outside while they stay as they are: nothing is stopped.

The registers of a blocked thread are those with which it entered the kernel; its stack is read from its memory and walked by
the call frame information of the files that it has mapped (symbols.unwind). Without registers /proc/PID/task/TID/syscall tells
the stack and instruction pointer (proc_pid_syscall(5)): that leads as far as no other register is needed, and says where it ends.
"""

import time
from bisect import bisect_right
from collections.abc import Mapping as Table
from collections.abc import Sequence
from typing import NamedTuple

from agentscope.examination import NativeThread
from agentscope.examination.memory import Memory
from agentscope.examination.perf_maps import names_in_perf_map
from agentscope.examination.proc import plain, read_proc, tids_of
from agentscope.machines import X86_64, this_machine
from agentscope.model import Mapping
from agentscope.symbols.elf import Elf, open_elf
from agentscope.symbols.unwind import NativeFrame, NativeStack, unwind

THREADS = 64
FRAMES = 48
LONGEST_S = 1.0
STACK_BYTES = 64 << 10
_PAGE = 4096
_OURS = this_machine() or X86_64
_FP, _SP, _PC = _OURS.frame_pointer, _OURS.stack_pointer, _OURS.program_counter
_MAPS_LIMIT = 4 << 20
_GENERATED = "Builtins_"  # V8's own code, compiled with node itself: no tables, but frame pointers


class Code(NamedTuple):
    """Where a process has code: mapped from files, and made at run time as (start, end)."""

    files: tuple[Mapping, ...]
    generated: tuple[tuple[int, int], ...]


class Walked(NamedTuple):
    """A stack: frames innermost first."""

    frames: tuple[NativeFrame, ...]
    ended: str


def unwind_threads(
    pid: int, registers: Table[int, Table[int, int]], mappings: Sequence[Mapping] | None = None
) -> tuple[NativeThread, ...]:
    """The stacks of the threads whose registers are given (by tid and DWARF number), at most 64 of 48 frames within a second.

    Without any registers the threads that are blocked in a system call are taken, as far as that leads.
    """
    until = time.monotonic() + LONGEST_S
    code = code_of(pid)
    if mappings is not None:
        code = code._replace(files=tuple(mappings))
    if not code.files:
        return ()
    known = registers or _blocked(pid)
    stacks: dict[int, Walked] = {}
    with Memory(pid) as memory:
        for tid in sorted(known)[:THREADS]:
            if time.monotonic() > until:
                break
            stacks[tid] = _walk(memory, known[tid], code)
    unnamed = (frame.address for stack in stacks.values() for frame in stack.frames if frame.module is None)
    made = names_in_perf_map(pid, unnamed)
    return tuple(
        NativeThread(
            pid=pid,
            tid=tid,
            frames=tuple(_shown(frame, made, code) for frame in stack.frames),
            ended=plain(stack.ended, 200),
        )
        for tid, stack in stacks.items()
        if stack.frames
    )


def place_names(pid: int, addresses: Sequence[int]) -> dict[int, str]:
    """Code addresses as "function (module)"; those in no file and no map of generated code are left out."""
    files = sorted(code_of(pid).files, key=lambda each: each.start)
    starts = [each.start for each in files]
    made = names_in_perf_map(pid, addresses)
    opened: dict[str, Elf | None] = {}
    names = {address: f"{name} (generated code)" for address, name in made.items()}
    try:
        for address in addresses:
            place = bisect_right(starts, address) - 1
            if place < 0 or address >= files[place].end:
                continue
            mapping = files[place]
            if mapping.path not in opened:
                found = open_elf(mapping.path, inode=mapping.inode or None, root=f"/proc/{pid}/root")
                opened[mapping.path] = found if isinstance(found, Elf) else None
            names[address] = _place(mapping, opened[mapping.path], address)
    finally:
        for elf in opened.values():
            if elf is not None:
                elf.close()
    return names


def code_of(pid: int) -> Code:
    """Where a process has code, from /proc/PID/maps (proc_pid_maps(5))."""
    files, generated = [], []
    for line in (read_proc(f"/proc/{pid}/maps", _MAPS_LIMIT) or b"").splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or b"x" not in fields[1]:
            continue
        start, _, end = fields[0].partition(b"-")
        path = fields[5] if len(fields) == 6 else b""
        if path.startswith(b"/") and fields[4] != b"0":
            major, _, minor = fields[3].partition(b":")
            files.append(
                Mapping(
                    start=int(start, 16),
                    end=int(end, 16),
                    offset=int(fields[2], 16),
                    inode=int(fields[4]),
                    device=int(major, 16) << 20 | int(minor, 16),
                    path=path.decode("utf-8", "backslashreplace"),
                )
            )
        elif not path.startswith(b"[v"):  # [vdso] and [vsyscall] are the kernel's
            generated.append((int(start, 16), int(end, 16)))
    return Code(tuple(files), tuple(generated))


def _walk(memory: Memory, registers: Table[int, int], code: Code) -> Walked:
    """One stack. Where code without tables is reached that keeps frame pointers, one frame is left by them and the walk goes on."""
    pieces = _stack(memory, registers.get(_SP, 0))
    frames: list[NativeFrame] = []
    now = dict(registers)
    stack = None
    for _ in range(FRAMES):
        stack = unwind(now, b"", code.files, FRAMES - len(frames), root=f"/proc/{memory.pid}/root", memory=pieces)
        frames += stack.frames
        caller = _by_frame_pointer(memory, stack, code) if len(frames) < FRAMES else None
        while caller is not None and _is_generated(caller[_PC], code) and len(frames) < FRAMES:
            frames.append(NativeFrame(address=caller[_PC]))
            caller = _caller_of(memory, caller[_FP], code)
        if caller is None or caller[_SP] <= now.get(_SP, 0):
            break
        now = caller
    return Walked(tuple(frames[:FRAMES]), stack.ended if stack is not None else "")


def _by_frame_pointer(memory: Memory, stack: NativeStack, code: Code) -> dict[int, int] | None:
    """The caller of the outermost frame of a stack that ended in code without tables; None where it keeps no frame pointers."""
    last = stack.frames[-1] if stack.frames else None
    if last is None or stack.frame_pointer is None or stack.end not in {"no-table", "no-file"}:
        return None
    kept = _is_generated(last.address, code) if last.module is None else (last.symbol or "").startswith(_GENERATED)
    return _caller_of(memory, stack.frame_pointer, code) if kept else None


def _caller_of(memory: Memory, frame_pointer: int, code: Code) -> dict[int, int] | None:
    """The registers of the caller: the saved frame pointer and the return address lie at the frame pointer."""
    saved = memory.number(frame_pointer, "<Q") if frame_pointer % 8 == 0 else None
    back = memory.number(frame_pointer + 8, "<Q") if saved is not None else None
    if saved is None or back is None or saved <= frame_pointer:
        return None
    if not _is_generated(back, code) and not any(each.start <= back < each.end for each in code.files):
        return None
    # the address before the one that is returned to is in the call itself, whose row of the table is wanted
    return {_FP: saved, _SP: frame_pointer + 16, _PC: back - 1}


def _is_generated(address: int, code: Code) -> bool:
    return any(start <= address < end for start, end in code.generated)


def _stack(memory: Memory, pointer: int) -> list[tuple[int, bytes]]:
    """The stack from its pointer up, in as many pieces as it has holes: pages that were never touched."""
    pieces: list[tuple[int, bytes]] = []
    at, end = pointer, pointer + STACK_BYTES
    while 0 < at < end:
        size = min(end - at, _PAGE - at % _PAGE)
        page = memory.read(at, size)
        if page is not None and pieces and pieces[-1][0] + len(pieces[-1][1]) == at:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + page)
        elif page is not None:
            pieces.append((at, page))
        at += size
    return pieces


def _blocked(pid: int) -> dict[int, dict[int, int]]:
    """Stack and instruction pointer of the threads that are blocked in a system call: the last two words of "syscall"."""
    found = {}
    for tid in tids_of(pid, THREADS):
        words = (read_proc(f"/proc/{pid}/task/{tid}/syscall", 512) or b"").split()
        if len(words) >= 3:
            found[tid] = {_SP: int(words[-2], 16), _PC: int(words[-1], 16)}
    return found


def _shown(frame: NativeFrame, made: Table[int, str], code: Code) -> str:
    """A frame as "symbol+0x1c (libfoo.so)"; the offset is from the module's beginning where there is no name."""
    if frame.module is None:
        module = "generated code" if _is_generated(frame.address, code) else "no code"
        return f"{made.get(frame.address, hex(frame.address))} ({module})"
    module = plain(frame.module.rsplit("/", 1)[-1], 128)
    name = frame.called_as if frame.symbol is None or (frame.called_as and frame.called_as in frame.symbol) else frame.symbol
    if name is None:
        return f"+{frame.virtual_address or frame.offset or 0:#x} ({module})"
    return f"{plain(name, 200)}+{frame.symbol_offset or 0:#x} ({module})"


def _place(mapping: Mapping, elf: Elf | None, address: int) -> str:
    offset = address - mapping.start + mapping.offset
    inside = elf.address_of(offset) if elf is not None else None
    symbol = elf.symbol_at(inside) if elf is not None and inside is not None else None
    module = plain(mapping.path.rsplit("/", 1)[-1], 128)
    # without a name, code that is near counts as one place: 64 bytes, a line of the cache
    name = plain(symbol.name, 200) if symbol is not None else f"+{(offset if inside is None else inside) & ~63:#x}"
    return f"{name} ({module})"
