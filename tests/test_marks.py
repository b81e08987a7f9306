"""Healthy marks: when a baseline is taken and kept, and what an end is compared with."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from agentscope import marks as marks_module
from agentscope.agents import start_ns_of
from agentscope.baseline import Baseline, FileState, Interpreter, MappedFile
from agentscope.baseline.differing import difference
from agentscope.baseline.facts import facts_of
from agentscope.baseline.runs import NOWHERE, as_it_began, extended, identity_in, root_with
from agentscope.baseline.store import HEALTHY_AFTER_NS, Baselines
from agentscope.baseline.taking import take, take_lightly
from agentscope.diagnosing import diagnose_process, opened_from
from agentscope.distributions import Distribution
from agentscope.distributions import installed as installed_module
from agentscope.errors import ExitStatus
from agentscope.evidence import HangScene, Missing, Words, collect_all
from agentscope.evidence.armed_drift import ArmedDrift, armed_in
from agentscope.evidence.armed_drift import collect as collect_armed
from agentscope.examination import Examination
from agentscope.marks import A_TOOL, NOT_SEEN, Marks, with_standing
from agentscope.model import Agent, Process, ProcessExec, ProcessExit
from tests.evidence_builders import TRACEBACK
from tests.test_classifier import scene

SECOND = 1_000_000_000
FAILED, CRASHED = 1 << 8, 11
SLEEPER = "import sys, time; print(flush=True); time.sleep(50)"


def mapping_victim(folder):
    """A victim that has a library of this folder mapped."""
    library = folder / "libown.so"
    real = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
    library.write_bytes(Path(real).read_bytes())
    load = "import ctypes, sys, mmap, os\nfile = os.open(sys.argv[1], os.O_RDONLY)\nkept = mmap.mmap(file, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)\n"
    return Victim(sys.executable, "-c", load + SLEEPER, str(library)), library


def now_ns() -> int:
    """CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Victim:
    """A Python process that sleeps, with its events as an engine would tell them."""

    def __init__(self, *argv, folder=None):
        self.argv = argv or (sys.executable, "-c", SLEEPER)
        self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, cwd=folder)
        self.process.stdout.readline()
        self.pid = self.process.pid
        self.start_ns = start_ns_of(self.pid) + 1  # as the kernel tells it, not rounded to ticks
        self.agent = Agent(
            name="sleeper", pid=self.pid, start_ns=self.start_ns, start_time="", command=" ".join(self.argv), uid=os.getuid()
        )
        self.as_process = Process(
            pid=self.pid,
            start_ns=self.start_ns,
            ppid=os.getpid(),
            argv=self.argv,
            exe=os.path.realpath(self.argv[0]),
            uid=os.getuid(),
        )

    def execed(self, marks, *, ago_s=0.0):
        """It became this program so long ago."""
        event = ProcessExec(
            at_ns=now_ns() - int(ago_s * SECOND), pid=self.pid, start_ns=self.start_ns, ppid=1, comm="python3", argv=self.argv, exe=None, uid=0
        )  # fmt: skip
        marks.seen(self.agent, self.as_process, event)
        settle(marks)

    def end(self, marks, status):
        """It ends, in whatever way; what is told is this status."""
        self.process.kill()
        self.process.wait()
        marks.exited(
            ProcessExit(at_ns=now_ns(), pid=self.pid, start_ns=self.start_ns, ppid=1, comm="python3", status=status, uid=0)
        )
        settle(marks)

    def scene(self, status, words=TRACEBACK, **more):
        """The scene of its end, with such last words."""
        bare = scene(status)
        said = Words(text=words.encode(), source="a test", written_ns=bare.exit.at_ns) if words else None
        process = more.pop("process", self.as_process)
        return msgspec.structs.replace(bare, agent=self.agent, process=process, words=said, family=(self.pid,), **more)


def settle(marks):
    """Wait until the thread has done what was asked of it."""
    marks.thread.submit(int).result(20)


