"""Whether what it has in memory was replaced on disk since: it works, until it loads the rest or starts anew."""

from agentscope.checking import Checked, Subject
from agentscope.evidence import Missing
from agentscope.evidence.armed_drift import collect

PLACE = 11
TITLE = "armed drift"


def check(subject: Subject) -> Checked:
    """The evidence of a living process, as `diagnose` has it."""
    if subject.scene.installed is None:
        return Checked(None, "what it has mapped could not be compared with the files", f"sudo agentscope check {subject.pid}")
    found = collect(subject.scene)
    if isinstance(found, Missing):
        return Checked(None, found.because)
    if found is None:
        return Checked(True, "everything that it has mapped is still what stands on disk")
    if found.changed and not found.restarted:
        return Checked(False, found.says(), subject.again)
    return Checked(True, found.says())
