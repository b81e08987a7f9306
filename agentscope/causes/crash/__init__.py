"""Class `crash`: its own code, or a library in it, did what a program must not. What its causes judge by, once for all of them."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from agentscope.causes import No
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import STACK_NEAR_BYTES, FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.native_stack import NativeFrame, NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence, PythonFrame

SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS = 4, 5, 6, 7, 8, 11, 31
FAULT_SIGNALS = frozenset({SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS})
SI_TKILL = -6
SENT: Literal["sent"] = "sent"
NULL_PAGES = 65536  # vm.mmap_min_addr: nothing is ever mapped below
DEEP_FRAMES = 12


@dataclass(frozen=True)
class Place:
    """Where it happened: `short` for a headline, `culprit` in full, `cites` the kinds of evidence that say so."""

    short: str
    culprit: str
    cites: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """What there is to tell a fault from a signal that was sent."""

    status: WaitStatus
    fault: FaultFacts | None
    actor: SignalActor | None
    log: KernelLog | None
    words: LastWords | None


def origin(end: Ending) -> Confidence | Literal["sent"]:
    """How sure it is that a signal of this class was the program's own doing, or SENT.

    A handler that looks at a real fault passes it on with tgkill to itself, so a signal from itself after a fault is that fault.
    """
    status, fault, actor, log, words = end.status, end.fault, end.actor, end.log, end.words
    if actor is not None and actor.outside:
        return SENT
    if fault is not None and fault.synchronous:
        return "certain"
    if actor is not None and actor.si_code is not None and actor.si_code > 0:
        return "certain"  # raised by the kernel for what the thread did
    if log is not None and log.fault is not None:
        return "certain"  # the kernel writes this line only for a fault that nobody handled
    by_itself = actor is not None and actor.relation == "self"
    if status.signal == SIGABRT and (by_itself or (fault is not None and fault.code == SI_TKILL)):
        return "certain" if by_itself else "likely"
    if words is not None and any((reading.suggests or "").startswith("crash/") for reading in words.readings):
        return "likely"
    return SENT if by_itself or fault is not None else "possible"


def raised(status: WaitStatus, fault: FaultFacts | None) -> int | None:
    """The signal of the fault itself: a runtime's handler may end the program by another one."""
    if status.signal not in FAULT_SIGNALS:
        return None
    return fault.signal if fault is not None and fault.synchronous else status.signal


def own_fault(signals: frozenset[int], end: Ending) -> Confidence | No:
    """How sure it is that one of these signals ended it by its own doing, or why it did not."""
    if raised(end.status, end.fault) not in signals:
        return No(f"it {end.status.says()}")
    sure = origin(end)
    if sure == "sent":
        return No(f"{end.actor.says() if end.actor is not None else end.status.signal_name}: it was sent, no fault raised it")
    told = end.words.accounting_for(None, end.status.signal) if end.words is not None else None
    if told is not None:
        return No(f"its runtime ended it on purpose: {told.says}")
    return sure


def says_overflow(end: Ending) -> bool:
    """Whether the runtime itself said that its stack ran out."""
    return end.words is not None and end.words.reading("crash/stack-overflow") is not None


def overflowed(end: Ending, native: NativeStack | None) -> bool:
    """Whether the stack ran out: the address of the SIGSEGV lies just at the stack pointer, or the runtime itself said so."""
    signal = raised(end.status, end.fault)
    if signal not in {SIGSEGV, SIGABRT}:
        return False
    if says_overflow(end):
        return True
    if signal == SIGABRT:
        return False
    near = end.fault.near_stack if end.fault is not None else line_near_stack(end.log)
    # a buffer overrun at the top of a shallow stack is near the stack pointer too
    shallow = native is not None and native.complete and len(native.frames) < DEEP_FRAMES
    return near and not shallow


def line_near_stack(log: KernelLog | None) -> bool:
    """The same from the kernel's segfault line, whose numbers are hexadecimal text."""
    line = log.fault if log is not None else None
    if line is None or line.address is None or line.sp is None:
        return False
    try:
        return -NULL_PAGES <= int(line.sp, 16) - int(line.address, 16) <= STACK_NEAR_BYTES
    except ValueError:
        return False


def recursing(native: NativeStack | None) -> str | None:
    """The function that most frames of a deep stack are in, if one is."""
    names = Counter(function_of(frame) for frame in native.frames if frame.symbol) if native is not None else Counter[str]()
    name, count = names.most_common(1)[0] if names else ("", 0)
    return name if count >= DEEP_FRAMES // 2 else None


