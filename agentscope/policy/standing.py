"""Where one agent stands: a pure fold of what the ledger tells of its incidents and of what was done about them.

An agent is known by its label, across pids and across our own restarts. An incident that opens while another of the same agent is
still on probation belongs to that one: the whole is one incident with its attempts, a `Chain`. Times are seconds of the wall clock.
"""

import msgspec

from agentscope.fingerprints import fingerprint
from agentscope.model import AnyEvent, IncidentClosed, IncidentOpened, RemedyFinished, RemedyOutcome, RemedyStarted, Value
from agentscope.policy import RESTORING, UNDETERMINED

VALIDATE = "validate"  # the remedy's name in the record of the looking that follows an act: it does nothing
KEPT = 100  # deaths and deeds of one agent (the death tally of s6-svdt keeps as many)
FORGOTTEN_S = 86400.0  # an incident about which nothing was done in a day, and nobody closed, is not continued by the next
CHANGE_KINDS = frozenset({"baseline-difference", "package-changes"})


class Death(Value, frozen=True):
    """One end or hang. `changed`: something that it stands on is not as it was when it was last well."""

    at_s: float
    incident: str
    fingerprint: str
    cause: str  # its class: "oom", "drift" ...
    subtype: str = ""
    headline: str = ""
    changed: bool = False
    lives: bool = False  # it hangs
    actor: str | None = None  # the kind of whoever sent the decisive signal
    by: str = ""  # the same in words
    code: int | None = None


class Deed(Value, frozen=True):
    """One act, begun; `outcome` is None until it has one. `held` tells what came of looking whether it helped.

    `cause` is the class of the death that it was for. `held_s` is when it was found well: its probation begins there.
    """

    attempt: int
    remedy: str
    started_s: float
    fingerprint: str
    cause: str
    outcome: RemedyOutcome | None = None
    finished_s: float | None = None
    pid: int | None = None
    says: str = ""
    held: bool | None = None
    held_s: float | None = None
    failed_s: float | None = None

    @property
    def restores(self) -> bool:
        """Whether it was to bring the agent back."""
        return self.remedy in RESTORING


class Chain(Value, frozen=True):
    """An open incident: its deaths and deeds in the order in which they came."""

    incident: str
    course: tuple[Death | Deed, ...]

    @property
    def deaths(self) -> tuple[Death, ...]:
        """Its deaths, oldest first."""
        return tuple(each for each in self.course if isinstance(each, Death))

    @property
    def deeds(self) -> tuple[Deed, ...]:
        """What was done, oldest first."""
        return tuple(each for each in self.course if isinstance(each, Deed))

    @property
    def death(self) -> Death:
        """The last one: what is to be recovered from."""
        return self.deaths[-1]

    @property
    def since_death(self) -> tuple[Deed, ...]:
        """What was done after the last death."""
        at = max(place for place, each in enumerate(self.course) if isinstance(each, Death))
        return tuple(each for each in self.course[at:] if isinstance(each, Deed))

    @property
    def restoring(self) -> Deed | None:
        """The last deed since the last death that was to bring it back."""
        return next((deed for deed in reversed(self.since_death) if deed.restores), None)

    @property
    def outstanding(self) -> Deed | None:
        """The deed without an outcome."""
        return next((deed for deed in reversed(self.deeds) if deed.outcome is None), None)

    @property
    def last_s(self) -> float:
        """When something happened last."""
        times = [death.at_s for death in self.deaths]
        for deed in self.deeds:
            times += [at for at in (deed.started_s, deed.finished_s, deed.held_s, deed.failed_s) if at is not None]
        return max(times)


class Standing(Value, frozen=True):
    """Where an agent stands. `deaths` and `deeds` are the last hundred of all its incidents, the open one included."""

    name: str
    chain: Chain | None = None
    deaths: tuple[Death, ...] = ()
    deeds: tuple[Deed, ...] = ()
    held_s: float | None = None  # when something last passed its probation


def fold(standing: Standing, event: AnyEvent, at_s: float) -> Standing:
    """The standing after one more event of this agent; what is no business of recovery changes nothing."""
    match event:
        case IncidentOpened() if event.scope == "agent":
            return opened(standing, death_of(event, at_s))
        case RemedyStarted():
            return started(standing, event, at_s)
        case RemedyFinished():
            return finished(standing, event, at_s)
        case IncidentClosed() if standing.chain is not None and event.incident == standing.chain.incident:
            held_s = at_s if event.held else standing.held_s
            return msgspec.structs.replace(standing, chain=None, held_s=held_s)
    return standing


