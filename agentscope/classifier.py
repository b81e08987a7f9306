"""Step 6: asks every cause, ranks what matched, lists what was ruled out and what could not be checked. Pure."""

from collections.abc import Mapping

import msgspec

from agentscope.causes import Cause, No, causes
from agentscope.evidence import Collected, Evidence, Missing, kinds
from agentscope.model import Diagnosis, Finding, RuledOut

ORDER = {"certain": 0, "likely": 1, "possible": 2}


def ask(cause: Cause, collected: Mapping[str, Collected]) -> Finding | RuledOut | Missing:
    """One cause against the evidence: a finding, the reason why not, or what was missing."""
    arguments: dict[str, Evidence | None] = {}
    for parameter, (slug, needed) in cause.needs.items():
        found = collected.get(slug)
        if isinstance(found, Missing):
            if needed:
                return found
            found = None
        if found is None and needed:
            return RuledOut(cause=cause.slug, because=kinds()[slug].absent)
        arguments[parameter] = found
    answer = cause.match(**arguments)
    if isinstance(answer, No):
        return RuledOut(cause=cause.slug, because=answer.because)
    return msgspec.structs.replace(answer, cause=cause.slug)


def classify(collected: Mapping[str, Collected]) -> Diagnosis:
    """Every cause's answer. Findings are ordered by confidence, then by how much evidence they rest on."""
    findings: list[Finding] = []
    ruled_out: list[RuledOut] = []
    not_checked: list[RuledOut] = []
    for cause in causes().values():
        answer = ask(cause, collected)
        if isinstance(answer, Finding):
            findings.append(answer)
        elif isinstance(answer, Missing):
            not_checked.append(RuledOut(cause=cause.slug, because=answer.because))
        else:
            ruled_out.append(answer)
    findings.sort(key=lambda finding: (ORDER[finding.confidence], -len(finding.cites), finding.cause))
    return Diagnosis(findings=tuple(findings), ruled_out=tuple(ruled_out), not_checked=tuple(not_checked))
