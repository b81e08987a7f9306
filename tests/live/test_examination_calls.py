"""What blocked system calls wait for, read from really blocked threads."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from blocked import blocked_in, c_program, calls_of, children_of, python, settled, started, wait_for

from agentscope.examination.calls import abandoned_by, read_call
from agentscope.examination.threads import kernel_stack, sample

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")

SETUP = "import os, select, socket, time, ctypes, threading; libc = ctypes.CDLL(None); r, w = os.pipe(); a, b = socket.socketpair()\n"
TIMESPEC = "spec = lambda s: (ctypes.c_long * 2)(int(s), int(s % 1 * 1e9))\n"


@pytest.mark.parametrize(
    ("code", "name", "timeout_s"),
    [
        ("p = select.poll(); p.register(r, 1); p.register(a, 1); p.poll()", "poll", None),
        ("p = select.poll(); p.register(r, 1); p.register(a, 1); p.poll(600000)", "poll", 600.0),
        ("select.select([r], [], [a], 77.5)", "pselect6", 77.5),
        ("select.select([r], [], [a])", "pselect6", None),
    ],
)
def test_multiplexed_descriptors_and_time_out(code, name, timeout_s):
    """A poll or select names every descriptor in its set, and its time-out: None if it waits without end."""
    with python(SETUP + "assert (r, a.fileno()) == (3, 5)\n" + code) as victim:
        (call,) = blocked_in(victim.pid, name)
        assert (call.descriptors, call.timeout_s) == ((3, 5), timeout_s)


@pytest.mark.parametrize(
    ("code", "name", "timeout_s"),
    [("e.poll()", "epoll_wait", None), ("e.poll(90)", "epoll_wait", 90.0)]
    + [(f"libc.syscall(441, 7, buf, 1, {spec}, 0, 8)", "epoll_pwait2", timeout) for spec, timeout in (("spec(33.25)", 33.25), ("0", None))],
)  # fmt: skip
def test_epoll_names_itself_and_its_time_out(code, name, timeout_s):
    """An epoll names its own descriptor, as its set is in fdinfo, and its time-out in each form of the call."""
    prepared = (
        SETUP + TIMESPEC + "e = select.epoll(); e.register(r); assert e.fileno() == 7; buf = ctypes.create_string_buffer(64)\n"
    )
    with python(prepared + code) as victim:
        (call,) = blocked_in(victim.pid, name)
        assert (call.descriptors, call.timeout_s) == ((7,), timeout_s)


@pytest.mark.parametrize(
    ("code", "name", "timeout_s"),
    [
        ("libc.syscall(35, spec(44.5), 0)", "nanosleep", 44.5),
        ("libc.syscall(230, 1, 0, spec(45), 0)", "clock_nanosleep", 45.0),
        ("time.sleep(46)", "clock_nanosleep", 46.0),
        ("libc.syscall(230, 0, 1, spec(time.time() + 47), 0)", "clock_nanosleep", 47.0),
        ("libc.syscall(230, 7, 1, spec(time.clock_gettime(7) + 48), 0)", "clock_nanosleep", 48.0),
        ("libc.syscall(128, (ctypes.c_ulong * 1)(1), 0, spec(30), 8)", "rt_sigtimedwait", 30.0),
        ("signal.pause()", "pause", None),
    ],
)
def test_sleeps_by_their_whole_duration(code, name, timeout_s):
    """A sleep has the duration that it was given, an absolute one counted from when it began; pause has no end."""
    with python(SETUP + TIMESPEC + "print(time.clock_gettime_ns(7), flush=True)\n" + code, stdout=subprocess.PIPE) as victim:
        began_ns = int(victim.stdout.readline())
        blocked_in(victim.pid, name)
        time.sleep(0.5)
        (thread,) = sample([victim.pid])[0].threads
        call = read_call(victim.pid, victim.pid, thread.syscall, since_ns=began_ns)
        assert (call.name, call.timeout_s) == (name, pytest.approx(timeout_s, abs=0.1) if timeout_s else None)


@pytest.mark.parametrize(
    ("code", "name", "descriptor", "timeout_s"),
    [
        ("os.read(r, 1)", "read", 3, None),
        ("a.recv(1)", "recvfrom", 5, None),
        ("a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('@ll', 12, 500000)); a.recv(1)", "recvfrom", 5, 12.5),
        ("a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('@ll', 12, 0)); a.recv(1)", "recvfrom", 5, None),
        ("a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('@ll', 13, 0)); a.sendall(bytes(1 << 24))", "sendto", 5, 13.0),
        ("a.recvmsg(1)", "recvmsg", 5, None),
        ("os.write(w, bytes(1 << 20))", "write", 4, None),
        ("s = socket.create_server(('127.0.0.1', 0)); s.accept()", "accept4", 7, None),
    ],
)  # fmt: skip
def test_a_blocked_transfer(code, name, descriptor, timeout_s):
    """A read, a write or an accept names its descriptor; a time-out set on the socket counts, in its own direction only."""
    with python(SETUP + "import struct\n" + code) as victim:
        (call,) = blocked_in(victim.pid, name)
        assert (call.descriptors, call.timeout_s) == ((descriptor,), timeout_s)


def test_asking_a_socket_for_its_time_out_leaves_it_alone():
    """A victim whose socket was asked a hundred times still gets its bytes and its end of file."""
    ours, theirs = socket.socketpair()
    with ours, python(f"import socket; s = socket.socket(fileno={theirs.fileno()}); print(s.recv(9) + s.recv(9), s.recv(9), flush=True)",
                      pass_fds=(theirs.fileno(),), stdout=subprocess.PIPE) as victim:  # fmt: skip
        theirs.close()
        blocked_in(victim.pid, "recvfrom")
        for _ in range(100):
            calls_of(victim.pid)
        ours.send(b"one")
        settled(lambda: not ours.send(b"") and calls_of(victim.pid).get(victim.pid))
        ours.send(b"two")
        ours.shutdown(socket.SHUT_WR)
        assert victim.stdout.readline() == b"b'onetwo' b''\n"


def test_a_fifo_that_nobody_writes(tmp_path):
    """A thread blocked in opening a FIFO names its path, made absolute; the kernel's stack says that it waits for the other end."""
    os.mkfifo(tmp_path / "a fifo\x1b[31m")
    with python("open('a fifo\\x1b[31m')", cwd=tmp_path) as victim:
        (call,) = blocked_in(victim.pid, "openat")
        assert call.path == f"{tmp_path}/a fifo"  # what a terminal would obey is taken out
        assert {"fifo_open", "wait_for_partner"} & set(kernel_stack(victim.pid, victim.pid))


