"""What is to be done next, by the policy, where the agent stands, and the time. Pure: the same question has the same answer.

The ladder of a cause is climbed one way. A rung that brings the agent back is left when it did not help at all and another one can,
when a limit is reached (restarts within a window, as in Erlang/OTP; the same death, as in s6-permafailon), or when the same death
came again after a change and there is something to go back to. After the last rung we give up, and say so.
"""

import hashlib
from collections.abc import Sequence

from agentscope.model import Value
from agentscope.policy import RESTARTS, RESTORING, Policy
from agentscope.policy.standing import Chain, Death, Deed, Standing

EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state


class Rest(Value, frozen=True):
    """Nothing is open."""


class Act(Value, frozen=True):
    """Do this now."""

    remedy: str
    attempt: int
    because: str


class Settle(Value, frozen=True):
    """An act has no outcome: find it out, by looking whether an instance lives. It is never simply done again."""

    remedy: str
    attempt: int


class Wait(Value, frozen=True):
    """Nothing before this time (back-off)."""

    until_s: float


class Validate(Value, frozen=True):
    """Look whether it helped, until this time at most."""

    until_s: float
    attempt: int


class Probation(Value, frozen=True):
    """It helped; until this time it has to last."""

    until_s: float
    attempt: int


class Commit(Value, frozen=True):
    """It lasted: the incident is closed."""

    attempt: int


class GiveUp(Value, frozen=True):
    """The ladder is spent."""

    why: str


class LeaveAlone(Value, frozen=True):
    """This is nothing to recover from."""

    why: str


Step = Rest | Act | Settle | Wait | Validate | Probation | Commit | GiveUp | LeaveAlone


def next_step(policy: Policy, standing: Standing, now_s: float) -> Step:
    """What is to be done next about this agent."""
    chain = standing.chain
    if chain is None:
        return Rest()
    outstanding = chain.outstanding
    if outstanding is not None:
        return Settle(remedy=outstanding.remedy, attempt=outstanding.attempt)
    tried = chain.restoring
    if policy.dry_run and tried is not None:
        return LeaveAlone(why=f"dry run: {tried.remedy} would have been done")
    if (
        tried is not None
        and tried.remedy == "rollback"
        and (going_on := start_after(policy, standing, tried, now_s)) is not None
    ):
        return going_on
    if tried is not None and tried.held is not False and tried.outcome in {"done", "unknown"}:
        if tried.held is None:
            return Validate(until_s=(tried.finished_s or tried.started_s) + policy.validate_s, attempt=tried.attempt)
        return tell_first(policy, chain) or proven(policy, tried, now_s)
    if tried is not None and (told := tell_first(policy, chain)) is not None:
        return told
    return climb(policy, standing, chain, now_s)


def start_after(policy: Policy, standing: Standing, tried: Deed, now_s: float) -> Act | Wait | None:
    """Going back starts nothing: the restart that follows, wherever it stands in the ladder. None: there is none, or it is too early.

    A command that goes back may have it started too, as nixos-rebuild does, so that is looked at first. A snapshot cannot.
    """
    rung = starter(policy, standing, now_s)
    at_once = tried.outcome == "done" and tried.held is None and not policy.rollback
    in_vain = tried.outcome in {"done", "unknown"} and tried.held is False
    if rung is None or not (at_once or in_vain):
        return None
    chain = standing.chain
    assert chain is not None
    until_s = rests_until(policy, standing, rung)
    if now_s < until_s:
        return Wait(until_s=until_s)
    return Act(remedy=rung, attempt=attempt_of(chain), because="it was rolled back, which does not start it")


def starter(policy: Policy, standing: Standing, now_s: float) -> str | None:
    """The rung that starts it once it was rolled back; None where its ladder has none, or its limit is reached."""
    chain = standing.chain
    assert chain is not None
    ladder, _ = rungs_for(policy, chain.death)
    rung = next((rung for rung in ladder if rung in RESTARTS), None)
    return rung if rung is not None and over_limit(policy, standing, now_s) is None else None


def proven(policy: Policy, tried: Deed, now_s: float) -> Step:
    """It was found well: is it still, after its probation?"""
    until_s = (tried.held_s or 0.0) + policy.probation_s
    return Commit(attempt=tried.attempt) if now_s >= until_s else Probation(until_s=until_s, attempt=tried.attempt)


