"""The fold over samples and looks: since when a thread waits, when an agent is worth a look, and what makes it suspect."""

from typing import Any

import msgspec
import pytest

from agentscope.examination import (
    Call,
    CgroupState,
    Descriptor,
    Examination,
    HealthResult,
    Holder,
    Pipe,
    ProcessLook,
    Socket,
    Thread,
)
from agentscope.examination.waiting import obligations_of, wait_of, waits_of
from agentscope.model import Agent, LastSyscall, ProcessSample, ThreadSample
from agentscope.waits import LOOK_AGAIN_S, AgentWaits, Waits, outstanding, went_on, words_of_seconds

SECOND = 1_000_000_000
PID = 100
AGENT = Agent(name="a", pid=PID, start_ns=SECOND, start_time="", command="a")
RECVFROM, FUTEX, POLL, EPOLL_WAIT, NANOSLEEP = 45, 202, 7, 232, 35


def thread(number: int | None = RECVFROM, *, at_s: float = 10.0, tid: int = PID, **more: Any) -> ThreadSample:
    """One thread blocked in a call since `at_s`, or running where `number` is None."""
    args = more.pop("args", (3, 0, 0, 0, 0, 0))
    return ThreadSample(
        tid=tid,
        comm="a",
        state="R" if number is None else more.pop("state", "S"),
        syscall=None if number is None else LastSyscall(number=number, args=args),
        last_ran_ns=None if number is None else int(at_s * SECOND),
        **more,
    )


def process(*threads: ThreadSample, pid: int = PID) -> ProcessSample:
    """One process with these threads."""
    return ProcessSample(pid=pid, start_ns=SECOND, anon_bytes=None, rss_bytes=None, threads=threads)


def sampled(waits: Waits, sample: ProcessSample, at_s: float) -> AgentWaits:
    """One sample of the one agent."""
    return waits.sampled(AGENT, [sample], int(at_s * SECOND))


def look(*threads: Thread, at_s: float = 60.0, **more: Any) -> Examination:
    """One look at a process with these threads."""
    descriptors = more.pop("descriptors", ())
    process = ProcessLook(
        pid=PID,
        start_ns=SECOND,
        ppid=1,
        comm="a",
        argv=("a",),
        threads=threads,
        descriptors=descriptors,
        **more.pop("process", {}),
    )
    return Examination(
        at_ns=int(at_s * SECOND),
        patience_s=30.0,
        interval_s=1.0,
        watched_since_ns=0,
        processes=(process, *more.pop("others", ())),
        **more,
    )


def blocked(name: str, *descriptors: int, since_s: float = 10.0, tid: int = PID, **more: Any) -> Thread:
    """One thread in this call."""
    state, cpu = more.pop("state", "S"), more.pop("cpu_share", 0.0)
    call = Call(name=name, descriptors=descriptors, **more)
    return Thread(tid=tid, comm="a", state=state, call=call, since_ns=int(since_s * SECOND), cpu_share=cpu)


def tcp(inode: int = 7, **more: Any) -> Socket:
    """An established client connection on which nothing was ever sent."""
    facts: dict[str, Any] = {
        "family": "inet", "kind": "tcp", "state": "established", "local": "10.0.0.1:4000", "peer": "10.0.0.2:443",
        "receive_queue": 0, "send_queue": 0,
    }  # fmt: skip
    return Socket(inode=inode, **(facts | more))


def asked(ago_s: float = 43, **more: Any) -> Socket:
    """A client connection whose last bytes were ours."""
    return tcp(sent_bytes=90, received_bytes=0, last_sent_ago_ms=int(ago_s * 1000), **more)


SOCKET = Descriptor(number=3, kind="socket", target="socket:[7]", inode=7)


# --- samples ----------------------------------------------------------------------------------------------------------------


def test_the_kernel_knows_since_when_even_if_we_attached_late():
    """The wait of a thread began when it last had a CPU, not when it was first sampled."""
    waits = Waits(30)
    assert sampled(waits, process(thread(at_s=10)), 50).since_ns(PID, PID) == 10 * SECOND


