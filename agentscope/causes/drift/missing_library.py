"""A library or module that it needs is not there any more, though it was when it last worked.

What it means: a program names the libraries that it wants, and the loader looks for them when it starts. An upgrade
put another version under another name, or a clean-up removed a package that nothing else needed, and the name leads
nowhere.

How agentscope knows: the loader said which library it did not find, and the program ended just so; the files on this
machine, read without running anything, still lack it; and the library, or the program that began to ask for it, is
not what it was when the agent last worked. A package log can stand for that where the agent was never watched before.

What to do: install the version again that the report names, or build the program against the new one. Then keep it:
apt-mark hold, a pinned version, an image by its digest.

What looks like it but is not: a library that was never there (exit/status); the same words in a log of another
program; a library that is there but lacks a function (drift/symbol) or a version (drift/abi, drift/libc-version).
"""

from agentscope.causes import No
from agentscope.causes.crash import base
from agentscope.causes.drift import (
    Refusal,
    finding,
    interpreter_moved,
    judged,
    lacking,
    not_shown,
    of_file,
    of_package,
    packages_of,
    refused,
)
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.baseline_difference import BaselineDifference
from agentscope.evidence.elf_needs import ElfNeeds
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.import_failure import ImportFailure
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.package_changes import PackageChanges
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

BY_LOADER = 127
AT_START_NS = 2_000_000_000


def match(
    *,
    status: WaitStatus,
    words: LastWords | None,
    actor: SignalActor | None,
    fault: FaultFacts | None,
    log: KernelLog | None,
    difference: BaselineDifference | None,
    changes: PackageChanges | None,
    needs: ElfNeeds | None,
    imported: ImportFailure | None,
) -> Finding | No:
    """The loader, or a runtime's import, does not find what was there before."""
    if words is None:
        return unspoken(status, difference)
    refusal = Refusal(status, words, actor, fault, log, difference, changes, needs, imported)
    told = judged(refusal, "drift/missing-library", "missing library")
    if isinstance(told, No):
        return told
    assert told.reading is not None
    lack = lacking(refusal, told.reading)
    if isinstance(lack, No):
        return lack
    library = lack.fact("library")
    culprit = (
        of_file(library, difference)
        or of_file(lack.user, difference)
        or of_package(packages_of(lack), difference, changes, base(library))
        or interpreter_moved(refusal, told.reading)
        or refused(refusal, told.reading)
    )
    if culprit is None:
        return not_shown(difference, changes)
    what = base(library) or lack.fact("module") or "something that it needs"
    user = f", which {base(lack.user)} needs," if lack.user else ""
    return finding(f"{what}{user} is not there any more", culprit, lack.cites, told.confidence)


def unspoken(status: WaitStatus, difference: BaselineDifference | None) -> Finding | No:
    """Its words were not heard: the loader's own status right at the start, and a library gone that it had loaded when it was well."""
    if status.signal is not None:
        return No(f"it {status.says()}")
    if status.code != BY_LOADER or status.lived_ns is None or status.lived_ns > AT_START_NS:
        return No("it wrote nothing before it ended")
    for changed in difference.own if difference is not None else ():
        if changed.drifted.kind == "library" and changed.drifted.how == "removed":
            culprit = of_file(changed.drifted.path, difference)
            if culprit is not None:
                return finding(f"{changed.drifted.name}, which it used, is not there any more", culprit, (), "likely")
    return not_shown(difference, None)
