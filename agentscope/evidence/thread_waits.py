"""What every thread of the agent's processes waits for, and since when: the ground on which every hang is judged."""

from collections.abc import Iterator

import msgspec

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import Call, Examination, ProcessLook, Thread
from agentscope.examination.proc import plain
from agentscope.examination.waiting import Wait, cpu_of, waits_of
from agentscope.model import Role, Value

ABSENT = "it has no threads"
THREADS = 200  # listed, the most telling first; the counts of a process are of all
PROCESSES = 64
DESCRIPTORS = 16  # of one call
OBJECTS = 64  # sockets and pipes of one wait
AWAKE_S = 2.0  # in state D for less than this is work
SHOWN = 120  # characters of a command line or a path
BUSY, SERVED = 0.8, 0.1  # of one CPU: what a busy thread wants, and what it gets at least, however many want it
BUSY_CPU = 0.05
BUSY_SWITCHES = 5.0  # a second: a tool that reads or writes much uses little CPU
_RANK = {"running": 1, "disk": 1, "stopped": 1, "human": 1, "llm": 2, "peer": 2, "tool": 2, "file-lock": 2, "pipe": 2}


class PipeEnd(Value, frozen=True):
    """One end of a pipe that a thread waits at: `reads` where it is the reading one."""

    inode: int
    reads: bool


class ThreadSeen(Value, frozen=True):
    """One thread with its wait. `target` is what its call's first descriptor is; `ends` the ends of pipes that it waits at."""

    wait: Wait
    comm: str
    state: str
    call: Call | None = None
    target: str | None = None
    ends: tuple[PipeEnd, ...] = ()
    cpu_share: float | None = None
    busy_share: float | None = None
    switches_per_s: float | None = None

    @property
    def busy(self) -> bool:
        """Whether it does nothing but use the CPU, or wait for one that others use; a quota that hardly lets it run is no such wait."""
        wants = self.cpu_share if self.busy_share is None else self.busy_share
        return (wants or 0.0) >= BUSY and (self.cpu_share or 0.0) >= SERVED

    @property
    def for_s(self) -> float:
        """How long it has waited; 0 where that is not known."""
        return self.wait.for_s or 0.0

    @property
    def main(self) -> bool:
        """Whether it is the first thread of its process."""
        return self.wait.tid == self.wait.pid


class ProcessSeen(Value, frozen=True):
    """One process of the tree.

    Counts are of all its threads: `running` on the CPU or briefly in state D, `stopped` by a signal, `locked` waiting for a lock
    without time-out. `still_for_s` is how long the thread that ran last has not run. `own` tells that it is the agent's own
    program or a copy of it (a worker), not a tool that it runs.
    """

    pid: int
    ppid: int
    comm: str
    command: str
    role: Role
    own: bool
    threads: int
    running: int = 0
    stopped: int = 0
    locked: int = 0
    cpu_share: float = 0.0
    switches_per_s: float = 0.0
    still_for_s: float | None = None
    ended: bool = False
    tracer: str | None = None

    @property
    def busy(self) -> bool:
        """Whether it used a CPU during the interval to speak of."""
        return bool(self.running) or self.cpu_share >= BUSY_CPU

    @property
    def works(self) -> bool:
        """Whether it did anything: used a CPU, or was woken again and again, as by files and sockets."""
        return self.busy or self.switches_per_s >= BUSY_SWITCHES

    @property
    def words(self) -> str:
        """As it is named in a sentence: "cat (pid 12)"."""
        return f"{self.comm} (pid {self.pid})"


