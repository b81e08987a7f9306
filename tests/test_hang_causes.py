"""Every cause of a hang: what it is said of, and what looks like it but is not. Each verdict is given live and replayed."""

from typing import Any

import pytest

from agentscope.evidence import Evidence, HangScene, collect_all, kinds_of
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.examination import (
    CallCount,
    CgroupState,
    ConnectCount,
    FileLock,
    HealthResult,
    LockWait,
    ProgressResult,
    SampledPlace,
    StackSamples,
    StatusCount,
    SyscallProfile,
)
from agentscope.model import MissingEvidence
from tests.hang_builders import (
    AGENT,
    IDLE_LOOP,
    IDLE_WORKER,
    IN_CALLBACK,
    NOW_NS,
    WAITS_FOR_LOCK,
    S,
    calm,
    client,
    descriptor,
    diagnose,
    epoll,
    frame,
    futex,
    hang,
    holder,
    listening,
    loop_set,
    native,
    on,
    pipe,
    process,
    recv,
    request,
    running,
    scene,
    seen,
    sleep,
    stacks,
    stop,
    task,
    thread,
    tool,
    wait4,
)

FAILING = HealthResult(
    probe="http://127.0.0.1:8080/health", failures=3, says="no answer in 500 ms", failing_since_ns=NOW_NS - 9 * S
)
OVERDUE = ProgressResult(signal="stdout", within_s=30, last_ago_s=90, overdue=True)
ASYNC_SERVER = (loop_set(4, 5), descriptor(4, 20), descriptor(5, 21))


def lock(tid: int, holder_tid: int | None, **more: Any) -> LockWait:
    """A thread waits for a lock."""
    facts: dict[str, Any] = {"pid": AGENT, "address": 0x1000 + tid, "kind": "Lock", "proof": "its frames hold it"} | more
    return LockWait(tid=tid, holder_tid=holder_tid, **facts)


def two_locks(**more: Any) -> Any:
    """Threads 101 and 102 hold what the other wants; the main thread joins them."""
    facts: dict[str, Any] = {
        "lock_waits": (lock(101, 102, held_at=frame("report agent.py:21")), lock(102, 101, held_at=frame("debit agent.py:13"))),
        "python": (
            stacks(("_wait_for_tstate_lock lib:threading.py:1100",), ("debit agent.py:15",), ("report agent.py:23",)),
        ),
    }  # fmt: skip
    threads = more.pop("threads", (thread(futex()), thread(futex(), 101), thread(futex(), 102)))
    return seen(process(*threads), **(facts | more))


class TestDeadlock:
    """hang/deadlock."""

    def test_two_locks_in_opposite_order(self):
        """A ring of two holders is certain; the culprit names both lines, what each holds and what it wants."""
        found = hang(two_locks())
        assert (found.cause, found.confidence) == ("hang/deadlock", "certain")
        assert found.headline == (
            "Hung for 40 s: thread 101 waits for a lock that thread 102 holds, which waits for one that thread 101 holds (deadlock)"
        )
        assert "agent.py:15 in debit holds B (taken at agent.py:13) and waits for A" in found.culprit
        assert "agent.py:23 in report holds A (taken at agent.py:21) and waits for B" in found.culprit
        assert {"thread-waits", "lock-waits", "python-threads"} <= set(found.cites)

    def test_a_lock_taken_twice(self):
        """A thread that waits for a lock which it holds itself is a ring of one."""
        found = hang(
            seen(
                process(thread(futex())),
                lock_waits=(lock(AGENT, AGENT),),
                python=(stacks(("trim agent.py:19", "put agent.py:14")),),
            )
        )
        assert (found.cause, found.confidence) == ("hang/deadlock", "certain")
        assert "agent.py:19 in trim" in found.culprit

    def test_a_condition_is_no_lock_taken_twice(self):
        """threading.Condition takes its waiter's lock twice on purpose: that is waiting for news."""
        waiting = lock(AGENT, AGENT, waits_at=frame("wait lib:threading.py:320"))
        calm(seen(process(thread(futex())), lock_waits=(waiting,), python=(stacks(WAITS_FOR_LOCK),)))

    def test_native_mutexes(self):
        """In a C program the functions that wait are named."""
        found = hang(
            seen(
                process(
                    thread(futex()),
                    thread(futex(owner=102), 101),
                    thread(futex(owner=101), 102),
                    comm="ledger",
                    argv=("/opt/ledger",),
                ),
                lock_waits=(lock(101, 102, kind="mutex"), lock(102, 101, kind="mutex")),
                native=(
                    native(101, "__lll_lock_wait+0x30 (libc.so.6)", "debit+0x1c (ledger)"),
                    native(102, "__lll_lock_wait+0x30 (libc.so.6)", "report+0x2c (ledger)"),
                ),
            )
        )
        assert found.confidence == "certain"
        assert "debit (ledger)" in found.culprit
        assert "report (ledger)" in found.culprit

    @pytest.mark.parametrize(
        "threads",
        [
            (thread(futex()), thread(futex(), 101), running(102)),
            (thread(futex()), thread(futex(), 101), thread(futex(timeout_s=30.0), 102)),
            (thread(futex()), thread(futex(), 101), thread(sleep(12), 102)),
            (thread(futex()), thread(futex(), 101), thread(futex(), 102, for_s=1.0)),
        ],
        ids=["a holder runs", "a time-out ends it", "a holder sleeps", "too short"],
    )
    def test_a_holder_that_gets_on_breaks_the_ring(self, threads):
        """If one thread of the ring is not blocked without end any more, it will go on, or went on since the locks were read."""
        calm(two_locks(threads=threads))

    def test_in_a_worker_process(self):
        """A worker of the agent in a deadlock, for which the agent waits, is told as its deadlock, with its lines."""
        worker = process(thread(futex(), 200), thread(futex(), 201), pid=200)
        found = hang(
            seen(
                process(thread(wait4(200))),
                worker,
                lock_waits=(lock(200, 201, pid=200), lock(201, 200, pid=200)),
                python=(stacks(("work agent.py:20",), ("load agent.py:13",), pid=200),),
            )
        )
        assert (found.cause, found.confidence) == ("hang/deadlock", "certain")
        assert "agent.py:20" in found.culprit
        assert "agent.py:13" in found.culprit
        assert "pid 200" in found.headline

    def test_in_a_tool_that_nobody_waits_for(self):
        """A deadlock in a background tool is not the agent's hang."""
        other = tool(thread(futex(), 200), thread(futex(), 201), command="indexer")
        calm(seen(process(thread(sleep())), other, lock_waits=(lock(200, 201, pid=200), lock(201, 200, pid=200))))

    def test_a_lock_of_a_thread_that_ended(self):
        """A holder that is no thread any more never gives its lock back: likely, where a request is unanswered meanwhile."""
        facts: dict[str, Any] = {"lock_waits": (lock(AGENT, 555),), "python": (stacks(("answer agent.py:18",)),)}
        found = hang(seen(process(thread(futex()), descriptors=(descriptor(5, 21),)), sockets=(request(),), **facts))
        assert (found.cause, found.confidence) == ("hang/deadlock", "likely")
        assert "agent.py:18" in found.culprit
        assert "has ended" in found.headline
        assert "nothing is outstanding" in calm(seen(process(thread(futex())), **facts))["deadlock"]

    def test_nobody_is_left(self):
        """Every thread waits without end, one for a lock, and a probe fails: likely, though holders are not known."""
        threads = (thread(futex()), thread(futex(), 101), thread(on("accept4", 4), 102))
        stack = stacks(("join lib:threading.py:1100",), ("answer agent.py:18",), ("serve agent.py:30",))
        found = hang(seen(process(*threads), python=(stack,), lock_waits=(lock(101, None),), health=FAILING))
        assert (found.cause, found.confidence) == ("hang/deadlock", "likely")
        assert "health" in found.cites
        assert "agent.py:18" in found.culprit

    @pytest.mark.parametrize("other", [thread(sleep(30), 101), running(101), thread(futex(timeout_s=1.0), 101)])
    def test_somebody_is_left(self, other):
        """A thread that sleeps for a bounded time, runs, or looks now and then may release the lock."""
        stack = stacks(("answer agent.py:18",), ("other agent.py:30",))
        assert "deadlock" in calm(seen(process(thread(futex()), other), python=(stack,), health=FAILING))

    def test_an_event_that_another_request_may_set(self):
        """A thread that waits for news, beside one that takes requests, may be woken by the next: no more than possible."""
        threads = (thread(on("accept4", 4)), thread(futex(), 101))
        stack = stacks(("serve agent.py:30",), (*WAITS_FOR_LOCK, "poll agent.py:18"))
        look = seen(process(*threads, descriptors=(descriptor(5, 21),)), python=(stack,), sockets=(request(),))
        calm(look)
        assert [each.cause for each in diagnose(look).findings] == ["hang/deadlock"]

    def test_idle_workers_are_no_deadlock(self):
        """The workers of a pool wait for work without end, whatever else is wrong."""
        threads = (thread(futex()), thread(futex(), 101))
        calm(seen(process(*threads), python=(stacks(IDLE_WORKER, IDLE_WORKER),)))


