"""The scene of an end that nobody watched, as the causes judge any other. Pure."""

import msgspec

from agentscope.aftermath import JOURNAL, Traces, Wanted, journal
from agentscope.aftermath.joining import Joined
from agentscope.distributions.enclosing import Enclosure
from agentscope.evidence import KERNEL_LOG, Aftermath, LastSeen, Scene, Words
from agentscope.evidence.actor import SIGHUP, SIGINT, SIGKILL, SIGTERM
from agentscope.incidents import Ended
from agentscope.model import Agent, KernelLine, MissingEvidence, Process, ProcessExit
from agentscope.record import timestamp

UNKNOWN_START_NS = 60_000_000_000  # of the kernel log, where nobody tells when the process began
AFTER_NS = 5_000_000_000
BY_REQUEST = frozenset({SIGHUP, SIGINT, SIGKILL, SIGTERM})
LINES_READ = 1500
NOT_SEEN = "nobody watched it while it was well"


def on_purpose(traces: Traces, joined: Joined) -> str | None:
    """Why this end is no incident: it was asked for, or all went well; None where it is one, or nobody knows."""
    end = joined.end
    if end.code == 0:
        return "it exited with status 0"
    if joined.kill is not None:
        return None
    if end.signal is None and end.code is None:
        return journal.stop_asked(traces.entries or (), end)
    answered = end.code is not None and end.code - 128 in BY_REQUEST
    if end.signal not in BY_REQUEST and not answered:
        return None
    asked = journal.stop_asked(traces.entries or (), end) if end.unit else None
    return asked or (joined.container.stopped_by if joined.container is not None else None)


CLEAN_FOR_SYSTEMD = (
    "systemd counts it as a clean end: status 0, or SIGHUP, SIGINT, SIGTERM or SIGPIPE; which of these, nobody wrote down"
)


def scene_of(traces: Traces, joined: Joined, wanted: Wanted, baseline_missing: str = NOT_SEEN) -> tuple[Ended, Scene]:
    """The end and its scene."""
    end, container = joined.end, joined.container
    pid, start_ns = joined.pid or 0, end.start_ns or 0
    kill = joined.kill.report if joined.kill is not None else None
    cgroup = (kill.task_memcg if kill is not None else None) or end.cgroup or None
    comm = (
        end.comm
        or (kill.comm if kill is not None else None)
        or (end.argv[0].rpartition("/")[2] if end.argv else "")
        or wanted.who
    )
    process = Process(pid=pid, start_ns=start_ns, comm=comm[:15], argv=end.argv, exe=end.exe, uid=end.uid, cgroup=cgroup)
    name = (container.name if container is not None else "") or end.unit.removesuffix(".service") or comm
    agent = Agent(
        name=name, pid=pid, start_ns=start_ns, start_time=timestamp(traces.boot.wall_ns + start_ns) if start_ns else "unknown",
        command=" ".join(end.argv) or comm, exe=end.exe, uid=end.uid, cgroup=cgroup, unit=end.unit or None,
        container=end.container[:12] or None,
    )  # fmt: skip
    status = (end.signal or 0) | (0x80 if end.core else 0) if end.signal else (end.code or 0) << 8
    enclosure = None
    if container is not None:
        known = f"the records of {container.runtime}"
        enclosure = Enclosure(
            id=container.id,
            runtime=container.runtime,
            source=known,
            name=container.name,
            image=container.image,
            pod=container.pod,
        )
    exit_ = ProcessExit(
        at_ns=end.at_ns, pid=pid, start_ns=start_ns, ppid=0, comm=process.comm, status=status, uid=end.uid or 0, cgroup=cgroup, engine="none",
    )  # fmt: skip
    words, words_missing = words_of(traces, joined)
    scene = Scene(
        agent=agent, process=process, scope="agent", exit=exit_, engine="none", kernel_lines=lines_of(traces, joined), words=words,
        words_missing=words_missing, baseline_missing=baseline_missing, past=aftermath_of(traces, joined),
        root=traces.root, enclosure=enclosure, last_seen=LastSeen(at_ns=end.at_ns, cgroups=tuple(msgspec.structs.replace(c, usage_bytes=None) for c in traces.counters)) if traces.counters else None,
    )  # fmt: skip
    return Ended(agent=agent, process=process, scope="agent", exit=exit_), scene


def words_of(traces: Traces, joined: Joined) -> tuple[Words | None, str]:
    """Its last lines from the journal or its container's log, or why there are none."""
    container = joined.container
    if container is not None and container.words is not None:
        return Words(text=container.words, source=f"log of container {container.name} ({container.runtime})"), ""
    if traces.entries is None:
        return None, next(
            (f"the journal: {each.because}" for each in traces.unread if each.kind == JOURNAL), "there is no journal"
        )
    found = journal.words(traces.entries, joined.end)
    return (
        (found, "") if found is not None else (None, "no log that can be read has a line of it: what it wrote went elsewhere")
    )


def lines_of(traces: Traces, joined: Joined) -> tuple[KernelLine, ...] | None:
    """The kernel's lines of its time: numbers come again, so that older ones would tell of another process."""
    if not covers_kernel(traces, joined):
        return None
    if not traces.boot.own_pids and joined.kill is None:
        return ()  # the numbers in them are those of another namespace
    end = joined.end
    since_ns = max(end.start_ns or 0, end.at_ns - UNKNOWN_START_NS)
    return tuple(line for line in traces.kernel or () if since_ns - AFTER_NS <= line.at_ns <= end.at_ns + AFTER_NS)[
        -LINES_READ:
    ]


def covers_kernel(traces: Traces, joined: Joined) -> bool:
    """Whether the kernel log is there, reaches back to the end, and can be joined with it."""
    since_ns = traces.kernel_from_ns
    reaches = traces.kernel is not None and since_ns is not None and since_ns <= joined.end.at_ns
    return (
        joined.kill is not None or (reaches and joined.comparable) or any(each.source == KERNEL_LOG for each in joined.accounts)
    )


def aftermath_of(traces: Traces, joined: Joined) -> Aftermath:
    """What it was put together from."""
    end, entries = joined.end, traces.entries or ()
    kernel = covers_kernel(traces, joined)
    since_ns = traces.journal_from_ns
    unread = list(traces.unread)
    if not kernel and not any(each.kind == KERNEL_LOG for each in unread):
        because = (
            "it no longer reaches back to that time"
            if joined.comparable
            else "its process numbers are those of another pid namespace"
        )
        unread.append(MissingEvidence(kind=KERNEL_LOG, because=because))
    counted = journal.counted_oom(entries, end)
    if counted is None and joined.container is not None and joined.container.oom_killed:
        counted = joined.container.runtime
    seen_inside = end.pid if joined.pid not in {None, end.pid} else None
    return Aftermath(
        read=traces.read,
        unread=tuple(unread),
        told_by=tuple(dict.fromkeys(each.source for each in joined.accounts)),
        kernel_log=kernel,
        journal=since_ns is not None and since_ns <= end.at_ns + AFTER_NS,
        sent=journal.sent(entries, end),
        counted_oom=counted,
        pid_inside=seen_inside,
        joined_by=joined.by,
        cpu_limited=joined.container.cpu_limited if joined.container else traces.unit.cpu_limited if traces.unit else None,
    )
