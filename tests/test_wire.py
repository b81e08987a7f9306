"""The C and the Python half of the probe records agree."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from agentscope.sources import wire
from agentscope.sources.decode import frames_of, mappings_of

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "bpf" / "event.h"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Offsets, sizes and numbers of event.h as a C compiler sees them."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    return measured(compiler, wire.LAYOUTS, tmp_path_factory.mktemp("wire"))


def measured(compiler: str, layouts: Iterable[wire.Layout], folder: Path, *options: str) -> dict[str, int]:
    """Offsets, sizes and numbers of event.h as a compiler sees them with these options."""
    numbers = re.findall(r"^\s*((?:RECORD|SPAN|STREAM|DISPOSITION|SENDER)_\w+) =", CONTRACT.read_text(), re.MULTILINE)
    lines = [f'printf("{name} %d\\n", {name});' for name in [*numbers, "WORDS_BYTES", "ABSENT"]]
    for layout in layouts:
        lines.append(f'printf("{layout.name} %zu\\n", sizeof(struct {layout.name}));')
        lines += [
            f'printf("{layout.name}.{member} %zu\\n", offsetof(struct {layout.name}, {member}));'
            for member, _ in layout.members
        ]
    source = folder / "offsets.c"
    text = '#include <stddef.h>\n#include <stdio.h>\n#include "event.h"\nint main(void) {\n%s\nreturn 0; }\n'
    source.write_text(text % "\n".join(lines))
    program = folder / "offsets"
    subprocess.run([compiler, *options, "-I", CONTRACT.parent, source, "-o", program], check=True)
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in answer.splitlines())}


@pytest.mark.parametrize("layout", wire.LAYOUTS, ids=lambda layout: layout.name)
def test_offsets_are_those_of_c(layout: wire.Layout, compiled: dict[str, int]) -> None:
    """Every member of every mirrored struct lies where the C compiler puts it, and nothing is padded."""
    assert {f"{layout.name}.{name}": at for name, at in layout.offsets()} == {
        name: at for name, at in compiled.items() if name.startswith(layout.name + ".")
    }
    assert layout.size == compiled[layout.name]


def test_offsets_are_those_of_c_on_aarch64(tmp_path: Path) -> None:
    """Where Python runs on aarch64, its records have that processor's registers, and lie as C has them there."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    code = (
        "import json, os; own = os.uname(); os.uname = lambda: type(own)((*own[:4], 'aarch64'))\n"
        "from agentscope.sources import wire\n"
        "print(json.dumps({each.name: [each.members, dict(each.offsets()), each.size] for each in wire.LAYOUTS}))"
    )
    said = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    c = measured(compiler, wire.LAYOUTS, tmp_path, "-D__TARGET_ARCH_arm64")
    for name, (_, offsets, size) in said.items():
        assert {f"{name}.{member}": at for member, at in offsets.items()} == {
            place: at for place, at in c.items() if place.startswith(name + ".")
        }
        assert size == c[name]
    assert said["registers_row"][2] == 8 + 33 * 8


def test_no_member_is_left_out(compiled: dict[str, int]) -> None:
    """Every struct of event.h that is sent or shared is mirrored: a new one cannot be forgotten."""
    structs = set(re.findall(r"^struct (\w+) \{", CONTRACT.read_text(), re.MULTILINE))
    assert structs - {layout.name for layout in wire.LAYOUTS} == {"span", "python_text"}


def test_numbers_are_those_of_c(compiled: dict[str, int]) -> None:
    """Kinds, flags and kinds of streams mean the same on both sides."""
    for name, value in compiled.items():
        if name.startswith("RECORD_"):
            assert getattr(wire, name.removeprefix("RECORD_")) == value
        elif name.startswith(("SPAN_", "SENDER_")) or name in {"WORDS_BYTES", "ABSENT"}:
            assert getattr(wire, name) == value
    assert compiled["STREAM_TERMINAL"] == wire.STREAMS.index("pty")
    assert compiled["STREAM_OTHER"] == wire.STREAMS.index("other")
    assert compiled["DISPOSITION_CAUGHT"] == wire.DISPOSITIONS.index("caught")


def test_path_is_read_from_the_leaf() -> None:
    """Names come leaf first; a cut or removed path says so."""
    names = b"python3\0bin\0usr\0"
    assert wire.path_of(names, wire.SPAN_PRESENT | wire.SPAN_COMPLETE) == "/usr/bin/python3"
    assert wire.path_of(names, wire.SPAN_PRESENT) == "…/usr/bin/python3"
    assert wire.path_of(names, wire.SPAN_PRESENT | wire.SPAN_COMPLETE | wire.SPAN_DELETED) == "/usr/bin/python3 (deleted)"
    assert wire.path_of(b"", wire.SPAN_PRESENT | wire.SPAN_COMPLETE) == "/"
    assert wire.path_of(b"", 0) is None


def test_hostile_text_becomes_escapes() -> None:
    """Bytes that are no UTF-8 can still be written as JSON."""
    assert wire.path_of(b"\xff\xfe\0", wire.SPAN_PRESENT | wire.SPAN_COMPLETE) == "/\\xff\\xfe"
    assert wire.argv_of(b"a\xff\0\0b\0") == ("a\\xff", "", "b")


def test_truncated_records_do_not_raise() -> None:
    """A record that promises more than it holds gives what is there."""
    record = wire.MAPPINGS_RECORD.packed.pack(wire.MAPPINGS, 1, 2, 50, 0)
    one = wire.MAPPING.packed.pack(0x1000, 0x2000, 0, 7, 0, 60000, 7) + b"libc.so\0"
    assert [mapping.start for mapping in mappings_of(record + one)] == [0x1000]
    assert frames_of(wire.FRAMES_RECORD.packed.pack(wire.FRAMES, 1, 2, 3, 9)) == ()


@pytest.mark.parametrize(("written", "kept"), [(0, None), (3, b"xyz"), (4096, None)])
def test_tail_is_put_in_order(written: int, kept: bytes | None) -> None:
    """The tail begins with its oldest byte, whether or not the ring has gone round."""
    if written == 4096:
        ring = bytes(range(256)) * 16
        value = wire.TAIL.packed.pack(4096 + 100, 0, ring)
        assert wire.tail_text(value) == (ring[100:] + ring[:100], 0)
    else:
        assert wire.tail_text(wire.TAIL.packed.pack(written, 0, b"xyz")) == (kept and (kept, 0))
