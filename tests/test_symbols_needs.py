"""What programs need of libraries, on files made by the compiler, and on this machine's own."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agentscope.symbols.elf import ElfProblem
from agentscope.symbols.libraries import read_cache
from agentscope.symbols.needs import Needs, needs_of

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def build(target, source, *flags):
    """A shared library or a program from one line of C."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["cc", "-x", "c", "-", "-x", "none", "-o", str(target), "-fPIC", *flags], input=source.encode(), check=True, timeout=60
    )
    return target


@pytest.fixture
def lab(tmp_path):
    """A program that needs libfoo.so.1, which needs libbar.so.1, found by $ORIGIN; version scripts give FOO_1.0 and FOO_2.0."""
    (tmp_path / "map").write_text("FOO_1.0 { global: foo; };\nFOO_2.0 { global: foo_new; } FOO_1.0;\n")
    libs = tmp_path / "lib"
    build(libs / "libbar.so.1", "int bar(void) { return 1; }", "-shared", "-Wl,-soname,libbar.so.1")
    foo(
        tmp_path,
        "int bar(void); int foo(void) { return bar(); } int foo_new(void) { return 2; }",
        "FOO_1.0 { global: foo; };\nFOO_2.0 { global: foo_new; } FOO_1.0;\n",
    )
    build(tmp_path / "prog", "int foo(void); int foo_new(void); int main(void) { return foo() + foo_new(); }",
          str(libs / "libfoo.so.1"), f"-Wl,-rpath-link,{libs}", "-Wl,-rpath,$ORIGIN/lib", "-Wl,--enable-new-dtags")  # fmt: skip
    return tmp_path


def foo(lab, source, versions):
    """Another build of libfoo.so.1."""
    (lab / "map").write_text(versions)
    libs = lab / "lib"
    (libs / "libfoo.so.1").unlink(missing_ok=True)
    build(libs / "libfoo.so.1", source, "-shared", "-Wl,-soname,libfoo.so.1", f"-Wl,--version-script={lab / 'map'}",
          str(libs / "libbar.so.1"), "-Wl,-rpath,$ORIGIN")  # fmt: skip


def unmet(lab, **more):
    """(kind, library, symbol, version) of everything that the program lacks."""
    needs = needs_of(str(lab / "prog"), **more)
    assert isinstance(needs, Needs)
    assert needs.limited is None
    return [(each.kind, (each.library or "").rpartition("/")[2], each.symbol, each.version) for each in needs.unmet]


def starts(lab):
    """Whether the real loader starts the program with every symbol bound at once."""
    return subprocess.run([str(lab / "prog")], env={"LD_BIND_NOW": "1"}, capture_output=True, timeout=30, check=False)


def test_a_program_that_starts_lacks_nothing(lab):
    """Everything is found as the loader finds it: RUNPATH with $ORIGIN, the library's own too."""
    assert unmet(lab) == []
    assert starts(lab).returncode == 3


def test_a_library_that_is_gone_is_named_with_who_needs_it(lab):
    """It is libfoo that needs libbar, not the program; symbols that nobody can judge any more are not listed beside it."""
    (lab / "lib/libbar.so.1").unlink()
    assert unmet(lab) == [("missing-library", "libbar.so.1", None, None)]
    (needs,) = needs_of(str(lab / "prog")).unmet
    assert needs.needed_by == str(lab / "lib/libfoo.so.1")
    assert needs.says() == "libfoo.so.1 needs libbar.so.1, which is not there"
    assert starts(lab).returncode == 127


def test_a_symbol_that_is_gone_is_named_with_its_library(lab):
    """The version is still there, one function of it is not: the library that no longer has it is told."""
    foo(
        lab,
        "int bar(void); int foo(void) { return bar(); } int other(void) { return 2; }",
        "FOO_1.0 { global: foo; };\nFOO_2.0 { global: other; } FOO_1.0;\n",
    )
    assert unmet(lab) == [("missing-symbol", "libfoo.so.1", "foo_new", "FOO_2.0")]
    assert needs_of(str(lab / "prog")).unmet[0].found_at == str(lab / "lib/libfoo.so.1")
    assert b"foo_new" in starts(lab).stderr


def test_a_version_that_is_gone_is_named_once(lab):
    """The loader refuses by the version; its symbols are not listed one by one."""
    foo(lab, "int bar(void); int foo(void) { return bar(); }", "FOO_1.0 { global: foo; };\n")
    assert unmet(lab) == [("missing-version", "libfoo.so.1", None, "FOO_2.0")]
    assert b"version `FOO_2.0' not found" in starts(lab).stderr


def test_a_library_without_versions_is_taken_as_it_is(lab):
    """The loader lets one pass that has version indexes and no versions; a symbol that is missing is missing all the same."""
    plain = ("-shared", "-Wl,-soname,libfoo.so.1")
    call = 'int puts(const char *); int foo(void) { puts(""); return 1; }'
    build(lab / "lib/libfoo.so.1", f"{call} int foo_new(void) {{ return 2; }}", *plain)
    assert unmet(lab) == []
    assert starts(lab).returncode == 3
    build(lab / "lib/libfoo.so.1", call, *plain)
    assert unmet(lab) == [("missing-symbol", "libfoo.so.1", "foo_new", "FOO_2.0")]
    assert starts(lab).returncode == 127


