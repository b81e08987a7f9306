"""What the last healthy run looked like: taken from a real process and from made roots, compared, and kept."""

import os
import shutil
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path

import msgspec
import pytest

from agentscope.baseline import (
    Baseline,
    Drifted,
    FileState,
    Image,
    Interpreter,
    LockFile,
    MappedFile,
)
from agentscope.baseline.differing import compared, difference
from agentscope.baseline.facts import ProcessFacts, facts_of
from agentscope.baseline.interpreter import interpreter_of, node_folders_of, sites_of
from agentscope.baseline.joining import explain
from agentscope.baseline.locked import lock_of
from agentscope.baseline.mapped import build_id_of, parsed, stem_of
from agentscope.baseline.store import FILE_LIMIT_BYTES, Baselines, encoded, identity_of
from agentscope.baseline.taking import grown, take, take_again
from agentscope.changes import By, Change, Changes
from agentscope.distributions import Distribution, NodePackage, SystemPackages
from agentscope.errors import CannotWrite
from agentscope.model import Agent
from agentscope.symbols import rooted

SECOND = 1_000_000_000
SLEEPS = "import sys, time\nprint(flush=True)\ntime.sleep(50)"


@pytest.fixture
def victim(tmp_path):
    """A living Python that has mapped a library of its own, lives in its own folder, and ends by itself."""
    library = tmp_path / "libown.so.1.0"
    extension = next(Path(msgspec.__file__).parent.glob("_core*.so"))
    shutil.copy(extension, library)
    (tmp_path / "uv.lock").write_text("version = 1\n")
    code = f"import ctypes\nctypes.CDLL({str(library)!r})\n{SLEEPS}"
    environment = {**os.environ, "OPENAI_API_KEY": "secret", "UNRELATED": "x"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path, env=environment)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_living_process_is_read_without_asking_it(victim, tmp_path):
    """Its libraries with their build ids, its interpreter and venv, its distributions, its lock file; of variables the names only."""
    taken = take(victim.pid)
    assert taken is not None
    own = next(file for file in taken.mapped if file.path == str(tmp_path / "libown.so.1.0"))
    assert not own.stale
    assert own.file.inode == own.inode == (tmp_path / "libown.so.1.0").stat().st_ino
    libc = next(file for file in taken.mapped if "libc.so" in file.path or "libc-" in file.path)
    assert len(libc.file.build_id) >= 16
    assert taken.libc.startswith("glibc 2.") or taken.libc.startswith("musl 1.")
    assert taken.interpreter.version == ".".join(map(str, sys.version_info[:3]))
    assert taken.interpreter.venv == (sys.prefix if sys.prefix != sys.base_prefix else None)
    assert {"msgspec", "psutil"} <= {found.name for found in taken.distributions}
    assert taken.lock.path == str(tmp_path / "uv.lock")
    assert (taken.cwd, taken.own_root, taken.kernel) == (str(tmp_path), True, os.uname().release)
    assert "OPENAI_API_KEY" in taken.environment
    assert "UNRELATED" not in taken.environment
    assert b"secret" not in msgspec.json.encode(taken)
    assert msgspec.json.decode(msgspec.json.encode(taken), type=Baseline) == taken


def test_a_process_that_is_gone_has_no_baseline():
    """It says so by None, and raises nothing."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert take(process.pid) is None
    assert facts_of(process.pid) is None


def test_nothing_changed_means_no_difference(victim):
    """Taken twice from the living and once from its files alone, a run is the same run."""
    first, second = take(victim.pid), take(victim.pid)
    assert difference(first, second) == ()
    again = take_again(first)
    assert difference(first, again) == ()
    libraries, packages = compared(first, again)
    assert libraries == len(first.mapped)
    assert packages == len(first.distributions)


def drifted(before, after, name):
    """The one thing of this name that differs."""
    (found,) = [each for each in difference(before, after) if each.name == name]
    return found


def other_content(path):
    """The file's bytes with another build id."""
    raw = bytearray(path.read_bytes())
    with path.open("rb") as file:
        build = bytes.fromhex(build_id_of(file.fileno()))
    place = raw.find(build)
    raw[place : place + len(build)] = bytes(len(build) - 1) + b"\1"
    return bytes(raw)


