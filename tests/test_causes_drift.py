"""Class drift: said only with both proofs, and of nothing that merely looks alike."""

import time
from dataclasses import replace

import msgspec
import pytest

from agentscope.baseline import Drifted
from agentscope.baseline.clock import Clock
from agentscope.baseline.joining import Changed
from agentscope.changes import By, Change
from agentscope.classifier import classify
from agentscope.culprits import Culprit, who
from agentscope.evidence import Scene, from_records
from agentscope.evidence.baseline_difference import BaselineDifference
from agentscope.evidence.elf_needs import ElfNeeds
from agentscope.evidence.import_failure import AccusedNow, ImportFailure
from agentscope.evidence.memory_map import MemoryMap
from agentscope.evidence.package_changes import PackageChanges
from agentscope.going_back import going_back
from agentscope.model import Mapping
from agentscope.readers.kernel_fault import FaultLine
from agentscope.symbols.needs import Unmet
from agentscope.views.page import sift
from tests.evidence_builders import SOURCE, diagnose, died, exited, faulted, logged, read, sent, stack, traceback, words

HOUR = 3_600_000_000_000
HEALTHY_NS = time.time_ns() // 1_000_000_000 * 1_000_000_000 - HOUR
CHANGED_NS = HEALTHY_NS + HOUR // 2
SSL, FOO, AGENT = "/usr/lib/x86_64-linux-gnu/libssl.so.3", "/srv/libfoo.so.1", "/srv/agent"
SEGV = sent(11, "self", code=1)
UPGRADES = By(tool="unattended-upgrades", command="/usr/bin/unattended-upgrade -v")


def change(what="libssl3", before="3.0.2-1", after="3.0.3-1", **more):
    """A line of a package log."""
    told = {"ecosystem": "dpkg", "kind": "upgraded", "by": UPGRADES, "wall_ns": CHANGED_NS, "precision_ns": 1_000_000_000}
    return Change(what=what, from_version=before, to_version=after, source="/var/log/dpkg.log", **told | more)


def library(path=SSL, how="replaced", *, by=None, owner=None, **more):
    """A library that is not what it was."""
    told = {"before": "build 01", "after": "build 02", "changed_ns": CHANGED_NS, "kind": "library"} | more
    return Changed(drifted=Drifted(name=path.rpartition("/")[2], how=how, path=path, **told), change=by, owner=owner)


UPGRADED = library(by=change(), owner="libssl3 3.0.3-1")

dated = Clock().dated


def package(name, before, after, how="upgraded", kind="distribution"):
    """A package of a language in another version."""
    folder = (
        f"/srv/venv/lib/python3.11/site-packages/{name}-{after}.dist-info"
        if kind == "distribution"
        else f"/srv/node_modules/{name}"
    )
    pip = Change(
        what=name, ecosystem="python", kind=how, wall_ns=CHANGED_NS, precision_ns=1_000_000_000, source=folder,
        from_version=before, to_version=after, by=By(tool="pip"),
    )  # fmt: skip
    drifted = Drifted(kind=kind, name=name, how=how, before=before, after=after, path=folder, changed_ns=CHANGED_NS)
    return Changed(drifted=drifted, change=pip if kind == "distribution" else None)


def since(*changed, libraries=214, packages=96):
    """The difference to the last healthy run, an hour ago."""
    return BaselineDifference(
        source=SOURCE, since_wall_ns=HEALTHY_NS, libraries=libraries, packages=packages, changed=changed, count=len(changed)
    )


UNCHANGED = since()


def logs(*changes, healthy=False):
    """What the package logs tell."""
    return PackageChanges(source=SOURCE, since_wall_ns=HEALTHY_NS, healthy=healthy, changes=changes, count=len(changes))


def needs(*unmet, modules=()):
    """What the files as they stand now lack."""
    return ElfNeeds(source=SOURCE, program=AGENT, modules=modules, unmet=unmet, files=12)


def failed(failure, *accused, kind="ImportError", message="", compared=True):
    """How it failed over its packages."""
    return ImportFailure(
        source=SOURCE, failure=failure, exception_type=kind, message=message, compared=compared, accused=accused
    )


def accused(name, before, now, role="named", **more):
    """A package that it can be about."""
    return AccusedNow(
        role=role, ecosystem=more.pop("ecosystem", "python"), name=name, version_before=before, version_now=now, **more
    )


def loader(suggests, **facts):
    """The loader's last words."""
    return words(
        read(suggests, "loader", excerpt=f"{AGENT}: error while loading: {facts}", says="the loader refused it", **facts)
    )


def first(*evidence):
    """The finding that leads, and all of the diagnosis."""
    found = diagnose(*evidence)
    return found.findings[0], found


def ruled_out(found, slug):
    """Why a cause was ruled out."""
    return next((each.because for each in found.ruled_out if each.cause == slug), None)


def drift_in(found):
    """The causes of drift that were found at all."""
    return [finding.cause for finding in found.findings if finding.cause.startswith("drift/")]


