"""Step 6: asks every cause, ranks what matched, lists what was ruled out and what could not be checked. Pure."""

from collections.abc import Mapping

import msgspec

from agentscope.causes import Cause, No, causes_of
from agentscope.evidence import Collected, Evidence, Missing, kinds
from agentscope.hindsight import looked_back
from agentscope.model import Diagnosis, Finding, RuledOut

ORDER = {"certain": 0, "likely": 1, "possible": 2}
LINE_CHARACTERS = 400


def one_line(text: str) -> str:
    """One line of bounded length: names and words in it come from the process that is examined."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LINE_CHARACTERS]).split())[:LINE_CHARACTERS]


def ask(cause: Cause, collected: Mapping[str, Collected]) -> Finding | RuledOut | Missing:
    """One cause against the evidence: a finding, the reason why not, or what was missing."""
    arguments: dict[str, Evidence | None] = {}
    for parameter, (slug, needed) in cause.needs.items():
        found = collected.get(slug)
        if isinstance(found, Missing):
            if needed or slug in cause.looked_for:
                return found
            found = None
        if found is None and needed:
            return RuledOut(cause=cause.slug, because=kinds()[slug].absent)
        arguments[parameter] = found
    try:
        answer = cause.match(**arguments)
    except Exception as error:  # noqa: BLE001 - one cause that fails on hostile facts costs its own answer, and it is said
        return Missing(kind=cause.slug, because=f"judging it failed: {type(error).__name__}: {one_line(str(error))}")
    if isinstance(answer, No):
        return RuledOut(cause=cause.slug, because=one_line(answer.because))
    return msgspec.structs.replace(
        answer,
        cause=cause.slug,
        headline=one_line(answer.headline),
        culprit=one_line(answer.culprit),
        advice=tuple(one_line(line) for line in answer.advice),
    )


def applies(cause: Cause, collected: Mapping[str, Collected]) -> bool:
    """Whether what the cause needs is of the kind that was asked for: a hang has no exit status, and an end no waiting threads."""
    return all(slug in collected for slug, needed in cause.needs.values() if needed)


def classify(collected: Mapping[str, Collected]) -> Diagnosis:
    """The answer of every cause that applies. Findings are ordered by confidence, then by how much evidence they rest on."""
    findings: list[Finding] = []
    ruled_out: list[RuledOut] = []
    not_checked: list[RuledOut] = []
    # thread-waits can be had, or is missing, of all that lives, and of nothing that ended
    for cause in causes_of(living="thread-waits" in collected).values():
        if not applies(cause, collected):
            continue
        answer = ask(cause, collected)
        if isinstance(answer, Finding):
            findings.append(answer)
        elif isinstance(answer, Missing):
            not_checked.append(RuledOut(cause=cause.slug, because=answer.because))
        else:
            ruled_out.append(answer)
    findings, ruled_out, left_open = looked_back(findings, ruled_out, collected)
    not_checked += left_open
    findings.sort(key=lambda finding: (ORDER[finding.confidence], -len(finding.cites), finding.cause))
    return Diagnosis(findings=tuple(findings), ruled_out=tuple(ruled_out), not_checked=tuple(not_checked))