def test_a_library_replaced_under_a_running_process_is_armed(victim, tmp_path):
    """Replaced by rename, the process still has the old one: drift that has not gone off yet, told by both builds."""
    before = take(victim.pid)
    library = tmp_path / "libown.so.1.0"
    beside = tmp_path / "new"
    beside.write_bytes(other_content(library))
    beside.replace(library)
    found = drifted(before, take(victim.pid), "libown.so.1.0")
    assert (found.kind, found.how, found.armed) == ("library", "replaced", True)
    assert found.before != found.after
    assert found.changed_ns == library.stat().st_ctime_ns
    victim.kill()
    victim.wait()
    assert not drifted(before, take_again(before), "libown.so.1.0").armed


def test_a_library_written_over_in_place_is_told_apart(victim, tmp_path):
    """The inode is the same, what it holds is not."""
    before = take(victim.pid)
    library = tmp_path / "libown.so.1.0"
    content = other_content(library)
    victim.kill()  # it would die of it
    victim.wait()
    library.write_bytes(content)
    assert drifted(before, take_again(before), "libown.so.1.0").how == "overwritten"


def test_a_reinstallation_of_the_same_build_is_no_drift(victim, tmp_path):
    """Another inode with the same content, other times, one more link: nothing that could break anything."""
    before = take(victim.pid)
    library = tmp_path / "libown.so.1.0"
    shutil.copyfile(library, tmp_path / "new")
    (tmp_path / "new").replace(library)
    os.link(library, tmp_path / "linked")
    assert difference(before, take_again(before)) == ()


def test_a_library_that_is_gone_is_followed_to_its_successor(victim, tmp_path):
    """libown.so.1.0 is gone and libown.so.1 leads to libown.so.1.1: one replacement; without the link a removal."""
    before = take(victim.pid)
    library = tmp_path / "libown.so.1.0"
    content = other_content(library)
    library.unlink()
    assert drifted(before, take_again(before), "libown.so.1.0").how == "removed"
    (tmp_path / "libown.so.1.1").write_bytes(content)
    (tmp_path / "libown.so.1").symlink_to("libown.so.1.1")
    found = drifted(before, take_again(before), "libown.so.1")
    assert (found.how, found.before, found.after) == ("replaced", "libown.so.1.0", "libown.so.1.1")
    assert (found.path, found.former_path) == (str(tmp_path / "libown.so.1.1"), str(library))


def test_what_a_run_loaded_is_not_forgiven_because_it_goes_on(victim, tmp_path):
    """A later mark of the same run adds what it has loaded since, and keeps what the first saw of the rest."""
    first = take(victim.pid)
    library = tmp_path / "libown.so.1.0"
    (tmp_path / "new").write_bytes(other_content(library))
    (tmp_path / "new").replace(library)
    later = take(victim.pid)
    more = msgspec.structs.replace(
        later, distributions=(*later.distributions, Distribution(name="new", version="1", folder="/x"))
    )
    kept = grown(first, more)
    assert [file for file in kept.mapped if file.path == str(library)] == [
        file for file in first.mapped if file.path == str(library)
    ]
    assert "new" in {found.name for found in kept.distributions}
    assert kept.wall_ns == first.wall_ns
    assert drifted(kept, take_again(kept), "libown.so.1.0").how == "replaced"


MAPS = b"""\
55d0-55d1 r--p 00000000 fe:00 100                        /usr/bin/prog
55d1-55d2 r-xp 00001000 fe:00 100                        /usr/bin/prog
7f00-7f01 r-xp 00000000 fe:00 200                        /usr/lib/libfoo.so.1.0 (deleted)
7f01-7f02 r-xp 00001000 fe:00 200                        /usr/lib/libfoo.so.1.0 (deleted)
7f10-7f11 r-xp 00000000 00:01 300                        /memfd:jit (deleted)
7f11-7f12 rwxp 00000000 00:05 301                        /dev/zero (deleted)
7f12-7f13 r-xp 00000000 fe:00 302                        /tmp/ffiABCDEF (deleted)
7f13-7f14 r-xp 00000000 00:00 0
7f14-7f15 r-xp 00000000 fe:00 303                        /opt/odd\\012name.so
7f15-7f16 rw-p 00000000 fe:00 304                        /var/data
7fff-7fff r-xp 00000000 00:00 0                          [vdso]
"""