class TestCrash:
    """drift/segfault against crash/segfault and its kin."""

    CRASH = (died(11), SEGV, faulted(module=SSL), stack(("SSL_read", SSL), ("main", AGENT)), logged())

    def test_a_crash_inside_an_upgraded_library_names_it_with_versions_time_and_author(self):
        """Both proofs: the innermost own code lies in a library that was upgraded since the last healthy run."""
        found, whole = first(*self.CRASH, since(UPGRADED))
        assert (found.cause, found.confidence) == ("drift/segfault", "certain")
        changed = f"libssl3 3.0.2-1 -> 3.0.3-1 (libssl.so.3) at {dated(CHANGED_NS)} by unattended-upgrades"
        assert found.headline.startswith("Segmentation fault in SSL_read of libssl.so.3")
        assert found.headline.endswith(f", which is not what it was: {changed}")
        assert found.culprit == f"libssl3 3.0.2-1 -> 3.0.3-1 (libssl.so.3) at {dated(CHANGED_NS)} by unattended-upgrades"
        assert found.advice[0] == "go back: sudo apt-get install --allow-downgrades libssl3=3.0.2-1"
        assert {"fault", "native-stack", "baseline-difference"} <= set(found.cites)
        assert [finding.cause for finding in whole.findings] == ["drift/segfault", "crash/segfault"]

    def test_the_same_crash_with_nothing_changed_is_a_crash_and_says_what_was_compared(self):
        """Only the first proof: the crash keeps its cause, and drift is ruled out by a count."""
        found, whole = first(*self.CRASH, UNCHANGED)
        assert found.cause == "crash/segfault"
        assert drift_in(whole) == []
        said = f"nothing that it uses changed: 214 libraries and 96 packages unchanged since {dated(HEALTHY_NS)}"
        assert ruled_out(whole, "drift/segfault") == said
        assert (said, ["drift/segfault"]) in sift(whole.ruled_out)[0]  # so the report tells it, and not among what had no sign

    def test_a_crash_elsewhere_after_an_upgrade_is_not_blamed_on_the_upgrade(self):
        """An unrelated library was upgraded; the crash is in the agent's own code."""
        found, whole = first(died(11), SEGV, faulted(module=AGENT), stack(("work", AGENT)), since(UPGRADED))
        assert found.cause == "crash/segfault"
        assert drift_in(whole) == []
        assert "it did not fail in what changed" in ruled_out(whole, "drift/segfault")
        assert "libssl3" in ruled_out(whole, "drift/segfault")

    def test_an_upgraded_library_further_out_on_the_stack_is_not_blamed(self):
        """The innermost own frame counts: what called it may be of any version."""
        found, _ = first(died(11), SEGV, faulted(module=AGENT), stack(("callback", AGENT), ("SSL_read", SSL)), since(UPGRADED))
        assert found.cause == "crash/segfault"

    def test_an_upgraded_c_library_that_was_handed_a_bad_pointer_is_not_blamed(self):
        """Libc was upgraded and the fault is in it, but it only did what an unchanged caller asked."""
        libc = library("/usr/lib/x86_64-linux-gnu/libc.so.6", by=change("libc6", "2.36-9", "2.36-10"))
        found, _ = first(died(11), SEGV, faulted(), stack(("strlen", "/usr/lib/libc.so.6"), ("work", AGENT)), since(libc))
        assert found.cause == "crash/segfault"
        found, _ = first(died(11), SEGV, faulted(), stack(("memmove", "/usr/lib/libc.so.6")), since(libc))
        assert found.cause == "crash/segfault"

    def test_a_change_from_before_the_healthy_run_is_none(self):
        """The file is another one than the baseline says, but it stood there already: nothing was proven."""
        old = library(SSL, changed_ns=HEALTHY_NS - HOUR)
        found, _ = first(*self.CRASH, since(old))
        assert found.cause == "crash/segfault"

    def test_a_program_that_its_owner_built_anew_is_no_drift(self):
        """Its own work changed, not what it stands on; the same program from a package is drift."""
        crash = (died(11), SEGV, faulted(module=AGENT), stack(("work", AGENT)))
        assert first(*crash, since(library(AGENT, kind="program")))[0].cause == "crash/segfault"
        owned = library(AGENT, kind="program", by=change("agent", "1.0", "1.1"), owner="agent 1.1")
        assert first(*crash, since(owned))[0].cause == "drift/segfault"

    def test_a_library_written_over_in_place_is_blamed_even_if_it_is_the_c_library(self):
        """Its bytes changed under the running process: what it executes is nobody's code."""
        libc = library("/usr/lib/libc.so.6", "overwritten")
        found, _ = first(died(11), SEGV, faulted(), stack(("strlen", "/usr/lib/libc.so.6"), ("work", AGENT)), since(libc))
        assert found.cause == "drift/segfault"
        assert "overwritten" in found.culprit

    def test_a_page_that_is_gone_from_an_overwritten_library_is_blamed_on_it_whoever_read_it(self):
        """SIGBUS in the loader, at an address of the library that was made shorter."""
        torn = faulted(7, 2, address=0x7F0000403F00, module="/usr/lib/ld-linux-x86-64.so.2")
        frames = stack(("do_lookup_x", "/usr/lib/ld-linux-x86-64.so.2"), ("main", AGENT))
        inside = Mapping(start=0x7F0000401000, end=0x7F0000402000, offset=0x1000, inode=1, device=1, path=FOO)
        other = Mapping(start=0x7F0000201000, end=0x7F0000202000, offset=0x1000, inode=2, device=1, path=SSL)
        crash = (died(7), sent(7, "self", code=2), torn, frames, since(library(FOO, "overwritten")))
        found, _ = first(*crash, MemoryMap(source=SOURCE, mappings=(other, inside)))
        assert (found.cause, found.confidence) == ("drift/segfault", "certain")
        assert "memory-map" in found.cites
        assert first(*crash, MemoryMap(source=SOURCE, mappings=(other,)))[0].cause == "crash/bus"
        assert first(*crash)[0].cause == "drift/segfault"  # older kernels give no map, and the loader reads nothing else

    def test_a_page_missing_from_its_own_file_is_not_blamed_on_a_library_that_was_replaced(self):
        """SIGBUS in its own code: a library that came by rename takes no page away."""
        torn = faulted(7, 2, address=0x7F0000900000, module=AGENT)
        found, _ = first(died(7), sent(7, "self", code=2), torn, stack(("work", AGENT)), since(library(FOO)))
        assert found.cause == "crash/bus"

    def test_a_deleted_mapping_is_known_by_its_path(self):
        """The kernel adds "(deleted)" to the path of a library that was replaced under the process, which then is to start anew."""
        gone = f"{FOO} (deleted)"
        found, _ = first(died(11), SEGV, faulted(module=gone), stack(("foo", gone)), since(library(FOO, armed=True)))
        assert found.cause == "drift/segfault"
        assert "(deleted)" not in found.headline
        assert found.advice[0].startswith("start the agent anew")

    def test_a_crash_that_somebody_sent_is_no_drift(self):
        """Kill -SEGV from a shell, with the library upgraded and on the stack."""
        found, whole = first(
            died(11), sent(11, "stranger"), faulted(code=0, module=SSL), stack(("SSL_read", SSL)), since(UPGRADED)
        )
        assert found.cause == "killed/signal"
        assert drift_in(whole) == []

    def test_without_a_stack_the_kernel_line_names_the_library(self):
        """No BPF: the kernel log's object is looked up by the name that a library keeps."""
        line = FaultLine(cause="crash/segfault", object="libssl.so.3", object_offset="1c2d40")
        found, _ = first(died(11), logged(fault=line), since(UPGRADED))
        assert found.cause == "drift/segfault"

    def test_a_first_run_is_not_judged(self):
        """Without a baseline a crash in a library is a crash, and it is said that drift was not checked."""
        found = diagnose(*self.CRASH, logs(change()), missing=("baseline-difference",))
        assert found.findings[0].cause == "crash/segfault"
        assert "drift/segfault" in {each.cause for each in found.not_checked}

    def test_an_extension_module_is_told_by_its_distribution(self):
        """A library inside a Python distribution: versions are those of the distribution, and pip goes back."""
        module = "/srv/venv/lib/python3.11/site-packages/numpy/core/_multiarray.so"
        numpy = package("numpy", "1.26.4", "2.2.6")
        inner = library(module, by=numpy.change, owner="numpy 2.2.6")
        found, _ = first(died(11), SEGV, faulted(module=module), stack(("f", module)), since(inner, numpy))
        assert found.culprit.startswith("numpy 1.26.4 -> 2.2.6 (_multiarray.so) at ")
        assert found.advice[0] == "go back: /srv/venv/bin/python -m pip install numpy==1.26.4"


