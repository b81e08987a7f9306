"""The children that the agent waits for, and what they do: a tool that works is a reason to wait, one that is stuck is not."""

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.evidence.thread_waits import ProcessSeen, ThreadWaits
from agentscope.evidence.thread_waits import collect as read_waits
from agentscope.examination.waiting import Wait
from agentscope.model import Value

ABSENT = "it has no children"
CHILDREN = 32
WAITS = 8  # of one process


class Child(Value, frozen=True):
    """One child of the agent's own. `innermost` is the process that it waits for in the end, itself if for none.

    `works` tells whether it or anything below it did something; `waits` are those of the innermost, its main thread's first.
    """

    pid: int
    parent: int
    words: str
    ended: bool
    works: bool
    innermost: int
    innermost_words: str
    waits: tuple[Wait, ...] = ()

    @property
    def doing(self) -> str:
        """What it does, in words."""
        if self.ended:
            return "has ended, and its status was not read"
        if self.works or not self.waits:
            return "works"
        below = "" if self.innermost == self.pid else f" waits for {self.innermost_words}, which"
        first = self.waits[0]
        lasted = "" if first.for_s is None else f" for {first.for_s:.0f} s"
        return f"{below.lstrip()} waits for {first.says}{lasted}".lstrip()


class Children(Evidence, frozen=True, tag="children"):
    """At most 32 children of the agent's own processes; those that it waits for first."""

    children: tuple[Child, ...]

    def child(self, pid: int | None) -> Child | None:
        """The child of this pid."""
        return next((each for each in self.children if each.pid == pid), None)

    def says(self) -> str:
        """One sentence for a person."""
        first = self.children[0]
        more = f" ({len(self.children) - 1} more children)" if len(self.children) > 1 else ""
        return f"{first.words} {first.doing}{more}"


def collect(scene: HangScene) -> Children | Missing | None:
    """From the tree of processes and their waits."""
    waits = read_waits(scene)
    if isinstance(waits, Missing):
        return Missing(kind="children", because=waits.because)
    own = {process.pid for process in waits.processes if process.own}
    awaited = {each.wait.child for each in waits.own() if each.wait.kind == "tool"}
    found = [process for process in waits.processes if process.ppid in own]
    found.sort(key=lambda process: (process.pid not in awaited, process.ended))
    listed = tuple(child_seen(process, waits) for process in found[:CHILDREN])
    return Children(source="/proc/PID/stat, the waits of each", children=listed) if listed else None


def child_seen(process: ProcessSeen, waits: ThreadWaits) -> Child:
    """One child with what it waits for in the end."""
    inner = waits.innermost(process.pid) or process
    threads = sorted(waits.of(inner.pid), key=lambda each: not each.main)
    return Child(
        pid=process.pid,
        parent=process.ppid,
        words=f"`{process.command}` (pid {process.pid})",
        ended=process.ended,
        works=waits.works(process.pid),
        innermost=inner.pid,
        innermost_words=f"`{inner.command}` (pid {inner.pid})",
        waits=tuple(each.wait for each in threads[:WAITS]),
    )
