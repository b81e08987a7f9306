"""Evidence of drift, from the end of a process and the files around it: what it says, and when it says nothing."""

import os
import shutil
import subprocess
import time

import msgspec
import pytest

from agentscope.baseline import Baseline, FileState, LockFile, MappedFile
from agentscope.baseline.joining import told
from agentscope.distributions import Deviation, Distribution
from agentscope.evidence import Missing, Scene, Words, collect_all, from_records
from agentscope.evidence.baseline_difference import BaselineDifference
from agentscope.evidence.elf_needs import ElfNeeds
from agentscope.evidence.import_failure import ImportFailure
from agentscope.evidence.package_changes import PackageChanges, collect, window_of
from tests.test_classifier import scene
from tests.test_distributions import traceback, wheel

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
KINDS = ("baseline-difference", "package-changes", "elf-needs", "import-failure")
SEGV = 11


def mapped(path, inode, build):
    """A library as a process had it."""
    state = FileState(
        path=path, device=1, inode=inode, size_bytes=9, mtime_ns=1, ctime_ns=time.time_ns() - 60 * SECOND, build_id=build
    )
    return MappedFile(path=path, inode=inode, device="00:01", file=state)


def baseline(**more):
    """The last healthy run, an hour ago."""
    return Baseline(**{"wall_ns": time.time_ns() - 3600 * SECOND, "boot_id": "b", "kernel": "6.1"} | more)


def ended(status, *, words="", root=None, exe=None, before=None, now=None):
    """An end at this moment, with what is known around it."""
    at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    bare = scene(status)
    return msgspec.structs.replace(
        bare,
        exit=msgspec.structs.replace(bare.exit, at_ns=at_ns),
        process=msgspec.structs.replace(bare.process, start_ns=at_ns - 10 * SECOND, exe=exe),
        words=Words(text=words.encode(), source="a test", written_ns=at_ns) if words else None,
        baseline=before,
        installed=now,
        root=str(root) if root else None,
    )


def collected(*given, **named):
    """The four kinds, and that what they say can be recorded and read again."""
    found = {kind: each for kind, each in collect_all(ended(*given, **named)).items() if kind in KINDS}
    records = tuple(each.record("context") for each in found.values() if each is not None and not isinstance(each, Missing))
    again = from_records(Scene, records)
    for record in records:
        assert again[record.kind] == found[record.kind]
        assert record.says.isprintable()
    return found


@pytest.mark.parametrize("status", [0, 9, 15, 3 << 8, 1 << 8])
def test_an_end_that_no_package_can_explain_asks_nothing(status):
    """A clean exit, a kill, a plain status: no log is opened, no file is read, nothing is missing."""
    assert collected(status, before=baseline(), now=baseline()) == dict.fromkeys(KINDS)


def test_a_crash_with_everything_as_it_was_says_so():
    """The count of what was compared and since when: the words by which drift is ruled out."""
    before = baseline(
        mapped=tuple(mapped(f"/lib/lib{n}.so.1", n, "aa") for n in range(214)),
        distributions=tuple(Distribution(name=f"d{n}", version="1", folder=f"/s/{n}") for n in range(96)),
    )
    found = collected(SEGV, before=before, now=before)["baseline-difference"]
    assert isinstance(found, BaselineDifference)
    assert found.says() == f"214 libraries and 96 packages unchanged since {found.clock.moment(before.wall_ns)}"
    assert (found.own, found.of_file("/lib/lib1.so.1")) == ((), None)


def test_a_crash_in_a_changed_library_finds_its_change(tmp_path):
    """By the path of the fault, marked deleted or not: package, both versions, author and time out of the log."""
    lists = tmp_path / "var/lib/dpkg/info"
    lists.mkdir(parents=True)
    (lists / "libfoo1.list").write_text("/usr/lib/libfoo.so.1\n")
    (tmp_path / "var/lib/dpkg/status").write_text("Package: libfoo1\nStatus: install ok installed\nVersion: 1.1-1\n\n")
    log = tmp_path / "var/log"
    log.mkdir()
    then = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 60))
    (log / "dpkg.log").write_text(f"{then} upgrade libfoo1:amd64 1.0-1 1.1-1\n{then} upgrade tzdata:all 1 2\n")
    before = baseline(
        mapped=(mapped("/usr/lib/libfoo.so.1", 1, "aa" * 10), mapped("/usr/lib/libbar.so.1", 2, "bb")), own_root=False
    )
    now = msgspec.structs.replace(before, mapped=(mapped("/usr/lib/libfoo.so.1", 9, "cc" * 10), before.mapped[1]))
    kinds = collected(SEGV, before=before, now=now, root=tmp_path)
    found = kinds["baseline-difference"]
    changed = found.of_file("/usr/lib/libfoo.so.1 (deleted)")
    assert (changed.name, changed.before, changed.after) == ("libfoo1", "1.0-1", "1.1-1")
    assert changed.wall_ns > found.since_wall_ns
    assert found.of_file("/usr/lib/libbar.so.1") is None
    assert found.of_package("dpkg", "libfoo1") == changed
    assert "libfoo1 1.0-1 -> 1.1-1 (libfoo.so.1) by dpkg" in found.says()
    changes = kinds["package-changes"]
    assert changes.healthy
    assert {change.what for change in changes.changes} == {"libfoo1", "tzdata"}


