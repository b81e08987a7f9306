"""What differs between processors: registers, numbers of system calls, objects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from agentscope.machines import AARCH64, MACHINES, X86_64, machine_of, program_counter, stack_pointer
from agentscope.model import Fault
from agentscope.sources.loading import PROBES
from agentscope.symbols.unwind import unwind

OTHER = "import os; own = os.uname(); os.uname = lambda: type(own)((*own[:4], %r))\n"


def fault(registers):
    """A fault with these registers."""
    return Fault(
        at_ns=1, signal=11, code=1, address=0, pid=1, tid=1, start_ns=1, comm="x", handler="default", registers=registers
    )


def test_registers_tell_of_which_processor_they_are():
    """A recording of aarch64 read on x86-64, and the other way round, has its own instruction and stack pointer."""
    ours = dict(enumerate(range(100, 100 + X86_64.registers)))
    theirs = dict(enumerate(range(100, 100 + AARCH64.registers)))
    assert (machine_of(ours), program_counter(ours), stack_pointer(ours)) == (X86_64, 116, 107)
    assert (machine_of(theirs), program_counter(theirs), stack_pointer(theirs)) == (AARCH64, 132, 131)
    assert (fault(theirs).ip, fault(theirs).sp, fault({}).ip) == (132, 131, 0)


def test_a_call_to_nothing_on_aarch64_has_its_caller_in_the_link_register():
    """On aarch64 a call leaves its return address in x30: a jump to 0 is told with its caller, and nothing is read from the stack."""
    stack = unwind({29: 0, 30: 0x7F0000001000, 31: 0x7FFC00000000, 32: 0}, b"\xff" * 64, ())
    assert [frame.address for frame in stack.frames] == [0, 0x7F0000001000]


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_both_objects_are_built_for_every_processor(machine):
    """Each processor has its folder with both objects; they are BPF programs, and not the same ones."""
    for name in ("core", "examine"):
        path = PROBES / machine / f"{name}.bpf.o"
        if not path.exists():
            pytest.skip("the probes are not built: make probes")
        with path.open("rb") as file:
            assert ELFFile(file)["e_machine"] == "EM_BPF"
        assert path.read_bytes() != (PROBES / next(iter(MACHINES.keys() - {machine})) / f"{name}.bpf.o").read_bytes()


def test_the_processor_chooses_its_objects():
    """On aarch64 those of aarch64 are loaded, numbers of calls are its own, and records have its registers."""
    code = (
        "from agentscope.sources.ebpf import CORE\nfrom agentscope.sources.examiner import EXAMINE\n"
        "from agentscope.sources.wire import REGISTERS\nfrom agentscope.examination.waiting import _FUTEX_NUMBER\n"
        "print(CORE.parent.name, EXAMINE.parent.name, REGISTERS, _FUTEX_NUMBER)"
    )
    for machine, said in (("aarch64", "aarch64 aarch64 33 98"), ("x86_64", "x86_64 x86_64 17 202")):
        out = subprocess.run([sys.executable, "-c", OTHER % machine + code], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == said


def test_another_processor_is_refused_in_words():
    """Where there are no probes for the processor, the error names it and those that there are, and says what still works."""
    code = OTHER % "riscv64" + (
        "from agentscope.sources.loading import _require_this_machine, probes_of\nfrom agentscope.errors import EngineUnavailable\n"
        "try: _require_this_machine(probes_of('riscv64') / 'core.bpf.o')\n"
        "except EngineUnavailable as error: print(error.why, '|', error.try_this)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("they are built for aarch64 and x86_64, and this is riscv64 | --engine auto,")


def test_the_place_of_tid_is_what_the_c_library_says():
    """Where struct pthread keeps the tid is what glibc tells debuggers: _thread_db_pthread_tid of the C library that runs here."""
    maps = Path("/proc/self/maps").read_text()
    path = next((line.split()[-1] for line in maps.splitlines() if line.endswith("/libc.so.6")), None)
    if path is None or os.uname().machine not in MACHINES:
        pytest.skip("no glibc, or a processor that nothing is known of")
    with Path(path).open("rb") as file:
        elf = ELFFile(file)
        symbols = elf.get_section_by_name(".dynsym").get_symbol_by_name("_thread_db_pthread_tid")
        if not symbols:
            pytest.skip("this C library does not tell")
        at = symbols[0]["st_value"]
        offset = next(iter(elf.address_offsets(at)))
        file.seek(offset + 8)
        assert int.from_bytes(file.read(4), "little") == MACHINES[os.uname().machine].tid_in_pthread
