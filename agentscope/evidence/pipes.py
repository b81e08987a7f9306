"""The pipes and FIFOs that threads wait at: how full they are, and who has the other end open."""

import os

import msgspec

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import Holder, Pipe

ABSENT = "no thread of it waits at a pipe or FIFO"
PIPES = 64
HOLDERS = 16


class Pipes(Evidence, frozen=True, tag="pipes"):
    """At most 64 pipes, each with at most 16 holders of an end.

    `whole`: the descriptors of every process could be read, so that who is not named has it not open.
    """

    pipes: tuple[Pipe, ...]
    whole: bool = True

    def pipe(self, inode: int) -> Pipe | None:
        """The pipe of this inode."""
        return next((each for each in self.pipes if each.inode == inode), None)

    def says(self) -> str:
        """One sentence for a person."""
        first = self.pipes[0]
        name = first.path or "a pipe"
        fill = "" if first.held_bytes is None else f" holds {first.held_bytes} of {first.capacity_bytes or '?'} bytes;"
        more = f" ({len(self.pipes) - 1} more)" if len(self.pipes) > 1 else ""
        return f"{name}{fill} written by {named(first.writers)}, read by {named(first.readers)}{more}"


def named(ends: tuple[Holder, ...]) -> str:
    """Whoever has an end open, in words."""
    return ", ".join(f"{end.comm} (pid {end.pid})" for end in ends[:3]) or "nobody"


def collect(scene: HangScene) -> Pipes | Missing | None:
    """From /proc/*/fd, FIONREAD and F_GETPIPE_SZ."""
    pipes = scene.examination.pipes
    if not pipes:
        return scene.missing("pipes")
    bounded = tuple(
        msgspec.structs.replace(each, readers=each.readers[:HOLDERS], writers=each.writers[:HOLDERS]) for each in pipes[:PIPES]
    )
    return Pipes(source="/proc/*/fd, FIONREAD", pipes=bounded, whole=os.geteuid() == 0)
