"""Two parts of it no longer fit one another in binary form, though they did when it last worked.

What it means: compiled code is built for one form of what it uses: a version of a library's functions, the layout of
numpy's arrays, the interface of one Node. The other side was upgraded or taken back alone, and says that it does not
fit.

How agentscope knows: the loader or the runtime said what does not fit, in its last words before just such an end; and
one of the two parts, a library or an installed package, is not what it was when the agent last worked.

What to do: go back to the version that the report names, or upgrade the other part too: pip install -U both together,
npm rebuild after a new Node. Pin what must fit, numpy above all.

What looks like it but is not: a crash without words (drift/segfault); a single function that is missing
(drift/symbol); a C library that is too old (drift/libc-version); two parts that never fitted (exception/uncaught,
exit/status).
"""

from agentscope.causes import No
from agentscope.causes.drift import (
    Lack,
    Refusal,
    finding,
    judged,
    lacking,
    not_shown,
    of_file,
    of_package,
    packages_of,
    refused,
    unfit,
)
from agentscope.causes.exception import first_line
from agentscope.culprits import Culprit
from agentscope.model import Finding


def match(refusal: Refusal) -> Finding | No:
    """A version of names is missing from a library, or a runtime says that a compiled module was built for another form."""
    told = judged(refusal, "drift/abi", "parts that do not fit")
    if isinstance(told, No):
        return told
    assert told.reading is not None
    culprit = refused(refusal, told.reading)
    if culprit is not None:
        return finding(f"Two parts no longer fit: {first_line(told.reading)}", culprit, ("last-words",), told.confidence)
    lack = lacking(refusal, told.reading)
    if isinstance(lack, No):
        return lack
    culprit = of_loader(refusal, lack)
    if culprit is None:
        return not_shown(refusal.difference, refusal.changes)
    return finding(unfit(lack), culprit, lack.cites, told.confidence)


def of_loader(refusal: Refusal, lack: Lack) -> Culprit | None:
    """Which side changed: the library that lacks the version, else the one that asks for it."""
    found_at = (lack.unmet.found_at if lack.unmet else None) or lack.fact("library")
    return (
        of_file(found_at, refusal.difference)
        or of_file(lack.user, refusal.difference)
        or of_package(packages_of(lack), refusal.difference, refusal.changes)
    )
