"""Lines that the kernel writes when a program takes a fatal fault, on x86, arm64, arm, riscv, powerpc, s390 and sparc.

Sources: show_signal_msg() in arch/x86/mm/fault.c (the offset in the file before the comma is absent on 6.1, there on 6.12),
do_trap() in arch/x86/kernel/traps.c, arm64_show_signal() in arch/arm64/kernel/traps.c, do_trap() in
arch/riscv/kernel/traps.c, show_signal_msg() in arch/powerpc/kernel/traps.c. The numbers are hexadecimal, on x86 without 0x.
A rate limit drops such lines under a storm, so a missing one proves nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from agentscope.model import Reading, Value
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage, passage_of
from agentscope.readers._words import cause_of_signal, signal_named

KINDS = frozenset({"kmsg", "systemd", "k8s", "docker"})

MAX_COMM = 32
_HEX = r"(?:0x)?[0-9a-fA-F]{1,16}"
_OBJECT = late(
    r"\bin (?P<object>[^\[\n]{1,256}?)\[(?:(?P<offset>" + _HEX + r"),)?(?P<base>" + _HEX + r")\+(?P<size>" + _HEX + r")\]"
)
# What follows the words by which a form is found; who stands before them is taken from the text in front.
_WHO = late(r"(?:\[(?P<pid>\d{1,10})\]|/(?P<slash>\d{1,10})(?=:)):? (?:trap )?$")
_SEGFAULT = late(
    r"segfault at (?P<address>" + _HEX + r") r?ip:? ?(?P<ip>" + _HEX + r") r?sp:? ?(?P<sp>" + _HEX + r") "
    r"error:? ?(?P<error>[0-9a-fA-F]{1,8})"
)
_TRAP = late(
    r"(?P<trap>[a-z0-9][a-z0-9 ]{2,40}?) r?ip:(?P<ip>"
    + _HEX
    + r") r?sp:(?P<sp>"
    + _HEX
    + r") error:(?P<error>[0-9a-fA-F]{1,8})"
)
_ARM64 = late(
    r"unhandled (?:exception: )?(?P<what>.{1,80}?)(?: \((?P<signal>\d{1,2})\))?(?: at (?P<address>" + _HEX + r"))?,? "
    r"(?:esr|ESR) ?(?P<esr>0x[0-9a-fA-F]{1,16})"
)
_ARM64_UNDEFINED = late(r"undefined instruction: pc=(?P<pc>" + _HEX + r")")
_ARM32 = late(r"unhandled page fault \((?P<signal>\d{1,2})\) at (?P<address>" + _HEX + r"), code (?P<esr>" + _HEX + r")")
_RISCV = late(
    r"unhandled signal (?P<signal>\d{1,2})(?: code (?P<code>"
    + _HEX
    + r"))? at (?P<address>"
    + _HEX
    + r")(?: nip (?P<ip>"
    + _HEX
    + r"))?"
)
_POWERPC = late(
    r"(?P<what>segfault|bad frame|bus error|illegal instruction|trap|floating point exception) \((?P<signal>\d{1,2})\)"
    r" at (?P<address>" + _HEX + r") nip (?P<ip>" + _HEX + r") lr " + _HEX
)
_S390 = late(r"User process fault: interruption code (?P<error>[0-9a-f]{4}) ilc:\d")
_UNEXPECTED = late(r"potentially unexpected fatal signal (?P<signal>\d{1,2})")
_MIPS = late(r"sending SIGSEGV to (?P<comm>.{1,64}?) for invalid (?:read|write) access (?:from|to) (?P<address>" + _HEX + r")")
_MEMORY = late(r"(?:Killing|SIGBUS to) (?P<comm>.{1,64}?):(?P<pid>\d{1,10}) due to hardware memory corruption")
_TRAPS = {
    "general protection": "crash/segfault",
    "divide error": "crash/fpe",
    "invalid opcode": "crash/illegal-instruction",
    "stack segment": "crash/segfault",
    "bounds": "crash/segfault",
    "overflow": "crash/segfault",
    "alignment check": "crash/bus",
    "segment not present": "crash/bus",
    "simd exception": "crash/fpe",
    "coprocessor": "crash/fpe",
    "fpu exception": "crash/fpe",
    "invalid tss": "crash/segfault",
}


class FaultLine(Value, frozen=True):
    """One fault as the kernel wrote it; every number is the text of the line, hexadecimal. `trap` None is a page fault."""

    cause: str | None
    pid: int | None = None
    comm: str | None = None
    trap: str | None = None
    address: str | None = None
    ip: str | None = None
    sp: str | None = None
    error_code: str | None = None
    object: str | None = None
    object_offset: str | None = None
    base: str | None = None
    size: str | None = None
    deleted: bool = False
    arch: str | None = None
    esr: str | None = None
    pc: str | None = None
    signal: str | None = None
    line: int = 0


def read_fault_lines(lines: Iterable[str]) -> tuple[FaultLine, ...]:
    """Every fault in these kernel lines (with or without their prefixes), in their order."""
    return tuple(_faults([line.text for line in passage_of("\n".join(lines)).lines]))


def read(passage: Passage) -> Iterator[Mark]:
    """Fatal faults in the kernel log; a breakpoint (`trap int3`) under a debugger ends nothing."""
    if not passage.has(*_WORDS):
        return
    for fault in _faults([line.text for line in passage.lines]):
        yield Mark(
            reading=_reading(fault, passage),
            weight=Weight.HARMLESS if fault.cause is None else Weight.KILLER,
            first=fault.line,
            last=fault.line,
            names=f"pid {fault.pid}",
        )


def _faults(lines: Sequence[str]) -> Iterator[FaultLine]:
    for index, line in enumerate(lines):
        if not any(word in line for word in _WORDS):
            continue
        fault = _fault(line[:1024], index)
        following = lines[index + 1].strip() if index + 1 < len(lines) else ""
        if (fault is None or fault.object is None) and following and not _STARTS.search(following):
            # a mail or a terminal wrapped the line
            whole = _fault(f"{line.rstrip()} {following}"[:1024], index)
            fault = whole if whole is not None and (fault is None or whole.object is not None) else fault
        if fault is not None:
            yield fault


def _fault(line: str, index: int) -> FaultLine | None:
    for words in ("segfault at ", "trap ", "general protection"):
        at = line.find(words)
        if at < 0:
            continue
        match = _SEGFAULT.match(line, at) if words == "segfault at " else _TRAP.match(line, at + 5 if words == "trap " else at)
        if match is not None:
            return _x86(match, line, index, at)
    if "hardware memory corruption" in line and (match := _MEMORY.search(line)):
        return FaultLine(
            cause="crash/bus", pid=int(match["pid"]), comm=match["comm"], trap="hardware memory corruption", line=index
        )
    return _elsewhere(line, index)


def _who(before: str) -> tuple[str | None, int | None]:
    """Name and pid from the text in front of a fault: `traps: comm[pid]: `, `comm[pid] `, `comm: `, nothing."""
    before = before[-160:].removeprefix("traps: ")
    match = _WHO.search(before)
    if match is None:
        comm = before.strip().removesuffix(":").removesuffix("trap").strip()
        return (comm if comm and comm != "traps:" else None), None
    comm = before[: match.start()]
    return (comm if len(comm) <= MAX_COMM else comm.rsplit(" ", 1)[-1]) or None, int(match["pid"] or match["slash"])


def _x86(match: re.Match[str], line: str, index: int, at: int) -> FaultLine:
    fields = match.groupdict()
    trap = fields.get("trap")
    cause = "crash/segfault" if trap is None else next((cause for name, cause in _TRAPS.items() if trap.startswith(name)), None)
    where = _OBJECT.search(line, match.end())
    module = where["object"] if where else None
    deleted = module is not None and (module.endswith("(deleted)") or ";" in module)
    comm, pid = _who(line[:at])
    return FaultLine(
        cause="drift/segfault" if deleted and cause == "crash/segfault" else cause,
        pid=pid,
        comm=comm,
        trap=trap,
        address=fields.get("address"),
        ip=fields["ip"],
        sp=fields["sp"],
        error_code=fields["error"],
        object=module,
        object_offset=where["offset"] if where else None,
        base=where["base"] if where else None,
        size=where["size"] if where else None,
        deleted=deleted,
        line=index,
    )


_WORDS = (
    *("segfault at", "trap ", "traps:", "general protection", "unhandled", "undefined instruction", " nip ", "sending SIGSEGV"),
    *("User process fault", "hardware memory corruption", "fatal signal"),
)
_STARTS = late(r"segfault|trap|unhandled|^Code:|^\[|: |general protection")
_FORMS = (
    ("arm64", "undefined instruction: ", _ARM64_UNDEFINED),
    ("arm", "unhandled page fault", _ARM32),
    ("riscv", "unhandled signal", _RISCV),
    ("arm64", "unhandled ", _ARM64),
    ("mips", "sending SIGSEGV to ", _MIPS),
    ("s390", "User process fault: ", _S390),
    (None, "potentially unexpected fatal signal ", _UNEXPECTED),
)


def _elsewhere(line: str, index: int) -> FaultLine | None:
    """The forms of the other architectures."""
    for arch, words, pattern in _FORMS:
        at = line.find(words)
        if at >= 0 and (match := pattern.match(line, at)):
            return _other(arch, match, line, index)
    if " nip " in line and (match := _POWERPC.search(line)):
        return _other("powerpc", match, line, index)
    return None


def _other(arch: str | None, match: re.Match[str], line: str, index: int) -> FaultLine:
    fields = match.groupdict()
    where = _OBJECT.search(line, match.start())
    signal = signal_named(fields.get("signal") or ("4" if "pc" in fields else "11"))
    if "alignment" in (fields.get("what") or ""):
        signal = "SIGBUS"
    comm, pid = _who(line[: match.start()])
    return FaultLine(
        cause=cause_of_signal(signal or "SIGSEGV"),
        pid=pid,
        comm=fields.get("comm") or comm,
        address=fields.get("address"),
        ip=fields.get("ip"),
        error_code=fields.get("error"),
        esr=fields.get("esr"),
        pc=fields.get("pc"),
        object=where["object"] if where else None,
        object_offset=where["offset"] if where else None,
        base=where["base"] if where else None,
        size=where["size"] if where else None,
        arch="powerpc" if fields.get("ip") else arch,
        signal=signal,
        line=index,
    )


def _reading(fault: FaultLine, passage: Passage) -> Reading:
    facts: dict[str, object] = {
        name: value
        for name, value in (
            ("trap", fault.trap),
            ("address", fault.address),
            ("ip", fault.ip),
            ("sp", fault.sp),
            ("error", fault.error_code),
            ("esr", fault.esr),
            ("pc", fault.pc),
            ("arch", fault.arch),
            ("offset", fault.object_offset),
            ("base", fault.base),
            ("size", fault.size),
            ("deleted", fault.deleted or None),
        )
        if value is not None
    }
    facts.update(pid=fault.pid, comm=fault.comm, object=fault.object)
    if fault.error_code is not None:
        facts["error_value"] = int(fault.error_code, 16)
    if fault.cause is None:
        facts["killed"] = False
    who = f"{fault.comm or 'a process'} ({'pid not said' if fault.pid is None else f'pid {fault.pid}'})"
    where = f" in {fault.object}" if fault.object else ""
    kind = fault.trap or f"fault at address {fault.address or fault.pc or 'not said'}"
    return Reading(
        reader="kernel_fault",
        suggests=fault.cause,
        says=f"kernel: {who} took a {kind}{where}",
        culprit=f"{fault.object}{'' if fault.object_offset is None else f' at offset {fault.object_offset}'}"
        if fault.object
        else fault.comm,
        pid=fault.pid,
        facts=facts,
        excerpt=passage.excerpt(fault.line, fault.line + 1),
    )
