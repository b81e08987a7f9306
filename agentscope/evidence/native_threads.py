"""The native stacks of the agent's blocked threads."""

import msgspec

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import NativeThread
from agentscope.examination.frames import blamed_native

ABSENT = "no native stacks were taken"
THREADS = 100
FRAMES = 40


class NativeThreads(Evidence, frozen=True, tag="native-threads"):
    """At most 100 threads of at most 40 frames, innermost first."""

    threads: tuple[NativeThread, ...]

    def of(self, pid: int, tid: int) -> tuple[str, ...]:
        """The frames of a thread."""
        return next((each.frames for each in self.threads if each.tid == tid and each.pid == pid), ())

    def says(self) -> str:
        """One sentence for a person."""
        first = self.threads[0]
        place = blamed_native(first.frames) or (first.frames[0] if first.frames else "nowhere")
        more = f" ({len(self.threads) - 1} more threads)" if len(self.threads) > 1 else ""
        return f"thread {first.tid} is in {place}{more}"


def collect(scene: HangScene) -> NativeThreads | Missing | None:
    """Unwound from the registers and memory of each thread by .eh_frame."""
    threads = scene.examination.native
    if not threads:
        return scene.missing("native-threads")
    bounded = tuple(msgspec.structs.replace(each, frames=each.frames[:FRAMES]) for each in threads[:THREADS])
    return NativeThreads(source="user registers and stacks, unwound by .eh_frame", threads=bounded)
