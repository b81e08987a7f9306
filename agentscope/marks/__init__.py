"""Healthy marks: what each agent stood on when it was last known to be well, taken while it lives and kept from run to run.

A run is looked at when it starts, again and again while it settles, and from a minute on every few minutes; a run that has lived
that minute, or ended well, is the measure of the next. All of it happens in threads beside the event loop. When a run fails over
what is installed, `measured` adds to its scene what stood there and what stands there now.
"""

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec

from agentscope.agents import TICK_NS, same_identity
from agentscope.baseline import Baseline
from agentscope.baseline.differing import difference
from agentscope.baseline.facts import facts_of
from agentscope.baseline.mapped import mappings_of
from agentscope.baseline.runs import as_it_began, extended, identity_in, root_like, root_with
from agentscope.baseline.store import HEALTHY_AFTER_NS, Baselines
from agentscope.baseline.taking import grown, take, take_lightly
from agentscope.errors import CannotWrite
from agentscope.evidence import HangScene, Scene
from agentscope.evidence.package_changes import may_be_drift
from agentscope.marks.beside import Beside
from agentscope.marks.run import Run, body_of, cwd_of, lives, root_of, same_run, standing
from agentscope.model import Agent, Process, ProcessExec, ProcessExit

SECOND_NS = 1_000_000_000
SETTLING_NS = (SECOND_NS, 4 * SECOND_NS, 15 * SECOND_NS)  # after the start: programs load their parts by and by
MARK_EVERY_NS = 300 * SECOND_NS
MARKS_A_BEAT = 8
KEPT_FOR_NS = 20 * SECOND_NS
FORGET_AFTER_NS = 10 * SECOND_NS  # an end can be held for its wrapper before it is told
RUNS_LIMIT = 2000
FAILURES_LIMIT = 100
NAMESAKES_LIMIT = 4
CLOSE_S = 2.0
LOOK_S = 2.0  # at most, and only where nothing was read before: else it is a matter of milliseconds
LOOKS_S = 4.0  # in ten seconds: a storm of crashes must not take a core for itself
LOOKS_IN_NS = 10 * SECOND_NS
REUSED_NS = SECOND_NS

BEGUN = ".begun"  # what a run began with, before it has shown that it works
_KEPT = re.compile(r"^(.+)-([0-9a-f]{16})\.json\.gz$")

NOT_SEEN = "nobody looked at it while it lived: there is no baseline, only package logs"
A_TOOL = "of tools no baseline is kept: there are only package logs"


