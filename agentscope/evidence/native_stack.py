"""The native stack of the thread that faulted, unwound from the memory that the probe copied."""

from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.fault import fatal_fault
from agentscope.model import Mapping, Value

ABSENT = "no fault signal was delivered"
READS_FILES = True
FRAMES = 48
# Libraries that die of what their caller did: the C library, the loader, the C++ runtime, Python's bridge to C, Python itself.
CARRIERS = (
    "libc.so", "libc-", "ld-linux", "ld-musl", "ld-2.", "libpthread", "libm.so", "libm-", "libstdc++", "libc++", "libgcc_s",
    "libffi", "_ctypes.", "libpython", "python3", "linux-vdso", "[vdso]",
)  # fmt: skip


class NativeFrame(Value, frozen=True):
    """One frame: `module` is the file's path, `offset` the address in that file, `symbol` "name+0x10" where one is known."""

    module: str | None
    offset: int | None
    symbol: str | None


class NativeStack(Evidence, frozen=True, tag="native-stack"):
    """Frames, innermost first; `ended` says why the unwinding stopped. `owner` is the package that the blamed frame's file is of.

    `complete` is True where the outermost frame was reached, so that this is all of the stack.
    """

    frames: tuple[NativeFrame, ...]
    ended: str
    owner: str | None = None
    complete: bool = False

    @property
    def blamed(self) -> NativeFrame | None:
        """The innermost frame that is not in a library which only did as it was told; None where there is none."""
        return blamed_in(self.frames)

    def says(self) -> str:
        """One sentence for a person."""
        named = [frame.symbol or (frame.module or "?").rsplit("/", 1)[-1] for frame in self.frames[:4]]
        return f"native stack, innermost first: {' ← '.join(named)} ({len(self.frames)} frames)"


def blamed_in(frames: tuple[NativeFrame, ...]) -> NativeFrame | None:
    """The innermost frame with a file of its own, past the libraries that only carry out what their caller asks."""
    named = (frame for frame in frames if frame.module is not None)
    return next((frame for frame in named if not (frame.module or "").rsplit("/", 1)[-1].startswith(CARRIERS)), None)


def mappings_of(scene: Scene) -> tuple[Mapping, ...]:
    """Executable mappings at the end, or as last read from /proc/PID/maps, or the one that the probe looked up."""
    if scene.exit.mappings:
        return scene.exit.mappings
    cached = []
    for line in scene.last_seen.maps if scene.last_seen else ():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):
            start, end = (int(part, 16) for part in fields[0].split("-"))
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            cached.append(
                Mapping(
                    start=start,
                    end=end,
                    offset=int(fields[2], 16),
                    inode=int(fields[4]),
                    device=major << 20 | minor,
                    path=fields[5],
                )
            )
    fault = fatal_fault(scene)
    module = fault.module if fault is not None else None
    # what was read before an exec, or before the library was loaded, does not have the place where it died
    if module is None or any(known.inode == module.inode and known.start <= module.start < known.end for known in cached):
        return tuple(cached)
    return (module,)


def name_of(symbol: str | None, offset: int | None, called_as: str | None) -> str | None:
    """Name of a frame: "strlen" is what people know __strlen_evex by, where the caller's relocation says so."""
    if symbol is None:
        return called_as
    return f"{called_as if called_as and called_as in symbol else symbol}+{offset or 0:#x}"


def collect(scene: Scene) -> NativeStack | Missing | None:
    """Unwind with the .eh_frame of the files on disk; a file that was replaced since is not trusted."""
    from agentscope.symbols import owner, unwind

    fault = fatal_fault(scene)
    if fault is None:
        return None
    mappings = mappings_of(scene)
    if not mappings:
        return Missing(kind="native-stack", because="the mappings of the process were gone before they could be read")
    # without memory (the stack pointer may stand in the guard page) the registers still tell the innermost frame
    stack = unwind.unwind(fault.registers, fault.stack or b"", mappings, limit=FRAMES)
    frames = tuple(
        NativeFrame(
            module=frame.module,
            offset=frame.offset,
            symbol=name_of(frame.symbol, frame.symbol_offset, frame.called_as),
        )
        for frame in stack.frames
    )
    if not frames:
        return Missing(kind="native-stack", because=stack.ended)
    blamed = blamed_in(frames) or next((frame for frame in frames if frame.module), None)
    package = owner.owner_of(blamed.module) if blamed is not None and blamed.module is not None else None
    return NativeStack(
        source="raw stack at signal:signal_deliver, unwound by .eh_frame",
        frames=frames,
        ended=stack.ended,
        owner=None if package is None else str(package),
        complete=stack.end == "outermost",
    )
