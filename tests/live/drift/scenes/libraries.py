"""Libraries of no package: replaced, overwritten, removed, and changed inside."""

from scenario import Ending

from drift.case import BUS, FAILED, NOT_FOUND, SEGV, WELL, Script, scene
from drift.places import Place


@scene("drift/segfault", SEGV, flow="running", names=("libfoo.so.1",), recorded=True)
def replaced_by_rename(place: Place) -> Script:
    """A library and the parts that it loads later are replaced by rename: the old one, still mapped, crashes on the new parts."""
    place.library("-DPARTS")
    place.library("-DIS_PARTS", name="libfoo-parts.so")
    yield place.program("-DWORK=foo_parts")
    place.library("-DPARTS", "-DTABLE=2")
    place.library("-DIS_PARTS", "-DTABLE=2", name="libfoo-parts.so")


@scene("drift/segfault", BUS, flow="running", names=("libfoo.so.1",))
def overwritten_in_place(place: Place) -> Script:
    """A library is written over in place by a shorter one: its code is no longer behind the mapping."""
    place.library("-DFAR")
    yield place.program("-DWORK=foo_far")
    place.library("-DPATCHED", name="libfoo.new")
    (place.outside / "libfoo.so.1").write_bytes((place.outside / "libfoo.new").read_bytes())


@scene("drift/segfault", SEGV, flow="running", names=("libfoo.so.1",), stderr="pipe")
def overwritten_by_other_code(place: Place) -> Script:
    """A library is written over in place by another build: the running process jumps into the middle of other code."""
    place.library()
    yield place.program("-Wl,-z,now")
    place.library("-DMOVED", name="libfoo.new")
    (place.outside / "libfoo.so.1").write_bytes((place.outside / "libfoo.new").read_bytes())


@scene(
    "drift/missing-library",
    NOT_FOUND,
    names=("libfoo.so.1",),
    complains="libfoo.so.1: cannot open shared object file",
    recorded=True,
)
def soname_removed(place: Place) -> Script:
    """The next version of a library has another soname, and the old file is gone."""
    place.library()
    yield place.program()
    (place.outside / "libfoo.so.1").unlink()
    place.library(name="libfoo.so.2")


@scene("drift/missing-library", NOT_FOUND, flow="again", names=("libfoo.so.1",), complains="cannot open shared")
def soname_removed_while_nobody_watched(place: Place) -> Script:
    """The same with agentscope started anew in between: what it kept of the healthy run is in its state directory."""
    yield from soname_removed(place)


@scene("drift/missing-library", NOT_FOUND, flow="again", names=("libfoo.so.1",), complains="cannot open shared", stderr="pipe")
def soname_removed_and_words_unheard(place: Place) -> Script:
    """The same, and what the loader wrote into a pipe was read by nobody yet: the files themselves tell what is missing."""
    yield from soname_removed(place)


@scene(
    "drift/symbol",
    NOT_FOUND,
    names=("foo_old", "libfoo.so.1"),
    complains="undefined symbol: foo_old",
    stderr="pipe",
    recorded=True,
)
def symbol_removed(place: Place) -> Script:
    """A library no longer has a function that the agent needs to start."""
    place.library()
    yield place.program("-DWORK=foo_old", "-Wl,-z,now")
    place.library("-DNO_OLD")


@scene("drift/symbol", NOT_FOUND, names=("foo_old", "libfoo.so.1"), complains="undefined symbol: foo_old")
def symbol_removed_found_late(place: Place) -> Script:
    """The same, bound lazily: it starts, and ends at the first call."""
    place.library()
    yield place.program("-DWORK=foo_old", "-Wl,-z,lazy")
    place.library("-DNO_OLD")


@scene("drift/abi", FAILED, names=("FOO_1.1", "libfoo.so.1"), complains="version `FOO_1.1' not found", recorded=True)
def symbol_version_missing(place: Place) -> Script:
    """A library is taken back to a version from before the symbol version that the agent was linked with."""
    place.write("older.map", "FOO_1.0 { global: foo_add; foo_old; local: *; };\n")
    place.write("newer.map", "FOO_1.0 { global: foo_add; foo_old; local: *; };\nFOO_1.1 { global: foo_new; } FOO_1.0;\n")
    place.library("-DNEWER", "-Wl,--version-script=@/newer.map")
    yield place.program("-DWORK=foo_new")
    place.library("-Wl,--version-script=@/older.map")


