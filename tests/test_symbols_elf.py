"""ELF files of other processes: opened safely, named rightly, and never able to hurt us."""

import ctypes
import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentscope.symbols import elf as elf_module
from agentscope.symbols.cfi import CfiError, Row, find_row
from agentscope.symbols.elf import Elf, ElfProblem, Symbol, open_elf, warm
from agentscope.symbols.image import FunctionIndex, Segment
from agentscope.symbols.linkage import called_symbol
from agentscope.symbols.rooted import open_regular


def mapped_files():
    """Shared libraries and the program of this very process, smallest first."""
    paths = {
        line.split(None, 5)[5].strip()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if " r-xp " in line and "/" in line
    }
    return sorted((Path(path) for path in paths if Path(path).is_file()), key=lambda path: path.stat().st_size)


def file_of(name):
    return next(path for path in mapped_files() if path.name.startswith(name))


def runtime_place(function):
    """(file, address within the file) of a C function of this process, as the dynamic linker knows it."""
    address = ctypes.cast(function, ctypes.c_void_p).value
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(None, 5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if start <= address < end:
            return fields[5], address - start + int(fields[2], 16)
    raise AssertionError(hex(address))


@pytest.fixture(autouse=True)
def empty_cache():
    """Every test starts knowing no file."""
    elf_module.cache.clear()


@pytest.mark.parametrize("name", ["getenv", "qsort", "atoi", "fopen"])
def test_a_function_is_found_where_the_dynamic_linker_put_it(name):
    """The address that dlsym gives has its name here, also some bytes into the function."""
    path, offset = runtime_place(getattr(ctypes.CDLL(None), name))
    with open_elf(path) as elf:
        address = elf.address_of(offset)
        here, later = elf.symbol_at(address), elf.symbol_at(address + 3)
    assert here.offset == 0
    assert later.offset == 3
    assert name in here.name
    assert str(later) == f"{here.name}+0x3"


def test_an_address_between_functions_has_no_name():
    """Nearest is not enough: an address outside of every function's size gets no name rather than a wrong one."""
    with open_elf(str(file_of("libc"))) as elf:
        assert elf.symbol_at(0) is None
        assert elf.symbol_at(1 << 50) is None


def test_identity_is_read_from_the_file():
    """Build id and soname are those that readelf shows: forty hexadecimal digits or so, and the name others link to."""
    with open_elf(str(file_of("libc"))) as elf:
        assert elf.image.soname.startswith("libc")
        assert len(bytes.fromhex(elf.image.build_id)) >= 8


def test_a_replaced_file_is_refused():
    """A file with another inode than was mapped gives no names: they would be those of another build."""
    path = str(file_of("libc"))
    problem = open_elf(path, inode=Path(path).stat().st_ino + 1)
    assert isinstance(problem, ElfProblem)
    assert problem.kind == "replaced"
    assert open_elf("/nowhere/lib.so (deleted)").kind == "replaced"


def test_what_is_no_file_is_never_opened(tmp_path):
    """A FIFO, a device, a folder, a link and a missing name each answer with what they are, at once."""
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("/proc/self/exe")
    started = time.monotonic()
    kinds = [open_elf(str(path)).kind for path in (fifo, "/dev/zero", tmp_path, link, tmp_path / "no")]
    assert kinds == ["not-a-file", "not-a-file", "not-a-file", "replaced", "missing"]
    assert open_elf("a\0b").kind == "not-a-file"
    assert open_elf("\udcff\ud800").kind == "not-a-file"
    assert time.monotonic() - started < 5


def test_a_root_cannot_be_left(tmp_path):
    """Absolute links and dots inside another root lead to that root's files, never to ours."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "secret").write_bytes(b"inside")
    (tmp_path / "way").symlink_to("/lib")
    for path in ("/way/secret", "/../../lib/secret", "/way/../../lib/secret"):
        descriptor = open_regular(path, root=str(tmp_path), limit_bytes=100)
        assert os.read(descriptor, 10) == b"inside"
        os.close(descriptor)
    (tmp_path / "out").symlink_to("/etc")
    with pytest.raises(FileNotFoundError):
        open_regular("/out/passwd", root=str(tmp_path), limit_bytes=1 << 20)


def test_a_file_above_its_limit_is_refused(tmp_path):
    """Size is checked before anything is read."""
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="large"):
        open_regular(str(tmp_path / "big"), limit_bytes=10)


def test_other_formats_are_named_as_such(tmp_path):
    """A script, an empty file and a 32-bit file are no ELF-64 files, and a cut header is a malformed one."""
    real = mapped_files()[0].read_bytes()
    kinds = []
    for content in (b"#!/bin/sh\n", b"", b"\x7fELF\x01\x01" + bytes(60), real[:40]):
        path = tmp_path / "file"
        path.write_bytes(content)
        kinds.append(open_elf(str(path)).kind)
    assert kinds == ["not-elf", "not-elf", "not-elf", "malformed"]


def test_no_descriptor_stays_open():
    """Asking leaves nothing open: an open file would keep a container's file system mounted."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in mapped_files()[:8]:
        warm(str(path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_warmed_file_answers_from_memory():
    """The second question about a file is answered without reading its symbols again."""
    path = str(file_of("libc"))
    assert warm(path) is None
    with open_elf(path) as elf:
        index = elf.image.index or elf.image.dynamic_index
        assert index or elf._debug_file().image.index
        assert elf.image is open_and_close(path)


def open_and_close(path):
    with open_elf(path) as elf:
        return elf.image


def test_the_cache_is_bounded():
    """What is remembered stays below its limit, the least recently used file going first."""
    cache = elf_module._Cache(10_000)
    for number in range(5):
        cache.put((number, 0, 0, 0), elf_module.Image())
    assert cache.cost_bytes <= 10_000
    assert cache.get((0, 0, 0, 0)) is None
    assert cache.get((4, 0, 0, 0)) is not None


def test_a_changed_file_is_read_anew(tmp_path):
    """The same path with new content is another file, although its inode may be the same."""
    path = tmp_path / "lib.so"
    path.write_bytes(file_of("libc").read_bytes())
    first = open_and_close(str(path)).soname
    content = bytearray(path.read_bytes())
    place = content.find(first.encode() + b"\0")
    content[place : place + 4] = b"nope"
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert open_and_close(str(path)).soname == "nope" + first[4:]


def test_the_unwind_table_covers_known_functions():
    """At the first instruction of a function the caller's frame is eight bytes up, and the return address is below it."""
    path, offset = runtime_place(ctypes.CDLL(None).qsort)
    with open_elf(path) as elf:
        row = find_row(elf, elf.address_of(offset))
    assert (row.cfa_register, row.cfa_offset) == (7, 8)
    assert row.rules[row.return_register].operand == -8


def every_answer(elf, addresses):
    """Ask everything that a stack walk asks; the kinds of answer that there may be."""
    for address in addresses:
        symbol = elf.symbol_at(address)
        assert symbol is None or isinstance(symbol, Symbol)
        with suppress(CfiError):
            assert isinstance(find_row(elf, address), Row)
        name = called_symbol(elf, address)
        assert name is None or name.isprintable()


@pytest.fixture(scope="module")
def sample():
    """The bytes of the smallest shared library of this process that has an unwind table."""
    for path in mapped_files():
        with open_elf(str(path)) as elf:
            if elf.image.eh_frame_header:
                return path.read_bytes()
    raise AssertionError


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["header", "segments", "sections", "unwind", "any"]),
            st.integers(0, 1 << 30),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1 << 30),
)
def test_forged_files_give_answers_or_problems_and_nothing_else(tmp_path_factory, sample, changes, seed):
    """Whatever bytes of an ELF file are changed, each question is answered in time with a value or a problem."""
    content = bytearray(sample)
    sections = struct.unpack_from("<Q", sample, 40)[0]
    path = tmp_path_factory.getbasetemp() / "forged.so"
    path.write_bytes(sample)
    with open_elf(str(path)) as elf:
        header = elf.image.eh_frame_header
        segments = elf.image.segments
    areas = {
        "header": (0, 64),
        "segments": (64, 56 * 12),
        "sections": (sections, len(sample) - sections),
        "unwind": (header.offset, header.size * 3),
        "any": (0, len(sample)),
    }
    for area, place, replacement in changes:
        start, size = areas[area]
        at = start + place % max(1, size)
        content[at : at + len(replacement)] = replacement
    path.write_bytes(content[: len(sample)])
    os.utime(path, ns=(seed, seed))
    elf_module.cache.clear()
    opened = open_elf(str(path))
    if isinstance(opened, ElfProblem):
        assert opened.says.startswith(str(path))
        return
    with opened:
        code = [segment for segment in segments if segment.size]
        every_answer(opened, [code[seed % len(code)].address + seed % code[seed % len(code)].size, 0, (1 << 64) - 1, seed])


