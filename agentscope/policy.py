"""Step 7: Diagnosis -> which remedy, how often. Pure."""

from agentscope.model import Value


class Policy(Value, frozen=True):
    """The `[agent.NAME.recovery]` table, checked. Durations in seconds."""

    restart: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    alert: str | None = None  # URL of a webhook; None: the journal and the desktop only
    ladder: dict[str, tuple[str, ...]] = {}  # class of cause -> names of remedies
    restarts: int = 5
    within_s: float = 600.0
    backoff_s: float = 1.0
    backoff_limit_s: float = 300.0
    validate_s: float = 10.0
    probation_s: float = 60.0
    grace_s: float = 10.0
    hook_s: float = 30.0
    snapshot: str | None = None  # the venv or folder that a rollback switches back
    dry_run: bool = False
