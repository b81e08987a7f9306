"""The second place: the signed head, put where whoever changes the ledger would have to change it too.

"journal" is the native protocol of journald (systemd.io/JOURNAL_NATIVE_PROTOCOL), "file:/path" a file that is only appended to
(chattr +a makes the kernel insist), "exec" any command, which gets the head in AGENTSCOPE_LEDGER_HEAD: to a printer, another
machine, a public log. Only what left this machine is out of reach of its root.
"""

import os
import pwd
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agentscope.errors import BadInput, CannotWrite
from agentscope.ledger.places import write_whole
from agentscope.ledger.seals import Head
from agentscope.ledger.settings import Settings

if TYPE_CHECKING:
    from agentscope.commands import Identity

JOURNAL = Path("/run/systemd/journal/socket")
MESSAGE_ID = "5b1d3c0f6e5a4b6c9a2f7d8e4c1b0a93"  # ours, for `journalctl MESSAGE_ID=...` (systemd.journal-fields(7))
SEND_S = 10.0
READ_S = 30.0
READ_LIMIT_BYTES = 64 << 20
ENTRIES_READ = 20_000


def place_of(settings: Settings) -> str:
    """Where the head is anchored, in words that `verify` can follow: "journal", "file:/path", "exec" or "none"."""
    if settings.anchor == "file":
        return f"file:{settings.path}"
    return settings.anchor or ("journal" if JOURNAL.exists() else "none")


def send(settings: Settings, statement: bytes) -> None:
    """Put a head (one line) into the second place. Blocks, within bounds where the place is no dead file system.

    Raises:
        CannotWrite: it did not get there; the sentence says why.
    """
    place = place_of(settings)
    try:
        if place == "journal":
            to_journal(statement)
        elif settings.anchor == "file":
            to_file(settings.path, statement)
        elif settings.anchor == "exec":
            to_command(settings, statement)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CannotWrite(f"cannot anchor the ledger ({place})", why, "agentscope ledger verify") from None


def to_journal(statement: bytes) -> None:
    """One entry; journald itself adds who sent it (_UID), which nobody can forge."""
    head = msgspec.json.decode(statement, type=Head)
    fields = (
        f"MESSAGE=agentscope ledger {head.chain}: {head.seq} records, the last is {head.hash}\n"
        f"MESSAGE_ID={MESSAGE_ID}\nPRIORITY=5\nSYSLOG_IDENTIFIER=agentscope\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(SEND_S)
        sender.connect(str(JOURNAL))
        sender.send(fields.encode() + b"AGENTSCOPE_LEDGER=" + statement.rstrip(b"\n") + b"\n")


def to_file(path: str, statement: bytes) -> None:
    """One line, durable; behind a line that a crash tore, a new one is begun."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(path, flags, 0o600)
    try:
        facts = os.fstat(opened)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} is not a regular file")
        with open(path, "rb") as reader:  # noqa: PTH123 - beside the descriptor, which a file with chattr +a lets only append
            reader.seek(max(0, facts.st_size - 1))
            begin = b"" if reader.read(1) in {b"", b"\n"} else b"\n"
        write_whole(opened, begin + statement)
        os.fsync(opened)
    finally:
        os.close(opened)


def to_command(settings: Settings, statement: bytes) -> None:
    """Run the command of the config, without root's rights."""
    from agentscope.commands import run_command

    ran = run_command(settings.command, identity_of(settings), {"AGENTSCOPE_LEDGER_HEAD": statement.decode().strip()}, SEND_S)
    if ran.status is None:
        raise ValueError(
            f"{settings.command[0]} wrote too much" if ran.flooded else f"{settings.command[0]} took more than {SEND_S:g} s"
        )
    if ran.status != 0:
        words = ran.output.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"{settings.command[0]} ended with {ran.status}{f': {words[-1][:200]}' if words else ''}")


def identity_of(settings: Settings) -> "Identity | None":
    """Who runs the command: see `Settings`.

    Raises:
        ValueError: there is no such user.
    """
    from agentscope.commands import NOBODY, Identity, gid_of

    if os.geteuid() != 0:
        return None
    if settings.user is not None:
        try:
            known = pwd.getpwnam(settings.user)
        except KeyError:
            raise ValueError(f"there is no user {settings.user!r}") from None
        if settings.owner_uid not in {0, known.pw_uid}:
            raise ValueError(f"the config belongs to user {settings.owner_uid}, who cannot act as {settings.user}")
        return Identity(uid=known.pw_uid, gid=known.pw_gid, groups=tuple(os.getgrouplist(known.pw_name, known.pw_gid)))
    uid = settings.owner_uid or NOBODY
    return Identity(uid=uid, gid=gid_of(uid))


# --- reading back -----------------------------------------------------------------------------------------------------------


def statements(lines: Iterator[bytes], where: str) -> Iterator[tuple[str, Head]]:
    """The heads among these lines, each with where it stands; what is none is passed over."""
    for number, line in enumerate(lines, start=1):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield f"{where}, line {number}", msgspec.json.decode(line, type=Head)


def from_file(path: Path) -> list[tuple[str, Head]]:
    """The heads of a file, the latest 64 MiB.

    Raises:
        BadInput: it cannot be read, or others than root and we can write it.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise BadInput(f"cannot read the anchors in {path}", "it is not a regular file")
            if facts.st_uid not in {0, os.geteuid()} or facts.st_mode & 0o022:
                raise BadInput(f"cannot trust the anchors in {path}", "others can write it", f"ls -l {path}")
            file.seek(max(0, facts.st_size - READ_LIMIT_BYTES))
            return list(statements(iter(file.read(READ_LIMIT_BYTES).splitlines()), str(path)))
    except OSError as error:
        raise BadInput(f"cannot read the anchors in {path}", error.strerror or str(error), f"ls -l {path}") from None


def from_journal() -> list[tuple[str, Head]]:
    """The heads that this user (as journald saw it) put into the journal, newest first.

    Raises:
        BadInput: the journal cannot be asked.
    """
    import subprocess

    command = ["journalctl", "--output=json", "--all", "--quiet", "--no-pager", "--reverse", f"--lines={ENTRIES_READ}"]
    command += [f"MESSAGE_ID={MESSAGE_ID}", f"_UID={os.geteuid()}"]
    try:
        told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=READ_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "it took too long" if isinstance(error, subprocess.TimeoutExpired) else error.strerror or str(error)
        raise BadInput("cannot read the anchors in the journal", why, " ".join(command)) from None
    found = []
    for line in told.stdout.splitlines():
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            entry = msgspec.json.decode(line, type=dict[str, object])
            text = entry.get("AGENTSCOPE_LEDGER")
            if isinstance(text, str):
                found += [
                    (f"the journal, {entry.get('__CURSOR', '?')}", head) for _, head in statements(iter([text.encode()]), "")
                ]
    return found