def test_a_path_below_a_folder_that_is_open(tmp_path):
    """A path relative to an open folder is made absolute by that folder."""
    os.mkfifo(tmp_path / "fifo")
    with python(f"import os; os.open('fifo', os.O_WRONLY, dir_fd=os.open({str(tmp_path)!r}, os.O_PATH))") as victim:
        assert blocked_in(victim.pid, "openat")[0].path == f"{tmp_path}/fifo"


def test_who_is_waited_for():
    """wait4 and waitid name the child that they wait for, by its pid or its pidfd; None where any will do."""
    code = (
        "import os, threading, time\nc = os.fork()\nif not c: time.sleep(40)\nfd = os.pidfd_open(c)\nprint(c, fd, flush=True)\n"
    )
    waits = (
        "os.waitpid(c, 0)",
        "os.waitpid(-1, 0)",
        "os.waitid(os.P_PID, c, os.WEXITED)",
        "os.waitid(os.P_PIDFD, fd, os.WEXITED)",
    )
    code += "".join(f"threading.Thread(target=lambda: {wait}).start(); time.sleep(0.1)\n" for wait in waits)
    with python(code, stdout=subprocess.PIPE) as victim:
        child, descriptor = map(int, victim.stdout.readline().split())
        try:
            calls = blocked_in(victim.pid, "wait4", "waitid", count=4)
            assert [call.child for call in calls] == [child, None, child, child]
            assert calls[3].descriptors == (descriptor,)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_call_that_a_stop_interrupted_is_still_told():
    """After a stop and a continue, poll, nanosleep and a timed futex run as restart_syscall, and are told as what they are."""
    code = SETUP + TIMESPEC + "word = (ctypes.c_int * 1)(5); p = select.poll(); p.register(r, 1)\n"
    waits = (
        "p.poll(600000)",
        "libc.syscall(35, spec(40), 0)",
        "libc.syscall(230, 1, 0, spec(41), 0)",
        "libc.syscall(202, word, 128, 5, spec(42))",
    )
    code += "".join(f"threading.Thread(target=lambda: {wait}).start()\n" for wait in waits)
    names = ("poll", "nanosleep", "clock_nanosleep", "futex")
    with python(code) as victim:
        blocked_in(victim.pid, *names, count=4)
        os.kill(victim.pid, signal.SIGSTOP)
        settled(lambda: all(thread.state == "T" for thread in sample([victim.pid])[0].threads))
        os.kill(victim.pid, signal.SIGCONT)
        settled(
            lambda: (
                sum(thread.syscall is not None and thread.syscall.number == 219 for thread in sample([victim.pid])[0].threads)
                == 4
            )
        )
        found = {call.name: call.timeout_s for call in blocked_in(victim.pid, *names, count=4) if call.timeout_s}
        assert found == {"poll": 600.0, "nanosleep": 40.0, "clock_nanosleep": 41.0, "futex": 42.0}