def test_only_files_of_programs_and_libraries_are_kept_of_the_maps():
    """Each file once; memory, devices, and code that was written at run time and deleted are no files of a package.

    Nor is a name that could not be found again by what can be shown of it.
    """
    found = [(mapping.path, mapping.inode, mapping.deleted) for mapping in parsed(MAPS)]
    assert found == [
        ("/usr/bin/prog", 100, False),
        ("/usr/lib/libfoo.so.1.0", 200, True),
    ]


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("/usr/lib/libfoo.so.1.0", "libfoo.so.1"),
        ("/usr/lib/libssl.so.3", "libssl.so.3"),
        ("/lib/libc-2.31.so", "libc.so"),
        ("/lib/ld-musl-x86_64.so.1", "ld-musl-x86_64.so.1"),
        ("/usr/lib/libicudata.so.72.1", "libicudata.so.72"),
        ("/x/_ssl.cpython-311-x86_64-linux-gnu.so", "_ssl.cpython-311-x86_64-linux-gnu.so"),
        ("/usr/bin/python3.11", "python3.11"),
    ],
)
def test_a_library_keeps_a_name_through_its_versions(path, stem):
    """The part that stays is what its soname stands on."""
    assert stem_of(path) == stem


def made_venv(root, home="/usr/bin", version="3.11.2"):
    """A root with Python 3.11 in /usr and a venv of it in /srv."""
    for folder in ("usr/bin", "srv/venv/bin", "srv/venv/lib/python3.11/site-packages", "usr/lib/python3/dist-packages"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/python3.11").write_bytes(b"\x7fELF..." + b"\x003.11.2\x00" + b"x" * 100)
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "srv/venv/bin/python").symlink_to("/usr/bin/python3")
    (root / "srv/venv/pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\nversion = {version}\n")


def dead(root, argv0="/srv/venv/bin/python", **more):
    """Facts of a process that is known by its command line only."""
    stated = {"argv": (argv0, "agent.py"), "exe": "/usr/bin/python3.11", "cwd": "/srv", "root": str(root)}
    return ProcessFacts(**stated | more)


@pytest.mark.parametrize("argv0", ["/srv/venv/bin/python", "venv/bin/python", "python"])
def test_the_venv_is_found_by_the_name_that_started_it(tmp_path, argv0):
    """By a whole path, by one relative to its folder, or through PATH; the version of the interpreter by its own text."""
    made_venv(tmp_path)
    facts = dead(tmp_path, argv0, environment={"PATH": "/nowhere:/srv/venv/bin:/usr/bin"})
    found = interpreter_of(facts, ())
    assert (found.venv, found.venv_version, found.venv_home, found.version) == ("/srv/venv", "3.11.2", "/usr/bin", "3.11.2")
    assert sites_of(facts, found, ()) == ("/srv/venv/lib/python3.11/site-packages",)