def tell_first(policy: Policy, chain: Chain) -> Act | None:
    """Who is told of every such incident, once, after the first attempt: telling never delays it."""
    done = {deed.remedy for deed in chain.deeds}
    ladder = policy.ladder_of(chain.death.cause)
    if policy.hooks and "hooks" not in ladder and "hooks" not in done:
        return Act(remedy="hooks", attempt=attempt_of(chain), because="hooks hear of every incident")
    # a restart alone does not give it more memory: somebody has to know
    if chain.death.cause == "oom" and "oom" not in policy.ladder and "alert" not in done:
        return Act(remedy="alert", attempt=attempt_of(chain), because="running out of memory comes again")
    return None


def climb(policy: Policy, standing: Standing, chain: Chain, now_s: float) -> Step:
    """The next rung that is not spent."""
    death = chain.death
    ladder, why = rungs_for(policy, death)
    if not ladder:
        return tell_first(policy, chain) or LeaveAlone(why=why)
    for place, rung in enumerate(ladder):
        if rung in RESTORING:
            spent = why_spent(policy, standing, ladder, place, now_s)
            if spent is None:
                until_s = rests_until(policy, standing, rung)
                if now_s < until_s:
                    return Wait(until_s=until_s)
                return Act(remedy=rung, attempt=attempt_of(chain), because=reason(chain, why))
            why = f"{rung}: {spent}"
        elif not is_told(chain, ladder, place) and (rung != "stacks" or death.lives):
            return Act(remedy=rung, attempt=attempt_of(chain), because=reason(chain, why))
    return GiveUp(why=why or "nothing in its ladder brings it back")


def rungs_for(policy: Policy, death: Death) -> tuple[tuple[str, ...], str]:
    """The ladder for this death, and why it is empty where it is."""
    ladder = policy.ladder_of(death.cause)
    if death.cause in policy.ladder:
        return ladder, "" if ladder else f"its ladder for {death.cause} is empty"
    if death.cause == "killed" and death.actor != "kernel":
        by = death.by or "by whom was not seen"
        return (), f"it was killed, {by}: whoever did that may have wanted it"
    if death.cause == "exit" and death.code == EX_CONFIG:
        return ("alert",), f"exit status {EX_CONFIG} says that its configuration is wrong: starting it again changes nothing"
    return ladder, ""


def reason(chain: Chain, before: str) -> str:
    """Why a rung is taken: the death, and what became of the rung before."""
    said = chain.death.headline or chain.death.cause
    return f"{said}; {before}" if before else said


def attempt_of(chain: Chain) -> int:
    """The number of the next act of this incident."""
    return max((deed.attempt for deed in chain.deeds), default=0) + 1


def is_told(chain: Chain, ladder: Sequence[str], place: int) -> bool:
    """Whether a rung that only tells was taken since the last death, and since the last attempt that stands before it."""
    before = {rung for rung in ladder[:place] if rung in RESTORING}
    for deed in reversed(chain.since_death):
        if deed.remedy == ladder[place]:
            return True
        if deed.remedy in before:
            return False
    return False


# --- when a rung is spent --------------------------------------------------------------------------------------------------


def why_spent(policy: Policy, standing: Standing, ladder: Sequence[str], place: int, now_s: float) -> str | None:
    """Why this rung is not taken any more, or None if it is."""
    chain = standing.chain
    assert chain is not None
    rung, death = ladder[place], chain.death
    mine = [deed for deed in chain.deeds if deed.cause == death.cause]
    over = rollback_spent(policy, standing, now_s) if rung == "rollback" else over_limit(policy, standing, now_s)
    if over is not None:
        return over
    if any(deed.remedy in ladder[place + 1 :] and not is_early(policy, chain, deed) for deed in mine):
        return "it did not help before"
    if rung == "rollback":
        return None
    later = later_rung(policy, standing, ladder, place, now_s)
    if later is None:
        return None
    tried = next((deed for deed in reversed(mine) if deed.remedy == rung), None)
    if tried is not None and tried.held is False and tried.held_s is None:
        return tried.says or "it did not help"
    if later == "rollback" and is_repetition(chain) and death.changed:
        return "the same death came again, and something had changed before it"
    return None


