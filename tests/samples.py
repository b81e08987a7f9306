"""Made-up but realistic events for views: what a night with three agents looks like.

To write them as a recording: python tests/samples.py > night.ndjson
"""

import sys

from agentscope.model import (
    Actor,
    Agent,
    AgentGone,
    AgentSeen,
    Ancestor,
    AnyEvent,
    EvidenceRecord,
    ExitRecord,
    Finding,
    IncidentOpened,
    Lost,
    Process,
    Pulse,
    Ready,
    RuledOut,
    TimelineEntry,
)
from agentscope.record import Recorder

S = 1_000_000_000
MIB = 1 << 20
BOOT_WALL_NS = 1_795_129_200 * S
STARTED_NS = 3_600 * S
DIED_NS = 15_124 * S

# Everything a hostile process can put in a name: clear screen, title, colour, bidi override, a fake line, markup of both libraries.
HOSTILE = "evil\x1b[2J\x1b]0;owned\x07\x1b[31m\u202egpj.exe\u200b\r\nroot@host:~# [bold red]rm[/] [link=http://evil]x[/link] \x9b5m\x00\x7f \ud800"


def agent(name: str, pid: int, command: str, **fields: object) -> Agent:
    """An agent that started an hour after boot."""
    return Agent(
        name=name, pid=pid, start_ns=STARTED_NS, start_time="2026-11-19T23:00:00Z", command=command, uid=1000, **fields
    )  # type: ignore[arg-type]


def process(of: Agent, comm: str = "python3", **fields: object) -> Process:
    """The agent's own process."""
    return Process(
        pid=of.pid, start_ns=of.start_ns, comm=comm, argv=tuple(of.command.split()), uid=of.uid, cgroup=of.cgroup, **fields
    )  # type: ignore[arg-type]


RESEARCHER = agent(
    "researcher",
    4242,
    "/srv/researcher/.venv/bin/python -m researcher --model sonnet",
    cgroup="/agents/researcher",
    unit="researcher.service",
)
CODER = agent("coder", 5150, "node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js")
INDEXER = agent("indexer", 6001, "python3 index.py --shard 3", cgroup="/agents/indexer")
SCRAPER = agent("scraper", 6100, "uv run scrape.py", cgroup="/agents/scraper")
NIGHTLY = agent("nightly", 6200, "/opt/nightly/run --once")
HOSTILE_AGENT = agent(HOSTILE, 6666, HOSTILE * 20, cgroup=HOSTILE)

NO_FAULT = "no fault signal was delivered"
NO_WORDS = "it wrote nothing before it ended"
NO_SIGNAL = "no signal ended it"


def evidence(kind: str, source: str, says: str, weight: str, **fields: object) -> EvidenceRecord:
    """One fact."""
    return EvidenceRecord(kind=kind, source=source, says=says, weight=weight, data=fields)  # type: ignore[arg-type]


def incident(of: Agent, name: str, slug: str, headline: str, culprit: str, **fields: object) -> IncidentOpened:
    """An incident of this agent, certain and without anything else unless said."""
    subtype = slug.partition("/")[2]
    told: dict[str, object] = {
        "at_ns": DIED_NS, "process": process(of), "scope": "agent", "confidence": "certain", "actor": None, "evidence": (), "ruled_out": (),
        "not_checked": (), "advice": (), "timeline": (), "engine": "core", "detected_in_ms": 2.4,
        "exit": ExitRecord(code=None, signal="SIGKILL", core_dumped=False),
    }  # fmt: skip
    return IncidentOpened(
        incident=name, agent=of, cause=slug, subtype=subtype, headline=headline, culprit=culprit, **(told | fields)
    )  # type: ignore[arg-type]


