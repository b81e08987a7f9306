"""Threads and processes as /proc shows them, of real processes."""

import ctypes
import os
import shutil
import signal
import subprocess
import time

import pytest
from blocked import blocked_in, children_of, python, settled

from agentscope.examination.proc import tids_of
from agentscope.examination.threads import identify, kernel_stack, sample, tracer_of

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]


def test_a_sample_has_every_thread_with_its_call():
    """A sample has all threads, each with its state, times, switches and the call that it is blocked in."""
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(40,), name='x').start()\nend = time.monotonic() + 40\nwhile time.monotonic() < end: pass"
    with python(code) as victim:
        settled(lambda: len(sample([victim.pid])[0].threads) == 2)
        time.sleep(0.5)
        (found,) = sample([victim.pid])
        spins, sleeps = sorted(found.threads, key=lambda thread: thread.tid)
        assert (spins.tid, spins.state, spins.syscall) == (victim.pid, "R", None)
        assert (sleeps.state, sleeps.syscall.number) == ("S", 230)
        assert spins.user_ns > 100_000_000 > sleeps.user_ns + sleeps.system_ns
        assert sleeps.voluntary_switches >= 1
        assert spins.involuntary_switches >= 1
        assert 0 < found.anon_bytes < found.rss_bytes
        assert abs(found.start_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 5_000_000_000


def test_the_price_of_a_sample():
    """A sample of 500 threads costs less than twice what merely reading the three files of each thread does."""
    code = "import threading\nthreading.stack_size(65536)\nwait = threading.Event().wait\n[threading.Thread(target=wait).start() for _ in range(499)]\nwait()"

    def seconds(work):
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def merely_read():
        for tid in tids_of(victim.pid):
            for name in ("stat", "status", "syscall"):
                opened = os.open(f"/proc/{victim.pid}/task/{tid}/{name}", os.O_RDONLY)
                os.read(opened, 4096)
                os.close(opened)

    with python(code) as victim:
        settled(lambda: len(sample([victim.pid])[0].threads) == 500)
        ours, bare = (min(seconds(work) for _ in range(7)) for work in (lambda: sample([victim.pid]), merely_read))
        assert ours < 2 * bare


def test_a_sample_in_no_time_is_cut():
    """A sample whose time is over leaves out what is left."""
    assert sample([os.getpid()] * 3, limit_s=-1) == []


def test_the_stack_of_the_kernel_names_functions():
    """The kernel's stack of a sleeping thread has plain function names, innermost first."""
    with python("import time; time.sleep(40)") as victim:
        blocked_in(victim.pid, "clock_nanosleep")
        names = kernel_stack(victim.pid, victim.pid)
        assert "hrtimer_nanosleep" in names
        assert names[-1].startswith(("entry_SYSCALL_64", "do_syscall_64"))
        assert not any("+" in name or "[" in name for name in names)


def test_a_process_is_identified():
    """Who a process is: parent, name, arguments, user; nobody traces it."""
    with python("import time; time.sleep(40)", user=65534) as victim:
        blocked_in(victim.pid, "clock_nanosleep")
        found = identify(victim.pid)
        assert (found.ppid, found.uid, found.ended, found.tracer) == (os.getpid(), 65534, False, None)
        assert found.argv[1] == "-c"
        assert found.argv[2].endswith("time.sleep(40)")
        assert "\n" not in found.argv[2]
        assert (found.threads, found.descriptors) == ((), ())


def test_a_name_cannot_lie():
    """A name with a parenthesis, a newline and a colour is one clean word, and the fields after it are read right."""
    name = b"x) R 1\n\x1b[31m"
    with python(f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name!r}); time.sleep(40)") as victim:
        blocked_in(victim.pid, "clock_nanosleep")
        found = identify(victim.pid)
        assert (found.comm, found.ppid) == ("x) R 1 ", os.getpid())
        assert sample([victim.pid])[0].threads[0].state == "S"


def test_an_ended_child_that_nobody_reads():
    """A zombie is told as ended, with its parent; once its status is read, there is no such process."""
    with python("import os, time\nif os.fork(): time.sleep(40)") as victim:
        blocked_in(victim.pid, "clock_nanosleep")
        (child,) = settled(lambda: children_of(victim.pid))
        found = settled(lambda: (look := identify(child)) and look.ended and look)
        assert (found.ppid, found.argv) == (victim.pid, ())
    assert identify(victim.pid) is None


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_a_process_lives_on_without_its_first_thread(tmp_path):
    """A process whose first thread has ended has not: the others run on."""
    source = tmp_path / "victim.c"
    source.write_text(
        "#include <pthread.h>\n#include <unistd.h>\nstatic void *on(void *x) { sleep(40); return x; }\n"
        "int main(void) { pthread_t t; alarm(50); pthread_create(&t, 0, on, 0); pthread_exit(0); }\n"
    )
    subprocess.run(["gcc", "-pthread", "-o", tmp_path / "victim", source], check=True, timeout=60)
    victim = subprocess.Popen([tmp_path / "victim"])
    try:
        settled(lambda: "Z" in {thread.state for thread in sample([victim.pid])[0].threads})
        assert not identify(victim.pid).ended
    finally:
        victim.kill()
        victim.wait(timeout=20)


def test_who_traces():
    """The debugger of a process is named; after it let go, nobody is."""
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    with python("import time; time.sleep(40)") as victim:
        blocked_in(victim.pid, "clock_nanosleep")
        assert libc.ptrace(0x4206, victim.pid, None, None) == 0  # PTRACE_SEIZE
        try:
            assert tracer_of(victim.pid).pid == os.getpid()
            assert identify(victim.pid).tracer.pid == os.getpid()
        finally:
            os.kill(victim.pid, signal.SIGKILL)
    assert tracer_of(victim.pid) is None