class TestLoader:
    """missing-library, symbol, libc-version and abi, as the loader tells of them."""

    GONE = loader("drift/missing-library", library="libfoo.so.1", program=AGENT)
    UNMET = needs(Unmet(kind="missing-library", needed_by=AGENT, library="libfoo.so.1"))

    def test_a_library_that_was_removed(self):
        """Said by the loader, true of the files now, and there when it was well; it wins over the bare status."""
        found, whole = first(exited(127), self.GONE, self.UNMET, since(library(FOO, "removed", after=None, changed_ns=None)))
        assert (found.cause, found.confidence) == ("drift/missing-library", "certain")
        assert found.culprit == f"libfoo.so.1 removed at some time after {dated(HEALTHY_NS)}"
        assert found.headline.startswith("libfoo.so.1, which agent needs, is not there any more")
        assert set(found.cites) == {"wait-status", "last-words", "elf-needs", "baseline-difference"}
        assert [finding.cause for finding in whole.findings] == ["drift/missing-library", "exit/status"]

    def test_a_library_that_was_never_there(self):
        """Nothing changed: it is a failing exit, and no drift."""
        found, whole = first(exited(127), self.GONE, self.UNMET, UNCHANGED)
        assert found.cause == "exit/status"
        assert "214 libraries and 96 packages unchanged" in ruled_out(whole, "drift/missing-library")

    def test_a_library_that_is_missing_while_another_changed(self):
        """An unrelated upgrade is not blamed for a library that the baseline never had."""
        found, whole = first(exited(127), self.GONE, self.UNMET, since(UPGRADED), logs(change()))
        assert found.cause == "exit/status"
        assert drift_in(whole) == []

    def test_a_first_run_is_judged_by_a_log_of_that_very_package(self):
        """Without a baseline: the need is unmet now, and the log tells that the package of that library was removed."""
        removed = change("libfoo1", "1.0-1", None, kind="removed", by=By(tool="apt", command="apt-get remove -y libfoo1"))
        found, _ = first(exited(127), self.GONE, self.UNMET, logs(change(), removed))
        assert found.cause == "drift/missing-library"
        assert found.culprit == f"libfoo1 1.0-1 (libfoo.so.1) removed at {dated(CHANGED_NS)} by apt-get remove -y libfoo1"
        assert found.advice[0] == "put it back: sudo apt-get install libfoo1=1.0-1"
        assert "package-changes" in found.cites

    @pytest.mark.parametrize(
        "told",
        [logs(change()), logs(change("libfoo1", None, "1.0-1", kind="installed")), logs()],
        ids=["another package", "only installed", "nothing"],
    )
    def test_a_first_run_with_any_other_log_is_not_drift(self, told):
        """A log of another package, or one that merely tells of an installation, proves nothing about this one."""
        found, whole = first(exited(127), self.GONE, self.UNMET, told)
        assert found.cause == "exit/status"
        assert "no healthy run to compare with" in ruled_out(whole, "drift/missing-library")

    def test_a_refusal_that_was_not_heard(self):
        """Its stderr could not be read: the loader's status at the very start, and a library gone that it had loaded, is likely that."""
        gone = since(library(FOO, "removed", after=None, changed_ns=None))
        at_once = msgspec.structs.replace(exited(127), lived_ns=2_000_000)
        found, _ = first(at_once, gone)
        assert (found.cause, found.confidence) == ("drift/missing-library", "likely")
        assert first(exited(127), gone)[0].cause == "exit/status"  # it had run for long: a shell's word for another command
        assert first(msgspec.structs.replace(at_once, code=3), gone)[0].cause == "exit/status"
        assert first(at_once, since(library(FOO)))[0].cause == "exit/status"

    def test_words_that_the_files_contradict(self):
        """The library is there, so the words are of another program or time; a library that changed since does not make it drift."""
        found, whole = first(exited(127), self.GONE, needs(), since(library(FOO)))
        assert found.cause == "exit/status"
        assert "is there now" in ruled_out(whole, "drift/missing-library")

    def test_words_of_long_ago_are_not_judged(self):
        """A loader's complaint that the program outlived explains no status 127."""
        late = words(self.GONE.readings[0], before_end_ns=60_000_000_000)
        found, _ = first(exited(127), late, self.UNMET, since(library(FOO, "removed")))
        assert found.cause == "exit/status"

    def test_a_status_that_no_loader_leaves_with(self):
        """The words of a loader in a log, and status 3."""
        found, whole = first(exited(3), self.GONE, self.UNMET, since(library(FOO, "removed")))
        assert found.cause == "exit/status"
        assert drift_in(whole) == []

    def test_a_symbol_that_a_library_lost(self):
        """An unversioned symbol is in no library any more: the library that changed is the one that lost it."""
        told = loader("drift/symbol", library=AGENT, symbol="foo_old", program=AGENT)
        unmet = needs(Unmet(kind="missing-symbol", needed_by=AGENT, symbol="foo_old"))
        found, _ = first(exited(127), told, unmet, since(library(FOO)))
        assert found.cause == "drift/symbol"
        assert found.headline.startswith("agent does not find foo_old any more: libfoo.so.1 replaced: build 01 -> build 02")
        assert first(exited(127), told, unmet, UNCHANGED)[0].cause == "exit/status"

    def test_a_versioned_symbol_is_blamed_on_the_library_that_should_have_it(self):
        """OPENSSL_1_1_0 is gone from libssl: the file found under its name counts, not the first that changed."""
        told = loader("drift/symbol", library="/srv/libbar.so", symbol="SSL_new", version="OPENSSL_1_1_0", program=AGENT)
        unmet = Unmet(
            kind="missing-symbol", needed_by="/srv/libbar.so", symbol="SSL_new", version="OPENSSL_1_1_0", library="libssl.so.3", found_at=SSL,
            provided_by_package="libssl3 3.0.3-1",
        )  # fmt: skip
        found, _ = first(exited(127), told, needs(unmet, modules=("/srv/libbar.so",)), since(library(FOO), UPGRADED))
        assert found.cause == "drift/symbol"
        assert found.culprit.startswith("libssl3 3.0.2-1 -> 3.0.3-1")

    def test_a_module_loaded_late_by_a_process_with_the_old_library_in_memory(self):
        """The files fit one another now; only a process that still has the old library can lack the symbol."""
        told = words(traceback("drift/symbol", symbol="foo_new", message="/srv/extension.so: undefined symbol: foo_new"))
        fits = needs(modules=("/srv/extension.so",))
        found, _ = first(exited(1), told, fits, since(library(FOO, armed=True)))
        assert found.cause == "drift/symbol"
        assert found.headline.startswith("extension.so does not find foo_new")
        assert first(exited(1), told, fits, since(library(FOO)))[0].cause == "exception/uncaught"

    def test_a_libc_version_is_blamed_on_what_began_to_ask_for_it(self):
        """A library built on a newer system was put in place: not libc is to blame, which is what it was."""
        told = loader("drift/libc-version", library="/lib/libc.so.6", versions=["GLIBC_2.99"], required_by=FOO, program=AGENT)
        unmet = Unmet(
            kind="missing-version", needed_by=FOO, library="libc.so.6", version="GLIBC_2.99", found_at="/lib/libc.so.6"
        )
        found, _ = first(exited(1), told, needs(unmet), since(library(FOO)))
        assert (found.cause, found.confidence) == ("drift/libc-version", "certain")
        assert found.headline.startswith("libfoo.so.1 wants GLIBC_2.99, which libc.so.6 does not have: libfoo.so.1 replaced")
        assert drift_in(first(exited(1), told, needs(unmet), UNCHANGED)[1]) == []

    def test_a_version_of_another_library_is_abi(self):
        """The library was taken back to before the version that the agent was linked with."""
        told = loader("drift/abi", library=FOO, versions=["FOO_1.1"], program=AGENT)
        unmet = Unmet(kind="missing-version", needed_by=AGENT, library="libfoo.so.1", version="FOO_1.1", found_at=FOO)
        found, _ = first(exited(1), told, needs(unmet), since(library(FOO)))
        assert found.cause == "drift/abi"
        assert "agent wants FOO_1.1, which libfoo.so.1 does not have" in found.headline
        assert drift_in(first(exited(1), told, needs(unmet), since(library(SSL)))[1]) == []


