"""What a parent says about its child's end: shells, gunicorn, supervisord, nginx, PM2, make, npm, cargo, Slurm, CI runners.

Sources: jobs.c of bash and strsignal(3), Src/jobs.c of zsh, gunicorn/arbiter.py (its "Perhaps out of memory?" follows every
SIGKILL, also its own after a time-out), supervisor/options.py, nginx's ngx_process.c. A parent knows a signal or a status,
never why; so this decides only where nothing better is said.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import asked_to_stop, cause_of_signal, cause_of_status, signal_named, signal_of_status

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_WORDS = {
    "segmentation fault": "SIGSEGV",
    "bus error": "SIGBUS",
    "illegal instruction": "SIGILL",
    "illegal hardware instruction": "SIGILL",
    "floating point exception": "SIGFPE",
    "aborted": "SIGABRT",
    "abort trap": "SIGABRT",
    "iot instruction": "SIGABRT",
    "abort": "SIGABRT",
    "trace/breakpoint trap": "SIGTRAP",
    "trace trap": "SIGTRAP",
    "bad system call": "SIGSYS",
    "invalid system call": "SIGSYS",
    "killed": "SIGKILL",
    "terminated": "SIGTERM",
    "hangup": "SIGHUP",
    "quit": "SIGQUIT",
    "cpu time limit exceeded": "SIGXCPU",
    "cputime exceeded": "SIGXCPU",
    "cpu limit exceeded": "SIGXCPU",
    "file size limit exceeded": "SIGXFSZ",
    "alarm clock": "SIGALRM",
    "user defined signal 1": "SIGUSR1",
    "user defined signal 2": "SIGUSR2",
}
_NAMES = "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True))
_SHELL = late(
    r"^(?:\^[C\\\\])?(?P<front>(?:[\w./-]{1,200}: line \d{1,9}: {1,4}|[\w./-]{0,40}sh: (?:line \d{1,9}: )?|make(?:\[\d{1,4}\])?: \*\*\* "
    r"\[[^\]\n]{1,300}\] |srun: error: [\w-]{1,80}: tasks? [\d,-]{1,80}: )?(?:\[\d{1,5}\][ +-]{1,8})?)(?P<pid>\d{1,10})?\s{0,8}(?P<word>"
    + _NAMES
    + r")(?P<after>(?::? \d{1,2})?(?: \((?:core dumped|[^)\n]{1,40})\))?)(?:(?P<gap>\s{1,40})(?P<command>\S[^\n]{0,400})?)?$",
    re.IGNORECASE,
)
_GUNICORN = late(r"Worker \(pid:(?P<pid>\d{1,10})\) was sent (?P<signal>SIG[A-Z]{2,6})!")
_GUNICORN_OLD = late(r"Worker with pid (?P<pid>\d{1,10}) was terminated due to signal (?P<number>\d{1,2})")
_GUNICORN_TIMEOUT = late(r"WORKER TIMEOUT \(pid:(?P<pid>\d{1,10})\)|in handle_abort")
_SUPERVISORD = late(
    r"exited: (?P<program>[\w.:-]{1,200}) \((?P<how>exit status (?P<status>\d{1,3})|terminated by (?P<signal>SIG[A-Z]{2,6})[^;\n]{0,40}); (?P<expected>not expected|expected)\)"
)
_NGINX = late(
    r"(?:worker process|child process|child pid) (?P<pid>\d{1,10}) (?:exited on signal|exit signal) (?:[A-Z][\w ]{2,30} \()?(?P<number>\d{1,2})\)?"
)
_RECEIVED = late(
    r"(?P<how>[Rr]eceived signal|died from signal|(?:was )?terminated (?:by|with) signal|exited (?:on|with|due to) signal|(?:was )?killed by signal"
    r"|crash(?:ed)? (?:with|by) signal|abnormally with signal|due to signal|[Gg]ot signal|via signal|exited prematurely: signal|[Cc]aught signal"
    r"|Command failed with signal|npm (?:ERR!|error) signal|return code Negsignal|failed with error: signal)[ :.\"\[]{1,3}"
    r"(?:(?P<name>SIG[A-Z]{2,6})|(?P<number>\d{1,2})|(?P<word>Segmentation fault|Killed|Aborted|Bus error|Illegal instruction))(?!\w)"
)
_EXEC = late(
    r"(?:^|: |[\s(])signal: (?:(?P<number>\d{1,2}), (?P<name>SIG[A-Z]{2,6})|(?P<word>killed|segmentation fault|aborted|bus error|illegal instruction"
    r"|terminated|hangup|floating point exception))\b|(?P<gcc>Killed|Segmentation fault|Aborted|Terminated) signal terminated program (?P<program>\S{1,120})"
    r"|^signal \((?P<julia>\d{1,2})(?:\.\d)?\): |\*\*\* caught (?P<caught>segfault|bus error|illegal operation) \*\*\*"
)
_OF_PID = late(r"\b(?:PID|pid)[ :=]{1,2}(?P<pid>\d{1,10})\b|#<Process::Status: pid (?P<status>\d{1,10})")
_STATUS = late(
    r"(?:exited with (?:status|code)|[Ee]xit(?:ed with)? (?:code|status)|with exit code|non-zero (?:exit )?status|returned exit code|failed with exit code"
    r"|[Ee]xited with status code|^\s{0,8}exit(?=[:=]))[:=]{0,2} ?(?P<status>\d{1,3})(?=$|[.,;)\]'\"!]| \()"
)
_GRACEFUL = late(
    r"[Rr]eceived SIG(?:TERM|INT)|User requested shutdown|ready to exit, bye|sending SIGTERM to|Gracefully|graceful(?:ly)? shut|Shutting down gracefully"
)
_SIGNALLED = late(r"(?P<signal>SIG(?:QUIT|TERM|INT|HUP)) received\b")
_PROGRAM = late(r"(?P<program>[\w./+-]{1,200}) \d{1,6}/\d{1,6} failed!")


def read(passage: Passage) -> Iterator[Mark]:
    """Signals and statuses that parents saw, the last of each kind."""
    yield from _graceful(passage)
    for index, line in enumerate(passage.lines):
        text = line.text
        lowered = text.lower()
        if len(text) < 500 and any(word in lowered for word in _WORDS):
            match = _SHELL.match(text.strip()) or _glued(text)
            if match is not None and _is_shell(match):
                yield _shell(passage, index, match)
                continue
        if "ignal" in text or "caught" in text or "was sent SIG" in text or "exited: " in text:
            mark = _supervised(passage, index, text)
            if mark is not None:
                yield mark
                continue
        if "exit" in lowered or "status" in text:
            mark = _status(passage, index, text)
            if mark is not None:
                yield mark
        elif (match := _SIGNALLED.search(text)) and "shutdown" not in lowered and not text.startswith("***"):
            yield _signal(passage, index, match["signal"], {}, f"it received {match['signal']}")


def _glued(text: str) -> re.Match[str] | None:
    """`zsh: segmentation fault (core dumped)  ./prog` and the like, where the shell stands in front."""
    for shell in ("zsh: ", "bash: ", "fish: ", "sh: ", "/bin/sh: "):
        if text.startswith(shell):
            rest = text.removeprefix(shell)
            if shell == "fish: " and "'" in rest:
                rest = rest.rsplit(" (", 1)[-1].rstrip(")")
            return _SHELL.match(f"sh: {rest.strip()}")
    return None


def _is_shell(match: re.Match[str]) -> bool:
    """A shell pads the command with spaces and writes the word with a capital; prose does not ("Terminated the old worker")."""
    if match["front"] or match["pid"]:
        return True
    word, command = match["word"], match["command"]
    if not word[0].isupper() or (word in ("Quit", "Abort") and not match["after"]):
        return False
    return command is None or len(match["gap"]) > 1


def _shell(passage: Passage, index: int, match: re.Match[str]) -> Mark:
    signal = _WORDS[match["word"].lower()]
    facts: dict[str, object] = {}
    if match["pid"]:
        facts["pid"] = int(match["pid"])
    command = (match["command"] or "").strip()
    if command:
        facts["program"] = command.split()[0] if "/" in command.split()[0] else command
    return _signal(passage, index, signal, facts, f"the shell saw {signal}" + (f" end `{command}`" if command else ""))


def _supervised(passage: Passage, index: int, text: str) -> Mark | None:
    if match := _GUNICORN.search(text) or _GUNICORN_OLD.search(text):
        fields = match.groupdict()
        signal = fields.get("signal") or signal_named(fields.get("number") or "") or "SIGKILL"
        facts: dict[str, object] = {"pid": int(match["pid"])}
        if signal == "SIGKILL":
            if _GUNICORN_TIMEOUT.search(passage.text):
                facts.update(sender="gunicorn arbiter", reason="worker timeout")
            facts["not"] = "oom"
        return _signal(passage, index, signal, facts, f"gunicorn saw {signal} end worker {match['pid']}")
    if match := _SUPERVISORD.search(text):
        facts = {"program": match["program"]}
        if match["signal"]:
            return _signal(passage, index, match["signal"], facts, f"supervisord saw {match['signal']} end {match['program']}")
        facts["status"] = int(match["status"])
        cause = None if match["expected"] == "expected" else cause_of_status(int(match["status"]))
        return _mark(
            passage,
            index,
            cause,
            says=f"supervisord saw {match['program']} exit {match['status']}",
            facts=facts,
            weight=Weight.STATUS,
        )
    if match := _NGINX.search(text):
        signal = signal_named(match["number"]) or "SIGKILL"
        return _signal(passage, index, signal, {"pid": int(match["pid"])}, f"worker {match['pid']} ended by {signal}")
    if match := _EXEC.search(text):
        fields = match.groupdict()
        word = (
            fields["word"]
            or fields["gcc"]
            or {"segfault": "segmentation fault"}.get(fields["caught"] or "", fields["caught"] or "")
        ).lower()
        named = fields["name"] or signal_named(fields["number"] or fields["julia"] or "") or _WORDS.get(word)
        facts = {"program": fields["program"]} if fields["program"] else {}
        return None if named is None else _signal(passage, index, named, facts, f"its parent saw {named}")
    return _received(passage, index, text)


def _received(passage: Passage, index: int, text: str) -> Mark | None:
    match = _RECEIVED.search(text)
    if match is None:
        return None
    named = match["name"] or signal_named(match["number"] or "") or _WORDS.get((match["word"] or "").lower())
    by_itself = match["how"].lower() in ("received signal", "got signal", "caught signal")
    if named is None or named in ("SIGINT", "SIGWINCH", "SIGCHLD") or _GRACEFUL.search(text):
        return None
    if by_itself and named in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM"):
        return None
    facts: dict[str, object] = {}
    if program := _PROGRAM.search(text):
        facts["program"] = program["program"]
    if pid := _OF_PID.search(text):
        facts["pid"] = int(pid["pid"] or pid["status"])
    return _signal(passage, index, named, facts, f"its parent saw {named}")


def _status(passage: Passage, index: int, text: str) -> Mark | None:
    match = _STATUS.search(text)
    if match is None or int(match["status"]) > 255:
        return None
    status = int(match["status"])
    cause = None if status in (0, 130, 137, 143) and asked_to_stop(passage.text) else cause_of_status(status)
    facts: dict[str, object] = {"exit_code": status}
    if signal := signal_of_status(status):
        facts["signal"] = signal
    weight = Weight.STATUS if signal is None else Weight.MONITOR
    if cause is not None and passage.lines[index].calm:
        cause = None
    return _mark(passage, index, cause, says=f"it ended with status {status}", facts=facts, weight=weight)


def _graceful(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("SIGTERM", "SIGINT", "requested shutdown", "raceful"):
        if _GRACEFUL.search(text):
            facts: dict[str, object] = {
                "signal": "SIGINT" if "SIGINT" in text else "SIGTERM",
                "graceful": True,
                "killed": False,
            }
            yield _mark(
                passage, index, None, says=f"it was asked to stop: {text.strip()[:200]}", facts=facts, weight=Weight.HARMLESS
            )
            return


def _signal(passage: Passage, index: int, signal: str, facts: dict[str, object], says: str) -> Mark:
    return _mark(passage, index, cause_of_signal(signal), says=says, facts={**facts, "signal": signal}, weight=Weight.MONITOR)


def _mark(passage: Passage, index: int, cause: str | None, *, says: str, facts: dict[str, object], weight: Weight) -> Mark:
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="parents",
            suggests=cause,
            says=says,
            culprit=str(facts.get("program") or facts.get("signal") or says),
            pid=pid if isinstance(pid, int) else None,
            facts=facts,
            excerpt=passage.excerpt(index, index),
        ),
        weight=weight if cause else Weight.HARMLESS,
        first=index,
        last=index,
    )