class Marks:
    """The healthy marks of all agents of one state directory. But for `measured`, its methods are the event loop's and do not wait."""

    def __init__(self, state: Path, lockfile_of: Callable[[Agent], str | None] = lambda _: None) -> None:
        self.store = Baselines(state)
        self.lockfile_of = lockfile_of
        self.snapshot_of: Callable[[Agent], tuple[str, int] | None] = lambda _: None  # a folder, and whose the config is
        self.state = state
        self.copier = Beside("snapshots")
        self.runs: dict[int, Run] = {}
        self.failures: deque[str] = deque(maxlen=8)
        self.failed_before: set[str] = set()
        self.thread = Beside("marks")
        self.looker = Beside("looks")
        self.stuck: Future[Baseline | None] | None = None
        self.spent: deque[tuple[int, float]] = deque()
        self.latest: tuple[int, Baseline, Baseline] | None = None
        self.kept: dict[str, tuple[int, int]] = {}  # by whom and when, in the thread only
        self.closing = False
        self.warm = False

    def close(self) -> None:
        """Keep what is still to be kept, and stop; a thread that hangs is left behind."""
        self.closing = True
        for run in self.runs.values():
            self._drop(run)
        self.runs.clear()
        self.thread.finish(CLOSE_S)

    # --- while it lives -----------------------------------------------------------------------------------------------------

    def seen(self, agent: Agent, process: Process, event: ProcessExec) -> None:
        """A process on an agent's line became a program, or was found to be one."""
        known = self.runs.pop(process.pid, None)
        if known is not None:
            self._drop(known)
        if len(self.runs) >= RUNS_LIMIT:
            return
        # a start time read in /proc is a whole number of ticks; one from the kernel is not
        looked_at = process.start_ns % TICK_NS == 0
        since_ns = process.start_ns if looked_at else event.at_ns
        run = Run(agent, process, since_ns, looked_at, cwd_of(process), root_of(process))
        run.lockfile = self._lockfile_of(run)
        run.next_ns = since_ns + SETTLING_NS[0]
        self.runs[process.pid] = run
        run.known = self._submit(self._know, run)
        run.pending = self._submit(self._begin, run, event.at_ns)

    def _lockfile_of(self, run: Run) -> str | None:
        """The lock file that is configured for its agent; a relative one is in the folder that the agent was started in."""
        configured = self.lockfile_of(run.agent)
        if configured is None or configured.startswith("/"):
            return configured
        first = self.runs.get(run.agent.pid, run)
        return f"{first.cwd or run.cwd}/{configured}" if first.cwd or run.cwd else configured

    def exited(self, event: ProcessExit) -> None:
        """A process ended: one that ended well was healthy, however short its life."""
        run = self.runs.get(event.pid)
        if run is None or not same_identity(run.process.start_ns, event.start_ns):
            return
        run.ended_ns = event.at_ns
        if event.status == 0 and run.settled and not run.healthy and run.own is not None:
            self._submit(self._keep, run, run.own)
            self._snapshot(run)

    def beat(self, now_ns: int) -> tuple[str, ...]:
        """Once a second: mark who is due, the longest overdue first, and forget who is gone. What could not be kept, in words."""
        due = []
        for pid, run in list(self.runs.items()):
            if run.ended_ns is not None:
                if now_ns - run.ended_ns > FORGET_AFTER_NS:
                    self._drop(self.runs.pop(pid))
            elif run.next_ns <= now_ns and (run.pending is None or run.pending.done()):
                due.append(run)
        for run in sorted(due, key=lambda run: run.next_ns)[:MARKS_A_BEAT]:
            run.pending = self._submit(self._mark, run, now_ns)
        told = tuple(self.failures)
        self.failures.clear()
        return told

    def own_of(self, pid: int) -> Baseline | None:
        """What is known of a living process: what it stood on when it was first looked at."""
        run = self.runs.get(pid)
        return run.own if run is not None else None

    # --- in the thread ------------------------------------------------------------------------------------------------------

    def _submit(self, task: Callable[..., None], *given: object) -> Future[None]:
        """Do it in the thread; what fails there is told once."""

        def guarded() -> None:
            try:
                task(*given)
            except Exception as error:
                self._failed(type(error).__name__, f"{type(error).__name__}: {error}")
                raise

        return self.thread.submit(guarded)

    def _failed(self, why: str, says: str) -> None:
        """To be told once, not for every agent every few minutes."""
        if why not in self.failed_before and len(self.failed_before) < FAILURES_LIMIT:
            self.failed_before.add(why)
            self.failures.append(says)

    def _know(self, run: Run) -> None:
        """What of it outlives it, read at once, and what is kept of its runs before."""
        if lives(run):
            run.facts = facts_of(run.process.pid, start_ns=run.process.start_ns, container=run.agent.container)
        run.identity = identity_in(run.agent, run.process, run.facts.cwd if run.facts else run.cwd)
        if run.identity is not None and run.process.pid == run.agent.pid:
            started = msgspec.structs.replace(run.process, argv=())
            run.first = identity_in(run.agent, started, run.facts.cwd if run.facts else run.cwd)
        if run.identity is not None:
            run.last = self.store.load(run.identity)
            begun = run.last or self.store.load(f"{run.identity}{BEGUN}")
            if begun is not None and same_run(begun, run.process):
                run.own, run.settled, run.healthy = begun, True, run.last is not None
            if run.last is None and run.facts is None:
                run.last = self._only_one(run.identity)

    def _begin(self, run: Run, now_ns: int) -> None:
        """The first look, at what it stands on already."""
        if run.looked_at:
            self._mark(run, now_ns)
        else:
            self._look(run)
        if not self.warm:
            self.warm = True
            warm()

    def _only_one(self, identity: str) -> Baseline | None:
        """The baseline of a program that ended before its folder could be read: the only one that is kept under its name.

        One that became another program is kept under both, so two files can be of one run.
        """
        name = identity.rpartition("-")[0]
        with contextlib.suppress(OSError):
            files = [
                found for entry in os.scandir(self.store.folder) if (found := _KEPT.match(entry.name)) and found[1] == name
            ]
            if len(files) > NAMESAKES_LIMIT:
                return None
            kept = [base for found in files if (base := self.store.load(f"{name}-{found[2]}")) is not None]
            return kept[0] if len({(base.boot_id, base.pid, base.start_ns) for base in kept}) == 1 else None
        return None

    def _mark(self, run: Run, now_ns: int) -> None:
        """Look again; what has settled is kept, at its turn or where it grew."""
        ahead = [run.since_ns + after for after in (*SETTLING_NS, HEALTHY_AFTER_NS) if run.since_ns + after > now_ns]
        run.next_ns = ahead[0] if ahead else now_ns + MARK_EVERY_NS
        grew = self._look(run)
        if not grew and not lives(run):
            run.ended_ns = run.ended_ns or now_ns  # if its end was not heard
        if run.own is None:
            return
        healthy = now_ns - run.since_ns >= HEALTHY_AFTER_NS
        if healthy and run.ended_ns is None:
            self._snapshot(run)
        if healthy and (grew or not run.healthy):
            self._keep(run, run.own)
        elif not healthy and run.last is None and run.identity is not None and (grew or not run.settled):
            # without the packages of the system, which are most of it: their logs tell as well
            self._store(f"{run.identity}{BEGUN}", msgspec.structs.replace(run.own, system=None), run)
        run.settled = True

    def _look(self, run: Run) -> bool:
        """Take what the process stands on now, if it has loaded more than before; what was seen of this run is not forgiven."""
        if self.closing:
            return False
        body = body_of(run.process.pid, run.process.argv)
        paths = frozenset(mapping.path for mapping in mappings_of(body))
        if run.own is not None and paths <= run.paths:
            return False
        facts = facts_of(body, start_ns=run.process.start_ns, container=run.agent.container) if lives(run) else None
        taken = take(facts, lockfile=run.lockfile) if facts is not None else None
        if taken is None or not lives(run):
            return False
        taken = msgspec.structs.replace(taken, pid=run.process.pid)
        if run.own is None and run.looked_at:
            started_ns = time.time_ns() - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - run.process.start_ns)
            taken = as_it_began(taken, started_ns)
        run.own = taken if run.own is None else grown(run.own, taken)
        run.paths |= paths
        return True

    def _keep(self, run: Run, own: Baseline) -> None:
        """This run is the measure of the next, also of one that does not come so far as to become this program."""
        if run.identity is not None:
            run.healthy = True
            for identity in {run.identity, run.first or run.identity}:
                self._store(identity, own, run)

    def _snapshot(self, run: Run) -> None:
        """Keep a copy of the folder that its config names, as it was when this run began, in a thread of its own: that can take long."""
        wanted = self.snapshot_of(run.agent)
        if wanted is None or (run.copying is not None and not run.copying.done()):
            return
        since_ns = time.time_ns() - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - run.since_ns)
        run.copying = self.copier.submit(self._copy, Path(wanted[0]), wanted[1], since_ns)

    def _copy(self, folder: Path, owner_uid: int, since_ns: int) -> None:
        from agentscope.snapshots import keep

        try:
            kept = keep(folder, self.state, owner_uid=owner_uid, since_wall_ns=since_ns)
        except Exception as error:
            self._failed(f"snapshot {folder}", f"no snapshot of {folder}: {type(error).__name__}: {error}")
            raise
        if not kept.current:
            self._failed(kept.says, kept.says)

    def _store(self, identity: str, baseline: Baseline, run: Run) -> None:
        """Keep it, unless another run of the same program was kept just now: of a hundred workers one tells for all."""
        now_ns = time.monotonic_ns()
        by, at_ns = self.kept.get(identity, (run.process.pid, 0))
        if by != run.process.pid and now_ns - at_ns < KEPT_FOR_NS:
            return
        self.kept = {name: kept for name, kept in self.kept.items() if now_ns - kept[1] < KEPT_FOR_NS}
        self.kept[identity] = (run.process.pid, now_ns)
        try:
            self.store.keep(identity, baseline)
        except CannotWrite as error:
            self._failed(error.why, str(error))

    @staticmethod
    def _drop(run: Run) -> None:
        run.dropped = True
        if run.root is not None and not run.held:
            os.close(run.root)
            run.root = None

    # --- at an end ----------------------------------------------------------------------------------------------------------

    def hold(self, scene: Scene) -> Run | None:
        """The run of an end that is measured in another thread: what it needs stays open until it is released."""
        run = self._run_of(scene)
        if run is not None:
            run.held += 1
        return run

    def release(self, run: Run) -> None:
        """It has been measured."""
        run.held -= 1
        if run.dropped:
            self._drop(run)

    def measured(self, scene: Scene, held: Run | None = None) -> Scene:
        """The scene of an end that may be drift, with what stood there when all was well and what stands there now.

        It waits, for at most twice LOOK_S. Of a run that is `held` another thread than the event loop's may ask.
        """
        if not may_be_drift(scene):
            return scene
        run = held or self._run_of(scene)
        if run is None:
            return msgspec.structs.replace(scene, baseline_missing=A_TOOL if scene.scope == "tool" else NOT_SEEN)
        try:
            if run.known is not None:
                run.known.result(LOOK_S)
        except TimeoutError:
            return msgspec.structs.replace(scene, baseline_missing="its baseline could not be read in time")
        except Exception as error:  # noqa: BLE001 - a hostile file costs this evidence only, and it is said
            return msgspec.structs.replace(scene, baseline_missing=f"its baseline could not be read: {type(error).__name__}")
        own = run.own
        base = own if run.healthy else extended(run.last, own) if run.last else own if run.settled else None
        root = f"/proc/self/fd/{run.root}" if run.root is not None else None
        if root is None and base is not None and not base.own_root:
            root = root_like(base)
        elif root is None and run.facts is None and run.process.exe is not None:
            root = root_with(run.process.exe)
        mapped = [mapping.path.removesuffix(" (deleted)") for mapping in scene.exit.mappings or ()] or sorted(run.paths)
        installed = self._now(run, base, root, mapped)
        if isinstance(installed, str):
            return msgspec.structs.replace(scene, baseline_missing=installed, root=root)
        only_begun = base is not None and base is own and not run.healthy
        if only_begun and base is not None and scene.exit.code is not None and not difference(base, installed):
            base = None  # it may never have worked: the logs from before its start tell more
        return msgspec.structs.replace(scene, baseline=base, installed=installed, root=root)

    def _run_of(self, scene: Scene) -> Run | None:
        """The run of a process, or of the one in its tree that it is a forked copy of."""
        run = self.runs.get(scene.process.pid)
        if run is not None and same_identity(run.process.start_ns, scene.process.start_ns):
            return run
        family = (self.runs.get(pid) for pid in scene.family)
        return next((run for run in family if run is not None and run.process.argv == scene.process.argv), None)

    def _now(self, run: Run, base: Baseline | None, root: str | None, mapped: list[str]) -> Baseline | str:
        """What stands there now, or why that could not be had in time."""
        began_ns = time.monotonic_ns()
        while self.spent and began_ns - self.spent[0][0] > LOOKS_IN_NS:
            self.spent.popleft()
        if self.latest is not None and self.latest[1] is base and began_ns - self.latest[0] < REUSED_NS:
            return self.latest[2]
        if self.stuck is not None and not self.stuck.done():
            return "an earlier look at installed files has not come back"
        if sum(seconds for _, seconds in self.spent) > LOOKS_S:
            return "so many ended at once that what is installed was not looked at for each"
        future = self.looker.submit(standing, run, base, root, mapped)
        try:
            found = future.result(LOOK_S)
        except TimeoutError:
            self.stuck = future
            return f"what is installed could not be looked at within {LOOK_S:g} s"
        except Exception as error:  # noqa: BLE001 - as above
            return f"what is installed could not be looked at: {type(error).__name__}: {error}"[:300]
        finally:
            self.spent.append((began_ns, (time.monotonic_ns() - began_ns) / SECOND_NS))
        if found is None:
            return "what is installed could not be looked at"
        if base is not None:
            self.latest = (began_ns, base, found)
        return found