def test_the_first_run_ever_has_package_logs_only(tmp_path):
    """No baseline: that is said, and the logs of the last days are still there."""
    (tmp_path / "var/log").mkdir(parents=True)
    then = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 5 * 86_400))
    (tmp_path / "var/log/dpkg.log").write_text(
        f"{then} upgrade libfoo1:amd64 1.0-1 1.1-1\n2020-01-01 00:00:00 upgrade old:all 1 2\n"
    )
    kinds = collected(SEGV, root=tmp_path)
    assert "first run that was watched" in kinds["baseline-difference"].because
    changes = kinds["package-changes"]
    assert isinstance(changes, PackageChanges)
    assert not changes.healthy
    assert [change.what for change in changes.changes] == ["libfoo1"]
    assert changes.of_package("dpkg", "libfoo1").to_version == "1.1-1"
    assert "1 package changes since the start of the search" in changes.says()


def test_an_end_in_the_second_of_another_finds_what_changed_between_them(tmp_path):
    """What was read for the first is not taken for the second, though both ask for the same window; what came before both is read once."""
    log = tmp_path / "var/log/dpkg.log"
    log.parent.mkdir(parents=True)
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    log.write_text(f"{moment} install libfoo1:amd64 <none> 1.0-1\n")
    first = ended(SEGV, root=tmp_path)
    assert collect(first).of_package("dpkg", "libfoo1").kind == "installed"
    with log.open("a") as more:
        more.write(f"{moment} remove libfoo1:amd64 1.0-1 <none>\n")
    assert collect(first).count == 1
    at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    window = window_of(first)
    read = [told(window, end_ns) for end_ns in (first.exit.at_ns, at_ns, at_ns)]
    assert [[change.kind for change in each.changes] for each in read] == [["installed"], *[["installed", "removed"]] * 2]
    assert read[1] is read[2]


def test_a_system_without_logs_is_missing_not_unchanged(tmp_path):
    """Nothing was read, so nothing is said about what did not change."""
    assert isinstance(collected(SEGV, root=tmp_path)["package-changes"], Missing)


def test_a_container_that_is_gone_leaves_nothing_to_compare():
    """Its paths mean other files in our root: they are not looked at."""
    before = baseline(own_root=False)
    kinds = collected(SEGV, before=before, now=None)
    assert "container that is gone" in kinds["package-changes"].because
    assert "could not be looked at" in kinds["baseline-difference"].because


def site_of(root, version):
    """An installed httpx of this version, as a baseline has it."""
    shutil.rmtree(root / "srv", ignore_errors=True)
    wheel(root, "httpx", version, ["httpx/__init__.py"])
    wheel(root, "openai", "1.54.0", ["openai/__init__.py", "openai/_client.py"], requires=("httpx<1",))
    from agentscope.distributions.installed import installed

    site = "/srv/venv/lib/python3.11/site-packages"
    return baseline(sites=(site,), distributions=installed((site,), root=str(root))[0])


def test_an_import_error_is_traced_to_the_package_that_changed(tmp_path):
    """Named by nobody: the frame is openai's, which asks for httpx, and httpx is what changed."""
    before = site_of(tmp_path, "0.27.2")
    now = site_of(tmp_path, "0.28.1")
    words = traceback(
        "TypeError: Client.__init__() got an unexpected keyword argument 'proxies'",
        "/srv/venv/lib/python3.11/site-packages/openai/_client.py",
    )
    kinds = collected(1 << 8, words=words, before=before, now=now, root=tmp_path)
    found = kinds["import-failure"]
    assert isinstance(found, ImportFailure)
    assert (found.failure, found.compared, found.exception_type) == ("argument", True, "TypeError")
    culprit = found.culprit
    assert (culprit.name, culprit.role, culprit.version_before, culprit.version_now) == (
        "httpx",
        "dependency",
        "0.27.2",
        "0.28.1",
    )
    assert culprit.change.by.tool == "pip"
    assert found.says() == "TypeError is about httpx, which changed: 0.27.2 -> 0.28.1"
    (changed,) = kinds["baseline-difference"].own
    assert changed.says() == "httpx 0.27.2 -> 0.28.1 by pip"


