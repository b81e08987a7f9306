"""Where agentscope keeps what it remembers: the ledger, baselines, snapshots."""

import os
from pathlib import Path

DEFAULT_STATE_DIR = Path("/var/lib/agentscope")


def state_dir(given: str | None = None) -> Path:
    """Where the record lives: as given, `AGENTSCOPE_STATE_DIR`, /var/lib/agentscope for root, else below the user's own state."""
    named = given or os.environ.get("AGENTSCOPE_STATE_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return DEFAULT_STATE_DIR
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "agentscope"
