"""Incidents and recovery events for tests of the policy, and a small world in which a policy is played without processes."""

from dataclasses import dataclass, field

from agentscope.model import (
    Actor,
    Agent,
    AnyEvent,
    EvidenceRecord,
    ExitRecord,
    IncidentClosed,
    IncidentOpened,
    Process,
    RemedyFinished,
    RemedyStarted,
)
from agentscope.policy import Policy
from agentscope.policy.standing import Standing, fold
from agentscope.policy.steps import (
    Act,
    Commit,
    GiveUp,
    LeaveAlone,
    Probation,
    Rest,
    Settle,
    Step,
    Validate,
    Wait,
    next_step,
)
from agentscope.policy.words import closing_words

NAME = "researcher"
S = 1_000_000_000


def agent(pid: int = 4242) -> Agent:
    """An agent of our name with this pid."""
    return Agent(name=NAME, pid=pid, start_ns=pid * S, start_time="2026-07-27T03:12:04Z", command="python3 researcher.py")


def incident(
    cause: str = "exception/uncaught",
    culprit: str = "KeyError at researcher.py:14",
    *,
    mark: str = "1",
    at_s: float = 0.0,
    pid: int = 4242,
    actor: Actor | None = None,
    code: int | None = 1,
    signal: str | None = None,
    evidence: tuple[EvidenceRecord, ...] = (),
    scope: str = "agent",
) -> IncidentOpened:
    """One death, or a hang where neither code nor signal is given."""
    return IncidentOpened(
        at_ns=int(at_s * S), incident=f"inc-{mark}", agent=agent(pid), process=Process(pid=pid, start_ns=pid * S), scope=scope,
        cause=cause, subtype=cause.partition("/")[2], confidence="certain", headline=f"{NAME} died of {cause}", culprit=culprit,
        exit=ExitRecord(code=code, signal=signal, core_dumped=False), actor=actor, evidence=evidence, ruled_out=(), not_checked=(),
        advice=(), timeline=(), engine="core", detected_in_ms=3.0,
    )  # fmt: skip


def record(kind: str, **fields: object) -> EvidenceRecord:
    """Evidence with these fields."""
    return EvidenceRecord(kind=kind, source="test", says=kind, weight="supporting", data=fields)


CHANGED = record("baseline-difference", count=3, healthy=True)


@dataclass
class World:
    """One agent under a policy. It dies and is started as the test says; what the steps ask for is done and written down.

    `lines` is the ledger: a restart of agentscope folds it anew. `acts` are the acts that were really begun.
    """

    policy: Policy
    now_s: float = 1_000_000.0
    standing: Standing = field(default_factory=lambda: Standing(name=NAME))
    lines: list[tuple[float, AnyEvent]] = field(default_factory=list)
    acts: list[tuple[float, str]] = field(default_factory=list)
    instances: int = 1
    most_instances: int = 1
    died: int = 0
    closed: list[IncidentClosed] = field(default_factory=list)
    act_works: bool = True  # the start command starts something
    start_lasts: bool = True  # what was started gets well

    def tell(self, event: AnyEvent) -> None:
        """One line of the ledger, folded."""
        self.lines.append((self.now_s, event))
        self.standing = fold(self.standing, event, self.now_s)

    def die(self, cause: str = "exception/uncaught", culprit: str = "KeyError", **more) -> None:
        """The instance ends."""
        assert self.instances == 1
        self.instances = 0
        self.died += 1
        self.tell(incident(cause, culprit, mark=str(self.died), at_s=self.now_s, **more))

    def restarted_agentscope(self) -> None:
        """We are killed and started again: all it knows is the ledger."""
        self.standing = Standing(name=NAME)
        for at_s, event in self.lines:
            self.standing = fold(self.standing, event, at_s)

    @property
    def step(self) -> Step:
        """What is to be done now."""
        return next_step(self.policy, self.standing, self.now_s)

    def begin(self, step: Act) -> None:
        """The intent, and then the act itself."""
        chain = self.standing.chain
        self.tell(
            RemedyStarted(
                at_ns=0, incident=chain.incident, agent=agent(), remedy=step.remedy, attempt=step.attempt, act=step.remedy,
                because=step.because, fingerprint=chain.death.fingerprint,
            )
        )  # fmt: skip
        self.acts.append((self.now_s, step.remedy))
        starts = {"restart", "restart-fresh"} | ({"rollback"} if self.policy.rollback else set())  # a snapshot starts nothing
        if step.remedy in starts and self.act_works:
            # a remedy stops a living instance before it starts another
            self.instances = 1
            self.most_instances = max(self.most_instances, self.instances)

    def end(self, remedy: str, attempt: int, outcome: str) -> None:
        """An outcome."""
        self.tell(
            RemedyFinished(
                at_ns=0, incident=self.standing.chain.incident, agent=agent(), remedy=remedy, attempt=attempt, outcome=outcome,
                says=outcome, took_ms=1.0,
            )
        )  # fmt: skip

    def close(self, step: Commit | GiveUp | LeaveAlone) -> IncidentClosed:
        """The incident is over."""
        held = {Commit: True, GiveUp: False, LeaveAlone: None}[type(step)]
        chain = self.standing.chain
        event = IncidentClosed(
            at_ns=0, incident=chain.incident, agent=agent(), outcome=closing_words(self.standing, chain, step), held=held
        )
        self.tell(event)
        self.closed.append(event)
        return event

    def do(self) -> Step:
        """One step, done as the orchestrator does it. Waiting takes the simulated time."""
        step = self.step
        match step:
            case Act():
                self.begin(step)
                self.end(step.remedy, step.attempt, "done" if self.act_works else "failed")
            case Settle():
                self.end(step.remedy, step.attempt, "unknown")
            case Wait():
                assert step.until_s > self.now_s
                self.now_s = step.until_s
            case Validate():
                if self.instances == 1 and self.start_lasts:
                    self.now_s += 0.2
                    self.end("validate", step.attempt, "done")
                else:
                    self.now_s = max(self.now_s, step.until_s)
                    self.end("validate", step.attempt, "failed")
            case Probation():
                assert step.until_s > self.now_s
                self.now_s = step.until_s
            case Commit() | GiveUp() | LeaveAlone():
                self.close(step)
            case Rest():
                pass
        return step

    def run(self, limit: int = 200) -> list[Step]:
        """Steps until nothing is open."""
        steps = []
        while not isinstance(self.step, Rest):
            steps.append(self.do())
            assert len(steps) < limit, steps[-5:]
        return steps

    def until_probation(self, limit: int = 200) -> list[Step]:
        """Steps until it is on probation, or nothing is open."""
        steps = []
        while not isinstance(self.step, Rest | Probation):
            steps.append(self.do())
            assert len(steps) < limit, steps[-5:]
        return steps

    def did(self) -> list[str]:
        """The acts, by name."""
        return [remedy for _, remedy in self.acts]


def most_within(acts: list[tuple[float, str]], wanted: set[str], within_s: float) -> int:
    """The most acts of these kinds in any window of this length."""
    times = sorted(at_s for at_s, remedy in acts if remedy in wanted)
    return max((sum(1 for other in times if at <= other < at + within_s) for at in times), default=0)
