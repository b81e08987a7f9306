"""The Python half of bpf/event.h: structs, numbers and text as the probes write them; tests/test_wire.py holds them together.

Text comes from processes and is hostile: bytes that are no UTF-8 become escapes, so that any of it can be written as JSON.
"""

import os
import struct
from collections.abc import Iterable

from agentscope.machines import X86_64, this_machine
from agentscope.model import StreamKind

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ABSENT = -1
WORDS_BYTES = 4096
REGISTERS = (this_machine() or X86_64).registers  # no probes are loaded where there is no such machine

EXEC, FORK, EXIT, SIGNAL, FAULT, OOM, MAPPINGS, FRAMES = range(1, 9)
SPAN_COMPLETE, SPAN_DELETED, SPAN_PRESENT = 1, 2, 4
SENDER_EXITING, SENDER_PIDNS_INIT, SENDER_HAS_TTY = 1, 2, 4

STREAMS: tuple[StreamKind | None, ...] = (None, "closed", "file", "pty", "pipe", "socket", "null", "other")
DISPOSITIONS = ("default", "ignore", "caught")


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
MAPPING = Layout("mapping", "start:Q end:Q offset_pages:Q inode:Q device:I path.length:H path.flags:H")
MAPPINGS_RECORD = Layout("mappings_record", _HEAD + "count:I truncated:I")
FAULT_RECORD = Layout(
    "fault_record",
    _HEAD
    + f"start_ns:Q address:Q registers:{REGISTERS}Q tid:I signal:i code:i syscall:i disposition:I stack_length:I comm:16s "
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
PULSE_HEAD = Layout("pulse_head", "now_ns:Q boot_ns:Q reader_arrival_ns:Q")
PULSE_ROW = Layout(
    "pulse_row",
    "anon_pages:q file_pages:q shmem_pages:q pid:I tid:I start_ns:Q arrival_ns:Q user_ns:Q system_ns:Q delayed_ns:Q "
    "voluntary_switches:Q involuntary_switches:Q read_bytes:q written_bytes:q ip:Q syscall_args:6Q syscall:i state:I comm:16s",
)
REGISTERS_ROW = Layout("registers_row", f"pid:I tid:I registers:{REGISTERS}Q")
CALL_KEY = Layout("call_key", "pid:I number:H error:H")
CONNECT_KEY = Layout("connect_key", "pid:I error:H length:H address:112s")
STATUS_KEY = Layout("status_key", "pid:I status:I")
WATCH = Layout("watch", "execed_ns:Q last_fault_ns:Q faults:I flags:I")
CONTROL = Layout("control", "lost_records:Q lost_watches:Q discover:I leaders_only:I")
TAIL = Layout("tail", "position:Q written_ns:Q bytes:8192s")
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


def tail_text(value: bytes) -> tuple[bytes, int] | None:
    """The bytes of a `struct tail`, oldest first, and when the last was written (CLOCK_BOOTTIME); None if nothing was."""
    position, written_ns = TAIL.unpack_from(value)[:2]
    ring = value[TAIL.size - 2 * WORDS_BYTES :][:WORDS_BYTES]
    if not position:
        return None
    if position <= WORDS_BYTES:
        return ring[:position], written_ns
    at = position % WORDS_BYTES
    return ring[at:] + ring[:at], written_ns
