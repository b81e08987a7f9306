"""Records of the probes into events: the Python half of bpf/event.h, which tests/test_wire.py holds against the C half.

Text comes from processes and is hostile: every length is checked against the record, and bytes that are no UTF-8 become
escapes, so that any of it can be written as JSON.
"""

import os
import struct
from collections.abc import Iterable
from typing import TypeVar

from agentscope.model import (
    Ancestor,
    AnyEvent,
    Fault,
    LastSyscall,
    Mapping,
    OomVictim,
    ProcessExec,
    ProcessExit,
    ProcessFork,
    ProcessSample,
    PythonFrame,
    SignalSent,
    StreamKind,
    ThreadSample,
)
from agentscope.sources.linetable import line_at

Kept = TypeVar("Kept")

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ABSENT = -1
WORDS_BYTES = 4096

EXEC, FORK, EXIT, SIGNAL, FAULT, OOM, MAPPINGS, FRAMES = range(1, 9)
SPAN_COMPLETE, SPAN_DELETED, SPAN_PRESENT = 1, 2, 4
SENDER_EXITING, SENDER_PIDNS_INIT, SENDER_HAS_TTY = 1, 2, 4

_STREAMS: tuple[StreamKind | None, ...] = (None, "closed", "file", "pty", "pipe", "socket", "null", "other")
_DISPOSITIONS = ("default", "ignore", "caught")


class Layout:
    """One C struct: names of its members in order, each with its struct code."""

    def __init__(self, name: str, members: str) -> None:
        self.name = name
        self.members = tuple(member.split(":") for member in members.split())
        self.packed = struct.Struct("<" + "".join(code for _, code in self.members))
        self.unpack_from = self.packed.unpack_from
        self.size = self.packed.size

    def offsets(self) -> Iterable[tuple[str, int]]:
        """Each member with its offset, as this side reads it."""
        at = 0
        for name, code in self.members:
            yield name, at
            at += struct.calcsize("<" + code)


_HEAD = "head.kind:I head.pid:I head.at_ns:Q "
HEAD = Layout("head", "kind:I pid:I at_ns:Q")
FORK_RECORD = Layout("fork_record", _HEAD + "start_ns:Q ppid:I comm:16s reserved:I")
EXEC_RECORD = Layout(
    "exec_record",
    _HEAD + "start_ns:Q ppid:I uid:I comm:16s ancestors:80s stderr_kind:I argv.length:H argv.flags:H exe.length:H exe.flags:H "
    "cgroup.length:H cgroup.flags:H stderr_path.length:H stderr_path.flags:H reserved:I",
)
EXIT_RECORD = Layout(
    "exit_record",
    _HEAD + "start_ns:Q user_ns:Q system_ns:Q max_rss_pages:Q syscall_args:6Q syscall:i status:i ppid:I uid:I comm:16s "
    "stderr_kind:I cgroup.length:H cgroup.flags:H stderr_path.length:H stderr_path.flags:H reserved:I",
)
SIGNAL_RECORD = Layout(
    "signal_record",
    _HEAD + "start_ns:Q sender_start_ns:Q tid:I signal:i code:i result:i group:I disposition:I sender_pid:I sender_tid:I "
    "sender_uid:I sender_flags:I comm:16s sender_comm:16s sender_ancestors:80s sender_exe.length:H sender_exe.flags:H "
    "sender_cgroup.length:H sender_cgroup.flags:H",
)
MAPPING = Layout("mapping", "start:Q end:Q offset:Q inode:Q device:I path.length:H path.flags:H")
MAPPINGS_RECORD = Layout("mappings_record", _HEAD + "count:I truncated:I")
FAULT_RECORD = Layout(
    "fault_record",
    _HEAD + "start_ns:Q address:Q registers:17Q tid:I signal:i code:i syscall:i disposition:I stack_length:I comm:16s "
    "module:40s",
)
PYTHON_FRAME = Layout(
    "python_frame",
    "first_line:I instruction:i lines_length:I name_text.length:I name_text.kind:I file_text.length:I file_text.kind:I inner:I "
    "name:96s file:160s lines:512s",
)
FRAMES_RECORD = Layout("frames_record", _HEAD + "tid:I count:I")
OOM_RECORD = Layout(
    "oom_record",
    _HEAD + "start_ns:Q anon_pages:q file_pages:q shmem_pages:q total_vm_pages:q pgtables_bytes:q oom_score_adj:i uid:I "
    "trigger_pid:I comm:16s trigger_comm:16s cgroup.length:H cgroup.flags:H trigger_cgroup.length:H trigger_cgroup.flags:H "
    "reserved:I",
)
PULSE_ROW = Layout(
    "pulse_row",
    "pid:I tid:I start_ns:Q now_ns:Q arrival_ns:Q reader_arrival_ns:Q user_ns:Q system_ns:Q voluntary_switches:Q "
    "involuntary_switches:Q anon_pages:q file_pages:q shmem_pages:q syscall_args:6Q syscall:i state:I comm:16s",
)
WATCH = Layout("watch", "last_fault_ns:Q faults:I flags:I")
CONTROL = Layout("control", "lost_records:Q lost_watches:Q discover:I reserved:I")
TAIL = Layout("tail", "position:Q reserved:Q bytes:8192s")
PYTHON_LAYOUT = Layout(
    "python_layout",
    "interpreters_head:I interpreter_next:I threads_head:I thread_next:I native_thread_id:I frame_holder:I current_frame:I "
    "frame_code:I frame_previous:I frame_instruction:I frame_owner:I code_filename:I code_qualname:I code_linetable:I "
    "code_firstlineno:I code_instructions:I text_length:I text_state:I text_kind_shift:I text_ascii_size:I "
    "text_compact_size:I bytes_length:I bytes_content:I reserved:I",
)
PYTHON_PROCESS = Layout("python_process", "runtime:Q layout:96s")
EXE_KEY = Layout("exe_key", "inode:Q size_bytes:Q")
PYTHON_EXE = Layout("python_exe", "code_vaddr:Q debug_vaddr:Q library_dynamic:Q runtime_vaddr:Q layout:96s")
ANCESTOR = Layout("ancestor", "pid:I comm:16s")