def libc_of_the_future(place: Place, *flags: str) -> None:
    """A C library newer than ours, to be linked with."""
    place.write("stub.map", "GLIBC_2.99 { global: *; };\n")
    place.compiled(
        "stub/libc.so.6",
        "libc-stub.c",
        "-shared",
        "-fPIC",
        "-nostdlib",
        "-Wl,-soname,libc.so.6",
        "-Wl,--version-script=@/stub.map",
        *flags,
    )


def needs_glibc_of_the_future(place: Place) -> None:
    """Build libfoo as on a system with a C library newer than ours."""
    libc_of_the_future(place)
    place.library("-DFUTURE", "@/stub/libc.so.6")


@scene(
    "drift/libc-version", FAILED, names=("GLIBC_2.99", "libfoo.so.1"), complains="version `GLIBC_2.99' not found", recorded=True
)
def libc_too_old(place: Place) -> Script:
    """A library is replaced by one that was built on a newer system."""
    place.library()
    yield place.program()
    needs_glibc_of_the_future(place)


@scene("drift/segfault", SEGV, names=("libfoo.so.1",), recorded=True)
def structure_changed(place: Place) -> Script:
    """A library keeps its soname, but not its structures."""
    place.library()
    yield place.program("-DEAGER")
    place.library("-DPOINTER")


@scene("drift/segfault", SEGV, names=("libfoo.so.1",), stderr="pipe")
def structure_changed_under_python(place: Place) -> Script:
    """The same under a Python module that is built on the library."""
    place.library()
    place.python_module()
    yield place.script("import extension", "extension.add()")
    place.library("-DPOINTER")


@scene("drift/symbol", FAILED, names=("foo_old", "libfoo.so.1"), complains="undefined symbol: foo_old")
def symbol_removed_under_python(place: Place) -> Script:
    """A Python module cannot be imported, because the library below it lost a function."""
    place.library()
    place.python_module("-DWORK=foo_old")
    yield place.script("import extension", "extension.add()")
    place.library("-DNO_OLD")


@scene("drift/libc-version", FAILED, names=("GLIBC_2.99",), complains="version `GLIBC_2.99' not found", stderr="pipe")
def libc_too_old_under_python(place: Place) -> Script:
    """A Python module cannot be imported, because the library below it was built on a newer system."""
    place.library()
    place.python_module()
    yield place.script("import extension", "extension.add()")
    needs_glibc_of_the_future(place)


@scene("drift/symbol", FAILED, flow="running", names=("foo_new",), complains="undefined symbol: foo_new")
def module_loaded_after_a_partial_upgrade(place: Place) -> Script:
    """A module that is loaded late was built for the library's next version, but the process has the one before in memory."""
    place.library()
    place.python_module("-DWORK=foo_old")
    yield place.script(
        "import ctypes; ctypes.CDLL(__file__.rpartition('/')[0] + '/libfoo.so.1')", "import extension\nextension.add()"
    )
    place.library("-DNEWER")
    place.python_module("-DWORK=foo_new")


# --- innocent -----------------------------------------------------------------------------------------------------------------


@scene("crash/segfault", SEGV)
def own_crash_with_no_change(place: Place) -> Script:
    """Nothing changed, and the agent crashes: drift is ruled out, and what was compared is counted."""
    place.library()
    yield place.program("-DOWN")


@scene("crash/segfault", SEGV, stderr="pipe", recorded=True)
def own_crash_after_a_library_was_patched(place: Place) -> Script:
    """A library that it has mapped was replaced by a compatible one; the crash is in the agent's own code."""
    place.library()
    yield place.program("-DOWN")
    place.library("-DPATCHED")


@scene("crash/segfault", SEGV, flow="running")
def own_crash_while_a_library_is_stale(place: Place) -> Script:
    """The same in the run that has the old one mapped: a deleted mapping alone proves nothing."""
    place.library()
    yield place.program("-DOWN")
    place.library("-DPATCHED")