class TestEventLoopBlocked:
    """hang/event-loop-blocked."""

    def test_by_sleeping(self):
        """time.sleep in a callback while a request is unanswered names the line, and beats every other cause."""
        stack = stacks(("back_off agent.py:10", "answer agent.py:15", *IN_CALLBACK))
        found = hang(
            seen(process(thread(sleep(600)), descriptors=ASYNC_SERVER), python=(stack,), sockets=(listening(), request()))
        )
        assert (found.cause, found.confidence) == ("hang/event-loop-blocked", "likely")
        assert found.culprit == "time.sleep at agent.py:10 in back_off"
        assert {"thread-waits", "python-threads", "sockets"} <= set(found.cites)

    @pytest.mark.parametrize(
        "outstanding",
        [
            {"sockets": (listening(waiting=3),)},
            {"sockets": (listening(waiting=3, since_s=None),)},
            {"sockets": (listening(), request(receive_queue=200))},
            {"health": FAILING},
            {"progress": OVERDUE},
        ],
        ids=["backlog", "backlog at the first look", "unread", "health", "progress"],
    )
    def test_somebody_waits(self, outstanding):
        """Connections that are not accepted, bytes that are not read, and the owner's probes are each the second sign."""
        stack = stacks(("fetch agent.py:10", *IN_CALLBACK))
        assert (
            hang(seen(process(thread(futex()), descriptors=ASYNC_SERVER), python=(stack,), **outstanding)).cause
            == "hang/event-loop-blocked"
        )

    def test_nobody_waits(self):
        """A callback that blocks a loop for which nobody waits is one sign only."""
        stack = stacks(("back_off agent.py:10", *IN_CALLBACK))
        why = calm(seen(process(thread(sleep(600)), descriptors=ASYNC_SERVER), python=(stack,), sockets=(listening(),)))
        assert "only one sign" in why["event-loop-blocked"]

    def test_by_computing(self):
        """A callback that computes without end is the event loop's, not a spin, though its instructions are few."""
        stack = stacks(("checksum agent.py:8", "answer agent.py:14", *IN_CALLBACK))
        look = seen(
            process(running(), descriptors=ASYNC_SERVER),
            python=(stack,),
            sockets=(listening(), request()),
            profile=SyscallProfile(seconds=2.5, calls=()),
            samples=(tight("_PyEval_EvalFrameDefault+0x0 (python3.11)", line="checksum (/srv/agent.py:8)"),),
        )
        found = hang(look)
        assert found.cause == "hang/event-loop-blocked"
        assert "agent.py:8" in found.culprit

    def test_by_a_peer_without_time_out(self):
        """A blocking read in a callback is both; the line that blocks the loop is what to change."""
        stack = stacks(("read lib:socket.py:700", "getresponse lib:http/client.py:1390", "ask agent.py:12", *IN_CALLBACK))
        sockets = (listening(waiting=2), client())
        found = hang(
            seen(process(thread(recv()), descriptors=(*ASYNC_SERVER, descriptor(3, 30))), python=(stack,), sockets=sockets)
        )
        assert found.cause == "hang/event-loop-blocked"
        assert "agent.py:12" in found.culprit

    def test_a_busy_server_that_comes_round(self):
        """A loop that uses a whole CPU but polls for events while it is traced gets on."""
        stack = stacks(("answer agent.py:14", *IN_CALLBACK))
        turns = SyscallProfile(seconds=2.5, calls=(CallCount(pid=AGENT, name="epoll_wait", error=None, count=400),))
        look = seen(
            process(running(), descriptors=ASYNC_SERVER), python=(stack,), sockets=(listening(waiting=1),), profile=turns
        )
        assert "came round 400 times" in calm(look)["event-loop-blocked"]

    def test_too_short(self):
        """Two seconds in a callback are within patience."""
        stack = stacks(("back_off agent.py:10", *IN_CALLBACK))
        look = seen(
            process(thread(sleep(3), for_s=2), descriptors=ASYNC_SERVER), python=(stack,), sockets=(listening(waiting=2),)
        )
        assert "for 2 s only" in calm(look)["event-loop-blocked"]

    def test_work_in_an_executor(self):
        """A loop that waits for events while a worker thread has a job works as it should."""
        threads = (thread(epoll()), thread(sleep(10), 101))
        job = ("run lib:concurrent/futures/thread.py:58", *IDLE_WORKER)
        look = seen(
            process(*threads, descriptors=ASYNC_SERVER),
            python=(stacks(IDLE_LOOP, job, tasks=(task("answer agent.py:12", "to_thread lib:asyncio/threads.py:25"),)),),
            sockets=(listening(), request()),
        )
        assert "has a job" in calm(look)["event-loop-stalled"]

    def test_node(self):
        """Node's main thread computes while a client waits: its JavaScript blocks the loop."""
        node = process(
            running(), thread(futex(), 101), comm="node", argv=("/usr/bin/node", "agent.js"), descriptors=ASYNC_SERVER
        )
        found = hang(seen(node, sockets=(listening(), request()), profile=SyscallProfile(seconds=2.5, calls=())))
        assert found.cause == "hang/event-loop-blocked"
        assert "node" in found.culprit

    def test_a_starved_loop_is_not_blocked(self):
        """A runnable thread that gets a hundredth of a CPU does not block its loop: it is throttled."""
        stack = stacks(("answer agent.py:14", *IN_CALLBACK))
        look = seen(
            process(running(cpu=0.01, busy=1.0, for_s=0.5), descriptors=ASYNC_SERVER),
            python=(stack,),
            sockets=(listening(waiting=1),),
        )
        assert "event-loop-blocked" in calm(look)


class TestEventLoopStalled:
    """hang/event-loop-stalled."""

    @staticmethod
    def look(*tasks: Any, **more: Any) -> Any:
        """An asyncio server that idles with one unanswered request."""
        threads = more.pop("threads", (thread(epoll(more.pop("timeout_s", None))),))
        facts: dict[str, Any] = {"sockets": (listening(), request()), "python": (stacks(IDLE_LOOP, tasks=tasks or None),)}
        return seen(process(*threads, descriptors=ASYNC_SERVER), **(facts | more))

    @pytest.mark.parametrize("awaits", ["Lock", "Event", "Future"])
    def test_a_task_waits_for_something_of_its_own(self, awaits):
        """An unanswered request and a task that awaits a lock, event or future: the task's line is the culprit."""
        found = hang(self.look(task("answer agent.py:17", "result agent.py:12", awaits=awaits)))
        assert (found.cause, found.confidence) == ("hang/event-loop-stalled", "likely")
        assert "agent.py:12 in result" in found.culprit
        assert "127.0.0.1:51000" in found.culprit
        assert {"thread-waits", "sockets", "async-tasks"} <= set(found.cites)

    def test_a_client_that_waits(self):
        """Without tasks, a client on this machine that waits for the answer is the second sign."""
        found = hang(self.look())
        assert found.cause == "hang/event-loop-stalled"
        assert "127.0.0.1:51000" in found.culprit

    def test_node_with_its_own_timer(self):
        """A Node server wakes every half minute for its own sake; that timer answers nobody."""
        node = process(thread(epoll(29.5)), comm="node", argv=("node", "agent.js"), descriptors=ASYNC_SERVER)
        assert hang(seen(node, sockets=(listening(), request()))).cause == "hang/event-loop-stalled"

    @pytest.mark.parametrize("more", [{"health": FAILING}, {"progress": OVERDUE}])
    def test_a_probe_that_fails(self, more):
        """A remote client and no tasks: the owner's probe is the second sign."""
        found = hang(self.look(sockets=(listening(), request(peer_holder=None)), **more))
        assert found.cause == "hang/event-loop-stalled"

    def test_messages_that_need_no_answer(self):
        """A remote client, no tasks, no probe: the protocol may need no answer."""
        why = calm(self.look(sockets=(listening(), request(peer_holder=None))))
        assert "only one sign" in why["event-loop-stalled"]

    def test_a_client_that_does_something_else(self):
        """A client of this machine that is not waiting at the connection wants no answer: it ships its log."""
        shipper = holder(900, "shipper", waits=False)
        assert "only one sign" in calm(self.look(sockets=(listening(), request(peer_holder=shipper))))["event-loop-stalled"]

    def test_every_connection_has_its_reader(self):
        """A collector of messages whose tasks all read from their connections owes nobody, though its consumer awaits a queue."""
        reads = task("collect agent.py:9", "readline lib:asyncio/streams.py:540")
        consumer = task("store agent.py:20", "get lib:asyncio/queues.py:158")
        look = self.look(reads, consumer, sockets=(listening(), request(peer_holder=holder(900, waits=False))))
        assert "event-loop-stalled" in calm(look)

    def test_an_answer_behind_a_timer(self):
        """A task that sleeps will answer: the loop has a timer for that."""
        assert (
            "timer"
            in calm(self.look(task("answer agent.py:12", "sleep lib:asyncio/tasks.py:639", awaits="sleep"), timeout_s=18.0))[
                "event-loop-stalled"
            ]
        )

    def test_an_answer_behind_another_server(self):
        """A request that waits for a model or a database is not stalled: the program waits for that."""
        descriptors = (loop_set(4, 5, 3), descriptor(4, 20), descriptor(5, 21), descriptor(3, 30))
        look = seen(
            process(thread(epoll(timeout_s=30.0)), descriptors=descriptors),
            python=(stacks(IDLE_LOOP),),
            sockets=(listening(), request(), client()),
        )
        assert "it waits for 10.0.0.5:5432 itself" in calm(look)["event-loop-stalled"]

    def test_answered_and_kept_open(self):
        """A connection whose request was answered owes nothing."""
        why = calm(self.look(sockets=(listening(), request(answered_ago_s=39.9))))
        assert "no request has waited long" in why["event-loop-stalled"]

    def test_the_programs_own_wait_for_its_end(self):
        """The first task often waits for an event that ends the program; that is no sign of a stalled request."""
        main = task("main agent.py:40", "wait lib:asyncio/locks.py:213", awaits="Event", name="Task-1")
        look = self.look(main, sockets=(listening(), request(peer_holder=None)))
        assert "only one sign" in calm(look)["event-loop-stalled"]

    def test_beside_a_tool_that_works(self):
        """An answer that needs a tool which works takes its time."""
        look = seen(
            process(thread(epoll()), descriptors=ASYNC_SERVER),
            tool(running(200), command="cargo test"),
            sockets=(listening(), request()),
            python=(stacks(IDLE_LOOP),),
        )
        assert "works" in calm(look)["event-loop-stalled"]


