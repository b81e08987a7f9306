"""The kernel's OOM killer named this process: the only proof of a kernel out-of-memory kill."""

from agentscope.evidence import Evidence, Missing, Scene

ABSENT = "the kernel's OOM killer did not choose this process"


class OomKill(Evidence, frozen=True, tag="oom-victim"):
    """The victim's memory in bytes when it was chosen, its memory cgroup, and who was allocating at that moment.

    `trigger` is "itself", "family" (another process of the same agent) or "stranger".
    """

    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    oom_score_adj: int | None
    cgroup: str | None
    trigger_pid: int
    trigger_comm: str
    trigger: str

    def says(self) -> str:
        """One sentence for a person."""
        size = "" if self.anon_rss_bytes is None else f" while it held {self.anon_rss_bytes / 2**20:.0f} MiB of its own memory"
        who = (
            "its own allocation"
            if self.trigger == "itself"
            else f"an allocation of {self.trigger_comm} (pid {self.trigger_pid})"
        )
        return f"the kernel chose it as OOM victim{size}; {who} ran into the limit"


def collect(scene: Scene) -> OomKill | Missing | None:
    """From oom:mark_victim of the same process."""
    victim = scene.victim
    if victim is None:
        if scene.engine not in {"core", "bcc"}:
            return Missing(kind="oom-victim", because="without BPF the OOM killer's choice is known only from the kernel log")
        return None
    trigger = "stranger"
    if victim.trigger_pid == scene.process.pid:
        trigger = "itself"
    elif victim.trigger_pid in scene.family:
        trigger = "family"
    return OomKill(
        source="tracepoint oom:mark_victim",
        anon_rss_bytes=victim.anon_rss_bytes,
        file_rss_bytes=victim.file_rss_bytes,
        shmem_rss_bytes=victim.shmem_rss_bytes,
        oom_score_adj=victim.oom_score_adj,
        cgroup=victim.cgroup,
        trigger_pid=victim.trigger_pid,
        trigger_comm=victim.trigger_comm,
        trigger=trigger,
    )
