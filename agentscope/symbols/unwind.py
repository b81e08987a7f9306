"""The native stack of a thread, from registers and raw stack bytes that were captured when it died.

Each step is taken by the call frame information of the file that holds the code, so it is what the compiler says and not a
guess from frame pointers. Where a step cannot be taken the stack ends, and `NativeStack.ended` says why.

This is x86-64. Of aarch64 the innermost frame is told, and of a call to nothing its caller. The rest of it needs: a return address
that may still be in register 30; DW_CFA_AARCH64_negate_ra_state (0x2d) with the signature bits taken off return addresses; and the
layout of the signal frame, because __kernel_rt_sigreturn stands in the vDSO, which is no file.
"""

from bisect import bisect_right
from collections.abc import Mapping as Registers
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal, NoReturn

from msgspec.structs import replace

from agentscope.machines import AARCH64, machine_of
from agentscope.model import Mapping, Value
from agentscope.symbols.cfi import CfiError, NoTable, Row, Rule, find_row
from agentscope.symbols.elf import Elf, ElfProblem, open_elf
from agentscope.symbols.expression import evaluate
from agentscope.symbols.linkage import called_symbol

EndKind = Literal["outermost", "limit", "no-table", "no-file", "file", "stack-bytes", "malformed", "unknown-register"]

_FP, _SP, _PC = 6, 7, 16
_LINK = 30  # of aarch64 only
_WORD = 0xFFFFFFFFFFFFFFFF
_PRESERVED = (3, 6, 12, 13, 14, 15)  # rbx, rbp, r12..r15: System V ABI for x86-64, figure 3.4
_LOWEST_MAPPABLE = 65536  # vm.mmap_min_addr: below it there is no code
_FRAME_LIMIT = 256
_NAMED_CALLS = 4
_NEAR = 1 << 20
# mov $15,%rax; syscall: the return from a signal handler, by which gdb and libgcc know the frame where no table does (musl)
_SIGRETURN = bytes.fromhex("48c7c00f0000000f05")
# Order of the registers in the kernel's struct sigcontext, 40 bytes into the ucontext that rsp points at, by DWARF number.
_SIGCONTEXT = (8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16)


class NativeFrame(Value, frozen=True):
    """One function on the stack. `address` is where it was or will return to.

    `offset` is a position in the file `module`, `virtual_address` is the address within it that its symbol table uses.
    `called_as` is the name by which its caller's code asks the dynamic linker for it: it names functions of stripped
    libraries. `is_signal` marks the frame that the kernel pushed to run a signal handler. `problem` says why the file of
    this frame gave no names.
    """

    address: int
    module: str | None = None
    offset: int | None = None
    virtual_address: int | None = None
    symbol: str | None = None
    symbol_offset: int | None = None
    called_as: str | None = None
    build_id: str | None = None
    is_signal: bool = False
    problem: str | None = None

    @property
    def place(self) -> str:
        """Where this is, in one word or two: "strlen in libc.so.6+0x167ad8"."""
        if self.module is None:
            return f"{self.address:#x}"
        where = self.module.rsplit("/", 1)[-1]
        at = self.virtual_address if self.virtual_address is not None else self.offset
        where = where if at is None else f"{where}+{at:#x}"
        name = self.symbol or self.called_as
        if self.called_as and self.symbol and self.called_as in self.symbol:
            name = self.called_as  # "strlen" is what people know __strlen_evex by
        return f"{name} in {where}" if name else where


class NativeStack(Value, frozen=True):
    """Frames innermost first; `end` and `ended` say why there are no more of them.

    `frame_pointer` is register 6 in the outermost of them, where it is known: code of a just-in-time compiler has no table, but
    keeps a chain of frame pointers.
    """

    frames: tuple[NativeFrame, ...]
    end: EndKind
    ended: str
    frame_pointer: int | None = None