def tight(*places: str, line: str = "", samples: int = 50, span: int | None = 8, repeated: float | None = 0.95) -> StackSamples:
    """A thread found in these places only, `line` its Python line each time, and its registers the same again."""
    share = samples // len(places)
    return StackSamples(
        pid=AGENT, tid=AGENT, samples=samples, places=tuple(SampledPlace(place=place, count=share) for place in places),
        span_bytes=span if len(places) == 1 else None, python_lines=(line,) * 5 if line else (), repeated_share=repeated,
    )  # fmt: skip


NO_CALLS = SyscallProfile(seconds=2.5, calls=())


class TestSpin:
    """hang/spin."""

    def test_in_c(self):
        """A loop of a few bytes without a system call names its function."""
        look = seen(
            process(running(), comm="agent", argv=("/opt/agent",)),
            profile=NO_CALLS,
            samples=(tight("wait_until_done+0x4 (agent)"),),
        )
        found = hang(look)
        assert (found.cause, found.confidence) == ("hang/spin", "likely")
        assert "wait_until_done" in found.culprit
        assert {"syscall-profile", "stack-samples"} <= set(found.cites)

    def test_in_python(self):
        """One line of Python, in the interpreter's own loop each time, names that line."""
        sampled = tight("_PyEval_EvalFrameDefault+0x1a2 (python3.11)", line="wait_until_done (/srv/agent.py:10)", span=20_000)
        found = hang(
            seen(process(running()), python=(stacks(("wait_until_done agent.py:10",)),), profile=NO_CALLS, samples=(sampled,))
        )
        assert found.cause == "hang/spin"
        assert "agent.py:10" in found.culprit

    @pytest.mark.parametrize(
        "clock", [(), ("clock_gettime", "gettimeofday")], ids=["a clock in the vdso", "a clock in the kernel"]
    )
    def test_with_the_interpreter_lock(self, clock):
        """An extension that keeps the GIL while bytes lie unread: whoever should read them wants the lock and does not get it."""
        threads = (running(), thread(futex(timeout_s=0.005), 101))
        stack = stacks(("crunch_all agent.py:24",), ("answer agent.py:14",), gil=AGENT)
        asked = tuple(CallCount(pid=AGENT, name=name, error=None, count=500) for name in clock)
        calls = SyscallProfile(seconds=2.5, calls=(CallCount(pid=AGENT, name="futex", error="ETIMEDOUT", count=500), *asked))
        sampled = StackSamples(
            pid=AGENT, tid=AGENT, samples=50, span_bytes=900,
            places=tuple(SampledPlace(place=f"crunch+{at:#x} (native.so)", count=10) for at in range(5)),
        )  # fmt: skip
        look = seen(
            process(*threads, descriptors=(descriptor(4, 20), descriptor(5, 21))),
            python=(stack,), sockets=(listening(), request(receive_queue=60)), profile=calls, samples=(sampled,),
        )  # fmt: skip
        found = hang(look)
        assert found.cause == "hang/spin"
        assert "crunch" in found.culprit
        assert "GIL" in found.headline
        assert "sockets" in found.cites

    def test_repeating_itself(self):
        """The same registers at the same instructions, however many those are: it only looks."""
        sampled = tight(*(f"check_{at} (agent)" for at in range(5)), repeated=0.9, samples=200)
        assert hang(seen(process(running()), profile=NO_CALLS, samples=(sampled,))).cause == "hang/spin"

    def test_on_a_crowded_machine(self):
        """A thread that gets a third of a CPU, because others want it too, spins all the same."""
        look = seen(process(running(cpu=0.3, busy=1.0)), profile=NO_CALLS, samples=(tight("wait_until_done+0x4 (agent)"),))
        assert hang(look).cause == "hang/spin"

    def test_diagnosed_late(self):
        """Nobody watched before: how long it has spun is told as "at least"."""
        look = seen(
            process(running(for_s=0.1)), watched=False, profile=NO_CALLS, samples=(tight("wait_until_done+0x4 (agent)"),)
        )
        assert "at least 2 s" in hang(look).headline

    @pytest.mark.parametrize(
        ("profile", "sampled"),
        [
            (NO_CALLS, StackSamples(pid=AGENT, tid=AGENT, samples=50, span_bytes=None, places=tuple(
                SampledPlace(place=f"float_{name} (python3.11)", count=10) for name in ("mul", "add", "new", "dealloc", "sub")))),
            (NO_CALLS, tight("multiply+0x20 (native.so)", span=420, repeated=0.0)),
            (NO_CALLS, tight("dgemm_kernel (libopenblas.so)", line="forward (/srv/agent.py:12)", span=4096, repeated=0.1)),
            (NO_CALLS, tight("gc_collect_main (python3.11)", "visit_decref (python3.11)", line="<module> (/srv/agent.py:12)", repeated=0.0)),
            (SyscallProfile(seconds=2.5, calls=(CallCount(pid=AGENT, name="read", error=None, count=900),)), tight("poll (agent)")),
            (SyscallProfile(seconds=2.5, calls=(), written_bytes={AGENT: 800}), tight("poll (agent)")),
            (NO_CALLS, tight("wait_until_done (agent)", samples=12, repeated=None)),
            (NO_CALLS, tight("mandelbrot (agent)", repeated=0.05)),
        ],
        ids=["training", "a loop that computes", "matrix kernel", "garbage collection", "reads files", "writes output", "too few samples", "new values each time"],
    )  # fmt: skip
    def test_computing_is_no_spin(self, profile, sampled):
        """Code that computes at many places or in long loops, makes calls or writes, gets on, as far as anybody can tell."""
        calm(seen(process(running()), profile=profile, samples=(sampled,)))

    def test_too_short(self):
        """Watched, and busy for two seconds only."""
        assert (
            "for 2 s only" in calm(seen(process(running(for_s=2.0)), profile=NO_CALLS, samples=(tight("f (agent)"),)))["spin"]
        )

    def test_lately_wrote_output(self):
        """Output a moment ago is a sign of life."""
        look = seen(process(running()), profile=NO_CALLS, samples=(tight("f (agent)"),), output_ago_s=1.0)
        assert "wrote output" in calm(look)["spin"]