@pytest.fixture
def marks(tmp_path):
    """Marks of an empty state directory."""
    opened = Marks(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def victim():
    """One process."""
    started = Victim()
    yield started
    started.process.kill()
    started.process.wait()


def kept(marks):
    """Names of what is kept, without the digest that they end with."""
    folder = marks.store.folder
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return sorted(f"{name.partition('-')[0]}{'.begun' if '.begun.' in name else ''}" for name in names)


class TestKeeping:
    """What is kept of a run, and when."""

    def test_a_run_that_has_just_begun_is_kept_apart_until_it_has_shown_that_it_works(self, marks, victim):
        """At the start it is looked at; a second later, when its parts are loaded, that is kept, but not as healthy."""
        victim.execed(marks)
        assert kept(marks) == []
        assert marks.own_of(victim.pid).interpreter.version.startswith("3.")
        marks.beat(now_ns())
        settle(marks)
        assert kept(marks) == []
        marks.beat(now_ns() + SECOND + 1)
        settle(marks)
        assert kept(marks) == ["sleeper.begun"]

    def test_a_run_that_has_lived_a_minute_is_healthy(self, marks, victim):
        """From then on it is the measure of the next run."""
        victim.execed(marks, ago_s=HEALTHY_AFTER_NS / SECOND + 1)
        marks.beat(now_ns())
        settle(marks)
        assert kept(marks) == ["sleeper"]
        assert marks.runs[victim.pid].healthy

    def test_the_folder_of_the_config_is_copied_while_all_is_well(self, marks, victim, tmp_path):
        """A run that has lived a minute has its folder copied once; what came there after it began is not, and that is said."""
        folder = tmp_path / "venv"
        folder.mkdir()
        (folder / "module.py").write_text("works")
        time.sleep(0.05)
        marks.snapshot_of = lambda agent: (str(folder), os.getuid()) if agent.name == "sleeper" else None
        victim.execed(marks)

        def beaten(after_ns):
            marks.beat(now_ns() + after_ns)
            settle(marks)
            marks.copier.submit(int).result(20)
            return sorted(tmp_path.glob("state/snapshots/venv-*/*/tree/module.py"))

        assert beaten(2 * SECOND) == []
        (copy,) = beaten(HEALTHY_AFTER_NS + SECOND)
        assert copy.read_text() == "works"
        (folder / "module.py").write_text("upgraded, never loaded")
        assert beaten(HEALTHY_AFTER_NS + 400 * SECOND) == [copy]
        assert copy.read_text() == "works"
        told = marks.beat(now_ns())
        assert ["module.py came after its agent started" in says for says in told] == [True]

    def test_of_many_runs_of_one_program_one_tells_for_all(self, marks, victim):
        """A hundred workers are the same program: what is kept of one just now is not written again for each."""
        victim.execed(marks, ago_s=1.5)
        marks.beat(now_ns())
        settle(marks)
        (first,) = marks.store.folder.iterdir()
        written_ns = first.stat().st_mtime_ns
        worker = Victim()
        try:
            worker.execed(marks, ago_s=1.5)
            marks.beat(now_ns())
            settle(marks)
            assert [path.stat().st_mtime_ns for path in marks.store.folder.iterdir()] == [written_ns]
            assert marks.runs[worker.pid].settled
        finally:
            worker.process.kill()
            worker.process.wait()

    def test_a_run_that_ended_well_was_healthy_however_short(self, marks, victim):
        """Exit status 0 is a healthy mark; any other is none."""
        victim.execed(marks, ago_s=1.5)
        marks.beat(now_ns())
        settle(marks)
        victim.end(marks, 0)
        assert kept(marks) == ["sleeper", "sleeper.begun"]

    def test_a_run_that_failed_is_no_measure(self, marks, victim):
        """What it stood on when it failed must not be taken for healthy."""
        victim.execed(marks, ago_s=1.5)
        marks.beat(now_ns())
        settle(marks)
        victim.end(marks, FAILED)
        assert kept(marks) == ["sleeper.begun"]

    def test_a_process_that_was_found_running_is_as_old_as_it_is(self, marks, victim, monkeypatch):
        """It is known by a start time that is a whole number of ticks, as only /proc tells it; a long life is a healthy one."""
        victim.as_process = msgspec.structs.replace(victim.as_process, start_ns=start_ns_of(victim.pid))
        victim.execed(marks)
        assert marks.runs[victim.pid].looked_at
        assert kept(marks) == ["sleeper.begun"]
        monkeypatch.setattr(marks_module, "HEALTHY_AFTER_NS", 0)
        victim.execed(marks)
        assert kept(marks) == ["sleeper", "sleeper.begun"]

    def test_a_later_mark_of_the_same_run_forgives_nothing(self, marks, victim, tmp_path):
        """What the run began with stays; only what it loaded since is added."""
        victim.execed(marks, ago_s=1.5)
        begun = marks.own_of(victim.pid)
        marks.beat(now_ns() + HEALTHY_AFTER_NS)
        settle(marks)
        again = Baselines(tmp_path / "state").load(marks.runs[victim.pid].identity)
        assert again.wall_ns == begun.wall_ns
        assert again.mapped[: len(begun.mapped)] == begun.mapped

    def test_agentscope_started_anew_goes_on_with_the_run_that_it_knew(self, victim, tmp_path):
        """What it kept of this very process counts, not what it finds now."""
        before = Marks(tmp_path)
        victim.execed(before, ago_s=1.5)
        before.beat(now_ns())
        settle(before)
        first = before.own_of(victim.pid)
        before.close()
        after = Marks(tmp_path)
        victim.execed(after)
        assert after.own_of(victim.pid).wall_ns == first.wall_ns
        after.close()

    def test_a_shell_is_told_by_what_it_runs(self, marks):
        """The baseline of a script is that of the interpreter that it started."""
        shell = Victim("/bin/sh", "-c", f"{sys.executable} -c 'import time; print(flush=True); time.sleep(50)'; true")
        try:
            shell.execed(marks, ago_s=1.5)
            assert marks.own_of(shell.pid).interpreter is not None
        finally:
            for child in Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split():
                os.kill(int(child), 9)
            shell.process.kill()
            shell.process.wait()

    def test_a_disk_that_refuses_is_told_once(self, victim, tmp_path):
        """Not every few minutes for every agent."""
        (tmp_path / "file").write_text("")
        refused = Marks(tmp_path / "file")
        victim.execed(refused, ago_s=1.5)
        refused.beat(now_ns())
        settle(refused)
        told = refused.beat(now_ns())
        assert len(told) == 1
        assert "cannot keep the baseline" in told[0]
        refused.beat(now_ns() + HEALTHY_AFTER_NS)
        settle(refused)
        assert len(refused.beat(now_ns())) <= 1
        refused.close()

    def test_who_is_gone_is_forgotten(self, marks, victim):
        """A while after its end, and also where its end was not heard."""
        victim.execed(marks)
        victim.process.kill()
        victim.process.wait()
        marks.beat(now_ns() + 2 * SECOND)
        settle(marks)
        marks.beat(now_ns() + 60 * SECOND)
        assert marks.runs == {}


class TestMeasuring:
    """What the scene of an end is given."""

    def healthy(self, marks, victim):
        """It has been healthy."""
        victim.execed(marks, ago_s=HEALTHY_AFTER_NS / SECOND + 1)
        marks.beat(now_ns())
        settle(marks)

    def test_an_ordinary_end_is_not_looked_at(self, marks, victim):
        """A kill, a clean exit and a plain status cost nothing: the scene is the same object."""
        self.healthy(marks, victim)
        for status, words in ((9, ""), (0, ""), (3 << 8, "working")):
            ended = victim.scene(status, words)
            assert marks.measured(ended) is ended

    def test_the_root_of_a_run_stays_open_while_somebody_looks_through_it(self, marks, victim):
        """It is forgotten meanwhile: else another file could have its number, and be looked into in its place."""
        self.healthy(marks, victim)
        run = marks.runs[victim.pid]
        run.root = os.open("/", os.O_PATH)
        ended = victim.scene(FAILED)
        assert marks.hold(ended) is marks.hold(ended) is run
        victim.end(marks, FAILED)
        marks.beat(now_ns() + 60 * SECOND)
        assert victim.pid not in marks.runs
        marks.release(run)
        assert os.fstat(run.root)
        opened = run.root
        assert marks.measured(ended, run).installed is not None
        marks.release(run)
        assert run.root is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(opened)

    def test_a_failure_is_compared_with_the_run_that_was_healthy(self, marks, victim):
        """Nothing changed: the difference counts what was compared, and says since when."""
        self.healthy(marks, victim)
        victim.end(marks, FAILED)
        found = marks.measured(victim.scene(FAILED))
        assert found.baseline is marks.own_of(victim.pid)
        difference = collect_all(found)["baseline-difference"]
        assert difference.own == ()
        assert (
            difference.says().partition(" unchanged since ")[0]
            == f"{difference.libraries} libraries and {difference.packages} packages"
        )

    def test_the_next_run_is_compared_with_the_healthy_one_before(self, marks, victim, tmp_path):
        """It fails at once, so that only the last healthy run tells what it should look like."""
        self.healthy(marks, victim)
        victim.end(marks, 0)
        again = Victim()
        again.execed(marks)
        again.end(marks, FAILED)
        found = marks.measured(again.scene(FAILED))
        assert found.baseline.pid == victim.pid
        assert found.installed is not None

    def test_a_first_run_that_fails_has_no_baseline(self, marks, victim):
        """It never worked, so nothing can be compared; what is installed is read all the same, for the logs."""
        victim.execed(marks, ago_s=1.5)
        marks.beat(now_ns())
        victim.end(marks, FAILED)
        found = marks.measured(victim.scene(FAILED))
        assert found.baseline is None
        assert found.installed is not None
        assert isinstance(collect_all(found)["baseline-difference"], Missing)

    def test_a_first_run_that_crashes_is_compared_with_its_own_beginning(self, marks, victim):
        """It had worked for a while: what was replaced under it since is what counts."""
        victim.execed(marks, ago_s=1.5)
        marks.beat(now_ns())
        victim.end(marks, CRASHED)
        assert marks.measured(victim.scene(CRASHED, "")).baseline is marks.own_of(victim.pid)

    def test_a_first_run_under_which_something_changed_is_compared_with_its_beginning(self, marks, victim, tmp_path):
        """A distribution is upgraded under the running agent, which then fails."""
        site = tmp_path / "site"
        dist_info(site, "partly", "1.0")
        command = f"import sys; sys.path.insert(0, {str(site)!r}); {SLEEPER}"
        agent = Victim("/usr/bin/env", f"PYTHONPATH={site}", sys.executable, "-c", command)
        try:
            agent.execed(marks, ago_s=1.5)
            marks.beat(now_ns())
            settle(marks)
            (site / "partly-1.0.dist-info").rename(site / "partly-2.0.dist-info")
            dist_info(site, "partly", "2.0")
            agent.end(marks, FAILED)
            found = marks.measured(agent.scene(FAILED))
            changed = [(each.drifted.name, each.before, each.after) for each in collect_all(found)["baseline-difference"].own]
            assert ("partly", "1.0", "2.0") in changed
        finally:
            agent.process.kill()

    def test_a_tool_and_a_stranger_have_no_baseline_and_it_is_said(self, marks, victim):
        """Baselines are kept of what is on the agent's own line."""
        assert marks.measured(victim.scene(FAILED, scope="tool")).baseline_missing == A_TOOL
        assert marks.measured(victim.scene(FAILED)).baseline_missing == NOT_SEEN

    def test_a_forked_copy_is_measured_by_the_program_that_it_is_a_copy_of(self, marks, victim):
        """A worker that never called exec stands on what its parent stands on."""
        self.healthy(marks, victim)
        worker = msgspec.structs.replace(victim.as_process, pid=victim.pid + 1, start_ns=victim.start_ns + SECOND)
        found = marks.measured(victim.scene(FAILED, process=worker))
        assert found.baseline is marks.own_of(victim.pid)

    def test_a_program_that_ended_before_its_folder_could_be_read_is_found_by_its_name(self, marks, victim, tmp_path):
        """The loader refuses it within a millisecond: the only baseline of that name is its own; of two, none is guessed."""
        self.healthy(marks, victim)
        victim.end(marks, 0)
        gone = Victim()
        gone.process.kill()
        gone.process.wait()
        gone.as_process = msgspec.structs.replace(gone.as_process, ppid=1 << 30)
        gone.execed(marks)
        assert marks.runs[gone.pid].last is not None
        marks.store.keep("sleeper-0123456789abcdef", msgspec.structs.replace(marks.runs[gone.pid].last, pid=1))
        gone.execed(marks)
        assert marks.runs[gone.pid].last is None

    def test_a_script_that_does_not_come_so_far_is_compared_with_the_program_that_it_became(self, marks, victim):
        """It was started as a script and became its program by exec; at the next start it ends while it is still the script."""
        script = msgspec.structs.replace(victim.as_process, argv=("/bin/sh", "start.sh"))
        victim.agent = msgspec.structs.replace(victim.agent, command="/bin/sh start.sh")
        self.healthy(marks, victim)
        victim.end(marks, 0)
        failed = Victim()
        failed.agent = msgspec.structs.replace(failed.agent, command="/bin/sh start.sh")
        failed.as_process = msgspec.structs.replace(script, pid=failed.pid, start_ns=failed.start_ns)
        failed.execed(marks)
        assert marks.runs[failed.pid].last is not None
        failed.process.kill()
        failed.process.wait()

    def test_files_that_do_not_answer_cost_half_a_second_once(self, marks, victim, monkeypatch):
        """A dead network file system must not stop the stream: the reason is told, and nobody waits for it again."""
        self.healthy(marks, victim)
        monkeypatch.setattr(marks_module, "LOOK_S", 0.05)
        monkeypatch.setattr(marks_module, "standing", lambda *_: time.sleep(1))
        began = time.monotonic()
        assert "within 0.05 s" in marks.measured(victim.scene(FAILED)).baseline_missing
        assert "has not come back" in marks.measured(victim.scene(FAILED)).baseline_missing
        assert time.monotonic() - began < 0.5

    def test_an_end_of_agentscope_waits_for_no_thread_that_hangs(self, tmp_path, monkeypatch):
        """A look at a dead file system never comes back: closing gives up on it."""
        closing = Marks(tmp_path)
        monkeypatch.setattr(marks_module, "CLOSE_S", 0.05)
        held = threading.Event()
        closing.thread.submit(held.wait)
        began = time.monotonic()
        closing.close()
        assert time.monotonic() - began < 1
        held.set()
        assert closing.thread.finish(5)

    def test_a_storm_of_crashes_is_not_looked_at_one_by_one(self, marks, victim, monkeypatch):
        """So many a second are compared, the rest say why they were not."""
        self.healthy(marks, victim)
        first = marks.measured(victim.scene(FAILED))
        assert marks.measured(victim.scene(FAILED)).installed is first.installed  # within a second: the same look
        marks.latest = None
        monkeypatch.setattr(marks_module, "LOOKS_S", 0.0)
        assert "so many ended at once" in marks.measured(victim.scene(FAILED)).baseline_missing


def dist_info(site, name, version):
    """A distribution as pip leaves it."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text(f"{name}/__init__.py,,\n")


class TestRuns:
    """From one run to the next."""

    AGENT = Agent(name="a", pid=1, start_ns=1, start_time="", command="python3 agent.py", uid=0)
    PROCESS = Process(pid=1, start_ns=1, argv=("/usr/bin/python3.11", "agent.py", "--session", "8f2"), uid=0)

    @staticmethod
    def mapped(path, *, stale=False, inode=7):
        """A mapped file, and what stands at its path."""
        now = FileState(path=path, device=1, inode=9 if stale else inode, size_bytes=5, mtime_ns=1, ctime_ns=1)
        return MappedFile(path=path, inode=inode, device="00:01", file=now, stale=stale)

    def baseline(self, **more):
        """A baseline with these parts."""
        return Baseline(**{"wall_ns": 9 * SECOND, "boot_id": "b", "kernel": "6.1"} | more)

    def test_a_program_has_one_name_whatever_its_arguments(self):
        """Another session, another interpreter: the same agent; another folder or script: another one."""
        name = identity_in(self.AGENT, self.PROCESS, "/srv")
        other = msgspec.structs.replace(self.PROCESS, argv=("/usr/bin/python3.13", "agent.py", "--session", "977"), pid=2)
        assert identity_in(self.AGENT, other, "/srv") == name
        assert identity_in(self.AGENT, self.PROCESS, "/home") != name
        assert identity_in(self.AGENT, msgspec.structs.replace(self.PROCESS, argv=("python3", "b.py")), "/srv") != name

    def test_a_container_of_an_unknown_image_has_none(self):
        """/app/main.py is in every second image: what one stands on says nothing of another."""
        inside = msgspec.structs.replace(self.AGENT, container="0123456789ab")
        assert identity_in(inside, self.PROCESS, "/app") is None

    def test_what_was_replaced_before_it_was_found_is_not_taken_for_healthy(self):
        """It has the old file in memory, and its packages from before it started: that is what its run has shown to work."""
        late = Distribution(name="late", version="2", folder="/s/late-2.dist-info", wall_ns=8 * SECOND)
        early = Distribution(name="early", version="1", folder="/s/early-1.dist-info", wall_ns=SECOND)
        taken = self.baseline(
            exe="/bin/x",
            mapped=(self.mapped("/lib/liba.so", stale=True), self.mapped("/lib/libb.so")),
            distributions=(early, late),
        )
        begun = as_it_began(taken, 4 * SECOND)
        assert begun.wall_ns == 4 * SECOND
        assert [found.name for found in begun.distributions] == ["early"]
        assert begun.mapped[0].file.inode == 7
        assert begun.mapped[1] == taken.mapped[1]

    def test_what_only_this_run_loaded_is_compared_too(self):
        """The last healthy run goes first: of a library that it had under another version, this run's own does not count."""
        last = self.baseline(mapped=(self.mapped("/lib/libfoo.so.1.0"),))
        own = self.baseline(mapped=(self.mapped("/lib/libfoo.so.1.1"), self.mapped("/lib/libnew.so.2")))
        assert [file.path for file in extended(last, own).mapped] == ["/lib/libfoo.so.1.0", "/lib/libnew.so.2"]
        assert extended(last, None) is last

    def test_a_program_that_stands_nowhere_leads_to_no_files_at_all(self):
        """Better none than those of another root."""
        assert root_with("/bin/sh") is None
        assert root_with("/no/such/program") == NOWHERE
        assert not Path(NOWHERE).exists()


def test_a_dead_process_that_nobody_watched_is_judged_by_logs_alone_and_it_is_said():
    """`diagnose` of a pid from the kernel log: no baseline, so a crash is not checked for drift."""
    process = Process(pid=4242, start_ns=0, comm="agent")
    agent = Agent(name="agent", pid=4242, start_ns=0, start_time="", command="agent")
    told = opened_from(process, agent, CRASHED, ())
    assert told.cause == "crash/segfault"
    assert ("drift/segfault", NOT_SEEN) in [(each.cause, each.because) for each in told.not_checked]
    assert "only package logs" in NOT_SEEN


class TestArmed:
    """Drift that has not fired yet."""

    def living(self, pid, **more):
        """The scene of a living process."""
        agent = Agent(name="a", pid=pid, start_ns=1, start_time="", command="a", uid=os.getuid())
        start_ns = start_ns_of(pid)
        examination = Examination(at_ns=now_ns(), patience_s=30.0, interval_s=1.0, watched_since_ns=None, processes=(), **more)
        return HangScene(
            agent=agent, process=Process(pid=pid, start_ns=start_ns), scope="agent", engine="none", examination=examination
        )

    def test_a_process_with_nothing_replaced_says_nothing(self, victim, tmp_path):
        """What it has in memory is what stands on disk."""
        scene_now = with_standing(self.living(victim.pid), tmp_path)
        assert scene_now.installed.pid == victim.pid
        assert collect_armed(scene_now) is None

    def test_a_library_that_was_replaced_under_a_process_is_told(self, tmp_path):
        """By its mappings alone, without a baseline: nobody watched it before."""
        agent, library = mapping_victim(tmp_path)
        try:
            fresh = tmp_path / "fresh"
            fresh.write_bytes(library.read_bytes() + b"\0")
            fresh.rename(library)
            found = collect_armed(with_standing(self.living(agent.pid), tmp_path))
            assert isinstance(found, ArmedDrift)
            assert [each.drifted.path for each in found.changed] == [str(library)]
            assert found.says().startswith("armed drift: the old ones are still in its memory")
        finally:
            agent.process.kill()
            agent.process.wait()

    def test_diagnose_tells_a_replaced_library_and_calls_the_agent_healthy(self, tmp_path):
        """Armed drift is told as what was seen; nothing is wrong yet, so there is no incident and the exit status is 0."""
        agent, library = mapping_victim(tmp_path)
        try:
            library.unlink()
            status, says = diagnose_process(str(agent.pid), str(tmp_path / "state"), as_json=True, patience_s=300)
            assert status == ExitStatus.HEALTHY
            told = {each["kind"]: each["says"] for each in json.loads(says)["evidence"]}
            assert told["armed-drift"].startswith("armed drift: the old ones are still in its memory")
            assert re.search(r"libown\.so removed at \d\d:\d\d at the latest", told["armed-drift"])
        finally:
            agent.process.kill()
            agent.process.wait()

    def test_diagnose_finds_the_baseline_whatever_the_watcher_calls_the_agent(self, victim, tmp_path):
        """A name of the configuration is part of the file's name; who is diagnosed by pid has another, and the same program."""
        living = self.living(victim.pid)
        store = Baselines(tmp_path)
        named = msgspec.structs.replace(living.agent, name="researcher")
        cwd = str(Path(f"/proc/{victim.pid}/cwd").readlink())
        store.keep(identity_in(named, living.process, cwd), take(victim.pid))
        found = collect_armed(with_standing(living, tmp_path))
        assert found is not None
        assert not found.changed
        assert re.match(r"\d+ libraries and \d+ packages are as they were at ", found.says())

    def test_what_changed_since_the_baseline_is_seen_though_the_rest_is_not_read_anew(self, victim, tmp_path):
        """A distribution with other metadata, and a library with another build, are not taken for those that are remembered."""
        now = take(victim.pid)
        older = msgspec.structs.replace(
            now,
            distributions=tuple(
                msgspec.structs.replace(found, version="0.0.1", wall_ns=found.wall_ns - SECOND) if found.name == "msgspec" else found
                for found in now.distributions
            ),
        )  # fmt: skip
        facts = facts_of(victim.pid)
        installed_module._known.clear()
        again = take_lightly(facts, older)
        assert again.system is None
        assert [each for each in difference(older, again) if each.kind != "system-package"] != []
        assert {(each.name, each.before) for each in difference(older, again)} == {("msgspec", "0.0.1")}

    def test_a_venv_whose_python_is_another_now_is_told(self):
        """It was made for 3.11 and leads to 3.13: what is installed in it is not found by the next start."""
        python = Interpreter(path="/usr/bin/python3", version="3.13.5", venv="/srv/venv", venv_version="3.11.2")
        (found,) = armed_in(None, Baseline(wall_ns=1, boot_id="b", kernel="6", interpreter=python))
        assert (found.kind, found.before, found.after) == ("venv", "3.11.2", "3.13.5")
        same = msgspec.structs.replace(python, version="3.11.9")
        assert armed_in(None, Baseline(wall_ns=1, boot_id="b", kernel="6", interpreter=same)) == ()

    def test_a_run_that_works_with_changes_since_the_last_one_is_no_warning_of_its_own(self, victim, tmp_path):
        """It lives with them: they are told as changes, not as armed."""
        now = take(victim.pid)
        older = msgspec.structs.replace(now, pid=1, wall_ns=now.wall_ns - SECOND, libc="glibc 2.1")
        seen = msgspec.structs.replace(self.living(victim.pid), baseline=older, installed=now)
        found = collect_armed(seen)
        assert found.restarted
        assert "it works with changes since its last healthy run" in found.says()