def with_standing(scene: HangScene, state: Path) -> HangScene:
    """The scene of a living process, watched or not, with what it stands on now and what its agent's baseline says.

    It takes about 20 ms where a baseline is kept, and half of that where none is.
    """
    process = scene.process
    facts = facts_of(process.pid, start_ns=process.start_ns, container=scene.agent.container)
    identity = identity_in(scene.agent, process, facts.cwd) if facts is not None else None
    store = Baselines(state)
    kept = (store.load_alike(identity) or store.load_alike(f"{identity}{BEGUN}")) if identity is not None else None
    now = take_lightly(facts, kept) if facts is not None else None
    if facts is None or now is None or not now.mapped:
        return scene  # it ended meanwhile, or may not be looked at
    if kept is not None and same_run(kept, process):
        now = msgspec.structs.replace(now, start_ns=kept.start_ns)  # to the tick in one, exact in the other
    return msgspec.structs.replace(scene, baseline=kept, installed=now, root=None if facts.own_root else facts.root)


def warm() -> None:
    """Load what the first end that may be drift will need: compiling its patterns then would cost a tenth of a second."""
    from agentscope.changes import Place, read_changes
    from agentscope.distributions import accused
    from agentscope.symbols import needs  # noqa: F401 - loading it is the purpose

    assert accused
    now_ns = time.time_ns()
    read_changes(Place(since_ns=now_ns, until_ns=now_ns))