def test_a_thread_that_got_its_bytes_waits_anew():
    """A call without a time-out that was left and entered again is another wait."""
    waits = Waits(30)
    sampled(waits, process(thread(at_s=10)), 11)
    again = sampled(waits, process(thread(at_s=20, voluntary_switches=1)), 21)
    assert again.since_ns(PID, PID) == 20 * SECOND


def test_a_poll_that_times_out_and_is_called_again_is_one_wait():
    """Waking up every second without having got anything does not reset the clock."""
    waits = Waits(30)
    for second in range(10, 20):
        kept = sampled(waits, process(thread(POLL, at_s=second, voluntary_switches=second)), second + 0.5)
    assert kept.since_ns(PID, PID) == 10 * SECOND


def test_a_poll_between_which_bytes_moved_is_a_new_wait():
    """Bytes read or written between two polls are progress."""
    waits = Waits(30)
    sampled(waits, process(thread(POLL, at_s=10, read_bytes=0)), 11)
    kept = sampled(waits, process(thread(POLL, at_s=12, read_bytes=100, voluntary_switches=1)), 13)
    assert kept.since_ns(PID, PID) == 12 * SECOND


def test_a_futex_without_time_out_that_woke_is_a_new_wait():
    """A lock that was got and wanted again is two waits; only a timed futex may wake for nothing."""
    waits = Waits(30)
    sampled(waits, process(thread(FUTEX, at_s=10)), 11)
    kept = sampled(waits, process(thread(FUTEX, at_s=12, voluntary_switches=1)), 13)
    assert kept.since_ns(PID, PID) == 12 * SECOND


