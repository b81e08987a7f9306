"""One command of the config, run as DESIGN.md section 8 asks: no shell, dropped privileges, a time limit, bounded output.

It has a session of its own and is killed with its whole group. What leaves that group (setsid(2)) lives on, as it would behind
any supervisor. Everything here blocks: it is run beside the loop.
"""

import contextlib
import fcntl
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentscope.agents import same_identity, start_ns_of
from agentscope.model import Agent, Value

OUTPUT_KEPT_BYTES = 4096
OUTPUT_LIMIT_BYTES = 1 << 20  # whoever writes more than this to be asked whether it is well is not
REAP_S = 1.0
NOBODY = 65534
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Identity(Value, frozen=True):
    """Whose rights a command has."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Ran(Value, frozen=True):
    """What became of a command: `status` as `subprocess` has it (negative: the signal), None where it was killed by us."""

    status: int | None
    output: bytes
    flooded: bool = False


def identity_for(agent: Agent, owner_uid: int) -> Identity | None:
    """Who runs a command about this agent: the agent's own user; None where we are not root and stay who we are.

    A config that is not root's gives no more rights than its owner has: then it is the owner, unless the agent is theirs.
    """
    if os.geteuid() != 0:
        return None
    known = identity_of(agent)
    if owner_uid not in {0, known.uid}:
        return Identity(uid=owner_uid, gid=gid_of(owner_uid))
    return known


def identity_of(agent: Agent) -> Identity:
    """The user of a living agent now (it may have given up root since it started), else of when it started."""
    fields: dict[str, list[int]] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{agent.pid}/status").read_text("utf-8", "replace").splitlines():
            name, _, numbers = line.partition(":")
            if name in {"Uid", "Gid", "Groups"}:
                fields[name] = [int(number) for number in numbers.split()]
    start_ns = start_ns_of(agent.pid)
    if len(fields) == 3 and start_ns is not None and same_identity(start_ns, agent.start_ns):
        # proc(5): real, effective, saved, file system. Of a set-user-id program the real user counts, of one that went down the other
        which = 0 if fields["Uid"][0] != 0 else 1
        return Identity(uid=fields["Uid"][which], gid=fields["Gid"][which], groups=tuple(fields["Groups"]))
    uid = NOBODY if agent.uid is None else agent.uid
    return Identity(uid=uid, gid=gid_of(uid))


def gid_of(uid: int) -> int:
    """The group that a user logs in with."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return NOBODY


def run_command(
    command: tuple[str, ...],
    identity: Identity | None,
    environment: Mapping[str, str],
    timeout_s: float,
    *,
    stdin: bytes | None = None,
    cgroups: Sequence[str] = (),
    umask: int = 0o077,
) -> Ran:
    """Run it to its end, or until the time is up or it has written too much.

    `stdin` is what it can read there: a file in memory, so that one who does not read keeps nobody waiting. `cgroups` are folders of
    cgroups that it is put into before it begins; what cannot be started then ends with status 127 and says why. What it makes is for its
    own user, unless `umask` says that others have to read it.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    as_whom: dict[str, object] = {}
    if cgroups:
        command = entering(command, identity, cgroups)
    elif identity is not None:
        as_whom = {"user": identity.uid, "group": identity.gid, "extra_groups": identity.groups}
    given = subprocess.DEVNULL if stdin is None else file_of(stdin)
    try:
        return _run(command, as_whom | {"umask": umask}, environment, timeout_s, given)
    finally:
        if given != subprocess.DEVNULL:
            os.close(given)


def entering(command: tuple[str, ...], identity: Identity | None, cgroups: Sequence[str]) -> tuple[str, ...]:
    """The command that enters cgroups, takes an identity and becomes the one that was given."""
    files = [f"{folder}/cgroup.procs" for folder in cgroups]
    whom = ("-", "-", "-")
    if identity is not None:
        whom = str(identity.uid), str(identity.gid), ",".join(map(str, identity.groups))
    program = Path(__file__).with_name("entering.py")
    return (sys.executable, "-I", "-S", str(program), *whom, str(len(files)), *files, *command)


def file_of(content: bytes) -> int:
    """A descriptor of a file in memory with this content, to be read from its start and changed by nobody (memfd_create(2))."""
    made = os.memfd_create("agentscope-stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(made, view) :]
        os.lseek(made, 0, os.SEEK_SET)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(made)
        raise
    return made


def _run(
    command: tuple[str, ...], as_whom: dict[str, object], environment: Mapping[str, str], timeout_s: float, given: int
) -> Ran:
    deadline = time.monotonic() + timeout_s
    started = subprocess.Popen(
        command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, cwd="/",
        env={"PATH": PATH, "LANG": "C.UTF-8", **environment}, **as_whom,
    )  # type: ignore[call-overload] # fmt: skip # what is left is spelled as one mapping
    spare(started.pid)
    assert started.stdout is not None
    written = started.stdout.fileno()
    os.set_blocking(written, False)
    is_over, output, flooded = False, b"", False
    try:
        ended = os.pidfd_open(started.pid)
        try:
            is_over, output, flooded = read_until_end(written, ended, deadline)
        finally:
            os.close(ended)
    finally:
        # before it is reaped: until then nobody else can have its number
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pid, signal.SIGKILL)
        started.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one in an uninterruptible wait is reaped by a later start
            started.wait(REAP_S)
    return Ran(status=started.returncode if is_over else None, output=output, flooded=flooded)


def spare(pid: int) -> None:
    """Take from a new process what protects agentscope from the OOM killer: one that leaks is the one to end."""
    with contextlib.suppress(OSError, ValueError):
        if int(Path("/proc/self/oom_score_adj").read_text()) < 0:
            Path(f"/proc/{pid}/oom_score_adj").write_text("0")


def read_until_end(written: int, ended: int, deadline: float) -> tuple[bool, bytes, bool]:
    """Whether it ended by itself, the start of what it wrote, and whether it wrote too much.

    The end is that of the process (its pidfd polls readable), not of its output: a grandchild may hold that open for ever.
    """
    kept, count = b"", 0
    poller = select.poll()
    poller.register(written, select.POLLIN)
    poller.register(ended, select.POLLIN)
    while (left_s := deadline - time.monotonic()) > 0:
        ready = {descriptor for descriptor, _ in poller.poll(left_s * 1000 + 1)}
        if written in ready:
            piece = read_piece(written)
            kept += piece[: OUTPUT_KEPT_BYTES - len(kept)]
            count += len(piece)
            if count > OUTPUT_LIMIT_BYTES:
                return False, kept, True
            if piece:
                continue
            poller.unregister(written)
        if ended in ready:
            return True, kept, False
    return False, kept, False


def read_piece(descriptor: int) -> bytes:
    """What can be read now; nothing at the end."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
