"""What is not as it was in the last healthy run, with who changed it and when; or that nothing is."""

from agentscope.baseline import DriftKind
from agentscope.baseline.clock import UTC, Clock, clock
from agentscope.baseline.differing import compared, difference
from agentscope.baseline.joining import Changed, explain, told
from agentscope.baseline.mapped import stem_of
from agentscope.changes import Ecosystem
from agentscope.distributions.installed import normal
from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.package_changes import may_be_drift, window_of

ABSENT = "nothing that it died of depends on what is installed"
READS_FILES = True
KEPT = 80
# What the program itself is made of; the rest lies around it, and says something only with more.
OWN: frozenset[DriftKind] = frozenset(
    {"library", "program", "interpreter", "venv", "distribution", "node-package", "libc", "image"}
)
_KINDS: dict[DriftKind, tuple[Ecosystem, ...]] = {
    "distribution": ("python",),
    "node-package": ("node",),
    "system-package": ("dpkg", "apk", "pacman", "rpm"),
}


class BaselineDifference(Evidence, frozen=True, tag="baseline-difference"):
    """What changed since the baseline was taken at `since_wall_ns` (ns since 1970), of `libraries` and `packages` compared.

    `changed` holds at most 80, of what the program is made of first; `count` is how many there are.
    """

    since_wall_ns: int
    libraries: int
    packages: int
    changed: tuple[Changed, ...] = ()
    count: int = 0
    clock: Clock = UTC

    def says(self) -> str:
        """One sentence for a person."""
        since = self.clock.moment(self.since_wall_ns)
        compared = f"{self.libraries} libraries and {self.packages} packages"
        own = self.own
        if not own:
            others = f"; {self.count} things around it changed" if self.count else ""
            return f"{compared} unchanged since {since}{others}"
        first = own[0]
        at = f" at {self.clock.moment(first.wall_ns)}" if first.wall_ns is not None else ""
        more = f", and {len(own) - 1} more" if len(own) > 1 else ""
        return f"{first.says()}{at}{more} since the last healthy run at {since}"

    @property
    def own(self) -> tuple[Changed, ...]:
        """What the program itself is made of and is not as it was; what was only added is not among it."""
        return tuple(each for each in self.changed if each.drifted.kind in OWN and each.drifted.how != "added")

    def of_file(self, path: str) -> Changed | None:
        """The change of a file that the program had mapped, by its path then or now, or by the name that a library keeps."""
        plain = path.removesuffix(" (deleted)")
        files = [each for each in self.changed if each.drifted.kind in {"library", "program"}]
        exact = (each for each in files if plain in {each.drifted.path, each.drifted.former_path})
        stem = stem_of(plain)
        alike = (each for each in files if stem_of(each.drifted.path or "") == stem)
        return next(exact, None) or next(alike, None)

    def of_package(self, ecosystem: Ecosystem, name: str) -> Changed | None:
        """The change of a package: of a language by its name, of the system by that or by what owns a library."""

        def same(each: Changed) -> bool:
            if ecosystem in _KINDS.get(each.drifted.kind, ()):
                found = each.drifted.name.partition(":")[0]
                return normal(found) == normal(name) if ecosystem == "python" else found == name
            return each.change is not None and each.change.ecosystem == ecosystem and each.change.what == name

        return next((each for each in self.changed if same(each)), None)


def collect(scene: Scene) -> BaselineDifference | Missing | None:
    """The baseline from before against what stands there now, and the logs in between."""
    if not may_be_drift(scene):
        return None
    if scene.baseline is None:
        because = scene.baseline_missing or "this is its first run that was watched: there is no baseline, only package logs"
        return Missing(kind="baseline-difference", because=because)
    window = window_of(scene)
    if scene.installed is None or window is None:
        return Missing(kind="baseline-difference", because="what is installed now could not be looked at")
    drifted = difference(scene.baseline, scene.installed)
    ordered = sorted(drifted, key=lambda each: each.kind not in OWN or each.how == "added")
    libraries, packages = compared(scene.baseline, scene.installed)
    return BaselineDifference(
        source="the baseline of its last healthy run, and the files now",
        since_wall_ns=scene.baseline.wall_ns,
        libraries=libraries,
        packages=packages,
        changed=explain(ordered[:KEPT], told(window, scene.exit.at_ns), root=scene.root) if drifted else (),
        count=len(drifted),
        clock=clock(scene.baseline.wall_ns),
    )
