"""Records of the probes into events. Every length in them is checked against the record: what lies there is hostile."""

import struct
from typing import TypeVar

from agentscope.model import (
    Ancestor,
    AnyEvent,
    EngineName,
    Fault,
    LastSyscall,
    Mapping,
    OomVictim,
    ProcessExec,
    ProcessExit,
    ProcessFork,
    PythonFrame,
    SignalSent,
    StreamKind,
)
from agentscope.sources.wire import (
    ABSENT,
    ANCESTOR,
    DISPOSITIONS,
    EXEC,
    EXEC_RECORD,
    EXIT,
    EXIT_RECORD,
    FAULT,
    FAULT_RECORD,
    FORK,
    FORK_RECORD,
    FRAMES,
    FRAMES_RECORD,
    HEAD,
    MAPPING,
    MAPPINGS,
    MAPPINGS_RECORD,
    OOM,
    OOM_RECORD,
    PAGE_BYTES,
    PYTHON_FRAME,
    REGISTERS,
    SENDER_EXITING,
    SENDER_HAS_TTY,
    SENDER_PIDNS_INIT,
    SIGNAL,
    SIGNAL_RECORD,
    STREAMS,
    argv_of,
    device_of,
    path_of,
    text_of,
)
from agentscope.symbols.linetable import line_at

Kept = TypeVar("Kept")


def _ancestors_of(raw: bytes) -> tuple[Ancestor, ...]:
    return tuple(Ancestor(pid=pid, comm=text_of(comm)) for pid, comm in ANCESTOR.packed.iter_unpack(raw) if pid)


def _stream_of(kind: int) -> StreamKind | None:
    return STREAMS[kind] if kind < len(STREAMS) else None


def _bytes_or_none(pages: int) -> int | None:
    return None if pages == ABSENT else pages * PAGE_BYTES


def _mapping_of(raw: bytes, path: bytes) -> Mapping:
    start, end, offset_pages, inode, device, _, flags = MAPPING.unpack_from(raw)
    return Mapping(
        start=start,
        end=end,
        offset=offset_pages * PAGE_BYTES,
        inode=inode,
        device=device_of(device),
        path=path_of(path, flags) or "",
    )


class Decoder:
    """Records to events; keeps what precedes an event until that event comes."""

    _WAITING = 256

    def __init__(self, engine: EngineName = "core") -> None:
        self._engine = engine
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
            engine=self._engine,
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
            handler=DISPOSITIONS[disposition],  # type: ignore[arg-type]  # one of three words, by event.h
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
        tid, signal, code, syscall, disposition, stack_length, comm, module = fields[5 + REGISTERS :]
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
            handler=DISPOSITIONS[disposition],  # type: ignore[arg-type]  # one of three words, by event.h
            registers=dict(enumerate(fields[5 : 5 + REGISTERS])),
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
