"""Step 7: Diagnosis -> which remedy, how often. Pure.

`read_policy` makes a `Policy` of the config's recovery table, `standing.py` folds what the ledger tells of one agent into where it
stands, `steps.py` says what is to be done next.
"""

import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

import agentscope.causes
from agentscope.durations import seconds_of
from agentscope.errors import BadInput
from agentscope.model import Value

UNDETERMINED = "undetermined"
RESTARTS = frozenset({"restart", "restart-fresh"})  # these may be done again, within the limit
RESTORING = RESTARTS | {"rollback"}  # only these bring an agent back; every other remedy tells somebody, or keeps proof
DEFAULT_LADDERS = {
    "oom": ("restart-fresh", "alert"),
    "drift": ("rollback", "restart", "alert"),
    "hang": ("stacks", "restart", "alert"),
    "exception": ("restart", "rollback", "alert"),
}
USUAL_LADDER = DEFAULT_LADDERS["exception"]
TABLE_HINT = 'restart = ["systemctl", "restart", "researcher.service"]'
LADDER_HINT = 'ladder = { oom = ["restart-fresh", "alert"], exception = ["restart", "rollback"] }'
LIMIT_HINT = 'limit = { restarts = 5, within = "10m", per-cause = 3 }'
TIMES_HINT = 'validate = "10s", probation = "1m", backoff = "1s", backoff-limit = "5m", grace = "10s", hook-time = "30s" or rollback-time = "5m"'
HINTS = {
    "$.ladder": LADDER_HINT,
    "$.limit": LIMIT_HINT,
    "$.rollback": 'rollback = ["nixos-rebuild", "switch", "--rollback"]',
    "$.hooks": 'hooks = ["/usr/local/bin/page-me"]',
    "$.alert": 'alert = "https://hooks.example.org/agents"',
    "$.snapshot": 'snapshot = "/srv/researcher/venv"',
    "$.fresh": 'fresh = ["/var/lib/researcher/session"]',
    "$.dry-run": "dry-run = true",
} | dict.fromkeys(
    ("$.validate", "$.probation", "$.backoff", "$.backoff-limit", "$.grace", "$.hook-time", "$.rollback-time"), TIMES_HINT
)


class Policy(Value, frozen=True):
    """The `[agent.NAME.recovery]` table, checked. Durations in seconds.

    `restarts` within `within_s` is the limit over all causes, `per_cause` the one for deaths with the same fingerprint; what is over
    a limit goes on with the next rung. `ladder` has only what the table says itself: `ladder_of` has the rest.
    """

    restart: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    alert: str | None = None  # URL of a webhook; None: the journal and the desktop only
    ladder: dict[str, tuple[str, ...]] = {}  # class of cause -> names of remedies
    restarts: int = 5
    per_cause: int = 3
    within_s: float = 600.0
    backoff_s: float = 1.0
    backoff_limit_s: float = 300.0
    validate_s: float = 10.0
    probation_s: float = 60.0
    grace_s: float = 10.0
    hook_s: float = 30.0
    rollback_s: float = 300.0
    snapshot: str | None = None  # the venv or folder that a rollback switches back
    fresh: tuple[str, ...] = ()  # files and folders of state that a fresh restart sets aside
    dry_run: bool = False

    def ladder_of(self, cause: str) -> tuple[str, ...]:
        """The rungs for a class of causes: as the table says, else what is sensible; of what cannot be done nothing is tried."""
        given = self.ladder.get(cause)
        if given is not None:
            return given
        usual = DEFAULT_LADDERS.get(cause, USUAL_LADDER)
        return tuple(rung for rung in usual if rung != "rollback" or self.can_roll_back)

    @property
    def can_roll_back(self) -> bool:
        """Whether there is anything to go back to."""
        return bool(self.rollback) or self.snapshot is not None


class _LimitTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`limit` as it is written."""

    restarts: int = 5
    within: str = "10m"
    per_cause: int = 3


class _RecoveryTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`[agent.NAME.recovery]` as it is written."""

    restart: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    alert: str | None = None
    ladder: dict[str, tuple[str, ...]] = {}
    limit: _LimitTable = _LimitTable()
    backoff: str = "1s"
    backoff_limit: str = "5m"
    validate: str = "10s"
    probation: str = "1m"
    grace: str = "10s"
    hook_time: str = "30s"
    rollback_time: str = "5m"
    snapshot: str | None = None
    fresh: tuple[str, ...] = ()
    dry_run: bool = False


@lru_cache
def rungs() -> tuple[str, ...]:
    """The names that a ladder may have: the files of `remedies/`, which stands above us and so is only looked at."""
    folder = Path(__file__).parent.parent / "remedies"
    return tuple(
        sorted(
            found.name.replace("_", "-")
            for found in pkgutil.iter_modules([str(folder)])
            if not found.name.startswith("_") and not found.ispkg
        )
    )


@lru_cache
def cause_classes() -> tuple[str, ...]:
    """The classes of causes that a ladder may be for: the folders of `causes/`, and what nothing explains."""
    found = (each.name for each in pkgutil.iter_modules(agentscope.causes.__path__) if each.ispkg)
    return (*sorted(found), UNDETERMINED)