def test_without_a_venv_the_folders_of_the_system_count(tmp_path):
    """Debian's dist-packages, the user's own, PYTHONPATH; each once though links lead to it."""
    made_venv(tmp_path)
    for folder in ("home/a/.local/lib/python3.11/site-packages", "opt/more"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib64").symlink_to("/usr/lib")
    facts = dead(tmp_path, "/usr/bin/python3", environment={"HOME": "/home/a", "PYTHONPATH": "/opt/more:relative:/gone"})
    found = interpreter_of(facts, ())
    assert found.venv is None
    assert sites_of(facts, found, ()) == (
        "/opt/more",
        "/home/a/.local/lib/python3.11/site-packages",
        "/usr/lib/python3/dist-packages",
    )


def test_a_base_python_that_moved_under_a_venv_shows(tmp_path):
    """The venv was made for 3.11.2; its python leads to 3.13.5 now: interpreter and venv differ, and the packages are gone from view."""
    made_venv(tmp_path)
    before = take(dead(tmp_path))
    assert before.interpreter.version == "3.11.2"
    (tmp_path / "usr/bin/python3.13").write_bytes(b"\x7fELF..." + b"\x003.13.5\x00" + b"x" * 100)
    (tmp_path / "usr/bin/python3").unlink()
    (tmp_path / "usr/bin/python3").symlink_to("python3.13")
    (tmp_path / "usr/bin/python3.11").unlink()
    after = take_again(before, root=str(tmp_path))
    found = drifted(before, after, "python")
    assert (found.kind, found.how, found.before, found.after, found.path) == (
        *("interpreter", "upgraded", "3.11.2", "3.13.5"),
        "/usr/bin/python3.13",
    )
    assert after.interpreter.venv_version == "3.11.2"


def test_node_modules_are_found_beside_the_script_and_above(tmp_path):
    """As Node looks for them: from the real folder of the script upwards, through the link that a global command is."""
    for folder in ("usr/bin", "usr/lib/node_modules/claude/node_modules", "srv/app/node_modules"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib/node_modules/claude/cli.js").touch()
    (tmp_path / "usr/bin/claude").symlink_to("../lib/node_modules/claude/cli.js")
    facts = ProcessFacts(argv=("node", "/usr/bin/claude"), exe="/usr/bin/node", cwd="/srv/app", root=str(tmp_path))
    assert node_folders_of(facts, ()) == (
        *("/usr/bin/../lib/node_modules/claude/node_modules", "/usr/bin/../lib/node_modules"),
        "/srv/app/node_modules",
    )
    assert node_folders_of(ProcessFacts(argv=("bash",), exe="/bin/bash", cwd="/srv/app", root=str(tmp_path)), ()) == ()


def test_a_baseline_never_leaves_the_root(tmp_path, tmp_path_factory):
    """Links of the venv, the lock file and the packages that lead out lead nowhere."""
    made_venv(tmp_path)
    outside = tmp_path_factory.mktemp("outside")
    (outside / "uv.lock").write_text("secret")
    (outside / "x-1.dist-info").mkdir()
    (outside / "x-1.dist-info/METADATA").write_text("Name: x\nVersion: 1\n")
    (tmp_path / "srv/uv.lock").symlink_to(outside / "uv.lock")
    site = tmp_path / "srv/venv/lib/python3.11/site-packages"
    (site / "x-1.dist-info").symlink_to(outside / "x-1.dist-info")
    (tmp_path / "usr/lib/python3.11").symlink_to(outside)
    taken = take(dead(tmp_path))
    assert taken.lock is None
    assert taken.distributions == ()


def test_names_that_no_record_could_hold_are_left_out(tmp_path):
    """Folders of packages with bytes that are no text, or that would steer a terminal: the rest is taken, and can be kept."""
    made_venv(tmp_path)
    site, modules = tmp_path / "srv/venv/lib/python3.11/site-packages", tmp_path / "srv/node_modules"
    for name in ("\udcff\udcfe", "a\x1b[2J", "good"):
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        (site / f"{name}-1.dist-info/METADATA").write_text("Name: good\nVersion: 1\n")
        (modules / name).mkdir(parents=True)
        (modules / name / "package.json").write_text('{"name": "n", "version": "1.0.0"}')
    (tmp_path / "usr/bin/node").symlink_to("/usr/bin/\udcff")
    taken = take(dead(tmp_path))
    assert [found.name for found in taken.distributions] == ["good"]
    node = take(ProcessFacts(argv=("node", "app.js"), exe="/usr/bin/node", cwd="/srv", root=str(tmp_path)))
    assert [package.folder for package in node.node] == ["/srv/node_modules/good"]
    Baselines(tmp_path).keep("a", taken)
    assert Baselines(tmp_path).load("a") == taken
    for hostile in ("/srv/\udcff", "/srv/\x1b[2J"):
        assert msgspec.json.encode(
            take(
                ProcessFacts(
                    argv=(hostile,), exe="/usr/bin/python3.11", cwd="/srv", root=str(tmp_path), environment={"HOME": hostile}
                )
            )
        )


# --- the difference alone --------------------------------------------------------------------------------------------------


def baseline(**more):
    """A baseline with nothing in it but what is given."""
    return Baseline(**{"wall_ns": 1000 * SECOND, "boot_id": "b", "kernel": "6.1.0-1"} | more)


def file(path="/lib/liba.so.1", inode=1, build="aa" * 10, **more):
    """A mapped file."""
    state = {"path": path, "device": 1, "inode": inode, "size_bytes": 10, "mtime_ns": 5, "ctime_ns": 6, "build_id": build}
    return MappedFile(path=path, inode=inode, device="00:01", file=FileState(**state | more))


def dist(name, version, **more):
    """A distribution."""
    return Distribution(name=name, version=version, folder=f"/s/{name}", **more)


def python_version(version):
    """An interpreter of this version."""
    return Interpreter(path="/usr/bin/python3", version=version, file=file().file, venv="/v", venv_version="3.11.2")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"mapped": (file(),)}, {"mapped": (file(inode=2),)}, None),
        ({"mapped": (file(),)}, {"mapped": (file(inode=2, build="bb" * 10),)}, ("library", "liba.so.1", "replaced")),
        ({"mapped": (file(),)}, {"mapped": (file(ctime_ns=9),)}, None),
        ({"mapped": (file(),)}, {"mapped": (file(mtime_ns=9),)}, ("library", "liba.so.1", "overwritten")),
        ({"mapped": (file(build=None),)}, {"mapped": (file(build=None, size_bytes=11),)}, ("library", "liba.so.1", "overwritten")),
        ({"mapped": (file(),), "exe": "/lib/liba.so.1"}, {"mapped": (file(inode=2, build="cc" * 10),)}, ("program", "liba.so.1", "replaced")),
        ({"mapped": (file("/nix/store/a/lib/liba.so.1"),)}, {"mapped": (file("/nix/store/b/lib/liba.so.1", build="bb"),)}, ("library", "liba.so.1", "replaced")),
        ({"mapped": (file(),)}, {"mapped": ()}, None),
        ({"distributions": (dist("A_b", "1.0"),)}, {"distributions": (dist("a-b", "1.1"),)}, ("distribution", "A_b", "upgraded")),
        ({"distributions": (dist("a", "1.10"),)}, {"distributions": (dist("a", "1.9"),)}, ("distribution", "a", "downgraded")),
        ({"distributions": (dist("a", "1", record="x"),)}, {"distributions": (dist("a", "1", record="y"),)}, ("distribution", "a", "changed")),
        ({"distributions": (dist("a", "1"),)}, {}, ("distribution", "a", "removed")),
        ({}, {"distributions": (dist("a", "1"),)}, ("distribution", "a", "added")),
        ({"node": (NodePackage(name="a", version="1.0.0", folder="/n/a"),)}, {"node": (NodePackage(name="a", version="2.0.0", folder="/n/a"),)}, ("node-package", "a", "upgraded")),
        ({"system": SystemPackages(ecosystem="dpkg", versions=(("a", "1"),))}, {"system": SystemPackages(ecosystem="dpkg", versions=(("a", "2"),))}, ("system-package", "a", "upgraded")),
        ({"libc": "glibc 2.36"}, {"libc": "glibc 2.31"}, ("libc", "glibc", "downgraded")),
        ({"kernel": "6.1.0-9"}, {"kernel": "6.1.0-10"}, ("kernel", "Linux", "upgraded")),
        ({"lock": LockFile(path="/s/uv.lock", digest="a")}, {"lock": LockFile(path="/s/uv.lock", digest="b")}, ("lock-file", "uv.lock", "changed")),
        ({"image": Image(id="a", name="agent:1")}, {"image": Image(id="b", name="agent:1")}, ("image", "agent:1", "changed")),
        ({"environment": ("PATH", "X_API_KEY")}, {"environment": ("PATH",)}, ("environment", "X_API_KEY", "removed")),
        ({"interpreter": python_version("3.11.2")}, {"interpreter": python_version("3.13.5")}, ("interpreter", "python", "upgraded")),
        ({"interpreter": python_version("3.11.2")}, {}, ("interpreter", "python", "removed")),
    ],
)  # fmt: skip
def test_each_kind_of_drift_is_told_and_nothing_else(before, after, expected):
    """What differs is named with how; what only looks different is not."""
    common = {key: value for key, value in before.items() if key == "exe"}
    found = difference(baseline(**before), baseline(**common | {"kernel": before.get("kernel", "6.1.0-1")} | after))
    assert [(each.kind, each.name, each.how) for each in found] == ([expected] if expected else [])


