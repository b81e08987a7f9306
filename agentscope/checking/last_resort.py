"""Whether something catches what nothing else has caught, and tells of it. Code is not seen from outside: a death that was shows it."""

import datetime as dt

from agentscope.checking import Checked, Subject
from agentscope.examination.proc import read_proc, status_field
from agentscope.model import IncidentOpened

PLACE = 9
TITLE = "top-level handler"
SIGSEGV, SIGTERM = 11, 15
LINE = "try: main()\nexcept Exception: logging.exception('main'); raise".replace("\n", "  ")


def check(subject: Subject) -> Checked:
    """A death of its own by an exception shows that there was none; else only what the process has set can be told."""
    ends = [
        (at_ns, event)
        for at_ns, event in subject.past or ()
        if isinstance(event, IncidentOpened) and event.cause == "exception/uncaught" and event.scope == "agent"
    ]
    if ends:
        at_ns, last = ends[-1]
        day = dt.datetime.fromtimestamp(at_ns / 1e9, tz=dt.UTC).strftime("%Y-%m-%d")
        return Checked(False, f"it died of an exception that nothing caught on {day}: {last.culprit}", line(subject))
    signs = " and ".join(signs_of(subject)) or "nothing that would show one"
    return Checked(None, f"whether its code has one cannot be seen from outside; it has {signs}", line(subject))


def signs_of(subject: Subject) -> list[str]:
    """What it has set that can be seen: handlers of signals (proc_pid_status(5), SigCgt)."""
    caught = status_field(read_proc(f"/proc/{subject.scene.process.pid}/status") or b"", b"SigCgt") or b"0"
    mask = int(caught, 16)
    found = []
    if mask >> (SIGTERM - 1) & 1:
        found.append("a handler of its own for SIGTERM")
    if mask >> (SIGSEGV - 1) & 1:
        found.append("one for SIGSEGV (as faulthandler sets)")
    return found


def line(subject: Subject) -> str:
    """What to write, in its language."""
    if subject.standing is not None and subject.standing.node_folders:
        return "process.on('uncaughtException', (error) => { console.error(error); process.exit(1) })"
    return f"python -X faulthandler, and in the program: {LINE}"
