"""What is worked out beside the event loop: every answer is taken up once and in order, also of what hangs, fails or is cut off."""

import threading
import time

import pytest

from agentscope.ledger import Ledger
from agentscope.marks import Marks, beside
from agentscope.marks.beside import InTurn
from agentscope.model import Agent, AgentGone, AgentSeen, IncidentOpened, ProcessExec, ProcessExit
from agentscope.pipeline import Pipeline, now_ns

WAIT_S = 10


class Desk:
    """What was taken up, and the threads that are held."""

    def __init__(self, late_s: float = WAIT_S) -> None:
        self.turn = InTurn("desk", late_s)
        self.told: list[object] = []
        self.woken = threading.Semaphore(0)
        self.turn.wake = self.woken.release
        self.holds: list[threading.Event] = []

    def put(self, key: str, work) -> None:
        """Give something to be done."""
        self.turn.put(key, work, self.told.append, lambda because: f"{key}: {because}")

    def hold(self, key: str) -> threading.Event:
        """Give something that is done only once it is let go."""
        held = threading.Event()
        self.holds.append(held)
        self.put(key, lambda: held.wait(30) and key)
        return held

    def take_up(self, count: int) -> None:
        """As the loop does when it is woken, until so many were told."""
        deadline = time.monotonic() + WAIT_S
        while len(self.told) < count and time.monotonic() < deadline:
            self.woken.acquire(timeout=0.05)
            self.turn.take_up()


@pytest.fixture
def desk():
    """A desk; nothing of it hangs on."""
    made: list[Desk] = []

    def make(**more) -> Desk:
        made.append(Desk(**more))
        return made[-1]

    yield make
    for each in made:
        for held in each.holds:
            held.set()


def test_answers_come_in_the_order_given(desk):
    """One that is quick waits for the slow one before it; nothing is told before the loop takes it up."""
    here = desk()
    held = here.hold("slow")
    here.put("quick", lambda: "quick")
    time.sleep(0.05)
    here.turn.take_up()
    assert here.told == []
    assert here.turn.waits("slow")
    assert here.turn.waits("quick")
    assert not here.turn.waits("other")
    held.set()
    here.take_up(2)
    assert here.told == ["slow", "quick"]
    assert not here.turn.waits("slow")


def test_one_that_fails_is_answered_without_it(desk):
    """The error is the reason; those behind it are not touched."""
    here = desk()

    def fails():
        raise OSError("no such luck")

    here.put("a", fails)
    here.put("b", lambda: "b")
    here.take_up(2)
    assert here.told == ["a: OSError: no such luck", "b"]


def test_one_that_hangs_is_answered_without_it_and_those_behind_it_are_done(desk):
    """It keeps its thread; when it comes back at last, nothing is told twice."""
    here = desk(late_s=0.2)
    held = here.hold("hangs")
    done = []
    for number in range(3):
        here.put("behind", lambda number=number: done.append(number) or number)
    here.take_up(4)
    assert here.told == ["hangs: not done within 0.2 s", 0, 1, 2]
    held.set()
    time.sleep(0.1)
    here.turn.take_up()
    assert len(here.told) == 4
    assert done == [0, 1, 2]


def test_a_long_queue_is_not_late(desk):
    """What waits for its turn is late only once that has come."""
    here = desk(late_s=0.4)
    for number in range(10):
        here.put("k", lambda number=number: time.sleep(0.06) or number)
    here.take_up(10)
    assert here.told == list(range(10))


def test_at_the_end_all_is_told_within_the_time(desk):
    """What is done by then with its answer, the rest without."""
    here = desk()
    here.put("a", lambda: "a")
    here.hold("b")
    here.put("c", lambda: "c")
    began = time.monotonic()
    here.turn.finish(0.3)
    assert 0.25 < time.monotonic() - began < 2
    assert here.told == ["a", "b: the watching ended first", "c: the watching ended first"]
    here.turn.finish(0)
    assert len(here.told) == 3


def test_a_thread_that_comes_back_after_the_end_wakes_nobody(desk):
    """The loop is closed by then."""
    here = desk()
    held = here.hold("b")
    here.turn.finish(0)
    held.set()
    time.sleep(0.1)
    assert not here.woken.acquire(blocking=False)