@scene("none", WELL)
def patched_and_works(place: Place) -> Script:
    """A library was replaced by a compatible one, and the agent goes on working."""
    place.library()
    yield place.program("-DEAGER")
    place.library("-DPATCHED", "-DNEWER")


@scene("none", WELL, flow="running", stderr="pipe")
def overwritten_by_the_same_and_works(place: Place) -> Script:
    """A library is written over in place by its own bytes."""
    place.library()
    yield place.program()
    file = place.outside / "libfoo.so.1"
    content = file.read_bytes()
    with file.open("r+b") as opened:
        opened.write(content)


@scene("crash/bus", BUS, flow="running")
def own_file_cut_after_a_library_was_patched(place: Place) -> Script:
    """SIGBUS, and a library was replaced: but the page that is missing is one of the agent's own file."""
    place.library()
    yield place.program("-DOWN_FILE")
    place.library("-DPATCHED")


@scene("exit/status", Ending(code=3), complains="cannot open shared object file", recorded=True)
def words_of_the_loader_from_a_log(place: Place) -> Script:
    """It leaves with a status of its own after it has written what a loader once said; a library was replaced, and nothing is missing."""
    place.library()
    words = r"""2026-01-02 03:04:05 tool said: ./old: error while loading shared libraries: libgone.so.9: cannot open shared object file\n"""
    place.write("words.h", f'#define LINES "{words}"\n')
    yield place.program("-include", "@/words.h")
    place.library("-DPATCHED")


@scene("exit/status", NOT_FOUND, flow="first", complains="libfoo.so.1: cannot open shared", proof=("first run",))
def first_run_with_a_library_missing(place: Place) -> Script:
    """It never ran before: nobody can know that anything changed, and that is said."""
    place.library()
    yield place.program()
    (place.outside / "libfoo.so.1").unlink()


@scene("crash/segfault", SEGV, flow="first", proof=("first run",))
def first_run_crashes_in_a_library(place: Place) -> Script:
    """It crashes in a library at its first run ever, whose structures it was not built for."""
    place.library()
    yield place.program("-DEAGER")
    place.library("-DPOINTER")


@scene("exception/uncaught", FAILED, complains="version `GLIBC_2.99' not found", proof=("drift not shown",), recorded=True)
def own_program_built_for_a_newer_libc(place: Place) -> Script:
    """The agent's owner puts a build of it there that a newer system made; the library that was patched beside it is fine."""
    place.library()
    yield place.program()
    place.library("-DPATCHED")
    libc_of_the_future(place, "-DWHOLE", "-w")
    place.program("-DWORK=future", "@/stub/libc.so.6")


@scene("exit/status", NOT_FOUND, complains="undefined symbol: foo_new", stderr="pipe", recorded=True)
def own_program_that_wants_what_no_library_had(place: Place) -> Script:
    """The agent's owner builds it anew with a call of a function that its library never had; the library is the same."""
    place.library()
    yield place.program("-Wl,-z,now")
    place.library("-DNEWER", name="other/libfoo.so.1", soname="libfoo.so.1")
    place.program("-DWORK=foo_new", "-Wl,-z,now", library="other/libfoo.so.1")


@scene("exception/uncaught", FAILED, complains="version `FOO_1.1' not found", recorded=True)
def own_program_built_for_a_newer_library(place: Place) -> Script:
    """The agent's owner builds it anew against a version of the library that was never installed here."""
    place.write("older.map", "FOO_1.0 { global: foo_add; foo_old; local: *; };\n")
    place.write("newer.map", "FOO_1.0 { global: foo_add; foo_old; local: *; };\nFOO_1.1 { global: foo_new; } FOO_1.0;\n")
    place.library("-Wl,--version-script=@/older.map")
    yield place.program()
    place.library("-DNEWER", "-Wl,--version-script=@/newer.map", name="other/libfoo.so.1", soname="libfoo.so.1")
    place.program("-DWORK=foo_new", library="other/libfoo.so.1")
