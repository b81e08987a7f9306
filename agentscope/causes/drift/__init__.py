"""Class `drift`: what a program stands on was changed under it, and it broke there. What its causes judge by, once for all of them.

Two proofs are asked for: a failure inside a thing that is not what it was, and a change of that thing since the last healthy run.
With only the first the failure keeps its own cause; with only the second there is no incident at all.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from agentscope.baseline.joining import Changed
from agentscope.baseline.joining import _package_names as package_names
from agentscope.causes import No
from agentscope.causes.crash import base
from agentscope.causes.exception import fact, last_error
from agentscope.changes import Ecosystem
from agentscope.culprits import SHOWN, Culprit, of_change, of_changed
from agentscope.distributions.installed import normal
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.baseline_difference import BaselineDifference
from agentscope.evidence.elf_needs import ElfNeeds
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.import_failure import AccusedNow, ImportFailure
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LINES_AFTER, LONG_PAST_NS, NOT_STARTED, LastWords
from agentscope.evidence.package_changes import PackageChanges
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence, Finding, Reading
from agentscope.symbols.needs import Unmet

SYSTEM: tuple[Ecosystem, ...] = ("dpkg", "rpm", "pacman", "apk", "nix")
BY_LOADER = frozenset({"drift/missing-library", "drift/symbol", "drift/libc-version", "drift/abi"})
# Without a healthy run to compare with, a package that was merely installed may have been so from the beginning.
OVERTURNED = frozenset({"upgraded", "downgraded", "removed"})
LIBRARY_CODE = ("/site-packages/", "/dist-packages/", "/node_modules/")
# How shells and the kernel's own words tell that the program behind a path is not there: POSIX sh, bash, env(1).
_NO_PYTHON = re.compile(
    r"/python[\d.]{0,5}\b.{0,40}(?:not found|No such file|required file|bad interpreter)|bad interpreter: .{0,400}/python"
)
_NAMED = re.compile(r"(/[^:\n]{1,400}\.so[^:\n]{0,40}): ")
_NO_FUNCTION = re.compile(r"\b([A-Za-z_$][\w$]{0,80})(?:\.\w{1,80})?\)? is not a (?:function|constructor)")
LAST_LINES = 6


def proven(changed: Changed | None, difference: BaselineDifference) -> bool:
    """Whether it changed after the baseline: by a log or the file system. Where neither has a time, the difference itself says so.

    A name that leads to another file now, as alternatives and the store of Nix do, can lead to one that has long been there.
    """
    if changed is None:
        return False
    drifted, change = changed.drifted, changed.change
    times = [drifted.changed_ns, change.wall_ns + change.precision_ns if change else None]
    known = [time_ns for time_ns in times if time_ns is not None]
    led_elsewhere = drifted.former_path not in {None, drifted.path}
    return not known or led_elsewhere or max(known) >= difference.since_wall_ns


def of_file(path: str | None, difference: BaselineDifference | None) -> Culprit | None:
    """The change of a file, if it is proven. A program of no package is its owner's own work: a change of it is no drift."""
    changed = difference.of_file(path) if difference is not None and path else None
    if changed is None or difference is None or not proven(changed, difference):
        return None
    if changed.drifted.kind == "program" and changed.owner is None and changed.change is None:
        return None
    culprit = of_changed(changed, difference)
    # metadata of languages tells only the version that is there: the one before is in the baseline
    package = _of_language(culprit.ecosystem, culprit.name, difference)
    return replace(culprit, before=package.before, after=package.after, path=package.drifted.path) if package else culprit


def _of_language(ecosystem: Ecosystem | None, name: str, difference: BaselineDifference) -> Changed | None:
    """The change of a Python distribution or a Node package itself, not of a library in it."""
    kind = {"python": "distribution", "node": "node-package"}.get(ecosystem or "")
    return next(
        (each for each in difference.changed if each.drifted.kind == kind and normal(each.drifted.name) == normal(name)), None
    )


def of_package(
    names: Iterable[str], difference: BaselineDifference | None, changes: PackageChanges | None, file: str = ""
) -> Culprit | None:
    """The change of the first of these packages of the system that has one, by the baseline or by a log."""
    for name in names:
        for ecosystem in SYSTEM:
            changed = difference.of_package(ecosystem, name) if difference is not None else None
            if changed is not None and difference is not None and proven(changed, difference):
                return of_changed(changed, difference)
            change = changes.of_package(ecosystem, name) if changes is not None else None
            if change is not None and changes is not None and (difference is not None or change.kind in OVERTURNED):
                return of_change(change, changes.clock, file)
    return None


