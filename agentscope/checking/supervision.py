"""Whether anybody starts it again when it has died."""

from typing import NamedTuple

from agentscope.agents import ancestors_of
from agentscope.checking import Checked, Subject
from agentscope.examination.proc import read_proc

PLACE = 7
TITLE = "supervision"


def check(subject: Subject) -> Checked:
    """Whoever has its process (systemd, a container's runtime, supervisord, agentscope run), and what that does after a death."""
    owner = subject.owner
    policy = subject.entry.recovery if subject.entry is not None else None
    if owner is not None and owner.restarts:
        return Checked(True, f"{owner.says} starts it again")
    ours = under_run(subject.pid)
    if ours is not None and (ours.recovers or policy is not None):
        return Checked(True, f"agentscope run (pid {ours.pid}) starts it again")
    by = f"{owner.says} has it, but does not start it again after a death" if owner is not None else "nobody starts it again"
    if policy is not None and (policy.restart or owner is not None) and not policy.dry_run:
        return Checked(
            None, f"{by}; {subject.config} lets agentscope do it, as long as that runs", f"sudo agentscope watch --config {subject.config}"
        )  # fmt: skip
    return Checked(False, by, line(subject))


class Run(NamedTuple):
    """An `agentscope run` that has started it, and whether that was told to bring it back."""

    pid: int
    recovers: bool


def under_run(pid: int) -> Run | None:
    """The `agentscope run` whose child it is: that owns it in its own process only, so its command line is what there is to see."""
    parents = ancestors_of(pid)[1:2]
    for parent in parents:
        words = (read_proc(f"/proc/{parent.pid}/cmdline") or b"").split(b"\0")
        front = words[: words.index(b"--")] if b"--" in words else words
        program = next((place for place, word in enumerate(front[:4]) if word.rpartition(b"/")[2] == b"agentscope"), None)
        if program is not None and b"run" in front[program + 1 :]:
            return Run(parent.pid, recovers=b"--recover" in front)
    return None


def line(subject: Subject) -> str:
    """What gives it an owner that restarts it."""
    owner = subject.owner
    if owner is not None and owner.kind == "systemd":
        control = "systemctl --user" if owner.at else "sudo systemctl"
        return f"{control} edit {owner.name}, and write below [Service]: Restart=on-failure"
    if owner is not None and owner.kind == "container":
        return f"{subject.engine} update --restart on-failure:5 {owner.name}"
    if owner is not None and owner.kind == "supervisord":
        return f"autorestart=true in the section of {owner.name}, then supervisorctl update"
    return "agentscope run --recover -- COMMAND, or sudo systemd-run --unit NAME -p Restart=on-failure -- COMMAND"
