"""The Python frames of the thread that faulted, read in the probe before the process was gone."""

from agentscope.evidence import Evidence, Scene
from agentscope.evidence.fault import fatal_fault
from agentscope.model import PythonFrame

ABSENT = "no Python frames were read at a fault"
INSTALLED = ("/lib/python3", "/site-packages/", "/dist-packages/", "<frozen ")


class PythonStack(Evidence, frozen=True, tag="python-stack"):
    """Frames, innermost first."""

    frames: tuple[PythonFrame, ...]

    @property
    def blamed(self) -> PythonFrame:
        """The innermost frame of the program's own code: neither of the interpreter's library nor of an installed one."""
        return next((frame for frame in self.frames if not any(part in frame.file for part in INSTALLED)), self.frames[0])

    def says(self) -> str:
        """One sentence for a person."""
        top = self.frames[0]
        return f"Python was in {top.function} at {top.file}:{top.line or top.first_line}, {len(self.frames)} frames deep"


def collect(scene: Scene) -> PythonStack | None:
    """From the fault event."""
    fault = fatal_fault(scene)
    if fault is None or not fault.python_frames:
        return None
    return PythonStack(source="tracepoint signal:signal_deliver, frames of the interpreter", frames=fault.python_frames)