class ThreadWaits(Evidence, frozen=True, tag="thread-waits"):
    """The threads of the tree, the agent's innermost process first. `watched_s` is how long it was watched (None: never before)."""

    at_ns: int
    patience_s: float
    interval_s: float
    watched_s: float | None
    processes: tuple[ProcessSeen, ...]
    threads: tuple[ThreadSeen, ...]

    @property
    def agent(self) -> ProcessSeen:
        """The agent's innermost process."""
        return self.processes[0]

    def process(self, pid: int | None) -> ProcessSeen | None:
        """The process of this pid."""
        return next((each for each in self.processes if each.pid == pid), None)

    def thread(self, pid: int, tid: int) -> ThreadSeen | None:
        """One thread, if it is among those listed."""
        return next((each for each in self.threads if each.wait.tid == tid and each.wait.pid == pid), None)

    def of(self, pid: int) -> tuple[ThreadSeen, ...]:
        """The threads of a process that are listed, its main thread among them."""
        return tuple(each for each in self.threads if each.wait.pid == pid)

    def whole(self, pid: int) -> bool:
        """Whether all threads of a process are listed."""
        process = self.process(pid)
        return process is not None and len(self.of(pid)) == process.threads

    def own(self) -> tuple[ThreadSeen, ...]:
        """The threads of the agent's own processes, workers included."""
        pids = {process.pid for process in self.processes if process.own}
        return tuple(each for each in self.threads if each.wait.pid in pids)

    def below(self, pid: int) -> Iterator[ProcessSeen]:
        """The processes below one, whatever depth; each once, though a hostile tree may be a ring."""
        seen, front = {pid}, [pid]
        while front:
            parent = front.pop()
            for each in self.processes:
                if each.ppid == parent and each.pid not in seen:
                    seen.add(each.pid)
                    front.append(each.pid)
                    yield each

    def works(self, pid: int) -> bool:
        """Whether a process or any below it did something during the interval."""
        process = self.process(pid)
        return (process is not None and process.works) or any(each.works for each in self.below(pid))

    def innermost(self, pid: int) -> ProcessSeen | None:
        """The process that one waits for in the end: a shell waits for what it runs, and that perhaps for another."""
        found = self.process(pid)
        for _ in range(len(self.processes)):
            child = next((wait.child for each in self.of(pid) if (wait := each.wait).kind == "tool" and wait.child), None)
            step = self.process(child)
            if step is None or step.ended or step.pid == pid:
                break
            found, pid = step, step.pid
        return found

    def waited_for(self, pid: int) -> ThreadSeen | None:
        """The thread of the agent's own that waits for a process or for one above it."""
        for each in self.own():
            child = each.wait.child if each.wait.kind == "tool" else None
            if child is not None and (child == pid or any(below.pid == pid for below in self.below(child))):
                return each
        return None

    def says(self) -> str:
        """One sentence for a person."""
        main = next((each for each in self.threads if each.main), self.threads[0])
        others = sum(process.threads for process in self.processes) - 1
        doing = "is running" if main.wait.kind == "running" else f"waits for {main.wait.says}"
        lasted = "" if main.wait.for_s is None or main.wait.kind == "running" else f", for {main.wait.for_s:.0f} s"
        where = f" in {len(self.processes)} processes" if len(self.processes) > 1 else ""
        rest = f"; {others} more thread{'s' if others > 1 else ''}{where}" if others else ""
        return f"thread {main.wait.tid} of {main.comm} {doing}{lasted}{rest}"


def collect(scene: HangScene) -> ThreadWaits | Missing:
    """From the iterator over tasks, /proc/PID/task/*/syscall and what the calls' descriptors are."""
    seen = scene.examination
    waits = waits_of(seen)
    if not waits:
        return Missing(kind="thread-waits", because="it ended, or its threads could not be read")
    threads = {(process.pid, thread.tid): thread for process in seen.processes for thread in process.threads}
    agent = seen.processes[0]
    telling = {(each.pid, tid) for each in seen.lock_waits for tid in (each.tid, each.holder_tid)}
    ranked = sorted(enumerate(waits), key=lambda each: (rank(each[1], agent.pid, telling), each[0]))[:THREADS]
    chosen = [waits[position] for position, _ in sorted(ranked)]
    by_pid = {process.pid: process for process in seen.processes}
    return ThreadWaits(
        source="iter/task, /proc/PID/task/*/syscall, /proc/PID/fd",
        at_ns=seen.at_ns,
        patience_s=seen.patience_s,
        interval_s=seen.interval_s,
        watched_s=None if seen.watched_since_ns is None else max(0.0, (seen.at_ns - seen.watched_since_ns) / 1e9),
        processes=tuple(
            process_seen(each, agent, [wait for wait in waits if wait.pid == each.pid]) for each in seen.processes[:PROCESSES]
        ),
        threads=tuple(thread_seen(wait, threads[wait.pid, wait.tid], by_pid[wait.pid], seen) for wait in chosen),
    )


