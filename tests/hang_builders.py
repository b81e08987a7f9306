"""Small builders of what a look at a living agent finds, for the tests of the causes of a hang.

The agent is a Python program with pid 100 whose patience is 5 s; whatever is not said is idle and without anything outstanding.
A frame is written "function file.py:12"; a file without a folder is the program's own, one with "lib:" the interpreter's.
"""

from typing import Any

import msgspec

from agentscope.classifier import classify
from agentscope.evidence import Collected, Evidence, HangScene, collect_all, from_records
from agentscope.examination import (
    Call,
    Descriptor,
    Examination,
    Holder,
    NativeThread,
    Pipe,
    ProcessLook,
    PythonStacks,
    PythonTask,
    PythonThread,
    Socket,
    Thread,
)
from agentscope.model import Agent, Diagnosis, Finding, MissingEvidence, Process, PythonFrame, SignalSent

S = 1_000_000_000
NOW_NS = 5000 * S
AGENT = 100
PATIENCE_S = 5.0
LONG_S = 40.0  # how long everything has waited, unless said
LIB = "/usr/lib/python3.11/"


# --- calls ------------------------------------------------------------------------------------------------------------------


def futex(timeout_s: float | None = None, owner: int | None = None, address: int = 0x7F00) -> Call:
    """Waits for a lock."""
    return Call(name="futex", futex=address, futex_owner=owner, timeout_s=timeout_s)


def sleep(timeout_s: float = 3600.0) -> Call:
    """Sleeps."""
    return Call(name="clock_nanosleep", timeout_s=timeout_s)


def on(name: str, *descriptors: int, timeout_s: float | None = None, path: str | None = None) -> Call:
    """Any call on descriptors or a path."""
    return Call(name=name, descriptors=descriptors, timeout_s=timeout_s, path=path)


def recv(descriptor: int = 3, timeout_s: float | None = None) -> Call:
    """Waits for bytes of one socket."""
    return on("recvfrom", descriptor, timeout_s=timeout_s)


def epoll(timeout_s: float | None = None, descriptor: int = 9) -> Call:
    """Waits for events, as an event loop does."""
    return on("epoll_wait", descriptor, timeout_s=timeout_s)


def wait4(pid: int | None = None) -> Call:
    """Waits for a child."""
    return Call(name="wait4", child=pid)


# --- threads and processes -----------------------------------------------------------------------------------------------------


def thread(call: Call | None = None, tid: int = AGENT, *, for_s: float = LONG_S, state: str = "S", **more: Any) -> Thread:
    """One thread; without a call it waits for nothing that could be read."""
    facts = {"comm": "python3", "cpu_share": 0.0, "switches_per_s": 0.0} | more
    return Thread(tid=tid, state=state, call=call, since_ns=NOW_NS - int(for_s * S), **facts)


def running(tid: int = AGENT, *, cpu: float = 1.0, busy: float | None = None, for_s: float = LONG_S) -> Thread:
    """A thread that uses a CPU, or would if others left it one (`busy`)."""
    return thread(None, tid, for_s=for_s, state="R", cpu_share=cpu, busy_share=cpu if busy is None else busy)


def process(*threads: Thread, pid: int = AGENT, **more: Any) -> ProcessLook:
    """One process; the first thread is its main one."""
    facts: dict[str, Any] = {"ppid": 1 if pid == AGENT else AGENT, "comm": "python3", "argv": ("/usr/bin/python3", "agent.py")}
    facts |= {"start_ns": NOW_NS - 1000 * S, "role": "agent" if pid == AGENT else "tool"} | more
    threads = threads or (thread(sleep(), pid),)
    return ProcessLook(pid=pid, threads=threads, **facts)


def tool(*threads: Thread, pid: int = 200, command: str = "cat jobs.fifo", **more: Any) -> ProcessLook:
    """A tool below the agent."""
    words = tuple(command.split())
    return process(*threads, pid=pid, comm=words[0].rsplit("/", 1)[-1], argv=words, **more)


def descriptor(number: int, inode: int, kind: str = "socket", access: str = "rw", **more: Any) -> Descriptor:
    """An open descriptor."""
    return Descriptor(
        number=number, kind=kind, target=more.pop("target", f"{kind}:[{inode}]"), inode=inode, access=access, **more
    )  # type: ignore[arg-type]


