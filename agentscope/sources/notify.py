"""The socket that an agent may report to, as to systemd: NOTIFY_SOCKET and sd_notify(3).

The agent must be started with NOTIFY_SOCKET set to its path, which is `notify/NAME` in the state directory (NAME as in the config),
while agentscope is there; a service of Type=notify has systemd's and cannot have this one as well. Only what a living process of
the agent sends is heard: the kernel tells the sender (SCM_CREDENTIALS, unix(7)), so a short-lived `systemd-notify` may be missed.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

from agentscope.errors import CannotWrite
from agentscope.model import Value
from agentscope.sources.quoting import quoted

PATH_LIMIT_BYTES = 107  # sun_path has 108 with its end (unix(7))
MOST_AT_ONCE = 64  # a flood must not keep the loop; what is left is read in its next round
MESSAGE_BYTES = 4096
CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Notice(Value, frozen=True):
    """One message. `alive`: the sender gets on; `at_fault`: it asks the watchdog to act (WATCHDOG=trigger)."""

    pid: int
    uid: int
    alive: bool = False
    at_fault: bool = False
    status: str | None = None


class NotifySocket:
    """One socket, for the agents of one entry of the config."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.path = str(folder / name)
        self.inode: int | None = None
        self.directory: int | None = None
        self.socket: socket.socket | None = None

    def open(self) -> None:
        """Make the folder and the socket, for us alone until `grant`.

        Raises:
            CannotWrite: that cannot be, or another agentscope has it.
        """
        try:
            self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.check()
            os.fchmod(self.directory, 0o711)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            os.fchmod(self.socket.fileno(), 0o600)  # before it has a name: unix_bind() in net/unix/af_unix.c takes it over
            self.socket.bind(self.inside())
            self.inode = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_ino
        except OSError as error:
            self.close()
            raise CannotWrite(f"cannot make {self.path}", os.strerror(error.errno or 0), f"ls -ld {self.folder}") from None
        except CannotWrite:
            self.close()
            raise

    def check(self) -> None:
        """That nobody else can exchange what is in the folder, and nobody else reads there; what a former run left is removed.

        Raises:
            CannotWrite: it is not so.
        """
        assert self.directory is not None
        facts = os.fstat(self.directory)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise CannotWrite(f"cannot make {self.path}", "others may write its folder", f"ls -ld {self.folder}")
        if len(os.fsencode(self.path)) > PATH_LIMIT_BYTES:
            raise CannotWrite(f"cannot make {self.path}", f"a socket's path has at most {PATH_LIMIT_BYTES} bytes")
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_mode):
                with contextlib.suppress(ConnectionRefusedError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
                    ours.connect(self.inside())
                    raise CannotWrite(f"cannot make {self.path}", "another agentscope reads it")
            os.unlink(self.name, dir_fd=self.directory)

    def inside(self) -> str:
        """The path from the folder that was opened, and which nobody can exchange."""
        return f"/proc/self/fd/{self.directory}/{self.name}"

    def grant(self, uid: int) -> str:
        """Let this user send. Returns why they cannot, or nothing."""
        if self.directory is None:
            return "its socket is closed"
        if os.geteuid() != 0:
            return "" if uid == os.geteuid() else f"only root can let uid {uid} write to {self.path}"
        try:
            os.chown(self.name, uid, -1, dir_fd=self.directory, follow_symlinks=False)
            closed = next((above for above in self.folder.parents if uid != 0 and not enters(above, uid)), None)
        except OSError as error:
            return f"{self.path}: {os.strerror(error.errno or 0)}"
        return "" if closed is None else f"uid {uid} cannot reach {self.path}: {closed} is closed to it"

    def fileno(self) -> int:
        """Polls readable when there is a message."""
        if self.socket is None:
            raise ValueError("the socket is closed")
        return self.socket.fileno()

    def drain(self) -> Sequence[Notice]:
        """Messages that are waiting, some of them at most; what a message carries besides is dropped by the kernel."""
        notices: list[Notice] = []
        while self.socket is not None and len(notices) < MOST_AT_ONCE:
            try:
                # room for the credentials only: file descriptors that are passed have none, and are closed (unix(7), MSG_CTRUNC)
                text, ancillary, _, _ = self.socket.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size))
            except OSError:
                break
            found = [value for level, kind, value in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
            pid, uid, _ = CREDENTIALS.unpack(found[0]) if found and len(found[0]) == CREDENTIALS.size else (0, 0, 0)
            notices.append(notice_of(text, pid, uid))
        return notices

    def close(self) -> None:
        """Close it and remove it, unless another has its name by now; safe to call twice."""
        if self.directory is not None and self.socket is not None:
            with contextlib.suppress(OSError):  # compared while it is open: its inode cannot be another's so long
                if self.inode == os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_ino:
                    os.unlink(self.name, dir_fd=self.directory)
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        if self.directory is not None:
            os.close(self.directory)
            self.directory = None


def enters(folder: Path, uid: int) -> bool:
    """Whether a user may pass through a folder, by its owner or as anybody."""
    facts = folder.stat()
    return bool(facts.st_mode & (stat.S_IXUSR if facts.st_uid == uid else stat.S_IXOTH))


def notice_of(text: bytes, pid: int, uid: int) -> Notice:
    """A message of sd_notify(3): lines of NAME=value. Names that say nothing of getting on are passed over."""
    fields = dict(line.partition(b"=")[::2] for line in text.split(b"\n")[:MOST_AT_ONCE])
    status = quoted(fields[b"STATUS"]) if b"STATUS" in fields else None
    watchdog = fields.get(b"WATCHDOG")
    alive = watchdog == b"1" or fields.get(b"READY") == b"1" or status is not None
    return Notice(pid=pid, uid=uid, alive=alive, at_fault=watchdog == b"trigger", status=status)
