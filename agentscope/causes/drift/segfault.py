"""It crashed inside a library that is not the one with which it last worked.

What it means: a library was upgraded, replaced or written over while the program kept running, or between two runs.
Its inner form is another one now, and code that was built for the old form hands it memory that it misreads; or the
running program had half of the old one in memory and met half of the new one.

How agentscope knows: the crash was the program's own (not a signal that somebody sent), the innermost code that is
not merely a carrier of calls lies in a file that differs from the last healthy run, and that change is younger than
that run. The log of the package tool says who made it. A crash elsewhere after an upgrade is not blamed on the
upgrade.

What to do: go back to the version that the report names, or start the agent anew if the library was replaced under
it. Install libraries by rename, as package tools do, never by writing over them.

What looks like it but is not: a crash in its own code, or in a library that did not change (crash/segfault,
crash/bus, crash/abort); a C library that only did what its caller asked for; a stack that ran out
(crash/stack-overflow).
"""

from agentscope.causes import No
from agentscope.causes.crash import FAULT_SIGNALS, SIGBUS, Ending, base, cited, overflowed, own_fault, place
from agentscope.causes.drift import finding, not_shown, of_file
from agentscope.evidence.baseline_difference import BaselineDifference
from agentscope.evidence.memory_map import MemoryMap
from agentscope.evidence.native_stack import CARRIERS, NativeStack
from agentscope.evidence.python_stack import PythonStack
from agentscope.model import Finding

LOADERS = ("ld-linux", "ld-musl", "ld-2.")
BEHIND_CODE_BYTES = 4 << 20  # constants and variables of a library stand behind its code
TITLES = {4: "Illegal instruction", 5: "Trap", 6: "Abort", 7: "Bus error", 8: "Arithmetic fault", 11: "Segmentation fault"}


def match(
    end: Ending,
    *,
    native: NativeStack | None,
    python: PythonStack | None,
    memory: MemoryMap | None,
    difference: BaselineDifference,
) -> Finding | No:
    """A fault of its own whose innermost code lies in a changed file."""
    sure = own_fault(FAULT_SIGNALS, end)
    if isinstance(sure, No):
        return sure
    if overflowed(end, native):
        return No("the stack had run out")
    file = torn(end, native, memory, difference) or failed_in(end, native, difference)
    culprit = of_file(file, difference)
    if culprit is None or file is None:
        return not_shown(difference, None)
    found = place(end, native, python)
    name = base(file).removesuffix(" (deleted)")
    where = (
        found.short.replace(" (deleted)", "")
        if name in found.short
        else f" in the code of {name}{found.short and ', met'}{found.short}"
    )
    title = TITLES.get(end.status.signal or 0, end.status.signal_name or "Crash")
    cites = (*cited(found, end), *(("memory-map",) if memory is not None and name not in found.short else ()))
    return finding(f"{title}{where}, which is not what it was", culprit, cites, sure)


def failed_in(end: Ending, native: NativeStack | None, difference: BaselineDifference) -> str | None:
    """The file whose code failed: one that was written over under the process, else the innermost that is no mere carrier."""
    fault, log = end.fault, end.log
    module = fault.module.path if fault is not None and fault.module is not None else None
    if module is not None and overwritten(module, difference):
        return module
    if native is not None and native.frames:
        return native.blamed.module if native.blamed is not None else None
    line = log.fault if log is not None else None
    file = module or (line.object if line is not None else None)
    return file if file is not None and not base(file).startswith(CARRIERS) else None


def overwritten(path: str, difference: BaselineDifference) -> bool:
    """Whether a file was written over in place, so that a process which had it mapped found other bytes there."""
    changed = difference.of_file(path)
    return changed is not None and changed.drifted.how == "overwritten"


def torn(end: Ending, native: NativeStack | None, memory: MemoryMap | None, difference: BaselineDifference) -> str | None:
    """The overwritten file whose page was missing (SIGBUS), whoever read it: mostly the loader, looking for a function."""
    fault = end.fault
    if fault is None or fault.signal != SIGBUS or fault.address is None or not fault.synchronous:
        return None
    if memory is None:
        loader = native is not None and bool(native.frames) and base(native.frames[0].module or "").startswith(LOADERS)
        files = [each.drifted.path for each in difference.own if each.drifted.how == "overwritten"]
        return files[0] if loader and len(files) == 1 else None
    below = [
        mapping
        for mapping in memory.mappings
        if mapping.start - mapping.offset <= fault.address < mapping.end + BEHIND_CODE_BYTES
    ]
    nearest = max(below, key=lambda mapping: mapping.start - mapping.offset, default=None)
    return nearest.path if nearest is not None and overwritten(nearest.path, difference) else None
