"""The interpreter itself gives up: `Fatal Python error` and the stacks that faulthandler writes.

Sources: Python/pylifecycle.c (fatal_error) and Modules/faulthandler.c of CPython. A stack without that line was asked for
(`dump_traceback_later`, SIGUSR1) and ends nothing.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_FATAL = late(r"Fatal Python error: (?P<fatal>[^\n]{1,400})")
_FRAME = late(r'^\s{0,40}File "(?P<file>[^"\n]{0,1024})", line (?P<line>\d{1,9}|\?\?\?) in (?P<function>.{1,400})$')
_SIGNALS = {
    "Segmentation fault": ("SIGSEGV", "crash/segfault"),
    "Bus error": ("SIGBUS", "crash/bus"),
    "Aborted": ("SIGABRT", "crash/abort"),
    "Floating point exception": ("SIGFPE", "crash/fpe"),
    "Floating-point exception": ("SIGFPE", "crash/fpe"),
    "Illegal instruction": ("SIGILL", "crash/illegal-instruction"),
    "Terminated": ("SIGTERM", "killed/sigterm"),
}


def read(passage: Passage) -> Iterator[Mark]:
    """Every `Fatal Python error` with the innermost frame of the thread that had it."""
    for index, text in passage.numbered("Fatal Python error: "):
        match = _FATAL.search(text)
        if match is None:
            continue
        fatal = match["fatal"].strip()
        signal, cause = _SIGNALS.get(fatal.split(" (", 1)[0], (None, "crash/abort"))
        if "stack overflow" in fatal:
            cause = "crash/stack-overflow"
        elif "No module named" in passage.text or "init_fs_encoding" in fatal:
            cause = "drift/python-import"
        elif "out of memory" in fatal.lower() or "MemoryError" in fatal:
            cause = "oom/runtime-heap"
        facts: dict[str, object] = {"fatal": fatal}
        if signal:
            facts["signal"] = signal
        last, frame = _innermost(passage, index)
        if frame is not None:
            facts.update(frame)
        where = f" in {facts['file']}:{facts['line']} {facts['function']}" if frame else ""
        yield Mark(
            reading=Reading(
                reader="python_fatal",
                suggests=cause,
                says=f"the Python interpreter ended itself: {fatal}{where}",
                culprit=f"{fatal}{where}",
                facts=facts,
                excerpt=passage.excerpt(index, last),
            ),
            weight=Weight.FATAL,
            first=index,
            last=last,
        )


def _innermost(passage: Passage, index: int) -> tuple[int, dict[str, object] | None]:
    """The first frame of the current thread; of the only thread where none is marked as current."""
    first: dict[str, object] | None = None
    current = False
    for at in range(index + 1, min(len(passage.lines), index + 2000)):
        text = passage.lines[at].text
        if text.lstrip().startswith(("Current thread", "Thread ")):
            current = text.lstrip().startswith("Current thread")
            continue
        match = _FRAME.match(text)
        if match is None:
            continue
        line = int(match["line"]) if match["line"].isdecimal() else None
        frame: dict[str, object] = {"file": match["file"], "line": line, "function": match["function"].strip()}
        if current:
            return at, frame
        first = first or frame
    return index, first