def test_an_error_over_packages_that_are_as_they_were_has_no_culprit(tmp_path):
    """The same words, and nothing changed: the program's own doing."""
    before = site_of(tmp_path, "0.27.2")
    words = traceback("ImportError: cannot import name 'Nothing' from 'httpx' (/x)")
    found = collected(1 << 8, words=words, before=before, now=before, root=tmp_path)["import-failure"]
    assert [each.name for each in found.accused] == ["httpx"]
    assert found.culprit is None
    assert not found.accused[0].changed
    assert found.says() == "ImportError can be about httpx 0.27.2"


def test_without_a_baseline_no_version_before_is_known(tmp_path):
    """What is installed now and its own metadata are all there is; that is told, and nobody is called the culprit."""
    words = traceback("ImportError: cannot import name 'Nothing' from 'httpx' (/x)")
    found = collected(1 << 8, words=words, now=site_of(tmp_path, "0.28.1"), root=tmp_path)["import-failure"]
    assert (found.compared, found.culprit) == (False, None)
    assert found.accused[0].change.to_version == "0.28.1"
    missing = collected(1 << 8, words=words, root=tmp_path)["import-failure"]
    assert isinstance(missing, Missing)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_what_the_loader_refused_is_named_by_the_files_themselves(tmp_path):
    """A program whose library lost a function: the words give the name, the files give who wants it and where it was looked for."""
    library, program = tmp_path / "libfoo.so.1", tmp_path / "prog"

    def compiled(target, source, *flags):
        subprocess.run(
            ["cc", "-x", "c", "-", "-x", "none", "-fPIC", "-o", str(target), *flags], input=source, check=True, timeout=60
        )

    compiled(library, b"int foo(void) { return 1; }", "-shared", "-Wl,-soname,libfoo.so.1")
    compiled(program, b"int foo(void); int main(void) { return foo(); }", str(library), "-Wl,-z,now")
    before = baseline(mapped=(mapped(str(library), 1, "aa"),))
    compiled(library, b"int other(void) { return 1; }", "-shared", "-Wl,-soname,libfoo.so.1")
    run = subprocess.run(
        [str(program)], env={"LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 127
    found = collected(127 << 8, words=run.stderr, exe=str(program), before=before, now=before)["elf-needs"]
    assert isinstance(found, ElfNeeds)
    assert found.about(symbol="foo").needed_by == str(program)
    assert found.about(symbol="other") is None
    assert found.about() is None
    assert "foo" in found.says()
    library.unlink()
    run = subprocess.run(
        [str(program)], env={"LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False
    )
    found = collected(127 << 8, words=run.stderr, exe=str(program), before=before, now=before)["elf-needs"]
    assert found.about(library="libfoo.so.1").kind == "missing-library"


def test_a_program_that_lacks_nothing_says_so():
    """The loader complained once; by now everything is there."""
    words = (
        "prog: error while loading shared libraries: libgone.so.1: cannot open shared object file: No such file or directory\n"
    )
    found = collected(127 << 8, words=words, exe=os.path.realpath("/bin/sh"))["elf-needs"]
    assert found.unmet == ()
    assert "is there now" in found.says()
    assert isinstance(collected(127 << 8, words=words)["elf-needs"], Missing)


LOCKED = LockFile(
    path="/srv/uv.lock",
    digest="d",
    locked=96,
    deviating=(Deviation(name="httpx", locked=("0.27.2",), installed="0.28.1"),),
    count=1,
)


def locked(lock, status=11):
    """What is said of a lock file at an end."""
    return collect_all(ended(status, before=baseline(), now=baseline(lock=lock)))["lock-file"]


def test_a_package_that_the_lock_file_has_otherwise_is_told():
    """Its name and both versions, at an end that may be drift and of a process that lives."""
    assert locked(LOCKED).says() == "httpx 0.28.1 is installed, uv.lock has 0.27.2"
    many = msgspec.structs.replace(LOCKED, deviating=LOCKED.deviating * 20, count=31)
    assert locked(many).says().endswith("; and 28 more")
    agreed = msgspec.structs.replace(LOCKED, deviating=(), count=0)
    assert locked(agreed).says() == "of the 96 packages that uv.lock pins none is installed in another version"
    assert locked(LOCKED, status=15) is None


def test_a_lock_file_that_says_nothing():
    """One that pins nothing, or was not compared, is no evidence; one that could not be read is missing with the reason."""
    assert locked(None) is None
    assert locked(msgspec.structs.replace(LOCKED, locked=0)) is None
    assert locked(LockFile(path="/srv/yarn.lock", digest="d")) is None
    gone = locked(LockFile(path="/srv/uv.lock", digest="", unread="No such file or directory"))
    assert gone == Missing(kind="lock-file", because="/srv/uv.lock: No such file or directory")