def read_policy(wrong: str, table: dict[str, Any]) -> Policy:
    """The recovery table of one agent, checked. `wrong` begins the sentence of what is not right.

    Raises:
        BadInput: a field is unknown, of the wrong kind or out of bounds; it says which and what to type.
    """
    try:
        given = msgspec.convert(table, _RecoveryTable)
    except msgspec.ValidationError as error:
        says = str(error)
        hint = next((hint for at, hint in HINTS.items() if f"`{at}" in says), TABLE_HINT)
        if "unknown field" in says:
            says = f"{says}; there are {', '.join(known_fields())}"
        raise BadInput(wrong, says, hint) from None
    for name, command in (("restart", given.restart), ("rollback", given.rollback)):
        if name in table:
            check_words(f"{wrong}: {name}", command, HINTS.get(f"$.{name}", TABLE_HINT))
    for hook in given.hooks:
        check_words(f"{wrong}: hooks", (hook,), HINTS["$.hooks"])
    if given.alert is not None:
        check_url(f"{wrong}: alert", given.alert)
    if given.snapshot is not None and (not given.snapshot.startswith("/") or "\0" in given.snapshot):
        raise BadInput(f"{wrong}: snapshot", f"{given.snapshot!r} is no path from / on", HINTS["$.snapshot"])
    for path in given.fresh:
        if not path.startswith("/") or "\0" in path or path.rstrip("/") == "":
            raise BadInput(f"{wrong}: fresh", f"{path!r} is no path from / on to a file or folder of state", HINTS["$.fresh"])
    policy = with_times(wrong, given)
    for cause, rung_names in given.ladder.items():
        check_ladder(f"{wrong}: ladder", cause, rung_names, policy)
    return policy


def known_fields() -> tuple[str, ...]:
    """What a recovery table may have, as it is written there."""
    return tuple(sorted(field.encode_name for field in msgspec.structs.fields(_RecoveryTable)))


def with_times(wrong: str, given: _RecoveryTable) -> Policy:
    """The policy with its limits and durations.

    Raises:
        BadInput: one is out of bounds.
    """
    limit = given.limit
    for name, number in (("restarts", limit.restarts), ("per-cause", limit.per_cause)):
        if not 1 <= number <= 1000:
            raise BadInput(f"{wrong}: limit: {name}", f"{number} is not from 1 to 1000", LIMIT_HINT)
    return Policy(
        restart=given.restart,
        rollback=given.rollback,
        hooks=given.hooks,
        alert=given.alert,
        ladder=given.ladder,
        restarts=limit.restarts,
        per_cause=limit.per_cause,
        within_s=seconds_of(f"{wrong}: limit: within", limit.within, 1, 7 * 86400),
        backoff_s=seconds_of(f"{wrong}: backoff", given.backoff, 0, 3600),
        backoff_limit_s=seconds_of(f"{wrong}: backoff-limit", given.backoff_limit, 0, 86400),
        validate_s=seconds_of(f"{wrong}: validate", given.validate, 0.1, 3600),
        probation_s=seconds_of(f"{wrong}: probation", given.probation, 0, 86400),
        grace_s=seconds_of(f"{wrong}: grace", given.grace, 0, 3600),
        hook_s=seconds_of(f"{wrong}: hook-time", given.hook_time, 0.1, 3600),
        rollback_s=seconds_of(f"{wrong}: rollback-time", given.rollback_time, 0.1, 3600),
        snapshot=given.snapshot,
        fresh=given.fresh,
        dry_run=given.dry_run,
    )


def check_words(wrong: str, command: tuple[str, ...], hint: str) -> None:
    """There is no shell, and no folder that a relative path could start from.

    Raises:
        BadInput: this cannot be started.
    """
    program = command[0] if command else ""
    if not program or ("/" in program and not program.startswith("/")) or any("\0" in word for word in command):
        raise BadInput(wrong, "it begins with a program, by name or by its path from / on; each word is its own", hint)


def check_url(wrong: str, url: str) -> None:
    """A webhook is asked over HTTP.

    Raises:
        BadInput: that cannot be.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # a port or an IPv6 address that is none
        right = False
    if not right:
        raise BadInput(wrong, f"{url!r} is no address of a webhook", HINTS["$.alert"])


def check_ladder(wrong: str, cause: str, names: tuple[str, ...], policy: Policy) -> None:
    """One ladder of the table.

    Raises:
        BadInput: the cause or a rung is unknown, stands there twice, or has nothing to do.
    """
    if cause not in cause_classes():
        raise BadInput(wrong, f"there is no class of causes {cause!r}, only {', '.join(cause_classes())}", LADDER_HINT)
    for name in names:
        if name not in rungs():
            raise BadInput(f"{wrong}: {cause}", f"there is no remedy {name!r}, only {', '.join(rungs())}", LADDER_HINT)
        if names.count(name) > 1:
            raise BadInput(f"{wrong}: {cause}", f"{name} stands there twice; limit says how often it may be done", LIMIT_HINT)
    if "rollback" in names and not policy.can_roll_back:
        why = "rollback needs a command to go back with, or the folder whose snapshot is put back"
        raise BadInput(f"{wrong}: {cause}", why, f"{HINTS['$.rollback']} or {HINTS['$.snapshot']}")
    if "hooks" in names and not policy.hooks:
        raise BadInput(f"{wrong}: {cause}", "there are no hooks to call", HINTS["$.hooks"])