def not_shown(difference: BaselineDifference | None, changes: PackageChanges | None) -> No:
    """The failure could be drift, but no change of what it failed on is known."""
    if difference is None:
        logs = "no package log tells of a change of what it failed on" if changes is not None else "there is no package log"
        return No(f"drift not shown: there is no healthy run to compare with, and {logs}")
    if not difference.own:
        return No(f"nothing that it uses changed: {difference.says()}")
    first = ", ".join(dict.fromkeys(each.name for each in difference.own[:3]))
    return No(
        f"drift not shown: it did not fail in what changed since {difference.clock.moment(difference.since_wall_ns)} ({first})"
    )


@dataclass(frozen=True)
class Told:
    """The words that account for the end, which of these causes they can be of, and how sure it is that they ended it.

    `reading` is None where only a shell's words are there, which no reader knows.
    """

    reading: Reading | None
    slug: str
    confidence: Confidence


@dataclass(frozen=True)
class Refusal:
    """What there is to judge a program by that was refused a library or a package."""

    status: WaitStatus
    words: LastWords
    actor: SignalActor | None
    fault: FaultFacts | None
    log: KernelLog | None
    difference: BaselineDifference | None
    changes: PackageChanges | None
    needs: ElfNeeds | None
    imported: ImportFailure | None

    def told(self) -> Told | No:
        """The words that account for the end, if a loader or runtime that is refused something ends a program just so."""
        status, words = self.status, self.words
        if status.signal is not None:
            return No(f"it {status.says()}")
        if status.code in NOT_STARTED:
            return self._not_started()
        told = last_error(status, words, self.actor, self.fault, self.log)
        if isinstance(told, No):
            return told
        suggests = told.reading.suggests or ""
        if not suggests.startswith("drift/") and suggests != "exception/uncaught":
            return No(f"the error is of a kind of its own: {told.reading.says}")
        return Told(told.reading, self._slug(told.reading), told.confidence)

    def _not_started(self) -> Told | No:
        """A status that a loader or shell gives: what it said must be the last words."""
        words = self.words
        if words.before_end_ns is not None and words.before_end_ns > LONG_PAST_NS:
            return No("its last words are from long before its end")
        for reading in words.readings:
            if (reading.suggests or "").startswith("drift/") and words.lines_after(reading) <= LINES_AFTER:
                return Told(reading, self._slug(reading), "certain")
        return Told(None, "drift/python-import", "certain")

    def _slug(self, reading: Reading) -> str:
        if reading.suggests in BY_LOADER:
            return reading.suggests
        if reading.reader == "node":
            return "drift/symbol"  # a name that a package no longer gives
        abi = self.imported is not None and self.imported.failure == "abi"
        return "drift/abi" if abi else "drift/python-import"


def judged(refusal: Refusal, slug: str, sign: str) -> Told | No:
    """What was told, if it is of this cause; `sign` is what this cause would be told of."""
    told = refusal.told()
    if isinstance(told, No) or told.slug == slug:
        return told
    return No(f"its last words tell of no {sign}")


# --- what the loader was refused --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lack:
    """What the loader did not find, by its own words and by the files as they stand now (`unmet`, where they agree)."""

    reading: Reading
    unmet: Unmet | None

    def fact(self, name: str) -> str:
        """One fact of the words; empty where they do not tell it."""
        return fact(self.reading, name)

    @property
    def version(self) -> str:
        """The version that was asked for."""
        versions = self.reading.facts.get("versions")
        named = str(versions[0])[:SHOWN] if isinstance(versions, list | tuple) and versions else self.fact("version")
        return named or (self.unmet.version if self.unmet else None) or ""

    @property
    def user(self) -> str:
        """The file that asks for it."""
        if self.unmet is not None:
            return self.unmet.needed_by
        told = self.fact("required_by") or (self.fact("library") if self.fact("symbol") else "") or self.fact("program")
        named = _NAMED.match(self.fact("message"))  # an import names the module first
        return told or (named[1] if named else "")

    @property
    def cites(self) -> tuple[str, ...]:
        """The kinds of evidence that say that it is lacking."""
        return ("wait-status", "last-words", *(("elf-needs",) if self.unmet else ()))