DEADLOCK = """
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static pthread_mutex_t one, two;
static pthread_barrier_t both;
static void *other(void *unused) {
  pthread_mutex_lock(&two); pthread_barrier_wait(&both);
  printf("%ld\\n", syscall(SYS_gettid)); fflush(stdout);
  pthread_mutex_lock(&one); return unused; }
int main(int count, char **words) {
  pthread_t thread; pthread_mutexattr_t how; alarm(50);
  pthread_mutexattr_init(&how);
  if (count > 1 && words[1][0] == 'r') pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
  if (count > 1 && words[1][0] == 'p') pthread_mutexattr_setprotocol(&how, PTHREAD_PRIO_INHERIT);
  if (count > 1 && words[1][0] == 'c') pthread_mutexattr_settype(&how, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&one, &how); pthread_mutex_init(&two, &how);
  pthread_barrier_init(&both, 0, 2);
  pthread_mutex_lock(&one); pthread_create(&thread, 0, other, 0);
  pthread_barrier_wait(&both); pthread_mutex_lock(&two); return 0; }
"""


@needs_gcc
@pytest.mark.parametrize("kind", ["normal", "robust", "counted"])
def test_a_deadlock_of_two_mutexes_names_both_owners(tmp_path, kind):
    """Each thread of a deadlock waits for a mutex whose owner is the other: normal, robust and recursive mutexes alike."""
    with c_program(DEADLOCK, tmp_path, kind) as victim:
        blocked_in(victim.pid, "futex", count=2)
        calls = calls_of(victim.pid)
        (other,) = calls.keys() - {victim.pid}
        assert calls[victim.pid].futex_owner == other
        assert calls[other].futex_owner == victim.pid
        assert all(call.timeout_s is None for call in calls.values())


@needs_gcc
def test_the_owner_of_a_pi_mutex(tmp_path):
    """A PI mutex has its owner in the futex itself. In a deadlock the kernel refuses the second, and glibc parks it elsewhere."""
    with c_program(DEADLOCK, tmp_path, "pi") as victim:
        blocked_in(victim.pid, "futex", count=2)
        calls = calls_of(victim.pid)
        (waits,) = (tid for tid, call in calls.items() if call.futex_owner is not None)
        assert calls.keys() == {waits, calls[waits].futex_owner}