class TestPackages:
    """python-import, abi and symbol, as a runtime's errors tell of them."""

    LIBRARY = "/srv/venv/lib/python3.11/site-packages/anthropic/_client.py"
    HTTPX = package("httpx", "0.27.2", "0.28.1")

    def error(self, suggests="exception/uncaught", *, file=LIBRARY, line="super().__init__(proxies=proxies)", **more):
        """An error that came up in a file, at such a line."""
        told = {
            "exception_type": "TypeError",
            "message": "Client.__init__() got an unexpected keyword argument 'proxies'",
        } | more
        shown = f'Traceback (most recent call last):\n  File "/srv/agent.py", line 12, in <module>\n    main()\n  File "{file}", line 9, in f\n    {line}'
        excerpt = f"{shown}\n{told['exception_type']}: {told['message']}"
        return words(traceback(suggests, file=file, excerpt=excerpt, **told))

    def test_a_name_that_a_package_no_longer_has(self):
        """The words name the package, and the package changed: versions, time and tool are told, and how to go back."""
        told = self.error("drift/python-import", exception_type="ImportError", message="cannot import name 'a' from 'httpx'")
        found, whole = first(exited(1), told, failed("import", accused("httpx", "0.27.2", "0.28.1")), since(self.HTTPX))
        assert (found.cause, found.confidence) == ("drift/python-import", "certain")
        assert found.headline.endswith(
            f"after a package changed under it: httpx 0.27.2 -> 0.28.1 at {dated(CHANGED_NS)} by pip"
        )
        assert found.culprit.startswith(f"httpx 0.27.2 -> 0.28.1 at {dated(CHANGED_NS)} by pip, met at agent.py:12")
        assert found.advice[0] == "go back: /srv/venv/bin/python -m pip install httpx==0.27.2"
        assert [finding.cause for finding in whole.findings] == ["drift/python-import", "exception/uncaught"]

    def test_the_same_error_with_nothing_changed(self):
        """It is an error that nobody caught, and drift is ruled out by a count."""
        told = self.error("drift/python-import", exception_type="ImportError", message="cannot import name 'a' from 'httpx'")
        found, whole = first(exited(1), told, failed("import", accused("httpx", "0.28.1", "0.28.1")), UNCHANGED)
        assert found.cause == "exception/uncaught"
        assert "214 libraries and 96 packages unchanged" in ruled_out(whole, "drift/python-import")

    def test_a_keyword_that_a_dependency_no_longer_takes(self):
        """It came up inside one library, which asks for the one that changed."""
        about = failed(
            "argument", accused("anthropic", "0.39.0", "0.39.0", "frame"), accused("httpx", "0.27.2", "0.28.1", "dependency")
        )
        assert first(exited(1), self.error(), about, since(self.HTTPX))[0].cause == "drift/python-import"

    def test_the_same_words_from_its_own_code_after_an_unrelated_upgrade(self):
        """The agent's own function was called wrongly: no library is on the stack."""
        told = self.error(file="/srv/agent.py", message="client() got an unexpected keyword argument 'proxies'")
        found, whole = first(exited(1), told, failed("argument"), since(self.HTTPX))
        assert found.cause == "exception/uncaught"
        assert drift_in(whole) == []

    def test_an_error_that_only_passed_through_an_upgraded_package(self):
        """An upgraded framework called the agent's own code, which raised."""
        told = self.error(file="/srv/agent.py", exception_type="KeyError", message="'plan'", line="plans['plan']")
        about = failed("other", accused("click", "8.1", "8.2", "frame"))
        found, whole = first(exited(1), told, about, since(package("click", "8.1", "8.2")))
        assert found.cause == "exception/uncaught"
        assert drift_in(whole) == []

    def test_an_error_that_an_upgraded_package_raises_itself_is_only_possible(self):
        """It may be right to raise, as a validator is: the error keeps its cause, and the upgrade is named beside it."""
        file = "/srv/venv/lib/python3.11/site-packages/pydantic/main.py"
        told = self.error(file=file, exception_type="ValueError", message="no", line="raise ValueError('no')")
        about = failed("other", accused("pydantic", "2.1", "2.2", "frame"))
        found, whole = first(exited(1), told, about, since(package("pydantic", "2.1", "2.2")))
        assert found.cause == "exception/uncaught"
        assert [(each.cause, each.confidence) for each in whole.findings[1:]] == [("drift/python-import", "possible")]

    def test_words_that_blame_something_else_are_seen_through(self):
        """Passlib over bcrypt: a ValueError about a password, at a line of passlib that calls bcrypt, which changed."""
        file = "/srv/venv/lib/python3.11/site-packages/passlib/handlers/bcrypt.py"
        told = self.error(
            file=file, exception_type="ValueError", message="password too long", line="hash = _bcrypt.hashpw(secret, config)"
        )
        about = failed("other", accused("passlib", "1.7", "1.7", "frame"), accused("bcrypt", "4.0.1", "5.0.0", "dependency"))
        upgraded = since(package("bcrypt", "4.0.1", "5.0.0"))
        assert first(exited(1), told, about, upgraded)[0].cause == "drift/python-import"
        raises = self.error(
            file=file, exception_type="ValueError", message="bcrypt says no", line="raise ValueError('bcrypt says no')"
        )
        assert drift_in(first(exited(1), raises, about, upgraded)[1]) == []
        elsewhere = self.error(file=file, exception_type="ValueError", message="no", line="rounds = int(text)")
        assert drift_in(first(exited(1), elsewhere, about, upgraded)[1]) == []

    def test_a_network_error_through_an_upgraded_client_is_a_network_error(self):
        """Every frame is in the package that changed, but nobody listens on that port."""
        file = "/srv/venv/lib/python3.11/site-packages/httpx/_transports/default.py"
        told = self.error(
            "exception/network", file=file, exception_type="httpx.ConnectError", message="[Errno 111] Connection refused"
        )
        about = failed("other", accused("httpx", "0.27.2", "0.28.1"))
        found, whole = first(exited(1), told, about, since(self.HTTPX))
        assert found.cause == "exception/network"
        assert drift_in(whole) == []

    def test_a_missing_module_is_not_blamed_on_a_dependency(self):
        """The words name a module that was never there; that something else was upgraded is no proof."""
        told = self.error(
            "drift/python-import", exception_type="ModuleNotFoundError", message="No module named 'sentencepiece'"
        )
        about = failed("import", accused("sentencepiece", None, None), accused("httpx", "0.27.2", "0.28.1", "dependency"))
        assert drift_in(first(exited(1), told, about, since(self.HTTPX))[1]) == []

    def test_a_package_that_was_removed(self):
        """The module belonged to a distribution that is gone."""
        told = self.error("drift/python-import", exception_type="ModuleNotFoundError", message="No module named 'yaml'")
        gone = Changed(drifted=Drifted(kind="distribution", name="PyYAML", how="removed", before="6.0"))
        found, _ = first(exited(1), told, failed("import", accused("PyYAML", "6.0", None, module="yaml")), since(gone))
        assert found.culprit.startswith(f"PyYAML 6.0 removed at some time after {dated(HEALTHY_NS)}")
        assert found.advice[0] == "go back: pip install PyYAML==6.0"

    def test_compiled_parts_that_no_longer_fit(self):
        """Numpy was upgraded alone."""
        told = self.error(
            "drift/abi", exception_type="ValueError", message="numpy.dtype size changed, may indicate binary incompatibility"
        )
        about = failed("abi", accused("numpy", "1.26.4", "2.2.6"))
        assert first(exited(1), told, about, since(package("numpy", "1.26.4", "2.2.6")))[0].cause == "drift/abi"
        assert drift_in(first(exited(1), told, failed("abi", accused("numpy", "1.26.4", "1.26.4")), UNCHANGED)[1]) == []

    def test_a_first_run_in_a_new_venv_is_not_drift(self):
        """Without a baseline pip's metadata tells when a package was installed, not that another version was there before."""
        told = self.error("drift/python-import", exception_type="ImportError", message="cannot import name 'a' from 'httpx'")
        fresh = Change(
            what="httpx", ecosystem="python", kind="installed", wall_ns=CHANGED_NS, precision_ns=1, source="/srv", to_version="0.28.1", by=By(tool="pip")
        )  # fmt: skip
        about = failed("import", accused("httpx", None, "0.28.1", change=fresh), compared=False)
        found, whole = first(exited(1), told, about, logs(fresh))
        assert found.cause == "exception/uncaught"
        assert drift_in(whole) == []

    def test_a_node_package_that_no_longer_gives_a_part_away(self):
        """The message names the package by its path; npm goes back in the same project."""
        message = "Package subpath './v4' is not defined by \"exports\" in /srv/node_modules/uuid/package.json"
        told = words(read("exception/uncaught", "node", message=message, exception_type="Error", excerpt=f"Error: {message}"))
        uuid = accused("uuid", "3.4.0", "9.0.1", "frame", ecosystem="node")
        difference = since(package("uuid", "3.4.0", "9.0.1", kind="node-package"))
        found, _ = first(exited(1), told, failed("other", uuid, kind="Error", message=message), difference)
        assert found.cause == "drift/symbol"
        assert found.advice == ("go back: npm install --prefix /srv uuid@3.4.0",)

    def test_a_node_package_that_is_called_by_its_name_and_is_no_function_any_more(self):
        """ansi-regex became an ES module: what strip-ansi calls ansiRegex is an object now; another name is another matter."""
        difference = since(package("ansi-regex", "5.0.1", "6.0.1", kind="node-package"))
        about = failed("other", accused("strip-ansi", "6.0.1", "6.0.1", "frame", ecosystem="node"), kind="TypeError")

        def told(message):
            return words(
                read("exception/uncaught", "node", message=message, exception_type="TypeError", excerpt=f"TypeError: {message}")
            )

        found, _ = first(exited(1), told("ansiRegex is not a function"), about, difference)
        assert found.cause == "drift/symbol"
        assert found.culprit.startswith("ansi-regex 5.0.1 -> 6.0.1 at ")
        for message in ("plan is not a function", "regex is not a function", "ansiRegex is not iterable"):
            assert drift_in(first(exited(1), told(message), about, difference)[1]) == []

    def test_a_node_package_whose_export_the_source_calls_by_another_name(self):
        """The source that failed is older than the baseline and binds the name to a package: one that changed is drift, another is not."""
        message = "limit is not a function"
        told = words(
            read("exception/uncaught", "node", message=message, exception_type="TypeError", excerpt=f"TypeError: {message}")
        )
        difference = since(package("p-limit", "3.1.0", "4.0.0", kind="node-package"))
        changed = accused("p-limit", "3.1.0", "4.0.0", "called", ecosystem="node")
        found, _ = first(exited(1), told, failed("other", changed, kind="TypeError", message=message), difference)
        assert found.cause == "drift/symbol"
        assert found.culprit.startswith("p-limit 3.1.0 -> 4.0.0 at ")
        same = accused("queue", "1.0.0", "1.0.0", "called", ecosystem="node")
        other = accused("p-limit", "3.1.0", "4.0.0", "frame", ecosystem="node")
        for about in ((same, other), (same,), (other,), ()):
            found, whole = first(exited(1), told, failed("other", *about, kind="TypeError", message=message), difference)
            assert drift_in(whole) == []

    def test_an_interpreter_that_was_moved_away(self):
        """A shell does not find the Python of a venv, whose base is not where it was."""
        moved = Changed(
            drifted=Drifted(kind="interpreter", name="python", how="removed", before="3.11.2", path="/opt/base/bin/python3.11")
        )
        told = words(text="run.sh: 2: /srv/venv/bin/python: not found")
        found, _ = first(exited(127), told, since(moved))
        assert found.cause == "drift/python-import"
        assert "python 3.11.2 removed" in found.culprit
        assert "python3 -m venv" in found.advice[0]
        other = words(text="run.sh: 2: /srv/bin/helper-tool: not found")
        assert first(exited(127), other, since(moved))[0].cause == "exit/status"
        assert first(exited(127), told, UNCHANGED)[0].cause == "exit/status"

    def test_modules_that_a_new_interpreter_does_not_find(self):
        """The packages are where they were, but the interpreter looks elsewhere."""
        moved = Changed(
            drifted=Drifted(
                kind="interpreter", name="python", how="upgraded", before="3.11.2", after="3.13.5", changed_ns=CHANGED_NS
            )
        )
        told = self.error("drift/python-import", exception_type="ModuleNotFoundError", message="No module named 'httpx'")
        found, _ = first(exited(1), told, failed("import", accused("httpx", "0.27.2", "0.27.2")), since(moved))
        assert found.cause == "drift/python-import"
        assert "python 3.11.2 -> 3.13.5" in found.headline