def test_what_drifted_is_joined_with_who_did_it(tmp_path):
    """A library by the package that owns its file, a distribution by its metadata with the version that only the baseline knew."""
    lists = tmp_path / "var/lib/dpkg/info"
    lists.mkdir(parents=True)
    (lists / "liba1.list").write_text("/lib/liba.so.1\n")
    (tmp_path / "var/lib/dpkg/status").write_text("Package: liba1\nStatus: install ok installed\nVersion: 1.1\n\n")
    library = Change(what="liba1", ecosystem="dpkg", kind="upgraded", wall_ns=5 * SECOND, precision_ns=SECOND, source="/var/log/dpkg.log",
                     from_version="1.0", to_version="1.1", by=By(tool="unattended-upgrades"))  # fmt: skip
    package = Change(
        what="HTTPX",
        ecosystem="python",
        kind="installed",
        wall_ns=6 * SECOND,
        precision_ns=SECOND,
        source="/s",
        to_version="0.28.1",
        by=By(tool="pip"),
    )
    things = (
        Drifted(kind="library", name="liba.so.1", how="replaced", path="/lib/liba.so.1", before="build a", after="build b"),
        Drifted(kind="distribution", name="httpx", how="upgraded", before="0.27.2", after="0.28.1", path="/s/httpx"),
        Drifted(kind="distribution", name="idna", how="upgraded", before="1", after="2", changed_ns=9 * SECOND),
    )
    first, second, third = explain(things, Changes(changes=(library, package)), root=str(tmp_path))
    assert (first.name, first.before, first.after, first.wall_ns) == ("liba1", "1.0", "1.1", 5 * SECOND)
    assert first.says() == "liba1 1.0 -> 1.1 (liba.so.1) by unattended-upgrades"
    assert (second.change.from_version, second.change.kind, second.says()) == (
        "0.27.2",
        "upgraded",
        "HTTPX 0.27.2 -> 0.28.1 (httpx) by pip",
    )
    assert (third.change, third.wall_ns, third.says()) == (None, 9 * SECOND, "idna 1 -> 2")