LAYOUTS = tuple(value for value in list(globals().values()) if isinstance(value, Layout))


def text_of(raw: bytes) -> str:
    """Bytes up to the first NUL as text."""
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def path_of(raw: bytes, flags: int) -> str | None:
    """A path from its names, leaf first. One that is cut begins with an ellipsis; a removed file ends as in /proc."""
    if not flags & SPAN_PRESENT:
        return None
    names = raw.decode("utf-8", "backslashreplace").split("\0")[:-1]
    start = "/" if flags & SPAN_COMPLETE else "…/"
    return start + "/".join(reversed(names)) + (" (deleted)" if flags & SPAN_DELETED else "")


def argv_of(raw: bytes) -> tuple[str, ...]:
    """Arguments as they lie in memory."""
    if not raw:
        return ()
    return tuple(raw.removesuffix(b"\0").decode("utf-8", "backslashreplace").split("\0"))


def device_of(kernel_device: int) -> int:
    """The kernel's dev_t as stat(2) gives it."""
    return os.makedev(kernel_device >> 20, kernel_device & 0xFFFFF)


def _ancestors_of(raw: bytes) -> tuple[Ancestor, ...]:
    return tuple(Ancestor(pid=pid, comm=text_of(comm)) for pid, comm in ANCESTOR.packed.iter_unpack(raw) if pid)


def _stream_of(kind: int) -> StreamKind | None:
    return _STREAMS[kind] if kind < len(_STREAMS) else None


def _bytes_or_none(pages: int) -> int | None:
    return None if pages == ABSENT else pages * PAGE_BYTES


def _mapping_of(raw: bytes, path: bytes) -> Mapping:
    start, end, offset, inode, device, _, flags = MAPPING.unpack_from(raw)
    return Mapping(start=start, end=end, offset=offset, inode=inode, device=device_of(device), path=path_of(path, flags) or "")