class TestPoolExhausted:
    """hang/pool-exhausted."""

    idle = (client(30, received_ago_s=39.0), client(31, received_ago_s=39.0))
    held = (descriptor(3, 30), descriptor(4, 31))
    waiting = (*WAITS_FOR_LOCK, "checkout agent.py:9", "ask agent.py:13")

    def test_threads_at_the_pool(self):
        """Threads that wait in a pool's function while all its connections are idle; the culprit names line, number and peer."""
        threads = (thread(futex()), thread(futex(), 101), thread(futex(), 102))
        stack = stacks(("join lib:threading.py:1100",), self.waiting, self.waiting)
        found = hang(seen(process(*threads, descriptors=self.held), python=(stack,), sockets=self.idle))
        assert (found.cause, found.confidence) == ("hang/pool-exhausted", "likely")
        assert "agent.py:9 in checkout: 2 threads wait" in found.culprit
        assert "2 connections to 10.0.0.5:5432 sit idle" in found.culprit

    @pytest.mark.parametrize(
        "stack",
        [
            ("wait lib:threading.py:320", "get lib:queue.py:171", "_get_conn /v/site-packages/urllib3/connectionpool.py:257", "ask agent.py:3"),
            ("wait lib:threading.py:320", "_do_get /v/site-packages/sqlalchemy/pool/impl.py:166", "ask agent.py:3"),
            ("acquire lib:threading.py:468", "get_connection agent.py:18", "__enter__ lib:contextlib.py:137", "transaction agent.py:33"),
        ],
    )  # fmt: skip
    def test_pools_of_all_kinds(self, stack):
        """Pools of libraries and of the program's own are known by their functions; the own caller is named."""
        found = hang(seen(process(thread(futex()), descriptors=self.held), python=(stacks(stack),), sockets=self.idle))
        assert found.cause == "hang/pool-exhausted"
        assert "agent.py:" in found.culprit

    def test_tasks_at_the_pool(self):
        """An asyncio task at the pool's door, its loop idle without a timer."""
        waits = task("ask agent.py:12", "acquire /v/site-packages/asyncpg/pool.py:840", "get lib:asyncio/queues.py:158")
        look = seen(
            process(thread(epoll()), descriptors=(loop_set(3, 4), *self.held)),
            python=(stacks(IDLE_LOOP, tasks=(waits,)),), sockets=self.idle,
        )  # fmt: skip
        found = hang(look)
        assert found.cause == "hang/pool-exhausted"
        assert "async-tasks" in found.cites

    @pytest.mark.parametrize("received_ago_s", [None, 8.0], ids=["asked", "asked within a millisecond of the last answer"])
    def test_connections_that_are_busy_come_back(self, received_ago_s):
        """One connection with a question outstanding, or with a thread that reads from it: the pool is only busy."""
        threads = (thread(futex()), thread(recv(4, 30.0), 101))
        stack = stacks(self.waiting, ("ask agent.py:14",))
        used = client(31, sent_ago_s=8, received_ago_s=received_ago_s)
        look = seen(process(*threads, descriptors=self.held), python=(stack,), sockets=(self.idle[0], used))
        assert "in use" in calm(look)["pool-exhausted"]

    @pytest.mark.parametrize(
        ("threads", "stack", "sockets"),
        [
            ((thread(futex(timeout_s=30.0)),), waiting, idle),
            ((thread(futex(), for_s=2.0),), waiting, idle),
            ((thread(futex()),), (*WAITS_FOR_LOCK, "jobs agent.py:9"), idle),
            ((thread(futex()),), IDLE_WORKER, idle),
            ((thread(futex()),), ("wait lib:threading.py:320", "get lib:multiprocessing/pool.py:768", "<module> agent.py:9"), idle),
            ((thread(futex()),), waiting, ()),
            ((thread(futex()), running(101)), waiting, idle),
        ],
        ids=["a time-out", "too short", "a queue of jobs", "an idle worker", "a pool of workers", "no connection", "a thread works"],
    )  # fmt: skip
    def test_what_looks_like_a_pool(self, threads, stack, sockets):
        """Bounded or short waits, queues of work, pools of workers and pools without a connection are not exhausted."""
        look = seen(process(*threads, descriptors=self.held), python=(stacks(stack),), sockets=sockets)
        assert "pool-exhausted" in calm(look)


class TestStuckConnect:
    """hang/stuck-connect."""

    trying = client(30, sent_ago_s=None, state="syn-sent", retransmits=4, unacknowledged_ms=15_000, peer="10.99.0.9:5432")

    def test_a_thread_in_connect(self):
        """A request that was repeated, and a thread without time-out in connect(2): the peer is named."""
        stack = stacks(("create_connection lib:socket.py:833", "<module> agent.py:9"))
        look = seen(
            process(thread(on("connect", 3)), descriptors=(descriptor(3, 30),)), sockets=(self.trying,), python=(stack,)
        )
        found = hang(look)
        assert (found.cause, found.confidence) == ("hang/stuck-connect", "likely")
        assert "10.99.0.9:5432" in found.culprit
        assert "agent.py:9" in found.headline

    def test_an_event_loop(self):
        """A loop that has nothing else to do than this connection."""
        look = seen(
            process(thread(epoll()), descriptors=(loop_set(3), descriptor(3, 30))),
            sockets=(self.trying,),
            python=(stacks(IDLE_LOOP, tasks=(task("main agent.py:9", "sock_connect lib:asyncio/selector_events.py:634"),)),),
        )
        assert hang(look).cause == "hang/stuck-connect"

    @pytest.mark.parametrize(
        ("call", "for_s", "repeats"),
        [(on("poll", 3, timeout_s=10.0), 40, 4), (on("connect", 3), 2, 1), (on("connect", 3), 40, 1)],
        ids=["a time-out of ten seconds", "just begun", "repeated once"],
    )
    def test_a_connection_that_may_come(self, call, for_s, repeats):
        """A short time-out of its own ends the wait; one repeat may be a lost packet."""
        trying = client(30, sent_ago_s=None, state="syn-sent", retransmits=repeats)
        look = seen(process(thread(call, for_s=for_s), descriptors=(descriptor(3, 30),)), sockets=(trying,))
        assert "stuck-connect" in calm(look)


ONE_SOCKET = (descriptor(3, 30),)
HTTP = ("recv_into lib:socket.py:706", "readinto lib:http/client.py:482", "read lib:http/client.py:465", "<module> agent.py:12")


