"""What the kernel log says about this pid: the OOM report with its scope and limit, the segfault line, GPU errors."""

from agentscope.evidence import KERNEL_LOG, Evidence, Missing, Scene
from agentscope.readers.kernel_fault import FaultLine, read_fault_lines
from agentscope.readers.kernel_oom import OomReport, read_oom_reports

ABSENT = "the kernel log says nothing about this process"
CLOCK_SLACK_NS = 5_000_000_000


class KernelLog(Evidence, frozen=True, tag="kernel-log"):
    """`oom` is the report that names this pid as victim; `fault` its segfault or trap line; `lines` are the words themselves."""

    oom: OomReport | None
    fault: FaultLine | None
    lines: tuple[str, ...]

    def says(self) -> str:
        """One sentence for a person."""
        return f"kernel log: {self.lines[-1][:200]}" if self.lines else "the kernel log names it"


def collect(scene: Scene) -> KernelLog | Missing | None:
    """From /dev/kmsg, followed by sequence number; joined by pid, not by time (its clock differs a little)."""
    if scene.kernel_lines is None:
        past = next((each for each in scene.past.unread if each.kind == KERNEL_LOG), None) if scene.past is not None else None
        because = (
            past.because if past is not None else "/dev/kmsg could not be read (it needs root, and is empty in a container)"
        )
        return Missing(kind="kernel-log", because=because)
    # lines of an earlier process with this number do not count; the slack is for the log's own clock
    since_ns = scene.process.start_ns - CLOCK_SLACK_NS
    texts = [line.text for line in scene.kernel_lines if line.at_ns >= since_ns]
    pid = scene.process.pid
    threads = {fault.tid for fault in scene.faults} | {pid, scene.exit.fatal_tid or pid}
    kills = (f"pid={pid},", f"rocess {pid} (")
    traps = tuple(f"[{tid}]{after}" for tid in threads for after in (": ", " "))
    # nearly always the log does not name it, and that must cost nothing: reading its reports takes milliseconds
    said = [text for text in texts if any(mark in text for mark in (*kills, *traps))]
    named = any(mark in text for text in said for mark in kills)
    oom = next((report for report in reversed(read_oom_reports(texts)) if report.pid == pid), None) if named else None
    fault = next((line for line in reversed(read_fault_lines(said)) if line.pid in threads), None) if said else None
    if oom is None and fault is None:
        return None
    return KernelLog(source="/dev/kmsg", oom=oom, fault=fault, lines=tuple(said[-6:]))