def test_a_library_that_knows_no_versions_at_all_stops_the_loader(lab):
    """It has no indexes either, which the loader takes for an inconsistency: every version is missing."""
    build(lab / "lib/libfoo.so.1", "int foo(void) { return 1; } int foo_new(void) { return 2; }", "-shared", "-nostdlib")
    assert {each[3] for each in unmet(lab)} == {"FOO_1.0", "FOO_2.0"}
    assert b"Assertion" in starts(lab).stderr


def test_an_unversioned_symbol_that_nobody_defines_is_missing(lab):
    """Without a version nobody says whose it was."""
    build(lab / "lib/libbar.so.1", "int rab(void) { return 1; }", "-shared", "-Wl,-soname,libbar.so.1")
    assert unmet(lab) == [("missing-symbol", "", "bar", None)]


def test_weak_symbols_may_be_absent(lab):
    """What a program asks for weakly it can do without."""
    build(lab / "prog", "__attribute__((weak)) int maybe(void); int main(void) { return maybe ? maybe() : 0; }")
    assert unmet(lab) == []


def test_a_module_is_judged_within_the_program_that_loads_it(lab):
    """An extension module takes symbols of its host: alone it lacks them, within it does not."""
    build(lab / "host", "int host_symbol(void) { return 1; } int main(void) { return 0; }", "-rdynamic")
    build(lab / "ext.so", "int host_symbol(void); int run(void) { return host_symbol(); }", "-shared")
    alone = needs_of(str(lab / "ext.so"))
    assert [each.symbol for each in alone.unmet] == ["host_symbol"]
    assert needs_of(str(lab / "ext.so"), within=str(lab / "host")).unmet == ()


def test_the_loader_itself_can_be_gone(lab):
    """A program built for another distribution: the kernel says only "No such file"."""
    build(lab / "prog", "int main(void) { return 0; }", "-Wl,--dynamic-linker=/lib64/ld-nowhere.so.1")
    assert unmet(lab)[0][:2] == ("missing-library", "ld-nowhere.so.1")


def test_the_search_follows_the_environment_and_stays_in_the_root(lab, tmp_path_factory):
    """LD_LIBRARY_PATH counts; in a root of its own only that root's files do, however links lead out."""
    inner = tmp_path_factory.mktemp("root")
    (inner / "opt").mkdir()
    shutil.copy(lab / "prog", inner / "opt/prog")
    (inner / "opt/lib").symlink_to(lab / "lib")
    needs = needs_of("/opt/prog", root=str(inner))
    assert {each.library for each in needs.unmet} >= {"libfoo.so.1"}
    assert needs.checked == ("/opt/prog",)
    shutil.copytree(lab / "lib", inner / "elsewhere")
    needs = needs_of("/opt/prog", root=str(inner), library_path=("/elsewhere",))
    assert "libfoo.so.1" not in {each.library for each in needs.unmet}
    assert "/elsewhere/libfoo.so.1" in needs.checked


def test_a_library_of_another_machine_is_passed_over(lab):
    """As the loader does: a file for another processor under the right name is not the one."""
    wrong = lab / "other"
    wrong.mkdir()
    raw = bytearray((lab / "lib/libfoo.so.1").read_bytes())
    raw[18:20] = struct.pack("<H", 243)  # EM_RISCV
    (wrong / "libfoo.so.1").write_bytes(raw)
    assert unmet(lab, library_path=(str(wrong),)) == []


def test_what_is_no_program_is_a_problem_and_no_error(tmp_path):
    """A script, a FIFO and a name that is not there each say what they are."""
    (tmp_path / "script").write_text("#!/bin/sh\n")
    os.mkfifo(tmp_path / "fifo")
    kinds = [needs_of(str(tmp_path / name)) for name in ("script", "fifo", "nothing")]
    assert [problem.kind for problem in kinds if isinstance(problem, ElfProblem)] == ["not-elf", "not-a-file", "missing"]


def test_names_are_found_in_the_loaders_cache():
    """The cache of this machine leads to files that exist; a forged one gives nothing."""
    path = Path("/etc/ld.so.cache")
    if path.exists():
        cache = read_cache(path.read_bytes())
        assert len(cache) > 10
        assert all(Path(found[0]).name.startswith(name.split(".so")[0]) for name, found in list(cache.items())[:200])
    assert read_cache(b"glibc-ld.so.cache1.1" + b"\xff" * 40) == {}
    assert read_cache(b"") == {}


def test_this_machine_lacks_nothing():
    """The interpreter that runs this test and its extension modules have all that they need: they are loaded right now."""
    interpreter = os.path.realpath(sys.executable)
    assert needs_of(interpreter).unmet == ()
    import _decimal
    import _ssl

    for module in (_decimal, _ssl):
        needs = needs_of(module.__file__, within=interpreter)
        assert needs.unmet == ()
        assert len(needs.checked) > 3
