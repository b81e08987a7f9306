"""Every cause: what it is said of, and what looks like it but is something else."""

import pytest

from agentscope.evidence.cpu_time import CpuTime
from agentscope.evidence.disk_space import DiskSpace
from agentscope.evidence.memory_history import MemoryHistory
from agentscope.evidence.open_files import OpenFiles
from agentscope.readers.kernel_fault import FaultLine
from agentscope.readers.kernel_oom import OomReport, OomTask
from tests.evidence_builders import (
    GIB,
    MIB,
    TRACEBACK,
    chosen,
    diagnose,
    died,
    earlier,
    exited,
    faulted,
    limits,
    logged,
    memcg_report,
    python,
    read,
    sent,
    stack,
    traceback,
    verdict,
    words,
)

OOM = sent(9, "kernel", code=128)
BY_ITSELF = sent(6, "self", code=-6)
SEGV = sent(11, "self", code=1)
V8_HEAP = read("oom/runtime-heap", "node", says="V8's heap is full", excerpt="FATAL ERROR: Reached heap limit")
TCP_ERROR = "ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 8080)"


class TestOom:
    """Class oom."""

    def test_cgroup_by_the_kernels_own_report(self):
        """CONSTRAINT_MEMCG in the kernel log names the cgroup whose limit ran out, with certainty and its limit."""
        found = verdict(died(9), OOM, chosen(), logged(oom=memcg_report()), limits())
        assert (found.cause, found.confidence) == ("oom/cgroup", "certain")
        assert found.headline == "Killed by the kernel: its cgroup /agents ran out of its 128 MiB memory limit"
        assert {"oom-victim", "kernel-log"} <= set(found.cites)

    def test_global_by_the_kernels_own_report(self):
        """CONSTRAINT_NONE is the machine, even for a process in a full cgroup with a limit; the largest task is the culprit."""
        tasks = (OomTask(pid=7, comm="java", uid=0, total_vm_kb=None, rss_kb=9 << 20, oom_score_adj=0),)
        report = OomReport(constraint="CONSTRAINT_NONE", global_oom=True, pid=100, tasks=tasks)
        found = verdict(died(9), OOM, chosen(), logged(oom=report), limits())
        assert (found.cause, found.confidence) == ("oom/global", "certain")
        assert "java (pid 7) 9 GiB" in found.culprit

    def test_old_kernels_say_the_scope_in_words(self):
        """Before 5.0 there is no constraint in the report: "Memory cgroup out of memory" is a cgroup's."""
        old = OomReport(memcg=True, limit_memcg="/jobs", limit_kb=65536, pid=100)
        assert "cgroup /jobs ran out of its 64 MiB" in verdict(died(9), OOM, chosen(), logged(oom=old)).headline

    def test_cgroup_from_its_limit_without_a_log(self):
        """Without the log, a limit that was nearly reached on a machine with room is "likely" the cgroup's."""
        found = verdict(died(9), OOM, chosen(), limits())
        assert (found.cause, found.confidence) == ("oom/cgroup", "likely")

    @pytest.mark.parametrize(
        "read_limits",
        [limits(limit=None), limits(limit=4 * GIB, used=GIB, available=200 * MIB)],
        ids=["no limit", "machine full"],
    )
    def test_global_from_limits_without_a_log(self, read_limits):
        """Without the log, no limit above it, or a full machine below a limit that was far, is "likely" the machine's."""
        found = verdict(died(9), OOM, chosen(), read_limits)
        assert (found.cause, found.confidence) == ("oom/global", "likely")

    def test_scope_unknown_is_only_possible(self):
        """The kernel chose it, but neither log nor limits could be read: the scope is no more than possible."""
        found = verdict(died(9), OOM, chosen(), missing=("kernel-log", "memory-limits"))
        assert (found.cause, found.confidence) == ("oom/cgroup", "possible")

    def test_sigkill_near_the_limit_is_no_oom(self):
        """A kill -9 of a process at its limit, with an OOM line among its words, is killed/sigkill: the kernel did not choose it."""
        scary = words(read("oom/cgroup", "kernel_oom", excerpt="Memory cgroup out of memory: Killed process 100"))
        found = verdict(died(9), sent(9), limits(used=128 * MIB), scary)
        assert (found.cause, found.culprit) == ("killed/sigkill", "bash (pid 812, uid 1000)")

    def test_a_dying_process_is_marked_but_not_killed(self):
        """The OOM killer also marks processes that are dying already: the SIGKILL that came first is the cause."""
        assert verdict(died(9), sent(9), chosen(), logged(oom=memcg_report())).cause == "killed/sigkill"

    def test_a_victim_that_ended_by_itself(self):
        """A process that was exiting when it was marked ended by its exit."""
        assert verdict(exited(3), chosen()).cause == "exit/status"

    def test_not_checked_without_proof(self):
        """Where nobody could see the kernel's choice, OOM is "not checked" and never guessed."""
        diagnosis = diagnose(died(9), limits(), missing=("oom-victim", "kernel-log", "actor"))
        assert {"oom/cgroup", "oom/global", "oom/userspace-killer"} <= {each.cause for each in diagnosis.not_checked}
        assert not diagnosis.findings
        assert "killed/sigkill" in {each.cause for each in diagnosis.not_checked}

    @pytest.mark.parametrize(
        ("path", "version", "command"),
        [
            ("/system.slice/agent.service", 2, "systemctl set-property agent.service MemoryMax=256M"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", 2, "systemctl --user set-property a.service"),
            ("/docker/" + "ab" * 32, 1, "docker update --memory 256M --memory-swap 256M abababababab"),
            ("/system.slice/docker-" + "ab" * 32 + ".scope", 2, "docker update"),
            ("/libpod_parent/libpod-" + "ab" * 32, 1, "podman update --memory 256M abababababab"),
            ("/kubepods/burstable/pod1/x", 2, "resources.limits.memory"),
            ("/agents/x", 1, "echo 256M > /sys/fs/cgroup/memory/agents/x/memory.limit_in_bytes"),
            ("/agents/x; rm -rf /", 2, "echo 256M > '/sys/fs/cgroup/agents/x; rm -rf //memory.max'"),
        ],
    )
    def test_advice_names_the_limits_owner(self, path, version, command):
        """The advice is the command of whoever owns the limit, quoted, so that it can be typed as it stands."""
        found = verdict(died(9), OOM, chosen(path), limits(path=path, version=version))
        assert command in found.advice[0]

    def test_others_in_the_cgroup_are_told(self):
        """A small victim of a full cgroup is told that others filled it."""
        found = verdict(died(9), OOM, chosen(anon_rss_bytes=5 * MIB), logged(oom=memcg_report()))
        assert "held only 5 MiB" in found.headline

    def test_growth_is_told(self):
        """A process that grew fast before the end is told how fast."""
        grew = MemoryHistory(source="", samples=((-1, 1, 1),) * 4, peak_rss_bytes=1, growth_bytes_per_min=410.0 * MIB)
        assert any("410 MiB a minute" in line for line in verdict(died(9), OOM, chosen(), limits(), grew).advice)

    @pytest.mark.parametrize(("status", "number"), [(died(15), 15), (died(9), 9), (exited(143), 15)])
    def test_userspace_killer(self, status, number):
        """The daemon earlyoom is blamed whether its signal killed or was answered, by its executable's name."""
        actor = sent(number, comm="earlyoom", oom_daemon="earlyoom", answered=status.signal is None)
        found = verdict(status, actor)
        assert (found.cause, found.confidence, found.culprit) == (
            "oom/userspace-killer",
            "certain",
            "earlyoom (pid 812, uid 1000)",
        )

    def test_a_memory_daemon_that_only_ran_at_that_moment(self):
        """The kernel's SIGKILL is the kernel's, whichever program it interrupted."""
        assert verdict(died(9), sent(9, "kernel", code=128, oom_daemon="earlyoom"), chosen()).cause == "oom/cgroup"

    def test_userspace_killer_through_a_manager(self):
        """A manager as sender counts if the log says that memory was why, and only "likely"; a person as sender never does."""
        told = words(read("oom/userspace-killer", "oom_daemons"))
        by_manager = verdict(died(9), sent(9, comm="systemd", manager="systemd"), told)
        assert (by_manager.cause, by_manager.confidence) == ("oom/userspace-killer", "likely")
        assert verdict(died(9), sent(9), told).cause == "killed/sigkill"
        assert verdict(died(9), sent(9, comm="systemd", manager="systemd")).cause == "killed/sigkill"

    def test_runtime_heap_of_python(self):
        """A MemoryError that nobody caught, with exit status 1, names the line and the limit that refused."""
        told = words(
            traceback("oom/runtime-heap", exception_type="MemoryError", message="", culprit="agent.py:12 in plan: MemoryError")
        )
        found = verdict(exited(1), told, limits(address_space=512 * MIB))
        assert (found.cause, found.confidence) == ("oom/runtime-heap", "certain")
        assert "agent.py:12" in found.culprit
        assert "RLIMIT_AS 512 MiB" in found.culprit

    @pytest.mark.parametrize(("number", "relation", "code"), [(4, "self", 2), (5, "kernel", 128), (6, "self", -6)])
    def test_runtime_heap_of_v8(self, number, relation, code):
        """V8 ends itself by abort or a trap when its heap is full: not a crash."""
        found = verdict(died(number), sent(number, relation, code=code), faulted(number, code), words(V8_HEAP))
        assert (found.cause, found.confidence) == ("oom/runtime-heap", "certain")

    def test_runtime_heap_words_before_a_kill(self):
        """Words about a full heap do not explain a SIGABRT that somebody sent, nor a SIGKILL."""
        assert verdict(died(6), sent(6), faulted(6, 0), words(V8_HEAP)).cause == "killed/signal"
        assert verdict(died(9), sent(9), words(V8_HEAP)).cause == "killed/sigkill"

    def test_gpu(self):
        """CUDA out of memory with a failing exit is the GPU's memory; with exit status 0 it was survived."""
        told = words(
            traceback(
                "oom/gpu", exception_type="torch.OutOfMemoryError", message="CUDA out of memory. Tried to allocate 20 MiB"
            )
        )
        found = verdict(exited(1), told)
        assert found.cause == "oom/gpu"
        assert "GPU" in found.culprit
        assert diagnose(exited(0), told).findings == ()


class TestKilled:
    """Class killed."""

    @pytest.mark.parametrize(
        ("actor", "said"),
        [
            (sent(9), "by bash (pid 812, uid 1000)"),
            (sent(9, cgroup_kill=True), "together with its whole cgroup"),
            (sent(9, "dying-parent"), "parent-death signal"),
            (sent(9, "namespace-init", code=128), "init of its pid namespace"),
            (sent(9, "ancestor"), "above it in the process tree"),
            (sent(9, "self", code=0), "to itself"),
            (sent(9, earlier=(earlier("SIGTERM"),)), "1.0 s after a SIGTERM that did not end it"),
        ],
    )
    def test_sigkill_says_in_which_way(self, actor, said):
        """The headline tells who sent it and how; that is certain."""
        found = verdict(died(9), actor)
        assert (found.cause, found.confidence) == ("killed/sigkill", "certain")
        assert said in found.headline

    def test_sigkill_from_nobody(self):
        """Nobody was seen: it is still a SIGKILL, but no more than possible, and it says so."""
        found = verdict(died(9), sent(9, "unattributed", code=None))
        assert (found.cause, found.confidence) == ("killed/sigkill", "possible")
        assert "nobody was seen" in found.headline

    def test_sigkill_from_the_kernel_for_no_known_reason(self):
        """The kernel's own SIGKILL without a victim or a limit is no OOM."""
        assert verdict(died(9), OOM).cause == "killed/sigkill"

    @pytest.mark.parametrize(
        ("status", "actor", "sure"),
        [
            (died(15), sent(15), "certain"),
            (exited(143), sent(15, answered=True), "certain"),
            (exited(1), sent(15, answered=True), "likely"),
            (died(15), sent(15, "unattributed", code=None), "possible"),
        ],
    )
    def test_sigterm(self, status, actor, sure):
        """Death by SIGTERM and a failing answer to it."""
        found = verdict(status, actor)
        assert (found.cause, found.confidence) == ("killed/sigterm", sure)

    def test_sigterm_with_an_error_in_the_clean_up(self):
        """An error while it ends on request belongs to the request; one long after an ignored request is the cause."""
        assert verdict(exited(1), sent(15, answered=True), words(traceback())).cause == "killed/sigterm"
        late = sent(15, answered=True, before_end_ns=20_000_000_000)
        assert verdict(exited(1), late, words(traceback())).cause == "exception/uncaught"

    def test_hangup(self):
        """A closed terminal, and a hang-up that was answered by the matching status."""
        found = verdict(died(1), sent(1, "terminal", code=128))
        assert (found.cause, found.culprit) == ("killed/hangup", "its terminal")
        assert verdict(exited(129), sent(1, answered=True)).cause == "killed/hangup"

    def test_hangup_that_only_reloads(self):
        """An error after a caught SIGHUP (read your configuration again) is the error's doing."""
        assert verdict(exited(1), sent(1, answered=True), words(traceback())).cause == "exception/uncaught"

    @pytest.mark.parametrize(
        ("status", "evidence", "culprit"),
        [
            (died(24), (sent(24, "kernel", code=128),), "CPU"),
            (died(25), (sent(25, "self", code=0),), "file size"),
            (died(9), (sent(9, "kernel", code=128, earlier=(earlier("SIGXCPU"),)),), "CPU"),
            (died(9), (OOM, CpuTime(source="", used_ns=2_000_000_000, limit_s=2)), "2 s"),
        ],
    )
    def test_limit(self, status, evidence, culprit):
        """A spent CPU time or file size limit, with the hard limit's SIGKILL."""
        found = verdict(status, *evidence)
        assert found.cause == "killed/limit"
        assert culprit in found.culprit

    def test_limit_near_misses(self):
        """Somebody's kill -XCPU, a SIGKILL by somebody at the limit, and an OOM kill at the limit are not the limit."""
        spent = CpuTime(source="", used_ns=2_000_000_000, limit_s=2)
        assert verdict(died(24), sent(24)).cause == "killed/signal"
        assert verdict(died(9), sent(9), spent).cause == "killed/sigkill"
        assert verdict(died(9), OOM, chosen(), spent, limits()).cause == "oom/cgroup"
        assert verdict(died(9), OOM, CpuTime(source="", used_ns=1_000_000_000, limit_s=2)).cause == "killed/sigkill"

    @pytest.mark.parametrize(
        ("number", "actor", "said"),
        [
            (10, sent(10), "SIGUSR1 from bash"),
            (13, sent(13, "self"), "reader was gone"),
            (14, sent(14, "kernel", code=128), "timer ran out"),
            (2, sent(2, "terminal", code=128), "terminal"),
            (6, sent(6, comm="systemd", manager="systemd"), "watchdog"),
            (40, sent(40, code=-1), "SIGRTMIN+6 from bash"),
            (15 + 5, sent(20), "SIGTSTP"),
        ],
    )
    def test_signal(self, number, actor, said):
        """Every other signal is told with its sender."""
        found = verdict(died(number), actor)
        assert found.cause == "killed/signal"
        assert said in found.headline

    @pytest.mark.parametrize("number", [4, 5, 6, 7, 8, 11, 31])
    def test_a_fault_signal_that_was_sent(self, number):
        """A kill -11 from outside is no crash although the signal was delivered like one; so it is from itself without a fault."""
        found = verdict(died(number), sent(number), faulted(number, 0))
        assert (found.cause, found.culprit.endswith("from bash (pid 812, uid 1000)")) == ("killed/signal", True)
        if number != 6:
            assert verdict(died(number), sent(number, "self", code=-6), faulted(number, -6)).cause == "killed/signal"

    def test_a_sender_that_nobody_could_see(self):
        """Without BPF a SIGUSR1 death is still told, without a name."""
        found = verdict(died(10), missing=("actor", "fault"))
        assert (found.cause, found.confidence) == ("killed/signal", "likely")


class TestCrash:
    """Class crash."""

    @pytest.mark.parametrize(
        ("number", "code", "cause"),
        [
            (11, 1, "crash/segfault"),
            (11, 128, "crash/segfault"),
            (7, 2, "crash/bus"),
            (8, 1, "crash/fpe"),
            (4, 2, "crash/illegal-instruction"),
            (31, 1, "crash/seccomp"),
            (5, 128, "crash/abort"),
        ],
    )
    def test_synchronous_faults(self, number, code, cause):
        """A fault that the processor or the kernel raised is certain, and its code need not be positive to 127 only."""
        relation = "kernel" if code == 128 else "self"
        found = verdict(died(number), sent(number, relation, code=code), faulted(number, code, address=0x10))
        assert (found.cause, found.confidence) == (cause, "certain")

    def test_the_culprit_is_who_called_the_c_library(self):
        """A crash in strlen blames its caller, the package of that, and the Python line of the program's own code."""
        native = stack(
            ("strlen", "/lib/libc.so.6"),
            ("encode", "/v/_tok.abi3.so"),
            ("call", "/usr/bin/python3.11"),
            owner="tokenizers 0.19.1",
        )
        frames = python(("string_at", "/usr/lib/python3.11/ctypes/__init__.py", 5), ("read_weights", "/srv/agent.py", 9))
        found = verdict(died(11), SEGV, faulted(), native, frames)
        assert found.culprit == (
            "strlen in libc.so.6+0x1000, called by encode in _tok.abi3.so+0x1001 (tokenizers 0.19.1), "
            "called from /srv/agent.py:9 in read_weights"
        )
        assert "null pointer" in found.headline
        assert "tokenizers 0.19.1" in found.advice[0]

    def test_a_crash_handler_is_seen_through(self):
        """Python's faulthandler passes the fault on with tgkill to itself: it is the crash, and told once."""
        handled = faulted(11, 1)
        assert verdict(died(11), sent(11, "self", code=-6), handled).cause == "crash/segfault"

    def test_a_crash_handlers_words_when_its_fault_was_not_seen(self):
        """Only the re-raise was seen, but its last words are those of a crash handler: likely a crash."""
        told = words(read("crash/segfault", "python_fatal"))
        found = verdict(died(11), sent(11, "self", code=-6), faulted(11, -6), told)
        assert (found.cause, found.confidence) == ("crash/segfault", "likely")

    def test_by_the_kernel_log_alone(self):
        """Without BPF the kernel's segfault line proves the fault and gives the object."""
        line = FaultLine(
            cause="crash/segfault",
            pid=100,
            address="0",
            sp="7ffcbb5eb568",
            error_code="6",
            object="libc.so.6",
            object_offset="167ad8",
        )
        found = verdict(died(11), logged(fault=line), missing=("actor", "fault", "native-stack"))
        assert (found.cause, found.confidence, found.culprit) == ("crash/segfault", "certain", "libc.so.6+0x167ad8")
        assert "wrote to" in found.headline

    def test_nothing_could_be_seen(self):
        """A SIGSEGV of which nothing is known is no more than possibly a crash, and says so."""
        found = verdict(died(11), missing=("actor", "fault", "kernel-log"))
        assert (found.cause, found.confidence) == ("crash/segfault", "possible")
        assert "could not be seen" in found.headline

    def test_stack_overflow(self):
        """A fault at the stack pointer of a deep stack is an overflow, and the function that repeats is named."""
        deep = stack(*[("think", "/srv/agent")] * 40)
        found = verdict(died(11), SEGV, faulted(near=True, address=0x7FFC00000FF8), deep)
        assert (found.cause, found.confidence) == ("crash/stack-overflow", "certain")
        assert "think calls itself" in found.headline
        assert "think in agent" in found.culprit

    def test_stack_overflow_without_a_stack(self):
        """The stack could not be read (its pointer is in the guard page): still an overflow, likely."""
        found = verdict(died(11), SEGV, faulted(near=True, address=0x7FFC00000FF8), missing=("native-stack",))
        assert (found.cause, found.confidence) == ("crash/stack-overflow", "likely")

    def test_stack_overflow_near_misses(self):
        """A null pointer, and an overrun at the top of a shallow stack, are segmentation faults."""
        assert verdict(died(11), SEGV, faulted(address=0)).cause == "crash/segfault"
        shallow = stack(("fill", "/srv/agent"), ("main", "/srv/agent"), complete=True)
        assert verdict(died(11), SEGV, faulted(near=True, address=0x7FFC00001F00), shallow).cause == "crash/segfault"

    def test_stack_overflow_that_the_runtime_tells(self):
        """Rust's guard page handler prints the overflow and aborts."""
        told = words(read("crash/stack-overflow", "rust", says="thread 'main' has overflowed its stack"))
        assert verdict(died(6), BY_ITSELF, faulted(6, -6), told).cause == "crash/stack-overflow"

    def test_abort(self):
        """abort() blames its caller, not the C library, and tells the message; words without a reason are said to have none."""
        native = stack(("raise", "/lib/libc.so.6"), ("abort", "/lib/libc.so.6"), ("free_twice", "/srv/agent"))
        told = words(read("crash/abort", "native", says="double free or corruption (out)"))
        found = verdict(died(6), BY_ITSELF, faulted(6, -6), native, told)
        assert (found.cause, found.confidence) == ("crash/abort", "certain")
        assert "free_twice in agent" in found.culprit
        assert "double free" in found.headline
        assert "abort in" not in found.culprit
        assert "give no reason" in verdict(died(6), BY_ITSELF, faulted(6, -6), words(text="working")).headline

    def test_abort_from_python(self):
        """os.abort() blames the Python line; nobody is sent to look for a bug of the C library or of Python."""
        native = stack(
            ("raise", "/lib/libc.so.6"), ("abort", "/lib/libc.so.6"), ("os_abort", "/usr/bin/python3.11"), owner="libc6 2.36"
        )
        found = verdict(died(6), BY_ITSELF, faulted(6, -6), native, python(("give_up", "/srv/agent.py", 7)))
        assert found.culprit == "/srv/agent.py:7 in give_up"
        assert found.headline.startswith("Aborted itself (SIGABRT) from agent.py:7")
        assert not any("libc6" in line for line in found.advice)

    def test_abort_near_misses(self):
        """SIGABRT by a watchdog, by a full heap, by a panic: each has its own cause."""
        panic = read("exception/panic", "rust", excerpt="thread 'main' panicked at src/main.rs:3:5:")
        assert verdict(died(6), sent(6), faulted(6, 0)).cause == "killed/signal"
        assert verdict(died(6), BY_ITSELF, faulted(6, -6), words(V8_HEAP)).cause == "oom/runtime-heap"
        assert verdict(died(6), BY_ITSELF, faulted(6, -6), words(panic)).cause == "exception/panic"

    def test_abort_after_an_uncaught_cpp_exception(self):
        """The words "terminate called after throwing" are an abort with its reason, not an exception of a runtime."""
        told = words(read("crash/abort", "native", says="terminate called after throwing std::runtime_error: no model"))
        assert "no model" in verdict(died(6), BY_ITSELF, faulted(6, -6), told).headline

    def test_bus_tells_kind(self):
        """BUS_ADRERR speaks of files, broken memory of hardware."""
        assert "mapped file" in verdict(died(7), sent(7, "self", code=2), faulted(7, 2, address=0x7F00)).headline
        assert "hardware" in verdict(died(7), sent(7, "self", code=4), faulted(7, 4, address=0x7F00)).headline

    def test_seccomp_names_the_call(self):
        """The forbidden system call is the culprit; a program's own syscall redirection is no sandbox."""
        found = verdict(died(31), sent(31, "self", code=1), faulted(31, 1, syscall_number=110))
        assert "getppid" in found.culprit
        assert "SystemCallFilter=getppid" in found.advice[0]
        assert diagnose(died(31), sent(31, "self", code=2), faulted(31, 2)).findings == ()


class TestException:
    """Class exception."""

    def test_uncaught(self):
        """A traceback at the very end and Python's exit status 1: certain, with file, line and error."""
        found = verdict(exited(1), words(traceback()))
        assert (found.cause, found.confidence, found.culprit) == (
            "exception/uncaught",
            "certain",
            "agent.py:12 in plan: KeyError",
        )
        assert "KeyError: 'y' at agent.py:12 in plan" in found.headline

    @pytest.mark.parametrize(("reader", "code"), [("node", 1), ("node", 7), ("jvm", 1), ("ruby", 1), ("php", 255)])
    def test_uncaught_in_other_runtimes(self, reader, code):
        """Each runtime has its own statuses; one that is not known may use any."""
        assert (
            verdict(exited(code), words(read("exception/uncaught", reader, excerpt="Error: x"))).cause == "exception/uncaught"
        )

    def test_a_status_that_python_does_not_use(self):
        """A traceback and then exit status 3: it was handled, and is context only."""
        found = verdict(exited(3), words(traceback()))
        assert found.cause == "exit/status"
        assert "KeyError" in found.headline

    def test_words_that_it_outlived(self):
        """A traceback with much after it is no last word; some lines of clean-up after it make it only likely."""
        went_on = words(traceback(), text=TRACEBACK + "\nworking" * 40)
        assert verdict(exited(1), went_on).cause == "exit/status"
        cleaned = words(traceback(), text=TRACEBACK + "\nclosing" * 6)
        assert verdict(exited(1), cleaned).confidence == "likely"

    def test_what_a_runtime_prints_below_its_error(self):
        """Members of an exception group, stacks and Node's version belong to the error: it is still the last word."""
        for below in ("\n    | LookupError: small" * 30, "\n    at f (a.js:1:1)" * 30, "\n\nNode.js v20.20.2"):
            found = verdict(exited(1), words(traceback(), text=TRACEBACK + below))
            assert (found.cause, found.confidence) == ("exception/uncaught", "certain")

    def test_a_dump_after_a_panic(self):
        """Status 2 with a Go panic is specific enough, however many goroutines are printed below it."""
        told = read("exception/panic", "go", excerpt="panic: boom")
        assert verdict(exited(2), words(told, text="panic: boom" + "\nmain.main()" * 90)).cause == "exception/panic"

    def test_the_programs_own_line_is_named(self):
        """An error that a library raised is told by the line of the program that called it."""
        told = traceback(
            file="/usr/lib/python3.11/socket.py", line=836, function="create_connection", culprit="agent.py:7 ask: OSError"
        )
        found = verdict(exited(1), words(told))
        assert found.headline.endswith("at agent.py:7")
        assert found.advice[0].startswith("look at agent.py:7")

    def test_words_long_past(self):
        """A traceback that was written long before the end explains no end; one some seconds before is likely."""
        assert verdict(exited(1), words(traceback(), before_end_ns=60_000_000_000)).cause == "exit/status"
        soon, later = (verdict(exited(1), words(traceback(), before_end_ns=ns)) for ns in (3_000_000, 5_000_000_000))
        assert (soon.confidence, later.confidence) == ("certain", "likely")

    def test_handled_words(self):
        """A reading that ends nothing explains nothing."""
        assert verdict(exited(1), words(read(None, excerpt=TRACEBACK))).cause == "exit/status"

    def test_scary_words_before_a_kill(self):
        """A whole traceback and then kill -9: killed."""
        assert verdict(died(9), sent(9), words(traceback())).cause == "killed/sigkill"

    def test_survived(self):
        """Exit status 0 is no failure, whatever was printed."""
        assert diagnose(exited(0), words(traceback())).findings == ()

    def test_words_that_could_not_be_read(self):
        """Without the words no exception is claimed nor ruled out."""
        diagnosis = diagnose(exited(1), missing=("last-words",))
        assert "exception/uncaught" in {each.cause for each in diagnosis.not_checked}
        assert [found.cause for found in diagnosis.findings] == ["exit/status"]

    def test_an_import_that_fails(self):
        """ModuleNotFoundError ends it like any uncaught error as long as no change is shown; the module is the culprit."""
        told = words(traceback("drift/python-import", exception_type="ModuleNotFoundError", culprit="no module named httpx"))
        found = verdict(exited(1), told)
        assert (found.cause, found.culprit) == ("exception/uncaught", "no module named httpx at agent.py:12")

    @pytest.mark.parametrize(
        ("said", "peer"),
        [
            (TCP_ERROR, "127.0.0.1:8080"),
            ("HTTPSConnectionPool(host='api.example.com', port=443): Max retries exceeded", "api.example.com:443"),
            ("Cannot connect to host llm.local:11434 ssl:default", "llm.local:11434"),
            ("connect ECONNREFUSED 127.0.0.1:9", "127.0.0.1:9"),
            ("getaddrinfo ENOTFOUND api.example.com", "api.example.com"),
            ("POST https://user:secret@api.example.com:8443/v1", "api.example.com:8443"),
            ("the read operation timed out", None),
        ],
    )
    def test_network_names_the_peer(self, said, peer):
        """The peer is the culprit as the error's words name it, without any password; without a name there is none."""
        told = traceback("exception/network", exception_type="OSError", message=said, culprit="agent.py:12", excerpt=TRACEBACK)
        found = verdict(exited(1), words(told))
        assert found.cause == "exception/network"
        assert found.culprit.startswith(f"{peer}: ") if peer else found.culprit == "agent.py:12"
        assert "secret" not in found.culprit

    def test_disk_full(self):
        """The path is the culprit; statvfs supports it, and room that came back is told."""
        told = words(
            traceback(
                "exception/disk-full", exception_type="OSError", message="[Errno 28] No space left on device", path="/var/x"
            )
        )
        full = verdict(exited(1), told, DiskSpace(source="", path="/var/x", free_bytes=0, free_inodes=9))
        assert (full.cause, "disk-space" in full.cites) == ("exception/disk-full", True)
        assert "/var/x" in full.culprit
        room = verdict(exited(1), told, DiskSpace(source="", path="/var/x", free_bytes=GIB, free_inodes=900))
        assert "disk-space" not in room.cites
        assert "room again" in room.advice[1]

    def test_fd_exhausted(self):
        """The limit is the culprit; a count near it supports it."""
        told = words(
            traceback("exception/fd-exhausted", exception_type="OSError", message="[Errno 24] Too many open files", errno=24)
        )
        found = verdict(exited(1), told, OpenFiles(source="", count=1020, limit=1024))
        assert (found.cause, "open-files" in found.cites) == ("exception/fd-exhausted", True)
        assert "1024 open files" in found.culprit
        whole = words(traceback("exception/fd-exhausted", exception_type="OSError", message="[Errno 23] x", errno=23))
        assert "fs.file-max" in verdict(exited(1), whole).culprit

    @pytest.mark.parametrize(("reader", "code"), [("go", 2), ("rust", 101)])
    def test_panic(self, reader, code):
        """Go exits with 2 and Rust with 101 after a panic; with another status it was recovered."""
        told = read("exception/panic", reader, excerpt="panic: boom", panic="boom", file="main.go", line=7)
        found = verdict(exited(code), words(told))
        assert (found.cause, found.headline) == ("exception/panic", "Panicked: boom at main.go:7")
        assert verdict(exited(5), words(told)).cause == "exit/status"

    def test_the_first_reading_that_fits_is_the_only_one(self):
        """Two errors among the last words have one verdict: the one that readers rank first."""
        told = words(traceback("exception/network", exception_type="httpx.ConnectError", message="refused"), traceback())
        assert verdict(exited(1), told).cause == "exception/network"


class TestExit:
    """Class exit."""

    def test_silent(self):
        """A status without a word is told as it is."""
        found = verdict(exited(3))
        assert (found.cause, found.confidence) == ("exit/status", "likely")
        assert "status 3" in found.headline

    def test_with_a_message(self):
        """sys.exit("message"): its last line is in the headline."""
        assert "no model is configured" in verdict(exited(1), words(text="no model is configured\n")).headline

    @pytest.mark.parametrize(
        ("code", "said"),
        [(126, "could not be run"), (127, "not found"), (137, "137 = 128+9: something it ran"), (139, "SIGSEGV")],
    )
    def test_conventions(self, code, said):
        """The shell's numbers are explained; 137 is never called out of memory."""
        found = verdict(exited(code))
        assert found.cause == "exit/status"
        assert said in found.headline

    def test_the_loaders_words(self):
        """127 with the loader's words: the program never ran, so no error of its own; the library is the culprit."""
        told = read(
            "drift/missing-library",
            "loader",
            culprit="libembed.so",
            excerpt="error while loading shared libraries: libembed.so",
        )
        found = verdict(exited(127), words(told))
        assert (found.cause, found.culprit) == ("exit/status", "libembed.so")