@needs_gcc
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare(1)")
def test_the_owner_inside_a_pid_namespace_is_told_by_our_number(tmp_path):
    """In a container a mutex holds the tid that its thread has there; it is told by the tid that we know."""
    (tmp_path / "victim.c").write_text(DEADLOCK)
    subprocess.run(["gcc", "-pthread", "-o", tmp_path / "victim", tmp_path / "victim.c"], check=True, timeout=60)
    command = ["unshare", "--pid", "--fork", "--kill-child", tmp_path / "victim"]
    outer = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert int(outer.stdout.readline()) < 10
        children = settled(lambda: children_of(outer.pid))
        blocked_in(children[0], "futex", count=2)
        calls = calls_of(children[0])
        assert {tid: call.futex_owner for tid, call in calls.items()} == dict(zip(calls, reversed(calls), strict=True))
    finally:
        outer.kill()
        outer.wait(timeout=20)
        outer.stdout.close()


OTHER_WAITS = """
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <unistd.h>
#include <time.h>
static struct { pthread_cond_t ready; pthread_mutex_t lock; } pair = { PTHREAD_COND_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };
static pthread_rwlock_t shared = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t none;
static void *on_condition(void *unused) { pthread_mutex_lock(&pair.lock); pthread_cond_wait(&pair.ready, &pair.lock); return unused; }
static void *on_condition_for(void *unused) { struct timespec end; clock_gettime(CLOCK_REALTIME, &end); end.tv_sec += 300;
  pthread_mutex_lock(&pair.lock); pthread_cond_timedwait(&pair.ready, &pair.lock, &end); return unused; }
static void *on_semaphore(void *unused) { sem_wait(&none); return unused; }
static void *on_rwlock(void *unused) { pthread_rwlock_wrlock(&shared); return unused; }
static void *on_barrier(void *unused) { pthread_barrier_wait(&barrier); return unused; }
static void *on_stdout(void *unused) { flockfile(stdout); return unused; }
int main(void) {
  pthread_t thread; alarm(50); sem_init(&none, 0, 0); pthread_barrier_init(&barrier, 0, 2);
  pthread_rwlock_rdlock(&shared); flockfile(stdout);
  pthread_create(&thread, 0, on_condition, 0); pthread_create(&thread, 0, on_condition_for, 0);
  pthread_create(&thread, 0, on_semaphore, 0); pthread_create(&thread, 0, on_rwlock, 0);
  pthread_create(&thread, 0, on_barrier, 0); pthread_create(&thread, 0, on_stdout, 0);
  usleep(300000); pthread_mutex_lock(&pair.lock);  /* so that the mutex beside the condition has a live owner */
  pthread_join(thread, 0); return 0; }
"""


@needs_gcc
def test_other_waits_claim_no_owner(tmp_path):
    """A condition variable, a semaphore, a read-write lock, a barrier, a stream's lock and a join name no owner."""
    with c_program(OTHER_WAITS, tmp_path) as victim:
        time.sleep(0.4)
        calls = blocked_in(victim.pid, "futex", count=7)
        assert [call.futex_owner for call in calls] == [None] * 7
        timed = [call.timeout_s for call in calls if call.timeout_s is not None]
        assert timed == [pytest.approx(300, abs=2)]  # absolute, on the wall clock


ENDED_OWNER = """
#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *taker(void *unused) { pthread_mutex_lock(&lock); return unused; }
int main(void) { pthread_t thread; alarm(50); pthread_create(&thread, 0, taker, 0); pthread_join(thread, 0); pthread_mutex_lock(&lock); return 0; }
"""


@needs_gcc
def test_an_owner_that_has_ended_is_not_claimed(tmp_path):
    """A mutex that an ended thread never gave back has no owner in the call; asked for, the thread that is gone is told."""
    with c_program(ENDED_OWNER, tmp_path) as victim:
        (call,) = blocked_in(victim.pid, "futex")
        assert call.futex_owner is None
        assert victim.pid < abandoned_by(victim.pid, call.futex) < victim.pid + 1000


FORKED = """
#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *taker(void *unused) { pthread_mutex_lock(&lock); pause(); return unused; }
int main(void) { pthread_t thread; alarm(50); pthread_create(&thread, 0, taker, 0); usleep(200000);
  if (fork() == 0) { alarm(50); pthread_mutex_lock(&lock); } pause(); return 0; }
"""


