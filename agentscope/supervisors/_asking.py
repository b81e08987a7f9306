"""What all supervisors need: their clients run without a shell, and what a process is to a main process."""

import http.client
import os
import pwd
import socket
from pathlib import Path

from agentscope.agents import same_identity
from agentscope.commandlines import SHELLS, is_wrapper
from agentscope.commands import Identity, Ran, run_command
from agentscope.examination.proc import plain, read_proc
from agentscope.model import Agent
from agentscope.stopping import is_living
from agentscope.stopping.tree import row_of

ASK_S = 10.0  # how long a client may take to ask; one that starts something has limits of its own
NOT_THERE = 127
MOST_WRAPPERS = 16
SOCKETS_READ_BYTES = 4 << 20
ANSWER_LIMIT_BYTES = 4 << 20


def ask(command: tuple[str, ...], identity: Identity | None = None, environment: dict[str, str] | None = None, limit_s: float = ASK_S) -> Ran:  # fmt: skip
    """Run a client to its end and hear what it says; one that cannot be started has status 127, as in a shell. It blocks."""
    try:
        return run_command(command, identity, environment or {}, limit_s)
    except (OSError, ValueError) as error:
        return Ran(status=NOT_THERE, output=f"{command[0]}: {getattr(error, 'strerror', None) or error}".encode())


def why_not(ran: Ran, limit_s: float = ASK_S) -> str:
    """Why a client failed, in its own words; empty where it did not."""
    if ran.status == 0:
        return ""
    said = plain(b" ".join(ran.output.split()), 300)
    if ran.status is None:
        return f"no answer within {limit_s:g} s{f': {said}' if said else ''}"
    return said or (f"it ended by signal {-ran.status}" if ran.status < 0 else f"exit status {ran.status}")


def argv_of(pid: int) -> tuple[str, ...]:
    """The command line of a living process, bounded; empty where it is gone."""
    text = read_proc(f"/proc/{pid}/cmdline") or b""
    return tuple(word.decode("utf-8", "replace") for word in text.removesuffix(b"\0").split(b"\0")) if text else ()


def is_main_line(pid: int, main_pid: int) -> bool:
    """Whether a living process is a supervisor's main process, or stands below it with nothing but wrappers and shells between.

    An agent that cron or sshd has started is below their main process too, and starting those again would not bring it back.
    """
    for _ in range(MOST_WRAPPERS):
        if pid == main_pid:
            return True
        row = row_of(pid)
        if row is None or row.ppid <= 1:
            return False
        pid = row.ppid
        argv = argv_of(pid)
        if not argv or not (is_wrapper(argv) or argv[0].rpartition("/")[2].lstrip("-") in SHELLS):
            return False
    return False


def lives(agent: Agent) -> bool:
    """Whether the instance that is to be replaced still runs."""
    return is_living(agent.pid, agent.start_ns)


def is_the_old(agent: Agent, pid: int) -> bool:
    """Whether a number that a supervisor tells means that instance, living or ended, and not a newer one with the same number."""
    row = row_of(pid)
    return pid == agent.pid and (row is None or same_identity(row.start_ns, agent.start_ns))


def is_new(agent: Agent, pid: int) -> bool:
    """Whether a number that a supervisor tells means a living process that is younger than that instance."""
    row = row_of(pid)
    return row is not None and row.start_ns > agent.start_ns and not is_the_old(agent, pid) and is_living(pid, row.start_ns)


def listens_at(pid: int) -> list[str]:
    """The paths of the unix sockets at which a living process listens, as it sees them: no claim of its own, but the kernel's word."""
    inodes = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            name = str(link.readlink())
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    except OSError:
        return []
    found = []
    for line in (read_proc(f"/proc/{pid}/net/unix", SOCKETS_READ_BYTES) or b"").decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(
            maxsplit=7
        )  # Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 (__SO_ACCEPTCON): it listens
        if len(fields) == 8 and fields[6] in inodes and fields[3] == "00010000" and fields[7].startswith("/"):
            found.append(fields[7])
    return found


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, bounded in time and in what is read of an answer."""

    def __init__(self, path: str, limit_s: float) -> None:
        super().__init__("localhost", timeout=limit_s)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def request(path: str, method: str, target: str, body: bytes | None = None, *, headers: dict[str, str] | None = None, limit_s: float = ASK_S) -> tuple[int, bytes]:  # fmt: skip
    """One request over a unix socket: the status of the answer, and its body.

    Raises:
        OSError: nobody answers there, or not in time. ValueError: what answers is no HTTP, or too long.
    """
    connection = UnixConnection(path, limit_s)
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        content = answer.read(ANSWER_LIMIT_BYTES + 1)
    except http.client.HTTPException as error:
        raise ValueError(f"{path} does not answer as it should: {error!r}") from None
    finally:
        connection.close()
    if len(content) > ANSWER_LIMIT_BYTES:
        raise ValueError(f"{path} answers with more than {ANSWER_LIMIT_BYTES} bytes")
    return answer.status, content


def may_ask(path: str, uid: int) -> bool:
    """Whether a user could ask at this socket by itself (unix(7): connecting needs the right to write); root always may."""
    if uid == 0:
        return True
    try:
        facts = os.stat(path)  # noqa: PTH116 - no Path is needed
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, pwd.getpwuid(uid).pw_gid)
    except (OSError, KeyError):
        return False
    if facts.st_uid == uid:
        return bool(facts.st_mode & 0o200)
    return bool(facts.st_mode & (0o020 if facts.st_gid in groups else 0o002))