class Decoder:
    """Records to events; keeps what precedes an event until that event comes."""

    _WAITING = 256

    def __init__(self) -> None:
        self._mappings: dict[int, tuple[Mapping, ...]] = {}
        self._frames: dict[int, tuple[PythonFrame, ...]] = {}

    def decode(self, record: bytes) -> AnyEvent | None:
        """The event of a record; None if it is only part of one still to come, or not of this version."""
        kind = record[0]
        if kind == FORK:
            return self._fork(record)
        if kind == EXIT:
            return self._exit(record)
        if kind == EXEC:
            return self._exec(record)
        if kind == SIGNAL:
            return self._signal(record)
        if kind == FAULT:
            return self._fault(record)
        if kind == OOM:
            return self._oom(record)
        if kind == MAPPINGS:
            self._keep(self._mappings, HEAD.unpack_from(record)[1], mappings_of(record))
        elif kind == FRAMES:
            tid, _ = struct.unpack_from("<II", record, HEAD.size)
            self._keep(self._frames, tid, frames_of(record))
        return None

    def _keep(self, waiting: dict[int, Kept], key: int, value: Kept) -> None:
        """Bounded, since the record that should collect it may have been lost."""
        waiting.pop(key, None)
        while len(waiting) >= self._WAITING:
            waiting.pop(next(iter(waiting)))
        waiting[key] = value

    def _fork(self, record: bytes) -> ProcessFork:
        _, pid, at_ns, start_ns, ppid, comm, _ = FORK_RECORD.unpack_from(record)
        return ProcessFork(at_ns=at_ns, pid=pid, start_ns=start_ns, ppid=ppid, comm=text_of(comm))

    def _exec(self, record: bytes) -> ProcessExec:
        (
            _, pid, at_ns, start_ns, ppid, uid, comm, ancestors, stderr, argv_length, _, exe_length, exe_flags,
            cgroup_length, cgroup_flags, path_length, path_flags, _,
        ) = EXEC_RECORD.unpack_from(record)  # fmt: skip
        exe_at = EXEC_RECORD.size + argv_length
        cgroup_at = exe_at + exe_length
        path_at = cgroup_at + cgroup_length
        return ProcessExec(
            at_ns=at_ns,
            pid=pid,
            start_ns=start_ns,
            ppid=ppid,
            comm=text_of(comm),
            argv=argv_of(record[EXEC_RECORD.size : exe_at]),
            exe=path_of(record[exe_at:cgroup_at], exe_flags),
            uid=uid,
            cgroup=path_of(record[cgroup_at:path_at], cgroup_flags),
            stderr=_stream_of(stderr),
            stderr_path=path_of(record[path_at : path_at + path_length], path_flags),
            ancestors=_ancestors_of(ancestors),
        )

    def _exit(self, record: bytes) -> ProcessExit:
        (
            _, pid, at_ns, start_ns, user_ns, system_ns, max_rss, a0, a1, a2, a3, a4, a5, syscall, status, ppid, uid, comm,
            stderr, cgroup_length, cgroup_flags, path_length, path_flags, _,
        ) = EXIT_RECORD.unpack_from(record)  # fmt: skip
        path_at = EXIT_RECORD.size + cgroup_length
        return ProcessExit(
            at_ns=at_ns,
            pid=pid,
            start_ns=start_ns,
            ppid=ppid,
            comm=text_of(comm),
            status=status & 0xFFFF,
            uid=uid,
            cgroup=path_of(record[EXIT_RECORD.size : path_at], cgroup_flags),
            max_rss_bytes=max_rss * PAGE_BYTES or None,
            user_ns=user_ns,
            system_ns=system_ns,
            last_syscall=LastSyscall(number=syscall, args=(a0, a1, a2, a3, a4, a5)) if syscall >= 0 else None,
            mappings=self._mappings.pop(pid, None),
            stderr=_stream_of(stderr),
            stderr_path=path_of(record[path_at : path_at + path_length], path_flags),
        )

    def _signal(self, record: bytes) -> SignalSent:
        (
            _, pid, at_ns, start_ns, sender_start_ns, tid, signal, code, result, group, disposition, sender_pid, sender_tid,
            sender_uid, flags, comm, sender_comm, ancestors, exe_length, exe_flags, cgroup_length, cgroup_flags,
        ) = SIGNAL_RECORD.unpack_from(record)  # fmt: skip
        cgroup_at = SIGNAL_RECORD.size + exe_length
        return SignalSent(
            at_ns=at_ns,
            signal=signal,
            code=code,
            group=bool(group),
            result=result,
            pid=pid,
            tid=tid,
            start_ns=start_ns,
            comm=text_of(comm),
            handler=_DISPOSITIONS[disposition],  # type: ignore[arg-type]  # one of three words, by event.h
            sender_pid=sender_pid,
            sender_tid=sender_tid,
            sender_start_ns=sender_start_ns,
            sender_comm=text_of(sender_comm),
            sender_uid=sender_uid,
            sender_exe=path_of(record[SIGNAL_RECORD.size : cgroup_at], exe_flags),
            sender_cgroup=path_of(record[cgroup_at : cgroup_at + cgroup_length], cgroup_flags),
            sender_ancestors=_ancestors_of(ancestors),
            sender_exiting=bool(flags & SENDER_EXITING),
            sender_is_pidns_init=bool(flags & SENDER_PIDNS_INIT),
            sender_tty=bool(flags & SENDER_HAS_TTY),
        )

    def _fault(self, record: bytes) -> Fault:
        fields = FAULT_RECORD.unpack_from(record)
        _, pid, at_ns, start_ns, address = fields[:5]
        tid, signal, code, syscall, disposition, stack_length, comm, module = fields[22:]
        path_length, _ = struct.unpack_from("<HH", module, MAPPING.size - 4)
        stack_at = FAULT_RECORD.size + path_length
        has_module = any(module[8:16])
        return Fault(
            at_ns=at_ns,
            signal=signal,
            code=code,
            # si_addr is set only where the hardware gave a reason: include/uapi/asm-generic/siginfo.h, codes below SI_KERNEL
            address=address if 0 < code < 128 and syscall == ABSENT else None,
            pid=pid,
            tid=tid,
            start_ns=start_ns,
            comm=text_of(comm),
            handler=_DISPOSITIONS[disposition],  # type: ignore[arg-type]  # one of three words, by event.h
            registers=dict(enumerate(fields[5:22])),
            stack=record[stack_at : stack_at + stack_length] or None,
            module=_mapping_of(module, record[FAULT_RECORD.size : stack_at]) if has_module else None,
            python_frames=self._frames.pop(tid, None),
            sys_number=None if syscall == ABSENT else syscall,
        )

    def _oom(self, record: bytes) -> OomVictim:
        (
            _, pid, at_ns, start_ns, anon, file, shmem, total_vm, pgtables, score, uid, trigger_pid, comm, trigger_comm,
            cgroup_length, cgroup_flags, trigger_length, trigger_flags, _,
        ) = OOM_RECORD.unpack_from(record)  # fmt: skip
        trigger_at = OOM_RECORD.size + cgroup_length
        return OomVictim(
            at_ns=at_ns,
            pid=pid,
            start_ns=start_ns,
            comm=text_of(comm),
            uid=uid,
            anon_rss_bytes=_bytes_or_none(anon),
            file_rss_bytes=_bytes_or_none(file),
            shmem_rss_bytes=_bytes_or_none(shmem),
            total_vm_bytes=_bytes_or_none(total_vm),
            pgtables_bytes=None if pgtables == ABSENT else pgtables,
            oom_score_adj=score,
            cgroup=path_of(record[OOM_RECORD.size : trigger_at], cgroup_flags),
            trigger_pid=trigger_pid,
            trigger_comm=text_of(trigger_comm),
            trigger_cgroup=path_of(record[trigger_at : trigger_at + trigger_length], trigger_flags),
        )