def test_what_is_gone_went_before_its_folder_last_changed(tmp_path):
    """The folder's time bounds it, or that of the nearest folder above that still stands; what is there has a time of its own."""
    (tmp_path / "lib/sub").mkdir(parents=True)
    (tmp_path / "lib/liba.so").touch()
    os.utime(tmp_path / "lib/sub", ns=(5 * SECOND, 5 * SECOND))
    os.utime(tmp_path / "lib", ns=(7 * SECOND, 7 * SECOND))
    things = (
        Drifted(kind="library", name="libb.so", how="removed", path="/lib/sub/libb.so"),
        Drifted(kind="library", name="libc.so", how="removed", path="/lib/gone/deep/libc.so"),
        Drifted(kind="library", name="liba.so", how="replaced", path="/lib/liba.so", changed_ns=9 * SECOND),
        Drifted(kind="environment", name="PATH", how="removed"),
    )
    found = explain(things, Changes(changes=()), root=str(tmp_path))
    assert [each.drifted.until_ns for each in found] == [5 * SECOND, 7 * SECOND, None, None]


def test_a_library_that_no_list_names_any_more_is_found_by_what_its_package_is_called(tmp_path):
    """libssl.so.3 came with libssl3, also where that is called libssl3t64 now; else the only change of that minute did it."""
    gone = Drifted(kind="library", name="libssl.so.3", how="removed", path="/lib/libssl.so.3")
    change = Change(
        what="libssl3t64", ecosystem="dpkg", kind="removed", wall_ns=SECOND, precision_ns=SECOND, source="x", from_version="3.0"
    )
    (found,) = explain((gone,), Changes(changes=(change,)), root=str(tmp_path))
    assert found.change == change
    odd = msgspec.structs.replace(gone, name="odd.so", path="/lib/odd.so", changed_ns=20 * SECOND)
    (near,) = explain((odd,), Changes(changes=(change,)), root=str(tmp_path))
    assert near.change == change
    two = Changes(changes=(change, msgspec.structs.replace(change, what="other")))
    assert explain((odd,), two, root=str(tmp_path))[0].change is None


# --- keeping it ------------------------------------------------------------------------------------------------------------


def agent(command="/usr/bin/python3.11 -X dev agent.py --session 8f2", **more):
    """An agent with this command line."""
    stated = {"name": "agent.py", "pid": 7, "start_ns": 1, "start_time": "", "uid": 1000}
    return Agent(command=command, **stated | more)