def function_of(frame: NativeFrame) -> str:
    """A frame's function without the offset in it."""
    return (frame.symbol or "").split("+0x", 1)[0]


def base(path: str) -> str:
    """The file name of a path."""
    return path.rsplit("/", 1)[-1]


def in_file(frame: NativeFrame) -> str:
    """A frame in full: "strlen in libc.so.6+0x167ad8"."""
    at = "" if frame.offset is None else f"+{frame.offset:#x}"
    where = f"{base(frame.module)}{at}" if frame.module else f"code without a file{at}"
    return f"{function_of(frame)} in {where}" if frame.symbol else where


def in_python(frame: PythonFrame) -> str:
    """A Python frame: "agent.py:12 in main"."""
    return f"{frame.file}:{frame.line or frame.first_line} in {frame.function}"


def place(end: Ending, native: NativeStack | None, python: PythonStack | None, *, past_carriers: bool = False) -> Place:
    """Where it happened, from the best of what was read: the stack, the instruction's own file, the kernel's line.

    `past_carriers`: the innermost frames only carry out the end (abort, a system call), so the story starts at their caller.
    """
    fault, log = end.fault, end.log
    short, part, cites = in_stack(native, past_carriers=past_carriers)
    in_python_only = past_carriers and python is not None and (native is None or native.blamed is None)
    if in_python_only:
        short = part = ""
    elif not part and fault is not None and fault.module is not None:
        at = "" if fault.file_offset is None else f"+{fault.file_offset:#x}"
        short, part = f" in {base(fault.module.path)}", f"{base(fault.module.path)}{at}"
    elif not part and log is not None and log.fault is not None and log.fault.object:
        at = f"+0x{log.fault.object_offset}" if log.fault.object_offset else ""
        short, part = f" in {log.fault.object}", f"{log.fault.object}{at}"
    if python is not None and python.frames:
        called = "called from " if part else ""
        part = f"{part}{', ' if part else ''}{called}{in_python(python.blamed)}"
        short += f"{',' if short else ''} from {base(python.blamed.file)}:{python.blamed.line or python.blamed.first_line}"
        cites += ("python-stack",)
    if fault is not None and not fault.main_thread and fault.thread:
        short += f", on thread {fault.thread}"
    if log is not None and log.fault is not None:
        cites += ("kernel-log",)
    return Place(short, part or "its own code, at a place that could not be read", cites)


def in_stack(native: NativeStack | None, *, past_carriers: bool) -> tuple[str, str, tuple[str, ...]]:
    """The same from the native stack alone: for a headline, in full, and what it rests on; empty without a stack."""
    first = next((frame for frame in native.frames if frame.module), None) if native is not None else None
    if native is None or first is None:
        return "", "", ()
    blamed = native.blamed
    frame = blamed if past_carriers and blamed is not None else first
    name, file = function_of(frame), base(frame.module or "")
    short = f" in {name} of {file}" if name else f" in {file}"
    part = in_file(frame)
    if blamed is not None and blamed is not frame:
        short += f", called by {function_of(blamed) or base(blamed.module or '')}"
        part += f", called by {in_file(blamed)}"
    return short, part + (f" ({native.owner})" if native.owner else ""), ("native-stack",)


def cited(found: Place, end: Ending) -> tuple[str, ...]:
    """The kinds of evidence that a crash rests on."""
    told = end.actor is not None and end.actor.relation != "unattributed"
    return ("wait-status", *(("fault",) if end.fault is not None else ()), *(("actor",) if told else ()), *found.cites)


def look_closer(status: WaitStatus, native: NativeStack | None, python: PythonStack | None) -> tuple[str, ...]:
    """What to type next for any crash."""
    lines = []
    if native is not None and native.owner is not None and native.blamed is not None:
        lines.append(f"see whether this crash of {native.owner} is known, and try the version before or after it")
    if status.core_dumped:
        lines.append("open its core dump: coredumpctl debug (or gdb PROGRAM CORE), then: thread apply all bt")
    else:
        lines.append("to keep a core dump of the next one: ulimit -c unlimited, or LimitCORE=infinity in its unit")
    if python is not None:
        frame = python.blamed
        lines.append(f"look at what {frame.file} line {frame.line or frame.first_line} hands to native code")
    return tuple(lines)