def test_a_header_that_promises_too_much_is_refused_quickly(tmp_path):
    """65535 sections and segments, or tables that point at one endless string, cost no more than the budget."""
    content = bytearray(mapped_files()[0].read_bytes())
    struct.pack_into("<H", content, 56, 0xFFFE)
    path = tmp_path / "forged.so"
    path.write_bytes(content)
    started = time.monotonic()
    assert open_elf(str(path)).kind == "malformed"
    struct.pack_into("<H", content, 56, 2)
    struct.pack_into("<H", content, 60, 0xFFFF)
    path.write_bytes(content)
    with open_elf(str(path)) as elf:
        assert elf.symbol_at(0x1000) is None
    assert time.monotonic() - started < 2


def test_a_huge_symbol_table_is_left_alone(tmp_path):
    """A sparse file that claims gigabytes of symbols costs nothing: it has no names."""
    elf = open_elf(str(file_of("libc")))
    assert isinstance(elf, Elf)
    with elf:
        huge = elf_module.SymbolTable(0, 1 << 40, 0, 1 << 40)
        assert elf._sort(huge) is None


def test_the_best_of_several_names_is_the_public_one(tmp_path):
    """Where one function has several names, the exported one without underscores is given, whatever their order."""
    from array import array

    names = b"\0__internal_name\0_exported\0exported\0"
    file = tmp_path / "names"
    file.write_bytes(names)
    descriptor = os.open(file, os.O_RDONLY)
    with Elf(str(file), None, descriptor, (0, 0, 0, 0), elf_module.Image()) as elf:
        local, public = 0x02 << 32, 0x12 << 32
        heads = array("Q", [local | names.find(b"__int"), public | names.find(b"_exp"), public | names.find(b"\0exported") + 1])
        strings = Segment(0, 0, len(names))
        index = FunctionIndex(array("I", [0, 1, 2]), heads, array("Q", [64] * 3), array("Q", [16] * 3), strings)
        assert index.nearest(63) == -1
        assert elf._look_up(index, 70) == Symbol(name="exported", offset=6)
        assert elf._look_up(index, 80) is None