def test_an_agent_is_known_again_after_a_restart():
    """Neither its pid, nor a newer interpreter, nor another session makes it another agent; another folder, user or script does."""
    same = identity_of(agent(), "/srv")
    assert identity_of(agent("/usr/bin/python3.13 agent.py --session 001", pid=99, start_ns=5), "/srv") == same
    others = (
        identity_of(agent(), "/home"),
        identity_of(agent(uid=0), "/srv"),
        identity_of(agent("python3 other.py"), "/srv"),
        identity_of(agent("python3 -m agent.py"), "/srv"),
    )
    assert same not in others
    assert len(set(others)) == 4
    by_unit = agent(unit="researcher.service")
    assert identity_of(by_unit, "/srv") == identity_of(by_unit, "/elsewhere") != same
    assert "/" not in identity_of(agent(name="../../etc/x\0"), None)


def test_a_baseline_is_kept_for_root_alone_and_read_back(tmp_path):
    """0600 in a folder of 0700, replaced as a whole, nothing left beside it; what is not there is None."""
    store = Baselines(tmp_path / "state")
    kept = baseline(mapped=(file(),), distributions=(dist("a", "1"),))
    assert store.load("agent-1") is None
    store.keep("agent-1", baseline())
    store.keep("agent-1", kept)
    assert store.load("agent-1") == kept
    (written,) = (tmp_path / "state/baselines").iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700


def test_a_baseline_that_is_none_is_passed_over(tmp_path):
    """Cut, forged, a bomb, a link: no baseline, and no error."""
    store = Baselines(tmp_path)
    store.keep("a", baseline())
    place = tmp_path / "baselines/a.json.gz"
    whole = place.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        b"",
        b"\x1f\x8b" + b"x" * 50,
        zlib.compress(b'{"wall_ns": "x"}', wbits=31),
        zlib.compress(b"[" * (40 << 20), wbits=31),
    ):
        place.write_bytes(content)
        assert store.load("a") is None
    place.unlink()
    place.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(whole)
    assert store.load("a") is None


def test_a_state_directory_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    """Kind and advice, no traceback of the machinery."""
    (tmp_path / "baselines").write_text("a file where the folder should be")
    with pytest.raises(CannotWrite, match="cannot keep the baseline"):
        Baselines(tmp_path).keep("a", baseline())


def large(libraries, distributions, packages=3000):
    """A baseline of this many parts, with names and digests as long and as various as real ones."""
    mapped = tuple(
        file(
            f"/srv/venv/lib/python3.11/site-packages/package_{n}/_native_{n * 7919:x}.cpython-311-x86_64-linux-gnu.so",
            inode=n,
            build=f"{n * 2654435761 % 2**64:040x}",
        )
        for n in range(libraries)
    )
    found = tuple(
        dist(
            f"distribution-{n}",
            f"{n % 9}.{n % 31}.{n % 7}",
            record=f"{n * 11400714819323198485 % 2**64:016x}",
            wall_ns=1_790_000_000 * SECOND + n * 977,
            installer="pip",
            tops=(f"distribution_{n}",),
        )
        for n in range(distributions)
    )
    system = SystemPackages(
        ecosystem="dpkg", versions=tuple((f"lib{n * 7919:x}-dev", f"1:{n}.2-{n % 9}+deb12u{n % 5}") for n in range(packages))
    )
    return baseline(mapped=mapped, distributions=found, system=system)


def test_a_baseline_fits_its_file():
    """200 libraries, 300 distributions and 3,000 packages of the system fit whole; what cannot fit is cut and counted."""
    whole = large(200, 300)
    content = encoded(whole)
    assert len(content) < FILE_LIMIT_BYTES / 2
    assert msgspec.json.decode(zlib.decompress(content, wbits=31), type=Baseline) == whole
    huge = encoded(large(2000, 20_000))
    assert len(huge) <= FILE_LIMIT_BYTES
    cut = msgspec.json.decode(zlib.decompress(huge, wbits=31), type=Baseline)
    assert cut.left_out > 0
    assert cut.mapped


def test_the_longest_unused_are_dropped(tmp_path, monkeypatch):
    """The folder does not grow without end, and what an end in the middle of writing left is cleared away."""
    monkeypatch.setattr("agentscope.baseline.store.AGENTS_LIMIT", 3)
    store = Baselines(tmp_path)
    for number in range(6):
        store.keep(f"agent-{number}", baseline())
        os.utime(tmp_path / f"baselines/agent-{number}.json.gz", ns=(number, time.time_ns() - (10 - number) * SECOND))
    (tmp_path / "baselines/.left.json.gz.ab").touch()
    os.utime(tmp_path / "baselines/.left.json.gz.ab", ns=(1, 1))
    store.keep("agent-9", baseline())
    assert {path.name for path in (tmp_path / "baselines").iterdir()} == {f"agent-{n}.json.gz" for n in (4, 5, 9)}


