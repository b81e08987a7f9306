"""Whether anybody starts it again when it has died."""

from agentscope.checking import Checked, Subject

PLACE = 7
TITLE = "supervision"


def check(subject: Subject) -> Checked:
    """Whoever has its process (systemd, a container's runtime, supervisord, agentscope run), and what that does after a death."""
    owner = subject.owner
    policy = subject.entry.recovery if subject.entry is not None else None
    if owner is not None and owner.restarts:
        return Checked(True, f"{owner.says} starts it again")
    by = f"{owner.says} has it, but does not start it again after a death" if owner is not None else "nobody starts it again"
    if policy is not None and (policy.restart or owner is not None) and not policy.dry_run:
        return Checked(
            None, f"{by}; {subject.config} lets agentscope do it, as long as that runs", f"sudo agentscope watch --config {subject.config}"
        )  # fmt: skip
    return Checked(False, by, line(subject))


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