def loop_set(*numbers: int) -> Descriptor:
    """The epoll of an event loop, number 9, and what is in its set."""
    return Descriptor(number=9, kind="epoll", target="anon_inode:[eventpoll]", watches=numbers)


# --- sockets and pipes ---------------------------------------------------------------------------------------------------------


def client(inode: int = 30, *, sent_ago_s: float | None = 40.0, received_ago_s: float | None = None, **more: Any) -> Socket:
    """A connection to a peer: asked 40 s ago and not answered, unless said."""
    facts: dict[str, Any] = {"family": "inet", "kind": "tcp", "state": "established", "local": "10.0.0.1:40000"}
    facts |= {"peer": "10.0.0.5:5432", "receive_queue": 0, "send_queue": 0, "sent_bytes": 100 if sent_ago_s is not None else 0}
    facts |= {"received_bytes": 0 if received_ago_s is None else 100}
    return Socket(
        inode=inode,
        last_sent_ago_ms=None if sent_ago_s is None else int(sent_ago_s * 1000),
        last_received_ago_ms=None if received_ago_s is None else int(received_ago_s * 1000),
        **(facts | more),
    )


def listening(inode: int = 20, *, waiting: int = 0, since_s: float | None = LONG_S, **more: Any) -> Socket:
    """A listening socket and how many connections wait to be accepted."""
    return client(
        inode, sent_ago_s=None, state="listen", local="127.0.0.1:8080", peer=None, receive_queue=waiting,
        queued_since_ns=None if since_s is None or not waiting else NOW_NS - int(since_s * S), **more,
    )  # fmt: skip


def request(inode: int = 21, *, asked_ago_s: float = 40.0, answered_ago_s: float | None = None, **more: Any) -> Socket:
    """An accepted connection whose request has been read and not answered, unless said; its client waits on this machine."""
    facts: dict[str, Any] = {"accepted": True, "local": "127.0.0.1:8080", "peer": "127.0.0.1:51000"}
    facts |= {"peer_holder": Holder(pid=900, comm="curl", state="S", waits=True)}
    return client(inode, sent_ago_s=answered_ago_s, received_ago_s=asked_ago_s, **(facts | more))


def pipe(inode: int = 40, *, readers: tuple[Holder, ...] = (), writers: tuple[Holder, ...] = (), **more: Any) -> Pipe:
    """A pipe with who has its ends open."""
    facts: dict[str, Any] = {"path": None, "held_bytes": 0, "capacity_bytes": 65536} | more
    return Pipe(inode=inode, readers=readers, writers=writers, **facts)


def holder(pid: int, comm: str = "other", state: str | None = "S", **more: Any) -> Holder:
    """Somebody who has an end open."""
    return Holder(pid=pid, comm=comm, state=state, **more)


# --- stacks ---------------------------------------------------------------------------------------------------------------------


def frame(text: str) -> PythonFrame:
    """A frame of "function file.py:12"."""
    function, _, place = text.partition(" ")
    file, _, line = place.rpartition(":")
    path = f"{LIB}{file.removeprefix('lib:')}" if file.startswith("lib:") else file if "/" in file else f"/srv/{file}"
    return PythonFrame(function=function, file=path, first_line=int(line), line=int(line))


def frames(*texts: str) -> tuple[PythonFrame, ...]:
    """Frames, innermost first."""
    return tuple(frame(text) for text in texts)


LOOP = ("_run_once lib:asyncio/base_events.py:1900", "run_forever lib:asyncio/base_events.py:607", "<module> agent.py:90")
IDLE_LOOP = ("select lib:selectors.py:468", *LOOP)
IN_CALLBACK = ("_run lib:asyncio/events.py:80", *LOOP)
WAITS_FOR_LOCK = ("wait lib:threading.py:320", "get lib:queue.py:171")
IDLE_WORKER = ("_worker lib:concurrent/futures/thread.py:81", "run lib:threading.py:975", "_bootstrap lib:threading.py:995")