def mappings_of(record: bytes) -> tuple[Mapping, ...]:
    """The mappings of a RECORD_MAPPINGS."""
    found = []
    count = MAPPINGS_RECORD.unpack_from(record)[3]
    at = MAPPINGS_RECORD.size
    for _ in range(count):
        at = (at + 7) & ~7
        if at + MAPPING.size > len(record):
            break
        (path_length,) = struct.unpack_from("<H", record, at + MAPPING.size - 4)
        path_at = at + MAPPING.size
        found.append(_mapping_of(record[at:path_at], record[path_at : path_at + path_length]))
        at = path_at + path_length
    return tuple(found)


_TEXT_CODECS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


def _python_text(raw: bytes, length: int, kind: int) -> str:
    codec = _TEXT_CODECS.get(kind)
    return raw[:length].decode(codec, "replace") if codec else "?"


def frames_of(record: bytes) -> tuple[PythonFrame, ...]:
    """The frames of a RECORD_FRAMES, innermost first, without those of the interpreter itself."""
    found = []
    count = FRAMES_RECORD.unpack_from(record)[4]
    for index in range(count):
        at = FRAMES_RECORD.size + index * PYTHON_FRAME.size
        if at + PYTHON_FRAME.size > len(record):
            break
        first, instruction, lines_length, name_length, name_kind, file_length, file_kind, inner, name, file, lines = (
            PYTHON_FRAME.unpack_from(record, at)
        )
        if inner:
            continue
        found.append(
            PythonFrame(
                function=_python_text(name, name_length, name_kind),
                file=_python_text(file, file_length, file_kind),
                first_line=first,
                line=line_at(lines[:lines_length], first, instruction),
            )
        )
    return tuple(found)


