"""The fault itself: which signal, why the kernel raised it, at what address, in whose code."""

from agentscope.evidence import Evidence, Missing, Scene
from agentscope.model import Fault, Mapping
from agentscope.symbols.signals import code_name, signal_name

ABSENT = "no fault signal was delivered"
CORE_SIGNALS = frozenset({4, 5, 6, 7, 8, 11, 31})  # ILL TRAP ABRT BUS FPE SEGV SYS: signal(7)
SI_USER, SI_TKILL, SI_QUEUE = 0, -6, -1  # sent by somebody: include/uapi/asm-generic/siginfo.h
STACK_NEAR_BYTES = 1 << 20  # a fault this near the stack pointer, below it, is the stack running out


class FaultFacts(Evidence, frozen=True, tag="fault"):
    """`synchronous` is True where the processor or the kernel raised it for what the thread did, False where it was sent.

    `file_offset` is the offset of the instruction in `module`. `handled_first` says that a handler saw the original fault and
    passed it on (faulthandler, JVM). `near_stack` is True where the address lies at the stack pointer's own pages.
    """

    signal: int
    signal_name: str
    code: int
    code_name: str
    address: int | None
    ip: int
    sp: int
    module: Mapping | None
    file_offset: int | None
    thread: str
    tid: int
    main_thread: bool
    synchronous: bool
    handled_first: bool
    near_stack: bool
    syscall_number: int | None = None

    def says(self) -> str:
        """One sentence for a person."""
        where = f" in {self.module.path}+{self.file_offset:#x}" if self.module and self.file_offset is not None else ""
        at = "" if self.address is None or not self.synchronous else f" at address {self.address:#x}"
        who = "" if self.main_thread else f" on thread {self.thread} ({self.tid})"
        return f"{self.signal_name} ({self.code_name}){at}{where}{who}"


def fatal_fault(scene: Scene) -> Fault | None:
    """The fault that ended it: the first synchronous one before the end of the same signal, so not a handler's re-raise."""
    if scene.exit.signal not in CORE_SIGNALS:
        return None
    same = [fault for fault in scene.faults if fault.signal == scene.exit.signal]
    if not same:
        # a handler may turn one fault into another signal: HotSpot and Go answer SEGV with abort()
        return next((fault for fault in reversed(scene.faults) if fault.code > 0), None)
    last = same[-1]
    if last.code in {SI_USER, SI_TKILL, SI_QUEUE}:
        second_ns = 1_000_000_000
        for fault in same:
            if fault.tid == last.tid and fault.code > 0 and last.at_ns - fault.at_ns < second_ns:
                return fault
    return last


def collect(scene: Scene) -> FaultFacts | Missing | None:
    """From signal:signal_deliver of the thread that faulted."""
    fault = fatal_fault(scene)
    if fault is None:
        if scene.exit.signal in CORE_SIGNALS and scene.engine != "core":
            return Missing(kind="fault", because="faults are read by BPF at signal_deliver, which is not attached here")
        return None
    # SI_TKILL to itself is abort() or raise(): the program's own doing, though sent
    synchronous = fault.code > 0
    below = fault.sp - (fault.address or 0)
    # under RLIMIT_STACK's gap the kernel refuses to grow the stack: the address lies just below sp (mm/mmap.c, expand_stack)
    near = fault.signal in {7, 11} and fault.address is not None and synchronous and -65536 <= below <= STACK_NEAR_BYTES
    last_same = next((other for other in reversed(scene.faults) if other.signal == scene.exit.signal), fault)
    return FaultFacts(
        source="tracepoint signal:signal_deliver",
        signal=fault.signal,
        signal_name=signal_name(fault.signal),
        code=fault.code,
        code_name=code_name(fault.signal, fault.code),
        address=fault.address,
        ip=fault.ip,
        sp=fault.sp,
        module=fault.module,
        file_offset=None if fault.module is None else fault.ip - fault.module.start + fault.module.offset,
        thread=fault.comm,
        tid=fault.tid,
        main_thread=fault.tid == fault.pid,
        synchronous=synchronous,
        handled_first=fault.handler == "caught" and last_same is not fault,
        near_stack=near,
        syscall_number=fault.sys_number,
    )
