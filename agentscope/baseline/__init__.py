"""What the last healthy run of an agent looked like, taken from files only, and what is different now.

A baseline is of one run: the first one taken in it is kept, because a later one would take a change for healthy that this run
never loaded. Paths are as the process names them, inside its root.
"""

from typing import Literal

from agentscope.distributions import Deviation, Distribution, NodePackage, SystemPackages
from agentscope.model import Value

DriftKind = Literal[
    "library", "program", "interpreter", "venv", "distribution", "node-package", "system-package", "lock-file", "kernel", "libc", "environment", "image"
]  # fmt: skip
How = Literal["added", "removed", "replaced", "overwritten", "upgraded", "downgraded", "changed"]


class FileState(Value, frozen=True):
    """One file as it was: enough to tell a replaced file (other inode) from one written over in place (same inode).

    `ctime_ns` (wall time) is when it was put there: package tools set mtime to when it was built.
    """

    path: str
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    build_id: str | None = None


class MappedFile(Value, frozen=True):
    """A program or library that the process had mapped: `inode` and `device` as its mappings say, `file` what stands at its path.

    `file` None: nothing stands there any more. `stale` is True where the path now leads to another file than the one mapped.
    """

    path: str
    inode: int
    device: str
    file: FileState | None
    stale: bool = False


class Interpreter(Value, frozen=True):
    """A Python interpreter: its file, its whole version, its venv and the version which that was made for.

    `link` is the name that it was started by, such as a venv's bin/python: it can lead to another file later.
    """

    path: str
    version: str | None
    link: str | None = None
    file: FileState | None = None
    venv: str | None = None
    venv_version: str | None = None
    venv_home: str | None = None


class LockFile(Value, frozen=True):
    """A lock file by a digest of what it holds, and what is installed otherwise than it says.

    `locked` is how many packages it pins (None: they were not looked at), `deviating` holds at most 20 of `count`. `unread` says why
    it could not be read; then its digest is empty, unless only its form is not known.
    """

    path: str
    digest: str
    mtime_ns: int | None = None
    locked: int | None = None
    deviating: tuple[Deviation, ...] = ()
    count: int = 0
    unread: str | None = None


class Image(Value, frozen=True):
    """The container image by its id (or a digest of its layers) and its name."""

    id: str
    name: str | None = None


class Baseline(Value, frozen=True):
    """One run at one moment. `wall_ns` is when it was taken (ns since 1970), `start_ns` the start of the process (boot time).

    `own_root` is False where the process lives in another root than ours, so that its paths say nothing once it is gone.
    `environment` holds names only. `left_out` counts what was beyond the limits, `unread` says what could not be read.
    """

    wall_ns: int
    boot_id: str
    kernel: str
    pid: int | None = None
    start_ns: int | None = None
    own_root: bool = True
    exe: str | None = None
    cwd: str | None = None
    home: str | None = None
    mapped: tuple[MappedFile, ...] = ()
    libc: str | None = None
    interpreter: Interpreter | None = None
    sites: tuple[str, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    node_folders: tuple[str, ...] = ()
    node: tuple[NodePackage, ...] = ()
    system: SystemPackages | None = None
    lock: LockFile | None = None
    environment: tuple[str, ...] = ()
    image: Image | None = None
    container: str | None = None
    left_out: int = 0
    unread: tuple[str, ...] = ()


class Drifted(Value, frozen=True):
    """One thing that is not as it was. `before` and `after` are versions where there are any, else build ids or digests.

    `former_path` is where it was, if that was elsewhere. `changed_ns` is when the file system says that it changed (wall time); of
    what is gone only `until_ns` is known, when something last came or went where it stood. `armed` is True where the process that
    runs still has the old one in memory: it will fail when it starts anew, or when it loads the rest.
    """

    kind: DriftKind
    name: str
    how: How
    before: str | None = None
    after: str | None = None
    path: str | None = None
    former_path: str | None = None
    changed_ns: int | None = None
    until_ns: int | None = None
    armed: bool = False
