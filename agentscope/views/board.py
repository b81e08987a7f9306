"""A pure fold: stream events -> what is the case now. The same for live events and for recordings; it draws nothing.

Times are compared on the wall clock of the last `Ready`, so a recording that spans a reboot still sorts; a line of the ledger
brings its own.
"""

import datetime as dt
from collections import deque
from dataclasses import dataclass, field

from agentscope.model import (
    Agent,
    AgentGone,
    AgentSeen,
    AnyEvent,
    IncidentClosed,
    IncidentOpened,
    Lost,
    Pressure,
    ProcessExit,
    Pulse,
    Ready,
    RemedyFinished,
    RemedyStarted,
)
from agentscope.record import Envelope

HISTORY = 120  # pulses kept for a sparkline: two minutes
INCIDENTS_KEPT = 500
ENDED_KEPT = 100
FRESH_NS = 3_600 * 1_000_000_000  # a death older than this has been seen, or nobody looks
DAY_NS = 86_400 * 1_000_000_000

Key = tuple[int, int]
Deed = RemedyStarted | RemedyFinished | IncidentClosed


@dataclass(frozen=True)
class Happened:
    """One incident with its place on the wall clock, None where the stream never said what time it is."""

    incident: IncidentOpened
    clock_ns: int
    wall_ns: int | None


@dataclass(frozen=True)
class Glimpse:
    """The agents that /proc shows, each with why it is one, before anything is attached: what a person sees meanwhile, and no event."""

    agents: tuple[tuple[Agent, str], ...]


@dataclass(frozen=True)
class Recovered:
    """The last word about bringing an agent back: "restart", "well again", "held", "not held"; and when that was."""

    words: str
    clock_ns: int
    under_way: bool = False