def test_a_burst_on_the_cpu_is_timed_from_its_first_second():
    """Consecutive samples with a whole CPU are one burst; a pause ends it."""
    waits = Waits(30)
    sampled(waits, process(thread(None, user_ns=0)), 10)
    for second in (11, 12, 13):
        kept = sampled(waits, process(thread(None, user_ns=(second - 10) * SECOND)), second)
    assert kept.since_ns(PID, PID) == 10 * SECOND
    assert kept.cpu_share == pytest.approx(1.0)
    paused = sampled(waits, process(thread(None, user_ns=3 * SECOND + SECOND // 2, voluntary_switches=1)), 14)
    assert paused.since_ns(PID, PID) == 14 * SECOND


def test_a_thread_that_never_slept_has_spun_whatever_was_taken_from_it():
    """Of a CPU that another machine has in between, time is neither used nor waited for; who did not go to sleep went on all the same."""
    waits = Waits(30)
    shares = (0.4, 0.1, 0.6, 0.3, 0.9, 0.2)
    ran = [int(SECOND * sum(shares[:count])) for count in range(len(shares) + 1)]
    for second, user_ns in enumerate(ran, 10):
        kept = sampled(waits, process(thread(None, user_ns=user_ns, voluntary_switches=7, involuntary_switches=second)), second)
    assert kept.since_ns(PID, PID) == 10 * SECOND
    assert kept.known[PID].threads[PID].busy_share == 1.0
    assert kept.cpu_share == pytest.approx(0.2)


def test_a_thread_that_sleeps_in_between_has_not_spun():
    """One that is on the CPU at every look and went to sleep between them is as busy as its times say, and no burst."""
    waits = Waits(30)
    for second in range(10, 17):
        kept = sampled(waits, process(thread(None, user_ns=second * SECOND // 2, voluntary_switches=second)), second)
    assert kept.since_ns(PID, PID) == 16 * SECOND
    assert kept.known[PID].threads[PID].busy_share == pytest.approx(0.5)


def test_a_thread_that_waits_on_a_lock_has_not_spun():
    """Not to have switched is to have gone on only for one that runs: a thread that is blocked has not switched either."""
    waits = Waits(30)
    for second in range(10, 14):
        kept = sampled(waits, process(thread(FUTEX, at_s=9, voluntary_switches=7)), second)
    assert kept.known[PID].threads[PID].busy_share == 0.0


def test_an_unchanged_sample_is_not_folded_again():
    """The same object twice means that nothing ran: the third time it costs nothing."""
    waits = Waits(30)
    sample = process(thread(at_s=10))
    sampled(waits, sample, 11)
    sampled(waits, sample, 12)
    known = waits.agents[PID, SECOND].known[PID]
    sampled(waits, sample, 13)
    assert known.at_ns == 12 * SECOND
    assert known.threads[PID].since_ns == 10 * SECOND


# --- when to look -----------------------------------------------------------------------------------------------------------


def test_an_agent_is_looked_at_when_it_could_have_been_still_for_half_of_the_patience():
    """Not before: a look costs something."""
    waits = Waits(30)
    sampled(waits, process(thread(at_s=10)), 10)
    assert waits.due(24 * SECOND) == []
    assert len(waits.due(25 * SECOND)) == 1


def test_an_agent_that_never_rests_is_looked_at_all_the_same():
    """What happens every second does not put the look off for ever."""
    waits = Waits(30)
    for second in range(10, 26):
        sampled(waits, process(thread(at_s=second, voluntary_switches=second)), second)
    assert len(waits.due(26 * SECOND)) == 1


def test_a_quiet_agent_without_obligation_is_looked_at_ever_less_often():
    """The pause grows with the silence, up to two minutes."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(at_s=10)), 10)
    pauses = []
    at_s = 25.0
    for _ in range(6):
        waits.looked(
            kept, look(blocked("accept", 3), at_s=at_s, descriptors=(SOCKET,), sockets=(tcp(state="listen", peer=None),))
        )
        pauses.append(kept.next_look_ns / SECOND - at_s)
        at_s += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[0] == 30
    assert pauses[-1] == LOOK_AGAIN_S


def test_a_suspect_is_looked_at_again_after_half_of_the_patience():
    """So that the verdict comes when the patience is over."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(at_s=10)), 10)
    reasons = waits.looked(kept, look(blocked("recvfrom", 3), descriptors=(SOCKET,), sockets=(asked(20),)))
    assert reasons
    waits.cleared(kept, look(at_s=60), "stuck-io")
    assert kept.next_look_ns == 75 * SECOND
    assert kept.label() == "suspect(stuck-io) 10.0.0.2:443"


def test_a_look_without_the_time_to_read_everything_is_made_again_soon():
    """Three times after half of the patience; then it is left alone as long as it was quiet, and a look that had time begins anew."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(at_s=10)), 10)
    waits.looked(kept, look(blocked("recvfrom", 3), descriptors=(SOCKET,), sockets=(asked(20),)))
    hurried = msgspec.structs.replace(look(at_s=60), hurried=True)
    pauses = []
    for _ in range(4):
        waits.cleared(kept, hurried, None)
        pauses.append(kept.next_look_ns / SECOND - 60)
    assert pauses == [15, 15, 15, 100]
    waits.cleared(kept, look(at_s=60), None)
    assert kept.next_look_ns >= 90 * SECOND
    waits.cleared(kept, hurried, None)
    assert kept.next_look_ns == 75 * SECOND


def test_a_profile_that_another_is_in_the_way_of_is_owed():
    """Awake for no visible reason while others are traced, it is looked at again soon, however quiet it was, and traced then."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(NANOSLEEP, at_s=10)), 10)
    awake = Thread(tid=PID, comm="a", state="S", call=Call(name="clock_nanosleep", timeout_s=0.5), switches_per_s=2.0)
    for at_s in (60, 80, 100):  # well for so long that the next look would have time
        waits.looked(kept, look(awake, at_s=at_s))
    assert kept.next_look_ns == 220 * SECOND
    seen = look(awake, at_s=220)
    waits.looked(kept, seen)
    assert not waits.wants_profile(kept, seen, possible=False)
    assert kept.next_look_ns == 235 * SECOND
    waits.cleared(kept, seen, None)
    assert kept.next_look_ns == 235 * SECOND
    later = look(awake, at_s=235)
    waits.looked(kept, later)
    assert waits.wants_profile(kept, later)
    waits.cleared(kept, later, None)
    assert kept.next_look_ns > 250 * SECOND


def test_stacks_of_one_that_rests_are_taken_again_ever_less_often():
    """They serve for the patience at least, else for as long again as the rest had lasted, so that none that went wrong stands for ever."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(at_s=10)), 10)
    assert waits.serves_again(kept, 25 * SECOND, 54 * SECOND)
    assert not waits.serves_again(kept, 25 * SECOND, 55 * SECOND)
    assert waits.serves_again(kept, 110 * SECOND, 209 * SECOND)
    assert not waits.serves_again(kept, 110 * SECOND, 210 * SECOND)


@pytest.mark.parametrize(
    ("now", "gone_on"),
    [
        ((thread(EPOLL_WAIT, at_s=10), thread(FUTEX, at_s=20, tid=101)), False),
        ((thread(EPOLL_WAIT, at_s=10),), True),
        ((thread(EPOLL_WAIT, at_s=61, voluntary_switches=1), thread(FUTEX, at_s=20, tid=101)), False),
        ((thread(EPOLL_WAIT, at_s=10), thread(RECVFROM, at_s=61, tid=101, voluntary_switches=1)), True),
        ((thread(EPOLL_WAIT, at_s=10), thread(None, tid=101)), True),
        ((), False),
    ],
    ids=["still", "ended", "back in its poll", "in another wait", "runs", "not known"],
)
def test_a_wait_that_was_over_before_the_stacks_were_taken(now, gone_on):
    """Whoever had waited for the whole patience and has left that wait since the look makes what was seen one of two moments."""
    before = process(thread(EPOLL_WAIT, at_s=10), thread(FUTEX, at_s=20, tid=101))
    seen = look(blocked("epoll_wait", since_s=10, timeout_s=1.0), blocked("futex", since_s=20, tid=101))
    assert went_on(seen, [before], [process(*now)] if now else []) is gone_on


@pytest.mark.parametrize(
    ("now", "gone_on"),
    [
        (thread(None, tid=101), False),
        (thread(None, tid=101, read_bytes=100), True),
        (thread(RECVFROM, at_s=61, tid=101, voluntary_switches=1), True),
    ],
    ids=["asks again", "has read", "in another wait"],
)
def test_who_asks_for_a_lock_every_few_milliseconds_may_be_met_awake(now, gone_on):
    """Threads that want an interpreter lock wake by a time-out for ever: one that happens to run has not got it."""
    before = process(thread(None), thread(FUTEX, at_s=20, tid=101, args=(7, 0, 0, 1, 0, 0)))
    seen = look(blocked("futex", since_s=20, tid=101, timeout_s=0.005))
    assert went_on(seen, [before], [process(thread(None), now)]) is gone_on


def test_who_waits_but_for_a_moment_may_go_on_meanwhile():
    """A thread that had not waited long at the look tells nothing by waking: a heartbeat is no sign that what hangs went on."""
    before = process(thread(FUTEX, at_s=55))
    seen = look(blocked("futex", since_s=55))
    assert not went_on(seen, [before], [process(thread(RECVFROM, at_s=61, voluntary_switches=1))])


def test_a_still_thread_brings_the_look_of_a_well_agent_forward():
    """An agent that was found well often enough to be left alone is looked at as soon as a thread has been still long enough."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(NANOSLEEP, at_s=10)), 10)
    for at_s in (25, 60, 120, 200):
        waits.looked(kept, look(blocked("clock_nanosleep", timeout_s=1.0), at_s=at_s))
    assert kept.again_ns == (200 + 120) * SECOND
    stuck = thread(at_s=210, voluntary_switches=1)
    sampled(waits, process(stuck), 211)
    assert waits.due(224 * SECOND) == []
    assert waits.due(225 * SECOND) == [kept]
    waits.looked(kept, look(blocked("recvfrom", 3, since_s=210), at_s=225, descriptors=(SOCKET,), sockets=(tcp(),)))
    assert waits.due(239 * SECOND) == []


def test_agents_that_rest_are_looked_at_together():
    """Who is due in a moment comes with who is due now; but not a suspect, nor one with a thread that has come to be still."""
    waits = Waits(30)
    well = look(blocked("clock_nanosleep", timeout_s=1.0), at_s=25)
    kept = []
    for number in range(4):
        agent = msgspec.structs.replace(AGENT, pid=PID + number)
        waits.sampled(agent, [process(thread(NANOSLEEP, at_s=9), pid=PID + number)], 12 * SECOND)
        kept.append(waits.agents[PID + number, SECOND])
        waits.looked(kept[-1], msgspec.structs.replace(well, at_ns=(24 + number) * SECOND))
    first, soon, suspect, late = kept
    assert [each.next_look_ns // SECOND for each in kept] == [54, 55, 56, 57]
    waits.cleared(suspect, msgspec.structs.replace(well, at_ns=41 * SECOND), "stuck-io")
    assert suspect.next_look_ns == 56 * SECOND
    assert waits.due(53 * SECOND) == []
    assert waits.due(54 * SECOND) == [first, soon, late]
    late.next_look_ns -= 1
    assert waits.due(54 * SECOND) == [first, soon]


def test_a_thread_that_wakes_every_second_brings_no_look_forward():
    """Whoever is never still for half of the patience is looked at by and by."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(FUTEX, at_s=10)), 10)
    waits.looked(kept, look(blocked("clock_nanosleep", timeout_s=1.0), at_s=25))
    for second in range(26, 26 + 25):
        sampled(waits, process(thread(FUTEX, at_s=second, voluntary_switches=second)), second)
        assert waits.due(second * SECOND) == []


# --- what is outstanding ----------------------------------------------------------------------------------------------------


INPUT = Descriptor(number=0, kind="pipe", target="pipe", inode=8)


@pytest.mark.parametrize(("writer", "waits"), [(Holder(pid=5, comm="ide"), False), (Holder(pid=PID, comm="a"), True)])
def test_a_server_that_reads_its_standard_input_waits_for_work(writer: Holder, waits: bool):
    """As long as somebody outside of it can write there; who holds the only other end itself will never read a byte."""
    pipe = Pipe(inode=8, path=None, held_bytes=0, capacity_bytes=65536, readers=(Holder(pid=PID, comm="a"),), writers=(writer,))
    assert bool(reasons(look(blocked("read", 0), descriptors=(INPUT,), pipes=(pipe,)))) is waits


def reasons(seen: Examination, after_s: float = 15) -> tuple[str, ...]:
    """What is outstanding in this look."""
    return outstanding(seen, waits_of(seen), obligations_of(seen), after_s)


def test_a_question_without_an_answer_is_outstanding():
    """Bytes were sent to a peer and none came back."""
    seen = look(blocked("recvfrom", 3), descriptors=(SOCKET,), sockets=(asked(43),))
    assert "10.0.0.2:443 has not answered" in reasons(seen)


@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("an idle server", look(blocked("accept", 3), descriptors=(SOCKET,), sockets=(tcp(state="listen", peer=None),))),
        ("a sleeper", look(blocked("clock_nanosleep", timeout_s=3600))),
        ("input at a terminal", look(blocked("read", 0), descriptors=(Descriptor(number=0, kind="tty", target="/dev/pts/3"),))),
        ("a fresh question", look(blocked("recvfrom", 3), descriptors=(SOCKET,), sockets=(asked(3),), at_s=12)),
        (
            "a tool that works",
            look(
                blocked("wait4", child=200),
                others=(ProcessLook(pid=200, start_ns=1, ppid=PID, comm="cc", threads=(Thread(tid=200, comm="cc", state="R", cpu_share=0.9),)),),
            ),
        ),
        ("a debugger", look(blocked("futex", futex=64), process={"tracer": Holder(pid=9, comm="gdb")})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_healthy_waits_leave_nothing_outstanding(what, seen):
    """Waiting alone is no obligation."""
    assert reasons(seen) == (), what


@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("a lock", look(blocked("futex", futex=64))),
        ("a child that does nothing", look(blocked("wait4", child=200), others=(ProcessLook(pid=200, start_ns=1, ppid=PID, comm="cat", threads=(blocked("read", 0, tid=200),)),))),
        ("a stop", look(Thread(tid=PID, comm="a", state="T", since_ns=SECOND))),
        ("the disk", look(blocked("fsync", 3, state="D"))),
        ("a whole CPU", look(Thread(tid=PID, comm="a", state="R", since_ns=SECOND, cpu_share=0.6, busy_share=0.99))),
        ("a frozen cgroup", look(blocked("nanosleep", timeout_s=1), cgroup=CgroupState(path="/a", frozen=True))),
        ("a failing health check", look(blocked("nanosleep", timeout_s=1), health=HealthResult(probe="tcp", failures=3, says="refused", failing_since_ns=SECOND))),
        ("a full pipe", look(blocked("write", 1), descriptors=(Descriptor(number=1, kind="pipe", target="pipe", inode=8),), pipes=(Pipe(inode=8, path=None, held_bytes=65536, capacity_bytes=65536, readers=(Holder(pid=5, comm="less"),), writers=(Holder(pid=PID, comm="a"),)),))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_end_by_itself_is_outstanding(what, seen):
    """Everything that a clock may run on makes a suspect."""
    assert reasons(seen), what


# --- words ------------------------------------------------------------------------------------------------------------------


def test_a_model_api_is_named():
    """The object of a wait stands in its words: whom it asked, with the name that is known."""
    seen = look(blocked("recvfrom", 3), descriptors=(SOCKET,), sockets=(asked(43, peer="160.79.104.10:443"),))
    wait = wait_of(seen.processes[0].threads[0], seen.processes[0], seen)
    assert (wait.kind, wait.says) == ("llm", "llm api.anthropic.com 160.79.104.10:443")


def test_the_state_has_its_object_and_how_long():
    """As the screen shows it."""
    waits = Waits(30)
    kept = sampled(waits, process(thread(at_s=17)), 18)
    sampled(waits, process(thread(at_s=17)), 19)
    waits.looked(kept, look(blocked("recvfrom", 3, since_s=58), at_s=60, descriptors=(SOCKET,), sockets=(asked(2),)))
    assert kept.state(60 * SECOND) == "waiting(peer) 10.0.0.2:443, 43 s"


def test_a_tool_in_words_has_its_command_and_its_work():
    """What a child does is said of the agent that waits for it."""
    child = ProcessLook(
        pid=992, start_ns=1, ppid=PID, comm="cargo", argv=("/usr/bin/cargo", "test"),
        threads=tuple(Thread(tid=992 + n, comm="cargo", state="R", cpu_share=0.975) for n in range(8)),
    )  # fmt: skip
    seen = look(blocked("wait4"), others=(child,))
    assert waits_of(seen)[0].says == "tool `cargo test` pid 992, using 7.8 CPUs"


def test_of_a_set_the_unanswered_one_is_meant():
    """A loop that polls many connections waits for the one that owes an answer."""
    idle = tcp(8, peer="10.0.0.9:80", sent_bytes=5, received_bytes=5, last_sent_ago_ms=9000, last_received_ago_ms=8990)
    descriptors = (SOCKET, Descriptor(number=4, kind="socket", target="socket:[8]", inode=8))
    epoll = Descriptor(number=5, kind="epoll", target="epoll", watches=(3, 4))
    seen = look(blocked("epoll_wait", 5), descriptors=(*descriptors, epoll), sockets=(asked(43), idle))
    assert (waits_of(seen)[0].kind, waits_of(seen)[0].says) == ("peer", "10.0.0.2:443")


@pytest.mark.parametrize(("seconds", "words"), [(43.2, "43 s"), (119, "119 s"), (840, "14 min"), (10_000, "2.8 h")])
def test_durations_are_short(seconds, words):
    """A tired person reads one number."""
    assert words_of_seconds(seconds) == words