def lacking(refusal: Refusal, reading: Reading) -> Lack | No:
    """What is lacking. Where the files have all that is asked for, only a process with an older one in memory can have lacked it."""
    needs = refusal.needs
    symbol, library = fact(reading, "symbol") or None, fact(reading, "library") or None
    lack = Lack(reading, None)
    if needs is None:
        return lack
    unmet = (
        needs.about(symbol=symbol)
        if symbol
        else needs.about(version=lack.version, library=library)
        if lack.version
        else needs.about(library=library)
    )
    stale = refusal.difference is not None and any(each.drifted.armed for each in refusal.difference.own)
    if unmet is None and needs.limited is None and not stale:
        return No(f"{needs.says()}, so nothing shows that it was refused one")
    return Lack(reading, unmet)


def packages_of(lack: Lack) -> tuple[str, ...]:
    """Packages of the system that the thing can be of: the owner of the file, else those that are called like the library."""
    owner = lack.unmet.provided_by_package if lack.unmet else None
    library = lack.fact("library") if not lack.fact("symbol") else (lack.unmet.library if lack.unmet else None) or ""
    return (*((owner.partition(" ")[0],) if owner else ()), *sorted(package_names(library) if library else ()))


def unfit(lack: Lack) -> str:
    """The refusal of a version: "agent wants GLIBC_2.38, which libc.so.6 does not have"."""
    if not lack.version:
        return lack.fact("message") or lack.reading.says[:SHOWN]
    library = base(lack.unmet.found_at or "" if lack.unmet else "") or base(lack.fact("library")) or "no library"
    return f"{base(lack.user) or 'It'} wants {lack.version}, which {library} does not have"


def used(refusal: Refusal, user: str) -> Culprit | None:
    """The change of a library that the program used when it was well, other than the one that asks."""
    difference = refusal.difference
    for changed in difference.own if difference is not None else ():
        if changed.drifted.kind == "library" and user not in {changed.drifted.path, changed.drifted.former_path}:
            return of_file(changed.drifted.path or changed.drifted.former_path, difference)
    return None


def refused(refusal: Refusal, reading: Reading) -> Culprit | None:
    """The change of the package of a language in which the loader was asked."""
    found = suspect(refusal, reading)
    return found.culprit if found is not None and found.sure else None


def finding(
    headline: str,
    culprit: Culprit,
    cites: Iterable[str],
    confidence: Confidence = "certain",
    *,
    more: str = "",
    advice: tuple[str, ...] = (),
) -> Finding:
    """Drift as it is told: what happened, then what changed, with both versions, the time and the author.

    `more` is added to the culprit; `advice` stands in place of how to go back.
    """
    armed = (
        ("start the agent anew: it ran with the old one in memory, while the new one stood on disk",) if culprit.armed else ()
    )
    return Finding(
        headline=f"{headline}: {culprit.headline()}",
        culprit=f"{culprit.full()}{more}",
        confidence=confidence,
        cites=tuple(dict.fromkeys(("wait-status", *cites, *culprit.cites))),
        advice=(*armed, *(advice or culprit.advice())),
    )


# --- what an import or a call failed on -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suspect:
    """A package that changed and that the failure is about; not `sure` where it may be innocent."""

    culprit: Culprit
    sure: bool