def oom_cgroup() -> IncidentOpened:
    """Its memory cgroup's limit."""
    samples = tuple(
        (-(240 - second) * S, (120 + second * 378 // 240) * MIB, (134 + second * 378 // 240) * MIB)
        for second in range(0, 240, 2)
    )
    return incident(
        RESEARCHER, "2026-11-20T03:12:04Z-4242", "oom/cgroup",
        "the kernel killed researcher: its cgroup reached its memory limit of 512 MiB", "memory limit 512 MiB of cgroup /agents/researcher",
        actor=Actor(kind="kernel", says="from the kernel (the OOM killer)"),
        evidence=(
            evidence("wait-status", "tracepoint sched:sched_process_exit", "ended by SIGKILL after 11524.0 s", "supporting", code=None, signal=9),
            evidence("oom-victim", "tracepoint oom:mark_victim", "the kernel chose it as OOM victim while it held 498 MiB of its own memory; its own allocation ran into the limit", "decisive",
                     anon_rss_bytes=498 * MIB, trigger="itself", trigger_pid=4242),
            evidence("memory-limits", "cgroup files and /proc/PID/limits while it lived", "cgroup /agents/researcher allows 512 MiB, 511 MiB used when last read; the host had 9.6 GiB available", "decisive",
                     binding={"path": "/agents/researcher", "version": 1, "limit_bytes": 512 * MIB, "usage_bytes": 511 * MIB}),
            evidence("memory-history", "pulse (iter/task) once a second", "resident memory peaked at 498 MiB in the last 240 s, growing +94 MiB a minute", "supporting",
                     samples=samples, peak_rss_bytes=498 * MIB, growth_bytes_per_min=94.0 * MIB),
            evidence("kernel-log", "/dev/kmsg", "kernel log: Memory cgroup out of memory: Killed process 4242 (python3) total-vm:1894212kB, anon-rss:509952kB", "supporting", lines=["Memory cgroup out of memory"]),
            evidence("last-words", "write probe on descriptors 1 and 2", "its last line was 'embedding chunk 8123 of 20000'", "context",
                     text="\n".join(f"embedding chunk {n} of 20000" for n in range(8000, 8124)) + "\n"),
            evidence("last-syscall", "registers at the end", "its last system call was madvise", "context", name="madvise"),
        ),
        ruled_out=(
            RuledOut(cause="oom/global", because="the cgroup's own limit was reached, and the host had 9.6 GiB available"),
            RuledOut(cause="killed/sigkill", because="the SIGKILL came from the kernel's OOM killer, not from a process"),
            RuledOut(cause="oom/runtime-heap", because="its last words name no heap that was full"),
            *(RuledOut(cause=f"crash/{name}", because=NO_FAULT) for name in ("segfault", "abort", "bus", "fpe", "illegal-instruction", "stack-overflow")),
        ),
        not_checked=(RuledOut(cause="oom/gpu", because="no NVIDIA driver is loaded, so /dev/nvidiactl could not be asked"),),
        advice=(
            "It grew by 94 MiB a minute until the end: look for what it keeps (the embedding loop was at chunk 8123 of 20000) before giving it more.",
            "To give it more: systemctl set-property researcher.service MemoryMax=1G",
        ),
        timeline=(
            TimelineEntry(offset_ns=-240 * S, says="resident memory 120 MiB"),
            TimelineEntry(offset_ns=-31 * S, says="its cgroup passed 90 % of the limit"),
            TimelineEntry(offset_ns=-2_100_000, says="the kernel chose it as OOM victim"),
            TimelineEntry(offset_ns=0, says="it ended by SIGKILL"),
            TimelineEntry(offset_ns=2_400_000, says="this was told"),
        ),
    )  # fmt: skip


def killed_by_bash() -> IncidentOpened:
    """Somebody typed kill -9."""
    chain = (Ancestor(pid=3100, comm="sshd"), Ancestor(pid=900, comm="sshd"), Ancestor(pid=1, comm="systemd"))
    return incident(
        CODER, "2026-11-20T03:12:09Z-5150", "killed/sigkill", "coder was killed by bash (pid 3120, uid 1000) at a terminal", "bash (pid 3120, uid 1000), started by sshd 3100",
        at_ns=DIED_NS + 5 * S, process=process(CODER, "node"),
        actor=Actor(kind="process", says="from bash (pid 3120, uid 1000) at a terminal, started by sshd 3100 ← sshd 900 ← systemd 1", pid=3120, comm="bash", exe="/usr/bin/bash", uid=1000, ancestors=chain),
        evidence=(
            evidence("actor", "tracepoint signal:signal_generate", "SIGKILL from bash (pid 3120, uid 1000) at a terminal, started by sshd 3100 ← sshd 900 ← systemd 1", "decisive", signal=9, relation="stranger"),
            evidence("wait-status", "tracepoint sched:sched_process_exit", "ended by SIGKILL after 11529.0 s", "supporting", code=None, signal=9),
        ),
        ruled_out=(
            RuledOut(cause="oom/cgroup", because="the kernel's OOM killer did not choose this process"),
            RuledOut(cause="oom/global", because="the kernel's OOM killer did not choose this process"),
            RuledOut(cause="oom/userspace-killer", because="the sender, /usr/bin/bash, is no known out-of-memory daemon"),
        ),
        advice=("Ask who was logged in as uid 1000 over ssh at that time: last -F",),
        timeline=(TimelineEntry(offset_ns=-400_000, says="bash (pid 3120) sent SIGKILL"), TimelineEntry(offset_ns=0, says="it ended by SIGKILL")),
    )  # fmt: skip


def segfault() -> IncidentOpened:
    """A native extension read a bad address."""
    python = [
        {
            "function": f"encode_batch_{n}" if n else "encode",
            "file": f"/srv/indexer/src/index/stage_{n:02}.py",
            "first_line": 10,
            "line": 20 + n,
        }
        for n in range(18)
    ]
    native = [
        {"module": "/srv/indexer/.venv/lib/python3.11/site-packages/tokenizers/tokenizers.abi3.so", "offset": 0x1F2A40, "symbol": "_ZN10tokenizers5model4next17h0c4aE+0x1a4"},
        {"module": "/srv/indexer/.venv/lib/python3.11/site-packages/tokenizers/tokenizers.abi3.so", "offset": 0x1F1000, "symbol": None},
        {"module": "/usr/bin/python3.11", "offset": 0x52B1A0, "symbol": "_PyEval_EvalFrameDefault+0x5f0"},
        {"module": "/usr/lib/x86_64-linux-gnu/libc.so.6", "offset": 0x2724A, "symbol": "__libc_start_main+0x85"},
    ]  # fmt: skip
    return incident(
        INDEXER, "2026-11-20T03:13:00Z-6001", "crash/segfault", "indexer crashed in tokenizers.abi3.so: it read address 0x10, which is not mapped", "tokenizers 0.19.1 (tokenizers.abi3.so+0x1f2a40)",
        at_ns=DIED_NS + 56 * S, confidence="certain", exit=ExitRecord(code=None, signal="SIGSEGV", core_dumped=True), actor=Actor(kind="self", says="from the process itself", pid=6001),
        evidence=(
            evidence("fault", "tracepoint signal:signal_deliver", "SIGSEGV (SEGV_MAPERR) at address 0x10 in /srv/indexer/.venv/lib/python3.11/site-packages/tokenizers/tokenizers.abi3.so+0x1f2a40 on thread indexer-pool-3 (6017)", "decisive", signal=11, address=16),
            evidence("python-stack", "tracepoint signal:signal_deliver, frames of the interpreter", "Python was in encode at /srv/indexer/src/index/stage_00.py:20, 18 frames deep", "decisive", frames=python),
            evidence("native-stack", "raw stack at signal:signal_deliver, unwound by .eh_frame", "native stack, innermost first: _ZN10tokenizers5model4next17h0c4aE+0x1a4 ← tokenizers.abi3.so (4 frames)", "supporting", frames=native, ended="the outermost frame", owner="tokenizers 0.19.1"),
            evidence("last-words", "/var/log/indexer.log", "its last words: faulthandler says that Python had a segmentation fault", "supporting",
                     text='Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f2a (most recent call first):\n  File "/srv/indexer/src/index/stage_00.py", line 20 in encode\n'),
        ),
        ruled_out=(RuledOut(cause="crash/stack-overflow", because="the address lies 0x7f00 MiB from the stack pointer"), RuledOut(cause="oom/cgroup", because="the kernel's OOM killer did not choose this process")),
        not_checked=(RuledOut(cause="drift/segfault", because="there is no healthy mark of this agent yet to compare with"), RuledOut(cause="drift/abi", because="there is no healthy mark of this agent yet to compare with")),
        advice=("Pin or update tokenizers: the fault is in its own code, called from /srv/indexer/src/index/stage_00.py:20.",),
        timeline=(TimelineEntry(offset_ns=-11_000_000, says="thread indexer-pool-3 took SIGSEGV"), TimelineEntry(offset_ns=0, says="it ended by SIGSEGV (core dumped)")),
        findings=(
            Finding(headline="indexer crashed in tokenizers.abi3.so: it read address 0x10, which is not mapped", culprit="tokenizers", confidence="certain", cites=("fault",), cause="crash/segfault"),
            Finding(headline="a library changed under it", culprit="tokenizers", confidence="possible", cites=("fault",), cause="drift/segfault"),
        ),
    )  # fmt: skip


def uncaught() -> IncidentOpened:
    """Python left by a traceback."""
    words = """2026-11-20 03:13:09 INFO fetching https://api.example.com/v1/pages?cursor=81
Traceback (most recent call last):
  File "/srv/scraper/scrape.py", line 88, in <module>
    main()
  File "/srv/scraper/scrape.py", line 61, in main
    page = client.fetch(cursor)
  File "/srv/scraper/client.py", line 24, in fetch
    return reply["items"]["next"]
KeyError: 'items'
"""
    return incident(
        SCRAPER, "2026-11-20T03:13:10Z-6100", "exception/uncaught", "scraper ended by an exception that nothing caught: KeyError: 'items'", "/srv/scraper/client.py:24 in fetch",
        at_ns=DIED_NS + 66 * S, exit=ExitRecord(code=1, signal=None, core_dumped=False),
        evidence=(
            evidence("last-words", "write probe on descriptors 1 and 2", "its last words: KeyError: 'items' at /srv/scraper/client.py:24", "decisive", text=words),
            evidence("wait-status", "tracepoint sched:sched_process_exit", "exited with status 1 after 11590.0 s", "decisive", code=1),
        ),
        ruled_out=(RuledOut(cause="exit/status", because="its last words say more than its status"), RuledOut(cause="killed/sigterm", because=NO_SIGNAL)),
        advice=("Look at client.py line 24: the reply of the service has no 'items'.",),
    )  # fmt: skip


def exit_status() -> IncidentOpened:
    """Only a status."""
    return incident(
        NIGHTLY, "2026-11-20T03:14:00Z-6200", "exit/status", "nightly exited with status 3 and said nothing", "exit status 3 of /opt/nightly/run",
        at_ns=DIED_NS + 116 * S, confidence="possible", exit=ExitRecord(code=3, signal=None, core_dumped=False), process=process(NIGHTLY, "run"),
        evidence=(evidence("wait-status", "tracepoint sched:sched_process_exit", "exited with status 3 after 11640.0 s", "decisive", code=3),),
        ruled_out=(RuledOut(cause="exception/uncaught", because=NO_WORDS), RuledOut(cause="exception/disk-full", because=NO_WORDS), RuledOut(cause="crash/abort", because=NO_FAULT)),
    )  # fmt: skip


def tool_killed() -> IncidentOpened:
    """A compiler that the coding agent started."""
    return incident(
        CODER, "2026-11-20T03:10:00Z-5199", "oom/cgroup", "cc1plus, a tool of coder, was killed by the kernel: cgroup /build reached 2.0 GiB", "memory limit 2.0 GiB of cgroup /build",
        at_ns=DIED_NS - 124 * S, scope="tool", process=Process(pid=5199, start_ns=DIED_NS - 190 * S, comm="cc1plus", argv=("cc1plus", "-O2", "big.cc"), role="tool"),
        evidence=(evidence("oom-victim", "tracepoint oom:mark_victim", "the kernel chose it as OOM victim while it held 1.9 GiB of its own memory", "decisive"),),
        advice=("Build with fewer jobs: make -j1",),
    )  # fmt: skip


def undetermined() -> IncidentOpened:
    """Nothing fits."""
    return incident(
        NIGHTLY, "2026-11-20T03:20:00Z-6201", "undetermined", "", "unknown", confidence="undetermined", engine="netlink", detected_in_ms=0.0,
        advice=("agentscope doctor shows which evidence this machine cannot give",),
        not_checked=(RuledOut(cause="killed/sigkill", because="who sends signals is seen by BPF only, which is not attached here"),),
    )  # fmt: skip


def hostile() -> IncidentOpened:
    """Every text that a process or a file can choose is hostile."""
    return incident(
        HOSTILE_AGENT, HOSTILE, "exception/uncaught", HOSTILE, HOSTILE, at_ns=DIED_NS + 130 * S, process=process(HOSTILE_AGENT, HOSTILE),
        actor=Actor(kind="process", says=HOSTILE, pid=1),
        evidence=(
            evidence("last-words", HOSTILE, HOSTILE + "A" * 10_000, "decisive", text=f"{HOSTILE}\n{'B' * 10_000}\n\x1b]8;;http://evil\x07click\x1b]8;;\x07\ntoken=abcdefghijklmnop sk-ant-abcdefghijklmnop\n"),
            evidence("python-stack", HOSTILE, HOSTILE, "supporting", frames=[{"function": HOSTILE, "file": HOSTILE, "line": HOSTILE}, 3, None]),
            evidence("native-stack", "x", "y", "supporting", frames="no list", ended=HOSTILE),
            evidence("memory-history", "x", "y", "context", samples=[[None, "x", {}], 7, [-S, HOSTILE, None], [0, True, None]]),
            evidence("memory-limits", "x", "y", "context", binding=HOSTILE),
        ),
        ruled_out=(RuledOut(cause=HOSTILE, because=HOSTILE),), not_checked=(RuledOut(cause=HOSTILE, because=HOSTILE),), advice=(HOSTILE,),
        timeline=(TimelineEntry(offset_ns=-1, says=HOSTILE),),
    )  # fmt: skip


INCIDENTS = {
    "oom-cgroup": oom_cgroup, "killed-by-bash": killed_by_bash, "segfault": segfault, "uncaught": uncaught, "exit-status": exit_status,
    "tool": tool_killed, "undetermined": undetermined, "hostile": hostile,
}  # fmt: skip


def pulse(of: Agent, at_ns: int, rss_bytes: int | None, state: str = "running", **fields: object) -> Pulse:
    """One sample."""
    told: dict[str, object] = {"cpu_percent": 12.5, "threads": 9} | fields
    return Pulse(at_ns=at_ns, agent_pid=of.pid, agent_start_ns=of.start_ns, state=state, rss_bytes=rss_bytes, **told)  # type: ignore[arg-type]


def ready() -> Ready:
    """The first line."""
    return Ready(
        at_ns=STARTED_NS, version="0.1.0", engine="core", kernel="6.18.0", boot_id="3d3393b2-0000-4000-8000-000000000000",
        wall_ns=BOOT_WALL_NS + STARTED_NS, targets=("name ^(researcher|coder)$",),
    )  # fmt: skip


def night() -> list[AnyEvent]:
    """A whole recording, oldest first."""
    events: list[AnyEvent] = [ready()]
    agents = (RESEARCHER, CODER, INDEXER, SCRAPER, NIGHTLY)
    watcher = agent("watcher", 7000, "python3 -m watcher", unit="watcher.service")
    asking = agent("planner", 7001, "python3 plan.py")
    events += [AgentSeen(at_ns=STARTED_NS + S, agent=one, because="signature") for one in (*agents, watcher, asking)]
    for second in range(0, 240, 2):
        at_ns = DIED_NS - (240 - second) * S
        rss = (120 + second * 378 // 240) * MIB
        events.append(
            pulse(
                RESEARCHER,
                at_ns,
                rss,
                cgroup_bytes=rss + 14 * MIB,
                limit_bytes=512 * MIB,
                limit_path="/agents/researcher",
                cpu_percent=97.0,
            )
        )
        events.append(pulse(watcher, at_ns, (80 + second % 10) * MIB, "waiting(timer)", cpu_percent=0.0))
        events.append(pulse(asking, at_ns, (200 + second % 30) * MIB, "waiting(llm 160.79.104.10:443, 43 s)", cpu_percent=0.3))
        events.append(pulse(CODER, at_ns, 410 * MIB, "waiting(human)", limit_bytes=4096 * MIB))
        if second == 116:
            events.append(tool_killed())
    events.append(oom_cgroup())
    events.append(AgentGone(at_ns=DIED_NS, agent=RESEARCHER, says="died: oom/cgroup", incident="2026-11-20T03:12:04Z-4242"))
    events.append(killed_by_bash())
    events.append(segfault())
    events.append(uncaught())
    events.append(Lost(at_ns=DIED_NS + 70 * S, source="ebpf", count=17, says="the ring buffer was full"))
    events.append(exit_status())
    events.append(hostile())
    events.append(pulse(watcher, DIED_NS + 140 * S, 91 * MIB, "waiting(timer)", cpu_percent=0.0))
    events.append(pulse(asking, DIED_NS + 140 * S, 231 * MIB, "hung(lock)", cpu_percent=0.0))
    return events


def main() -> None:
    """Write the recording to standard output; text that JSON cannot hold is replaced, as the sources do."""
    recorder = Recorder("3d3393b2-0000-4000-8000-000000000000", BOOT_WALL_NS, host="sample")
    for event in night():
        if isinstance(event, IncidentOpened) and event.agent is HOSTILE_AGENT:
            continue
        line = recorder.encode(event)
        if line is not None:
            sys.stdout.buffer.write(line)


if __name__ == "__main__":
    main()