def test_whoever_gives_too_much_waits(desk, monkeypatch):
    """The queue is bounded: then the first is waited for, as if there were no thread."""
    monkeypatch.setattr(beside, "WAITING_LIMIT", 3)
    here = desk()
    for number in range(8):
        here.put("k", lambda number=number: time.sleep(0.01) or number)
        assert len(here.told) >= number - 2
    here.take_up(8)
    assert here.told == list(range(8))


def told_of(tmp_path, monkeypatch, ends, **replaced):
    """What a pipeline tells of agents that end so, where looking at what is installed is replaced; it is over after a second."""
    for name, function in replaced.items():
        monkeypatch.setattr(Marks, name, function)
    told = []
    pipeline = Pipeline(told.append, None, Ledger(tmp_path))
    pipeline.in_turn = InTurn("ends", 0.3)
    for pid, _ in ends:
        agent = Agent(name=f"agent{pid}", pid=pid, start_ns=pid, start_time="", command="agent")
        pipeline.tell(AgentSeen(at_ns=1, agent=agent, because="a test"))
        pipeline.tell(ProcessExec(at_ns=1, pid=pid, start_ns=pid, ppid=1, comm="agent", argv=("agent",), exe=None, uid=0))
    for pid, status in ends:
        pipeline.tell(ProcessExit(at_ns=now_ns(), pid=pid, start_ns=pid, ppid=1, comm="agent", status=status, uid=0))
        pipeline.in_turn.take_up()
    ends_s = time.monotonic() + 1
    while time.monotonic() < ends_s:
        pipeline.in_turn.take_up()
        time.sleep(0.02)
    return [(type(event).__name__, event.agent.pid, event) for event in told if isinstance(event, IncidentOpened | AgentGone)]


def test_a_file_system_that_hangs_costs_its_evidence_only(tmp_path, monkeypatch):
    """The end is told without any file being opened in the loop, with the reason; the agents behind it are told as ever."""
    here = threading.get_ident()
    opened = []

    def hangs(self, scene, held=None):
        if threading.get_ident() == here:
            opened.append(scene)
        elif scene.process.pid == 4_000_001:
            time.sleep(20)
        return scene

    told = told_of(tmp_path, monkeypatch, [(4_000_001, 11), (4_000_002, 11), (4_000_003, 3 << 8)], measured=hangs)
    assert [(kind, pid) for kind, pid, _ in told if pid == 4_000_001] == [
        ("IncidentOpened", 4_000_001),
        ("AgentGone", 4_000_001),
    ]
    assert [pid for kind, pid, _ in told if kind == "AgentGone"] == [4_000_003, 4_000_001, 4_000_002]
    missing = {each.kind: each.because for _, pid, event in told if pid == 4_000_001 for each in getattr(event, "missing", ())}
    assert missing["baseline-difference"] == missing["native-stack"] == "looking at what is installed: not done within 0.3 s"
    behind = next(event for kind, pid, event in told if pid == 4_000_002)
    assert "not done" not in str(behind.missing)
    assert [scene.process.pid for scene in opened] == [4_000_003]


def test_what_follows_in_one_agent_waits_for_what_came_before(tmp_path, monkeypatch):
    """An end of no interest to drift is told after the one before it of the same agent, and names its incident."""

    def slow(self, scene, held=None):
        if scene.exit.signal == 11:
            time.sleep(0.1)
        return scene

    monkeypatch.setattr(Marks, "measured", slow)
    told = []
    pipeline = Pipeline(told.append, None, Ledger(tmp_path))
    pipeline.in_turn = InTurn("ends", 5)
    agent = Agent(name="agent", pid=4_000_001, start_ns=7, start_time="", command="agent")
    pipeline.tell(AgentSeen(at_ns=1, agent=agent, because="a test"))
    for pid, ppid in ((4_000_001, 1), (4_000_002, 4_000_001)):
        pipeline.tell(ProcessExec(at_ns=1, pid=pid, start_ns=7, ppid=ppid, comm="agent", argv=("agent",), exe=None, uid=0))
    for pid, status in ((4_000_002, 11), (4_000_001, 0)):
        pipeline.tell(ProcessExit(at_ns=now_ns(), pid=pid, start_ns=7, ppid=1, comm="agent", status=status, uid=0))
    assert not [event for event in told if isinstance(event, IncidentOpened | AgentGone)]
    pipeline.in_turn.finish(5)
    kinds = [type(event).__name__ for event in told]
    assert kinds[-2:] == ["IncidentOpened", "AgentGone"]
    assert told[-2].process.pid == 4_000_002