def test_a_retake_opens_nothing_where_nothing_changed(victim, monkeypatch):
    """The second time only stat(2) is asked: no metadata, no program, no library is read again."""
    first = take(victim.pid)
    time.sleep(0.1)  # what changed within a tick of the clock is read again
    take(victim.pid)
    opened = []
    real = rooted._reopened

    def noted(found, path, limit_bytes):
        opened.append(path)
        return real(found, path, limit_bytes)

    monkeypatch.setattr(rooted, "_reopened", noted)
    second = take(victim.pid)
    assert msgspec.structs.replace(second, wall_ns=first.wall_ns) == first
    assert [path for path in opened if not path.startswith("/proc/") and not path.endswith("pyvenv.cfg")] == []


class TestLockFile:
    """The lock file against what is installed."""

    def compared(self, folder, text, *, known=None, lightly=False, name="uv.lock", version="0.28.1"):
        """A lock file of this text against one distribution."""
        if text is not None:
            (folder / name).write_text(text)
        now = Baseline(
            wall_ns=1, boot_id="b", kernel="6", distributions=(Distribution(name="httpx", version=version, folder="/s"),)
        )
        return lock_of(str(folder / name), now, root=None, known=known, lightly=lightly)

    def test_another_version_is_a_deviation(self, tmp_path):
        """Of what the file pins, what is installed in another version is kept with both."""
        found = self.compared(tmp_path, PINNED)
        assert (found.locked, found.count) == (1, 1)
        assert found.deviating[0].says() == "httpx 0.28.1 is installed, the lock file has 0.27.2"
        assert self.compared(tmp_path, PINNED, version="0.27.2").count == 0

    def test_why_it_could_not_be_read(self, tmp_path):
        """It is gone, a folder, or not what its name says; a form that is known by name only says nothing."""
        assert self.compared(tmp_path, None).unread == "No such file or directory"
        assert "TOMLDecodeError" in self.compared(tmp_path, "[[package]\n").unread
        assert self.compared(tmp_path, "__metadata:\n", name="yarn.lock").unread is None
        assert self.compared(tmp_path, "__metadata:\n", name="yarn.lock").locked is None
        (tmp_path / "pdm.lock").mkdir()
        assert self.compared(tmp_path, None, name="pdm.lock").unread == "not a regular file"

    def test_whoever_waits_does_not_wait_for_a_long_one(self, tmp_path):
        """Lightly, one of a megabyte is not parsed; what a baseline knows of the same content is taken from there."""
        long = PINNED + "# hashes\n" * 20_000
        assert self.compared(tmp_path, long, lightly=True).locked is None
        known = self.compared(tmp_path, long)
        assert known.locked == 1
        assert self.compared(tmp_path, long, lightly=True, known=known) is known
        assert self.compared(tmp_path, PINNED, lightly=True, known=known).locked == 1

    def test_a_link_out_of_the_root_leads_nowhere(self, tmp_path):
        """The file of a container is looked for inside it only."""
        (tmp_path / "root").mkdir()
        (tmp_path / "uv.lock").write_text(PINNED)
        (tmp_path / "root/uv.lock").symlink_to(tmp_path / "uv.lock")
        now = Baseline(wall_ns=1, boot_id="b", kernel="6")
        assert lock_of("/uv.lock", now, root=str(tmp_path / "root")).unread == "No such file or directory"

    def test_one_that_appears_or_is_another_is_no_drift(self):
        """A lock file that was not there, or that the configuration names now, says nothing of what was installed."""
        bare = {"wall_ns": 1, "boot_id": "b", "kernel": "6"}
        here = Baseline(**bare, lock=LockFile(path="/s/uv.lock", digest="a"))
        missing = Baseline(**bare, lock=LockFile(path="/s/uv.lock", digest="", unread="gone"))
        elsewhere = Baseline(**bare, lock=LockFile(path="/t/uv.lock", digest="b"))
        assert difference(Baseline(**bare), here) == difference(missing, here) == difference(here, elsewhere) == ()
        assert [each.how for each in difference(here, missing)] == ["removed"]


PINNED = 'version = 1\n[[package]]\nname = "httpx"\nversion = "0.27.2"\n'
