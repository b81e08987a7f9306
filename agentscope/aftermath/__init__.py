"""After the fact: an end that nobody watched, put together from what others wrote down.

`gathering` reads the sources of this machine, `joining` (pure) finds the end that is meant and which pieces belong to it, and
`telling` (pure) makes of that the scene which the same causes judge as any other. `hindsight.py` keeps them modest.
"""

from agentscope.evidence import CgroupMemory
from agentscope.model import KernelLine, MissingEvidence, Value

JOURNAL = "journal"
UNIT_STATE = "state of its unit"
CORE_DUMP = "core dump record"
COMM_CHARACTERS = 15  # the kernel keeps no more of a program's name: include/linux/sched.h, TASK_COMM_LEN


class Boot(Value, frozen=True):
    """This boot: its id, the wall clock at its begin (ns since 1970), and CLOCK_BOOTTIME minus CLOCK_MONOTONIC.

    `own_pids`: the process numbers of the kernel log are those that are seen here, since we are in the first pid namespace.
    """

    id: str
    wall_ns: int
    offset_ns: int = 0
    own_pids: bool = True


class Wanted(Value, frozen=True):
    """Whose end is asked for, as it was typed: a pid, else the name of a program, a unit or a container."""

    who: str
    pid: int | None = None

    @property
    def comm(self) -> str:
        """The same as the kernel would name a program."""
        return self.who[:COMM_CHARACTERS]

    @property
    def unit(self) -> str:
        """The systemd unit that this would be."""
        return self.who if self.who.endswith((".service", ".scope")) else f"{self.who}.service"


class Entry(Value, frozen=True):
    """One entry of the journal: when (CLOCK_BOOTTIME of this boot; negative before it), the message, and its fields."""

    at_ns: int
    message: str
    fields: dict[str, str]

    def get(self, name: str) -> str:
        """A field; empty where it is not there."""
        return self.fields.get(name, "")

    def number(self, name: str) -> int | None:
        """A field that is a number."""
        value = self.fields.get(name, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


class UnitState(Value, frozen=True):
    """What the service manager still knows of the last run of a unit: `systemctl show`, its names without their prefix."""

    unit: str
    invocation: str = ""
    pid: int | None = None
    code: int | None = None
    signal: int | None = None
    core: bool = False
    start_ns: int | None = None
    end_ns: int | None = None
    result: str = ""
    cgroup: str = ""
    cpu_limited: bool = False


class ContainerEnd(Value, frozen=True):
    """What a runtime tells of a container that ended. `stopped_by` is set where it was asked to stop it."""

    id: str
    name: str
    runtime: str
    status: int | None
    oom_killed: bool
    start_ns: int | None
    end_ns: int | None
    pid: int | None = None
    image: str | None = None
    pod: str | None = None
    argv: tuple[str, ...] = ()
    stopped_by: str | None = None
    words: bytes | None = None
    cpu_limited: bool = False
    error: str = ""


class Traces(Value, frozen=True):
    """All that could be read. None: that source could not be had, and `unread` says why.

    `kernel` are the lines of the kernel log, oldest first; `kernel_from_ns` is since when it is whole. `root` is
    where its package logs are (None: here).
    """

    boot: Boot
    kernel: tuple[KernelLine, ...] | None = None
    kernel_from_ns: int | None = None
    entries: tuple[Entry, ...] | None = None
    journal_from_ns: int | None = None
    unit: UnitState | None = None
    containers: tuple[ContainerEnd, ...] = ()
    counters: tuple[CgroupMemory, ...] = ()
    root: str | None = None
    read: tuple[str, ...] = ()
    unread: tuple[MissingEvidence, ...] = ()


class Account(Value, frozen=True):
    """What one source tells of one end. `told` False: it names the process, but not how it ended."""

    source: str
    at_ns: int
    pid: int | None = None
    start_ns: int | None = None
    code: int | None = None
    signal: int | None = None
    core: bool = False
    unit: str = ""
    invocation: str = ""
    container: str = ""
    cgroup: str = ""
    comm: str = ""
    exe: str | None = None
    argv: tuple[str, ...] = ()
    uid: int | None = None
