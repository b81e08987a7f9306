"""The Python threads of another process and their frames, read from its memory while it runs on; nothing of it is stopped."""

import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from agentscope.examination.proc import numbers_of_namespaces, plain, tids_of
from agentscope.examination.python_objects import Objects
from agentscope.model import PythonFrame
from agentscope.symbols.linetable import line_at

MOST_INTERPRETERS = 16
MOST_THREADS = 4096
MOST_FRAMES = 512
AGAIN = 6
AGAIN_S = 0.003  # a thread keeps the GIL for 5 ms if another wants it (sys.getswitchinterval)
_FIRST_INNER_OWNER = 3  # frames that the interpreter puts between C and Python, since 3.12
_TABLE_LIMIT = 1 << 15
_MOST_LOCALS = 1 << 12
_DEEPEST_NESTING = 64
_REFERENCE = ~7  # the low bits of a reference can be tags


class Code(NamedTuple):
    """A code object. `locals_count` is where the value stack begins in `localsplus` of its frames, `stack_size` how deep it gets."""

    address: int
    name: str
    file: str
    first_line: int
    lines: bytes
    exceptions: bytes
    locals_count: int
    stack_size: int


class Frame(NamedTuple):
    """A frame at `address` that is at byte `offset` of its code."""

    address: int
    code: Code
    offset: int

    def shown(self, line: int | None = None) -> PythonFrame:
        """As a value, at its current line or another one."""
        code = self.code
        return PythonFrame(
            function=code.name,
            file=code.file,
            first_line=code.first_line,
            line=_line(code.lines, code.first_line, self.offset) if line is None else line,
        )

    def is_in(self, name: str, file: str) -> bool:
        """Whether it runs the function of this qualified name in a file whose path ends so."""
        return self.code.name == name and self.code.file.endswith(file)


class PythonState(NamedTuple):
    """One thread as the interpreter keeps it: `ident` is threading.get_ident(), `state` the address of its PyThreadState."""

    tid: int
    ident: int
    state: int
    frames: tuple[Frame, ...]


class Cover(NamedTuple):
    """One entry of an exception table: what is raised in the bytes [start, end) goes to `target`, with `depth` values on the stack."""

    start: int
    end: int
    target: int
    depth: int


class Frames:
    """Reads threads and frames; code objects are read once."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.tids = Tids(objects.memory.pid)
        self._codes: dict[int, Code | None] = {}
        self._torn: set[int] = set()

    def threads(self) -> list[PythonState]:
        """All threads of all interpreters, the newest first; one whose frames change whenever they are read has none.

        Such a thread runs. As soon as another one wants the GIL it stands still for some milliseconds, so it is read again then.
        """
        found = [self._thread(state) for state in self._states()]
        for _ in range(AGAIN):
            if not self._torn:
                break
            time.sleep(AGAIN_S)
            torn, self._torn = self._torn, set()
            again = {each.state: self._thread(each.state) for each in found if each.state in torn}
            # the place of a thread that has ended may be another's by now
            found = [new if (new := again.get(each.state)) and new[:2] == each[:2] else each for each in found]
        known = {each.tid for each in found}
        if len(found) == 1 and not known & self.tids.all:
            # a forked child that still has the number of its parent's thread
            found[0] = found[0]._replace(tid=self.objects.memory.pid)
        return found

    def _thread(self, state: int) -> PythonState:
        tid, ident = self._numbers(state)
        return PythonState(self.tids.ours(tid), ident, state, self.frames(state))

    def frames(self, state: int) -> tuple[Frame, ...]:
        """The frames of a thread, innermost first. A chain that does not end where it should was torn: read again."""
        for _ in range(3):
            try:
                return tuple(self._walk(self.current(state)))
            except _TornError:
                continue
        self._torn.add(state)
        return ()

    def current(self, state: int) -> int:
        """The address of a thread's innermost frame."""
        layout, pointer = self.objects.layout, self.objects.pointer
        holder = pointer(state + layout.frame_holder) if layout.frame_holder else state
        return pointer(holder + layout.current_frame) if holder else 0

    def gil_holder(self) -> int | None:
        """The PyThreadState that has the GIL of the first interpreter now; None while nobody has it."""
        objects, shape = self.objects, self.objects.shape
        start = (
            objects.runtime if not shape.gil_is_pointer else objects.pointer(objects.runtime + objects.layout.interpreters_head)
        )
        gil = objects.pointer(start + shape.gil) if shape.gil_is_pointer else start + shape.gil
        locked = objects.signed(gil + shape.gil_locked, 4)
        return objects.pointer(gil + shape.gil_holder) or None if locked == 1 else None

    def thread_names(self) -> dict[int, str]:
        """The names that `threading` knows, by ident (`threading._active`)."""
        objects = self.objects
        named = {}
        for key, thread in objects.entries(objects.lookup(objects.module("threading"), "_active")):
            ident, name = objects.number(key), objects.text(objects.attribute(thread, "_name"), 128)
            if ident is not None and name is not None:
                named[ident] = plain(name, 128)
        return named

    def frame_at(self, address: int) -> Frame | None:
        """The frame at an address; None if it is the interpreter's own. Raises nothing: a torn one is None too."""
        try:
            return self._frame(address)[0]
        except _TornError:
            return None

    def slots(self, frame: Frame, first: int, count: int) -> tuple[int, ...]:
        """`count` references out of a frame's locals and value stack, from the one numbered `first`."""
        if not 0 < count <= _MOST_LOCALS:
            return ()
        raw = self.objects.memory.read(frame.address + self.objects.shape.frame_locals + 8 * first, 8 * count)
        return () if raw is None else tuple(each & _REFERENCE for each in struct.unpack(f"<{count}Q", raw))

    def live_slots(self, frame: Frame) -> tuple[int, ...]:
        """What lies on the value stack for sure: as much as the exception handler that covers the instruction would keep.

        What is above may be left over from before, since a frame that runs does not say how deep its stack is. The `__exit__`
        of every `with` that is being run through is below: its handler calls it.
        """
        cover = cover_at(frame.code.exceptions, frame.offset)
        return self.slots(frame, frame.code.locals_count, cover.depth) if cover is not None else ()

    def _states(self) -> Iterator[int]:
        layout, pointer = self.objects.layout, self.objects.pointer
        interpreter = pointer(self.objects.runtime + layout.interpreters_head)
        left = MOST_THREADS
        for _ in range(MOST_INTERPRETERS):
            if not interpreter:
                return
            state = pointer(interpreter + layout.threads_head)
            while state and left:
                yield state
                left -= 1
                state = pointer(state + layout.thread_next)
            interpreter = pointer(interpreter + layout.interpreter_next)

    def _numbers(self, state: int) -> tuple[int, int]:
        objects = self.objects
        return objects.pointer(state + objects.layout.native_thread_id), objects.pointer(state + objects.shape.thread_ident)

    def _walk(self, address: int) -> Iterator[Frame]:
        for _ in range(MOST_FRAMES):
            if not address:
                return
            frame, address = self._frame(address)
            if frame is not None:
                yield frame

    def _frame(self, address: int) -> tuple[Frame | None, int]:
        layout = self.objects.layout
        raw = self.objects.memory.read(address, self.objects.shape.frame_locals)
        if raw is None:
            raise _TornError
        (code_at,) = struct.unpack_from("<Q", raw, layout.frame_code)
        (previous,) = struct.unpack_from("<Q", raw, layout.frame_previous)
        (instruction,) = struct.unpack_from("<Q", raw, layout.frame_instruction)
        if raw[layout.frame_owner] >= _FIRST_INNER_OWNER:
            return None, previous
        code = self.code(code_at & _REFERENCE)
        if code is None:
            raise _TornError
        return Frame(address, code, instruction - code.address - layout.code_instructions), previous

    def code(self, address: int) -> Code | None:
        """The code object at an address; None if there is none."""
        if address not in self._codes:
            self._codes[address] = self._read_code(address) if self.objects.type_name(address) == "code" else None
        return self._codes[address]

    def _read_code(self, address: int) -> Code | None:
        objects, layout, shape = self.objects, self.objects.layout, self.objects.shape
        raw = objects.memory.read(address, layout.code_instructions)
        if raw is None:
            return None

        def reference(offset: int) -> int:
            return int(struct.unpack_from("<Q", raw, offset)[0])

        (first_line,) = struct.unpack_from("<i", raw, layout.code_firstlineno)
        (locals_count,) = struct.unpack_from("<i", raw, shape.code_locals_count)
        (stack_size,) = struct.unpack_from("<i", raw, shape.code_stack_size)
        return Code(
            address=address,
            name=plain(objects.text(reference(layout.code_qualname)) or "?"),
            file=plain(objects.text(reference(layout.code_filename)) or "?", 1024),
            first_line=first_line,
            lines=objects.content(reference(layout.code_linetable), _TABLE_LIMIT),
            exceptions=objects.content(reference(shape.code_exceptions), _TABLE_LIMIT),
            locals_count=locals_count,
            stack_size=stack_size,
        )


