"""What is played on other kernels: at least one of each class of cause, and what looks like it and is none."""

KERNELS = ("6.1", "6.12")
ENGINES = ("core", "bcc")
DEATHS = (
    "oom-cgroup",
    "oom-tool",
    "memory-error",
    "c-null-write",
    "c-abort/assertion",
    "sigbus",
    "stack-overflow",
    "seccomp",
    "leader-first/fault",
    "handled-segfault",
    "uncaught/file",
    "uncaught/pipe",
    "kill-9-by-bash",
    "kill-11-from-outside",
    "near-limit-kill-9",
    "sigterm-stranger",
    "sigterm-answered",
    "sighup",
    "exit-3",
    "exit-0",
    "exec-from-thread",
    "threads-exit-0",
    "vfork-exec",
    "tool-segfault/fork",
    "tool-exit-1",
)
GROUP = "oom-group"  # memory.oom.group: made in the guest, since the zoo must run where cgroups are v1 too
HANGS = {"hang-two-locks": "hang/deadlock", "hang-lock-twice": "hang/deadlock", "hang-wait-without-reading": "hang/pipe-full"}
CALM = ("calm-sleeper", "calm-condition")