class TestStuckIo:
    """hang/stuck-io."""

    def test_never_answered(self):
        """Asked, not a byte since, and no time-out: the peer, for how long, and the line."""
        look = seen(
            process(thread(recv()), descriptors=ONE_SOCKET), sockets=(client(),), python=(stacks(("<module> agent.py:11",)),)
        )
        found = hang(look)
        assert (found.cause, found.confidence) == ("hang/stuck-io", "likely")
        assert found.culprit == "10.0.0.5:5432 has not answered for 40 s, and the wait has no time-out"
        assert "agent.py:11" in found.headline

    def test_from_an_event_loop(self):
        """A loop without a timer that waits for just this answer, named by its task."""
        asks = task("main agent.py:12", "readuntil lib:asyncio/streams.py:630")
        look = seen(
            process(thread(epoll()), descriptors=(loop_set(3), *ONE_SOCKET)), sockets=(client(),),
            python=(stacks(IDLE_LOOP, tasks=(asks,)),),
        )  # fmt: skip
        found = hang(look)
        assert found.cause == "hang/stuck-io"
        assert "agent.py:12 in main" in found.headline

    def test_a_server_whose_own_question_is_unanswered(self):
        """A request that waits for a database which does not answer: the database is to blame."""
        descriptors = (loop_set(4, 5, 3), descriptor(4, 20), descriptor(5, 21), *ONE_SOCKET)
        look = seen(
            process(thread(epoll()), descriptors=descriptors),
            sockets=(listening(), request(), client()),
            python=(stacks(IDLE_LOOP),),
        )
        found = hang(look)
        assert found.cause == "hang/stuck-io"
        assert "10.0.0.5:5432" in found.culprit

    @pytest.mark.parametrize("timeout_s", [None, 600.0])
    def test_half_an_answer(self, timeout_s):
        """An HTTP body that stops, read without time-out or with one of ten minutes."""
        half = client(received_ago_s=39.9)
        look = seen(process(thread(recv(timeout_s=timeout_s)), descriptors=ONE_SOCKET), sockets=(half,), python=(stacks(HTTP),))
        found = hang(look)
        assert found.cause == "hang/stuck-io"
        assert "stopped in the middle of its answer" in found.culprit

    def test_a_stream_of_a_model_that_stalls(self):
        """A token, then nothing: the client's time-out of ten minutes is no excuse."""
        stack = ("poll lib:selectors.py:400", "read /v/site-packages/httpcore/_backends/sync.py:128", "ask agent.py:7")
        half = client(received_ago_s=39.9, peer="127.0.0.1:8000")
        agent = process(thread(on("poll", 3, timeout_s=600.0)), descriptors=ONE_SOCKET, llm_hosts=("127.0.0.1:8000",))
        assert hang(seen(agent, sockets=(half,), python=(stacks(stack),))).cause == "hang/stuck-io"

    def test_the_peer_has_vanished(self):
        """What was sent is repeated and never acknowledged."""
        gone = client(sent_ago_s=1, received_ago_s=500, send_queue=6, retransmits=6, unacknowledged_ms=12_000)
        found = hang(seen(process(thread(recv(), for_s=12), descriptors=ONE_SOCKET), sockets=(gone,)))
        assert found.cause == "hang/stuck-io"
        assert "has vanished: 6 repeats of 6 bytes" in found.culprit

    def test_the_peer_takes_no_more(self):
        """Blocked in sending to a peer across the network that does not read."""
        full = client(sent_ago_s=39, received_ago_s=60, send_queue=2_000_000)
        found = hang(seen(process(thread(on("sendto", 3)), descriptors=ONE_SOCKET), sockets=(full,)))
        assert found.cause == "hang/stuck-io"
        assert "does not read what is sent to it" in found.culprit

    def test_closed_and_unread(self):
        """The answer lies there, and its reader waits for a queue that nobody empties; both are named."""
        closed = client(received_ago_s=39.9, state="close-wait", receive_queue=1900)
        threads = (thread(futex()), thread(futex(), 101))
        stack = stacks(
            ("_wait_for_tstate_lock lib:threading.py:1100",),
            ("wait lib:threading.py:320", "put lib:queue.py:140", "read agent.py:12"),
        )
        found = hang(seen(process(*threads, descriptors=ONE_SOCKET), sockets=(closed,), python=(stack,)))
        assert found.cause == "hang/stuck-io"
        assert "10.0.0.5:5432" in found.culprit
        assert "agent.py:12" in found.culprit

    def test_a_daemon_behind_a_unix_socket(self):
        """The process behind a path is named; whether it was asked the kernel does not tell."""
        unix = client(
            sent_ago_s=None, kind="unix", family="unix", local="", peer="/run/daemon.sock", peer_holder=holder(900, "dockerd")
        )
        found = hang(
            seen(process(thread(recv()), descriptors=ONE_SOCKET), sockets=(unix,), python=(stacks(("<module> agent.py:9",)),))
        )
        assert found.cause == "hang/stuck-io"
        assert "/run/daemon.sock (dockerd (pid 900))" in found.culprit

    def test_a_fifo_that_nobody_opens(self):
        """open(2) of a FIFO waits for the other end."""
        found = hang(seen(process(thread(on("openat", path="/srv/inbox.fifo")))))
        assert found.cause == "hang/stuck-io"
        assert "inbox.fifo" in found.culprit

    def test_a_pipe_of_its_own(self):
        """A pipe that only the reader itself has open for writing never ends: certain."""
        own = pipe(readers=(holder(AGENT),), writers=(holder(AGENT),))
        look = seen(process(thread(on("read", 5)), descriptors=(descriptor(5, 40, "pipe", "r"),)), pipes=(own,))
        found = hang(look)
        assert found.cause == "hang/stuck-io"
        assert "pipe without a writer" in found.culprit

    @pytest.mark.parametrize(
        ("call", "socket", "more"),
        [
            (recv(timeout_s=90.0), client(sent_ago_s=20), {}),
            (recv(timeout_s=30.0), client(received_ago_s=39.9), {}),
            (recv(), client(sent_ago_s=2, received_ago_s=500), {"for_s": 2.0}),
            (recv(), client(received_ago_s=2), {"for_s": 2.0}),
            (on("poll", 3, timeout_s=1.0), client(), {}),
            (sleep(), client(received_ago_s=39.9), {}),
        ],
        ids=["a long poll", "half, with a time-out", "just asked", "bytes trickle in", "looks every second", "kept for later"],
    )
    def test_bytes_that_may_come(self, call, socket, more):
        """Waits with a time-out of their own, short ones, trickling answers and idle connections are no hang."""
        look = seen(process(thread(call, **more), descriptors=ONE_SOCKET), sockets=(socket,), python=(stacks(HTTP),))
        assert "stuck-io" in calm(look)

    @pytest.mark.parametrize("asked_s", [25.0, 170.0, 200.0])
    def test_a_model_may_think(self, asked_s):
        """A model has three minutes to begin its answer, whatever the patience; then it counts as silent."""
        model = client(sent_ago_s=asked_s, peer="127.0.0.1:8000")
        agent = process(thread(recv(), for_s=asked_s), descriptors=ONE_SOCKET, llm_hosts=("127.0.0.1:8000",))
        look = seen(agent, sockets=(model,), python=(stacks(HTTP),))
        if asked_s < 180:
            assert "that a model may take" in calm(look)["stuck-io"]
        else:
            assert hang(look).cause == "hang/stuck-io"

    def test_what_tls_sends_is_no_answer(self):
        """Bytes on an encrypted connection may be the protocol's own: a model behind it may still think."""
        stack = ("read lib:ssl.py:1166", "recv_into lib:ssl.py:1311", *HTTP[1:])
        model = client(received_ago_s=39.8, peer="160.79.104.10:443")
        look = seen(process(thread(recv(timeout_s=600.0)), descriptors=ONE_SOCKET), sockets=(model,), python=(stacks(stack),))
        assert "stuck-io" in calm(look)

    @pytest.mark.parametrize(
        "function", ["listen /v/site-packages/redis/client.py:800", "recv /v/site-packages/websocket/_core.py:388"]
    )
    def test_a_subscription_waits_for_news(self, function):
        """A subscriber or a web socket waits for what may never come, by design."""
        stack = (HTTP[0], function, "<module> agent.py:12")
        look = seen(
            process(thread(recv()), descriptors=ONE_SOCKET), sockets=(client(received_ago_s=39.9),), python=(stacks(stack),)
        )
        assert "stuck-io" in calm(look)

    def test_a_plain_read_after_an_answer_is_only_possible(self):
        """Half an answer and news that do not come look alike, where no frame tells which: no incident."""
        look = seen(process(thread(recv()), descriptors=ONE_SOCKET), sockets=(client(received_ago_s=39.9),))
        calm(look)
        assert [(each.cause, each.confidence) for each in diagnose(look).findings] == [("hang/stuck-io", "possible")]

    def test_another_thread_goes_on(self):
        """A process that works besides is not hung as a whole."""
        look = seen(process(thread(recv()), running(101, cpu=0.3), descriptors=ONE_SOCKET), sockets=(client(),))
        assert "goes on meanwhile" in calm(look)["stuck-io"]

    def test_a_farewell_that_nobody_reads(self):
        """A pooled connection closed by the server, with an alert of TLS unread, is the ordinary end of an idle one."""
        closed = client(received_ago_s=39.9, state="close-wait", receive_queue=32)
        assert "stuck-io" in calm(
            seen(process(thread(futex()), descriptors=ONE_SOCKET), sockets=(closed,), python=(stacks(("f agent.py:1",)),))
        )

    @pytest.mark.parametrize("others", [{"writers": (holder(900, "feeder"),)}, {"writers": ()}])
    def test_a_pipe_that_somebody_may_write(self, others):
        """A writer elsewhere, or one that cannot be seen, may write."""
        look = seen(process(thread(on("read", 5)), descriptors=(descriptor(5, 40, "pipe", "r"),)), pipes=(pipe(**others),))
        assert "stuck-io" in calm(look)

    def test_a_pipe_for_waking_itself(self):
        """A thread that reads a pipe which another thread of it writes waits for that one."""
        own = pipe(readers=(holder(AGENT),), writers=(holder(AGENT),))
        threads = (thread(sleep()), thread(on("read", 5), 101))
        look = seen(process(*threads, descriptors=(descriptor(5, 40, "pipe", "r"),)), pipes=(own,))
        assert "another thread of it" in calm(look)["stuck-io"]


