"""Real crashes, unwound from the registers and stack bytes that a probe would have taken, against gdb as the independent judge.

The capture is made with ptrace(2), so it needs no BPF: the victim stops where the signal would have been delivered.
"""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentscope.model import Mapping
from agentscope.symbols.unwind import NativeStack, unwind

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="unwinding is built for x86-64"),
    pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("gdb"), reason="needs gcc and gdb"),
]

TRACEME, SINGLESTEP, CONT, GETREGS, DETACH, SETOPTIONS = 0, 9, 7, 12, 17, 0x4200
EXITKILL, TRACECLONE = 0x100000, 0x08
WALL = 0x40000000
TGKILL = 234
STACK_BYTES = 16384
REGISTER_WORDS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs gs"  # struct user_regs_struct
)
REGISTERS = REGISTER_WORDS.split()
DWARF = {"rbx": 3, "rbp": 6, "rsp": 7, "r12": 12, "r13": 13, "r14": 14, "r15": 15, "rip": 16}
CGROUP = Path("/sys/fs/cgroup/memory")
FATAL = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, tid, value=0, address=0):
    if libc.ptrace(request, tid, address, value) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


@dataclass
class Capture:
    """What a probe would have: registers by DWARF number, bytes from the stack pointer up, executable mappings."""

    registers: dict[int, int]
    stack: bytes
    mappings: list[Mapping]