@needs_gcc
def test_a_mutex_that_a_fork_took_along(tmp_path):
    """A child forked while another thread held a mutex waits for a thread that it does not have."""
    with c_program(FORKED, tmp_path) as victim:
        (child,) = settled(lambda: children_of(victim.pid))
        (call,) = blocked_in(child, "futex")
        assert call.futex_owner is None
        assert abandoned_by(child, call.futex) in calls_of(victim.pid).keys() - {victim.pid}
        os.kill(child, signal.SIGKILL)


@needs_gcc
def test_a_mutex_with_a_living_owner_is_not_abandoned(tmp_path):
    """Where the owner is a thread of the process, or there is no mutex, nobody left it behind."""
    with c_program(DEADLOCK, tmp_path) as victim:
        for call in blocked_in(victim.pid, "futex", count=2):
            assert abandoned_by(victim.pid, call.futex) is None
    with c_program(OTHER_WAITS, tmp_path) as victim:
        time.sleep(0.4)
        assert [abandoned_by(victim.pid, call.futex) for call in blocked_in(victim.pid, "futex", count=7)] == [None] * 7


def test_a_python_lock_has_no_owner_and_its_time_out():
    """A threading.Lock is a semaphore: it names no owner; with a time-out that is told, without it there is none."""
    code = (
        "import threading\nlock = threading.Lock(); lock.acquire()\n"
        "threading.Thread(target=lock.acquire).start(); threading.Thread(target=lambda: lock.acquire(timeout=500)).start()\n"
        "threading.Event().wait()"
    )
    with python(code) as victim:
        calls = blocked_in(victim.pid, "futex", count=3)
        assert [call.futex_owner for call in calls] == [None] * 3
        assert sorted(call.timeout_s or 0 for call in calls) == [0, 0, pytest.approx(500, abs=2)]


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare(1)")
def test_clocks_of_a_time_namespace(tmp_path):
    """In a time namespace an absolute sleep is counted by the shifted clock that the process sees."""
    ready = tmp_path / "ready"
    code = f"import signal, time; signal.alarm(50); open({str(ready)!r}, 'w').write('\\n'); time.sleep(48)"
    outer = subprocess.Popen(["unshare", "--time", "--monotonic", "5000000", "--fork", "--kill-child", "python3", "-c", code])
    try:
        wait_for(ready)
        children = children_of(outer.pid)
        (call,) = blocked_in(children[0], "clock_nanosleep")
        assert 40 < call.timeout_s <= 48
    finally:
        outer.kill()
        outer.wait(timeout=20)


def test_an_unreadable_time_out_is_not_without_end():
    """A call whose time-out we cannot read (here: the process has gone) is not told as one that waits without end."""
    with python(
        "import ctypes; ctypes.CDLL(None).syscall(202, (ctypes.c_int * 1)(5), 128, 5, (ctypes.c_long * 2)(42, 0))"
    ) as victim:
        blocked_in(victim.pid, "futex")
        (thread,) = sample([victim.pid])[0].threads
    assert read_call(victim.pid, victim.pid, thread.syscall).timeout_s == 0.0


OLD_CALL = 'void _start(void) { static long spec[2] = {40, 0}; __asm__ volatile("int $0x80" :: "a"(162), "b"(spec), "c"(0)); }'


@needs_gcc
def test_a_32_bit_program_is_not_misread(tmp_path):
    """The numbers of a 32-bit program's calls are others: they are told as such, not as the 64-bit call of that number."""
    (tmp_path / "old.c").write_text(OLD_CALL)
    build = ["gcc", "-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-o", tmp_path / "old", tmp_path / "old.c"]
    if subprocess.run(build, check=False, stderr=subprocess.DEVNULL, timeout=60).returncode:
        pytest.skip("the compiler makes no 32-bit programs")
    with started([str(tmp_path / "old")]) as victim:
        (call,) = settled(lambda: [call for call in calls_of(victim.pid).values() if call.name.startswith("32-bit")])
        assert (call.name, call.timeout_s) == ("32-bit call 162", 0.0)
