"""The files of a ledger: their names, and how they are opened and replaced. All are readable by their owner only.

STATE/ledger.key               the signing key (ed25519, PKCS #8), 0600
STATE/ledger.pub               the public key beside it
STATE/ledger/chain-00000001.ndjson   the segments, in the order of their numbers
STATE/ledger/head.json         the signed head: how far the chain goes
STATE/ledger/tombstone.json    signed: what retention removed
STATE/ledger/torn-*            pieces of lines that a crash left, set aside
STATE/ledger/*.lock            held while writing
STATE/ledger/*.ndjson          anything else: records of a version before the chain
"""

import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentscope.errors import CannotWrite

FOLDER = "ledger"
HEAD = "head.json"
TOMBSTONE = "tombstone.json"
APPEND_LOCK = "append.lock"
UPKEEP_LOCK = "upkeep.lock"
SEGMENT = re.compile(r"chain-([0-9]{8})\.ndjson")
SMALL_BYTES = 1 << 16
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK_POLL_S = 0.002


def segment_name(number: int) -> str:
    """The file of a segment; numbers begin at 1."""
    return f"chain-{number:08}.ndjson"


def names_in(folder: int | Path) -> list[str]:
    """All names in a folder, which may be given as a descriptor."""
    return os.listdir(folder)  # noqa: PTH208 - a Path cannot be made of a descriptor


def segments_in(folder: int | Path) -> list[int]:
    """The numbers of the segments that are there, oldest first."""
    return sorted(int(found[1]) for name in names_in(folder) if (found := SEGMENT.fullmatch(name)))


def older_in(folder: int | Path) -> list[str]:
    """Files of records from before the chain."""
    return sorted(name for name in names_in(folder) if name.endswith(".ndjson") and not SEGMENT.fullmatch(name))


def open_folder(state: Path) -> int:
    """A descriptor of the ledger's folder, which is made if need be and is closed to everybody else.

    Raises:
        OSError: it cannot be made, or is no folder. CannotWrite: it belongs to another user.
    """
    folder = state / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened = os.open(folder, FOLDER_FLAGS)
    facts = os.fstat(opened)
    if facts.st_uid != os.geteuid():
        os.close(opened)
        raise CannotWrite(f"cannot record in {folder}", f"it belongs to user {facts.st_uid}", f"ls -ld {folder}")
    if stat.S_IMODE(facts.st_mode) != 0o700:
        os.fchmod(opened, 0o700)
    return opened


def open_to_read(name: str, folder: int | Path) -> int:
    """A regular file of the ledger, for reading.

    Raises:
        OSError: it is not there, or is none.
    """
    if isinstance(folder, Path):
        name, within = str(folder / name), None
    else:
        within = folder
    opened = os.open(name, READ_FLAGS, dir_fd=within)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(22, "not a regular file", name)
    return opened


def open_to_append(name: str, folder: int, *, new: bool = False) -> int:
    """A segment, for appending and for reading its end back; `new`: it must not be there yet."""
    flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags | (os.O_CREAT | os.O_EXCL if new else 0), 0o600, dir_fd=folder)


def read_small(name: str, folder: int | Path) -> bytes | None:
    """A small file, whole; None where it is not there."""
    try:
        opened = open_to_read(name, folder)
    except FileNotFoundError:
        return None
    with os.fdopen(opened, "rb") as file:
        return file.read(SMALL_BYTES)


def replace(name: str, content: bytes, folder: int, *, suffix: str = "new") -> None:
    """Put a file in the place of another, whole and durable: written beside, fsync(2), renamed. At any instant one of them is there.

    Two who may be at it at once have each their own `suffix`: whoever begins a chain holds another lock than whoever goes on with it.

    Raises:
        OSError: the disk is full; what was there stays.
    """
    beside = f".{name}.{suffix}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(beside, flags, 0o600, dir_fd=folder)
    try:
        try:
            write_whole(opened, content)
            os.fsync(opened)
        finally:
            os.close(opened)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise


def write_whole(opened: int, content: bytes) -> None:
    """All of it, or the errno that stopped it: a short write says only that something is wrong (write(2))."""
    left = memoryview(content)
    while left:
        left = left[os.write(opened, left) :]


@contextmanager
def locked(lock: int, wait_s: float, folder: Path) -> Iterator[None]:
    """Hold an flock(2), which ends with the process that holds it.

    Raises:
        CannotWrite: somebody else has held it for `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CannotWrite(
                    f"cannot record in {folder}",
                    f"another agentscope has held its lock for {wait_s:g} s",
                    f"fuser -v {folder}/{APPEND_LOCK}",
                ) from None
            time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def alone(folder: int, wait_s: float, path: Path) -> Iterator[None]:
    """Be the only process that signs or removes. Those that append go on meanwhile.

    Raises:
        OSError, CannotWrite: as for `locked`.
    """
    lock = os.open(UPKEEP_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with locked(lock, wait_s, path):
            yield
    finally:
        os.close(lock)


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()