class _TornError(Exception):
    """What was read is no frame."""


class Tids:
    """The threads of a process, and how it numbers them itself if it lives in a pid namespace of its own."""

    def __init__(self, pid: int) -> None:
        self.all = set(tids_of(pid))
        nested = len(numbers_of_namespaces(pid)) > 1
        self._inner = {(numbers_of_namespaces(pid, tid) or (tid,))[-1]: tid for tid in self.all} if nested else {}

    def ours(self, tid: int) -> int:
        """The number of a thread as we see it."""
        return self._inner.get(tid, tid)


@lru_cache(maxsize=4096)
def _line(lines: bytes, first_line: int, offset: int) -> int | None:
    return line_at(lines, first_line, offset)


def covers(table: bytes) -> Iterator[Cover]:
    """The entries of an exception table (CPython: Objects/exception_handling_notes.txt): numbers of 6 bits a byte, highest first."""
    numbers: list[int] = []
    value = 0
    for byte in table:
        if byte & 0x80:  # an entry begins
            numbers, value = [], 0
        value = value << 6 | byte & 63
        if byte & 64:
            continue
        numbers.append(value)
        value = 0
        if len(numbers) == 4:
            start, length, target, depth = numbers
            yield Cover(2 * start, 2 * (start + length), 2 * target, depth >> 1)


def cover_at(table: bytes, offset: int) -> Cover | None:
    """The entry that covers an instruction."""
    return next((each for each in covers(table) if each.start <= offset < each.end), None)


def entered_at(table: bytes, offset: int, slot: int) -> int | None:
    """Where the `with` begins whose `__exit__` is value number `slot` of the stack: the byte of the instruction that enters it.

    Handlers lie in each other: what covers a handler's own code is the next outer one. A `try` in the body keeps as much as the
    `with` around it, so the outermost that keeps just that is the one. Its body may be covered in several pieces, all with the
    same target; the first of them follows the instruction that entered.
    """
    known = list(covers(table))
    target = None
    for _ in range(_DEEPEST_NESTING):
        inner = next((each for each in known if each.start <= offset < each.end), None)
        if inner is None or inner.depth <= slot:
            break
        target = inner.target if inner.depth == slot + 1 else target
        offset = inner.target
    return None if target is None else min(each.start for each in known if each.target == target) - 2
