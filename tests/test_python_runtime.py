"""Finding Python in ELF files and reading its line tables: right on real ones, quiet on garbage."""

import dis
import os
import subprocess
import sys
import time
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.sources.python_runtime import PythonFinder
from agentscope.symbols import cpython
from agentscope.symbols.cpython import Elf, NotElf, runtime_of
from agentscope.symbols.linetable import line_at


def all_codes(code: CodeType) -> list[CodeType]:
    """A code object and all inside it."""
    return [code, *(inner for constant in code.co_consts if isinstance(constant, CodeType) for inner in all_codes(constant))]


@pytest.mark.parametrize("module", [os.__file__, cpython.__file__, dis.__file__, __file__])
def test_lines_are_those_of_the_interpreter(module: str) -> None:
    """Every instruction of real modules has the line that the interpreter itself gives."""
    for code in all_codes(compile(Path(module).read_text(), module, "exec")):
        for index, (line, *_) in enumerate(code.co_positions()):
            assert line_at(code.co_linetable, code.co_firstlineno, index * 2) == line


def test_line_beyond_the_table_is_none() -> None:
    """A table that was cut gives no line for what lies behind the cut, and the same lines before it."""
    code = all_codes_of_this_file()[0]
    whole = code.co_linetable
    last = len(code.co_code) - 2
    assert line_at(whole[:8], code.co_firstlineno, last) is None
    assert line_at(whole, code.co_firstlineno, last + 2) is None
    assert line_at(whole, code.co_firstlineno, -2) == code.co_firstlineno


def all_codes_of_this_file() -> list[CodeType]:
    """Code objects to cut up."""
    return all_codes(compile(Path(__file__).read_text(), __file__, "exec"))


@given(st.binary(max_size=600), st.integers(-10, 5000))
def test_garbage_line_table_is_no_error(table: bytes, instruction: int) -> None:
    """Whatever a process has in that memory, the answer is a number or none."""
    line = line_at(table, 1, instruction)
    assert line is None or isinstance(line, int)


def test_python_is_found_in_this_interpreter() -> None:
    """The finder knows a running interpreter, by its pid and for others of the same executable."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 5
        while "python" not in Path(f"/proc/{process.pid}/comm").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        found = PythonFinder().look(process.pid)
        assert found is not None
        about = Path(f"/proc/{process.pid}/exe").stat()
        assert found.exe_key == about.st_ino.to_bytes(8, "little") + about.st_size.to_bytes(8, "little")
    finally:
        process.communicate(b"\n")


def test_other_programs_are_left_alone() -> None:
    """A program without Python is not known, nor is one that is gone."""
    process = subprocess.Popen(["/bin/sleep", "10"])
    try:
        assert PythonFinder().look(process.pid) is None
    finally:
        process.kill()
        process.wait()
    assert PythonFinder().look(process.pid) is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 4095), st.binary(min_size=1, max_size=16))
def test_broken_elf_is_no_error(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes) -> None:
    """A real interpreter with bytes changed in its headers is known, unknown or no ELF; nothing else happens."""
    broken = bytearray(real_interpreter())
    broken[at : at + len(junk)] = junk
    path = tmp_path_factory.getbasetemp() / "broken"
    path.write_bytes(broken)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        runtime_of(Elf(descriptor))
    except NotElf:
        pass
    finally:
        os.close(descriptor)


def real_interpreter(cache: list[bytes] = []) -> bytes:  # noqa: B006 - the cache is the point
    """The bytes of the system's interpreter, cut to what the headers need."""
    if not cache:
        cache.append(Path(sys.executable).resolve().read_bytes()[: 1 << 18])
    return cache[0]