def rank(wait: Wait, agent_pid: int, telling: set[tuple[int, int | None]]) -> tuple[int, int]:
    """How soon a thread is listed: main threads and those in a web of locks first, idle ones last, the agent's own before others."""
    if wait.tid == wait.pid or (wait.pid, wait.tid) in telling:
        return 0, 0
    return _RANK.get(wait.kind, 3), int(wait.pid != agent_pid)


def process_seen(process: ProcessLook, agent: ProcessLook, waits: list[Wait]) -> ProcessSeen:
    """One process with what is counted of its threads."""
    ages = [wait.for_s for wait in waits if wait.for_s is not None]
    return ProcessSeen(
        pid=process.pid,
        ppid=process.ppid,
        comm=process.comm,
        command=" ".join(plain(" ".join(process.argv), 2 * SHOWN).split())[:SHOWN] or process.comm,
        role=process.role,
        own=process.pid == agent.pid or process.role == "agent" or is_copy(process, agent),
        threads=len(process.threads),
        running=sum(wait.kind == "running" or (wait.kind == "disk" and (wait.for_s or 0.0) < AWAKE_S) for wait in waits),
        stopped=sum(wait.kind == "stopped" for wait in waits),
        locked=sum(wait.kind == "lock" and wait.timeout_s is None for wait in waits),
        cpu_share=round(cpu_of(process), 3),
        switches_per_s=round(sum(thread.switches_per_s or 0.0 for thread in process.threads), 2),
        still_for_s=min(ages) if ages and len(ages) == len(waits) else None,
        ended=process.ended,
        tracer=None if process.tracer is None else f"{process.tracer.comm} (pid {process.tracer.pid})",
    )


def is_copy(process: ProcessLook, agent: ProcessLook) -> bool:
    """Whether a process below the agent is its worker: forked without another program, or started by multiprocessing."""
    return bool(process.argv) and (process.argv == agent.argv or any("multiprocessing" in word for word in process.argv[1:4]))


def thread_seen(wait: Wait, thread: Thread, process: ProcessLook, seen: Examination) -> ThreadSeen:
    """One thread, its call cut to what is shown."""
    call = thread.call
    numbers = () if call is None else call.descriptors
    found = [each for number in numbers if (each := process.descriptor(number)) is not None]
    watched = [each for one in found for number in one.watches if (each := process.descriptor(number)) is not None]
    ends = [
        PipeEnd(inode=each.inode, reads=each.access != "w")
        for each in (*found, *watched)
        if each.kind in {"pipe", "fifo"} and each.inode is not None and seen.pipe(each.inode) is not None
    ]
    if call is not None:
        path = None if call.path is None else plain(call.path, SHOWN)
        call = msgspec.structs.replace(call, descriptors=call.descriptors[:DESCRIPTORS], path=path)
    return ThreadSeen(
        wait=msgspec.structs.replace(wait, sockets=wait.sockets[:OBJECTS], pipes=wait.pipes[:OBJECTS]),
        comm=thread.comm,
        state=thread.state,
        call=call,
        target=plain(found[0].target, SHOWN) if found else None,
        ends=tuple(ends[:OBJECTS]),
        cpu_share=thread.cpu_share,
        busy_share=thread.busy_share,
        switches_per_s=thread.switches_per_s,
    )
