"""A library or package no longer has a function that it needs, though it did when it last worked.

What it means: a library kept its name but lost a function, or a package of Node no longer gives a part of itself
away. What was built for the version before asks for it, by name, and is refused: at the start, or only at the first
call.

How agentscope knows: the loader or runtime said which name it did not find, and the program ended just so; the files
on this machine, read without running anything, still lack it, or the process had an older library in memory than the
one on disk; and the library is not what it was when the agent last worked. Of Node: what was called and is no function
is the package's, by its path, its name, or the line of a source that is older than the last healthy run.

What to do: go back to the version that the report names, or build what asks for the name against the new one.

What looks like it but is not: a library that is not there at all (drift/missing-library); a version of names that is
missing as a whole (drift/abi, drift/libc-version); a program that was built wrongly and never worked (exit/status).
"""

from agentscope.causes import No
from agentscope.causes.crash import base
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
    used,
)
from agentscope.causes.exception import first_line
from agentscope.model import Finding


def match(refusal: Refusal) -> Finding | No:
    """A name that is asked for is in no library any more, or in no package."""
    told = judged(refusal, "drift/symbol", "missing symbol")
    if isinstance(told, No):
        return told
    assert told.reading is not None
    if not told.reading.facts.get("symbol"):
        culprit = refused(refusal, told.reading)
        if culprit is None:
            return not_shown(refusal.difference, refusal.changes)
        return finding(f"A package changed under it: {first_line(told.reading)}", culprit, ("last-words",), told.confidence)
    lack = lacking(refusal, told.reading)
    if isinstance(lack, No):
        return lack
    found_at = lack.unmet.found_at if lack.unmet else None
    culprit = (
        of_file(found_at, refusal.difference)
        or used(refusal, lack.user)
        or of_file(lack.user, refusal.difference)
        or of_package(packages_of(lack), refusal.difference, refusal.changes, base(found_at or ""))
        or refused(refusal, told.reading)
    )
    if culprit is None:
        return not_shown(refusal.difference, refusal.changes)
    user = base(lack.user) or "It"
    where = f" in {base(found_at)}" if found_at else ""
    return finding(f"{user} does not find {lack.fact('symbol')}{where} any more", culprit, lack.cites, told.confidence)