class TestPipeFull:
    """hang/pipe-full."""

    full = {"held_bytes": 65536}

    def look(self, *processes: Any, reader: Any, writer: int = AGENT, call: Any = None, **more: Any) -> Any:
        """The agent, or a tool of it, blocked in writing to a full pipe."""
        agent = process(thread(call or on("write", 1)), descriptors=(descriptor(1, 40, "pipe", "w"),))
        facts = self.full | more
        found = pipe(readers=() if reader is None else (reader,), writers=(holder(writer),), **facts)
        return seen(*(processes or (agent,)), pipes=(found,))

    def test_its_output(self):
        """Standard output goes to a process that has stopped reading: certain, and it is named."""
        found = hang(self.look(reader=holder(812, "supervisor")))
        assert (found.cause, found.confidence) == ("hang/pipe-full", "certain")
        assert found.culprit.startswith("supervisor (pid 812) does not read a pipe")

    def test_a_tools_input(self):
        """The agent feeds a tool that never reads."""
        agent = process(thread(on("write", 6)), descriptors=(descriptor(6, 40, "pipe", "w"),))
        found = hang(self.look(agent, tool(command="sleep 90"), reader=holder(200, "sleep")))
        assert found.cause == "hang/pipe-full"
        assert "sleep (pid 200)" in found.culprit

    def test_waiting_without_reading(self):
        """A tool at the full pipe that its agent should read, while the agent waits for it to end: the agent is to blame."""
        agent = process(thread(wait4(200)), descriptors=(descriptor(5, 40, "pipe", "r"),))
        child = tool(thread(on("write", 1), 200), command="make", descriptors=(descriptor(1, 40, "pipe", "w"),))
        stack = stacks(("wait lib:subprocess.py:1264", "<module> agent.py:10"))
        look = self.look(agent, child, reader=holder(AGENT, "python3"), writer=200)
        found = hang(type(look)(**{name: getattr(look, name) for name in look.__struct_fields__} | {"python": (stack,)}))
        assert (found.cause, found.confidence) == ("hang/pipe-full", "certain")
        assert "python3 (pid 100)" in found.culprit
        assert "agent.py:10" in found.culprit
        assert "communicate()" in found.advice[0]

    def test_a_unix_socket(self):
        """A local daemon that does not read."""
        unix = client(
            kind="unix",
            family="unix",
            sent_ago_s=None,
            peer="/run/log.sock",
            send_queue=212_000,
            peer_holder=holder(900, "logd"),
        )
        found = hang(seen(process(thread(on("sendmsg", 3)), descriptors=ONE_SOCKET), sockets=(unix,)))
        assert found.cause == "hang/pipe-full"
        assert "logd (pid 900)" in found.culprit

    @pytest.mark.parametrize(
        ("reader", "more"),
        [
            (holder(812, "less"), {}),
            (holder(812, "gzip", "R"), {}),
            (holder(812, "gzip"), {"held_bytes": 4096}),
            (holder(812, "gzip"), {"call": on("write", 1, timeout_s=3.0)}),
        ],
        ids=["a pager", "a reader that works", "room in the pipe", "a time-out"],
    )
    def test_a_reader_that_may_read(self, reader, more):
        """A person at a pager, a reader at work, a pipe with room and a bounded write are no hang."""
        assert "pipe-full" in calm(self.look(reader=reader, **more))

    def test_a_slow_reader(self):
        """Blocked for two seconds only, as whoever feeds a slow reader is most of the time."""
        agent = process(thread(on("write", 1), for_s=2.0), descriptors=(descriptor(1, 40, "pipe", "w"),))
        assert "pipe-full" in calm(self.look(agent, reader=holder(812, "gzip")))

    def test_a_reader_in_the_tree_that_works(self):
        """The tool is at work on what it was given."""
        agent = process(thread(on("write", 6)), descriptors=(descriptor(6, 40, "pipe", "w"),))
        look = self.look(agent, tool(running(200, cpu=0.5), command="gzip"), reader=holder(200, "gzip"))
        assert "works" in calm(look)["pipe-full"]

    def test_a_pipeline_of_tools(self):
        """A tool waits for the next one of a pipeline: the agent waits for both, and the second is what matters."""
        shell = process(thread(wait4()), comm="bash", argv=("bash", "run.sh"))
        first = tool(thread(on("write", 1), 200), command="yes", descriptors=(descriptor(1, 40, "pipe", "w"),))
        second = tool(thread(sleep(30), 201), pid=201, command="sleep 30")
        assert "waits for both" in calm(self.look(shell, first, second, reader=holder(201, "sleep"), writer=200))["pipe-full"]


class TestChildWait:
    """hang/child-wait."""

    @staticmethod
    def look(*below: Any, call: Any = None, **more: Any) -> Any:
        """An agent that waits for a tool."""
        stack = stacks(("_try_wait lib:subprocess.py:2005", "run lib:subprocess.py:550", "<module> agent.py:10"))
        descriptors = more.pop("descriptors", ())
        return seen(process(thread(call or wait4(200)), descriptors=descriptors), *below, python=(stack,), **more)

    def test_a_tool_at_a_fifo(self):
        """The tool waits for somebody to open its FIFO; it is named, and the line that waits for it."""
        found = hang(self.look(tool(thread(on("openat", path="jobs.fifo"), 200))))
        assert (found.cause, found.confidence) == ("hang/child-wait", "likely")
        assert found.culprit == "tool `cat jobs.fifo` (pid 200) waits for somebody to open jobs.fifo"
        assert "agent.py:10" in found.headline
        assert {"thread-waits", "children"} <= set(found.cites)

    def test_below_a_shell(self):
        """The innermost process is what hangs."""
        shell = tool(thread(wait4(), 200), command="bash -c cat")
        found = hang(self.look(shell, tool(thread(on("openat", path="jobs.fifo"), 201), pid=201, ppid=200)))
        assert "`cat jobs.fifo` (pid 201)" in found.culprit
        assert "through `bash -c cat` (pid 200)" in found.headline

    @pytest.mark.parametrize(
        ("threads", "says"),
        [
            ((thread(None, 200, state="T"),), "is stopped by a signal"),
            ((thread(futex(), 200), thread(futex(), 201)), "waits for a lock that nobody is left to release"),
            ((thread(sleep(86_400), 200),), "sleeps for 24.0 h"),
        ],
        ids=["stopped", "locked", "sleeps for a day"],
    )
    def test_ways_to_be_stuck(self, threads, says):
        """A stopped tool, one all of whose threads wait for locks, and one that sleeps for a day."""
        assert says in hang(self.look(tool(*threads, command="job"))).culprit

    def test_a_tool_without_an_answer(self):
        """The tool asked a server that does not answer, without time-out."""
        child = tool(thread(recv(), 200), command="psql", descriptors=ONE_SOCKET)
        found = hang(self.look(child, sockets=(client(),)))
        assert found.cause == "hang/child-wait"
        assert "10.0.0.5:5432" in found.culprit

    def test_input_that_never_ends(self):
        """The tool reads its input, whose other end the agent has open while it waits for the tool to end."""
        child = tool(thread(on("read", 0), 200), command="cat", descriptors=(descriptor(0, 40, "pipe", "r"),))
        inp = pipe(readers=(holder(200, "cat"),), writers=(holder(AGENT),))
        assert "input from the agent" in hang(self.look(child, pipes=(inp,))).culprit

    def test_what_a_tool_left_behind(self):
        """The tool has ended; a process that it started keeps its output open and does nothing."""
        output = pipe(readers=(holder(AGENT),), writers=(holder(201, "sleep"),))
        descriptors = (descriptor(5, 40, "pipe", "r"),)
        ended = process(pid=200, comm="bash", argv=(), ended=True)
        found = hang(self.look(ended, call=on("poll", 5), pipes=(output,), descriptors=descriptors))
        assert found.cause == "hang/child-wait"
        assert "sleep (pid 201) keeps the pipe open" in found.culprit
        works = pipe(readers=(holder(AGENT),), writers=(holder(201, "make", "R"),))
        assert "works" in calm(self.look(ended, call=on("poll", 5), pipes=(works,), descriptors=descriptors))["child-wait"]

    @pytest.mark.parametrize(
        "threads",
        [
            (running(200, cpu=0.3),),
            (thread(on("read", 5), 200, switches_per_s=40.0),),
            (thread(sleep(30), 200),),
            (thread(on("openat", path="jobs.fifo"), 200, for_s=2.0),),
            (thread(on("accept4", 4), 200),),
            (thread(on("read", 0), 200),),
        ],
        ids=["computes", "reads and writes", "sleeps half a minute", "just begun", "serves", "at a terminal"],
    )
    def test_a_tool_that_is_well(self, threads):
        """A tool that works, sleeps for a bounded time, serves, asks a person or has only just begun to wait."""
        descriptors = (
            descriptor(0, 9, "tty", target="/dev/pts/3"),
            descriptor(4, 20),
            descriptor(5, 8, "file", target="/srv/x"),
        )
        assert "child-wait" in calm(self.look(tool(*threads, command="job", descriptors=descriptors), sockets=(listening(),)))

    def test_a_time_out_of_its_own(self):
        """communicate(timeout=...) ends by itself."""
        output = pipe(readers=(holder(AGENT),), writers=(holder(200, "cat"),))
        look = self.look(
            tool(thread(on("openat", path="jobs.fifo"), 200)), call=on("poll", 5, timeout_s=60.0), pipes=(output,),
            descriptors=(descriptor(5, 40, "pipe", "r"),),
        )  # fmt: skip
        assert "its own time-out" in calm(look)["child-wait"]

    def test_a_script_that_sleeps_between_jobs(self):
        """A shell that runs sleep(1) does what it was told, however long."""
        shell = process(thread(wait4()), comm="bash", argv=("bash", "cron.sh"))
        assert "was told" in calm(seen(shell, tool(thread(sleep(86_400), 200), command="sleep 86400")))["child-wait"]

    def test_an_idle_pool_of_processes(self):
        """The workers of a multiprocessing pool wait for work in locks and pipes; its main thread sleeps."""
        results = pipe(readers=(holder(AGENT),), writers=(holder(200, "python3"),))
        handles = (
            "recv lib:multiprocessing/connection.py:250",
            "_handle_results lib:multiprocessing/pool.py:579",
            "run lib:threading.py:975",
        )
        look = seen(
            process(thread(sleep()), thread(on("read", 5), 101), descriptors=(descriptor(5, 40, "pipe", "r"),)),
            process(thread(futex(), 200), pid=200),
            pipes=(results,),
            python=(stacks(("<module> agent.py:12",), handles),),
        )
        assert "child-wait" in calm(look)

    def test_an_idle_server_of_tools(self):
        """An MCP server waits at its input for the next question of the agent, which waits for nothing: idle both."""
        child = tool(thread(on("read", 0), 200), command="mcp-server", descriptors=(descriptor(0, 40, "pipe", "r"),))
        pipes = (
            pipe(40, readers=(holder(200),), writers=(holder(AGENT),)),
            pipe(41, readers=(holder(AGENT),), writers=(holder(200),)),
        )
        look = self.look(child, call=on("read", 5), pipes=pipes, descriptors=(descriptor(5, 41, "pipe", "r"),))
        assert "child-wait" in calm(look)

    def test_a_master_of_idle_workers(self):
        """A prefork master waits for workers that accept connections."""
        look = seen(
            process(thread(wait4())),
            process(thread(on("accept4", 3), 200), pid=200, descriptors=(descriptor(3, 20),)),
            sockets=(listening(),),
        )
        assert "child-wait" in calm(look)

    def test_input_that_comes_from_outside(self):
        """Standard input from an idle process is what a pipeline looks like, not a tool's output."""
        look = self.look(
            call=on("read", 0), pipes=(pipe(writers=(holder(900, "tail"),)),), descriptors=(descriptor(0, 40, "pipe", "r"),)
        )
        assert "child-wait" in calm(look)


