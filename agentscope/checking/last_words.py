"""Whether what it writes before its death is kept: a traceback on a terminal that is closed explains nothing to anybody."""

import os

from agentscope.agents import stderr_of
from agentscope.checking import Checked, Subject
from agentscope.examination.descriptors import numbered_inode, read_pipes
from agentscope.examination.proc import link_of, plain
from agentscope.examination.sockets import read_sockets, with_holders
from agentscope.model import MissingEvidence

PLACE = 8
TITLE = "last words"
KEEP = "agentscope run -- COMMAND, or COMMAND 2>>/var/log/NAME.log"
JOURNALS = {"systemd-journal", "systemd-journald", "syslogd", "rsyslogd", "syslog-ng"}


def check(subject: Subject) -> Checked:
    """Where the descriptor 2 of the agent's innermost process leads."""
    pid = subject.scene.process.pid
    kind, target = stderr_of(pid), link_of(f"/proc/{pid}/fd/2") or ""
    if kind is None:
        return Checked(None, "where its stderr leads may not be looked at", f"sudo agentscope check {subject.pid}")
    if kind == "file":
        if target.endswith(" (deleted)"):
            return Checked(False, f"its stderr goes to a file that was deleted: {plain(target)}", subject.again)
        return Checked(True, f"its stderr goes to {plain(target)}")
    if kind in {"pipe", "socket"}:
        return read_by(pid, kind, target)
    if kind == "pty":
        return Checked(
            None,
            f"its stderr is a terminal ({plain(target)}): kept only as long as that is open, or while agentscope watches it",
            KEEP,
        )
    lost = {"null": "its stderr goes to /dev/null", "closed": "its stderr is closed"}
    return Checked(False, f"{lost.get(kind, f'its stderr goes to {plain(target)}')}: its last words are lost", KEEP)


def read_by(pid: int, kind: str, target: str) -> Checked:
    """A pipe or socket is as good as whoever reads it."""
    inode = numbered_inode(target)
    readers: list[tuple[int, str]] = []
    if kind == "pipe" and inode is not None:
        readers = [(each.pid, each.comm) for pipe in read_pipes({inode}) for each in pipe.readers]
    elif inode is not None:
        readers = socket_readers(pid, inode)
    readers = [each for each in readers if each[0] not in {pid, os.getpid()}]
    if not readers:
        return Checked(None, f"its stderr is a {kind} ({plain(target)}), and who reads it could not be told", KEEP)
    journal = next((each for each in readers if each[1] in JOURNALS), None)
    reader, comm = journal or readers[0]
    if journal is not None:
        return Checked(True, f"its stderr goes to {plain(comm)}")
    return Checked(
        True, f"its stderr is a {kind} that {plain(comm)} (pid {reader}) reads; whether that keeps it is its own matter"
    )


def socket_readers(pid: int, inode: int) -> list[tuple[int, str]]:
    """Who holds the other end of a unix socket."""
    from agentscope.examination.descriptors import holders_of
    from agentscope.examination.sockets import peer_inodes

    found = read_sockets(pid, {inode})
    if isinstance(found, MissingEvidence):
        return []
    peers = peer_inodes(found)
    holders = holders_of(frozenset(peers.values()))
    known = with_holders(found, {own: holders[peer][0] for own, peer in peers.items() if holders.get(peer)})
    return [(each.peer_holder.pid, each.peer_holder.comm) for each in known if each.peer_holder is not None]