class TestWords:
    """What is said of a change."""

    def test_evidence_of_drift_is_judged_the_same_from_records(self):
        """A recording holds all that the causes ask: the verdict needs no file of the machine it came from."""
        evidence = (
            died(11),
            SEGV,
            faulted(module=SSL),
            stack(("SSL_read", SSL)),
            since(UPGRADED),
            logs(change(), healthy=True),
        )
        live = diagnose(*evidence)
        again = classify(from_records(Scene, tuple(each.record("context") for each in evidence)))
        assert again == live
        refused = (exited(127), TestLoader.GONE, TestLoader.UNMET, since(library(FOO, "removed")), failed("other"))
        assert classify(from_records(Scene, tuple(each.record("context") for each in refused))) == diagnose(*refused)

    @pytest.mark.parametrize(
        ("ecosystem", "more", "expected"),
        [
            ("dpkg", {}, "go back: sudo apt-get install --allow-downgrades foo=1.0"),
            ("rpm", {}, "go back: sudo dnf downgrade foo-1.0"),
            ("pacman", {}, "go back: sudo pacman -U /var/cache/pacman/pkg/foo-1.0-*.pkg.tar.zst"),
            ("apk", {}, "go back: apk add foo=1.0"),
            ("nix", {}, "go back one generation: sudo nixos-rebuild switch --rollback"),
            ("python", {}, "go back: pip install foo==1.0"),
            ("python", {"path": "/srv/venv/lib/python3.12/site-packages/foo-2.dist-info", "tool": "uv"}, "go back: uv pip install --python /srv/venv/bin/python foo==1.0"),
            ("python", {"tool": "conda"}, "go back: conda install foo=1.0"),
            ("node", {"path": "/srv/my app/node_modules/foo"}, "go back: npm install --prefix '/srv/my app' foo@1.0"),
            ("image", {}, "go back: start the container from 1.0 again"),
            (None, {"path": "/srv/libfoo.so.1"}, "put back /srv/libfoo.so.1 as it was"),
        ],
    )  # fmt: skip
    def test_how_to_go_back_in_each_ecosystem(self, ecosystem, more, expected):
        """One line to type, for the tool that the package belongs to."""
        assert going_back(ecosystem, "foo", "1.0", **more)[0].startswith(expected)

    def test_how_a_removed_package_is_put_back(self):
        """Nothing newer stands in the way, so nothing is downgraded; what keeps it is that somebody wants it."""
        assert going_back("dpkg", "foo", "1.0", removed=True) == (
            "put it back: sudo apt-get install foo=1.0",
            "and keep it from being removed as no longer needed: sudo apt-mark manual foo",
        )
        assert going_back("rpm", "foo", "1.0", removed=True) == ("put it back: sudo dnf install foo-1.0",)
        assert going_back("python", "foo", "1.0", removed=True)[0] == "go back: pip install foo==1.0"

    def test_what_a_forged_log_names_is_quoted(self):
        """A package cannot put a command of its own into the line that a person types."""
        assert going_back("dpkg", "x; rm -rf /", "1")[0] == "go back: sudo apt-get install --allow-downgrades 'x; rm -rf /=1'"
        assert "'$(id)'" in going_back("pacman", "$(id)", None)[0]

    def test_the_author_is_the_command_and_who_typed_it(self):
        """What runs by itself is told by its name."""
        assert who(By(tool="apt", command="apt-get install -y foo", user="alice")) == " by apt-get install -y foo (alice)"
        assert who(UPGRADES) == " by unattended-upgrades"
        assert who(By(tool="pip")) == " by pip"
        assert who(None) == ""

    def test_a_change_without_a_time_says_since_when(self):
        """A removed file has no time of its own."""
        gone = Culprit(name="libfoo.so.1", how="removed", before="build 01", since_ns=HEALTHY_NS)
        assert gone.headline() == f"libfoo.so.1 removed at some time after {dated(HEALTHY_NS)}"
        bounded = replace(gone, until_ns=HEALTHY_NS + 600 * 1_000_000_000)
        assert bounded.headline() == f"libfoo.so.1 removed between {dated(HEALTHY_NS)} and {dated(bounded.until_ns)}"
        assert replace(gone, until_ns=HEALTHY_NS).headline() == f"libfoo.so.1 removed at {dated(HEALTHY_NS)}"
        assert replace(gone, until_ns=HEALTHY_NS - 1).headline() == gone.headline()