def is_early(policy: Policy, chain: Chain, deed: Deed) -> bool:
    """Whether an alert is the one that follows the first attempt after running out of memory, and not the last rung."""
    if deed.remedy != "alert" or deed.cause != "oom" or "oom" in policy.ladder:
        return False
    before = chain.deeds[: chain.deeds.index(deed)]
    return any(each.restores for each in before) and all(each.remedy != "alert" for each in before)


def over_limit(policy: Policy, standing: Standing, now_s: float) -> str | None:
    """Why it may not be restarted again: too often within the window or within this incident, of all causes or of this one."""
    chain = standing.chain
    assert chain is not None
    ours = {deed.started_s for deed in chain.deeds}
    counted = [
        deed
        for deed in standing.deeds
        if deed.remedy in RESTARTS
        and deed.outcome != "refused"
        and (deed.started_s in ours or now_s - deed.started_s < policy.within_s)
    ]
    if len(counted) >= policy.restarts:
        return f"{len(counted)} restarts within {policy.within_s:g} s, and the limit is {policy.restarts}"
    # what was started before going back stood on something else
    back_s = max((deed.started_s for deed in chain.deeds if deed.remedy == "rollback" and deed.outcome == "done"), default=0.0)
    same = sum(deed.fingerprint == chain.death.fingerprint and deed.started_s >= back_s for deed in counted)
    if same >= policy.per_cause:
        return f"{same} restarts after the same death, and the limit is {policy.per_cause}"
    return None


def rollback_spent(policy: Policy, standing: Standing, now_s: float) -> str | None:
    """Why it is not rolled back: it was, or nothing says that it would help."""
    chain = standing.chain
    assert chain is not None
    if any(deed.remedy == "rollback" for deed in chain.deeds):
        return "it was rolled back before"
    if any(deed.remedy == "rollback" and now_s - deed.started_s < policy.within_s for deed in standing.deeds):
        return f"it was rolled back within the last {policy.within_s:g} s"
    death = chain.death
    if death.cause in policy.ladder or death.cause == "drift":
        return None
    if not death.changed:
        return "nothing had changed before this death"
    return None if is_repetition(chain) else "this death came once only"


def later_rung(policy: Policy, standing: Standing, ladder: Sequence[str], place: int, now_s: float) -> str | None:
    """The next rung above this one that could bring it back."""
    for rung in ladder[place + 1 :]:
        if rung in RESTARTS or (rung == "rollback" and rollback_spent(policy, standing, now_s) is None):
            return rung
    return None


def is_repetition(chain: Chain) -> bool:
    """Whether the last death was there before in this incident."""
    return sum(death.fingerprint == chain.death.fingerprint for death in chain.deaths) > 1


# --- back-off ----------------------------------------------------------------------------------------------------------------


def rests_until(policy: Policy, standing: Standing, rung: str) -> float:
    """Until when a restart has to wait. The first one does not: only what did not last makes the next one wait, ever longer."""
    chain = standing.chain
    assert chain is not None
    if rung not in RESTARTS:
        return 0.0
    ours = {deed.started_s for deed in chain.deeds}
    since_s = standing.held_s or 0.0
    streak = [
        deed
        for deed in standing.deeds
        if deed.remedy in RESTARTS
        and (deed.started_s in ours or (deed.started_s > since_s and chain.deaths[0].at_s - deed.started_s < policy.within_s))
    ]
    if not streak:
        return 0.0
    longest_s = min(policy.backoff_limit_s, policy.backoff_s * 2.0 ** min(len(streak) - 1, 60))
    return trouble_s(chain) + longest_s * jitter(standing.name, chain.incident, attempt_of(chain))


def trouble_s(chain: Chain) -> float:
    """When it was last found to be gone."""
    times = [chain.death.at_s]
    times += [deed.failed_s for deed in chain.deeds if deed.failed_s is not None]
    return max(times)


def jitter(*seed: object) -> float:
    """From a half to one, the same for the same seed: many agents that died together do not come back together."""
    mark = hashlib.sha256("\n".join(map(str, seed)).encode("utf-8", "replace")).digest()
    return 0.5 + int.from_bytes(mark[:4], "big") / 2**33