class _Ended(Exception):
    """The walk cannot go on."""

    def __init__(self, end: EndKind, says: str) -> None:
        super().__init__(says)
        self.end: EndKind = end
        self.says = says


class _Memory:
    """The pieces of a dead process's memory that were captured."""

    def __init__(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        self._pieces = [piece for piece in pieces if piece[1]]
        self._total = sum(len(content) for _, content in self._pieces)

    def read(self, address: int, size: int) -> int:
        address &= _WORD
        for start, content in self._pieces:
            if start <= address and address + size <= start + len(content):
                return int.from_bytes(content[address - start : address - start + size], "little")
        if any(0 <= address - start < len(content) + _NEAR for start, content in self._pieces):
            raise _Ended("stack-bytes", f"stack bytes end after {self._total} bytes")
        raise _Ended("stack-bytes", f"the stack at {address:#x} was not captured")


class _Modules:
    """The files under a stack, each opened when a frame is in it."""

    def __init__(self, mappings: Sequence[Mapping], root: str | None, resources: ExitStack) -> None:
        self._mappings = sorted(mappings, key=lambda mapping: mapping.start)
        self._starts = [mapping.start for mapping in self._mappings]
        self._opened: dict[tuple[str, int], Elf | ElfProblem] = {}
        self._root = root
        self._resources = resources

    def mapping_at(self, address: int) -> Mapping | None:
        place = bisect_right(self._starts, address) - 1
        if place < 0 or address >= self._mappings[place].end:
            return None
        return self._mappings[place]

    def elf_of(self, mapping: Mapping) -> Elf | ElfProblem:
        key = (mapping.path, mapping.inode)
        if key not in self._opened:
            opened = open_elf(mapping.path, inode=mapping.inode or None, root=self._root)
            if isinstance(opened, Elf):
                self._resources.enter_context(opened)
            self._opened[key] = opened
        return self._opened[key]


def unwind(
    registers: Registers[int, int],
    stack: bytes,
    mappings: Sequence[Mapping],
    limit: int = 64,
    *,
    root: str | None = None,
    memory: Sequence[tuple[int, bytes]] = (),
) -> NativeStack:
    """Walk out of the function at `registers` (`machines`) over `stack`, the bytes from the stack pointer up.

    `root` is where the process saw its files ("/proc/123/root"). `memory` is more of what was captured, (address, bytes): the
    stack that was interrupted, where a signal handler ran on another one.
    """
    with ExitStack() as resources:
        given = _as_of_x86(registers)
        walk = _Walk(given, _Modules(mappings, root, resources), [(given.get(_SP, 0), stack), *memory])
        ended = walk.run(max(1, min(limit, _FRAME_LIMIT)))
        return NativeStack(frames=tuple(walk.named()), end=ended.end, ended=ended.says, frame_pointer=walk.frame_pointer)


def _as_of_x86(registers: Registers[int, int]) -> Registers[int, int]:
    """The registers as a walk counts them. Of aarch64 only the first frame is told, since the walk ends in a file for aarch64."""
    machine = machine_of(registers)
    if machine is not AARCH64:
        return registers
    places = (_FP, machine.frame_pointer), (_SP, machine.stack_pointer), (_PC, machine.program_counter), (_LINK, _LINK)
    return {ours: registers[theirs] for ours, theirs in places if theirs in registers}


class _Walk:
    """A walk from the innermost frame outward."""

    def __init__(self, registers: Registers[int, int], modules: _Modules, pieces: Sequence[tuple[int, bytes]]) -> None:
        self.frames: list[NativeFrame] = []
        self._registers = {number: word & _WORD for number, word in registers.items()}
        self._modules = modules
        self._memory = _Memory(pieces)
        self._exact = True  # the address is of the instruction itself, not of the one after a call
        self._callers: list[tuple[Elf, int] | None] = []

    def run(self, limit: int) -> _Ended:
        """Walk until it ends or has `limit` frames; says how it ended."""
        try:
            while len(self.frames) < limit:
                self.step()
        except _Ended as ended:
            return ended
        return _Ended("limit", f"only the first {limit} frames were asked for")

    @property
    def frame_pointer(self) -> int | None:
        """Register 6 as it is now."""
        return self._registers.get(_FP)

    def step(self) -> None:
        """Note the frame that the registers are in, then bring the registers to its caller; raises _Ended."""
        pc = self._register(_PC)
        mapping = self._modules.mapping_at(pc)
        if mapping is None:
            self._without_file(pc)
            return
        elf = self._modules.elf_of(mapping)
        offset = pc - mapping.start + mapping.offset
        if isinstance(elf, ElfProblem):
            self._note(NativeFrame(address=pc, module=mapping.path, offset=offset, problem=elf.says))
            raise _Ended("file", elf.says)
        name = mapping.path.rsplit("/", 1)[-1]
        address = elf.address_of(offset)
        if address is None or elf.image.machine != "EM_X86_64":
            self._without_table(NativeFrame(address=pc, module=mapping.path, offset=offset), elf, address)
        inside = address if self._exact else address - 1
        row: Row | None = None
        problem: _Ended | None = None
        try:
            row = find_row(elf, inside)
        except NoTable as missing:
            row = _sigreturn_row(elf, address)
            problem = None if row else _Ended("no-table", f"{missing} in {name}")
        except CfiError as error:
            problem = _Ended("malformed", f"{error} ({name})")
        inside = address if row and row.signal_frame else inside
        symbol = elf.symbol_at(inside)
        frame = NativeFrame(
            address=pc,
            module=mapping.path,
            offset=offset,
            virtual_address=address,
            symbol=symbol.name if symbol else None,
            symbol_offset=symbol.offset + address - inside if symbol else None,
            build_id=elf.image.build_id,
            is_signal=row.signal_frame if row else False,
        )
        self._note(frame, None if self._exact else (elf, address))
        if row is None:
            raise problem or _Ended("no-table", f"no unwind table in {name}")
        self._apply(row, name)

    def _without_table(self, frame: NativeFrame, elf: Elf, address: int | None) -> NoReturn:
        """Note a frame in a file that cannot be walked out of; of aarch64 the function at least has its name."""
        name = (frame.module or "").rsplit("/", 1)[-1]
        if address is None or elf.image.machine != "EM_AARCH64":
            says = (
                f"{name} does not hold the code at {frame.address:#x}"
                if address is None
                else f"{name} is for {elf.image.machine}"
            )
            self._note(replace(frame, problem=says))
            raise _Ended("file", says)
        inside = address if self._exact else address - 1
        symbol = elf.symbol_at(inside)
        self._note(
            replace(
                frame,
                virtual_address=address,
                symbol=symbol.name if symbol else None,
                symbol_offset=symbol.offset + address - inside if symbol else None,
                build_id=elf.image.build_id,
            )
        )
        raise _Ended("file", "callers are not walked to on aarch64")

    def named(self) -> list[NativeFrame]:
        """The frames; those near the top are also named by what their caller's code calls."""
        for place in range(min(_NAMED_CALLS, len(self.frames) - 1)):
            frame, caller = self.frames[place], self._callers[place + 1]
            if caller is not None and not frame.is_signal:
                name = called_symbol(*caller)
                if name:
                    self.frames[place] = replace(frame, called_as=name)
        return self.frames

    def _note(self, frame: NativeFrame, caller: tuple[Elf, int] | None = None) -> None:
        self.frames.append(frame)
        self._callers.append(caller)

    def _register(self, number: int) -> int:
        if number not in self._registers:
            raise _Ended("unknown-register", f"register {number} is not known here")
        return self._registers[number]

    def _without_file(self, pc: int) -> None:
        """Step out of code that no file holds: only a jump to where nothing can be is understood."""
        if not self.frames and pc < _LOWEST_MAPPABLE:
            # Nothing ran there, so the return address is where the call that led there left it: on top of the stack, or in the link.
            self._note(NativeFrame(address=pc, problem=f"jumped to {pc:#x}, where there is no code"))
            if _LINK in self._registers:
                self._registers |= {_PC: self._registers.pop(_LINK)}
            else:
                sp = self._register(_SP)
                self._registers |= {_PC: self._memory.read(sp, 8), _SP: sp + 8 & _WORD}
            self._exact = False
            return
        if pc == 0:
            raise _Ended("outermost", "return address 0")
        self._note(NativeFrame(address=pc))
        raise _Ended("no-file", f"code without a file at {pc:#x} (JIT, vDSO or an overwritten return address)")

    def _apply(self, row: Row, name: str) -> None:
        """Bring the registers to the caller."""
        try:
            if row.cfa_code is not None:
                cfa = evaluate(row.cfa_code, self._registers, self._memory.read)
            else:
                cfa = self._register(row.cfa_register) + row.cfa_offset & _WORD
            back = row.rules.get(row.return_register)
            if back is not None and back.kind == "undefined":
                raise _Ended("outermost", "outermost")
            if back is None:
                raise _Ended("malformed", f"the unwind table of {name} has no rule for the return address")
            # Registers that a function may overwrite are not known in its caller, except across a signal.
            kept = self._registers if row.signal_frame else _only(self._registers, _PRESERVED)
            caller = dict(kept)
            for register, rule in row.rules.items():
                self._restore(caller, register, rule, cfa)
        except KeyError as unknown:
            raise _Ended("unknown-register", f"register {unknown.args[0]} is not known here") from None
        except CfiError as error:
            raise _Ended("malformed", f"{error} ({name})") from None
        if row.return_register not in caller:
            raise _Ended("unknown-register", "the return address is not known here")
        if _SP not in row.rules:
            caller[_SP] = cfa
        if not row.signal_frame and caller[_SP] <= self._register(_SP):
            raise _Ended("malformed", "the stack does not grow: it was overwritten, or the unwind table is wrong")
        caller[_PC] = caller[row.return_register]
        self._registers = caller
        self._exact = row.signal_frame
        if caller[_PC] == 0:
            raise _Ended("outermost", "return address 0")

    def _restore(self, caller: dict[int, int], register: int, rule: Rule, cfa: int) -> None:
        """Set one register of the caller; one whose place was not captured is unknown, unless it is where to go on."""
        read, known = self._memory.read, self._registers
        if rule.kind == "offset" and cfa + rule.operand < self._register(_SP) and register in _PRESERVED and register in known:
            # The compiler does not say that an epilogue has popped it already; what was popped is in the register.
            caller[register] = known[register]
            return
        try:
            match rule.kind:
                case "offset":
                    caller[register] = read(cfa + rule.operand, 8)
                case "value-offset":
                    caller[register] = cfa + rule.operand & _WORD
                case "register":
                    caller[register] = known[rule.operand]
                case "same":
                    caller[register] = known[register]
                case "expression":
                    caller[register] = read(evaluate(rule.code, known, read, cfa), 8)
                case "value-expression":
                    caller[register] = evaluate(rule.code, known, read, cfa)
                case "undefined":
                    caller.pop(register, None)
        except (KeyError, _Ended):
            if register in {_PC, _SP}:
                raise
            caller.pop(register, None)


def _only(registers: Registers[int, int], numbers: Sequence[int]) -> dict[int, int]:
    return {number: registers[number] for number in numbers if number in registers}


def _sigreturn_row(elf: Elf, address: int) -> Row | None:
    """The frame of a signal, where the code at `address` is the return from its handler and has no table."""
    if elf.read_address(address, len(_SIGRETURN)) != _SIGRETURN:
        return None
    rules = {register: Rule("offset", 40 + 8 * place) for place, register in enumerate(_SIGCONTEXT)}
    return Row(_SP, 0, None, rules, _PC, signal_frame=True)