def suspect(refusal: Refusal, reading: Reading | None) -> Suspect | None:
    """The changed package that an error is about.

    One that the words name is, and one whose export was called, by the source that failed. One that a library asks for is,
    where the error came up inside that library: then two packages disagree, not the program with a package. An error of no particular
    kind can come from anywhere: there the line that failed must name the package and not raise the error itself.
    """
    imported = refusal.imported
    if imported is None:
        return None
    called = _called(reading, refusal) if reading is not None and reading.reader == "node" else None
    if called is not None:
        return Suspect(called, sure=True)
    changed = [(each, culprit) for each in imported.accused if (culprit := _changed(each, refusal)) is not None]
    drift_words = reading is None or (reading.suggests or "").startswith("drift/")
    of_a_kind = imported.failure != "other" or drift_words
    for each, culprit in changed:
        if each.role in {"named", "called"} or f"node_modules/{each.name}/" in imported.message:
            return Suspect(culprit, of_a_kind or each.ecosystem == "node")
    named = any(each.role == "named" for each in imported.accused)
    if reading is None or not _in_library(reading) or (imported.failure == "import" and named):
        return None
    innermost = next((each for each in imported.accused if each.role == "frame"), None)
    close = [(each, culprit) for each, culprit in changed if each is innermost or each.role == "dependency"]
    line = _line_of(reading)
    mentioned = next((culprit for each, culprit in close if _mentions(line, each.name)), None)
    if of_a_kind and close:
        return Suspect(mentioned or close[0][1], sure=True)
    if mentioned is not None and not line.startswith("raise"):
        return Suspect(mentioned, sure=True)
    raised_in = next((culprit for each, culprit in close if each is innermost), None)
    return Suspect(raised_in, sure=False) if raised_in is not None else None


def _called(reading: Reading, refusal: Refusal) -> Culprit | None:
    """The Node package that is called by its name and is no function any more: what `require("ansi-regex")` gave is `ansiRegex`."""
    names = {re.sub(r"[\W_]", "", name).lower() for name in _NO_FUNCTION.findall(fact(reading, "message"))}
    difference = refusal.difference
    for changed in difference.own if difference is not None and names else ():
        name = re.sub(r"[\W_]", "", changed.drifted.name.rpartition("/")[2]).lower()
        if changed.drifted.kind == "node-package" and name in names and difference is not None and proven(changed, difference):
            return replace(of_changed(changed, difference), cites=("import-failure", "baseline-difference"))
    return None


def interpreter_moved(refusal: Refusal, reading: Reading | None) -> Culprit | None:
    """The change of the interpreter itself, or of its venv, where a shell did not find it, or it did not find its modules."""
    difference = refusal.difference
    if reading is None:
        tail = [line for line in refusal.words.text.splitlines() if line.strip()][-LAST_LINES:]
        missed = any(_NO_PYTHON.search(line[:1000]) for line in tail)
    else:
        missed = "No module named" in reading.excerpt or bool(_NO_PYTHON.search(reading.excerpt[:2000]))
    for changed in difference.own if difference is not None and missed else ():
        if changed.drifted.kind in {"interpreter", "venv"} and difference is not None and proven(changed, difference):
            return of_changed(changed, difference)
    return None


def _changed(accused: AccusedNow, refusal: Refusal) -> Culprit | None:
    """The change of one of the accused, if one is shown: by the baseline, or where there is none by a log that tells both versions."""
    difference, imported, change = refusal.difference, refusal.imported, accused.change
    assert imported is not None
    if not imported.compared or difference is None:
        shown = change is not None and change.kind in OVERTURNED
        return (
            replace(of_change(change, imported.clock), cites=("package-changes", "import-failure"))
            if shown and change is not None
            else None
        )
    if accused.version_now == accused.version_before:
        return None
    changed = _of_language(accused.ecosystem, accused.name, difference)
    known = of_changed(changed, difference) if changed is not None else Culprit(name=accused.name, how="changed")
    return replace(
        known,
        name=accused.name,
        how="removed" if accused.version_now is None else "added" if accused.version_before is None else "changed",
        before=accused.version_before,
        after=accused.version_now,
        wall_ns=change.wall_ns if change else known.wall_ns,
        since_ns=difference.since_wall_ns,
        by=(change.by if change else None) or known.by,
        ecosystem=accused.ecosystem,
        cites=("import-failure", "baseline-difference"),
        clock=difference.clock,
    )


def _in_library(reading: Reading) -> bool:
    """Whether the error came up in an installed package, not in the program's own code."""
    return any(part in fact(reading, "file") for part in LIBRARY_CODE)


def _line_of(reading: Reading) -> str:
    """The source of the innermost frame of a Python traceback, without its indentation."""
    lines = reading.excerpt.splitlines()
    place = next((number for number in range(len(lines) - 1, -1, -1) if lines[number].lstrip().startswith('File "')), None)
    return lines[place + 1].strip() if place is not None and place + 1 < len(lines) else ""


def _mentions(line: str, name: str) -> bool:
    return name.replace("-", "_").lower() in line.lower()
