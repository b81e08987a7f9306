"""It wants to write into a pipe or local socket that is full, because whoever has the other end does not read.

What it means: a pipe holds 64 KiB. Once it is full, writing waits until the reader takes something out. If the reader
has stopped reading, or itself waits for the writer to end, that is for ever.

How agentscope knows: a thread has been blocked in writing for longer than you allow, the pipe is full, and the
process that has its reading end open waits for something else.

What to do: the one that is named must read: use communicate() instead of wait() in Python, read output and errors of
a tool at the same time, or send output that nobody wants to a file or /dev/null.

What looks like it but is not: a reader that works on what it was given and takes more now and then; a pager such as
less, at which a person reads; a peer across the network that does not read (hang/stuck-io).
"""

from agentscope.causes import No
from agentscope.causes.hang import LONG_S, WRITES, at, cites, doing, excused, seconds, where, who
from agentscope.evidence.pipes import Pipes
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.examination import Holder
from agentscope.model import Confidence, Finding

PAGE = 4096
PAGERS = frozenset({"less", "more", "most", "pg", "moar", "bat"})


def match(*, waits: ThreadWaits, pipes: Pipes | None, sockets: Sockets | None, python: PythonThreads | None) -> Finding | No:
    """Blocked in writing while the reader does something else."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    reason = No("no thread of it is blocked in writing for long")
    for thread in waits.threads:
        long = thread.for_s >= waits.patience_s and thread.call is not None and thread.call.name in WRITES
        if not long or thread.wait.timeout_s is not None:
            continue
        answer = at_pipe(thread, waits, pipes, python) or at_socket(thread, waits, sockets, python)
        if isinstance(answer, Finding):
            return answer
        reason = answer or reason
    return reason


def at_pipe(thread: ThreadSeen, waits: ThreadWaits, pipes: Pipes | None, python: PythonThreads | None) -> Finding | No | None:
    """A thread blocked in writing to a pipe; None if it is at none."""
    pipe = next((found for each in thread.ends if pipes is not None and (found := pipes.pipe(each.inode))), None)
    if pipe is None:
        return None
    name = f"FIFO {pipe.path}" if pipe.path else "a pipe"
    if pipe.held_bytes is not None and pipe.capacity_bytes is not None and pipe.held_bytes < pipe.capacity_bytes - PAGE:
        return No(f"{name} at which it waits is not full")
    others = [end for end in pipe.readers if end.pid != thread.wait.pid]
    reader = next(iter(others or pipe.readers), None)
    return judged(thread, waits, python, reader=reader, name=name, kind="pipes", sure=pipe.held_bytes is not None)


def at_socket(
    thread: ThreadSeen, waits: ThreadWaits, sockets: Sockets | None, python: PythonThreads | None
) -> Finding | No | None:
    """A thread blocked in writing to a unix socket; None if it is at none."""
    held = sockets.held(thread.wait.sockets[0]) if sockets is not None and thread.wait.sockets else None
    if held is None or held.socket.kind != "unix" or not held.socket.send_queue:
        return None
    name = f"the unix socket {held.socket.peer}" if held.socket.peer else "a unix socket"
    return judged(thread, waits, python, reader=held.socket.peer_holder, name=name, kind="sockets", sure=True)


def judged(
    thread: ThreadSeen,
    waits: ThreadWaits,
    python: PythonThreads | None,
    *,
    reader: Holder | None,
    name: str,
    kind: str,
    sure: bool,
) -> Finding | No:
    """What the reader's own state makes of it."""
    process = waits.process(thread.wait.pid)
    assert process is not None
    concerns = process.own or waits.waited_for(process.pid) is not None
    inside = waits.process(reader.pid) if reader is not None else None
    if not concerns:
        return No(f"{process.words} is blocked in writing, but the agent does not wait for it")
    if not process.own and inside is not None and not inside.own:
        return No(f"{process.words} waits for {inside.words} to read: the agent waits for both")
    if reader is not None and (reader.comm in PAGERS):
        return No(f"{who(reader)} shows it to a person page by page")
    if reader is not None and (
        reader.state == "R" or (inside is not None and reader.pid != process.pid and waits.works(reader.pid))
    ):
        return No(f"{who(reader)}, which should read, works")
    main = next((each for each in waits.of(inside.pid) if each.main), None) if inside is not None else None
    if main is not None and main.wait.timeout_s is not None and main.wait.timeout_s <= LONG_S:
        return No(f"its reader {doing(main.wait)}, and may read on then")
    mine = " itself" if reader is not None and reader.pid == thread.wait.pid else ""
    by = f"{who(reader)}{mine}" if reader is not None else "whoever has its other end"
    instead = doing_instead(reader, waits, python)
    place = where(thread, python)
    writer = f"thread {thread.wait.tid}" if process.pid == waits.agent.pid else process.words
    confidence: Confidence = "certain" if reader is not None and sure else "likely"
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: {writer} waits{at(place)} for room in {name} that {by} should read{instead}",
        culprit=f"{by} does not read {name}{instead}" if reader is not None else f"nobody reads {name}",
        confidence=confidence,
        cites=cites((kind, True), ("python-threads", place)),
        advice=advice_for(process.own, inside is not None and inside.own),
    )


def doing_instead(reader: Holder | None, waits: ThreadWaits, python: PythonThreads | None) -> str:
    """What the reader does instead of reading, as a clause."""
    inside = waits.process(reader.pid) if reader is not None else None
    if reader is None or inside is None:
        return {"T": ", which is stopped", "Z": ", which has ended"}.get(reader.state or "", "") if reader is not None else ""
    main = next((each for each in waits.of(inside.pid) if each.main), None)
    if main is None or main.wait.kind == "running":
        return ""
    return f", which {doing(main.wait)}{at(where(main, python))}"


def advice_for(own: bool, reader_own: bool) -> tuple[str, ...]:
    """What to change, by who writes and who should read."""
    if reader_own and not own:
        return (
            "read the tool's output while it runs: subprocess.run(..., capture_output=True) or communicate(), not wait()",
            "or send what nobody wants to subprocess.DEVNULL",
        )
    return (
        "see what the reader does: agentscope diagnose PID of the reader; once it reads or ends, this one goes on",
        "write to a file or the journal instead, or set a time-out on writing",
    )
