"""What a reconstruction may claim: each finding is less sure than of a watched end, and none is made that a missing source could refute.

A SIGKILL is an OOM kill only where the kernel log names the victim, and it is nobody's `kill -9` either where that log cannot be read.
Pure: findings in, findings and what had to be left open out.
"""

from collections.abc import Iterable, Mapping

import msgspec

from agentscope.evidence import RUNTIME, Collected, Missing
from agentscope.evidence.actor import SIGKILL, SignalActor
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.reconstruction import Reconstruction
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Confidence, Finding, RuledOut

LOWER: dict[Confidence, Confidence] = {"certain": "likely", "likely": "possible", "possible": "possible"}
ANSWERS_A_SIGNAL = 128  # a shell's and a handler's status for "signal N": 128 + N
IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError"})
SENT_BY_SOMEBODY = frozenset({"killed/sigkill", "killed/sigterm", "killed/hangup", "killed/signal", "killed/limit"})


def looked_back(
    findings: Iterable[Finding], ruled_out: Iterable[RuledOut], collected: Mapping[str, Collected]
) -> tuple[list[Finding], list[RuledOut], list[RuledOut]]:
    """Findings that may be made, what stays ruled out, and what is left open because a source is missing."""
    past = collected.get("reconstruction")
    if not isinstance(past, Reconstruction):
        return list(findings), list(ruled_out), []
    kept, open_questions = [], []
    for finding in findings:
        because = refutable(finding, past, collected)
        if because is not None:
            open_questions.append(RuledOut(cause=finding.cause, because=because))
            continue
        kept.append(msgspec.structs.replace(finding, confidence=lowered(finding.confidence, past)))
    out = []
    for each in ruled_out:
        if each.cause == "killed/limit" and by_signal(collected, SIGKILL) and not sender_known(collected):
            open_questions.append(RuledOut(cause=each.cause, because="its CPU time and the limit for it are gone with it"))
        else:
            out.append(each)
    return kept, out, open_questions


def lowered(sure: Confidence, past: Reconstruction) -> Confidence:
    """One step for not having been watched; another where only one source tells of the end, or a log of that time is missing."""
    sure = LOWER[sure]
    return sure if len(past.told_by) > 1 and past.kernel_log and past.journal else LOWER[sure]


def refutable(finding: Finding, past: Reconstruction, collected: Mapping[str, Collected]) -> str | None:
    """Which missing source could show that it was something else, or None."""
    cause = finding.cause
    if cause in SENT_BY_SOMEBODY and not sender_known(collected):
        if past.told_by == (RUNTIME,):
            return "it fits, but a runtime's status above 128 is a signal or the program's own exit, and only the runtime tells of it"
        if cause == "killed/sigkill" and not past.kernel_log:
            return "it fits, but only the kernel log could say that the OOM killer did not send it"
        if not past.journal:
            return "it fits, but only the journal could say that nobody was asked to stop it and no memory daemon ended it"
        if past.cpu_limited is not False and cause == "killed/sigkill":
            limited = "its CPU time was limited" if past.cpu_limited else "whether its CPU time was limited is not known"
            return f"it fits, but {limited}, and the kernel ends by SIGKILL whoever has used it up"
        if past.counted_oom and cause == "killed/sigkill":
            return f"it fits, but {past.counted_oom} counted an OOM kill near it"
    if cause.startswith("crash/") and finding.confidence == "possible":
        return "it fits, but neither the kernel log nor a core dump shows the fault: the signal may have been sent"
    if cause == "exit/status":
        return unread_words(past, collected) or unread_packages(collected)
    if cause.startswith(("exception/", "crash/")):
        return unread_packages(collected)
    return None


def unread_packages(collected: Mapping[str, Collected]) -> str | None:
    """Why an error about what is installed may be due to a change that nobody could look for."""
    words = collected.get("last-words")
    readings = words.readings if isinstance(words, LastWords) else ()
    imports = any(reading.facts.get("exception_type") in IMPORT_ERRORS for reading in readings)
    if not imports and not any((reading.suggests or "").startswith("drift/") for reading in readings):
        return None
    for kind in ("package-changes", *(("import-failure",) if imports else ())):
        found = collected.get(kind)
        if isinstance(found, Missing):
            return f"it fits, but whether a package had changed under it cannot be told: {found.because}"
    return None


def unread_words(past: Reconstruction, collected: Mapping[str, Collected]) -> str | None:
    """Why a bare exit status may have a reason that was not read."""
    words, status = collected.get("last-words"), collected.get("wait-status")
    if not isinstance(words, LastWords):
        because = words.because if isinstance(words, Missing) else "it left none"
        return f"it fits, but its last words could name an error: {because}"
    if isinstance(status, WaitStatus) and (status.code or 0) > ANSWERS_A_SIGNAL:
        return "it fits, but a handler of a signal exits like that too, and nobody watched for one"
    return None if past.journal else "it fits, but only the journal could say that nobody was asked to stop it"


def sender_known(collected: Mapping[str, Collected]) -> bool:
    """Whether some record names who sent the signal."""
    return isinstance(collected.get("actor"), SignalActor)


def by_signal(collected: Mapping[str, Collected], number: int) -> bool:
    """Whether this signal ended it."""
    status = collected.get("wait-status")
    return isinstance(status, WaitStatus) and status.signal == number
