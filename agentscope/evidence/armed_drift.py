"""What a living process has in memory and what was replaced on disk since: it works, until it loads the rest or starts anew."""

from collections.abc import Iterator

from agentscope.baseline import Baseline, Drifted, MappedFile
from agentscope.baseline.clock import UTC, Clock, clock
from agentscope.baseline.differing import compared, difference
from agentscope.baseline.joining import Changed, explain, place_of, told
from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.evidence.package_changes import wall_of

ABSENT = "nothing that it has in memory was replaced on disk"
KEPT = 40
# Code that a runtime wrote for itself and unlinked at once is stale from the beginning.
_LIBRARY = ".so"
_OWN = frozenset({"library", "program", "interpreter", "venv", "distribution", "node-package", "libc", "image"})


class ArmedDrift(Evidence, frozen=True, tag="armed-drift"):
    """`changed` is what differs, `count` how many there are; `since_wall_ns` is since when it was compared (ns since 1970).

    `restarted` tells that the comparison is with an earlier run: then it lives with these changes already. `libraries` and
    `packages` are how many of a baseline were compared.
    """

    since_wall_ns: int
    changed: tuple[Changed, ...]
    count: int
    restarted: bool = False
    libraries: int = 0
    packages: int = 0
    clock: Clock = UTC

    def says(self) -> str:
        """One sentence for a person."""
        if not self.changed:
            return f"{self.libraries} libraries and {self.packages} packages are as they were at {self.clock.moment(self.since_wall_ns)}"
        shown = []
        for each in self.changed[:3]:
            gone_ns = each.drifted.until_ns
            latest = f" at {self.clock.moment(gone_ns)} at the latest" if gone_ns is not None else ""
            at = f" at {self.clock.moment(each.wall_ns)}" if each.wall_ns is not None else latest
            shown.append(f"{each.says()}{at}")
        more = f", and {self.count - 3} more" if self.count > 3 else ""
        if self.restarted:
            return f"it works with changes since its last healthy run at {self.clock.moment(self.since_wall_ns)}: {'; '.join(shown)}{more}"
        return (
            f"armed drift: the old ones are still in its memory, and may not fit what it loads next: {'; '.join(shown)}{more}"
        )


def armed_in(baseline: Baseline | None, now: Baseline) -> tuple[Drifted, ...]:
    """What a living process still has the old form of in memory, as `now` was taken of it; `baseline` is of the same run."""
    found: dict[tuple[str, str], Drifted] = {}
    for each in (
        *_moved_under(now),
        *(difference(baseline, now) if baseline is not None else ()),
        *(_stale(file, now.exe) for file in now.mapped),
    ):
        if each is not None and each.armed:
            found.setdefault((each.kind, each.path or each.name), each)
    return tuple(found.values())


def _stale(file: MappedFile, exe: str | None) -> Drifted | None:
    """A library, or the program, whose path leads to another file than the one in memory, or to none."""
    if not file.stale or (_LIBRARY not in file.path and file.path != exe):
        return None
    return Drifted(
        kind="program" if file.path == exe else "library",
        name=file.path.rpartition("/")[2],
        how="removed" if file.file is None else "replaced",
        path=file.path,
        changed_ns=file.file.ctime_ns if file.file is not None else None,
        armed=True,
    )


def _moved_under(now: Baseline) -> Iterator[Drifted]:
    """A venv that was made for another Python than the one that it leads to now: what is installed in it will not be found."""
    python = now.interpreter
    if python is None or not python.venv or not python.venv_version or not python.version:
        return
    made, leads = (".".join(version.split(".")[:2]) for version in (python.venv_version, python.version))
    if made != leads:
        yield Drifted(
            kind="venv",
            name=python.venv,
            how="changed",
            before=python.venv_version,
            after=python.version,
            path=python.venv,
            changed_ns=python.file.ctime_ns if python.file else None,
            armed=True,
        )


def collect(scene: HangScene) -> ArmedDrift | Missing | None:
    """From what the process stood on when it was first looked at, its mappings, and the files now."""
    now, before = scene.installed, scene.baseline
    if now is None:
        return None
    same_run = before is not None and (before.boot_id, before.pid, before.start_ns) == (now.boot_id, now.pid, now.start_ns)
    drifted = armed_in(before if same_run else None, now)
    restarted = not drifted and before is not None and not same_run
    if restarted and before is not None:
        drifted = tuple(each for each in difference(before, now) if each.kind in _OWN and each.how != "added")
    if not drifted and before is None:
        return None
    # what it has in memory stood there when it started
    since_ns = before.wall_ns if before is not None else wall_of(scene.process.start_ns)
    window = place_of(now, since_ns=max(0, since_ns), until_ns=now.wall_ns, root=scene.root)
    libraries, packages = compared(before, now) if before is not None else (0, 0)
    return ArmedDrift(
        source=f"/proc/PID/maps, the files at those paths now{', and its baseline' if before is not None else ''}",
        since_wall_ns=since_ns,
        changed=explain(drifted[:KEPT], told(window, scene.examination.at_ns), root=scene.root) if drifted else (),
        count=len(drifted),
        restarted=restarted,
        libraries=libraries,
        packages=packages,
        clock=clock(since_ns),
    )
