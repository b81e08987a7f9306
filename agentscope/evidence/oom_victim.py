"""The kernel's OOM killer named this process: the only proof of a kernel out-of-memory kill."""

from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.actor import SEEN_BY
from agentscope.evidence.kernel_log import KernelLog
from agentscope.evidence.kernel_log import collect as read_kernel_log

ABSENT = "the kernel's OOM killer did not choose this process"


class OomKill(Evidence, frozen=True, tag="oom-victim"):
    """The victim's memory in bytes when it was chosen, its memory cgroup, and who was allocating at that moment.

    `trigger` is "itself", "family" (another process of the same agent) or "stranger"; None where the kernel log does not tell.
    """

    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    oom_score_adj: int | None
    cgroup: str | None
    trigger_pid: int | None = None
    trigger_comm: str | None = None
    trigger: str | None = None

    def says(self) -> str:
        """One sentence for a person."""
        size = "" if self.anon_rss_bytes is None else f" while it held {self.anon_rss_bytes / 2**20:.0f} MiB of its own memory"
        who = ""
        if self.trigger == "itself":
            who = "; its own allocation ran into the limit"
        elif self.trigger_comm is not None:
            pid = "" if self.trigger_pid is None else f" (pid {self.trigger_pid})"
            who = f"; an allocation of {self.trigger_comm}{pid} ran into the limit"
        return f"the kernel chose it as OOM victim{size}{who}"


def trigger_of(pid: int | None, scene: Scene) -> str | None:
    """What the allocating process is to the victim."""
    if pid is None:
        return None
    if pid == scene.process.pid:
        return "itself"
    return "family" if pid in scene.family else "stranger"


def from_log(log: KernelLog, scene: Scene) -> OomKill | None:
    """The same facts as the kernel log states them, for where mark_victim was not seen."""
    report = log.oom
    if report is None:
        return None
    anon, file, shmem = (
        None if kb is None else kb * 1024 for kb in (report.anon_rss_kb, report.file_rss_kb, report.shmem_rss_kb)
    )
    return OomKill(
        source=log.source,
        anon_rss_bytes=anon,
        file_rss_bytes=file,
        shmem_rss_bytes=shmem,
        oom_score_adj=report.oom_score_adj,
        cgroup=report.task_memcg,
        trigger_pid=report.trigger_pid,
        trigger_comm=report.trigger_comm,
        trigger=trigger_of(report.trigger_pid, scene),
    )


def collect(scene: Scene) -> OomKill | Missing | None:
    """From oom:mark_victim of the same process, or from the kernel log that names it."""
    victim = scene.victim
    if victim is None:
        log = read_kernel_log(scene)
        if isinstance(log, KernelLog):
            return from_log(log, scene)
        if isinstance(log, Missing) and scene.engine not in SEEN_BY and scene.oom_kills != 0:
            others = f"{scene.oom_kills} were chosen on this machine meanwhile" if scene.oom_kills else "they were not counted"
            because = f"whom the OOM killer chooses is seen by BPF or in the log, {others}, and {log.because}"
            return Missing(kind="oom-victim", because=because)
        return None
    return OomKill(
        source="tracepoint oom:mark_victim",
        anon_rss_bytes=victim.anon_rss_bytes,
        file_rss_bytes=victim.file_rss_bytes,
        shmem_rss_bytes=victim.shmem_rss_bytes,
        oom_score_adj=victim.oom_score_adj,
        cgroup=victim.cgroup,
        trigger_pid=victim.trigger_pid,
        trigger_comm=victim.trigger_comm,
        trigger=trigger_of(victim.trigger_pid, scene),
    )