def opened(standing: Standing, death: Death) -> Standing:
    """A death: of the open incident where there is one, else of a new one. What was just brought back did not hold."""
    chain = standing.chain
    if any(death.incident == known.incident for known in standing.deaths):
        return standing
    if chain is not None and (chain.deeds or death.at_s - chain.last_s < FORGOTTEN_S):
        doubted = chain.restoring
        if doubted is not None and doubted.held is None:
            standing = with_deed(standing, msgspec.structs.replace(doubted, held=False, failed_s=death.at_s))
        assert standing.chain is not None
        chain = msgspec.structs.replace(standing.chain, course=(*standing.chain.course, death))
    else:
        chain = Chain(incident=death.incident, course=(death,))
    return msgspec.structs.replace(standing, chain=chain, deaths=(*standing.deaths, death)[-KEPT:])


def started(standing: Standing, event: RemedyStarted, at_s: float) -> Standing:
    """An intent: it counts from here on, whatever becomes of it."""
    chain = standing.chain
    if chain is None or event.incident != chain.incident:
        return standing
    deed = Deed(
        attempt=event.attempt, remedy=event.remedy, started_s=at_s, fingerprint=event.fingerprint, cause=chain.death.cause
    )
    chain = msgspec.structs.replace(chain, course=(*chain.course, deed))
    return msgspec.structs.replace(standing, chain=chain, deeds=(*standing.deeds, deed)[-KEPT:])


def finished(standing: Standing, event: RemedyFinished, at_s: float) -> Standing:
    """An outcome: of an act, or of the looking that followed it."""
    chain = standing.chain
    if chain is None or event.incident != chain.incident:
        return standing
    deed = next((each for each in chain.deeds if each.attempt == event.attempt), None)
    if deed is None:
        return standing
    replace = msgspec.structs.replace
    if event.remedy == VALIDATE:
        held = event.outcome == "done"
        if deed.held is False:  # a death told it before
            return standing
        pid = event.pid if event.pid is not None else deed.pid
        looked = (
            replace(deed, held=True, held_s=at_s, pid=pid, says=event.says)
            if held
            else replace(deed, held=False, failed_s=at_s, says=event.says)
        )
        return with_deed(standing, looked)
    if deed.outcome is not None:
        return standing
    done = replace(deed, outcome=event.outcome, finished_s=at_s, pid=event.pid, says=event.says)
    if done.restores and event.outcome in {"failed", "refused"}:
        done = replace(done, held=False, failed_s=at_s)
    return with_deed(standing, done)


def with_deed(standing: Standing, deed: Deed) -> Standing:
    """The standing with one deed of its chain as it is now."""
    chain = standing.chain
    assert chain is not None
    former = next(each for each in chain.deeds if each.attempt == deed.attempt)
    course = tuple(deed if each is former else each for each in chain.course)
    deeds = tuple(deed if each is former else each for each in standing.deeds)
    return msgspec.structs.replace(standing, chain=msgspec.structs.replace(chain, course=course), deeds=deeds)


def death_of(incident: IncidentOpened, at_s: float) -> Death:
    """What recovery must know of an incident. What lives and is not well hangs, whether or not anything explains it."""
    actor = incident.actor
    lives = incident.exit.code is None and incident.exit.signal is None
    cause = incident.cause.partition("/")[0] or UNDETERMINED
    return Death(
        at_s=at_s,
        incident=incident.incident,
        fingerprint=fingerprint(incident),
        cause="hang" if lives and cause == UNDETERMINED else cause,
        subtype=incident.subtype,
        headline=incident.headline,
        changed=any(record.kind in CHANGE_KINDS and tells_change(record.data) for record in incident.evidence),
        lives=lives,
        actor=None if actor is None else actor.kind,
        by="" if actor is None else actor.says,
        code=incident.exit.code,
    )


def tells_change(record: dict[str, object]) -> bool:
    """Whether this evidence found something changed since the agent was last well."""
    count = record.get("count")
    if record.get("healthy") is False:  # changes since nobody knows when are no reason to go back
        return False
    return isinstance(count, int) and count > 0
