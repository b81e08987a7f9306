"""Whether the kernel lets it run: stopped by a signal, frozen, short of CPU time, held at a memory limit, asleep in the kernel."""

from agentscope.evidence import Evidence, HangScene
from agentscope.evidence.actor import DELIVERED, program_of
from agentscope.examination import CgroupState
from agentscope.examination.waiting import waits_of
from agentscope.model import Value
from agentscope.symbols.signals import signal_name

ABSENT = "it was not looked at"
THREADS = 32
STACK = 24
SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU = 18, 19, 20, 21, 22
SI_KERNEL = 128  # include/uapi/asm-generic/siginfo.h
_STOPS = frozenset({SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU})


class HeldThread(Value, frozen=True):
    """One thread in uninterruptible sleep; the kernel's stack is innermost first, empty where we may not read it."""

    pid: int
    tid: int
    says: str
    for_s: float | None
    kernel_stack: tuple[str, ...]


class StopSignal(Value, frozen=True):
    """The last signal that stopped it, and who sent it. `by_terminal`: Ctrl-Z, or it touched a terminal in the background."""

    signal_name: str
    sender: str
    ago_s: float
    by_terminal: bool


class Scheduling(Evidence, frozen=True, tag="scheduling"):
    """What its cgroups do to it, its threads in state D, and the signal that stopped it, where it was seen being sent."""

    cgroup: CgroupState | None
    held: tuple[HeldThread, ...] = ()
    stop: StopSignal | None = None

    def says(self) -> str:
        """One sentence for a person."""
        if self.cgroup is not None and self.cgroup.frozen:
            return f"cgroup {self.cgroup.frozen_path or self.cgroup.path} is frozen"
        if self.stop is not None:
            return f"{self.stop.signal_name} from {self.stop.sender} stopped it {self.stop.ago_s:.0f} s ago"
        if self.held:
            first = self.held[0]
            where = f" ({' ← '.join(first.kernel_stack[:3])})" if first.kernel_stack else ""
            return f"thread {first.tid} is held by {first.says} for {first.for_s or 0:.0f} s{where}"
        cgroup = self.cgroup
        if cgroup is not None and cgroup.throttled_share:
            share = f"{cgroup.throttled_share:.0%} of the periods"
            return f"its cgroup {cgroup.quota_path} may use {cgroup.quota_cpus or 0:.2g} CPUs, and ran out of that in {share}"
        return "the kernel lets it run: not stopped, not frozen, not throttled"


def collect(scene: HangScene) -> Scheduling:
    """From the states and kernel stacks of its threads, its cgroups' files and the signals that were seen."""
    seen = scene.examination
    stacks = {(process.pid, thread.tid): thread for process in seen.processes for thread in process.threads}
    held = [wait for wait in waits_of(seen) if stacks[wait.pid, wait.tid].state == "D"]
    held.sort(key=lambda wait: -(wait.for_s or 0.0))
    return Scheduling(
        source="/proc/PID/task/*/stack, cgroup files, tracepoint signal:signal_generate",
        cgroup=seen.cgroup,
        held=tuple(
            HeldThread(
                pid=wait.pid,
                tid=wait.tid,
                says=wait.says,
                for_s=wait.for_s,
                kernel_stack=stacks[wait.pid, wait.tid].kernel_stack[:STACK],
            )
            for wait in held[:THREADS]
        ),
        stop=stop_signal(scene),
    )


def stop_signal(scene: HangScene) -> StopSignal | None:
    """The last stop that no SIGCONT followed."""
    told = [each for each in scene.signals if each.result in DELIVERED and each.signal in {*_STOPS, SIGCONT}]
    if not told or told[-1].signal == SIGCONT:
        return None
    # of several, the first after the last SIGCONT stopped it: the later ones found it stopped
    last_cont = max((place for place, each in enumerate(told) if each.signal == SIGCONT), default=-1)
    sent = told[last_cont + 1]
    by_terminal = sent.signal != SIGSTOP and (sent.code == SI_KERNEL or sent.sender_tty)
    itself = sent.sender_pid == sent.pid and sent.code != SI_KERNEL
    who = "itself" if itself else f"{program_of(sent)} (pid {sent.sender_pid}, uid {sent.sender_uid})"
    return StopSignal(
        signal_name=signal_name(sent.signal),
        sender="its terminal" if by_terminal and sent.code == SI_KERNEL else who,
        ago_s=max(0.0, (scene.examination.at_ns - sent.at_ns) / 1e9),
        by_terminal=by_terminal,
    )
