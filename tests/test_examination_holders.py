"""What the processes at the other end do, read from outside."""

import os
import socket
import subprocess
import sys
import time

import pytest

from agentscope.examination import FileLock, Holder
from agentscope.examination.holders import cpu_shares, waits_at, with_ended_children, with_holders_watched
from tests.hang_builders import holder, listening, pipe, process, request, seen, thread

WORKS = """
import signal, time
signal.alarm(20)
print(flush=True)
while True:
    end = time.monotonic() + 0.03
    while time.monotonic() < end: pass
    time.sleep(0.06)
"""
SPINS = "import signal; signal.alarm(20)\nwhile True: pass"
GONE = 1 << 22  # above pid_max


@pytest.fixture
def worker():
    """A process that works for a third of the time."""
    with subprocess.Popen([sys.executable, "-c", WORKS], stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        yield started.pid
        started.kill()


@pytest.fixture
def sleeper():
    """A process that sleeps, its input a pipe that it does not read."""
    with subprocess.Popen(["sleep", "20"], stdin=subprocess.PIPE) as started:
        time.sleep(0.2)
        yield started.pid
        started.kill()


def test_who_works_and_who_does_not(worker, sleeper):
    """One that works for a third of the time is seen to within a tenth of a second, though it mostly sleeps; a gone one is left out."""
    shares = cpu_shares([worker, sleeper, GONE])
    assert shares[worker] > 0.05
    assert shares[sleeper] < 0.05
    assert set(shares) == {worker, sleeper}


def test_who_works_where_there_are_too_few_processors(worker):
    """One that may run only when nobody else wants its processor, and somebody does all the time, is not taken for one that rests."""
    processor = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(worker, processor)
    os.sched_setscheduler(worker, os.SCHED_IDLE, os.sched_param(0))
    with subprocess.Popen([sys.executable, "-c", SPINS]) as spinner:
        os.sched_setaffinity(spinner.pid, processor)
        time.sleep(0.3)
        shares = [cpu_shares([worker])[worker] for _ in range(5)]
        spinner.kill()
    assert min(shares) > 0.05, shares


def test_who_waits_at_a_connection(sleeper):
    """A client blocked in reading its end waits for an answer; one that sleeps does not; of one that is gone nothing is known."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as reader:
        until = time.monotonic() + 5
        while waits_at(Holder(pid=reader.pid, comm="cat", descriptor=0)) is not True and time.monotonic() < until:
            time.sleep(0.05)
        assert waits_at(Holder(pid=reader.pid, comm="cat", descriptor=0)) is True
        reader.kill()
    assert waits_at(Holder(pid=sleeper, comm="sleep", descriptor=0)) is False
    assert waits_at(Holder(pid=GONE, comm="x", descriptor=0)) is None
    assert waits_at(Holder(pid=sleeper, comm="sleep")) is None


def test_a_client_with_an_event_loop():
    """A connection that is in the set of an epoll in which a thread is blocked is waited for."""
    program = (
        "import select, signal, sys; signal.alarm(20); epoll = select.epoll(); epoll.register(0, select.EPOLLIN); epoll.poll()"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", program], stdin=theirs) as started:
        until = time.monotonic() + 5
        while waits_at(Holder(pid=started.pid, comm="x", descriptor=0)) is not True and time.monotonic() < until:
            time.sleep(0.05)
        assert waits_at(Holder(pid=started.pid, comm="x", descriptor=0)) is True
        started.kill()


def test_an_examination_with_its_holders(worker, sleeper):
    """Holders of locks and pipes outside of the tree get their share of a CPU, clients whether they wait; the tree is left alone."""
    lock = FileLock(kind="flock", path="/x", inode=1, waiter=holder(100), holder=holder(worker))
    look = seen(
        process(thread()),
        file_locks=(lock,),
        pipes=(pipe(readers=(holder(100),), writers=(holder(sleeper),)),),
        sockets=(listening(), request(peer_holder=Holder(pid=sleeper, comm="sleep", descriptor=0, state="S"))),
    )
    found = with_holders_watched(look)
    assert found.file_locks[0].holder is not None
    assert (found.file_locks[0].holder.cpu_share or 0) > 0.05
    assert found.pipes[0].writers[0].cpu_share == pytest.approx(0, abs=0.05)
    assert found.pipes[0].readers[0].cpu_share is None
    assert found.sockets[1].peer_holder is not None
    assert found.sockets[1].peer_holder.waits is False


def test_nothing_to_watch_takes_no_time():
    """Without holders outside of the tree there is nothing to wait for."""
    look = seen(process(thread()))
    began = time.monotonic()
    assert with_holders_watched(look) == look
    assert time.monotonic() - began < 0.05


def test_children_that_nobody_has_read():
    """A zombie of a process of the tree is added as ended; once its status is read there is nothing to add."""
    started = subprocess.Popen(["true"])
    look = seen(process(thread(tid=os.getpid()), pid=os.getpid()))
    until = time.monotonic() + 5
    while with_ended_children(look) == look and time.monotonic() < until:
        time.sleep(0.02)
    added = with_ended_children(look).processes[1:]
    assert [(each.pid, each.comm, each.ended) for each in added if each.pid == started.pid] == [(started.pid, "true", True)]
    started.wait()
    assert all(each.pid != started.pid for each in with_ended_children(look).processes)