def refused(count: int, *others: ConnectCount, **more: Any) -> SyscallProfile:
    """Connections that were refused within 2.5 s."""
    return SyscallProfile(
        seconds=2.5, calls=(), connects=(ConnectCount(pid=AGENT, address="10.0.0.5:5432", error="ECONNREFUSED", count=count), *others), **more
    )  # fmt: skip


def answered(*counts: tuple[int, int], **more: Any) -> SyscallProfile:
    """HTTP answers of these statuses within 2.5 s."""
    return SyscallProfile(
        seconds=2.5, calls=(), statuses=tuple(StatusCount(pid=AGENT, status=status, count=count) for status, count in counts), **more
    )  # fmt: skip


class TestRetryLoop:
    """hang/retry-loop."""

    agent = process(thread(sleep(0.02), for_s=0.01))

    def test_refused(self):
        """The call, its errno and its rate are the culprit, and where it is made."""
        found = hang(
            seen(
                self.agent,
                profile=refused(110),
                python=(stacks(("create_connection lib:socket.py:833", "<module> agent.py:17")),),
            )
        )
        assert (found.cause, found.confidence) == ("hang/retry-loop", "likely")
        assert found.culprit == "connect(10.0.0.5:5432) = ECONNREFUSED, 44/s, from agent.py:17"

    def test_turned_away(self):
        """429 again and again, with the peer that says so."""
        look = seen(
            process(thread(sleep(0.5), for_s=0.2), descriptors=ONE_SOCKET),
            profile=answered((429, 5)), sockets=(client(sent_ago_s=0.2, received_ago_s=0.2),),
        )  # fmt: skip
        found = hang(look)
        assert found.cause == "hang/retry-loop"
        assert "HTTP 429 from 10.0.0.5:5432, 5 times in 2.5 s" in found.culprit

    def test_a_storm_of_any_call(self):
        """A call that fails hundreds of times a second, and is most of what a busy process does."""
        storm = SyscallProfile(seconds=2.0, calls=(CallCount(pid=AGENT, name="sendto", error="ENOBUFS", count=9000),))
        found = hang(seen(process(running()), profile=storm))
        assert found.cause == "hang/retry-loop"
        assert "sendto = ENOBUFS, 4500/s" in found.culprit

    def test_it_may_say_so_each_time(self):
        """A line of log for each failure is no progress."""
        assert hang(seen(self.agent, profile=refused(50, written_bytes={AGENT: 5000}))).cause == "hang/retry-loop"

    def test_names_are_looked_up_each_time(self):
        """Asking for the address of the peer succeeds, and is no progress."""
        asked = ConnectCount(pid=AGENT, address="10.0.0.2:53", error=None, count=50)
        assert hang(seen(self.agent, profile=refused(50, asked))).cause == "hang/retry-loop"

    @pytest.mark.parametrize(
        "profile",
        [
            refused(3),
            refused(50, ConnectCount(pid=AGENT, address="10.0.0.6:80", error=None, count=2)),
            refused(50, written_bytes={AGENT: 500_000}),
            answered((429, 2)),
            answered((429, 3), (200, 2)),
            answered((404, 9)),
            SyscallProfile(seconds=2.5, calls=(CallCount(pid=AGENT, name="recvfrom", error="EAGAIN", count=90_000),)),
            SyscallProfile(seconds=2.5, calls=(CallCount(pid=AGENT, name="newfstatat", error="ENOENT", count=9000),)),
            SyscallProfile(seconds=2.5, calls=()),
        ],
        ids=[
            "few",
            "another peer answers",
            "it writes much",
            "two 429s",
            "answers between",
            "404s",
            "EAGAIN",
            "imports",
            "no calls",
        ],
    )
    def test_failures_that_are_no_loop(self, profile):
        """Few failures, successes between them, output, and errors that only say "not yet" or "not here"."""
        calm(seen(process(running(cpu=0.3)), profile=profile))

    def test_just_started(self):
        """A service that waits for another to come up gets the time that a person would give it."""
        young = process(thread(sleep(0.1), for_s=0.05), start_ns=NOW_NS - 2 * S)
        assert "only just" in calm(seen(young, profile=refused(25)))["retry-loop"]


class TestFileLock:
    """hang/file-lock."""

    @staticmethod
    def look(by: Any, **more: Any) -> Any:
        """A thread blocked in flock(2)."""
        lock = FileLock(kind="flock", path="/srv/index.lock", inode=7, waiter=holder(AGENT, "python3"), holder=by)
        facts = {"for_s": 40.0} | more
        return seen(
            process(thread(on("flock", 3), **facts), descriptors=(descriptor(3, 7, "file", target="/srv/index.lock"),)),
            file_locks=(lock,),
        )

    @pytest.mark.parametrize("state", ["S", "T", "D", "Z"])
    def test_an_idle_holder(self, state):
        """The file and its idle holder are certain."""
        found = hang(self.look(holder(900, "indexer", state, cpu_share=0.0)))
        assert (found.cause, found.confidence) == ("hang/file-lock", "certain")
        assert found.culprit == "/srv/index.lock held by indexer (pid 900)"

    def test_itself(self):
        """Two descriptors of one process wait for each other."""
        assert "it holds itself" in hang(self.look(holder(AGENT, "python3"))).headline

    @pytest.mark.parametrize(
        ("by", "more"),
        [
            (holder(900, "indexer", "R"), {}),
            (holder(900, "indexer", "S", cpu_share=0.3), {}),
            (None, {}),
            (holder(900, "indexer"), {"for_s": 2.0}),
        ],
        ids=["runs", "works at times", "not known", "too short"],
    )
    def test_a_holder_that_gets_on(self, by, more):
        """A holder at work will give it back; one that is not known is one sign only."""
        assert "file-lock" in calm(self.look(by, **more))


def held(kernel_stack: tuple[str, ...], **more: Any) -> Any:
    """A thread in uninterruptible sleep, writing to a journal."""
    facts = {"state": "D", "kernel_stack": kernel_stack} | more
    return process(thread(on("write", 3), **facts), descriptors=(descriptor(3, 7, "file", target="/srv/disk/journal"),))


EXT4 = ("percpu_rwsem_wait", "__percpu_down_read", "ext4_file_write_iter", "vfs_write", "ksys_write")


