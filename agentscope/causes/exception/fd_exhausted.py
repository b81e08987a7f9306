"""It had as many files and connections open as it may, and the next one failed.

What it means: every open file, socket and pipe takes a file descriptor, and a process may have only so many (often
1024). The program wanted one more, got "Too many open files", and did not handle that. Mostly it forgets to close
something.

How agentscope knows: its last words are that error, they ended just before the program did, and the exit status is that
of an error which nobody caught. How many were open when last counted is in the report.

What to do: find what it forgets to close: ls -l /proc/PID/fd on the next run shows what piles up. If it really needs
that many, raise the limit (ulimit -n, LimitNOFILE= of the service).

What looks like it but is not: "Too many open files" of the whole machine (ENFILE; fs.file-max); a limit of inotify
watches, which says almost the same; an error that was caught and logged (no incident).
"""

from agentscope.causes import No
from agentscope.causes.exception import blame, cites, fact, first_line, last_error, place_of
from agentscope.evidence.actor import SignalActor
from agentscope.evidence.fault import FaultFacts
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.open_files import OpenFiles
from agentscope.evidence.wait_status import WaitStatus
from agentscope.model import Finding

ENFILE = "23"
NEAR_LIMIT = 0.8


def match(
    *,
    status: WaitStatus,
    words: LastWords,
    actor: SignalActor | None,
    fault: FaultFacts | None,
    log: KernelLog | None,
    files: OpenFiles | None,
) -> Finding | No:
    """Its last words are an uncaught "too many open files"."""
    told = last_error(status, words, actor, fault, log)
    if isinstance(told, No):
        return told
    reading = told.reading
    if reading.suggests != "exception/fd-exhausted":
        return No(f"its last words tell of no lack of file descriptors: {reading.says}")
    place = place_of(reading)
    of_machine = fact(reading, "errno") == ENFILE or fact(reading, "code") == "ENFILE"
    limit = files.limit if files is not None else None
    near = files is not None and limit is not None and files.count >= NEAR_LIMIT * limit
    named = (
        f"its limit of {limit} open files (RLIMIT_NOFILE)" if limit is not None else "its limit of open files (RLIMIT_NOFILE)"
    )
    if of_machine:
        named = "the machine's limit of open files (fs.file-max)"
    more = (
        "raise it: sysctl fs.file-max"
        if of_machine
        else "if it needs that many: ulimit -n 65536, or LimitNOFILE=65536 of its service"
    )
    return Finding(
        headline=f"Ended because it ran out of file descriptors: {first_line(reading)}{f' at {place}' if place else ''}",
        culprit=f"{named}; {blame(reading)}",
        confidence=told.confidence,
        cites=cites(("open-files", near)),
        advice=(
            "see what piles up on the next run: ls -l /proc/PID/fd | awk '{print $NF}' | sort | uniq -c | sort -n | tail",
            more,
        ),
    )
