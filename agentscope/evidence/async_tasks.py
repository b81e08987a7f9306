"""The asyncio tasks that have not finished, with the chain of what each awaits."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination.frames import blamed_place
from agentscope.model import PythonFrame, Value

ABSENT = "it has no asyncio tasks, or nothing was outstanding"
TASKS = 100
FRAMES = 40


class TaskSeen(Value, frozen=True):
    """One task. The chain is outermost coroutine first; `awaits` names what the innermost waits for, where it is known."""

    pid: int
    name: str
    chain: tuple[PythonFrame, ...]
    awaits: str | None = None

    @property
    def place(self) -> str:
        """Where it waits: the innermost line of the program's own."""
        return blamed_place(self.chain[::-1])


class AsyncTasks(Evidence, frozen=True, tag="async-tasks"):
    """At most 100 tasks; `count` is of all."""

    tasks: tuple[TaskSeen, ...]
    count: int

    def of(self, pid: int) -> tuple[TaskSeen, ...]:
        """The tasks of a process."""
        return tuple(each for each in self.tasks if each.pid == pid)

    def says(self) -> str:
        """One sentence for a person."""
        told = "; ".join(
            f"{each.name} at {each.place}{f', awaiting {each.awaits}' if each.awaits else ''}" for each in self.tasks[:3]
        )
        return f"{self.count} asyncio tasks: {told}{f' ({self.count - 3} more)' if self.count > 3 else ''}"


def collect(scene: HangScene) -> AsyncTasks | Missing | None:
    """From the interpreter's memory, where its version is one whose tasks can be read."""
    stacks = scene.examination.python
    tasks = [
        TaskSeen(pid=each.pid, name=task.name, chain=task.chain[:8] + task.chain[8:][-(FRAMES - 8) :], awaits=task.awaits)
        for each in stacks
        for task in each.tasks or ()
    ]
    if tasks:
        return AsyncTasks(source="memory of the interpreter", tasks=tuple(tasks[:TASKS]), count=len(tasks))
    if stacks and all(each.tasks is None for each in stacks):
        return scene.missing("async-tasks") or Missing(
            kind="async-tasks", because=f"the tasks of Python {stacks[0].version or '?'} cannot be read"
        )
    return scene.missing("async-tasks")