class TestKernel:
    """hang/stopped, frozen, throttled, disk-wait: the kernel does not let it run."""

    stopped = process(thread(None, state="T"), thread(None, 101, state="T"))

    def test_stopped(self):
        """Every thread is stopped: certain, and the sender is named."""
        found = hang(seen(self.stopped), stop())
        assert (found.cause, found.confidence) == ("hang/stopped", "certain")
        assert found.culprit == "bash (pid 812, uid 1000)"
        assert "kill -CONT 100" in found.advice[0]

    def test_stopped_before_anybody_watched(self):
        """The sender was not seen; that is said."""
        assert "not seen" in hang(seen(self.stopped, watched=False)).headline

    @pytest.mark.parametrize(
        "sent", [stop(20, code=128), stop(21, code=128), stop(20, tty=True), stop(ago_s=2.0)], ids=["Ctrl-Z", "background", "from its shell", "just now"]
    )  # fmt: skip
    def test_a_stop_that_is_a_persons_business(self, sent):
        """Ctrl-Z and a job that reads its terminal in the background wait for a person; two seconds are within patience."""
        assert "stopped" in calm(seen(self.stopped), sent)

    def test_stopped_by_a_debugger(self):
        """A traced process is a debugger's."""
        traced = process(thread(None, state="T"), tracer=holder(700, "gdb"))
        assert "gdb" in calm(seen(traced))["stopped"]

    def test_one_thread_in_state_t(self):
        """A single stopped thread is no stopped process."""
        assert "stopped" in calm(seen(process(thread(sleep()), thread(None, 101, state="T"))))

    def test_frozen(self):
        """The freezer's file, and no thread has run since; the cgroup is named, and one above it as well."""
        frozen = CgroupState(path="/agents/a", frozen=True, frozen_path="/agents")
        found = hang(seen(process(thread(sleep(), for_s=9)), cgroup=frozen))
        assert (found.cause, found.confidence) == ("hang/frozen", "certain")
        assert "/agents" in found.culprit

    def test_frozen_threads_are_not_waiting_for_a_disk(self):
        """A frozen task may be in state D: that is the freezer."""
        frozen = CgroupState(path="/agents", frozen=True, frozen_path="/agents")
        look = seen(held(("__refrigerator", "get_signal")), cgroup=frozen)
        assert [each.cause for each in diagnose(look).findings] == ["hang/frozen"]

    def test_frozen_for_a_moment(self):
        """A snapshot freezes for two seconds."""
        frozen = CgroupState(path="/agents", frozen=True, frozen_path="/agents")
        threads = (thread(sleep(), for_s=2), thread(sleep(), 101))
        assert "frozen" in calm(seen(process(*threads), cgroup=frozen))["frozen"]

    def test_throttled(self):
        """A hundredth of a CPU, used up in every period by a process that wants to run."""
        quota = CgroupState(path="/agents", quota_cpus=0.01, quota_path="/agents", throttled_share=0.99)
        found = hang(seen(process(running(cpu=0.01, for_s=0.1)), cgroup=quota))
        assert (found.cause, found.confidence) == ("hang/throttled", "likely")
        assert "/agents" in found.culprit

    @pytest.mark.parametrize(
        ("cpus", "share", "threads"),
        [(0.5, 1.0, (running(),)), (0.01, 0.4, (running(),)), (0.01, 1.0, (thread(sleep()),)), (0.1, 1.0, (running(),))],
        ids=["half a CPU", "seldom used up", "does not want to run", "a tenth: possible at most"],
    )
    def test_a_quota_that_is_no_hang(self, cpus, share, threads):
        """A fair quota, one that is seldom used up, and a process that does not want to run."""
        calm(seen(process(*threads), cgroup=CgroupState(path="/a", quota_cpus=cpus, quota_path="/a", throttled_share=share)))

    def test_held_at_memory_high(self):
        """Threads sleep in the kernel's function that enforces the soft limit, and its counter grows."""
        high = CgroupState(path="/a", memory_high_path="/a", memory_high_hits=40, memory_stalled_share=0.8)
        found = hang(seen(held(("__mem_cgroup_handle_over_high", "exit_to_user_mode"), for_s=1.0), cgroup=high))
        assert (found.cause, found.confidence) == ("hang/throttled", "certain")
        assert "memory.high" in found.culprit

    def test_out_of_memory_without_a_killer(self):
        """With the OOM killer switched off, tasks wait for memory."""
        dry = CgroupState(path="/a", under_oom_path="/a")
        found = hang(seen(held(("mem_cgroup_oom_synchronize", "do_user_addr_fault")), cgroup=dry))
        assert found.cause == "hang/throttled"
        assert "out of memory" in found.headline

    def test_disk_wait(self):
        """State D in a file system's code for long: the file and the kernel's function."""
        found = hang(seen(held(EXT4)))
        assert (found.cause, found.confidence) == ("hang/disk-wait", "likely")
        assert "/srv/disk/journal" in found.culprit
        assert "percpu_rwsem_wait" in found.culprit

    def test_a_tool_that_waits_for_a_disk(self):
        """The agent waits for a tool that the kernel holds."""
        child = tool(
            thread(on("read", 3), 200, state="D", kernel_stack=("nfs_wait_bit_killable", "nfs_file_read")), command="cp"
        )
        found = hang(seen(process(thread(wait4(200))), child))
        assert found.cause == "hang/disk-wait"
        assert "cp (pid 200)" in found.headline

    @pytest.mark.parametrize(
        ("stack", "more"),
        [
            (EXT4, {"for_s": 0.4}),
            (("wait_for_vfork_done", "kernel_clone"), {}),
            (("mem_cgroup_oom_synchronize",), {}),
            ((), {}),
        ],
        ids=["an fsync", "a child that starts", "memory", "no stack could be read"],
    )
    def test_state_d_that_is_no_disk(self, stack, more):
        """Short waits for a disk, a child between fork and exec, memory; a stack that nobody could read is only possible."""
        calm(seen(held(stack, **more)))


class TestExcuses:
    """What excuses every wait."""

    @pytest.mark.parametrize(
        "agent",
        [
            process(thread(recv()), descriptors=ONE_SOCKET, tracer=holder(700, "gdb")),
            process(
                thread(recv()),
                thread(on("read", 0), 101),
                descriptors=(*ONE_SOCKET, descriptor(0, 9, "tty", target="/dev/pts/3")),
            ),
        ],
        ids=["a debugger", "a person"],
    )
    def test_a_debugger_or_a_person(self, agent):
        """Under a debugger, or while a person is asked, nothing is a hang."""
        calm(seen(agent, sockets=(client(),)))

    def test_a_tool_that_works(self):
        """While a tool that it waits for works, or one below that, nothing is a hang."""
        agent = process(thread(wait4(200)), thread(recv(), 101), descriptors=ONE_SOCKET)
        shell = tool(thread(wait4(), 200), command="bash -c make")
        calm(seen(agent, shell, tool(running(201), pid=201, ppid=200, command="cc1"), sockets=(client(),)))

    @pytest.mark.parametrize(
        "look",
        [
            seen(process(thread(sleep()))),
            seen(process(thread(epoll()), descriptors=(loop_set(4), descriptor(4, 20))), sockets=(listening(),), python=(stacks(IDLE_LOOP),)),
            seen(process(thread(sleep()), thread(futex(), 101)), python=(stacks(("<module> agent.py:3",), IDLE_WORKER),)),
            seen(process(thread(futex(timeout_s=1.0)), thread(sleep(3), 101, for_s=2.0))),
        ],
        ids=["a sleeper", "an idle server", "an idle pool", "a consumer"],
    )  # fmt: skip
    def test_idle_agents(self, look):
        """Idle is not hung."""
        calm(look)

    def test_an_ended_or_unreadable_agent(self):
        """Without a thread nothing can be judged, and every cause says so instead of failing."""
        diagnosis = diagnose(seen(process(thread(sleep())).__class__(pid=AGENT, start_ns=1, ppid=1, comm="x")))
        assert diagnosis.findings == ()
        assert {each.cause for each in diagnosis.not_checked} | {each.cause for each in diagnosis.ruled_out} >= {
            "hang/deadlock",
            "hang/spin",
        }


def test_every_kind_collects_from_a_bare_look():
    """With nothing known but one sleeping thread, every kind of the living answers, and what it answers can be recorded."""
    collected = collect_all(scene(seen(process(thread(sleep())))))
    assert set(collected) == set(kinds_of(HangScene))
    assert not [kind for kind, found in collected.items() if "failed" in getattr(found, "because", "")]
    assert all(found.says() for found in collected.values() if isinstance(found, Evidence))


def test_what_could_not_be_read_is_not_ruled_out():
    """Where sockets or stacks could not be had, the causes that need them were not checked, with the reason."""
    missing = tuple(MissingEvidence(kind=kind, because="not root") for kind in ("sockets", "python-threads", "syscall-profile"))
    unchecked = {each.cause: each.because for each in diagnose(seen(process(thread(sleep())), missing=missing)).not_checked}
    assert unchecked == dict.fromkeys(
        ("hang/event-loop-stalled", "hang/pool-exhausted", "hang/retry-loop", "hang/spin", "hang/stuck-connect"), "not root"
    )


def test_hostile_names_stay_on_one_line():
    """Names of a process and of its files cannot break a headline or a culprit into lines."""
    evil = tool(thread(on("openat", path="x\n\x1b[2J" * 900), 200), command="c\x1b[31m\nat")
    found = hang(seen(process(thread(wait4(200))), evil))
    assert all("\n" not in text and "\x1b" not in text for text in (found.headline, found.culprit, *found.advice))


def test_evidence_is_bounded():
    """A thousand threads and sockets leave two hundred and sixty-four in the evidence, the telling ones among them."""
    threads = (thread(futex()), *(thread(futex(), 1000 + at) for at in range(1000)))
    sockets = (*(client(at, received_ago_s=9.0) for at in range(100, 1100)), client(30))
    descriptors = tuple(descriptor(each.inode, each.inode) for each in sockets)
    look = seen(process(*threads, descriptors=descriptors), sockets=sockets, lock_waits=(lock(1998, 1999), lock(1999, 1998)))
    collected = collect_all(scene(look))
    waits, held = collected["thread-waits"], collected["sockets"]
    assert isinstance(waits, ThreadWaits)
    assert isinstance(held, Sockets)
    assert (len(waits.threads), waits.agent.threads) == (200, 1001)
    assert waits.thread(AGENT, 1999) is not None
    assert (len(held.sockets), held.count) == (64, 1001)
    assert held.held(30) is not None
    assert hang(look).cause == "hang/deadlock"