@dataclass
class Row:
    """One agent now. `state` are the words of the last pulse while it lives; `ended` says how it is over.

    `held` is what counts against its limit, sample by sample, as `history` is what it holds itself. `death` is the incident in
    which it ended, `last` the last one of its name.
    """

    agent: Agent
    seen_ns: int
    because: str = ""
    state: str = "watched"
    ended: str | None = None
    ended_ns: int | None = None
    rss_bytes: int | None = None
    cgroup_bytes: int | None = None
    limit_bytes: int | None = None
    cpu_percent: float | None = None
    threads: int | None = None
    processes: int | None = None
    wrote_ns: int | None = None
    history: deque[int | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    held: deque[int | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    pressures: dict[str, Pressure] = field(default_factory=dict)
    full_ns: int | None = None  # when its memory will be full, at the slope of the last warning
    last: Happened | None = None
    death: Happened | None = None
    glimpsed: bool = False

    @property
    def key(self) -> Key:
        """Identity within a boot."""
        return self.agent.pid, self.agent.start_ns

    @property
    def died(self) -> bool:
        """Whether its end was an incident."""
        return self.ended is not None and self.death is not None

    @property
    def stuck(self) -> bool:
        """Whether it lives and does nothing, or may."""
        return self.ended is None and self.state.replace("(", " ").split(" ", 1)[0] in {"hung", "suspect"}

    @property
    def incident(self) -> Happened | None:
        """The incident that it is in: its death, or the hang in which it is."""
        if self.ended is not None or not self.stuck or self.last is None:
            return self.death
        ours = (self.last.incident.agent.pid, self.last.incident.agent.start_ns) == self.key
        return self.last if ours and self.last.incident.scope == "agent" else None

    @property
    def words(self) -> str:
        """What it is doing, or how it ended."""
        return self.state if self.ended is None else self.ended

    @property
    def used_bytes(self) -> int | None:
        """What counts against the limit where there is one, else what it holds itself."""
        return self.cgroup_bytes if self.limit_bytes and self.cgroup_bytes is not None else self.rss_bytes

    @property
    def memory_share(self) -> float | None:
        """How full its limit is, 0..1; None where nothing limits it."""
        used = self.used_bytes
        return None if used is None or not self.limit_bytes else used / self.limit_bytes


class Board:
    """Agents, incidents and losses, as of the last event. `changes` grows with every event that a person could see."""

    def __init__(self) -> None:
        self.ready: Ready | None = None
        self.rows: dict[Key, Row] = {}
        self.incidents: deque[Happened] = deque(maxlen=INCIDENTS_KEPT)
        self.lost: dict[str, int] = {}
        self.lost_says: dict[str, str] = {}
        self.outcomes: dict[str, str] = {}  # incident -> what is being done about it, or came of it
        self.done: dict[str, list[Deed]] = {}  # incident -> all that was done, oldest first
        self.recovered: dict[str, Recovered] = {}  # by name of the agent
        self.deaths: dict[str, deque[int]] = {}
        self.wall_offset_ns: int | None = None
        self.recorded_ns: int | None = None  # the wall clock of the ledger's line that is being folded
        self.now_ns = 0
        self.changes = 0

    def recall(self, line: Envelope) -> None:
        """One line of the ledger, from before we watched: it says itself when it was."""
        self.recorded_ns = wall_ns_of(line)
        try:
            self.apply(line.data)
        finally:
            self.recorded_ns = None

    def glimpse(self, glimpse: Glimpse) -> None:
        """Show these agents until the source is attached and tells itself who is there."""
        for agent, because in glimpse.agents:
            key = (agent.pid, agent.start_ns)
            self.rows.setdefault(key, Row(agent, seen_ns=self.now_ns, because=because, glimpsed=True))
        self.changes += 1

    def apply(self, event: AnyEvent) -> None:
        """Fold one event in."""
        if isinstance(event, Ready):
            self.start(event)
        # events of one batch are a little out of order; time does not run back within a boot
        self.now_ns = max(self.now_ns, self.clock_of(event))
        match event:
            case Pulse():
                self.pulse(event)
            case AgentSeen():
                self.seen(event.agent, event).because = event.because
            case IncidentOpened():
                self.opened(event)
            case Pressure():
                self.pressed(event)
            case AgentGone():
                self.gone(event)
            case ProcessExit():
                self.exited(event)
            case Lost():
                self.lost[event.source] = self.lost.get(event.source, 0) + event.count
                self.lost_says[event.source] = event.says
            case RemedyStarted() | RemedyFinished() | IncidentClosed():
                self.dealt(event)
            case Ready():
                pass
            case _:
                return
        self.changes += 1

    def clock_of(self, event: AnyEvent) -> int:
        """When it happened, on the wall clock if that is known."""
        if self.recorded_ns is not None:
            return self.recorded_ns
        return event.at_ns + (self.wall_offset_ns or 0)

    def start(self, ready: Ready) -> None:
        """A source is attached; after another boot, what ran before cannot be running."""
        if self.ready is not None and self.ready.boot_id != ready.boot_id:
            for row in self.rows.values():
                self.end(row, "ended: the machine restarted", ready.wall_ns)
        self.rows = {key: row for key, row in self.rows.items() if not row.glimpsed}
        self.ready = ready
        self.wall_offset_ns = ready.wall_ns - ready.at_ns
        self.now_ns = max(self.now_ns, ready.wall_ns)

    def seen(self, agent: Agent, event: AnyEvent) -> Row:
        """The row of this agent; a new life of a name replaces its ended one."""
        key = (agent.pid, agent.start_ns)
        row = self.rows.get(key)
        if row is None:
            former = [old for old in self.rows.values() if old.ended is not None and old.agent.name == agent.name]
            row = Row(agent, seen_ns=self.clock_of(event))
            for old in former:
                row.last = row.last or old.last
                del self.rows[old.key]
            self.rows[key] = row
        return row

    def pulse(self, pulse: Pulse) -> None:
        """One sample of one agent; of an agent that was never announced there is nothing to name, so it waits."""
        row = self.rows.get((pulse.agent_pid, pulse.agent_start_ns))
        if row is None or row.ended is not None:
            return
        row.state = pulse.state
        row.rss_bytes, row.cgroup_bytes = pulse.rss_bytes, pulse.cgroup_bytes
        row.limit_bytes, row.cpu_percent = pulse.limit_bytes, pulse.cpu_percent
        row.threads, row.processes = pulse.threads, len(pulse.processes) or None
        row.wrote_ns = None if pulse.wrote_ns is None else pulse.wrote_ns + (self.wall_offset_ns or 0)
        row.history.append(pulse.rss_bytes)
        row.held.append(row.used_bytes)

    def pressed(self, event: Pressure) -> None:
        """An agent comes near a limit, or is well below it again."""
        row = self.rows.get((event.agent_pid, event.agent_start_ns))
        if row is None:
            return
        row.pressures.pop(event.kind, None)
        if not event.eased:
            row.pressures[event.kind] = event
        if event.kind == "memory":
            left_s = None if event.eased else event.seconds_to_limit
            row.full_ns = None if left_s is None else self.clock_of(event) + int(min(left_s, DAY_NS) * 1_000_000_000)

    def opened(self, incident: IncidentOpened) -> None:
        """An incident: newest first; the end of the agent itself is also a death, a hang is none."""
        at_ns = self.clock_of(incident)
        known = self.wall_offset_ns is not None or self.recorded_ns is not None
        happened = Happened(incident, at_ns, at_ns if known else None)
        if len(self.incidents) == INCIDENTS_KEPT:
            self.done.pop(self.incidents[-1].incident.incident, None)
        self.incidents.appendleft(happened)
        died = incident.scope == "agent" and (incident.exit.code is not None or incident.exit.signal is not None)
        if self.recorded_ns is not None and not died and (incident.agent.pid, incident.agent.start_ns) not in self.rows:
            return  # it hung before we watched: whether it is still there is not known
        row = self.seen(incident.agent, incident)
        row.last = happened
        if died:
            row.death = happened
            self.deaths.setdefault(incident.agent.name, deque(maxlen=INCIDENTS_KEPT)).append(at_ns)
            self.end(row, f"died: {incident.cause}", at_ns)

    def dealt(self, event: Deed) -> None:
        """Something was done about an incident, or it is over."""
        self.outcomes[event.incident] = done_words(event)
        self.done.setdefault(event.incident, []).append(event)
        words = recovery_words(event)
        if words is not None:
            self.recovered[event.agent.name] = Recovered(words, self.clock_of(event), isinstance(event, RemedyStarted))

    def gone(self, event: AgentGone) -> None:
        """The root process of an agent ended, as an incident or not."""
        row = self.seen(event.agent, event)
        if row.ended is None or not row.died:
            words = f"{event.says} ({event.by})" if event.by and event.by not in event.says else event.says
            self.end(row, words or "ended", self.clock_of(event))

    def exited(self, event: ProcessExit) -> None:
        """An agent's root exit, in case the stream ends before it says what that meant."""
        row = self.rows.get((event.pid, event.start_ns))
        if row is not None and row.ended is None:
            how = f"by signal {event.signal}" if event.signal is not None else f"with status {event.code}"
            self.end(row, f"ended {how}", self.clock_of(event))

    def end(self, row: Row, words: str, clock_ns: int) -> None:
        """Mark a row as over, and forget the oldest ended ones beyond what a person could look at."""
        row.ended = words
        row.ended_ns = row.ended_ns if row.ended_ns is not None else clock_ns
        row.cpu_percent = row.full_ns = None
        row.pressures.clear()
        over = [(old.ended_ns or 0, old.key) for old in self.rows.values() if old.ended is not None]
        if len(over) > ENDED_KEPT:
            del self.rows[min(over)[1]]

    # --- questions -----------------------------------------------------------------------------------------------------

    def deaths_in_a_day(self, name: str) -> int:
        """Incidents of this agent itself in the last 24 hours of the stream."""
        return sum(1 for at_ns in self.deaths.get(name, ()) if self.now_ns - at_ns < DAY_NS)

    def troubled(self, row: Row) -> bool:
        """Whether a person should look at it first: it is stuck, near a limit, or died not long ago."""
        return row.stuck or bool(row.pressures) or (row.died and self.now_ns - (row.ended_ns or 0) < FRESH_NS)

    def began_ns(self, row: Row) -> int | None:
        """When it started, on the wall clock."""
        return None if self.wall_offset_ns is None else row.agent.start_ns + self.wall_offset_ns

    def listed(self, wanted: str = "") -> list[Row]:
        """Rows in reading order: trouble first, then the living, then what ended well; each by name, so that rows stay put."""
        rows = list(self.rows.values())
        if wanted:
            rows = [row for row in rows if matches(wanted, row.agent.name, str(row.agent.pid), row.words, row.agent.unit or "")]
        return sorted(rows, key=lambda row: (self.rank(row), row.agent.name, row.agent.pid))

    def rank(self, row: Row) -> int:
        """Who is read first: what is stuck, what comes near a limit, what died lately, what runs, what is over."""
        if row.ended is not None:
            return 2 if self.troubled(row) else 4
        return 0 if row.stuck else 1 if row.pressures else 3

    def happened(self, wanted: str = "") -> list[Happened]:
        """Incidents, newest first."""
        if not wanted:
            return list(self.incidents)
        return [
            entry
            for entry in self.incidents
            if matches(
                wanted,
                entry.incident.agent.name,
                str(entry.incident.process.pid),
                entry.incident.cause,
                entry.incident.headline,
                entry.incident.culprit,
            )
        ]

    @property
    def living(self) -> int:
        """Agents that run."""
        return sum(1 for row in self.rows.values() if row.ended is None)

    @property
    def lost_count(self) -> int:
        """Everything that was not seen or not delivered."""
        return sum(self.lost.values())


def done_words(event: RemedyStarted | RemedyFinished | IncidentClosed) -> str:
    """How far recovery is with an incident, in a few words."""
    if isinstance(event, RemedyStarted):
        return f"{event.remedy}, attempt {event.attempt}"
    if isinstance(event, IncidentClosed):
        return {True: "held: ", False: "not held: ", None: ""}[event.held] + event.outcome
    if event.remedy == "validate":
        return (
            "well again, on probation" if event.outcome == "done" else f"not well after attempt {event.attempt}: {event.says}"
        )
    return f"{event.remedy} {event.outcome}: {event.says}"


def recovery_words(event: Deed) -> str | None:
    """The same for the agent, in a word or two; None where nothing was done."""
    if isinstance(event, RemedyStarted):
        return event.remedy
    if isinstance(event, IncidentClosed):
        return {True: "held", False: "not held", None: None}[event.held]
    if event.remedy == "validate":
        return "well again" if event.outcome == "done" else "not well"
    return f"{event.remedy} {event.outcome}"


def wall_ns_of(line: Envelope) -> int | None:
    """When a line says that it was, in nanoseconds since 1970; None where it does not say."""
    try:
        return int(dt.datetime.fromisoformat(line.time).timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        return None


def matches(wanted: str, *texts: str) -> bool:
    """Whether every word that was typed is in one of the texts, whatever its case."""
    spoken = "\n".join(texts).casefold()
    return all(word in spoken for word in wanted.casefold().split())
