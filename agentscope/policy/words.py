"""What recovery says of itself when an incident is closed: what was done, how often it had happened, and whether it held. Pure."""

import datetime as dt

from agentscope.fingerprints import Loop, loop_of, loop_words
from agentscope.policy import RESTARTS
from agentscope.policy.standing import Chain, Deed, Standing
from agentscope.policy.steps import Commit, GiveUp, LeaveAlone

PAST = {"restart": "restarted", "restart-fresh": "restarted with fresh state", "rollback": "rolled back"}


def loop_at(standing: Standing) -> Loop | None:
    """The loop that the agent is in."""
    return loop_of([(death.at_s, death.fingerprint) for death in standing.deaths])


def closing_words(standing: Standing, chain: Chain, step: Commit | GiveUp | LeaveAlone, zone: dt.tzinfo | None = None) -> str:
    """As "same death 4 times in 9 minutes; rolled back at 03:16; stable since". Times are of `zone`, None: of this machine."""
    parts = [loop_words(loop_at(standing))]
    restoring = [deed for deed in chain.deeds if deed.restores]
    parts += [done_words(restoring[-1], len(restoring), zone)] if restoring else []
    match step:
        case Commit():
            parts.append("stable since")
        case GiveUp():
            parts.append(f"given up: {step.why}")
        case LeaveAlone():
            parts.append(step.why if step.why.startswith("dry run") else f"left alone: {step.why}")
    return "; ".join(part for part in parts if part)


def done_words(deed: Deed, attempts: int, zone: dt.tzinfo | None) -> str:
    """The last attempt with its time, and which one it was."""
    done = PAST.get(deed.remedy, deed.remedy)
    if deed.outcome in {"failed", "refused"}:
        done = f"{deed.remedy} {deed.outcome}"
    elif deed.outcome == "unknown":
        done = f"perhaps {done}"
    which = f" (attempt {attempts})" if attempts > 1 and deed.remedy in RESTARTS else ""
    return f"{done} at {dt.datetime.fromtimestamp(deed.started_s, tz=zone):%H:%M}{which}"