# fs/proc/array.c, task_state_array: the letters of the bits of `state`, from bit 0 up
_STATE_LETTERS = "SDTtXZPI"
_TASK_REPORT = 0x7F
_TASK_IDLE = 0x402


def state_letter(state: int) -> str:
    """The letter of /proc/PID/stat."""
    if state & _TASK_IDLE == _TASK_IDLE:
        return "I"
    reported = state & _TASK_REPORT
    if not reported and state & 0x1000:  # TASK_RTLOCK_WAIT is shown as D
        return "D"
    return _STATE_LETTERS[reported.bit_length() - 1] if reported else "R"


def samples_of(rows: bytes, clock_offset_ns: int) -> list[ProcessSample]:
    """What the iterator wrote, thread by thread, as processes. `clock_offset_ns` is CLOCK_MONOTONIC minus sched_clock."""
    threads: dict[int, list[ThreadSample]] = {}
    about: dict[int, tuple[int, int | None, int | None]] = {}
    for row in PULSE_ROW.packed.iter_unpack(rows[: len(rows) - len(rows) % PULSE_ROW.size]):
        (
            pid, tid, start_ns, now_ns, arrival_ns, _, user_ns, system_ns, voluntary, involuntary, anon, file, shmem,
            a0, a1, a2, a3, a4, a5, syscall, state, comm,
        ) = row  # fmt: skip
        letter = state_letter(state)
        running = letter == "R"
        threads.setdefault(pid, []).append(
            ThreadSample(
                tid=tid,
                comm=text_of(comm),
                state=letter,
                syscall=LastSyscall(number=syscall, args=(a0, a1, a2, a3, a4, a5)) if syscall >= 0 and not running else None,
                user_ns=user_ns,
                system_ns=system_ns,
                voluntary_switches=voluntary,
                involuntary_switches=involuntary,
                blocked_ns=0 if running else max(0, now_ns - clock_offset_ns - arrival_ns) if arrival_ns else None,
            )
        )
        if anon != ABSENT or pid not in about:
            rss = None if anon == ABSENT else (anon + file + shmem) * PAGE_BYTES
            about[pid] = start_ns, _bytes_or_none(anon), rss
    return [
        ProcessSample(pid=pid, start_ns=start_ns, anon_bytes=anon, rss_bytes=rss, threads=tuple(threads[pid]))
        for pid, (start_ns, anon, rss) in about.items()
    ]


def clock_bound_ns(rows: bytes) -> int | None:
    """Upper bound of CLOCK_MONOTONIC minus sched_clock: the reader got its CPU before it wrote the first row."""
    if len(rows) < PULSE_ROW.size:
        return None
    fields = PULSE_ROW.unpack_from(rows)
    now_ns, reader_arrival_ns = fields[3], fields[5]
    return now_ns - reader_arrival_ns if reader_arrival_ns else None


def tail_text(value: bytes) -> bytes | None:
    """The bytes of a `struct tail`, oldest first; None if nothing was written."""
    position = TAIL.unpack_from(value)[0]
    ring = value[TAIL.size - 2 * WORDS_BYTES :][:WORDS_BYTES]
    if not position:
        return None
    if position <= WORDS_BYTES:
        return ring[:position]
    at = position % WORDS_BYTES
    return ring[at:] + ring[:at]
