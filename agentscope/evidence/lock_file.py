"""Which packages are installed otherwise than the lock file has them: whoever installed them did not go by it."""

from agentscope.distributions import Deviation
from agentscope.evidence import AnyScene, Evidence, Missing, Scene
from agentscope.evidence.package_changes import may_be_drift

ABSENT = "no lock file is configured for it, and none lies in its folder"


class LockDeviations(Evidence, frozen=True, tag="lock-file"):
    """The file, how many packages it pins, and those that are installed in another version: at most 20 of `count`."""

    path: str
    locked: int
    deviating: tuple[Deviation, ...]
    count: int

    def says(self) -> str:
        """One sentence for a person."""
        name = self.path.rpartition("/")[2]
        if not self.deviating:
            return f"of the {self.locked} packages that {name} pins none is installed in another version"
        told = "; ".join(
            f"{each.name} {each.installed} is installed, {name} has {', '.join(each.locked)}" for each in self.deviating[:3]
        )
        more = f"; and {self.count - 3} more" if self.count > 3 else ""
        return f"{told}{more}"


def collect(scene: AnyScene) -> LockDeviations | Missing | None:
    """From the lock file and the metadata as they stand now."""
    if isinstance(scene, Scene) and not may_be_drift(scene):
        return None
    lock = scene.installed.lock if scene.installed is not None else None
    if lock is None:
        return None
    if lock.unread is not None:
        return Missing(kind="lock-file", because=f"{lock.path}: {lock.unread}")
    if not lock.locked:
        return None
    return LockDeviations(source=lock.path, path=lock.path, locked=lock.locked, deviating=lock.deviating, count=lock.count)
