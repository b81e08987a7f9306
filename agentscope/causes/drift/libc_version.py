"""Something it loads was built for a newer C or C++ library than there is, and was not when it last worked.

What it means: what was built on a newer system asks for functions of its C library by version, such as GLIBC_2.38,
and an older system does not have them. It comes with a binary, wheel or library that was replaced, or with a base
image or C library that was taken back.

How agentscope knows: the loader said which version it did not find and who asks for it, and the program ended just
so; the files on this machine, read without running anything, agree; and the one that asks, or the C library, is not
what it was when the agent last worked.

What to do: go back to the version that the report names, or take a build that was made for a system as old as this
one (a manylinux wheel, a static build). The C library itself is upgraded only with the whole system.

What looks like it but is not: a version of another library's names (drift/abi); one function that is missing
(drift/symbol); a binary that was copied here and never worked (exit/status).
"""

from agentscope.causes import No
from agentscope.causes.drift import (
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
from agentscope.model import Finding


def match(refusal: Refusal) -> Finding | No:
    """A version of the C or C++ library that is asked for is not in the one that is there."""
    told = judged(refusal, "drift/libc-version", "C library that is too old")
    if isinstance(told, No):
        return told
    assert told.reading is not None
    lack = lacking(refusal, told.reading)
    if isinstance(lack, No):
        return lack
    found_at = (lack.unmet.found_at if lack.unmet else None) or lack.fact("library")
    culprit = (
        of_file(lack.user, refusal.difference)
        or of_file(found_at, refusal.difference)
        or of_package(packages_of(lack), refusal.difference, refusal.changes)
        or refused(refusal, told.reading)
    )
    if culprit is None:
        return not_shown(refusal.difference, refusal.changes)
    return finding(unfit(lack), culprit, lack.cites, told.confidence)