class Victim:
    """A traced program, stopped at exec; killed with its tracer."""

    def __init__(self, command, cgroup, env=None):
        def before_exec():
            if cgroup:
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            libc.ptrace(TRACEME, 0, None, None)

        self.process = subprocess.Popen(
            [str(word) for word in command],
            preexec_fn=before_exec,  # noqa: PLW1509  it must be traced from its first instruction on
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.process.pid
        os.waitpid(self.pid, 0)
        ptrace(SETOPTIONS, self.pid, EXITKILL | TRACECLONE)
        self.tids = {self.pid}

    def run_to_fault(self, *, skip=0):
        """Go on until a fatal signal is about to be delivered for the (skip+1)th time; the thread that takes it."""
        ptrace(CONT, self.pid)
        while True:
            tid, status = os.waitpid(-1, WALL)
            assert os.WIFSTOPPED(status), f"the victim ended with {status:#x} instead of stopping"
            self.tids.add(tid)
            number = os.WSTOPSIG(status)
            event = status >> 16
            if event or number == signal.SIGSTOP:
                ptrace(CONT, tid)
            elif number in FATAL:
                if skip == 0:
                    return tid
                skip -= 1
                ptrace(CONT, tid, number)
            else:
                ptrace(CONT, tid, number)

    def step(self):
        """One instruction; False when the victim has ended."""
        ptrace(SINGLESTEP, self.pid)
        _, status = os.waitpid(self.pid, 0)
        return os.WIFSTOPPED(status)

    def registers(self, tid):
        """What a probe takes, by DWARF number."""
        buffer = (ctypes.c_uint64 * 27)()
        ptrace(GETREGS, tid, ctypes.addressof(buffer))
        named = dict(zip(REGISTERS, buffer, strict=False))
        return {number: named[name] for name, number in DWARF.items()}

    def mappings(self):
        """Executable, file-backed mappings."""
        found = []
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            fields = line.split(None, 5)
            if "x" in fields[1] and int(fields[4]):
                start, end = (int(part, 16) for part in fields[0].split("-"))
                found.append(
                    Mapping(start=start, end=end, offset=int(fields[2], 16), inode=int(fields[4]), device=0, path=fields[5])
                )
        return found

    def capture(self, tid, mappings=None):
        """Registers, stack bytes and mappings at this moment."""
        registers = self.registers(tid)
        stack = b""
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            address, left = registers[7], STACK_BYTES
            while left:
                size = min(left, 4096 - address % 4096)
                try:
                    memory.seek(address)
                    piece = memory.read(size)
                except (OSError, OverflowError, ValueError):
                    break
                stack, address, left = stack + piece, address + size, left - size
        return Capture(registers, stack, mappings or self.mappings())

    def gdb(self, tid):
        """(pc, function) of every frame that has a place on the stack, as gdb sees them; the victim is gdb's afterwards."""
        for other in self.tids - {tid}:
            libc.syscall(TGKILL, self.pid, other, signal.SIGSTOP)
            os.waitpid(other, WALL)
            ptrace(DETACH, other)
        ptrace(DETACH, tid, signal.SIGSTOP)
        script = textwrap.dedent(f"""
            import gdb
            gdb.execute("attach {self.pid}")
            for thread in gdb.selected_inferior().threads():
                if thread.ptid[1] == {tid}: thread.switch()
            frame = gdb.newest_frame()
            while frame is not None:
                if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME): print("FRAME", hex(frame.pc()), frame.name())
                frame = frame.older()
            gdb.execute("kill")
        """)
        path = Path(f"/tmp/native-stack-{self.pid}.py")
        path.write_text(script)
        try:
            out = subprocess.run(
                [
                    "gdb",
                    "-nx",
                    "-batch",
                    "-ex",
                    "set debuginfod enabled off",
                    "-ex",
                    "set backtrace past-main on",
                    "-x",
                    str(path),
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            path.unlink()
        frames = [line.split()[1:] for line in out.stdout.splitlines() if line.startswith("FRAME")]
        assert frames, out.stdout + out.stderr
        return [(int(pc, 16), name) for pc, name in frames]


@pytest.fixture
def cgroup():
    if not CGROUP.is_dir():
        yield None
        return
    path = CGROUP / f"native-stack-{os.getpid()}"
    path.mkdir()
    (path / "memory.limit_in_bytes").write_text(str(250 << 20))
    yield path
    for line in (path / "cgroup.procs").read_text().split():
        os.kill(int(line), signal.SIGKILL)
    for _ in range(100):
        try:
            path.rmdir()
            break
        except OSError:
            subprocess.run(["sleep", "0.05"], check=True)


@contextmanager
def victim(command, cgroup, env=None):
    traced = Victim(command, cgroup, env)
    try:
        yield traced
    finally:
        traced.process.kill()
        for tid in sorted(traced.tids, key=lambda tid: tid == traced.pid):  # the leader's end is told last
            try:
                os.waitpid(tid, WALL)
            except ChildProcessError:
                continue
        traced.process.returncode = -9


def compiled(folder, name, source, *options):
    path = folder / name
    code = folder / f"{name}.c"
    code.write_text(textwrap.dedent(source))
    subprocess.run(["gcc", "-w", *options, "-o", str(path), str(code), "-lpthread"], check=True)
    return path


def unwound(capture):
    return unwind(capture.registers, capture.stack, capture.mappings)


def crashed(command, cgroup, *, skip=0, env=None):
    """Our stack and gdb's frames for one crash."""
    with victim(command, cgroup, env) as traced:
        tid = traced.run_to_fault(skip=skip)
        ours = unwound(traced.capture(tid))
        return ours, traced.gdb(tid)


def assert_agrees(ours: NativeStack, judge):
    """The same addresses as gdb, frame by frame, as far as ours goes; all of them where ours says that it is complete."""
    pcs = [frame.address for frame in ours.frames]
    assert pcs == [pc for pc, _ in judge[: len(pcs)]], ours.ended
    if ours.end == "outermost":
        assert len(pcs) == len(judge)


def names(ours):
    return [frame.symbol for frame in ours.frames]


CHAIN = """
    #include <stdlib.h>
    #include <string.h>
    volatile int depth;
    __attribute__((noinline)) int bottom(int *where, int how) {
        if (how == 1) abort();
        if (how == 2) return ((int (*)(void))(long)where)();
        return *where + depth;
    }
    __attribute__((noinline)) int middle(int *where, int how) { int pad[40]; memset(pad, depth, sizeof pad); return bottom(where, how) + pad[depth]; }
    __attribute__((noinline)) int top(int *where, int how) { return middle(where, how) * 3; }
    int main(int count, char **words) { return top(0, count > 1 ? atoi(words[1]) : 0) + 1; }
"""


@pytest.mark.parametrize(("how", "innermost"), [("0", "bottom"), ("1", None), ("2", None)])
def test_c_without_frame_pointers_is_unwound_to_the_start(tmp_path, cgroup, how, innermost):
    """A null read, an abort and a call of address 0 in optimised C without frame pointers give every frame that gdb gives."""
    program = compiled(tmp_path, "chain", CHAIN, "-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
    ours, judge = crashed([program, how], cgroup)
    assert_agrees(ours, judge)
    assert ours.end == "outermost"
    found = [name.split(".")[0] if name else None for name in names(ours)]  # gcc moves the call of abort to bottom.cold
    assert found[found.index("bottom") :][:4] == ["bottom", "middle", "top", "main"]
    if how == "0":
        assert found[0] == innermost
    if how == "2":
        assert ours.frames[0].address == 0
        assert ours.frames[0].module is None


HANDLER = """
    #include <signal.h>
    #include <stdlib.h>
    #include <string.h>
    static char other[65536];
    __attribute__((noinline)) int culprit(int *where) { return *where + 1; }
    static void caught(int number) { signal(number, SIG_DFL); raise(number); other[0]++; }
    int main(int count, char **words) {
        struct sigaction action; memset(&action, 0, sizeof action); action.sa_handler = caught; action.sa_flags = SA_NODEFER;
        if (count > 1) { stack_t stack = { other, 0, sizeof other }; sigaltstack(&stack, 0); action.sa_flags |= SA_ONSTACK; }
        sigaction(SIGSEGV, &action, 0);
        return culprit(0) + 2;
    }
"""


def test_a_signal_handler_is_walked_through_to_what_it_interrupted(tmp_path, cgroup):
    """From a handler that raises again the stack goes on through the kernel's frame to the function that really faulted."""
    program = compiled(tmp_path, "handler", HANDLER, "-O2", "-fomit-frame-pointer")
    ours, judge = crashed([program], cgroup, skip=1)
    assert_agrees(ours, judge)
    assert ours.end == "outermost"
    found = names(ours)
    assert found.index("caught") < found.index("culprit") < found.index("main")
    assert [frame.is_signal for frame in ours.frames].count(True) == 1
    assert ours.frames[found.index("culprit") - 1].is_signal


def test_a_handler_on_another_stack_names_the_fault_and_goes_on_where_that_stack_was_captured_too(tmp_path, cgroup):
    """On an alternate stack the faulting function is named from the signal frame; its callers need the first capture as well."""
    program = compiled(tmp_path, "handler", HANDLER, "-O2", "-fomit-frame-pointer")
    with victim([program, "alternate"], cgroup) as traced:
        first = traced.capture(traced.run_to_fault())
        ptrace(CONT, traced.pid, signal.SIGSEGV)
        os.waitpid(traced.pid, 0)
        second = traced.capture(traced.pid)
        alone = unwound(second)
        both = unwind(second.registers, second.stack, second.mappings, memory=[(first.registers[7], first.stack)])
        judge = traced.gdb(traced.pid)
    assert "culprit" in names(alone)
    assert alone.end == "stack-bytes"
    assert both.end == "outermost"
    assert_agrees(both, judge)


def test_ctypes_null_read_is_unwound_through_the_interpreter(cgroup):
    """string_at(0) in CPython: strlen, named by its caller's call, then _ctypes, the interpreter and _start."""
    script = "import ctypes\ndef f(): ctypes.string_at(0)\ndef g(): f()\ng()"
    ours, judge = crashed(["/usr/bin/python3", "-c", script], cgroup)
    assert_agrees(ours, judge)
    assert ours.end == "outermost"
    assert ours.frames[0].module.rsplit("/", 1)[-1].startswith("libc")
    assert ours.frames[0].called_as == "strlen"
    assert ours.frames[0].place.startswith("strlen in libc")
    assert any("_ctypes" in (frame.module or "") for frame in ours.frames)


@pytest.mark.parametrize("options", [["-fno-plt"], ["-Wl,-z,lazy"], ["-fcf-protection=full", "-Wl,-z,ibtplt"]])
def test_a_function_is_called_by_the_name_that_its_caller_uses(tmp_path, cgroup, options):
    """Through every kind of linkage stub, or none, the callee in libc has the caller's name."""
    source = "#include <string.h>\nint main(int count, char **words) { return strlen(words[count]) + 1; }"
    program = compiled(tmp_path, "calls", source, "-O1", "-fno-builtin", *options)
    ours, judge = crashed([program], cgroup)
    assert_agrees(ours, judge)
    assert ours.frames[0].called_as == "strlen"
    assert ours.frames[1].symbol == "main"


def test_a_program_without_a_search_table_ends_at_its_first_frame(tmp_path, cgroup):
    """Statically linked by gcc there is no .eh_frame_hdr: the faulting function is named, and nothing after it is guessed."""
    ours, judge = crashed([compiled(tmp_path, "chain", CHAIN, "-O2", "-static"), "0"], cgroup)
    assert_agrees(ours, judge)
    assert names(ours) == ["bottom"]
    assert ours.end == "no-table"
    assert "chain" in ours.ended


def test_a_signal_frame_without_a_table_is_known_by_its_code(tmp_path, cgroup):
    """A C library that describes its signal return in no table (musl) is walked through by the code that stands there."""
    program = compiled(
        tmp_path,
        "restorer",
        """
        #include <signal.h>
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        void __restore_rt(void);
        __asm__(".text\\n.globl __restore_rt\\n.type __restore_rt,@function\\n nop\\n__restore_rt: mov $15,%rax\\n syscall\\n.size __restore_rt,.-__restore_rt");
        volatile int sink;
        __attribute__((noinline)) int culprit(int *where) { return *where + 1; }
        static void caught(int number) { abort(); }
        int main(void) {
            struct { void (*handler)(int); unsigned long flags; void (*restorer)(void); unsigned long mask; } action
                = { caught, 0x04000000, __restore_rt, 0 };
            syscall(SYS_rt_sigaction, SIGSEGV, &action, 0, 8);
            return culprit(0) + 2;
        }
        """,
        "-fno-omit-frame-pointer",  # so that rbp, out of the signal frame, is what the walk goes on with
        "-O1",
    )
    ours, judge = crashed([program], cgroup, skip=1)
    assert_agrees(ours, judge)
    assert ours.end == "outermost"
    found = names(ours)
    assert found[found.index("__restore_rt") + 1 :][:2] == ["culprit", "main"]


def test_faulthandler_does_not_hide_the_fault(cgroup):
    """After faulthandler has printed and raised the signal again, the frame of the first fault is still on the stack."""
    script = "import ctypes, faulthandler\nfaulthandler.enable()\nctypes.string_at(0)"
    ours, judge = crashed(["/usr/bin/python3", "-c", script], cgroup, skip=1)
    assert_agrees(ours, judge)
    signal_at = [frame.is_signal for frame in ours.frames].index(True)
    fault = ours.frames[signal_at + 1]
    assert fault.module.rsplit("/", 1)[-1].startswith("libc")


def test_a_library_in_a_thread_is_unwound_to_the_start_of_the_thread(tmp_path, cgroup):
    """A fault in a C library that a Python thread called ends at the thread's own outermost frame."""
    library = compiled(
        tmp_path,
        "boom.so",
        """
        __attribute__((noinline)) static int inner(int *where) { return *where + 1; }
        int boom(void) { return inner(0) + 1; }
        """,
        "-O2",
        "-shared",
        "-fPIC",
        "-fomit-frame-pointer",
    )
    script = f"import ctypes, threading\nt = threading.Thread(target=ctypes.CDLL({str(library)!r}).boom)\nt.start(); t.join()"
    ours, judge = crashed(["/usr/bin/python3", "-c", script], cgroup)
    assert_agrees(ours, judge)
    assert ours.end == "outermost"
    assert ours.frames[0].module == str(library)
    assert "boom" in names(ours)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_node_abort_ends_honestly_where_the_jit_begins(cgroup):
    """process.abort() gives node's own C++ frames as gdb has them, then says why it stops, and guesses nothing."""
    with victim([shutil.which("node"), "-e", "process.abort()"], cgroup) as traced:
        tid = traced.run_to_fault()
        ours = unwound(traced.capture(tid))
    found = names(ours)
    assert any(name and "Abort" in name for name in found)
    assert ours.end in {"no-table", "no-file"}
    assert ours.ended


def test_every_instruction_of_a_run_can_be_unwound_to_the_start(tmp_path, cgroup):
    """Stopped after any instruction, in prologues, linkage stubs and the resolver, the walk reaches _start through main."""
    program = compiled(
        tmp_path,
        "steps",
        """
        #include <string.h>
        #include <stdlib.h>
        volatile char sink[64];
        __attribute__((noinline)) int work(const char *words) { char copy[64]; strcpy(copy, words); return strlen(copy) + atoi("42"); }
        int main(void) { return work("hello"); }
        """,
        "-O1",
        "-fno-builtin",
        "-fomit-frame-pointer",
        "-no-pie",
        "-Wl,-z,lazy",
    )
    symbols = dict(reversed(line.split()[::2]) for line in nm(program))
    main = int(symbols["main"], 16)
    with victim([program], cgroup) as traced:
        run_to(traced, main)
        mappings = traced.mappings()
        back = int.from_bytes(traced.capture(traced.pid).stack[:8], "little")
        walked = 0
        while walked < 1200:
            capture = traced.capture(traced.pid, mappings)
            if capture.registers[16] == back:
                break
            ours = unwound(capture)
            found = names(ours)
            assert ours.end == "outermost", (hex(capture.registers[16]), ours)
            assert found[-1] == "_start"
            assert "main" in found
            walked += 1
            assert traced.step()
    assert walked > 300


def nm(program):
    out = subprocess.run(["nm", str(program)], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if len(line.split()) == 3]


def run_to(traced, address):
    """Let the victim run to an address, by a breakpoint that is taken away again."""
    with Path(f"/proc/{traced.pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(address)
        kept = memory.read(1)
        memory.seek(address)
        memory.write(b"\xcc")
        ptrace(CONT, traced.pid)
        os.waitpid(traced.pid, 0)
        memory.seek(address)
        memory.write(kept)
    buffer = (ctypes.c_uint64 * 27)()
    ptrace(GETREGS, traced.pid, ctypes.addressof(buffer))
    buffer[REGISTERS.index("rip")] = address
    ptrace(13, traced.pid, ctypes.addressof(buffer))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-v"]))
