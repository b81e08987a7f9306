"""The Python stacks of the agent's processes, taken from outside while they went on."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination.frames import blamed_place
from agentscope.model import PythonFrame, Value

ABSENT = "no Python stacks were taken: it runs no Python, or nothing was outstanding"
THREADS = 200
FRAMES = 40


class PythonStackSeen(Value, frozen=True):
    """One Python thread of one process, frames innermost first, cut to the innermost 32 and the outermost 8."""

    pid: int
    tid: int
    name: str | None
    frames: tuple[PythonFrame, ...]
    owns_gil: bool = False


class PythonThreads(Evidence, frozen=True, tag="python-threads"):
    """At most 200 threads; those that wait for a lock first, then main threads."""

    version: str | None
    threads: tuple[PythonStackSeen, ...]

    def of(self, pid: int, tid: int) -> tuple[PythonFrame, ...]:
        """The frames of a thread; none where it is no Python thread."""
        return next((each.frames for each in self.threads if each.tid == tid and each.pid == pid), ())

    def says(self) -> str:
        """One sentence for a person."""
        shown = [each for each in self.threads if each.frames][:3]
        told = "; ".join(f"{each.name or f'thread {each.tid}'} at {blamed_place(each.frames)}" for each in shown)
        others = len(self.threads) - len(shown)
        more = f" ({others} more thread{'s' if others > 1 else ''})" if others > 0 else ""
        return f"Python {self.version or ''}".rstrip() + f": {told or 'no frames'}{more}"


def collect(scene: HangScene) -> PythonThreads | Missing | None:
    """From the interpreter's memory, read from outside."""
    stacks = scene.examination.python
    if not stacks:
        return scene.missing("python-threads")
    threads = [
        PythonStackSeen(
            pid=each.pid, tid=thread.tid, name=thread.name, frames=cut(thread.frames), owns_gil=thread.owns_gil
        )
        for each in stacks
        for thread in each.threads
    ]  # fmt: skip
    at_locks = {(wait.pid, wait.tid) for wait in scene.examination.lock_waits}
    threads.sort(key=lambda each: ((each.pid, each.tid) not in at_locks, each.pid != each.tid, not blamed_place(each.frames)))
    return PythonThreads(source="py-spy, without a pause", version=stacks[0].version, threads=tuple(threads[:THREADS]))


def cut(frames: tuple[PythonFrame, ...]) -> tuple[PythonFrame, ...]:
    """The frames, bounded; both ends tell most."""
    return frames if len(frames) <= FRAMES else (*frames[: FRAMES - 8], *frames[-8:])