def stacks(*threads: tuple[str, ...], pid: int = AGENT, tids: tuple[int, ...] = (), **more: Any) -> PythonStacks:
    """Python threads; the first is the main one, the others have the tids that follow, unless said."""
    numbers = tids or tuple(range(pid, pid + len(threads)))
    gil = more.pop("gil", None)
    found = tuple(
        PythonThread(tid=tid, name=f"Thread-{at}", frames=frames(*each), owns_gil=tid == gil, active=tid == gil)
        for at, (tid, each) in enumerate(zip(numbers, threads, strict=True))
    )
    return PythonStacks(pid=pid, version="3.11.2", threads=found, took_ms=1.0, **more)


def task(*chain: str, awaits: str | None = "Future", name: str = "Task-7") -> PythonTask:
    """An asyncio task, outermost coroutine first."""
    return PythonTask(name=name, chain=frames(*chain), awaits=awaits)


def native(tid: int, *texts: str, pid: int = AGENT) -> NativeThread:
    """A native stack, innermost first."""
    return NativeThread(pid=pid, tid=tid, frames=texts)


# --- the whole -------------------------------------------------------------------------------------------------------------------


def seen(*processes: ProcessLook, watched: bool = True, **more: Any) -> Examination:
    """One examination."""
    facts: dict[str, Any] = {
        "patience_s": PATIENCE_S,
        "interval_s": 1.0,
        "watched_since_ns": NOW_NS - 900 * S if watched else None,
    }
    return Examination(at_ns=NOW_NS, processes=processes or (process(),), **(facts | more))


def stop(signal: int = 19, *, ago_s: float = LONG_S, code: int = 0, comm: str = "bash", tty: bool = False) -> SignalSent:
    """A signal that was seen being sent to the agent."""
    return SignalSent(
        at_ns=NOW_NS - int(ago_s * S), signal=signal, code=code, group=True, result=0, pid=AGENT, tid=AGENT, start_ns=1, comm="python3",
        handler="default", sender_pid=812, sender_tid=812, sender_start_ns=1, sender_comm=comm, sender_uid=1000, sender_tty=tty,
    )  # fmt: skip


def scene(examination: Examination, *signals: SignalSent) -> HangScene:
    """The scene of a hang."""
    first = examination.processes[0] if examination.processes else process()
    agent = Agent(
        name="agent", pid=AGENT, start_ns=first.start_ns, start_time="2026-11-20T03:00:00Z", command="python3 agent.py"
    )
    known = Process(pid=first.pid, start_ns=first.start_ns, ppid=1, comm=first.comm, argv=first.argv)
    return HangScene(agent=agent, process=known, scope="agent", engine="core", examination=examination, signals=signals)


def recorded(collected: dict[str, Collected]) -> dict[str, Collected]:
    """The same evidence, having gone through a line of a recording."""
    records = tuple(each.record("context") for each in collected.values() if isinstance(each, Evidence))
    missing = tuple(
        MissingEvidence(kind=kind, because=each.because)
        for kind, each in collected.items()
        if each is not None and not isinstance(each, Evidence)
    )
    line = msgspec.json.encode(records)
    return from_records(HangScene, msgspec.json.decode(line, type=type(records)[type(records[0]), ...]), missing)  # type: ignore[misc]


def diagnose(examination: Examination, *signals: SignalSent) -> Diagnosis:
    """What the causes make of it, live and replayed: that must be the same."""
    collected = collect_all(scene(examination, *signals))
    found = classify(collected)
    assert classify(recorded(collected)) == found
    assert not [each for each in found.not_checked if "judging it failed" in each.because], found.not_checked
    return found


def hang(examination: Examination, *signals: SignalSent) -> Finding:
    """The best finding, which must be sure enough to open an incident and rest on more than one sign."""
    diagnosis = diagnose(examination, *signals)
    ruled_out = [(each.cause, each.because) for each in diagnosis.ruled_out]
    assert diagnosis.findings, ruled_out
    best = diagnosis.findings[0]
    assert best.confidence != "possible", best
    assert best.advice
    assert len(best.cites) > 1
    return best


def calm(examination: Examination, *signals: SignalSent) -> dict[str, str]:
    """Nothing that would open an incident: why each cause was ruled out."""
    diagnosis = diagnose(examination, *signals)
    sure = [(each.cause, each.headline) for each in diagnosis.findings if each.confidence != "possible"]
    assert sure == []
    return {each.cause.removeprefix("hang/"): each.because for each in diagnosis.ruled_out}
